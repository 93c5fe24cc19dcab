//! The namespace of one check's run: made, filled, and discarded without waiting.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use anyhow::Context;
use k8s_openapi::api::core::v1::Namespace as K8sNamespace;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::time::timeout;

use crate::cluster::images;
use crate::cluster::namespace::{self, MANAGER, RUN_LABEL};
use crate::cluster::request::limited;
use crate::patience;
use crate::pod::{Namespace, ScenarioPod};

/// The annotation that tells which check a namespace belongs to.
const CHECK_ANNOTATION: &str = "sidecheck.dev/check";
/// Makes the namespace for one run of a check and watches it.
pub(super) async fn create(client: &Client, run: &str, check: &str) -> anyhow::Result<Arc<Namespace>> {
    let name = namespace::create(client, run, &name(run, check), &[(CHECK_ANNOTATION, check)]).await?;
    Ok(Namespace::watch(client.clone(), &name))
}

/// A name that is unique in the cluster and tells a reader what runs there; at most 63 characters.
fn name(run: &str, check: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (run, check).hash(&mut hasher);
    let readable: String = check
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
        .take(38)
        .collect();
    format!(
        "sidecheck-{}-{:08x}",
        readable.trim_end_matches('-'),
        hasher.finish() as u32
    )
}

/// Applies the objects in their order, by server-side apply.
pub(super) async fn apply(namespace: &Namespace, objects: Vec<Value>) -> anyhow::Result<()> {
    for mut object in objects {
        images::readdress(&mut object);
        let object: DynamicObject = serde_json::from_value(object)?;
        let types = object.types.clone().context("an object has a kind")?;
        let api = api_for(&namespace.client, &namespace.name, &types.api_version, &types.kind);
        let what = format!("apply {} {}", types.kind, object.name_any());
        limited(
            &what,
            api.patch(
                &object.name_any(),
                &PatchParams::apply(MANAGER).force(),
                &Patch::Apply(&object),
            ),
        )
        .await?;
    }
    Ok(())
}

/// Waits until every Pod of the fixture is ready.
pub(super) async fn all_ready(namespace: &Arc<Namespace>, subject: &ScenarioPod) -> anyhow::Result<()> {
    let pods = limited("list the Pods", namespace.api().list(&ListParams::default())).await?;
    futures::future::try_join_all(pods.items.iter().map(|pod| {
        let other = subject.other(&pod.name_any());
        async move { other.ready().await }
    }))
    .await?;
    Ok(())
}

/// The API for any kind of namespaced object.
pub(crate) fn api_for(client: &Client, namespace: &str, api_version: &str, kind: &str) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// Asks for the deletion of the namespace and of its Pods; nobody waits for it.
///
/// The cluster first looks at a deleted namespace after five seconds, and then again and again while there are Pods, each time with
/// requests by the dozen. Pods that have gone by then spare it that, and stop using the node at once.
pub(super) async fn discard(namespace: &Namespace) {
    let namespaces: Api<K8sNamespace> = Api::all(namespace.client.clone());
    let soon = DeleteParams::background().grace_period(1);
    let deletion = async {
        // Where this fails, the namespace's own deletion takes the Pods along.
        let _ = namespace.api().delete_collection(&soon, &ListParams::default()).await;
        namespaces.delete(&namespace.name, &DeleteParams::background()).await
    };
    if let Err(error) = limited("delete the namespace", deletion).await {
        tracing::warn!(
            namespace = namespace.name,
            "left behind, `sidecheck clean` removes it: {error:#}"
        );
    }
}

/// Asks for the deletion of every namespace of the run, or of every run where none is given; returns their names.
///
/// # Errors
/// The API server refuses.
pub async fn remove_namespaces(client: &Client, run: Option<&str>) -> anyhow::Result<Vec<String>> {
    let namespaces: Api<K8sNamespace> = Api::all(client.clone());
    let left = limited("list namespaces", namespaces.list(&of_run(run))).await?;
    let names: Vec<String> = left.iter().map(ResourceExt::name_any).collect();
    for name in &names {
        match namespaces.delete(name, &DeleteParams::background()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            Err(error) => return Err(error).with_context(|| format!("cannot delete the namespace {name}")),
        }
    }
    Ok(names)
}

/// Waits until the run's namespaces are gone.
///
/// # Errors
/// Some are still there after [`patience::CLEAN_UP`]: their names, and what the API server says holds them.
pub async fn wait_until_gone(client: &Client, run: Option<&str>, limit: std::time::Duration) -> anyhow::Result<()> {
    let namespaces: Api<K8sNamespace> = Api::all(client.clone());
    let gone = async {
        loop {
            let left = namespaces.list(&of_run(run)).await?;
            if left.items.is_empty() {
                return Ok::<_, kube::Error>(());
            }
            tokio::time::sleep(patience::LOOK_AGAIN * 3).await;
        }
    };
    if let Ok(gone) = timeout(limit, gone).await {
        return Ok(gone?);
    }
    let left = namespaces.list(&of_run(run)).await?;
    let held: Vec<String> = left.iter().map(|namespace| stuck(namespace, limit)).collect();
    anyhow::bail!("{}", held.join("\n"))
}

fn stuck(namespace: &K8sNamespace, limit: std::time::Duration) -> String {
    let why: Vec<String> = namespace
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .filter(|condition| condition.status == "True")
        .filter_map(|condition| condition.message.clone())
        .collect();
    format!(
        "the namespace {} was not deleted within {limit:?}: {}",
        namespace.name_any(),
        if why.is_empty() {
            "no reason is given".to_owned()
        } else {
            why.join("; ")
        }
    )
}

fn of_run(run: Option<&str>) -> ListParams {
    ListParams::default().labels(&match run {
        Some(run) => format!("{RUN_LABEL}={run}"),
        None => RUN_LABEL.to_owned(),
    })
}
