//! Namespaces: a few that live as long as the run and are used again, or one for each life.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::Setting;
use super::apply::{self, Applied};
use crate::cluster::namespace::{Lent, create};
use crate::cluster::request::limited;
use crate::fixture::PodSecurity;

/// The label of namespaces whose objects somebody wants to look at.
pub(super) const KEPT_LABEL: &str = "sidecheck.dev/kept";

/// A namespace for one life.
#[derive(Debug)]
pub(super) enum Claim {
    /// One that goes with the life.
    Single(String),
    /// One of the run's that stays for the next life.
    Kept(String),
    /// One that is not ours.
    Lent(Lent),
}

impl Claim {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Single(name) | Self::Kept(name) => name,
            Self::Lent(lent) => &lent.name,
        }
    }

    /// Removes what was created for a life, and the namespace if that goes with it.
    pub(super) async fn clear(
        self,
        client: &Client,
        applied: &[Applied],
        life: &str,
        had_services: bool,
    ) -> anyhow::Result<()> {
        match self {
            Self::Kept(_) => apply::delete(applied, life).await,
            Self::Single(name) => {
                apply::delete_outside(applied).await?;
                delete(client, &name).await
            }
            Self::Lent(lent) => {
                let gone = async {
                    apply::delete(applied, life).await?;
                    apply::wait_until_gone(applied, life).await
                };
                let gone = gone.await;
                lent.give_back(had_services, gone.is_ok())?;
                gone
            }
        }
    }

    /// Leaves what was created for a life, also when the run ends.
    pub(super) async fn keep(self, client: &Client, had_services: bool) -> anyhow::Result<()> {
        let name = match self {
            Self::Single(name) | Self::Kept(name) => name,
            Self::Lent(lent) => return lent.give_back(had_services, false),
        };
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let mark = Patch::Merge(json!({"metadata": {"labels": {KEPT_LABEL: "true"}}}));
        limited(
            "mark the namespace",
            namespaces.patch(&name, &PatchParams::default(), &mark),
        )
        .await?;
        Ok(())
    }
}

/// Finds a namespace for a life. If the user has named some, it is one of these, as soon as nobody else of the run uses it.
///
/// Otherwise it is the first one of this slot that nobody uses, and is made if there is none. Deleting a namespace costs the API server a hundred
/// requests, so a run keeps them; the Pods of an earlier life may still be ending in one, then the next is taken.
///
/// `slot` is a number that no other test that runs at the same time has. Without one, or if the life must not share even names with an earlier
/// one (`fresh`), the namespace is new. It enforces the Pod Security Standard, and is used for no other.
pub(super) async fn claim(
    client: &Client,
    setting: &Setting,
    life: &str,
    fresh: bool,
    standard: PodSecurity,
) -> anyhow::Result<Claim> {
    if !setting.namespaces.is_empty() {
        let lent = Lent::borrow(setting.folder.path(), &setting.namespaces, fresh).await?;
        return Ok(Claim::Lent(lent));
    }
    let run = &setting.run;
    let Some(slot) = &setting.slot else {
        let name = format!("sidecheck-{run}-{life}");
        create(client, run, &name, standard).await?;
        return Ok(Claim::Single(name));
    };
    for number in 0.. {
        // A name has 63 letters at most.
        let letter = &standard.as_str()[..1];
        let name = format!("sidecheck-{run}-{slot}-{letter}{number}");
        if create(client, run, &name, standard).await? || (!fresh && is_free(client, &name).await?) {
            return Ok(Claim::Kept(name));
        }
    }
    unreachable!("there is always a next number")
}

async fn is_free(client: &Client, name: &str) -> anyhow::Result<bool> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), name);
    let any = limited("list the Pods", pods.list(&ListParams::default().limit(1))).await?;
    Ok(any.items.is_empty())
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
