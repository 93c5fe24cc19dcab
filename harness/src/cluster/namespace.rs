//! Namespaces of a run.

use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::sleep;

use super::request::{is_answer, limited};
use crate::fixture::PodSecurity;
use crate::patience;

/// The label that names the run a namespace belongs to.
pub const RUN_LABEL: &str = "sidecheck.dev/run";
/// Who applies objects, for server-side apply.
pub(crate) const MANAGER: &str = "sidecheck";

/// The label that names the Pod Security Standard which a namespace enforces.
const STANDARD_LABEL: &str = "pod-security.kubernetes.io/enforce";

/// Makes a namespace for the run, in which Pods can be created that keep to the Pod Security Standard, whatever the cluster's default is;
/// false if there is a namespace of that name already.
///
/// # Errors
/// The API server refuses.
pub async fn create(client: &Client, run: &str, name: &str, standard: PodSecurity) -> anyhow::Result<bool> {
    let labels = json!({
        RUN_LABEL: run,
        STANDARD_LABEL: standard.as_str(),
        "app.kubernetes.io/managed-by": MANAGER,
    });
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

/// An existing namespace that the user has named, for as long as nobody else of the run may use it.
#[derive(Debug)]
pub(crate) struct Lent {
    pub(crate) name: String,
    lock: File,
    /// Holds the time at which the last life with a Service ended there.
    services: PathBuf,
    /// Is there if the namespace is not to be used again in this run.
    retired: PathBuf,
}

impl Lent {
    /// Waits until one of the namespaces is free. `folder` is the run's.
    ///
    /// A resolver may remember for a while where a Service's name led: who needs a `fresh` one gets a namespace in which that is forgotten.
    ///
    /// # Errors
    /// None will be free any more, or the folder cannot be written.
    pub(crate) async fn borrow(folder: &Path, names: &[String], fresh: bool) -> anyhow::Result<Self> {
        let folder = folder.join("namespaces");
        fs::create_dir_all(&folder)?;
        loop {
            let mut retired = 0;
            for name in names {
                let lent = Self {
                    name: name.clone(),
                    lock: File::create(folder.join(format!("{name}.lock")))?,
                    services: folder.join(format!("{name}.services")),
                    retired: folder.join(format!("{name}.retired")),
                };
                match lent.lock.try_lock() {
                    Ok(()) if lent.retired.exists() => retired += 1,
                    Ok(()) if !fresh || lent.has_forgotten_services() => return Ok(lent),
                    Ok(()) | Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => return Err(error).context("a lock cannot be had"),
                }
            }
            ensure!(
                retired < names.len(),
                "every given namespace holds what is to stay or did not go: {}",
                names.join(", ")
            );
            sleep(patience::LOOK_AGAIN).await;
        }
    }

    fn has_forgotten_services(&self) -> bool {
        let ended = fs::metadata(&self.services).and_then(|file| file.modified());
        ended.is_ok_and(|ended| ended.elapsed().unwrap_or_default() > patience::NAMES) || !self.services.exists()
    }

    /// Gives it back. If it is not `clear`, nobody of the run uses it again.
    pub(crate) fn give_back(self, had_services: bool, clear: bool) -> anyhow::Result<()> {
        if had_services {
            File::create(&self.services)?;
        }
        if !clear {
            File::create(&self.retired)?;
        }
        self.lock.unlock()?;
        Ok(())
    }
}

/// A unique number that nobody can guess: every hasher of the standard library has its own random keys.
pub(crate) fn unique() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
