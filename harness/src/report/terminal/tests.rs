use super::*;
use crate::report::model::sample;

#[test]
fn a_run_reads_from_the_cluster_to_the_failing_checks() {
    insta::assert_snapshot!(render(&sample::report()));
}

#[test]
fn what_containers_and_nodes_say_cannot_steer_the_terminal() {
    let mut report = sample::report();
    report.checks[1].observed = Some("\u{1b}[2Jcleared \u{202e}reversed".to_owned());
    report.cluster.runtime = "containerd\n0 failed \u{1b}[2J".to_owned();
    let text = render(&report);
    assert!(!text.contains(['\u{1b}', '\u{202e}']));
    assert!(text.contains(r"\u{1b}[2Jcleared \u{202e}reversed"), "{text}");
    assert!(text.contains(r"containerd\u{a}0 failed \u{1b}[2J"), "{text}");
}

#[test]
fn a_long_value_is_cut() {
    let mut check = sample::report().checks.remove(1);
    check.observed = Some("x".repeat(5000));
    let text = block(&check, "./scripts/conformance");
    assert!(text.contains("x… (3000 more bytes in the evidence)\n"), "{text}");
}

#[test]
fn a_skip_is_no_pass_and_an_error_wins() {
    let report = sample::report();
    assert_eq!(report.summary.closing_line(), "1 passed, 2 failed, 1 skipped");
    assert_eq!(report.summary.exit_code(), 2);
}

#[test]
fn a_recommendation_that_is_not_met_fails_no_run() {
    let mut report = sample::report();
    report.checks.retain(CheckResult::should_not_met);
    report.summary = Summary::of(&report.checks);
    assert_eq!(report.summary.closing_line(), "0 passed, 0 failed, 0 skipped");
    assert_eq!(report.summary.exit_code(), 0);
    assert!(!report.checks[0].fails());
}

#[test]
fn a_whole_run_says_nothing_of_filters_and_recommendations() {
    let mut report = sample::report();
    report.checks.retain(|check| !check.should_not_met());
    report.summary = Summary::of(&report.checks);
    report.selection.clear();
    report.incomplete = None;
    let text = render(&report);
    for absent in ["This run", "recommendation", "should, not met"] {
        assert!(!text.contains(absent), "“{absent}” in {text}");
    }
}
