//! What is saved before anything is deleted. It may be published: what looks secret is left out.

use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

use crate::cluster::request::limited;
use crate::pod::{Line, ScenarioPod, Scene};
use crate::redact::{redact_object, redact_text};

/// The environment variables whose values say nothing that is secret: those that fixtures set.
const HARMLESS: [&str; 7] = ["LOCK", "PEER", "TOLD", "LINGER", "STAYS_UNTIL", "STATUS", "DRAIN"];

/// What there is to save of one life: files by name.
pub(super) type Evidence = Vec<(String, String)>;

/// Collects the Pods, every container's log over all its restarts, the timeline, and the events, as far as each of them can be had.
pub(super) async fn collect(scene: &Scene, pod: &ScenarioPod) -> (Evidence, anyhow::Result<()>) {
    let mut files = Vec::new();
    let complete = async {
        for state in scene.pods().all() {
            let name = state.pod.metadata.name.as_deref().unwrap_or("pod");
            files.push((format!("{name}.yaml"), yaml(serde_json::to_value(&state.pod)?)?));
        }
        for (name, container, dropped, lines) in scene.printed() {
            let text = log(dropped, &lines);
            files.push((format!("{name}.{container}.log"), redact_text(&text).into_owned()));
        }
        let timeline = pod.timeline().to_string();
        files.push(("timeline.txt".to_owned(), redact_text(&timeline).into_owned()));
        let events: Api<Event> = Api::namespaced(scene.client.clone(), &scene.namespace);
        let mut events = limited("list the events", events.list(&ListParams::default()))
            .await?
            .items;
        // Others of the same namespace belong to earlier lives.
        let pods = scene.pods();
        events.retain(|event| {
            let uid = event.involved_object.uid.as_deref();
            uid.is_none_or(|uid| pods.uid(uid).is_some())
        });
        let events: Result<Vec<String>, _> = events.iter().map(|event| yaml(serde_json::to_value(event)?)).collect();
        files.push(("events.yaml".to_owned(), events?.join("---\n")));
        anyhow::Ok(())
    };
    let complete = complete.await;
    (files, complete)
}

/// Writes evidence into a folder.
///
/// # Errors
/// It cannot be written.
pub(super) fn write(evidence: &Evidence, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    for (name, text) in evidence {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}

fn yaml(mut object: Value) -> anyhow::Result<String> {
    redact_object(&mut object, &HARMLESS);
    Ok(serde_saphyr::to_string(&object)?)
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
