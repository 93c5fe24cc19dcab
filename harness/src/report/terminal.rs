//! The run as a person reads it in a terminal.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use super::model::{CheckResult, Measurement, OutcomeKind, Report, Summary};

/// The whole result: the cluster, a table by area, then what was not met or could not be decided, last.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let cluster = &report.cluster;
    let _ = writeln!(
        text,
        "Kubernetes {} · {} · {} · kernel {} · Pod network {}\n",
        cluster.version, cluster.distribution, cluster.runtime, cluster.kernel, cluster.cni
    );
    let _ = writeln!(text, "{}\n", table(report));
    let measured: Vec<String> = report.checks.iter().filter_map(measured).collect();
    if !measured.is_empty() {
        let _ = writeln!(text, "{}\n", measured.join("\n"));
    }
    for outcome in [
        OutcomeKind::Skipped,
        OutcomeKind::NotApplicable,
        OutcomeKind::NotMet,
        OutcomeKind::Error,
    ] {
        for check in report.checks.iter().filter(|check| check.outcome == outcome) {
            let _ = writeln!(text, "{}", block(check, &report.command));
        }
    }
    let seconds = report.duration_ms as f64 / 1000.0;
    let _ = writeln!(text, "{} checks in {seconds:.1} s", report.checks.len());
    let twins: Vec<bool> = report
        .checks
        .iter()
        .flat_map(|check| &check.twins)
        .map(|twin| twin.caught)
        .collect();
    if !twins.is_empty() {
        let caught = twins.iter().filter(|caught| **caught).count();
        let _ = writeln!(text, "proved able to fail: {caught} of {} twins noticed", twins.len());
    }
    text
}

fn table(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "area",
        "met",
        "not met",
        "not applicable",
        "skipped",
        "error",
        "slowest",
    ]);
    let mut areas: Vec<&str> = report.checks.iter().map(|check| check.area.as_str()).collect();
    areas.dedup();
    for area in areas {
        let checks: Vec<&CheckResult> = report.checks.iter().filter(|check| check.area == area).collect();
        let slowest = checks.iter().map(|check| check.duration_ms).max().unwrap_or_default();
        table.add_row(row(area, Summary::of(checks), slowest));
    }
    let slowest = report
        .checks
        .iter()
        .map(|check| check.duration_ms)
        .max()
        .unwrap_or_default();
    table.add_row(row("all", report.summary, slowest));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn row(name: &str, summary: Summary, slowest: u64) -> Vec<String> {
    let mut row = vec![name.to_owned()];
    let counts = [
        summary.met,
        summary.not_met,
        summary.not_applicable,
        summary.skipped,
        summary.error,
    ];
    row.extend(counts.map(|count| if count == 0 { "·".to_owned() } else { count.to_string() }));
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

/// One check's outcome, with all that is needed to understand it and to run it again; `command` decides checks on the same cluster.
pub fn block(check: &CheckResult, command: &str) -> String {
    let mut text = format!("{}: {}\n", check.outcome.word(), check.selector());
    let mut line = |name: &str, value: &str| {
        let value = printable(value).replace('\n', "\n               ");
        let _ = writeln!(text, "  {name:<12} {value}");
    };
    if check.outcome == OutcomeKind::Met {
        return text;
    }
    if !check.requirement.is_empty() {
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
    text
}

/// Text from containers, without what could steer a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| {
            if letter.is_control() && letter != '\n' && letter != '\t' {
                '\u{fffd}'
            } else {
                letter
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
