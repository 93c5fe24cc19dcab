//! Objects of any kind.

use anyhow::Context;
use kube::api::{ApiResource, DynamicObject};
use kube::core::{GroupVersionKind, TypeMeta};
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client};
use tokio::time::timeout;

use crate::patience;

/// Groups whose objects of the kinds that fixtures use are namespaced: the API server need not be asked.
const NAMESPACED: [(&str, &[&str]); 3] = [
    (
        "",
        &[
            "Pod",
            "ConfigMap",
            "Secret",
            "Service",
            "ServiceAccount",
            "PersistentVolumeClaim",
        ],
    ),
    ("apps", &["Deployment", "StatefulSet", "DaemonSet"]),
    ("batch", &["Job", "CronJob"]),
];

/// The API for objects of that kind: in the namespace if they are namespaced and one is given, else in the whole cluster.
///
/// # Errors
/// The API server does not know the kind, or does not answer.
pub async fn api(
    client: &Client,
    namespace: &str,
    api_version: &str,
    kind: &str,
) -> anyhow::Result<Api<DynamicObject>> {
    let types = TypeMeta {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
    };
    let gvk = GroupVersionKind::try_from(&types).with_context(|| format!("{api_version} is no API version"))?;
    if NAMESPACED
        .iter()
        .any(|(group, kinds)| *group == gvk.group && kinds.contains(&kind))
    {
        return Ok(namespaced(client, namespace, &ApiResource::from_gvk(&gvk)));
    }
    let what = || format!("cannot find the kind {kind} of {api_version}");
    let (resource, capabilities) = timeout(patience::API, pinned_kind(client, &gvk))
        .await
        .with_context(what)?
        .with_context(what)?;
    Ok(match capabilities.scope {
        Scope::Namespaced => namespaced(client, namespace, &resource),
        Scope::Cluster => Api::all_with(client.clone(), &resource),
    })
}

fn namespaced(client: &Client, namespace: &str, resource: &ApiResource) -> Api<DynamicObject> {
    match namespace {
        "" => Api::all_with(client.clone(), resource),
        name => Api::namespaced_with(client.clone(), name, resource),
    }
}
