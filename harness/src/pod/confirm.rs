//! Before `not met` is said, the infrastructure is asked: whether the API server answers, the node and the Pod are well, and the logs that were looked at complete.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use k8s_openapi::api::core::v1::{Event, Node};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};
use tokio::time::{Instant, sleep};

use super::events::{happened, has_reason, text};
use super::state::{self, PodState};
use super::{Container, Scene, wait};
use crate::cluster::request::{is_answer, limited, permitted};
use crate::patience;

/// What the kubelet or the control plane reports of a node that does not run Pods as usual.
const NODE_TROUBLE: [&str; 6] = [
    // The kubelet's word at each of its starts.
    "Starting",
    "Rebooted",
    "NodeNotReady",
    "EvictionThresholdMet",
    "NodeNotSchedulable",
    "ContainerdStart",
];

/// What is reported of a Pod that somebody else ends or takes apart.
const POD_TROUBLE: [&str; 7] = [
    "Evicted",
    "Preempting",
    "Preempted",
    "SandboxChanged",
    "NodeNotReady",
    "TaintManagerEviction",
    "FailedCreatePodSandBox",
];

impl Scene {
    /// Fails if something stood in the way of a verdict: the error says what.
    pub(crate) async fn confirm(self: &Arc<Self>) -> anyhow::Result<()> {
        self.refresh().await?;
        let pods = self.pods();
        for state in pods.all() {
            self.pod_is_well(state)?;
        }
        // This waits for a kubelet that is being restarted; its events come after that.
        for state in pods.all() {
            let pod = state.pod.name_any();
            for name in state::container_names(&state.pod) {
                let container = Container::new(Arc::clone(self), &pod, &name);
                if !state.deleted && pods.get(&pod).is_some_and(|newest| newest.pod.uid() == state.pod.uid()) {
                    container.catch_up().await?;
                }
            }
        }
        let born = pods
            .all()
            .iter()
            .filter_map(|state| state.pod.creation_timestamp())
            .map(|time| time.0)
            .min();
        if let Some(born) = born {
            for state in pods.all() {
                self.events_are_harmless(state, born).await?;
            }
            let nodes = pods
                .all()
                .into_iter()
                .filter_map(|state| state.pod.spec.as_ref()?.node_name.clone());
            let mut nodes: Vec<String> = nodes.collect();
            nodes.sort();
            nodes.dedup();
            for node in nodes {
                self.node_is_well(&node, born).await?;
            }
        }
        Ok(())
    }

    /// Fails if a log that the check has looked at is not complete. What others printed has no say in its verdict: a container that crashes
    /// again and again may print more than anybody can read.
    pub(crate) fn looked_at_all(&self) -> anyhow::Result<()> {
        for (pod, _, container, log) in self.logs() {
            if let Some(trouble) = log.trouble().filter(|_| self.was_looked_at(&pod, &container)) {
                bail!("the log of {container} in Pod {pod} is not complete: {trouble}");
            }
        }
        Ok(())
    }

    fn pod_is_well(&self, state: &PodState) -> anyhow::Result<()> {
        let name = state.pod.name_any();
        let going = state.deleted || state.pod.metadata.deletion_timestamp.is_some();
        if let Some((status, reason, message)) = state::condition(&state.pod, "DisruptionTarget") {
            ensure!(
                status != "True",
                "Pod {name} was ended by the cluster: {reason}: {message}"
            );
        }
        let reason = state.pod.status.as_ref().and_then(|status| status.reason.as_deref());
        if let Some(reason @ ("Evicted" | "Preempted" | "NodeLost" | "Shutdown" | "Terminated" | "NodeShutdown")) =
            reason
        {
            bail!(
                "Pod {name} was ended by the cluster ({reason}): {}",
                state::describe(Some(state))
            );
        }
        ensure!(
            !going || self.asked_to_delete(&name),
            "Pod {name} was deleted by somebody else: {}",
            state::describe(Some(state))
        );
        if let Some(why) = wait::cannot_start(state) {
            bail!("in Pod {name}, {why}");
        }
        Ok(())
    }

    async fn events_are_harmless(&self, state: &PodState, born: Timestamp) -> anyhow::Result<()> {
        let events = self.events_of(&state.pod).await?;
        match recent(&events, born).find(|event| has_reason(event, &POD_TROUBLE)) {
            Some(event) => Err(anyhow!("Pod {} was disturbed: {}", state.pod.name_any(), text(event))),
            None => Ok(()),
        }
    }

    async fn node_is_well(&self, name: &str, born: Timestamp) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        match permitted(limited("look at the node", nodes.get(name)).await)? {
            Some(node) => {
                let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
                let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
                if let Some(condition) = ready.filter(|condition| condition.status != "True") {
                    let message = condition.message.as_deref().unwrap_or_default();
                    bail!("the node {name} is not ready: {message}");
                }
            }
            None => return Ok(()),
        }
        // Events of nodes stand in the default namespace.
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let of_node = ListParams::default().fields(&format!("involvedObject.kind=Node,involvedObject.name={name}"));
        let Some(events) = permitted(limited("list the node's events", events.list(&of_node)).await)? else {
            return Ok(());
        };
        match recent(&events.items, born).find(|event| has_reason(event, &NODE_TROUBLE)) {
            Some(event) => Err(anyhow!("the node {name} was disturbed meanwhile: {}", text(event))),
            None => Ok(()),
        }
    }
}

/// The events that happened, or happened again, since then. Some clients write whole seconds only.
fn recent(events: &[Event], since: Timestamp) -> impl Iterator<Item = &Event> {
    events
        .iter()
        .filter(move |event| happened(event).is_some_and(|last| last.as_second() >= since.as_second()))
}

impl Container {
    /// Makes sure that the suite has read what the container has printed until now.
    ///
    /// # Errors
    /// The log cannot be read, or the stream of it has stalled.
    pub(super) async fn catch_up(&self) -> anyhow::Result<()> {
        /// A stream brings a line within milliseconds, but the first one of a new run waits for the status.
        const STALLED: Duration = patience::STATUS.saturating_mul(2);
        let log = self.scene().log(self.pod(), self.name())?;
        if log.has_ended() {
            return Ok(());
        }
        let last_line = LogParams {
            container: Some(self.name().to_owned()),
            tail_lines: Some(1),
            timestamps: true,
            ..LogParams::default()
        };
        let begun = Instant::now();
        let newest = loop {
            match limited("read the log", self.scene().api().logs(self.pod(), &last_line)).await {
                Ok(text) => break text,
                Err(error) => {
                    if is_answer(&error, &[400, 404]) {
                        // There is no log: the container has not started, or the Pod is gone.
                        return Ok(());
                    }
                    if begun.elapsed() > patience::API {
                        return Err(error).with_context(|| format!("the log of {} cannot be read", self.name()));
                    }
                    sleep(patience::RECONNECT).await;
                }
            }
        };
        let (time, text) = newest.split_once(' ').unwrap_or((&newest, ""));
        let newest = time.parse::<Timestamp>().ok();
        let begun = Instant::now();
        while log.newest().map(|(at, _)| at) < newest && !log.ends_with_part(text) {
            ensure!(
                begun.elapsed() < STALLED,
                "the stream of the log of {} has stalled: it lacks a line of {}",
                self.name(),
                newest.map_or_else(String::new, |newest| newest.to_string())
            );
            sleep(patience::LOOK_AGAIN).await;
        }
        Ok(())
    }
}
