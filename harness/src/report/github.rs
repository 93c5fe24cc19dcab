//! What a run of GitHub Actions shows: annotations and the step's summary.

use super::model::{OutcomeKind, Report};

/// How many annotations of a kind a step may have.
const ANNOTATIONS: usize = 10;

/// The most that a step's summary may have, in bytes.
const SUMMARY: usize = 1 << 20;

/// Commands for the runner: an annotation for each of the first checks that are not met or could not be decided.
pub fn annotations(report: &Report) -> Vec<String> {
    let mut commands = Vec::new();
    for (outcome, kind) in [(OutcomeKind::Error, "error"), (OutcomeKind::NotMet, "error")] {
        for check in report.checks.iter().filter(|check| check.outcome == outcome) {
            let kind = if check.should_not_met() { "warning" } else { kind };
            let observed = check.observed.as_ref().or(check.reason.as_ref());
            let title = property(&format!("{}: {}", check.word(), check.selector()));
            let text = data(&format!(
                "{} Observed: {}",
                check.requirement,
                observed.map_or("", String::as_str)
            ));
            commands.push(format!("::{kind} title={title}::{text}"));
        }
    }
    commands.truncate(ANNOTATIONS);
    commands
}

/// As much of a Markdown text as a step's summary takes.
pub fn summary(markdown: &str) -> &str {
    let mut end = markdown.len().min(SUMMARY);
    while !markdown.is_char_boundary(end) {
        end -= 1;
    }
    &markdown[..end]
}

/// A text as the runner reads it: a line break would begin another command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::sample;

    #[test]
    fn an_annotation_is_one_command() {
        let mut report = sample::report();
        for check in &mut report.checks {
            check.outcome = OutcomeKind::NotMet;
            check.observed = Some("100 %\n::error::no".to_owned());
        }
        let commands = annotations(&report);
        assert_eq!(commands.len(), report.checks.len());
        for command in commands {
            assert!(!command.contains('\n'), "{command}");
            assert!(command.ends_with("Observed: 100 %25%0A::error::no"), "{command}");
        }
    }

    #[test]
    fn there_are_no_more_than_a_step_may_have() {
        let mut report = sample::report();
        report.checks = std::iter::repeat_n(report.checks[1].clone(), 30).collect();
        assert_eq!(annotations(&report).len(), 10);
        assert_eq!(summary(&"ä".repeat(SUMMARY)).len(), SUMMARY);
    }
}
