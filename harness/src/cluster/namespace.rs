//! Namespaces of a run.

use std::fs;
use std::hash::{BuildHasher, RandomState};

use anyhow::Context;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{LocalObjectReference, Namespace, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::request::{is_answer, limited};
use crate::environment;

/// The label that names the run a namespace belongs to.
pub const RUN_LABEL: &str = "sidecheck.dev/run";
/// Who applies objects, for server-side apply.
pub(crate) const MANAGER: &str = "sidecheck";

/// The label that names the Pod Security Standard which a namespace enforces.
const STANDARD_LABEL: &str = "pod-security.kubernetes.io/enforce";

/// The Secret with the credentials of registries that its Pods use
/// (<https://kubernetes.io/docs/tasks/configure-pod-container/pull-image-private-registry/>).
const PULL_SECRET: &str = "sidecheck-pull";

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
    let mut account: ServiceAccount = serde_json::from_value(json!({
        "metadata": {"name": "default"},
        "automountServiceAccountToken": false,
    }))?;
    if let Some(secret) = pull_secret()? {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), name);
        limited(
            "create the pull secret",
            secrets.create(&PostParams::default(), &secret),
        )
        .await?;
        account.image_pull_secrets = Some(vec![LocalObjectReference {
            name: PULL_SECRET.to_owned(),
        }]);
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
    let apply = PatchParams::apply(MANAGER).force();
    limited(
        "create the service account",
        accounts.patch("default", &apply, &Patch::Apply(&account)),
    )
    .await?;
    Ok(true)
}

/// The credentials that the environment names, if it does.
fn pull_secret() -> anyhow::Result<Option<Secret>> {
    let Some(path) = environment::value(environment::PULL_SECRET) else {
        return Ok(None);
    };
    let text = fs::read(&path).with_context(|| format!("the pull secret {path} cannot be read"))?;
    Ok(Some(Secret {
        metadata: ObjectMeta {
            name: Some(PULL_SECRET.to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/dockerconfigjson".to_owned()),
        data: Some([(".dockerconfigjson".to_owned(), ByteString(text))].into()),
        ..Secret::default()
    }))
}

/// A unique number that nobody can guess: every hasher of the standard library has its own random keys.
pub(crate) fn unique() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
