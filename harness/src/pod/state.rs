//! The Pods of a namespace as the API server tells of them: one watch for everything that is awaited.

use std::collections::BTreeMap;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;

/// What the watch has shown so far.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    seen: BTreeMap<String, PodState>,
    /// Since when, and why, the API server gives no news.
    pub(super) trouble: Option<(Instant, String)>,
}

/// A Pod's latest known state.
#[derive(Clone, Debug)]
pub struct PodState {
    /// The object; the last one before deletion where it is gone.
    pub pod: Pod,
    /// Whether it is gone.
    pub deleted: bool,
}

impl Pods {
    /// The Pod of that name, once it was seen.
    pub fn get(&self, name: &str) -> Option<&PodState> {
        self.seen.get(name)
    }

    /// Every Pod that was seen.
    pub fn all(&self) -> impl Iterator<Item = &PodState> {
        self.seen.values()
    }
}

/// Watches the Pods that `api` covers for as long as anybody looks.
pub(super) fn watch_pods(api: Api<Pod>) -> watch::Receiver<Pods> {
    let (sender, receiver) = watch::channel(Pods::default());
    tokio::spawn(async move {
        let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = sender.closed() => break,
            };
            let Some(event) = event else { break };
            sender.send_modify(|pods| match event {
                Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                    pods.trouble = None;
                    pods.seen.insert(pod.name_any(), PodState { pod, deleted: false });
                }
                Ok(watcher::Event::Delete(pod)) => {
                    pods.trouble = None;
                    pods.seen.insert(pod.name_any(), PodState { pod, deleted: true });
                }
                Ok(watcher::Event::Init | watcher::Event::InitDone) => pods.trouble = None,
                Err(error) => {
                    let since = pods.trouble.as_ref().map_or_else(Instant::now, |(since, _)| *since);
                    pods.trouble = Some((since, error.to_string()));
                }
            });
        }
    });
    receiver
}

/// The status of a container, wherever it is declared: native sidecars stand among the init containers.
pub fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    [&status.init_container_statuses, &status.container_statuses]
        .into_iter()
        .flatten()
        .flatten()
        .find(|status| status.name == container)
}

/// The names of all containers of a Pod, in starting order.
pub fn container_names(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    spec.init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .map(|container| container.name.clone())
        .collect()
}

/// Whether the Pod has the condition `Ready`.
pub fn is_ready(pod: &Pod) -> bool {
    pod.status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .is_some_and(|conditions| {
            conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        })
}

/// A Pod's state in a line: its phase, then every container's state.
pub fn describe(state: Option<&PodState>) -> String {
    let Some(state) = state else {
        return "not seen yet".to_owned();
    };
    let phase = state
        .pod
        .status
        .as_ref()
        .and_then(|status| status.phase.clone())
        .unwrap_or_default();
    let mut parts = vec![if state.deleted {
        "gone".to_owned()
    } else if state.pod.metadata.deletion_timestamp.is_some() {
        format!("{phase}, being deleted")
    } else {
        phase
    }];
    if let Some(message) = unschedulable(&state.pod) {
        parts.push(message);
    }
    for name in container_names(&state.pod) {
        let text = match status(&state.pod, &name) {
            None => "no status".to_owned(),
            Some(status) => describe_container(status),
        };
        parts.push(format!("{name}: {text}"));
    }
    parts.join("; ")
}

/// Why the scheduler finds no node, where it says so.
pub(super) fn unschedulable(pod: &Pod) -> Option<String> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find_map(|condition| {
        (condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable"))
        .then(|| condition.message.clone().unwrap_or_default())
    })
}

fn describe_container(status: &ContainerStatus) -> String {
    let mut text = status.state.as_ref().map_or("no state".to_owned(), describe_state);
    if !status.ready && status.state.as_ref().is_some_and(|state| state.running.is_some()) {
        text.push_str(", not ready");
    }
    if status.restart_count > 0 {
        text.push_str(&format!(", restarts {}", status.restart_count));
        if let Some(last) = &status.last_state {
            text.push_str(&format!(", before that {}", describe_state(last)));
        }
    }
    text
}

fn describe_state(state: &ContainerState) -> String {
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or("no reason given");
        return match waiting.message.as_deref() {
            Some(message) => format!("waiting ({reason}: {message})"),
            None => format!("waiting ({reason})"),
        };
    }
    if let Some(terminated) = &state.terminated {
        let reason = terminated.reason.as_deref().unwrap_or("no reason given");
        return format!("terminated with exit code {} ({reason})", terminated.exit_code);
    }
    if state.running.is_some() {
        return "running".to_owned();
    }
    "no state".to_owned()
}
