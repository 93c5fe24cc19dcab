//! Waiting: what was awaited, for how long, and the last state seen.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::time::Instant;

use super::container::last_lines;
use super::state::{self, PodState, Pods};
use super::{Container, Namespace};
use crate::patience;
use crate::scenario::{Finding, not_met};

/// Why a wait ended without what was awaited.
#[derive(Debug)]
pub(super) enum Waited {
    /// The API server gives no news: nobody can tell.
    Trouble(anyhow::Error),
    /// Time is up; the text says what was awaited and the last state.
    InVain(String),
}

impl fmt::Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trouble(error) => write!(f, "{error:#}"),
            Self::InVain(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Waited {}

/// The trouble with the API server, where there is any.
pub(super) fn trouble(namespace: &Namespace) -> Option<anyhow::Error> {
    let (since, error) = namespace.pods().trouble?;
    Some(anyhow!(
        "the API server has not answered for {:.0?}: {error}",
        since.elapsed()
    ))
}

pub(super) async fn until(
    namespace: &Arc<Namespace>,
    pod: &str,
    what: &str,
    limit: Duration,
    condition: impl Fn(&PodState) -> bool,
) -> Result<PodState, Waited> {
    let found = watch_until(namespace, limit, |pods| {
        pods.get(pod).filter(|state| condition(state)).cloned()
    })
    .await?;
    found.ok_or_else(|| {
        Waited::InVain(format!(
            "waited {limit:?} for {what} of Pod {pod}; last state: {}",
            state::describe(namespace.pods().get(pod))
        ))
    })
}

/// The first non-empty result of `look` at the changing state; `None` when time is up.
async fn watch_until<T>(
    namespace: &Arc<Namespace>,
    limit: Duration,
    mut look: impl FnMut(&Pods) -> Option<T>,
) -> Result<Option<T>, Waited> {
    let mut pods = namespace.pods.clone();
    let deadline = Instant::now() + limit;
    loop {
        let silent_until = {
            let pods = pods.borrow_and_update();
            if let Some(found) = look(&pods) {
                return Ok(Some(found));
            }
            pods.trouble.as_ref().map(|(since, _)| *since + patience::API)
        };
        let wake = silent_until.map_or(deadline, |until| until.min(deadline));
        match tokio::time::timeout_at(wake, pods.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Waited::Trouble(anyhow!("the watch on the Pods has ended"))),
            Err(_) => {
                return match trouble(namespace) {
                    Some(error) => Err(Waited::Trouble(error)),
                    None => Ok(None),
                };
            }
        }
    }
}

pub(super) async fn ready(namespace: &Arc<Namespace>, pod: &str) -> anyhow::Result<()> {
    let look = |pods: &Pods| {
        let state = pods.get(pod)?;
        if state.deleted {
            return Some(Err(format!("Pod {pod} was deleted")));
        }
        if state::is_ready(&state.pod) {
            return Some(Ok(()));
        }
        fault(state).map(Err)
    };
    let schedulable = watch_until(namespace, patience::SCHEDULED, |pods| {
        let scheduled = pods.get(pod)?.pod.spec.as_ref()?.node_name.is_some();
        scheduled.then_some(())
    })
    .await?;
    let seen = namespace.pods();
    if let (None, Some(state)) = (schedulable, seen.get(pod))
        && let Some(message) = state::unschedulable(&state.pod)
    {
        return Err(anyhow!("Pod {pod} cannot be scheduled: {message}"));
    }
    match watch_until(namespace, patience::READY, look).await? {
        Some(Ok(())) => Ok(()),
        Some(Err(fault)) => Err(anyhow!("{fault}{}", last_words(namespace, pod))),
        None => Err(anyhow!(
            "Pod {pod} was not ready after {:?}; last state: {}{}",
            patience::READY,
            state::describe(namespace.pods().get(pod)),
            last_words(namespace, pod)
        )),
    }
}

/// A fault that waiting does not mend: an image that is missing, a container that cannot be made or crashes again and again.
fn fault(state: &PodState) -> Option<String> {
    let name = state.pod.metadata.name.as_deref().unwrap_or_default();
    state::container_names(&state.pod).iter().find_map(|container| {
        let status = state::status(&state.pod, container)?;
        let waiting = status.state.as_ref()?.waiting.as_ref()?;
        let hopeless = matches!(
            waiting.reason.as_deref()?,
            "ErrImagePull"
                | "ImagePullBackOff"
                | "ErrImageNeverPull"
                | "InvalidImageName"
                | "CreateContainerConfigError"
                | "CreateContainerError"
                | "RunContainerError"
                | "CrashLoopBackOff"
        );
        hopeless.then(|| {
            format!(
                "container {container} of Pod {name} does not run: {}",
                state::describe(Some(state))
            )
        })
    })
}

/// A container that crashed at least twice, with its last words.
pub(super) fn crashing(namespace: &Arc<Namespace>, pod: &str) -> Option<String> {
    const CRASHES: i32 = 2;
    let pods = namespace.pods();
    let state = pods.get(pod)?;
    let crashed = state::container_names(&state.pod).into_iter().find(|name| {
        state::status(&state.pod, name).is_some_and(|status| {
            let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            status.restart_count >= CRASHES && last.is_some_and(|last| last.exit_code != 0)
        })
    })?;
    let printed = Container::new(Arc::clone(namespace), pod, &crashed).printed();
    Some(format!(
        "container {crashed} of Pod {pod} does not run: {}; {crashed}: {}",
        state::describe(Some(state)),
        last_lines(&printed)
    ))
}

/// What failing containers said last, for an error message.
fn last_words(namespace: &Arc<Namespace>, pod: &str) -> String {
    let pods = namespace.pods();
    let Some(state) = pods.get(pod) else {
        return String::new();
    };
    state::container_names(&state.pod)
        .into_iter()
        .filter(|name| {
            state::status(&state.pod, name)
                .is_some_and(|status| !status.ready && (status.restart_count > 0 || status.last_state.is_some()))
        })
        .map(|name| {
            let printed = Container::new(Arc::clone(namespace), pod, &name).printed();
            format!("; {name}: {}", last_lines(&printed))
        })
        .collect()
}

/// Looks again and again until `look` returns something; what it complains about is the observation if it never does.
/// For what cannot be watched, such as the answer to a request.
///
/// # Errors
/// `not met` at `container` where nothing is found within `limit`.
pub async fn eventually<T>(
    container: &Container,
    expected: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Result<T, String>>,
) -> Result<T, Finding> {
    let deadline = Instant::now() + limit;
    loop {
        match look().await.context("cannot look")? {
            Ok(found) => return Ok(found),
            Err(observed) if Instant::now() >= deadline => {
                return Err(not_met(container, format!("{expected} within {limit:?}"), observed));
            }
            Err(_) => tokio::time::sleep(patience::LOOK_AGAIN).await,
        }
    }
}
