//! Whether anything stood still: a wait that ran out while the API server or this process slept says nothing about the cluster.

use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::state::Pods;
use crate::patience;

/// Looks once a second whether the API server answers and whether this process gets to run, until nobody watches the Pods any more.
pub(super) async fn feel(client: Client, pods: watch::Sender<Pods>) {
    loop {
        let begun = Instant::now();
        tokio::select! {
            () = sleep(patience::PULSE) => {}
            () = pods.closed() => return,
        }
        let overslept = begun.elapsed().saturating_sub(patience::PULSE);
        let asked = Instant::now();
        // What it answers does not matter: a user may not be allowed to ask this.
        let answer = timeout(patience::API, client.apiserver_version()).await;
        let silent = match answer {
            Ok(Err(kube::Error::Api(_)) | Ok(_)) => asked.elapsed(),
            Ok(Err(_)) | Err(_) => Duration::MAX,
        };
        if overslept.max(silent) > patience::STANDSTILL {
            pods.send_modify(|pods| pods.disturbed = Some(Instant::now()));
        }
    }
}
