//! What is saved before anything is deleted.

use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use tokio::time::timeout;

use crate::patience;
use crate::pod::{Namespace, ScenarioPod};

/// Saves the Pods, their events, every container's log over all its restarts, and the timeline.
pub(super) async fn save(namespace: &Namespace, pod: &ScenarioPod, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let pods: Vec<_> = namespace.pods().all().map(|state| state.pod.clone()).collect();
    for pod in &pods {
        let name = pod.metadata.name.as_deref().unwrap_or("pod");
        fs::write(folder.join(format!("{name}.yaml")), serde_saphyr::to_string(pod)?)?;
    }
    for (pod, container, printed) in namespace.printed() {
        let mut text = String::new();
        let mut restarts = 0;
        for line in &printed.lines {
            if line.restarts != restarts {
                restarts = line.restarts;
                text.push_str(&format!("--- restart {restarts} ---\n"));
            }
            text.push_str(&line.text);
            text.push('\n');
        }
        fs::write(folder.join(format!("{pod}.{container}.log")), text)?;
    }
    fs::write(folder.join("timeline.txt"), pod.timeline().to_string())?;
    let events: Api<Event> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let events = timeout(patience::API, events.list(&ListParams::default())).await??;
    fs::write(folder.join("events.yaml"), serde_saphyr::to_string(&events.items)?)?;
    Ok(())
}
