//! Typed handles for what runs in one life of a fixture: Pods, containers, their logs, and HTTP to them.

mod agent;
mod assert;
mod confirm;
mod container;
mod events;
mod exec;
mod follow;
mod http;
mod log;
mod pulse;
mod scene;
pub mod state;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::request::limited;
use crate::cluster::{images, objects};
use crate::patience;
use crate::profile::Profile;
use crate::report::model::Measurement;
use crate::timeline::Timeline;
use http::Connections;
use state::PodState;

pub use agent::{FirstProcess, Identity, Process};
pub use assert::{Expect, Given};
pub use container::{Container, Run};
pub use exec::ExecOutput;
pub use http::{Answer, Http, Unanswered};
pub use log::Line;
pub use scene::{LIFE_LABEL, Scene};
pub use wait::Unready;

/// A Pod of a check: the one that the check is about, or another one of its fixture.
#[derive(Clone, Debug)]
pub struct ScenarioPod {
    scene: Arc<Scene>,
    name: String,
    main: String,
    sidecars: Vec<String>,
    profile: Option<Arc<Profile>>,
}

impl ScenarioPod {
    pub(crate) fn new(scene: Arc<Scene>, name: &str, main: &str, sidecars: &[String]) -> Self {
        Self {
            scene,
            name: name.to_owned(),
            main: main.to_owned(),
            sidecars: sidecars.to_vec(),
            profile: None,
        }
    }

    /// The same Pod, of whose sidecar this is known.
    pub(crate) fn with_profile(self, profile: Option<&Profile>) -> Self {
        Self {
            profile: profile.cloned().map(Arc::new),
            ..self
        }
    }

    /// What is known of the sidecar's image.
    ///
    /// # Errors
    /// The area is no role.
    pub fn profile(&self) -> anyhow::Result<&Profile> {
        self.profile
            .as_deref()
            .context("only the sidecars of roles have a profile")
    }

    /// The Pod's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace that it runs in.
    pub fn namespace(&self) -> &str {
        &self.scene.namespace
    }

    /// The main container.
    pub fn main(&self) -> Container {
        self.container(&self.main)
    }

    /// The sidecar; the first one if there are several.
    pub fn sidecar(&self) -> Container {
        self.container(self.sidecars.first().map_or("", String::as_str))
    }

    /// The container of that name. That there is none is an error of everything that is done with it.
    pub fn container(&self, name: &str) -> Container {
        Container::new(Arc::clone(&self.scene), &self.name, name)
    }

    /// Another Pod of the fixture; its only container, which has the Pod's name, is its main one.
    pub fn other(&self, name: &str) -> Self {
        Self::new(Arc::clone(&self.scene), name, name, &[])
    }

    /// The same Pod by its real name, which a workload gave it.
    pub(crate) fn renamed(&self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self.clone()
        }
    }

    /// HTTP to a port of this Pod through the API server. It reaches the Pod's loopback interface.
    ///
    /// # Errors
    /// No local port can be opened.
    pub async fn http(&self, port: u16) -> anyhow::Result<Http> {
        Http::forward(self.scene.api(), &self.name, port, Connections::One).await
    }

    /// The Pod's IP address.
    ///
    /// # Errors
    /// It has none.
    pub fn ip(&self) -> anyhow::Result<String> {
        let ips = self.ips()?;
        ips.into_iter()
            .next()
            .with_context(|| format!("Pod {} has no IP: {}", self.name, self.describe()))
    }

    /// All of the Pod's IP addresses, one for each version of IP that the cluster has.
    ///
    /// # Errors
    /// The Pod was not seen yet.
    pub fn ips(&self) -> anyhow::Result<Vec<String>> {
        let state = self.state().context("the Pod was not seen yet")?;
        let ips = state.pod.status.and_then(|status| status.pod_ips).unwrap_or_default();
        Ok(ips.into_iter().map(|ip| ip.ip).collect())
    }

    /// The Pod's UID.
    ///
    /// # Errors
    /// The Pod was not seen yet.
    pub fn uid(&self) -> anyhow::Result<String> {
        let uid = self.state().and_then(|state| state.pod.metadata.uid);
        uid.with_context(|| format!("Pod {} was not seen yet", self.name))
    }

    /// The latest known state.
    pub fn state(&self) -> Option<PodState> {
        self.scene.pods().get(&self.name).cloned()
    }

    /// The latest known state in one line.
    pub fn describe(&self) -> String {
        state::describe(self.state().as_ref())
    }

    /// What the containers recorded so far.
    pub fn timeline(&self) -> Timeline {
        self.scene.looks_at_events();
        self.scene.timeline(&self.name)
    }

    /// Waits until the Pod is ready; a role's sidecar has the time that its profile says.
    ///
    /// # Errors
    /// It does not become ready: an [`Unready`] that tells every container's state, and the last words of one that fails.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let startup = match (&self.profile, self.sidecars.first()) {
            (Some(profile), Some(container)) => Some(wait::Startup {
                container,
                limit: profile.startup(),
            }),
            _ => None,
        };
        wait::ready(&self.scene, &self.name, startup).await
    }

    /// Waits until the Pod's state satisfies `condition`; `what` completes the sentence “waited for …”.
    ///
    /// # Errors
    /// It does not within [`patience::REACTION`].
    pub async fn until(&self, what: &str, condition: impl Fn(&PodState) -> bool) -> anyhow::Result<PodState> {
        self.until_within(patience::REACTION, what, condition).await
    }

    async fn until_within(
        &self,
        limit: Duration,
        what: &str,
        condition: impl Fn(&PodState) -> bool,
    ) -> anyhow::Result<PodState> {
        wait::until(&self.scene, &self.name, what, limit, condition)
            .await?
            .map_err(|wait::TimedOut(text)| anyhow::anyhow!(text))
    }

    /// Asks for the Pod's deletion with its own grace period, and does not wait for it. Once is enough: a second call does nothing.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn delete(&self) -> anyhow::Result<()> {
        if self.scene.deletes(&self.name) {
            let what = format!("delete Pod {}", self.name);
            limited(&what, self.scene.api().delete(&self.name, &DeleteParams::default())).await?;
        }
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
        let state = self.until_within(limit, "its deletion", |state| state.deleted).await?;
        for container in state::container_names(&state.pod) {
            self.container(&container).log_ended().await?;
        }
        Ok(state)
    }

    /// Deletes the Pod, unless that was done before, and waits until it is gone.
    ///
    /// # Errors
    /// Like [`Self::delete`] and [`Self::gone`].
    pub async fn deleted(&self) -> anyhow::Result<PodState> {
        self.delete().await?;
        self.gone().await
    }

    /// Applies a JSON merge patch to an object of the namespace: `("v1", "ConfigMap", "page", …)`.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn patch(&self, api_version: &str, kind: &str, name: &str, patch: &Value) -> anyhow::Result<()> {
        let api = objects::api(&self.scene.client, &self.scene.namespace, api_version, kind).await?;
        let (what, merge) = (format!("patch {kind} {name}"), Patch::Merge(patch));
        limited(&what, api.patch(name, &PatchParams::default(), &merge)).await?;
        Ok(())
    }

    /// Changes the image of one container, wherever it is declared, which ends the container.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn set_image(&self, container: &Container, image: &str) -> anyhow::Result<()> {
        container.will_end();
        let spec = self
            .state()
            .and_then(|state| state.pod.spec)
            .context("the Pod was not seen yet")?;
        let mut inits = spec.init_containers.iter().flatten();
        let native = inits.any(|candidate| candidate.name == container.name());
        let list = if native { "initContainers" } else { "containers" };
        let image = images::address(image);
        let patch = Patch::Strategic(json!({"spec": {list: [{"name": container.name(), "image": image}]}}));
        let what = format!("change the image of {}", container.name());
        limited(
            &what,
            self.scene.api().patch(&self.name, &PatchParams::default(), &patch),
        )
        .await?;
        Ok(())
    }

    /// Puts an annotation on the Pod: the kubelet then looks at the Pod once more, and at its ConfigMaps and Secrets too.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn nudge(&self) -> anyhow::Result<()> {
        let now = tokio::time::Instant::now();
        let patch = json!({"metadata": {"annotations": {"sidecheck.dev/nudged": format!("{now:?}")}}});
        self.patch("v1", "Pod", &self.name, &patch).await
    }

    /// Puts a duration into the report, if a reader may want to know it; no outcome depends on it.
    pub fn measured(&self, name: &str, duration: Duration) {
        self.scene.measured(Measurement {
            name: name.to_owned(),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        });
    }

    /// Puts a sentence into the report, if a reader may want to know it; no outcome depends on it.
    pub fn noted(&self, note: String) {
        self.scene.noted(note);
    }

    pub(crate) fn live(&self) -> Option<Pod> {
        Some(self.state()?.pod)
    }
}

impl Container {
    /// Waits until its log was read to the end after the Pod's deletion.
    async fn log_ended(&self) -> anyhow::Result<()> {
        let _waiting = self.waits_for("the end of the log");
        let log = self.scene().log(self.pod(), self.name())?;
        let mut reader = log.reader();
        let ended = async {
            while !log.has_ended() {
                reader.changed().await;
            }
        };
        tokio::time::timeout(patience::API * 2, ended)
            .await
            .with_context(|| format!("the log of {} did not end after its Pod was gone", self.name()))
    }
}
