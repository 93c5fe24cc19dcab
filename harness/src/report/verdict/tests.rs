use super::*;
use crate::report::model::sample;

/// The sample's checks as those of an image.
fn report() -> Report {
    let mut report = sample::report();
    report.subject = Some(SubjectFacts {
        image: "my/shipper:2.1".to_owned(),
        id: "sha256:0123456789abcdef0123456789abcdef".to_owned(),
        digest: None,
        role: "logging".to_owned(),
        claims: vec!["rename".to_owned(), "retry".to_owned()],
        architecture: "amd64".to_owned(),
        size: 12_345_678,
        layers: 3,
    });
    report.incomplete = None;
    report.selection = Vec::new();
    report
}

#[test]
fn the_verdict_comes_first() {
    insta::assert_snapshot!(render(&report()));
}

#[test]
fn markdown_has_every_requirement() {
    insta::assert_snapshot!(markdown(&report()));
}

#[test]
fn what_an_image_says_is_text() {
    let mut report = report();
    let hostile = "</details><script>alert(1)</script> | `x` \u{1b}[2J ::error::no [a](b) @everyone";
    for check in &mut report.checks {
        check.observed = Some(hostile.to_owned());
        check.outcome = OutcomeKind::NotMet;
    }
    for text in [render(&report), markdown(&report)] {
        assert!(!text.contains('\u{1b}'), "{text}");
    }
    let text = markdown(&report);
    assert!(!text.contains("<script>"), "{text}");
    assert!(
        text.contains(r"&lt;script&gt;alert(1)&lt;/script&gt; \| \`x\`"),
        "{text}"
    );
    assert!(text.contains(r"\[a\](b) \@everyone"), "{text}");
}

#[test]
fn what_follows_from_another_finding_is_left_out() {
    let mut report = report();
    let of = |id: &str, shape: Shape, outcome: OutcomeKind| CheckResult {
        outcome,
        level: Level::Must,
        ..CheckResult::undecided(id, shape, None, String::new())
    };
    report.checks = vec![
        of("validate/logging/becomes-ready", Shape::Native, OutcomeKind::NotMet),
        of(
            "validate/logging/works-beside-services",
            Shape::Native,
            OutcomeKind::NotMet,
        ),
        of(
            "validate/logging/works-beside-services",
            Shape::Classic,
            OutcomeKind::NotMet,
        ),
        of("validate/logging/first-lines-arrive", Shape::Native, OutcomeKind::Met),
        of(
            "validate/contract/stops-on-its-signal",
            Shape::Alone,
            OutcomeKind::NotMet,
        ),
    ];
    fold(&mut report);
    let outcomes: Vec<OutcomeKind> = report.checks.iter().map(|check| check.outcome).collect();
    use OutcomeKind::{Met, NotMet, Skipped};
    assert_eq!(outcomes, [NotMet, Skipped, NotMet, Met, NotMet]);
    assert_eq!(report.summary.skipped, 1);
}

#[test]
fn a_skip_does_not_make_a_good_sidecar() {
    let mut report = report();
    report.checks.truncate(1);
    report.summary = Summary::of(&report.checks);
    assert!(render(&report).starts_with("good logging sidecar: 1 of 1 MUST"));
    let mut skipped = report.checks[0].clone();
    skipped.outcome = OutcomeKind::Skipped;
    report.checks.push(skipped);
    report.summary = Summary::of(&report.checks);
    assert!(render(&report).starts_with("logging sidecar, not judged in full: 1 of 1 MUST"));
}
