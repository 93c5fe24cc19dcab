//! What the cluster reports of Pods and nodes. Events may be merged or dropped: one that is missing proves nothing, and no outcome depends on one alone.

use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::{Scene, state, wait};
use crate::cluster::request::{limited, permitted};

/// What says that a node is on its way: the Cluster Autoscaler has asked for one; Karpenter has one in mind that it has asked for.
const NODE_IS_COMING: [&str; 2] = ["TriggeredScaleUp", "Nominated"];

impl Scene {
    /// The events of a Pod.
    ///
    /// # Errors
    /// The API server does not answer, or refuses.
    pub(super) async fn events_of(&self, pod: &Pod) -> anyhow::Result<Vec<Event>> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let of_pod = ListParams::default().fields(&format!("involvedObject.uid={}", pod.uid().unwrap_or_default()));
        Ok(limited("list the Pod's events", events.list(&of_pod)).await?.items)
    }

    /// What says that a node is going to take a Pod that no node takes now, if anything does.
    ///
    /// # Errors
    /// The API server does not answer.
    pub(super) async fn node_is_coming(&self, pod: &Pod) -> anyhow::Result<Option<String>> {
        let nominated = pod
            .status
            .as_ref()
            .and_then(|status| status.nominated_node_name.clone());
        if let Some(node) = nominated.filter(|node| !node.is_empty()) {
            return Ok(Some(format!("the node {node} is to be freed for it")));
        }
        let events = permitted(self.events_of(pod).await)?.unwrap_or_default();
        Ok(events.iter().find(|event| has_reason(event, &NODE_IS_COMING)).map(text))
    }

    /// What says that an image of a Pod is being pulled, if anything does.
    ///
    /// # Errors
    /// The API server does not answer.
    pub(super) async fn image_is_coming(&self, pod: &Pod) -> anyhow::Result<Option<String>> {
        let events = permitted(self.events_of(pod).await)?.unwrap_or_default();
        Ok(pulling(pod, &events).map(text))
    }
}

/// The kubelet's word that it pulls the image of a container that waits for something, unless it has said since what came of it.
fn pulling<'a>(pod: &Pod, events: &'a [Event]) -> Option<&'a Event> {
    state::container_names(pod).iter().find_map(|container| {
        wait::is_being_created(pod, container).then_some(())?;
        let place = format!("{{{container}}}");
        let its = |event: &&Event| {
            let path = event.involved_object.field_path.as_deref();
            path.is_some_and(|path| path.ends_with(&place))
        };
        let newest = |reasons: &[&str]| {
            let those = events.iter().filter(its).filter(|event| has_reason(event, reasons));
            those.max_by_key(|event| happened(event))
        };
        let (begun, over) = (newest(&["Pulling"])?, newest(&["Pulled", "Failed"]));
        over.is_none_or(|over| happened(over) < happened(begun))
            .then_some(begun)
    })
}

/// When something happened, or happened last.
pub(super) fn happened(event: &Event) -> Option<Timestamp> {
    let series = event
        .series
        .as_ref()
        .and_then(|series| series.last_observed_time.as_ref());
    let series = series.map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let first = event.event_time.as_ref().map(|time| time.0);
    series.max(last).max(first)
}

pub(super) fn has_reason(event: &Event, reasons: &[&str]) -> bool {
    event.reason.as_deref().is_some_and(|reason| reasons.contains(&reason))
}

pub(super) fn text(event: &Event) -> String {
    format!(
        "{}: {}",
        event.reason.as_deref().unwrap_or_default(),
        event.message.as_deref().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn pod(waits: &str) -> Pod {
        let pod = json!({
            "metadata": {"name": "app"},
            "spec": {"containers": [{"name": "main"}]},
            "status": {"containerStatuses": [{
                "name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": waits}},
            }]},
        });
        serde_json::from_value(pod).expect("a Pod")
    }

    fn event(reason: &str, container: &str, second: u8) -> Event {
        let event = json!({
            "metadata": {}, "reason": reason, "lastTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
            "involvedObject": {"fieldPath": format!("spec.containers{{{container}}}")},
        });
        serde_json::from_value(event).expect("an event")
    }

    #[rstest]
    #[case::under_way("ContainerCreating", &[("Pulling", "main", 1)], true)]
    #[case::again("ContainerCreating", &[("Pulling", "main", 3), ("Failed", "main", 2)], true)]
    #[case::nothing_said("ContainerCreating", &[], false)]
    #[case::over("ContainerCreating", &[("Pulling", "main", 1), ("Pulled", "main", 2)], false)]
    #[case::over_at_once("ContainerCreating", &[("Pulling", "main", 1), ("Pulled", "main", 1)], false)]
    #[case::failed("ErrImagePull", &[("Pulling", "main", 1)], false)]
    #[case::somebody_elses("ContainerCreating", &[("Pulling", "domain", 1)], false)]
    fn an_image_is_coming_while_it_is_pulled(
        #[case] waits: &str,
        #[case] events: &[(&str, &str, u8)],
        #[case] comes: bool,
    ) {
        let events: Vec<Event> = events
            .iter()
            .map(|(reason, container, second)| event(reason, container, *second))
            .collect();
        assert_eq!(pulling(&pod(waits), &events).is_some(), comes);
    }
}
