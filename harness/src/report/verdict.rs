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
    let worst_last = [OutcomeKind::Skipped, OutcomeKind::NotMet, OutcomeKind::Error];
    for outcome in worst_last {
        for check in said_once(report, outcome) {
            let _ = writeln!(text, "{}", block(check, &report.command));
        }
    }
    display_safe(&text).into_owned()
}

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
    for outcome in [OutcomeKind::NotMet, OutcomeKind::Error] {
        for check in said_once(report, outcome) {
            let _ = writeln!(text, "\n#### {}: {}\n", check.word(), cell(&check.selector()));
            let fields = [
                ("expected", &check.expected),
                ("observed", &check.observed),
                ("container", &check.container),
                ("reason", &check.reason),
                ("what to do", &check.remediation),
            ];
            for (name, value) in fields {
                if let Some(value) = value {
                    let _ = writeln!(text, "- {name}: {}", cell(value));
                }
            }
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
    facts.push((
        "image",
        format!(
            "{} ({id}), {}, {size:.1} MB in {} layers",
            subject.image, subject.architecture, subject.layers
        ),
    ));
    let claims = match subject.claims[..] {
        [] => "nothing beyond the role".to_owned(),
        ref claims => claims.join(", "),
    };
    facts.push(("claims", claims));
    let cluster = &report.cluster;
    facts.push((
        "cluster",
        format!(
            "Kubernetes {} · {} · {}",
            cluster.version, cluster.distribution, cluster.runtime
        ),
    ));
    for shape in [Shape::Alone, Shape::Classic, Shape::Native] {
        let checks: Vec<&CheckResult> = report.checks.iter().filter(|check| check.shape == shape).collect();
        if checks.is_empty() {
            continue;
        }
        let summary = Summary::of(checks);
        let counts = [
            (summary.met, "met"),
            (summary.not_met, "not met"),
            (summary.should_not_met, "recommended, not met"),
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
        ("recommended", named(CheckResult::should_not_met)),
        (
            "undecided",
            named(|check| matches!(check.outcome, OutcomeKind::Error | OutcomeKind::Skipped)),
        ),
    ];
    facts.extend(lists.into_iter().filter(|(_, names)| !names.is_empty()));
    facts
}

/// The checks with that outcome. Of those that were left out for the same reason, the first one stands for all.
fn said_once(report: &Report, outcome: OutcomeKind) -> impl Iterator<Item = &CheckResult> {
    let mut reasons = BTreeSet::new();
    report.checks.iter().filter(move |check| {
        check.outcome == outcome && (outcome != OutcomeKind::Skipped || reasons.insert(check.reason.clone()))
    })
}
