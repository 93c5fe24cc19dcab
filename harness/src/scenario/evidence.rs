//! What is saved before anything is deleted. It may be published: what looks secret is left out.

use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;

use crate::cluster::request::limited;
use crate::pod::{Line, ScenarioPod, Scene};
use crate::redact::{redact_object, redact_text};

/// The environment variables whose values say nothing that is secret: those that fixtures set.
const HARMLESS: [&str; 6] = ["LOCK", "TOLD", "LINGER", "STAYS_UNTIL", "STATUS", "DRAIN"];

/// Saves the Pods, their events, every container's log over all its restarts, and the timeline, as far as each of them can be had.
///
/// # Errors
/// What could not be saved.
pub(super) async fn save(scene: &Scene, pod: &ScenarioPod, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    for state in scene.pods().all() {
        let name = state.pod.metadata.name.as_deref().unwrap_or("pod");
        let mut object = serde_json::to_value(&state.pod)?;
        redact_object(&mut object, &HARMLESS);
        fs::write(folder.join(format!("{name}.yaml")), serde_saphyr::to_string(&object)?)?;
    }
    for (name, container, dropped, lines) in scene.printed() {
        let text = log(dropped, &lines);
        fs::write(
            folder.join(format!("{name}.{container}.log")),
            redact_text(&text).as_bytes(),
        )?;
    }
    fs::write(
        folder.join("timeline.txt"),
        redact_text(&pod.timeline().to_string()).as_bytes(),
    )?;
    let events: Api<Event> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let mut events = limited("list the events", events.list(&ListParams::default()))
        .await?
        .items;
    // Others of the same namespace belong to earlier lives.
    let pods = scene.pods();
    events.retain(|event| {
        event
            .involved_object
            .uid
            .as_deref()
            .is_none_or(|uid| pods.uid(uid).is_some())
    });
    let mut events = serde_json::to_value(&events)?;
    for event in events.as_array_mut().into_iter().flatten() {
        redact_object(event, &HARMLESS);
    }
    fs::write(folder.join("events.yaml"), serde_saphyr::to_string(&events)?)?;
    Ok(())
}

fn log(dropped: usize, lines: &[Line]) -> String {
    let mut text = String::new();
    if dropped > 0 {
        text.push_str(&format!("--- the first {dropped} lines were cut ---\n"));
    }
    let mut run = 0;
    for line in lines {
        if line.run != run {
            run = line.run;
            text.push_str(&format!("--- restart {run} ---\n"));
        }
        text.push_str(&line.text);
        if line.cut > 0 {
            text.push_str(&format!(" --- {} more bytes were cut ---", line.cut));
        }
        text.push('\n');
    }
    text
}
