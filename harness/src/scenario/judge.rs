//! What becomes of a verdict.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::life::Seen;
use crate::display::explained;
use crate::finding::{Finding, Mismatch, Verdict};
use crate::fixture::Twin;
use crate::report::model::{CheckResult, OutcomeKind, TimelineEvent, TwinOutcome, TwinResult, timestamp};

/// Puts into the result what was seen on the way to the verdict.
pub(super) fn fill(result: &mut CheckResult, seen: &Seen, began: SystemTime) {
    result.started = Some(timestamp(began));
    result.duration_ms = u64::try_from(seen.duration.as_millis()).unwrap_or(u64::MAX);
    result.node.clone_from(&seen.node);
    result.notes.clone_from(&seen.notes);
    result.assertions.clone_from(&seen.assertions);
    result.measurements.clone_from(&seen.measurements);
    let events = seen.timeline.since_first().map(|(t_ms, event)| TimelineEvent {
        t_ms,
        container: event.container.clone(),
        event: event.event.clone(),
        fields: event.fields.clone(),
    });
    result.timeline = events.collect();
}

/// Makes the verdict the result's outcome.
pub(super) fn conclude(result: &mut CheckResult, verdict: Verdict, remediation: &str) {
    result.reason = None;
    match verdict {
        Ok(()) => result.outcome = OutcomeKind::Met,
        Err(Finding::NotMet(mismatch)) => {
            result.outcome = OutcomeKind::NotMet;
            result.reason = Some(result.requirement.clone());
            result.remediation = Some(remediation.to_owned());
            result.expected = Some(mismatch.expected().to_owned());
            result.observed = Some(mismatch.observed().to_owned());
            result.container = mismatch.container().map(str::to_owned);
        }
        Err(Finding::NotApplicable(reason)) => {
            result.outcome = OutcomeKind::NotApplicable;
            result.reason = Some(reason);
        }
        Err(Finding::Skipped(reason)) => {
            result.outcome = OutcomeKind::Skipped;
            result.reason = Some(reason);
        }
        Err(Finding::Error(error)) => {
            result.outcome = OutcomeKind::Error;
            result.reason = Some(explained(&error));
        }
    }
}

/// Whether the check has caught its twin: the outcome is `not met`, by the assertion that the twin is to fail.
pub(super) fn twin(twin: &Twin, verdict: Verdict, evidence: String) -> TwinResult {
    let mut result = TwinResult {
        name: twin.name.clone(),
        result: TwinOutcome::Missed,
        reason: None,
        assertion: None,
        observed: None,
        evidence: Some(evidence),
    };
    match verdict {
        Ok(()) => result.reason = Some("the outcome was met all the same".to_owned()),
        Err(Finding::NotMet(mismatch)) => {
            result.reason = miss(twin, &mismatch);
            if result.reason.is_none() {
                result.result = TwinOutcome::Caught;
            }
            result.assertion = Some(mismatch.label().to_owned());
            result.observed = Some(mismatch.observed().to_owned());
        }
        Err(Finding::NotApplicable(reason)) => result.reason = Some(format!("not applicable: {reason}")),
        Err(Finding::Skipped(reason)) => {
            result.result = TwinOutcome::NotProved;
            result.reason = Some(reason);
            result.evidence = None;
        }
        Err(Finding::Error(error)) => result.reason = Some(format!("error: {}", explained(&error))),
    }
    result
}

/// Why a mismatch is not the one that the twin is to show.
fn miss(twin: &Twin, mismatch: &Mismatch) -> Option<String> {
    if mismatch.label() != twin.fails {
        let (wanted, failed) = (&twin.fails, mismatch.label());
        return Some(format!("expected to fail “{wanted}”, failed “{failed}”: {mismatch}"));
    }
    if twin.container.is_some() && mismatch.container() != twin.container.as_deref() {
        let wanted = twin.container.as_deref().unwrap_or_default();
        return Some(format!("expected to fail at {wanted}, got: {mismatch}"));
    }
    let wanted = twin
        .observed
        .as_ref()
        .filter(|wanted| !wanted.is_match(mismatch.observed()))?;
    Some(format!("expected an observation like “{wanted}”, got: {mismatch}"))
}

/// What is wrong with the proof that a check can fail: a twin that it does not catch, or an assertion that no twin makes fail and that
/// `explained` does not say why.
pub(super) fn unproved(result: &CheckResult, explained: &BTreeMap<String, String>) -> Option<String> {
    if let Some(twin) = result.twins.iter().find(|twin| twin.result == TwinOutcome::Missed) {
        let why = twin.reason.as_deref().unwrap_or_default();
        return Some(format!("the check does not catch its twin “{}”: {why}", twin.name));
    }
    if result.twins.iter().any(|twin| twin.result == TwinOutcome::NotProved) {
        return None;
    }
    let hit = |label: &str| result.twins.iter().any(|twin| twin.assertion.as_deref() == Some(label));
    let made = |label: &str| result.assertions.iter().any(|assertion| assertion.label == label);
    let label = &result
        .assertions
        .iter()
        .map(|assertion| &assertion.label)
        .find(|label| !hit(label) && !explained.contains_key(*label));
    if let Some(label) = label {
        return Some(format!(
            "nothing shows that “{label}” can fail: add a twin that fails it, or say why there is none under `unproved`"
        ));
    }
    let unknown = explained.keys().find(|label| !made(label))?;
    Some(format!("`unproved` names “{unknown}”, which the check does not assert"))
}
