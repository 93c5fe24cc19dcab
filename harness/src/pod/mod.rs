//! Typed handles for what runs in a check's namespace: Pods, containers, their logs, and HTTP to them.

mod container;
mod http;
mod log;
pub mod state;
mod wait;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::watch;

use crate::patience;
use crate::report::model::Measurement;
use crate::scenario::Finding;
use crate::timeline::Timeline;
use log::Follower;
use state::{PodState, Pods};

pub use container::{Container, ExecOutput, Identity, Run};
pub use http::{Answer, Http};
pub use log::{Line, Printed};
pub use wait::eventually;

/// The namespace of one check's run: its Pods are watched and their logs followed from the beginning.
pub struct Namespace {
    pub(crate) client: Client,
    pub(crate) name: String,
    pods: watch::Receiver<Pods>,
    followers: Mutex<BTreeMap<(String, String), Arc<Follower>>>,
    measurements: Mutex<Vec<Measurement>>,
}

impl std::fmt::Debug for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Namespace").field(&self.name).finish()
    }
}

impl Namespace {
    /// Watches the namespace `name`, which exists.
    pub(crate) fn watch(client: Client, name: &str) -> Arc<Self> {
        let pods = state::watch_pods(Api::namespaced(client.clone(), name));
        let namespace = Arc::new(Self {
            client,
            name: name.to_owned(),
            pods: pods.clone(),
            followers: Mutex::default(),
            measurements: Mutex::default(),
        });
        tokio::spawn(follow_all(Arc::downgrade(&namespace), pods));
        namespace
    }

    pub(crate) fn api(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// What the watch shows at this moment.
    pub(crate) fn pods(&self) -> Pods {
        self.pods.borrow().clone()
    }

    fn follower(&self, pod: &str, container: &str) -> Arc<Follower> {
        let key = (pod.to_owned(), container.to_owned());
        let mut followers = self.followers.lock().expect("no holder panics");
        Arc::clone(
            followers
                .entry(key)
                .or_insert_with(|| Follower::start(self.api(), self.pods.clone(), pod, container)),
        )
    }

    /// What the check has measured so far.
    pub(crate) fn measurements(&self) -> Vec<Measurement> {
        self.measurements.lock().expect("no holder panics").clone()
    }

    /// What every container of the namespace has printed so far, by Pod and container.
    pub(crate) fn printed(&self) -> Vec<(String, String, Printed)> {
        let followers = self.followers.lock().expect("no holder panics");
        followers
            .iter()
            .map(|((pod, container), follower)| (pod.clone(), container.clone(), follower.printed.borrow().clone()))
            .collect()
    }
}

/// Follows the log of every container that appears, so that nothing is lost whatever happens to it.
async fn follow_all(namespace: std::sync::Weak<Namespace>, mut pods: watch::Receiver<Pods>) {
    while pods.changed().await.is_ok() {
        let Some(namespace) = namespace.upgrade() else { break };
        let seen = pods.borrow_and_update().clone();
        for state in seen.all() {
            let name = state.pod.metadata.name.as_deref().unwrap_or_default();
            for container in state::container_names(&state.pod) {
                namespace.follower(name, &container);
            }
        }
    }
}

/// The Pod that a check is about, and its namespace.
#[derive(Clone, Debug)]
pub struct ScenarioPod {
    pub(crate) namespace: Arc<Namespace>,
    name: String,
    main: String,
    sidecars: Vec<String>,
}

impl ScenarioPod {
    pub(crate) fn new(namespace: Arc<Namespace>, name: &str, main: &str, sidecars: &[String]) -> Self {
        Self {
            namespace,
            name: name.to_owned(),
            main: main.to_owned(),
            sidecars: sidecars.to_vec(),
        }
    }

    /// The Pod's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The main container.
    pub fn main(&self) -> Container {
        self.container(&self.main)
    }

    /// The sidecar; the first one where there are several.
    pub fn sidecar(&self) -> Container {
        self.container(self.sidecars.first().map_or("", String::as_str))
    }

    /// The container of that name.
    pub fn container(&self, name: &str) -> Container {
        Container::new(Arc::clone(&self.namespace), &self.name, name)
    }

    /// Another Pod of the fixture; its only container, or the one that is called like the Pod, is its main one.
    pub fn other(&self, name: &str) -> Self {
        Self::new(Arc::clone(&self.namespace), name, name, &[])
    }

    /// HTTP to a port of this Pod, through a port that is forwarded to this machine. It reaches the Pod's loopback interface.
    ///
    /// # Errors
    /// No local port can be opened.
    pub async fn http(&self, port: u16) -> anyhow::Result<Http> {
        Http::forward(self.namespace.api(), &self.name, port).await
    }

    /// The Pod's IP address.
    ///
    /// # Errors
    /// It has none.
    pub fn ip(&self) -> anyhow::Result<String> {
        self.state()
            .and_then(|state| state.pod.status?.pod_ip)
            .with_context(|| format!("Pod {} has no IP: {}", self.name, self.describe()))
    }

    /// The latest known state.
    pub fn state(&self) -> Option<PodState> {
        self.namespace.pods().get(&self.name).cloned()
    }

    /// The latest known state in one line.
    pub fn describe(&self) -> String {
        state::describe(self.state().as_ref())
    }

    /// What the containers recorded so far.
    pub fn timeline(&self) -> Timeline {
        let events = self
            .namespace
            .printed()
            .into_iter()
            .filter(|(pod, _, _)| *pod == self.name)
            .flat_map(|(_, container, printed)| printed.events(&container))
            .collect();
        Timeline::new(events)
    }

    /// Waits until the Pod is ready.
    ///
    /// # Errors
    /// It does not become ready: an error that tells every container's state, and the last words of one that fails.
    pub async fn ready(&self) -> anyhow::Result<()> {
        wait::ready(&self.namespace, &self.name).await
    }

    /// What is wrong with a container that crashes again and again, with its last words.
    pub(crate) fn crashing(&self) -> Option<String> {
        wait::crashing(&self.namespace, &self.name)
    }

    /// Waits until the Pod's state satisfies `condition`; `what` completes the sentence “waited for …”.
    ///
    /// # Errors
    /// It does not within [`patience::REACTION`].
    pub async fn until(&self, what: &str, condition: impl Fn(&PodState) -> bool) -> anyhow::Result<PodState> {
        Ok(wait::until(&self.namespace, &self.name, what, patience::REACTION, condition).await?)
    }

    /// Asks for the Pod's deletion with its own grace period, and does not wait for it.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn delete(&self) -> anyhow::Result<()> {
        self.namespace
            .api()
            .delete(&self.name, &DeleteParams::default())
            .await
            .with_context(|| format!("cannot delete Pod {}", self.name))?;
        Ok(())
    }

    /// Waits until the Pod is gone and its logs were read to their end; returns its last state.
    ///
    /// # Errors
    /// It is still there after its grace period and [`patience::DELETION`].
    pub async fn gone(&self) -> anyhow::Result<PodState> {
        let grace = self
            .state()
            .and_then(|state| state.pod.spec?.termination_grace_period_seconds)
            .unwrap_or(30);
        let limit = patience::DELETION + Duration::from_secs(grace.unsigned_abs());
        let state = wait::until(&self.namespace, &self.name, "its deletion", limit, |state| {
            state.deleted
        })
        .await?;
        for container in state::container_names(&state.pod) {
            self.container(&container).log_ended().await?;
        }
        Ok(state)
    }

    /// Deletes the Pod and waits until it is gone.
    ///
    /// # Errors
    /// Like [`Self::delete`] and [`Self::gone`].
    pub async fn deleted(&self) -> anyhow::Result<PodState> {
        self.delete().await?;
        self.gone().await
    }

    /// Creates a Pod like this one under another name and on the same node, where it would find what this one left there, and waits until
    /// it is ready.
    ///
    /// # Errors
    /// The API server refuses, or like [`Self::ready`].
    pub async fn successor(&self) -> anyhow::Result<Self> {
        let mut pod = self.state().context("the Pod was not seen yet")?.pod;
        let name = format!("{}-successor", self.name);
        pod.metadata = ObjectMeta {
            name: Some(name.clone()),
            labels: pod.metadata.labels,
            ..ObjectMeta::default()
        };
        pod.status = None;
        self.namespace
            .api()
            .create(&PostParams::default(), &pod)
            .await
            .with_context(|| format!("cannot create Pod {name}"))?;
        let successor = Self::new(Arc::clone(&self.namespace), &name, &self.main, &self.sidecars);
        successor.ready().await?;
        Ok(successor)
    }

    /// Applies a JSON merge patch to an object of the namespace: `("v1", "ConfigMap", "page", …)`.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn patch(&self, api_version: &str, kind: &str, name: &str, patch: &Value) -> anyhow::Result<()> {
        let api = crate::scenario::api_for(&self.namespace.client, &self.namespace.name, api_version, kind);
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .with_context(|| format!("cannot patch {kind} {name}"))?;
        Ok(())
    }

    /// Changes the image of one container, wherever it is declared.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn set_image(&self, container: &Container, image: &str) -> anyhow::Result<()> {
        let state = self.state().context("the Pod was not seen yet")?;
        let spec = state.pod.spec.context("a Pod has a spec")?;
        let native = spec
            .init_containers
            .iter()
            .flatten()
            .any(|candidate| candidate.name == container.name());
        let list = if native { "initContainers" } else { "containers" };
        let image = crate::cluster::images::address(image);
        let patch = serde_json::json!({"spec": {list: [{"name": container.name(), "image": image}]}});
        self.namespace
            .api()
            .patch(&self.name, &PatchParams::default(), &Patch::Strategic(patch))
            .await
            .with_context(|| format!("cannot change the image of {}", container.name()))?;
        Ok(())
    }

    /// Puts an annotation on the Pod: the kubelet then looks at the Pod anew, and at its ConfigMaps and Secrets too.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn nudge(&self) -> anyhow::Result<()> {
        let now = tokio::time::Instant::now();
        let patch = serde_json::json!({"metadata": {"annotations": {"sidecheck.dev/nudged": format!("{now:?}")}}});
        self.patch("v1", "Pod", &self.name, &patch).await
    }

    /// Puts a duration into the report, where a reader may want to know it; no outcome depends on it.
    pub fn measured(&self, name: &str, duration: Duration) {
        let measurement = Measurement {
            name: name.to_owned(),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        };
        let mut measurements = self.namespace.measurements.lock().expect("no holder panics");
        measurements.push(measurement);
    }

    /// The finding that the Pod as a whole does not show what is required.
    pub fn not_met(&self, expected: impl Into<String>, observed: impl Into<String>) -> Finding {
        crate::scenario::not_met(&self.main(), expected, observed)
    }
}
