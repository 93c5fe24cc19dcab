//! Namespaces of a run.

use std::hash::{BuildHasher, RandomState};

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::request::{is_answer, limited};

/// The label that names the run a namespace belongs to.
pub const RUN_LABEL: &str = "sidecheck.dev/run";
/// Who applies objects, for server-side apply.
pub(crate) const MANAGER: &str = "sidecheck";

/// The label that names the Pod Security Standard which a namespace enforces.
const STANDARD_LABEL: &str = "pod-security.kubernetes.io/enforce";

/// Makes a namespace for the run, in which Pods can be created that keep to the Pod Security Standard, if one is named; false if there is a
/// namespace of that name already.
pub(crate) async fn create(client: &Client, run: &str, name: &str, standard: Option<&str>) -> anyhow::Result<bool> {
    let mut labels = json!({RUN_LABEL: run, "app.kubernetes.io/managed-by": MANAGER});
    if let Some(standard) = standard {
        labels[STANDARD_LABEL] = standard.into();
    }
    let object: Namespace = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}))?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let created = limited("create a namespace", namespaces.create(&PostParams::default(), &object)).await;
    if let Err(error) = created {
        return if is_answer(&error, &[409]) {
            Ok(false)
        } else {
            Err(error)
        };
    }
    // The cluster makes this account too, a moment later; Pods are refused until it exists. No Pod here needs its token.
    let account: ServiceAccount = serde_json::from_value(json!({
        "metadata": {"name": "default"},
        "automountServiceAccountToken": false,
    }))?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
    let apply = PatchParams::apply(MANAGER).force();
    limited(
        "create the service account",
        accounts.patch("default", &apply, &Patch::Apply(&account)),
    )
    .await?;
    Ok(true)
}

/// A unique number that nobody can guess: every hasher of the standard library has its own random keys.
pub(crate) fn unique() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
