use anyhow::anyhow;
use rstest::rstest;

use super::{Finding, Mismatch, Verdict, conclude, judge_twin};
use crate::fixture::{Shape, Twin};
use crate::report::model::{CheckResult, OutcomeKind, TwinOutcome};

fn mismatch(observed: &str) -> Finding {
    Finding::NotMet(Box::new(Mismatch {
        expected: "200 lines".to_owned(),
        observed: observed.to_owned(),
        container: Some("shipper".to_owned()),
    }))
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

#[rstest]
#[case(Err(mismatch("0 lines; number 1 is missing")), true)]
#[case(Err(mismatch("7 lines")), false)]
#[case(Ok(()), false)]
#[case(Err(anyhow!("image missing: 0 lines").into()), false)]
fn only_the_expected_observation_catches_a_twin(#[case] verdict: Verdict, #[case] caught: bool) {
    let twin: Twin = serde_json::from_value(serde_json::json!({
        "name": "nobody writes", "fails": "lines", "observed": "^0 lines", "patch": [],
    }))
    .expect("a twin");
    let result = judge_twin(&twin, verdict, String::new()).result;
    assert_eq!(result == TwinOutcome::Caught, caught);
}
