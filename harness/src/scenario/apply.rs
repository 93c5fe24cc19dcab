//! A fixture's objects in the cluster: labelled, created in their order, and removed again.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::leftovers;
use crate::cluster::namespace::{MANAGER, RUN_LABEL, unique};
use crate::cluster::request::{is_answer, limited};
use crate::cluster::{images, objects, placement};
use crate::display::explained;
use crate::patience;
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

/// Puts on the objects what the harness needs: the run's and the life's labels, also in Pod templates, what [`placement::place`] knows, and a
/// nonce for each container that has the agent. Returns the nonces.
///
/// # Errors
/// Like [`placement::place`].
pub(super) fn prepare(objects: &mut Vec<Value>, run: &str, life: &str) -> anyhow::Result<BTreeMap<String, String>> {
    if let Some(secret) = placement::pull_secret()? {
        objects.insert(0, secret);
    }
    let mut nonces = BTreeMap::new();
    for object in objects {
        label(&mut object["metadata"], run, life);
        select_own(object, life);
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
        placement::place(spec)?;
    }
    Ok(nonces)
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

/// Where others have Pods too, a selector finds only those of the life.
fn select_own(object: &mut Value, life: &str) {
    let selector = match object["kind"].as_str() {
        Some("Service") => "/spec/selector",
        Some("NetworkPolicy") => "/spec/podSelector/matchLabels",
        Some("Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "PodDisruptionBudget") => {
            "/spec/selector/matchLabels"
        }
        _ => return,
    };
    let (parent, field) = selector.rsplit_once('/').unwrap_or_default();
    // A Service without a selector has its endpoints from elsewhere.
    let selects = object["kind"] != "Service" || object["spec"]["selector"].is_object();
    if let Some(parent) = object
        .pointer_mut(parent)
        .filter(|parent| selects && parent.is_object())
    {
        parent[field][LIFE_LABEL] = life.into();
    }
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

impl Applied {
    async fn delete(&self) -> anyhow::Result<()> {
        let what = format!("delete {} {}", self.kind, self.name);
        match limited(&what, self.api.delete(&self.name, &DeleteParams::background())).await {
            Err(error) if !is_answer(&error, &[404]) => Err(error),
            _ => Ok(()),
        }
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
pub(super) async fn delete(applied: &[Applied], life: &str) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    let soon = DeleteParams::background().grace_period(1);
    if let Some(pods) = applied.iter().find(|object| object.kind == "Pod") {
        // All at once, also those that a check made itself.
        let of_life = ListParams::default().labels(&format!("{LIFE_LABEL}={life}"));
        let deletion = limited("delete the Pods", pods.api.delete_collection(&soon, &of_life));
        failed.extend(deletion.await.err().map(|error| explained(&error)));
    }
    for object in applied.iter().rev().filter(|object| object.kind != "Pod") {
        failed.extend(object.delete().await.err().map(|error| explained(&error)));
    }
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// Asks for the deletion of those objects of a life that its namespace does not take along.
pub(super) async fn delete_outside(applied: &[Applied]) -> anyhow::Result<()> {
    for object in applied.iter().rev().filter(|object| !object.namespaced) {
        object.delete().await?;
    }
    Ok(())
}

/// Waits until a life's objects are gone, so that another one can have objects of the same names.
///
/// # Errors
/// Some are still there after [`patience::DELETION`]: which, and what holds them.
pub(super) async fn wait_until_gone(applied: &[Applied], life: &str) -> anyhow::Result<()> {
    let of_life = ListParams::default().labels(&format!("{LIFE_LABEL}={life}"));
    let deadline = Instant::now() + patience::DELETION;
    let mut left = Vec::new();
    for object in applied {
        loop {
            // The Pods of a workload, and those that a check made, have the life's label too.
            let listed = limited("list what is left", object.api.list(&of_life)).await?;
            let Some(first) = listed.items.first() else { break };
            if Instant::now() > deadline {
                left.push(leftovers::held(&object.kind, first));
                break;
            }
            sleep(patience::LOOK_AGAIN).await;
        }
    }
    ensure!(left.is_empty(), "{} after {:?}", left.join("; "), patience::DELETION);
    Ok(())
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
        let mut objects = vec![json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"},
            "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {}, "spec": {"containers": [
                {"name": "main", "image": "localhost/sidecheck/agent:v1"},
                {"name": "foreign", "image": "example.com/shipper:2"},
            ]}}},
        })];
        let nonces = prepare(&mut objects, "r1", "l1").expect("prepared");
        let template = &objects[0]["spec"]["template"];
        assert_eq!(template["metadata"]["labels"][LIFE_LABEL], "l1");
        let selector = &objects[0]["spec"]["selector"]["matchLabels"];
        assert_eq!(*selector, json!({"app": "x", LIFE_LABEL: "l1"}));
        assert_eq!(nonces.keys().collect::<Vec<_>>(), ["main"]);
        let containers = &template["spec"]["containers"];
        assert_eq!(containers[0]["env"], json!([{"name": NONCE, "value": nonces["main"]}]));
        assert_eq!(containers[1]["env"], Value::Null);
    }
}
