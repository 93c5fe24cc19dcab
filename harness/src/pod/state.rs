//! The Pods of one life as the API server shows them: one watch for everything that is awaited.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Container as ContainerSpec, ContainerState, ContainerStatus, Pod};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;

/// What the watch has shown so far.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    /// By UID: a Pod that is made again under the same name is another one.
    seen: BTreeMap<String, PodState>,
    /// The Pods that a list has shown since it began, while one is under way.
    listed: Option<BTreeSet<String>>,
    /// When and why the watch last broke off.
    pub(super) trouble: Option<(Instant, String)>,
    /// When anything last stood still: the API server, its watch, or this process.
    pub(super) disturbed: Option<Instant>,
}

/// A Pod's latest known state.
#[derive(Clone, Debug)]
pub struct PodState {
    /// The object; the last one before deletion if it is gone.
    pub pod: Pod,
    /// Whether it is gone.
    pub deleted: bool,
    /// How many Pods were seen before it.
    order: usize,
}

impl Pods {
    /// The newest Pod of that name, once it was seen.
    pub fn get(&self, name: &str) -> Option<&PodState> {
        self.seen
            .values()
            .filter(|state| state.pod.metadata.name.as_deref() == Some(name))
            .max_by_key(|state| state.order)
    }

    /// The Pod of that UID, once it was seen.
    pub fn uid(&self, uid: &str) -> Option<&PodState> {
        self.seen.get(uid)
    }

    /// Every Pod that was seen, in the order of appearance.
    pub fn all(&self) -> Vec<&PodState> {
        let mut all: Vec<&PodState> = self.seen.values().collect();
        all.sort_by_key(|state| state.order);
        all
    }

    /// Takes what the API server says now of a Pod, unless something newer is known.
    pub(super) fn update(&mut self, pod: Pod) {
        let version = |pod: &Pod| pod.resource_version().and_then(|version| version.parse::<u64>().ok());
        let known = pod.uid().and_then(|uid| self.seen.get(&uid));
        if known.is_none_or(|known| !known.deleted && version(&known.pod) < version(&pod)) {
            self.insert(pod, false);
        }
    }

    fn insert(&mut self, pod: Pod, deleted: bool) {
        let uid = pod.uid().unwrap_or_default();
        if let Some(listed) = &mut self.listed {
            listed.insert(uid.clone());
        }
        let next = self.seen.len();
        let order = self.seen.get(&uid).map_or(next, |known| known.order);
        self.seen.insert(uid, PodState { pod, deleted, order });
    }

    /// A list that is complete shows what has gone while nobody watched.
    fn prune(&mut self) {
        if let Some(listed) = self.listed.take() {
            for (uid, state) in &mut self.seen {
                state.deleted |= !listed.contains(uid);
            }
        }
    }
}

/// Watches the Pods with that label for as long as anybody looks.
pub(super) fn watch_pods(api: Api<Pod>, label: &str) -> (watch::Sender<Pods>, watch::Receiver<Pods>) {
    let (sender, receiver) = watch::channel(Pods::default());
    let (pods, config) = (sender.clone(), watcher::Config::default().labels(label));
    tokio::spawn(async move {
        let mut events = watcher(api, config).default_backoff().boxed();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = pods.closed() => break,
            };
            let Some(event) = event else { break };
            pods.send_modify(|pods| match event {
                Ok(event) => {
                    pods.trouble = None;
                    match event {
                        watcher::Event::Init => pods.listed = Some(BTreeSet::new()),
                        watcher::Event::InitDone => pods.prune(),
                        watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => pods.insert(pod, false),
                        watcher::Event::Delete(pod) => pods.insert(pod, true),
                    }
                }
                Err(error) => {
                    let now = Instant::now();
                    let since = pods.trouble.as_ref().map_or(now, |(since, _)| *since);
                    pods.trouble = Some((since, error.to_string()));
                    pods.disturbed = Some(now);
                }
            });
        }
    });
    (sender, receiver)
}

/// The declaration of a container, wherever it stands: native sidecars are among the init containers.
pub fn spec<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerSpec> {
    let spec = pod.spec.as_ref()?;
    spec.init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .find(|candidate| candidate.name == container)
}

/// The status of a container, wherever it is declared.
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
    condition(pod, "Ready").is_some_and(|(status, _, _)| status == "True")
}

/// A condition's status, reason and message.
pub(super) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    let text = |text: &'a Option<String>| text.as_deref().unwrap_or_default();
    Some((&found.status, text(&found.reason), text(&found.message)))
}

/// Why the scheduler finds no node, if it says so.
pub(super) fn unschedulable(pod: &Pod) -> Option<&str> {
    let (status, reason, message) = condition(pod, "PodScheduled")?;
    (status == "False" && reason == "Unschedulable").then_some(message)
}

/// A Pod's state in a line: its phase, then every container's state.
pub fn describe(state: Option<&PodState>) -> String {
    let Some(state) = state else {
        return "not seen yet".to_owned();
    };
    let status = state.pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.clone()).unwrap_or_default();
    let mut parts = vec![if state.deleted {
        "gone".to_owned()
    } else if state.pod.metadata.deletion_timestamp.is_some() {
        format!("{phase}, being deleted")
    } else {
        phase
    }];
    if let Some(reason) = status.and_then(|status| status.reason.as_deref()) {
        let message = status.and_then(|status| status.message.as_deref()).unwrap_or_default();
        parts.push(format!("{reason}: {message}"));
    }
    parts.extend(unschedulable(&state.pod).map(str::to_owned));
    for name in container_names(&state.pod) {
        let text = status_text(&state.pod, &name);
        parts.push(format!("{name}: {text}"));
    }
    parts.join("; ")
}

/// A container's state in a few words.
pub(super) fn status_text(pod: &Pod, container: &str) -> String {
    let Some(status) = status(pod, container) else {
        return "no status".to_owned();
    };
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, version: u64) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "app", "uid": uid, "resourceVersion": version.to_string()}}))
            .expect("a Pod")
    }

    #[test]
    fn a_pod_made_again_is_another_one() {
        let mut pods = Pods::default();
        pods.insert(pod("a", 1), true);
        pods.insert(pod("b", 2), false);
        assert!(!pods.get("app").expect("the second").deleted);
        assert_eq!(pods.all().len(), 2);
    }

    #[test]
    fn a_list_shows_what_has_gone_while_nobody_watched() {
        let mut pods = Pods::default();
        pods.insert(pod("a", 1), false);
        pods.listed = Some(BTreeSet::new());
        pods.prune();
        assert!(pods.get("app").expect("it was seen").deleted);
    }

    #[test]
    fn an_answer_never_replaces_newer_news() {
        let mut pods = Pods::default();
        pods.insert(pod("a", 5), false);
        pods.update(pod("a", 4));
        assert_eq!(
            pods.get("app").and_then(|state| state.pod.resource_version()),
            Some("5".to_owned())
        );
        pods.insert(pod("a", 6), true);
        pods.update(pod("a", 7));
        assert!(pods.get("app").expect("it was seen").deleted);
    }
}
