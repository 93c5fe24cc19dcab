//! The run as a person reads it in a terminal.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use super::model::{CheckResult, Measurement, OutcomeKind, Report, Summary, TwinOutcome};
use crate::display::{display_line, display_safe, shortened};

/// The whole result: the cluster, a table by area, then what was not met or could not be decided, last.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let cluster = &report.cluster;
    let facts = format!(
        "Kubernetes {} · {} · {} · kernel {} · Pod network {}",
        cluster.version, cluster.distribution, cluster.runtime, cluster.kernel, cluster.cni
    );
    let _ = writeln!(text, "{}\n", display_line(&facts));
    let _ = writeln!(text, "{}\n", table(report));
    let measured: Vec<String> = report.checks.iter().filter_map(measured).collect();
    if !measured.is_empty() {
        let _ = writeln!(text, "{}\n", measured.join("\n"));
    }
    let kinds: [fn(&CheckResult) -> bool; 6] = [
        |check| check.outcome == OutcomeKind::Met && check.not_proved().count() > 0,
        |check| check.outcome == OutcomeKind::Skipped,
        |check| check.outcome == OutcomeKind::NotApplicable,
        |check| check.outcome == OutcomeKind::NotMet && !check.should_not_met(),
        CheckResult::should_not_met,
        |check| check.outcome == OutcomeKind::Error,
    ];
    for is_kind in kinds {
        for check in report.checks.iter().filter(|check| is_kind(check)) {
            let _ = writeln!(text, "{}", block(check, &report.command));
        }
    }
    let seconds = report.duration_ms as f64 / 1000.0;
    let _ = writeln!(text, "{} checks in {seconds:.1} s", report.checks.len());
    for line in [twins(report), unproved(report), recommendations(report)]
        .into_iter()
        .flatten()
    {
        let _ = writeln!(text, "{line}");
    }
    if !report.selection.is_empty() {
        let _ = writeln!(text, "This run was filtered: {}", report.selection.join(" "));
    }
    if let Some(reason) = &report.incomplete {
        let _ = writeln!(text, "This run is not complete: {reason}");
    }
    display_safe(&text).into_owned()
}

fn twins(report: &Report) -> Option<String> {
    let ran = |twin: &TwinOutcome| *twin != TwinOutcome::NotProved;
    let twins = report.checks.iter().flat_map(|check| &check.twins);
    let twins: Vec<TwinOutcome> = twins.map(|twin| twin.result).filter(ran).collect();
    let caught = twins.iter().filter(|twin| **twin == TwinOutcome::Caught).count();
    (!twins.is_empty()).then(|| format!("proved able to fail: {caught} of {} twins noticed", twins.len()))
}

fn unproved(report: &Report) -> Option<String> {
    match report.summary.not_proved {
        0 => None,
        1 => Some("not proved: 1 twin did not run".to_owned()),
        count => Some(format!("not proved: {count} twins did not run")),
    }
}

fn recommendations(report: &Report) -> Option<String> {
    match report.summary.should_not_met {
        0 => None,
        1 => Some("1 recommendation is not met".to_owned()),
        count => Some(format!("{count} recommendations are not met")),
    }
}

fn table(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let with_should = report.summary.should_not_met > 0;
    let mut header = vec![
        "area",
        "met",
        "not met",
        "not applicable",
        "skipped",
        "error",
        "slowest",
    ];
    if with_should {
        header.insert(3, "should, not met");
    }
    table.set_header(header);
    let mut areas: Vec<&str> = report.checks.iter().map(|check| check.area.as_str()).collect();
    areas.dedup();
    for area in areas {
        let checks: Vec<&CheckResult> = report.checks.iter().filter(|check| check.area == area).collect();
        table.add_row(row(area, with_should, &checks));
    }
    table.add_row(row("all", with_should, &report.checks.iter().collect::<Vec<_>>()));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn row(name: &str, with_should: bool, checks: &[&CheckResult]) -> Vec<String> {
    let summary = Summary::of(checks.iter().copied());
    let mut counts = vec![
        summary.met,
        summary.not_met,
        summary.not_applicable,
        summary.skipped,
        summary.error,
    ];
    if with_should {
        counts.insert(2, summary.should_not_met);
    }
    let shown = |count: usize| if count == 0 { "·".to_owned() } else { count.to_string() };
    let slowest = checks.iter().map(|check| check.duration_ms).max().unwrap_or_default();
    let mut row = vec![name.to_owned()];
    row.extend(counts.into_iter().map(shown));
    row.push(format!("{:.1} s", slowest as f64 / 1000.0));
    row
}

/// What a check measured, if anything: `config-reload/reload-takes-effect@native: time to effect 1.2 s, 0.9 s`.
fn measured(check: &CheckResult) -> Option<String> {
    let mut text = format!("{}:", check.selector());
    let mut last = "";
    for Measurement { name, duration_ms } in &check.measurements {
        let lead = match last {
            "" => format!(" {name}"),
            last if last == name => ",".to_owned(),
            _ => format!("; {name}"),
        };
        let _ = write!(text, "{lead} {:.1} s", *duration_ms as f64 / 1000.0);
        last = name;
    }
    (!last.is_empty()).then_some(text)
}

/// One check's outcome in a line, as it is shown while the run goes on.
pub fn line(check: &CheckResult) -> String {
    let seconds = check.duration_ms as f64 / 1000.0;
    let text = format!("{:<15} {seconds:>6.1} s  {}", check.word(), check.selector());
    display_line(&text).into_owned()
}

/// One check's outcome, with all that is needed to understand it and to run it again; `command` decides checks on the same cluster.
pub fn block(check: &CheckResult, command: &str) -> String {
    let mut text = format!("{}: {}\n", check.word(), check.selector());
    let mut line = |name: &str, value: &str| {
        let value = shortened(value).replace('\n', "\n               ");
        let _ = writeln!(text, "  {name:<12} {value}");
    };
    if !check.requirement.is_empty() && check.outcome != OutcomeKind::Met {
        line("requirement", &check.requirement);
    }
    let fields = [
        ("expected", &check.expected),
        ("observed", &check.observed),
        ("container", &check.container),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            line(name, value);
        }
    }
    if let Some(reason) = check.reason.as_ref().filter(|_| check.outcome != OutcomeKind::NotMet) {
        line("reason", reason);
    }
    for twin in check.not_proved() {
        let why = twin.reason.as_deref().unwrap_or_default();
        line("not proved", &format!("“{}”: {why}", twin.name));
    }
    for note in check.notes.iter().filter(|_| check.outcome != OutcomeKind::Met) {
        line("note", note);
    }
    if let Some(remediation) = &check.remediation {
        line("what to do", remediation);
    }
    if matches!(check.outcome, OutcomeKind::NotMet | OutcomeKind::Error) {
        if !check.source.is_empty() {
            line("source", &check.source);
        }
        if !check.evidence.is_empty() {
            line("evidence", &format!("target/sidecheck/{}", check.evidence));
        }
        line("run again", &format!("{command} {}", check.selector()));
    }
    display_safe(&text).into_owned()
}

#[cfg(test)]
mod tests;
