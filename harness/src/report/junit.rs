//! JUnit XML: one suite an area, for the tools that read nothing else.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report as JunitReport, TestCase, TestCaseStatus, TestSuite};

use super::model::{CheckResult, OutcomeKind, Report};
use super::terminal;
use crate::display::display_safe;

/// Renders the run. An `error` stays an error. What was left out is skipped, not passed, and so is a recommendation that is not met.
///
/// # Errors
/// The XML cannot be written.
pub fn render(report: &Report) -> anyhow::Result<String> {
    let mut junit = JunitReport::new("sidecheck");
    let mut areas: Vec<&str> = report.checks.iter().map(|check| check.area.as_str()).collect();
    areas.dedup();
    for area in areas {
        let mut suite = TestSuite::new(area);
        let checks = report.checks.iter().filter(|check| check.area == area);
        suite.add_test_cases(checks.map(|check| case(check, &report.command)));
        junit.add_test_suite(suite);
    }
    Ok(junit.to_string()?)
}

fn case(check: &CheckResult, command: &str) -> TestCase {
    let mut status = match check.outcome {
        OutcomeKind::Met => TestCaseStatus::success(),
        OutcomeKind::NotMet if check.should_not_met() => TestCaseStatus::skipped(),
        OutcomeKind::NotMet => TestCaseStatus::non_success(NonSuccessKind::Failure),
        OutcomeKind::Error => TestCaseStatus::non_success(NonSuccessKind::Error),
        OutcomeKind::NotApplicable | OutcomeKind::Skipped => TestCaseStatus::skipped(),
    };
    if let Some(reason) = &check.reason {
        status.set_message(display_safe(reason).as_ref());
    }
    if check.outcome != OutcomeKind::Met {
        status.set_description(terminal::block(check, command));
    }
    let mut case = TestCase::new(check.selector(), status);
    case.set_classname(check.area.as_str());
    case.set_time(Duration::from_millis(check.duration_ms));
    if check.outcome == OutcomeKind::Met && check.not_proved().count() > 0 {
        case.set_system_out(terminal::block(check, command));
    }
    case
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::sample;

    #[test]
    fn every_outcome_has_its_status() {
        insta::assert_snapshot!(render(&sample::report()).expect("XML"));
    }
}
