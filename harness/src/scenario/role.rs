//! Roles: the sidecar's image is somebody else's, so that it does not even become ready is a finding.

use std::sync::Arc;

use anyhow::anyhow;

use crate::display::explained;
use crate::finding::{Finding, Mismatch};
use crate::fixture::{Begin, Fixture};
use crate::pod::state::status;
use crate::pod::{Scene, Unready};

/// The assertion that a role makes of its sidecar before all others.
pub(super) const READY: &str = "it becomes ready";

/// What it means that the Pods of a check are not ready: trouble, unless a role's sidecar is the reason.
pub(super) async fn unready(scene: &Arc<Scene>, fixture: &Fixture, error: anyhow::Error) -> Finding {
    let (Some(profile), Some(unready)) = (fixture.profile(), error.downcast_ref::<Unready>()) else {
        return error.into();
    };
    let sidecar = fixture.metadata.sidecars.first();
    if unready.container.as_ref() != sidecar || unready.not_begun {
        return error.into();
    }
    let expected = format!("a sidecar that is ready within {:?} of its start", profile.startup());
    let observed = match waits_for_main(scene, fixture) {
        Some(why) => format!("{}; {why}", explained(&error)),
        None => explained(&error),
    };
    let mismatch = Mismatch::new(READY, sidecar.map(String::as_str), expected, observed);
    match scene.confirm().await {
        Ok(()) => mismatch.into(),
        Err(why) => Finding::Error(why.context(format!("nobody can tell: {mismatch}"))),
    }
}

/// What may keep a native sidecar from being ready that runs: the kubelet starts main after that, so who waits for main waits for ever.
fn waits_for_main(scene: &Scene, fixture: &Fixture) -> Option<String> {
    let (main, sidecar) = (&fixture.metadata.main, fixture.metadata.sidecars.first()?);
    let pods = scene.pods();
    let pod = &pods.get(fixture.pod_name())?.pod;
    let runs = |name: &str| Some(status(pod, name)?.state.as_ref()?.running.is_some());
    let mut native = pod.spec.as_ref()?.init_containers.iter().flatten();
    let waits = native.any(|container| container.name == *sidecar) && runs(sidecar)? && !runs(main)?;
    waits.then(|| format!("{main} cannot start before {sidecar} is ready: perhaps it waits for main"))
}

/// What follows for one of the checks from what kept a life from beginning. Checks that have nothing to look at do not repeat it.
pub(super) fn without_life(fixture: &Fixture, finding: &Finding) -> Finding {
    match finding {
        Finding::NotMet(_) if fixture.metadata.begin != Begin::Judged => Finding::Skipped(left_out(fixture)),
        Finding::NotMet(mismatch) => Finding::NotMet(mismatch.clone()),
        Finding::NotApplicable(reason) => Finding::NotApplicable(reason.clone()),
        Finding::Skipped(reason) => Finding::Skipped(reason.clone()),
        Finding::Error(error) => Finding::Error(anyhow!(explained(error))),
    }
}

/// Why a check is left out.
pub(super) fn left_out(fixture: &Fixture) -> String {
    format!("the image did not become ready: see {}/becomes-ready", fixture.area())
}
