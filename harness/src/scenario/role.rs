//! Roles: the sidecar's image is somebody else's, so that it does not even become ready is a finding.

use std::sync::Arc;

use anyhow::anyhow;

use crate::display::explained;
use crate::finding::{Finding, Mismatch};
use crate::fixture::{Begin, Fixture};
use crate::pod::{Scene, Unready};

/// The assertion that a role makes of its sidecar before all others.
pub(super) const READY: &str = "it becomes ready";

/// What it means that the Pods of a check are not ready: trouble, unless a role's sidecar is the reason.
pub(super) async fn unready(scene: &Arc<Scene>, fixture: &Fixture, error: anyhow::Error) -> Finding {
    let (Some(profile), Some(unready)) = (fixture.profile(), error.downcast_ref::<Unready>()) else {
        return error.into();
    };
    let sidecar = fixture.metadata.sidecars.first();
    if unready.container.as_ref() != sidecar || unready.lacks_image {
        return error.into();
    }
    let expected = format!("a sidecar that is ready within {:?}", profile.startup());
    let mismatch = Mismatch::new(READY, sidecar.map(String::as_str), expected, explained(&error));
    match scene.confirm().await {
        Ok(()) => mismatch.into(),
        Err(why) => Finding::Error(why.context(format!("nobody can tell: {mismatch}"))),
    }
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
