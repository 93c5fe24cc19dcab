//! What runs leave on a cluster: found by its label, and removed.

use std::time::Duration;

use anyhow::{bail, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt};
use tokio::time::{Instant, sleep};

use super::namespace::{KEPT_LABEL, delete};
use crate::cluster::namespace::RUN_LABEL;
use crate::cluster::objects;
use crate::cluster::request::{is_answer, limited, permitted};
use crate::patience;

/// The kinds of namespaced objects that fixtures may hold, what makes others first.
const NAMESPACED: [(&str, &str); 16] = [
    ("batch/v1", "CronJob"),
    ("batch/v1", "Job"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "ResourceQuota"),
    ("v1", "ServiceAccount"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
];

/// The kinds of cluster-scoped objects that fixtures may hold.
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

/// Where to look for what a run has left, or every run.
#[derive(Clone, Copy)]
pub struct Leftovers<'a> {
    /// The cluster's client.
    pub client: &'a Client,
    /// The run; every one if it is not given, also what was meant to stay.
    pub run: Option<&'a str>,
    /// The existing namespaces to look into; the whole cluster, and the runs' own namespaces, if there are none.
    pub namespaces: &'a [String],
}

impl Leftovers<'_> {
    /// Asks for the deletion of all of it; returns what it was. A namespace goes only if a run has made it.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn remove(&self) -> anyhow::Result<Vec<String>> {
        let mut removed = Vec::new();
        for (kind, object) in self.objects().await? {
            let api = objects::api(self.client, &object.namespace().unwrap_or_default(), &kind.0, &kind.1).await?;
            let what = named(&kind.1, &object);
            let deletion = limited(
                &format!("delete {what}"),
                api.delete(&object.name_any(), &soon(&kind.1)),
            )
            .await;
            match deletion {
                Err(error) if !is_answer(&error, &[404]) => return Err(error),
                _ => removed.push(what),
            }
        }
        for namespace in self.own_namespaces().await? {
            let name = namespace.name_any();
            match delete(self.client, &name).await {
                Err(error) if !is_answer(&error, &[404, 409]) => return Err(error.context(name)),
                _ => removed.push(format!("the namespace {name}")),
            }
        }
        Ok(removed)
    }

    /// Waits until all of it is gone.
    ///
    /// # Errors
    /// Some is still there after `limit`: what it is, and what holds it, as far as the API server says.
    pub async fn wait_until_gone(&self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let namespaces = self.own_namespaces().await?;
            if namespaces.is_empty() && self.namespaces.is_empty() {
                return Ok(());
            }
            // What is in a namespace that goes is in the reasons that it gives.
            let objects = if self.namespaces.is_empty() {
                Vec::new()
            } else {
                self.objects().await?
            };
            let mut left: Vec<String> = namespaces.iter().map(stuck).collect();
            left.extend(objects.iter().map(|(kind, object)| held(&kind.1, object)));
            if left.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "after {limit:?}, {}", left.join("\n"));
            sleep(patience::LOOK_AGAIN * 3).await;
        }
    }

    /// The objects in existing namespaces, and those that belong to none.
    async fn objects(&self) -> anyhow::Result<Vec<((String, String), DynamicObject)>> {
        let own: Vec<String> = self.own_namespaces().await?.iter().map(ResourceExt::name_any).collect();
        let mut found = Vec::new();
        for (api_version, kind) in NAMESPACED.into_iter().chain(CLUSTER_SCOPED) {
            let places: Vec<&str> = match CLUSTER_SCOPED.contains(&(api_version, kind)) {
                false if !self.namespaces.is_empty() => self.namespaces.iter().map(String::as_str).collect(),
                _ => vec![""],
            };
            for place in places {
                // A server that does not know the kind has none of it.
                let Ok(api) = objects::api(self.client, place, api_version, kind).await else {
                    continue;
                };
                let listed = limited(&format!("list objects of the kind {kind}"), api.list(&self.labelled())).await;
                // Who may not list them cannot have made any.
                let listed = permitted(listed)?.map(|list| list.items).unwrap_or_default();
                let others = listed
                    .into_iter()
                    .filter(|object| !own.contains(&object.namespace().unwrap_or_default()));
                found.extend(others.map(|object| ((api_version.to_owned(), kind.to_owned()), object)));
            }
        }
        Ok(found)
    }

    /// The namespaces that runs have made, unless only existing ones are meant.
    async fn own_namespaces(&self) -> anyhow::Result<Vec<Namespace>> {
        if !self.namespaces.is_empty() {
            return Ok(Vec::new());
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let listed = limited("list namespaces", namespaces.list(&self.labelled())).await;
        match permitted(listed)? {
            Some(list) => Ok(list.items),
            None => bail!("this account may not list namespaces: name those to look into with --namespace"),
        }
    }

    fn labelled(&self) -> ListParams {
        ListParams::default().labels(&match self.run {
            Some(run) => format!("{RUN_LABEL}={run},!{KEPT_LABEL}"),
            None => RUN_LABEL.to_owned(),
        })
    }
}

/// That an object is still there, and what holds it.
pub(super) fn held(kind: &str, object: &DynamicObject) -> String {
    let what = named(kind, object);
    match object.finalizers() {
        [] => format!("{what} is still there"),
        finalizers => format!(
            "{what} is held by {}; whoever put it there must remove it",
            finalizers.join(", ")
        ),
    }
}

fn named(kind: &str, object: &DynamicObject) -> String {
    match object.namespace() {
        Some(namespace) => format!("{kind} {} in the namespace {namespace}", object.name_any()),
        None => format!("{kind} {}", object.name_any()),
    }
}

fn soon(kind: &str) -> DeleteParams {
    match kind {
        "Pod" => DeleteParams::background().grace_period(1),
        _ => DeleteParams::background(),
    }
}

fn stuck(namespace: &Namespace) -> String {
    let conditions = namespace
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let why: Vec<String> = conditions
        .filter(|condition| condition.status == "True")
        .filter_map(|condition| condition.message.clone())
        .collect();
    format!(
        "the namespace {} is still there: {}",
        namespace.name_any(),
        if why.is_empty() {
            "no reason is given".to_owned()
        } else {
            why.join("; ")
        }
    )
}
