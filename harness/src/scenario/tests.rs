use anyhow::anyhow;
use rstest::rstest;

use super::judge::conclude;
use crate::finding::{Finding, Mismatch, Verdict};
use crate::fixture::Shape;
use crate::report::model::{CheckResult, OutcomeKind};

fn mismatch(observed: &str) -> Finding {
    Mismatch::new("every line", Some("shipper"), "200 lines", observed).into()
}

#[rstest]
#[case(Ok(()), OutcomeKind::Met)]
#[case(Err(mismatch("0 lines")), OutcomeKind::NotMet)]
#[case(Err(Finding::NotApplicable("no such feature".to_owned())), OutcomeKind::NotApplicable)]
#[case(Err(Finding::Skipped("asked for".to_owned())), OutcomeKind::Skipped)]
#[case(Err(anyhow!("the API server does not answer").into()), OutcomeKind::Error)]
fn a_verdict_becomes_its_outcome(#[case] verdict: Verdict, #[case] expected: OutcomeKind) {
    let mut result = CheckResult::undecided("logging/lines", Shape::Native, None, "not run".to_owned());
    conclude(&mut result, verdict, "Look at the node.");
    assert_eq!(result.outcome, expected);
    assert_eq!(result.reason.is_none(), expected == OutcomeKind::Met);
    assert_eq!(result.remediation.is_some(), expected == OutcomeKind::NotMet);
}
