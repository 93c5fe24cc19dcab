//! Whether the Pod is admitted, and whether the one that runs is the one that was applied.
//!
//! Webhooks and policies change Pods on admission, and a server drops fields that it does not know. A verdict about such a Pod would be one
//! about something else.

use serde_json::{Map, Value};

use super::apply::pod_of;
use crate::finding::Finding;
use crate::fixture::{PodSecurity, Shape};

/// The lists of containers of a Pod's spec.
const CONTAINERS: [&str; 2] = ["initContainers", "containers"];

/// What it means that an object was not created: trouble, unless its namespace allows less than is `needed`.
pub(super) fn refused(error: anyhow::Error, namespace: &str, needed: PodSecurity) -> Finding {
    let Some(kube::Error::Api(status)) = error.downcast_ref() else {
        return error.into();
    };
    match violated(&status.message).filter(|_| status.code == 403) {
        Some((allowed, violations)) if allowed < needed => Finding::Skipped(format!(
            "it needs a namespace with the Pod Security Standard “{needed}”, and {namespace} enforces “{allowed}”: {violations}"
        )),
        Some(_) => Finding::Error(error.context(format!(
            "the Pod has more than “{needed}” allows, which the fixture does not ask for; if it was added on admission, exempt namespaces with the \
             label sidecheck.dev/run from the webhook or policy that does it"
        ))),
        // A ValidatingAdmissionPolicy “denied request”, a webhook “denied the request”; each message has its name and its reason.
        None if status.message.contains(" denied ") => Finding::Error(error.context(
            "a policy of the cluster refuses what the check is about; exempt namespaces with the label sidecheck.dev/run from it",
        )),
        None => error.into(),
    }
}

/// The Pod Security Standard that a Pod does not keep to by the API server's message, and how:
/// `pods "app" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostIPC=true)`.
fn violated(message: &str) -> Option<(PodSecurity, &str)> {
    let (_, rest) = message.split_once("violates PodSecurity \"")?;
    let (policy, violations) = rest.split_once("\": ")?;
    let (level, _version) = policy.split_once(':')?;
    let standard = PodSecurity::ALL
        .into_iter()
        .find(|standard| standard.as_str() == level)?;
    Some((standard, violations))
}

/// Compares a live Pod with the object that it was made from. Returns what was added, for the reader of the report.
///
/// # Errors
/// The Pod is another one than what was applied: how. That a server does not keep a native sidecar native means that it does not have them.
pub(super) fn compare(
    applied: &Value,
    live: &Value,
    shape: Shape,
    sidecars: &[String],
) -> Result<Vec<String>, Finding> {
    let Some(wanted) = pod_of(applied) else {
        return Ok(Vec::new());
    };
    let spec = &live["spec"];
    if shape == Shape::Native {
        for sidecar in sidecars {
            if let Some(container) = named(&wanted["initContainers"], sidecar)
                && container["restartPolicy"] == "Always"
            {
                is_native(spec, sidecar)?;
            }
        }
    }
    let mut added = Vec::new();
    for list in CONTAINERS {
        for container in spec[list].as_array().into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default();
            let ours = CONTAINERS
                .iter()
                .any(|list| wanted.get(*list).is_some_and(|list| named(list, name).is_some()));
            if !ours {
                added.push(format!("admission added the container {name} to spec.{list}"));
            }
        }
    }
    match difference("spec", &Value::Object(wanted.clone()), spec) {
        Some(difference) => Err(Finding::Error(anyhow::anyhow!(
            "the Pod was changed on admission, so what runs is not what the check is about: {difference}; exempt namespaces with the label \
             sidecheck.dev/run from the webhook or policy that does it"
        ))),
        None => Ok(added),
    }
}

fn is_native(spec: &Value, sidecar: &str) -> Result<(), Finding> {
    match named(&spec["initContainers"], sidecar) {
        Some(container) if container["restartPolicy"] == "Always" => Ok(()),
        Some(_) => Err(Finding::NotApplicable(format!(
            "the cluster has no native sidecars: it dropped restartPolicy: Always of the init container {sidecar}"
        ))),
        None => Err(Finding::Error(anyhow::anyhow!(
            "the native sidecar {sidecar} is no init container any more: something moved it on admission"
        ))),
    }
}

fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|item| item["name"] == name)
}

/// The first field of `wanted` that `live` does not have like that. Defaults and additions do not count.
fn difference(path: &str, wanted: &Value, live: &Value) -> Option<String> {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => map_difference(path, wanted, live),
        (Value::Array(wanted), Value::Array(live)) => list_difference(path, wanted, live),
        // An empty map or list says nothing; the server leaves it out.
        (Value::Object(wanted), Value::Null) if wanted.is_empty() => None,
        (Value::Array(wanted), Value::Null) if wanted.is_empty() => None,
        _ if wanted == live => None,
        (Value::Null, _) => None,
        (wanted, Value::Null) => Some(format!("{path} was dropped ({})", short(wanted))),
        (wanted, live) => Some(format!("{path} is {} instead of {}", short(live), short(wanted))),
    }
}

fn map_difference(path: &str, wanted: &Map<String, Value>, live: &Map<String, Value>) -> Option<String> {
    wanted
        .iter()
        .find_map(|(key, value)| difference(&format!("{path}.{key}"), value, live.get(key).unwrap_or(&Value::Null)))
}

fn list_difference(path: &str, wanted: &[Value], live: &[Value]) -> Option<String> {
    if wanted.iter().all(Value::is_object) {
        return wanted.iter().find_map(|item| {
            let key = ["mountPath", "name", "containerPort", "key"]
                .into_iter()
                .find(|key| item[key].is_string() || item[key].is_number());
            let Some(key) = key else {
                return (!live.iter().any(|live| difference(path, item, live).is_none()))
                    .then(|| format!("{path} lacks {}", short(item)));
            };
            let path = format!("{path}[{}]", short(&item[key]));
            match live.iter().find(|live| live[key] == item[key]) {
                Some(live) => difference(&path, item, live),
                None => Some(format!("{path} was dropped")),
            }
        });
    }
    (wanted != live).then(|| {
        let (live, wanted) = (Value::from(live), Value::from(wanted));
        format!("{path} is {} instead of {}", short(&live), short(&wanted))
    })
}

/// A value for a message.
fn short(value: &Value) -> String {
    const SHOWN: usize = 120;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    /// What an API server has said.
    const REFUSAL: &str = r#"pods "app" is forbidden: violates PodSecurity "baseline:latest": privileged (container "main" must not set securityContext.privileged=true)"#;

    fn refusal(code: u16, message: &str, needed: PodSecurity) -> Finding {
        let status = Status {
            code,
            message: message.to_owned(),
            ..Status::default()
        };
        let error = anyhow::Error::from(kube::Error::Api(Box::new(status))).context("cannot create Pod app");
        refused(error, "team-a", needed)
    }

    #[test]
    fn a_namespace_that_allows_less_than_is_needed_skips_the_check() {
        let Finding::Skipped(reason) = refusal(403, REFUSAL, PodSecurity::Privileged) else {
            panic!("not skipped");
        };
        assert_eq!(
            reason,
            "it needs a namespace with the Pod Security Standard “privileged”, and team-a enforces “baseline”: \
             privileged (container \"main\" must not set securityContext.privileged=true)"
        );
    }

    #[rstest]
    #[case::more_than_it_asks_for(403, REFUSAL, PodSecurity::Baseline)]
    #[case::another_refusal(403, "pods \"app\" is forbidden: exceeded quota", PodSecurity::Privileged)]
    #[case::another_answer(500, REFUSAL, PodSecurity::Privileged)]
    fn any_other_refusal_is_trouble(#[case] code: u16, #[case] message: &str, #[case] needed: PodSecurity) {
        let Finding::Error(error) = refusal(code, message, needed) else {
            panic!("no error");
        };
        assert!(format!("{error:#}").contains(message), "{error:#}");
    }

    fn applied() -> Value {
        json!({"kind": "Pod", "spec": {
            "initContainers": [{"name": "shipper", "image": "a", "restartPolicy": "Always"}],
            "containers": [{"name": "main", "image": "b", "args": ["one", "two"], "securityContext": {"privileged": true}}],
            "volumes": [{"name": "logs", "emptyDir": {}}],
        }})
    }

    fn live(change: impl FnOnce(&mut Value)) -> Result<Vec<String>, Finding> {
        let mut live = applied();
        live["spec"]["nodeName"] = "node".into();
        live["spec"]["containers"][0]["imagePullPolicy"] = "IfNotPresent".into();
        change(&mut live["spec"]);
        compare(&applied(), &live, Shape::Native, &["shipper".to_owned()])
    }

    #[test]
    fn defaults_do_not_count() {
        assert!(live(|_| {}).expect("no difference").is_empty());
    }

    #[test]
    fn an_added_container_is_named() {
        let added = live(|spec| {
            spec["containers"]
                .as_array_mut()
                .expect("a list")
                .insert(0, json!({"name": "mesh"}))
        });
        assert_eq!(
            added.expect("no difference"),
            ["admission added the container mesh to spec.containers"]
        );
    }

    #[rstest]
    #[case(
        "/containers/0/securityContext",
        Value::Null,
        "spec.containers[main].securityContext was dropped"
    )]
    #[case("/containers/0/image", json!("mirror/b"), "spec.containers[main].image is mirror/b instead of b")]
    #[case("/containers/0/args/1", json!("three"), "spec.containers[main].args is [\"one\",\"three\"] instead of [\"one\",\"two\"]")]
    #[case("/volumes", json!([]), "spec.volumes[logs] was dropped")]
    fn a_change_is_an_error_that_names_it(#[case] path: &str, #[case] value: Value, #[case] expected: &str) {
        let finding = live(|spec| *spec.pointer_mut(path).expect("a field") = value).expect_err("a change");
        let Finding::Error(error) = finding else {
            panic!("{finding:?}")
        };
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn a_server_without_native_sidecars_is_told_apart() {
        let dropped = live(|spec| {
            spec["initContainers"][0]
                .as_object_mut()
                .expect("a map")
                .remove("restartPolicy");
        });
        assert!(matches!(dropped, Err(Finding::NotApplicable(reason)) if reason.contains("restartPolicy")));
        let moved = live(|spec| {
            let sidecar = spec["initContainers"].as_array_mut().expect("a list").remove(0);
            spec["containers"].as_array_mut().expect("a list").push(sidecar);
        });
        assert!(matches!(moved, Err(Finding::Error(_))));
    }
}
