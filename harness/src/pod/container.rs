//! One container of a Pod.

use std::sync::Arc;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::ContainerStatus;

use super::log::{Line, Log};
use super::scene::Waiting;
use super::{Expect, Given, Scene, state};
use crate::timeline::Event;

/// A container of a Pod.
#[derive(Clone, Debug)]
pub struct Container {
    scene: Arc<Scene>,
    pod: String,
    name: String,
}

/// One run of a container: what changes when it restarts and must not change when another one does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The runtime's id of the container.
    pub container_id: String,
    /// How many restarts came before.
    pub restarts: i32,
    /// When it started, as the kubelet says.
    pub started_at: Option<String>,
}

impl Container {
    pub(super) fn new(scene: Arc<Scene>, pod: &str, name: &str) -> Self {
        Self {
            scene,
            pod: pod.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn pod(&self) -> &str {
        &self.pod
    }

    pub(super) fn scene(&self) -> &Arc<Scene> {
        &self.scene
    }

    /// What the suite arranges at this container: if it does not come, the outcome is an `error`.
    pub fn given(&self) -> Given<'_> {
        Given::new(self)
    }

    /// What the cluster owes at this container: if it does not come, the requirement is not met. `label` names the assertion: in the report,
    /// and in the twin that shows it to fail.
    pub fn expect(&self, label: &'static str) -> Expect<'_> {
        Expect::new(self, label)
    }

    /// Its latest known status; `None` before the kubelet wrote one.
    pub fn status(&self) -> Option<ContainerStatus> {
        let pods = self.scene.pods();
        state::status(&pods.get(&self.pod)?.pod, &self.name).cloned()
    }

    /// What runs now.
    ///
    /// # Errors
    /// The container is not running.
    pub fn run(&self) -> anyhow::Result<Run> {
        let status = self
            .status()
            .with_context(|| format!("container {} has no status", self.name))?;
        let running = status.state.as_ref().and_then(|state| state.running.as_ref());
        let Some(running) = running else {
            bail!("container {} is not running: {}", self.name, self.describe());
        };
        Ok(Run {
            container_id: status.container_id.unwrap_or_default(),
            restarts: status.restart_count,
            started_at: running.started_at.as_ref().map(|time| time.0.to_string()),
        })
    }

    /// Notes what is being waited for at this container until the result is dropped; `what` completes the sentence “waiting for …”.
    pub(super) fn waits_for(&self, what: &str) -> Waiting<'_> {
        let what = format!("{what}, at container {} of Pod {}", self.name, self.pod);
        self.scene.waits_for(what, &self.pod)
    }

    pub(super) fn describe(&self) -> String {
        state::describe(self.scene.pods().get(&self.pod))
    }

    /// Says that the check is going to end this container: its restart is no surprise.
    pub fn will_end(&self) {
        self.scene.ends(&self.pod, &self.name);
    }

    /// The lines that it has printed so far.
    ///
    /// # Errors
    /// The Pod has no such container.
    pub fn lines(&self) -> anyhow::Result<Vec<Line>> {
        Ok(self.log()?.lines())
    }

    /// Its log, which the check looks at.
    pub(super) fn log(&self) -> anyhow::Result<Arc<Log>> {
        self.scene.looks_at(&self.pod, &self.name);
        self.scene.log(&self.pod, &self.name)
    }

    /// How many lines it has printed so far.
    ///
    /// # Errors
    /// The Pod has no such container.
    pub fn line_count(&self) -> anyhow::Result<usize> {
        Ok(self.scene.log(&self.pod, &self.name)?.count())
    }

    /// What it said last, for an observation.
    pub fn last_words(&self) -> String {
        self.scene.last_words(&self.pod, &self.name)
    }

    /// Every event that it has recorded so far.
    ///
    /// # Errors
    /// The Pod has no such container.
    pub fn events(&self) -> anyhow::Result<Vec<Event>> {
        let lines = self.lines()?.into_iter();
        Ok(lines.filter_map(|line| line.event.map(Arc::unwrap_or_clone)).collect())
    }
}
