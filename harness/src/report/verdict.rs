//! The verdict on an image: what its author wants to know first.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::model::{CheckResult, OutcomeKind, Report, SubjectFacts, Summary};
use super::terminal::block;
use crate::display::{display_line, display_safe};
use crate::fixture::{Level, Shape};

/// The verdict in a terminal: at most ten lines, then what was found of each requirement that is not met.
pub fn render(report: &Report) -> String {
    let Some(subject) = &report.subject else {
        return super::terminal::render(report);
    };
    let mut text = format!("{}\n\n", display_line(&headline(report, subject)));
    for (name, value) in facts(report, subject) {
        let _ = writeln!(text, "  {name:<15} {}", display_line(&value));
    }
    text.push('\n');
    for check in found(report) {
        let _ = writeln!(text, "{}", block(check, &report.command));
    }
    display_safe(&text).into_owned()
}

/// Leaves out what only follows from another finding: if an image does not start, or does not become ready in a shape, nothing else can be judged
/// there.
pub fn fold(report: &mut Report) {
    let not_met = |check: &&CheckResult| check.outcome == OutcomeKind::NotMet;
    let is_root = |check: &&CheckResult| ROOTS.iter().any(|root| check.id.ends_with(root));
    let roots: Vec<(String, String, Shape)> = report
        .checks
        .iter()
        .filter(not_met)
        .filter(is_root)
        .map(|check| (check.id.clone(), check.area.clone(), check.shape))
        .collect();
    for (root, area, shape) in roots {
        let follows = |check: &&mut CheckResult| {
            check.outcome == OutcomeKind::NotMet && check.id != root && check.area == area && check.shape == shape
        };
        for check in report.checks.iter_mut().filter(follows) {
            check.outcome = OutcomeKind::Skipped;
            check.reason = Some(format!("it cannot be judged while {root} is not met"));
            check.remediation = None;
        }
    }
    report.summary = Summary::of(&report.checks);
}

/// The checks without which no other of their area means anything.
const ROOTS: [&str; 2] = ["/becomes-ready", "/starts-as-declared"];

/// The verdict as Markdown, for a README or a step summary.
pub fn markdown(report: &Report) -> String {
    let Some(subject) = &report.subject else {
        return String::new();
    };
    let mut text = format!("### {}\n\n| | |\n|---|---|\n", cell(&headline(report, subject)));
    for (name, value) in facts(report, subject) {
        let _ = writeln!(text, "| {name} | {} |", cell(&value));
    }
    text.push_str("\n<details><summary>Every requirement</summary>\n\n| outcome | level | check | shape | requirement |\n|---|---|---|---|---|\n");
    for check in &report.checks {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            check.word(),
            check.level.word(),
            cell(&check.id),
            check.shape,
            cell(&check.requirement)
        );
    }
    text.push_str("\n</details>\n");
    for check in found(report) {
        let _ = writeln!(text, "\n#### {}: {}\n", check.word(), cell(&check.selector()));
        let fields = [
            ("requirement", &Some(check.requirement.clone())),
            ("expected", &check.expected),
            ("observed", &check.observed),
            ("container", &check.container),
            ("what to do", &check.remediation),
            ("source", &Some(check.source.clone())),
        ];
        let fields = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let reason = (check.outcome != OutcomeKind::NotMet).then_some(check.reason.as_ref());
        for (name, value) in fields.chain(reason.flatten().map(|reason| ("reason", reason))) {
            let _ = writeln!(text, "- {name}: {}", cell(value));
        }
    }
    text
}

/// A text of the image or the cluster, which may hold anything, within Markdown.
fn cell(text: &str) -> String {
    let line = display_line(text);
    let mut escaped = String::new();
    for letter in line.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '!' | '@' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            _ => escaped.push(letter),
        }
    }
    escaped
}

/// `good logging sidecar: 31 of 31 MUST, 6 of 8 SHOULD`.
fn headline(report: &Report, subject: &SubjectFacts) -> String {
    let summary = report.summary;
    let role = match subject.role.as_str() {
        "generic" => String::new(),
        role => format!("{role} "),
    };
    let what = match summary {
        _ if report.incomplete.is_some() || summary.error > 0 => {
            format!("nobody can tell whether this is a good {role}sidecar")
        }
        Summary { not_met: 1.., .. } => format!("not a good {role}sidecar"),
        Summary { met: 0, .. } => format!("nothing was decided about this {role}sidecar"),
        _ if !report.selection.is_empty() => format!("{role}sidecar, as far as was asked"),
        // A skip is no pass.
        Summary { skipped: 1.., .. } => format!("{role}sidecar, not judged in full"),
        _ => format!("good {role}sidecar"),
    };
    let of_level = |level: Level| {
        let decided: Vec<&CheckResult> = report
            .checks
            .iter()
            .filter(|check| check.level == level && matches!(check.outcome, OutcomeKind::Met | OutcomeKind::NotMet))
            .collect();
        let met = decided.iter().filter(|check| check.outcome == OutcomeKind::Met).count();
        format!("{met} of {} {}", decided.len(), level.word())
    };
    format!("{what}: {}, {}", of_level(Level::Must), of_level(Level::Should))
}

/// What stands below the headline.
fn facts(report: &Report, subject: &SubjectFacts) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let size = subject.size as f64 / 1e6;
    let id: String = subject.id.chars().take(19).collect();
    let image = match subject.layers {
        0 => format!("{}, as the cluster pulls it", subject.image),
        layers => format!(
            "{} ({id}), {}, {size:.1} MB in {layers} layers",
            subject.image, subject.architecture
        ),
    };
    facts.push(("image", image));
    let claims = match subject.claims[..] {
        [] => "nothing beyond the role".to_owned(),
        ref claims => claims.join(", "),
    };
    facts.push(("claims", claims));
    // Who looks at an image alone needs no cluster.
    if report.checks.iter().any(|check| check.shape != Shape::Alone) {
        let cluster = &report.cluster;
        let text = format!(
            "Kubernetes {} · {} · {}",
            cluster.version, cluster.distribution, cluster.runtime
        );
        facts.push(("cluster", text));
    }
    for shape in [Shape::Alone, Shape::Classic, Shape::Native] {
        let checks: Vec<&CheckResult> = report.checks.iter().filter(|check| check.shape == shape).collect();
        if checks.is_empty() {
            continue;
        }
        let summary = Summary::of(checks);
        let counts = [
            (summary.met, "met"),
            (summary.not_met, "not met"),
            (summary.should_not_met, "SHOULD not met"),
            (summary.not_applicable, "not applicable"),
            (summary.skipped, "skipped"),
            (summary.error, "error"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts.map(|(count, word)| format!("{count} {word}")).collect();
        facts.push((
            match shape {
                Shape::Alone => "alone",
                Shape::Classic => "classic sidecar",
                Shape::Native => "native sidecar",
            },
            counts.join(", "),
        ));
    }
    let named = |wanted: fn(&CheckResult) -> bool| {
        let names: BTreeSet<&str> = report
            .checks
            .iter()
            .filter(|check| wanted(check))
            .filter_map(|check| check.id.rsplit('/').next())
            .collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    };
    let lists = [
        (
            "not met",
            named(|check| check.outcome == OutcomeKind::NotMet && !check.should_not_met()),
        ),
        ("SHOULD not met", named(CheckResult::should_not_met)),
        (
            "undecided",
            named(|check| matches!(check.outcome, OutcomeKind::Error | OutcomeKind::Skipped)),
        ),
    ];
    facts.extend(lists.into_iter().filter(|(_, names)| !names.is_empty()));
    facts
}

/// What needs a word, the worst last. Of checks that were left out for the same reason, the first one stands for all.
fn found(report: &Report) -> Vec<&CheckResult> {
    let mut reasons = BTreeSet::new();
    let kinds: [fn(&CheckResult) -> bool; 4] = [
        |check| check.outcome == OutcomeKind::Skipped,
        CheckResult::should_not_met,
        |check| check.outcome == OutcomeKind::NotMet && !check.should_not_met(),
        |check| check.outcome == OutcomeKind::Error,
    ];
    let of_kind = |is_kind: fn(&CheckResult) -> bool| report.checks.iter().filter(move |check| is_kind(check));
    let mut found: Vec<&CheckResult> = kinds.into_iter().flat_map(of_kind).collect();
    found.retain(|check| check.outcome != OutcomeKind::Skipped || reasons.insert(check.reason.clone()));
    found
}

#[cfg(test)]
mod tests;
