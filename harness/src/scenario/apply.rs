//! A fixture's objects in the cluster: labelled, created in their order, and removed again.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Map, Value, json};

use crate::cluster::namespace::{MANAGER, RUN_LABEL, unique};
use crate::cluster::request::{is_answer, limited};
use crate::cluster::{images, objects};
use crate::display::explained;
use crate::pod::LIFE_LABEL;

/// The environment variable by which a container's agent proves that its events are its own.
const NONCE: &str = "SIDECHECK_NONCE";

/// An object that was created for a life.
pub(super) struct Applied {
    api: Api<DynamicObject>,
    name: String,
    kind: String,
    namespaced: bool,
}

/// Puts on the objects what the harness needs: the run's and the life's labels, also in Pod templates, the images' addresses, and a nonce for
/// each container that has the agent. Returns the nonces.
pub(super) fn prepare(objects: &mut [Value], run: &str, life: &str) -> BTreeMap<String, String> {
    let mut nonces = BTreeMap::new();
    for object in objects {
        label(&mut object["metadata"], run, life);
        let spec = if object["kind"] == "Pod" {
            &mut object["spec"]
        } else if object["spec"]["template"]["spec"].is_object() {
            label(&mut object["spec"]["template"]["metadata"], run, life);
            &mut object["spec"]["template"]["spec"]
        } else {
            continue;
        };
        for list in ["initContainers", "containers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                give_nonce(container, &mut nonces);
            }
        }
        images::readdress(object);
    }
    nonces
}

fn label(metadata: &mut Value, run: &str, life: &str) {
    let labels = &mut metadata["labels"];
    if !labels.is_object() {
        *labels = json!({});
    }
    labels[RUN_LABEL] = run.into();
    labels[LIFE_LABEL] = life.into();
    labels["app.kubernetes.io/managed-by"] = MANAGER.into();
}

/// Only the project's own images have the agent.
fn give_nonce(container: &mut Value, nonces: &mut BTreeMap<String, String>) {
    let image = container["image"].as_str().unwrap_or_default();
    let (Some(name), true) = (container["name"].as_str(), image.starts_with(images::LOCAL_PREFIX)) else {
        return;
    };
    let nonce = nonces
        .entry(name.to_owned())
        .or_insert_with(|| format!("{:016x}", unique()))
        .clone();
    if !container["env"].is_array() {
        container["env"] = json!([]);
    }
    if let Some(env) = container["env"].as_array_mut() {
        env.push(json!({"name": NONCE, "value": nonce}));
    }
}

/// Creates one object. It must be new: what an earlier life left behind would be taken for this one's.
pub(super) async fn create(client: &Client, namespace: &str, object: Value) -> anyhow::Result<Applied> {
    let object: DynamicObject = serde_json::from_value(object)?;
    let types = object.types.clone().context("an object has a kind")?;
    let api = objects::api(client, namespace, &types.api_version, &types.kind).await?;
    let what = format!("create {} {}", types.kind, object.name_any());
    let created = limited(&what, api.create(&PostParams::default(), &object)).await?;
    Ok(Applied {
        api,
        name: object.name_any(),
        kind: types.kind,
        namespaced: created.namespace().is_some(),
    })
}

/// Asks for the deletion of a life's objects, the last ones first, and does not wait for it. What cannot be deleted is reported.
pub(super) async fn delete(applied: Vec<Applied>, life: &str, with_namespace: bool) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    let soon = DeleteParams::background().grace_period(1);
    if let Some(pods) = applied.iter().find(|object| object.kind == "Pod") {
        // All at once, also those that a check made itself.
        let of_life = ListParams::default().labels(&format!("{LIFE_LABEL}={life}"));
        let deletion = limited("delete the Pods", pods.api.delete_collection(&soon, &of_life));
        failed.extend(deletion.await.err().map(|error| explained(&error)));
    }
    for object in applied.iter().rev() {
        // A namespace takes what is in it along.
        if object.kind == "Pod" || (with_namespace && object.namespaced) {
            continue;
        }
        let what = format!("delete {} {}", object.kind, object.name);
        match limited(&what, object.api.delete(&object.name, &DeleteParams::background())).await {
            Err(error) if !is_answer(&error, &[404]) => failed.push(explained(&error)),
            _ => {}
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// The kinds of cluster-scoped objects that fixtures may hold; `clean` looks for what a killed run left of them.
const CLUSTER_SCOPED: [(&str, &str); 11] = [
    ("v1", "PersistentVolume"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy"),
    ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicyBinding"),
    ("node.k8s.io/v1", "RuntimeClass"),
    ("scheduling.k8s.io/v1", "PriorityClass"),
];

/// Removes the cluster-scoped objects of a run, or of every run if none is given; returns their names.
///
/// # Errors
/// The API server refuses.
pub async fn remove_cluster_objects(client: &Client, run: Option<&str>) -> anyhow::Result<Vec<String>> {
    let mut removed = Vec::new();
    for (api_version, kind) in CLUSTER_SCOPED {
        // A server that does not know the kind has none of it.
        let Ok(api) = objects::api(client, "", api_version, kind).await else {
            continue;
        };
        let left = match limited(&format!("list {kind}s"), api.list(&super::namespace::of_run(run))).await {
            Ok(left) => left,
            // Who may not list them cannot have made any.
            Err(error) if is_answer(&error, &[403]) => continue,
            Err(error) => return Err(error),
        };
        for object in left {
            let name = object.name_any();
            limited(
                &format!("delete {kind} {name}"),
                api.delete(&name, &DeleteParams::background()),
            )
            .await?;
            removed.push(format!("{kind} {name}"));
        }
    }
    Ok(removed)
}

/// The spec of the Pod that an object is or makes; none if it makes none.
pub(super) fn pod_of(object: &Value) -> Option<&Map<String, Value>> {
    match object["kind"].as_str()? {
        "Pod" => object["spec"].as_object(),
        _ => object["spec"]["template"]["spec"].as_object(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_labelled_and_its_own_containers_get_a_nonce() {
        let mut objects = [json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"},
            "spec": {"template": {"metadata": {}, "spec": {"containers": [
                {"name": "main", "image": "localhost/sidecheck/agent:v1"},
                {"name": "foreign", "image": "example.com/shipper:2"},
            ]}}},
        })];
        let nonces = prepare(&mut objects, "r1", "l1");
        let template = &objects[0]["spec"]["template"];
        assert_eq!(template["metadata"]["labels"][LIFE_LABEL], "l1");
        assert_eq!(nonces.keys().collect::<Vec<_>>(), ["main"]);
        let containers = &template["spec"]["containers"];
        assert_eq!(containers[0]["env"], json!([{"name": NONCE, "value": nonces["main"]}]));
        assert_eq!(containers[1]["env"], Value::Null);
    }
}
