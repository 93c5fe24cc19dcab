//! Waiting for the state of Pods: what was awaited, for how long, and the last state seen.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use tokio::time::{Instant, timeout_at};

use super::Scene;
use super::state::{self, PodState, Pods};
use crate::patience;

/// A wait that ended without what was awaited; the text says what that was and the last state.
#[derive(Debug)]
pub(super) struct TimedOut(pub(super) String);

/// A Pod that does not become ready.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Unready {
    /// The container that keeps it from that, if one does.
    pub container: Option<String>,
    /// Whether that container waits for something else than its program: its turn, its volumes, its image.
    pub not_begun: bool,
    text: String,
}

impl Unready {
    /// That the Pod is not ready, because of its first container that is not.
    fn of(state: Option<&PodState>, text: String) -> anyhow::Error {
        let first = state.and_then(|state| {
            let names = state::container_names(&state.pod);
            names
                .into_iter()
                .find(|name| state::status(&state.pod, name).is_some_and(|status| !status.ready))
        });
        let reason = first
            .as_ref()
            .and_then(|name| waiting(state::status(&state?.pod, name)?));
        Self {
            not_begun: reason.is_some_and(|reason| NOT_THE_IMAGES.contains(&reason)),
            container: first,
            text,
        }
        .into()
    }
}

/// Reasons to wait that have nothing to do with what is in the image.
const NOT_THE_IMAGES: [&str; 7] = [
    "ContainerCreating",
    "PodInitializing",
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
];

/// A limit that a standstill pushes out: it counts from the last moment at which the API server or this process stood still.
pub(super) fn deadline(begun: Instant, disturbed: Option<Instant>, limit: Duration) -> Instant {
    begun.max(disturbed.unwrap_or(begun)) + limit
}

/// Waits until the newest Pod of that name satisfies `condition`.
///
/// # Errors
/// The API server does not answer. If it does and the condition does not hold, that is the inner result.
pub(super) async fn until(
    scene: &Arc<Scene>,
    pod: &str,
    what: &str,
    limit: Duration,
    condition: impl Fn(&PodState) -> bool,
) -> anyhow::Result<Result<PodState, TimedOut>> {
    let _waiting = scene.waits_for(format!("{what} of Pod {pod}"), pod);
    let look = |pods: &Pods| pods.get(pod).filter(|state| condition(state)).cloned();
    Ok(watch_until(scene, limit, look).await?.ok_or_else(|| {
        TimedOut(format!(
            "waited {limit:?} for {what} of Pod {pod}; last state: {}",
            state::describe(scene.pods().get(pod))
        ))
    }))
}

/// The first result of `look` at the changing state; none when time is up and the API server, asked once more, shows nothing else.
///
/// # Errors
/// The API server does not answer.
pub(super) async fn watch_until<T>(
    scene: &Arc<Scene>,
    limit: Duration,
    mut look: impl FnMut(&Pods) -> Option<T>,
) -> anyhow::Result<Option<T>> {
    let mut pods = scene.watch();
    let begun = Instant::now();
    loop {
        let until = {
            let pods = pods.borrow_and_update();
            if let Some(found) = look(&pods) {
                return Ok(Some(found));
            }
            deadline(begun, pods.disturbed, limit)
        };
        if timeout_at(until, pods.changed()).await.is_ok() {
            continue;
        }
        if deadline(begun, scene.pods().disturbed, limit) > Instant::now() {
            continue;
        }
        // The watch may have missed something: what counts is what the API server says now.
        scene.refresh().await?;
        return Ok(look(&scene.pods()));
    }
}

/// How long one container may take from its first start until it is ready. What comes before that, such as scheduling and images, is not its own.
pub(super) struct Startup<'a> {
    pub(super) container: &'a str,
    pub(super) limit: Duration,
}

impl Startup<'_> {
    /// Whether it has started, now or before, and is not ready.
    fn is_under_way(&self, pod: &Pod) -> bool {
        state::status(pod, self.container).is_some_and(|status| {
            let now = status.state.as_ref();
            let begun = now.is_some_and(|now| now.running.is_some() || now.terminated.is_some());
            !status.ready && (begun || status.restart_count > 0)
        })
    }
}

/// Waits until a node takes the Pod, longer while the cluster says that one is coming.
///
/// # Errors
/// The scheduler finds none.
async fn scheduled(scene: &Arc<Scene>, pod: &str) -> anyhow::Result<()> {
    let (begun, waiting) = (
        Instant::now(),
        scene.waits_for(format!("a node that takes Pod {pod}"), pod),
    );
    loop {
        let taken = watch_until(scene, patience::SCHEDULED, |pods| {
            let taken = pods.get(pod)?.pod.spec.as_ref()?.node_name.is_some();
            taken.then_some(())
        });
        let (None, Some(state)) = (taken.await?, scene.pods().get(pod).cloned()) else {
            return Ok(());
        };
        let Some(message) = state::unschedulable(&state.pod) else {
            return Ok(());
        };
        match scene.node_is_coming(&state.pod).await? {
            Some(help) if begun.elapsed() < patience::NODE => waiting.is_long(&help),
            Some(help) => {
                let after = begun.elapsed();
                return Err(anyhow!(
                    "Pod {pod} cannot be scheduled after {after:.0?}: {message} ({help})"
                ));
            }
            None => return Err(anyhow!("Pod {pod} cannot be scheduled: {message}")),
        }
    }
}

/// Waits until the Pod is ready.
///
/// # Errors
/// No node takes it. It does not become ready within [`patience::READY`] from then, not counting the time that its images take, or one container
/// not within its own time: an [`Unready`] that says what holds it, every container's state, and the last words of one that fails.
pub(super) async fn ready(scene: &Arc<Scene>, pod: &str, startup: Option<Startup<'_>>) -> anyhow::Result<()> {
    scheduled(scene, pod).await?;
    let waiting = scene.waits_for(format!("Pod {pod} to be ready"), pod);
    // A fault may heal by itself: only one that stays is hopeless.
    let mut faulty: Option<Instant> = None;
    let mut started: Option<Instant> = None;
    let begun = Instant::now();
    // The last moment at which an image was on its way.
    let mut counted = begun;
    // Whether the API server was asked since something last changed: the watch may have missed something.
    let mut asked = false;
    let mut pods = scene.watch();
    loop {
        let (until, whole) = {
            let pods = pods.borrow_and_update();
            let whole = deadline(counted, pods.disturbed, patience::READY);
            let mut until = whole;
            if let Some(state) = pods.get(pod) {
                if state.deleted {
                    return Err(anyhow!("Pod {pod} was deleted before it was ready"));
                }
                if state::is_ready(&state.pod) {
                    return Ok(());
                }
                match &startup {
                    Some(startup) if startup.is_under_way(&state.pod) => {
                        let since = *started.get_or_insert_with(Instant::now);
                        until = until.min(deadline(since, pods.disturbed, startup.limit));
                    }
                    _ => {}
                }
                match fault(state) {
                    Some(Fault::Final(text)) => {
                        return Err(Unready::of(Some(state), format!("{text}{}", last_words(scene, pod))));
                    }
                    Some(Fault::MayHeal(_)) => {
                        let since = *faulty.get_or_insert_with(Instant::now);
                        until = until.min(deadline(since, pods.disturbed, patience::HEALING));
                    }
                    None => faulty = None,
                }
            }
            (until, whole)
        };
        if !asked || until > Instant::now() {
            asked = timeout_at(until, pods.changed()).await.is_err();
            if asked {
                scene.refresh().await?;
            }
            continue;
        }
        let seen = scene.pods();
        let state = seen.get(pod);
        if let (true, true, Some(state)) = (until == whole, begun.elapsed() < patience::TRANSFER, state)
            && let Some(help) = scene.image_is_coming(&state.pod).await?
        {
            waiting.is_long(&help);
            (counted, asked) = (Instant::now(), false);
            continue;
        }
        let words = last_words(scene, pod);
        let text = match state.and_then(fault) {
            Some(Fault::Final(text) | Fault::MayHeal(text)) => format!("{text}{words}"),
            None => format!(
                "Pod {pod} was not ready after {:.1?}; last state: {}{words}",
                begun.elapsed(),
                state::describe(state)
            ),
        };
        return Err(Unready::of(state, text));
    }
}

/// Why a container of a Pod does not run.
enum Fault {
    /// Waiting does not mend it.
    Final(String),
    /// It may heal: a registry or a node that is busy.
    MayHeal(String),
}

fn fault(state: &PodState) -> Option<Fault> {
    let name = state.pod.metadata.name.as_deref().unwrap_or_default();
    state::container_names(&state.pod).iter().find_map(|container| {
        let status = state::status(&state.pod, container)?;
        let text = || {
            format!(
                "container {container} of Pod {name} does not run: {}",
                state::describe(Some(state))
            )
        };
        match waiting(status)? {
            "ErrImageNeverPull" | "InvalidImageName" => Some(Fault::Final(text())),
            // Back-off after several crashes is the kubelet's word that it goes on like this.
            "CrashLoopBackOff" if status.restart_count > 2 => Some(Fault::Final(text())),
            reason if HEALING.contains(&reason) => Some(Fault::MayHeal(text())),
            _ => None,
        }
    })
}

/// Reasons to wait that may go away.
const HEALING: [&str; 6] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
];

fn waiting(status: &ContainerStatus) -> Option<&str> {
    status.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

/// Whether a container waits for its volumes or its image, or for others.
pub(super) fn is_being_created(pod: &Pod, container: &str) -> bool {
    let reason = state::status(pod, container).and_then(waiting);
    matches!(reason, Some("ContainerCreating" | "PodInitializing"))
}

/// A container that cannot run for a reason that lies in the infrastructure: its image or its configuration.
pub(super) fn cannot_start(state: &PodState) -> Option<String> {
    state::container_names(&state.pod).iter().find_map(|container| {
        let reason = waiting(state::status(&state.pod, container)?)?;
        let startless = reason != "CrashLoopBackOff"
            && (HEALING.contains(&reason) || matches!(reason, "ErrImageNeverPull" | "InvalidImageName"));
        startless.then(|| {
            format!(
                "container {container} cannot start: {}",
                state::status_text(&state.pod, container)
            )
        })
    })
}

/// What containers that are not ready said last, for an error message.
pub(super) fn last_words(scene: &Arc<Scene>, pod: &str) -> String {
    let pods = scene.pods();
    let Some(state) = pods.get(pod) else {
        return String::new();
    };
    state::container_names(&state.pod)
        .into_iter()
        .filter(|name| {
            state::status(&state.pod, name)
                .is_some_and(|status| !status.ready && (status.restart_count > 0 || status.last_state.is_some()))
        })
        .filter_map(|name| Some(format!("; {name}: {}", scene.log(pod, &name).ok()?.last_words())))
        .collect()
}

impl Scene {
    /// Asks the API server for the Pods as they are now.
    ///
    /// # Errors
    /// It has not answered for [`patience::API`].
    pub(crate) async fn refresh(&self) -> anyhow::Result<()> {
        let list = self.api_list().await.context("cannot look at the Pods once more")?;
        self.take(list);
        Ok(())
    }
}
