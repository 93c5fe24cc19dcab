//! `sidecheck report`

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::Args;
use sidecheck::cluster::Cluster;
use sidecheck::environment;
use sidecheck::report::assemble::{Planned, Ran, assemble, write_whole};
use sidecheck::report::model::{ClusterFacts, Report};
use sidecheck::report::records::RunFolder;
use sidecheck::report::{junit, terminal};

/// Put the report of the last run together, also of one that was killed or started by nextest alone
#[derive(Args)]
pub struct ReportLast {}

impl ReportLast {
    pub async fn execute(self) -> anyhow::Result<u8> {
        let (folder, run) = last_run()?;
        let planned: Vec<Planned> = fs::read(folder.path().join(PLAN))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let ran = Ran {
            run,
            command: environment::command(),
            cluster: facts(&folder).await,
            began: fs::metadata(folder.path())?.created().unwrap_or(SystemTime::UNIX_EPOCH),
            duration: Duration::ZERO,
        };
        let fixtures = environment::root().join("fixtures");
        let report = assemble(&folder, &fixtures, &planned, ran)?;
        publish(&report)?;
        conclude(&report);
        Ok(report.summary.exit_code())
    }
}

/// The file of a run's folder that lists what was to be decided.
pub const PLAN: &str = "plan.json";
/// The file of a run's folder with what the cluster said about itself.
pub const FACTS: &str = "cluster.json";

/// What the run's cluster said, or says now.
async fn facts(folder: &RunFolder) -> ClusterFacts {
    if let Some(facts) = fs::read(folder.path().join(FACTS))
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
    {
        return facts;
    }
    match Cluster::connect().await {
        Ok(cluster) => cluster.facts().await.unwrap_or_default(),
        Err(_) => ClusterFacts::default(),
    }
}

fn last_run() -> anyhow::Result<(RunFolder, String)> {
    let runs = environment::results().join("runs");
    let newest = fs::read_dir(&runs)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, entry.file_name()))
        })
        .max();
    let Some((_, run)) = newest else {
        bail!("no run yet: start one with ./scripts/conformance");
    };
    let run = run.to_string_lossy().into_owned();
    Ok((RunFolder::new(&environment::results(), &run), run))
}

/// Writes the report's files: where the last run's are found, and into the run's own folder, which no later run writes to.
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
    println!("{}", terminal::render(report));
    let path = environment::results().join("report.json");
    let shown = path.strip_prefix(environment::root()).map_or(path.as_path(), Path::new);
    println!("report: {}", shown.display());
    println!("{}", report.summary.closing_line());
}
