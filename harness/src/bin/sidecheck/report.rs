//! `sidecheck report`

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::Args;
use sidecheck::cluster::{Cluster, images};
use sidecheck::display::{display_safe, say};
use sidecheck::environment;
use sidecheck::report::assemble::{Ran, assemble};
use sidecheck::report::model::Report;
use sidecheck::report::records::{Found, RunFolder, write_whole};
use sidecheck::report::{junit, terminal};

/// Write and print the report of the latest run, even if it was killed or started by nextest alone
#[derive(Args)]
pub struct ReportLast {}

impl ReportLast {
    pub async fn execute(self) -> anyhow::Result<u8> {
        let Some(folder) = RunFolder::all(&environment::results()).into_iter().next() else {
            bail!("no run yet: start one with ./scripts/conformance");
        };
        let found = match folder.found() {
            Some(found) => found,
            None => now().await,
        };
        let ran = Ran {
            plan: folder.plan(),
            command: environment::command(),
            found,
            began: fs::metadata(folder.path())?.created().unwrap_or(SystemTime::UNIX_EPOCH),
            duration: Duration::ZERO,
        };
        let fixtures = environment::root().join("fixtures");
        let report = assemble(&folder, &fixtures, ran)?;
        publish(&report)?;
        conclude(&report);
        Ok(report.summary.exit_code())
    }
}

/// What the cluster named by the environment says about itself now.
async fn now() -> Found {
    let Ok(cluster) = Cluster::connect().await else {
        return Found::default();
    };
    Found {
        cluster: cluster.facts().await.unwrap_or_default(),
        images: images::on(&cluster).await.unwrap_or_default(),
        subject: None,
    }
}

/// Writes the report's files to the fixed place for the latest run, and to the run's folder, which later runs leave alone.
pub fn publish(report: &Report) -> anyhow::Result<()> {
    let results = environment::results();
    let own = RunFolder::new(&results, &report.run);
    let files = [
        ("report.json", serde_json::to_string_pretty(report)?),
        ("junit.xml", junit::render(report)?),
    ];
    for (name, text) in &files {
        for folder in [own.path(), &results] {
            write_whole(&folder.join(name), text.as_bytes()).context("the report cannot be written")?;
        }
    }
    Ok(())
}

/// Prints the result; the closing line is the last one.
pub fn conclude(report: &Report) {
    say(&terminal::render(report));
    let path = environment::results().join("report.json");
    let shown = path.strip_prefix(environment::root()).map_or(path.as_path(), Path::new);
    say(&format!("report: {}", display_safe(&shown.display().to_string())));
    say(&report.summary.closing_line());
}
