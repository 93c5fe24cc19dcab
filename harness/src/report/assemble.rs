//! The run model, put together from the records of a run, whole or partial.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::model::{API_VERSION, CheckResult, ClusterFacts, Report, Summary};
use super::records::RunFolder;
use crate::fixture::{Fixture, Shape};

/// A check that a run was to decide.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Planned {
    /// The check's id.
    pub id: String,
    /// The shape.
    pub shape: Shape,
}

/// What is known of a run as a whole.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its id.
    pub run: String,
    /// See [`Report::command`].
    pub command: String,
    /// The cluster it ran on.
    pub cluster: ClusterFacts,
    /// When it began.
    pub began: SystemTime,
    /// How long it took.
    pub duration: Duration,
}

/// Puts the report of a run together. A planned check without a record is an `error`: nobody can tell.
///
/// # Errors
/// A record cannot be read.
pub fn assemble(folder: &RunFolder, fixtures: &Path, planned: &[Planned], ran: Ran) -> anyhow::Result<Report> {
    let mut checks = folder.results()?;
    let missing: Vec<CheckResult> = planned
        .iter()
        .filter(|planned| {
            !checks
                .iter()
                .any(|check| check.id == planned.id && check.shape == planned.shape)
        })
        .map(|planned| undecided(fixtures, planned))
        .collect();
    let complete = missing.is_empty();
    checks.extend(missing);
    checks.sort_by_key(CheckResult::selector);
    Ok(Report {
        api_version: API_VERSION.to_owned(),
        kind: "ConformanceReport".to_owned(),
        run: ran.run,
        command: ran.command,
        date: rfc3339(ran.began),
        complete,
        duration_ms: u64::try_from(ran.duration.as_millis()).unwrap_or(u64::MAX),
        cluster: ran.cluster,
        summary: Summary::of(&checks),
        checks,
    })
}

fn undecided(fixtures: &Path, planned: &Planned) -> CheckResult {
    let fixture = Fixture::load(fixtures, &planned.id).ok();
    let metadata = fixture.as_ref().map(|fixture| &fixture.metadata);
    let reason = "the run ended before this check had an outcome".to_owned();
    CheckResult::undecided(&planned.id, planned.shape, metadata, reason)
}

/// Writes a file whole or not at all.
///
/// # Errors
/// The folder or the file cannot be written.
pub fn write_whole(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.persist(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

fn rfc3339(time: SystemTime) -> String {
    k8s_openapi::jiff::Timestamp::try_from(time)
        .unwrap_or_default()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}
