//! The run model, put together from the records of a run, whole or partial.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::model::{API_VERSION, CheckResult, Report, SuiteFacts, Summary, timestamp};
use super::records::{Found, Plan, Planned, RunFolder};
use crate::fixture::Fixture;

/// What is known of a run as a whole.
#[derive(Clone, Debug)]
pub struct Ran {
    /// What was to be decided; none if there is no plan.
    pub plan: Option<Plan>,
    /// See [`Report::command`]; the plan's own counts if there is one.
    pub command: String,
    /// The cluster it ran on, and the images there.
    pub found: Found,
    /// When it began.
    pub began: SystemTime,
    /// How long it took.
    pub duration: Duration,
}

/// Puts the report of a run together. A planned check without a record is an `error`, and a run that was ended is not complete.
///
/// # Errors
/// A record cannot be read.
pub fn assemble(folder: &RunFolder, fixtures: &Path, ran: Ran) -> anyhow::Result<Report> {
    let (mut checks, ended) = (folder.results()?, folder.ended());
    let planned = ran.plan.iter().flat_map(|plan| &plan.checks);
    let missing: Vec<CheckResult> = planned
        .filter(|planned| {
            !checks
                .iter()
                .any(|check| check.id == planned.id && check.shape == planned.shape)
        })
        .map(|planned| undecided(fixtures, planned, ended.as_deref()))
        .collect();
    let incomplete = match (&ran.plan, missing.len()) {
        (None, _) => Some("nobody wrote down what was to be decided".to_owned()),
        (Some(_), 0) => ended,
        (Some(plan), missing) => Some(format!("{missing} of {} checks have no outcome", plan.checks.len())),
    };
    checks.extend(missing);
    checks.sort_by_key(CheckResult::selector);
    let (command, prove, selection) = match ran.plan {
        Some(plan) => (plan.command, plan.prove, plan.selection),
        None => (
            ran.command,
            checks.iter().any(|check| !check.twins.is_empty()),
            Vec::new(),
        ),
    };
    Ok(Report {
        api_version: API_VERSION.to_owned(),
        kind: "ConformanceReport".to_owned(),
        run: folder.id(),
        command,
        date: timestamp(ran.began),
        complete: incomplete.is_none() && selection.is_empty(),
        incomplete,
        selection,
        prove,
        duration_ms: u64::try_from(ran.duration.as_millis()).unwrap_or(u64::MAX),
        suite: SuiteFacts::default(),
        images: ran.found.images,
        subject: ran.found.subject,
        cluster: ran.found.cluster,
        summary: Summary::of(&checks),
        checks,
    })
}

fn undecided(fixtures: &Path, planned: &Planned, ended: Option<&str>) -> CheckResult {
    let fixture = Fixture::load(fixtures, &planned.id).ok();
    let metadata = fixture.as_ref().map(|fixture| &fixture.metadata);
    let reason = match ended {
        Some(why) => format!("not begun; {why}"),
        None => "the run ended before this check had an outcome".to_owned(),
    };
    CheckResult::undecided(&planned.id, planned.shape, metadata, reason)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::fixture::Shape;
    use crate::report::model::{OutcomeKind, sample};

    fn plan(ids: &[&str], selection: &[&str]) -> Plan {
        let planned = |id: &&str| Planned {
            id: (*id).to_owned(),
            shape: Shape::Native,
        };
        Plan {
            command: "./scripts/conformance".to_owned(),
            prove: false,
            selection: selection.iter().map(|filter| (*filter).to_owned()).collect(),
            checks: ids.iter().map(planned).collect(),
        }
    }

    /// The report of a run that has recorded `logging/lines-arrive@native` alone.
    fn report(plan: Option<Plan>, ended: Option<&str>) -> Report {
        let results = tempfile::tempdir().expect("a folder");
        let folder = RunFolder::new(results.path(), "run");
        folder.record(&sample::report().checks[0]).expect("recorded");
        if let Some(why) = ended {
            folder.note_ended(why).expect("noted");
        }
        let ran = Ran {
            plan,
            command: "./scripts/conformance".to_owned(),
            found: Found::default(),
            began: SystemTime::UNIX_EPOCH,
            duration: Duration::ZERO,
        };
        assemble(&folder, Path::new("fixtures"), ran).expect("a report")
    }

    #[rstest]
    #[case::whole(Some(plan(&["logging/lines-arrive"], &[])), None, true, None)]
    #[case::filtered(Some(plan(&["logging/lines-arrive"], &["logging"])), None, false, None)]
    #[case::ended(
        Some(plan(&["logging/lines-arrive"], &[])),
        Some("interrupted"),
        false,
        Some("interrupted")
    )]
    #[case::killed(
        Some(plan(&["logging/lines-arrive", "logging/other"], &[])),
        None,
        false,
        Some("1 of 2 checks have no outcome")
    )]
    #[case::without_a_plan(None, None, false, Some("nobody wrote down what was to be decided"))]
    fn only_a_whole_run_is_complete(
        #[case] plan: Option<Plan>,
        #[case] ended: Option<&str>,
        #[case] complete: bool,
        #[case] incomplete: Option<&str>,
    ) {
        let report = report(plan, ended);
        assert_eq!(report.complete, complete);
        assert_eq!(report.incomplete.as_deref(), incomplete);
    }

    #[rstest]
    #[case::killed(None, "the run ended before this check had an outcome")]
    #[case::ended(Some("interrupted"), "not begun; interrupted")]
    fn a_planned_check_without_a_record_is_an_error(#[case] ended: Option<&str>, #[case] reason: &str) {
        let report = report(Some(plan(&["logging/lines-arrive", "logging/other"], &[])), ended);
        assert_eq!(report.checks[1].outcome, OutcomeKind::Error);
        assert_eq!(report.checks[1].reason.as_deref(), Some(reason));
        assert_eq!(report.summary.exit_code(), 2);
    }
}
