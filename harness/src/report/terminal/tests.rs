use super::*;
use crate::report::model::sample;

#[test]
fn a_run_reads_from_the_cluster_to_the_failing_checks() {
    insta::assert_snapshot!(render(&sample::report()));
}

#[test]
fn what_containers_print_cannot_steer_the_terminal() {
    let mut check = sample::report().checks.remove(1);
    check.observed = Some("\u{1b}[2Jcleared".to_owned());
    assert!(!block(&check, "./scripts/conformance").contains('\u{1b}'));
}

#[test]
fn a_skip_is_no_pass_and_an_error_wins() {
    let report = sample::report();
    assert_eq!(report.summary.closing_line(), "1 passed, 2 failed, 1 skipped");
    assert_eq!(report.summary.exit_code(), 2);
}
