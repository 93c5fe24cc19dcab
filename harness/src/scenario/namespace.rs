//! Namespaces: a few that live as long as the run and are used again, or one for each life.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::timeout;

use crate::cluster::namespace::{RUN_LABEL, create};
use crate::cluster::request::{is_answer, limited};
use crate::patience;

/// The label of namespaces whose objects somebody wants to look at.
const KEPT_LABEL: &str = "sidecheck.dev/kept";

/// A namespace for one life.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) name: String,
    /// Whether it goes with the life, or stays for the next one.
    pub(super) goes: bool,
}

/// Finds the first namespace of this slot that nobody uses, and makes it if there is none. Deleting a namespace costs the API server a hundred
/// requests, so a run keeps them; the Pods of an earlier life may still be ending in one, then the next is taken.
///
/// `slot` is a number that no other test that runs at the same time has. Without one, or if the life must not share even names with an earlier
/// one (`fresh`), the namespace is new. One that enforces a Pod Security Standard is not used for others.
pub(super) async fn claim(
    client: &Client,
    run: &str,
    slot: Option<&str>,
    life: &str,
    fresh: bool,
    standard: Option<&str>,
) -> anyhow::Result<Claim> {
    let Some(slot) = slot else {
        let name = format!("sidecheck-{run}-{life}");
        create(client, run, &name, standard).await?;
        return Ok(Claim { name, goes: true });
    };
    for number in 0.. {
        // A name has 63 letters at most.
        let letter: String = standard.iter().flat_map(|standard| standard.chars().take(1)).collect();
        let name = format!("sidecheck-{run}-{slot}-{letter}{number}");
        if create(client, run, &name, standard).await? || (!fresh && is_free(client, &name).await?) {
            return Ok(Claim { name, goes: false });
        }
    }
    unreachable!("there is always a next number")
}

async fn is_free(client: &Client, name: &str) -> anyhow::Result<bool> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), name);
    let any = limited("list the Pods", pods.list(&ListParams::default().limit(1))).await?;
    Ok(any.items.is_empty())
}

/// Marks the namespace as one that stays when the run ends.
pub(super) async fn keep(client: &Client, name: &str) -> anyhow::Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mark = Patch::Merge(json!({"metadata": {"labels": {KEPT_LABEL: "true"}}}));
    limited(
        "mark the namespace",
        namespaces.patch(name, &PatchParams::default(), &mark),
    )
    .await?;
    Ok(())
}

/// Asks for the deletion of the namespace and does not wait for it.
pub(super) async fn delete(client: &Client, name: &str) -> anyhow::Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    limited(
        "delete the namespace",
        namespaces.delete(name, &DeleteParams::background()),
    )
    .await?;
    Ok(())
}

/// Asks for the deletion of every namespace of the run but those that were kept, or of every namespace of every run if no run is given;
/// returns their names.
///
/// # Errors
/// The API server refuses.
pub async fn remove_namespaces(client: &Client, run: Option<&str>) -> anyhow::Result<Vec<String>> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let left = limited("list namespaces", namespaces.list(&of_run(run))).await?;
    let names: Vec<String> = left.iter().map(ResourceExt::name_any).collect();
    for name in &names {
        match delete(client, name).await {
            Err(error) if !is_answer(&error, &[404, 409]) => return Err(error.context(name.clone())),
            _ => {}
        }
    }
    Ok(names)
}

/// Waits until the run's namespaces are gone.
///
/// # Errors
/// Some are still there after `limit`: their names, and what the API server says holds them.
pub async fn wait_until_gone(client: &Client, run: Option<&str>, limit: std::time::Duration) -> anyhow::Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let of_run = of_run(run);
    let left = || limited("list namespaces", namespaces.list(&of_run));
    let gone = async {
        while !left().await?.items.is_empty() {
            tokio::time::sleep(patience::LOOK_AGAIN * 3).await;
        }
        anyhow::Ok(())
    };
    if let Ok(gone) = timeout(limit, gone).await {
        return gone;
    }
    let held: Vec<String> = left().await?.iter().map(|namespace| stuck(namespace, limit)).collect();
    anyhow::bail!("{}", held.join("\n"))
}

fn stuck(namespace: &Namespace, limit: std::time::Duration) -> String {
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

pub(super) fn of_run(run: Option<&str>) -> ListParams {
    ListParams::default().labels(&match run {
        Some(run) => format!("{RUN_LABEL}={run},!{KEPT_LABEL}"),
        None => RUN_LABEL.to_owned(),
    })
}
