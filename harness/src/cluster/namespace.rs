//! Namespaces of a run.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::request::limited;

/// The label that names the run a namespace belongs to.
pub const RUN_LABEL: &str = "sidecheck.dev/run";
/// Who applies objects, for server-side apply.
pub(crate) const MANAGER: &str = "sidecheck";

/// Makes a namespace for the run, in which Pods can be created; returns its name. A `name` that ends with `-` is completed by the cluster.
pub(crate) async fn create(
    client: &Client,
    run: &str,
    name: &str,
    annotations: &[(&str, &str)],
) -> anyhow::Result<String> {
    let key = if name.ends_with('-') { "generateName" } else { "name" };
    let annotations: serde_json::Map<String, serde_json::Value> = annotations
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).into()))
        .collect();
    let object: Namespace = serde_json::from_value(json!({
        "metadata": {
            key: name,
            "labels": {RUN_LABEL: run, "app.kubernetes.io/managed-by": MANAGER},
            "annotations": annotations,
        },
    }))?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let created = limited("create a namespace", namespaces.create(&PostParams::default(), &object)).await?;
    let name = created.name_any();
    // The cluster makes this account too, a moment later; Pods are refused until it exists. No Pod here needs its token.
    let account: ServiceAccount = serde_json::from_value(json!({
        "metadata": {"name": "default"},
        "automountServiceAccountToken": false,
    }))?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &name);
    let apply = PatchParams::apply(MANAGER).force();
    limited(
        "create the service account",
        accounts.patch("default", &apply, &Patch::Apply(&account)),
    )
    .await?;
    Ok(name)
}
