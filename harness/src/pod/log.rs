//! Containers' logs, followed from the start to beyond the Pod's deletion.

use std::sync::Arc;

use futures::AsyncBufReadExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use tokio::sync::watch;

use super::state::{Pods, status};
use crate::patience;
use crate::timeline::Event;

/// What a container has printed so far, over all its restarts.
#[derive(Clone, Debug, Default)]
pub struct Printed {
    /// The lines in their order.
    pub lines: Vec<Line>,
    /// Whether nothing can follow: the Pod is gone and the log was read to its end.
    pub ended: bool,
    /// Why lines may be missing, where the log could not be read to its end.
    pub trouble: Option<String>,
}

/// One printed line.
#[derive(Clone, Debug)]
pub struct Line {
    /// How many restarts the container had before the one that printed it.
    pub restarts: i32,
    /// The line, without its end.
    pub text: String,
}

/// A container's log that is being followed.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) printed: watch::Receiver<Printed>,
}

impl Follower {
    /// Follows the log of `container` through restarts until its Pod is gone.
    pub(super) fn start(api: Api<Pod>, pods: watch::Receiver<Pods>, pod: &str, container: &str) -> Arc<Self> {
        let (sender, printed) = watch::channel(Printed::default());
        tokio::spawn(follow(api, pods, pod.to_owned(), container.to_owned(), sender));
        Arc::new(Self { printed })
    }
}

async fn follow(
    api: Api<Pod>,
    mut pods: watch::Receiver<Pods>,
    pod: String,
    container: String,
    printed: watch::Sender<Printed>,
) {
    let mut followed: Option<i32> = None;
    loop {
        // The next run of the container that has something to say, or the end of the Pod.
        let next = pods
            .wait_for(|pods| {
                pods.get(&pod).is_some_and(|state| {
                    let started = status(&state.pod, &container).is_some_and(|status| {
                        let run = status.state.as_ref();
                        run.is_some_and(|run| run.running.is_some() || run.terminated.is_some())
                            && followed.is_none_or(|last| status.restart_count > last)
                    });
                    started || state.deleted
                })
            })
            .await
            .ok()
            .and_then(|pods| {
                let state = pods.get(&pod)?;
                let restarts = status(&state.pod, &container)?.restart_count;
                (!state.deleted && followed.is_none_or(|last| restarts > last)).then_some(restarts)
            });
        let Some(restarts) = next else { break };
        let missed = followed.map_or(0, |last| last + 1) < restarts;
        if missed {
            read(&api, &pod, &container, restarts - 1, true, &printed).await;
        }
        read(&api, &pod, &container, restarts, false, &printed).await;
        followed = Some(restarts);
    }
    printed.send_modify(|printed| printed.ended = true);
}

/// Reads one run's log to its end; begins anew where the connection breaks.
async fn read(
    api: &Api<Pod>,
    pod: &str,
    container: &str,
    restarts: i32,
    previous: bool,
    printed: &watch::Sender<Printed>,
) {
    const ATTEMPTS: usize = 5;
    let parameters = LogParams {
        container: Some(container.to_owned()),
        follow: !previous,
        previous,
        ..LogParams::default()
    };
    let mut known = 0;
    for attempt in 1..=ATTEMPTS {
        let mut passed = 0;
        let read = async {
            let mut stream = api.log_stream(pod, &parameters).await?;
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).await? > 0 {
                passed += 1;
                if passed > known {
                    let text = String::from_utf8_lossy(&line);
                    let text = text.trim_end_matches('\n').to_owned();
                    printed.send_modify(|printed| printed.lines.push(Line { restarts, text }));
                }
                line.clear();
            }
            anyhow::Ok(())
        };
        let Err(error) = read.await else { return };
        known = known.max(passed);
        if attempt == ATTEMPTS {
            printed.send_modify(|printed| printed.trouble = Some(format!("{error:#}")));
        } else {
            // A connection that broke is not mended by asking at once; nothing tells when it is.
            tokio::time::sleep(patience::LOOK_AGAIN).await;
        }
    }
}

impl Printed {
    /// The lines' texts.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|line| line.text.as_str())
    }

    /// The events among the lines.
    pub fn events(&self, container: &str) -> Vec<Event> {
        self.texts().filter_map(|line| Event::parse(container, line)).collect()
    }
}
