//! Runs on disk: what was planned, and one file a check, written at once, so that a killed run leaves a readable partial result.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::model::{CheckResult, ClusterFacts, ImageFacts, SubjectFacts};
use crate::fixture::Shape;

/// The file with the [`Plan`].
const PLAN: &str = "plan.json";
/// The file with what was [`Found`].
const FOUND: &str = "found.json";
/// The file that says why the run ended before its checks had.
const ENDED: &str = "ended.json";

/// What a run was to decide, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// See [`super::model::Report::command`].
    pub command: String,
    /// Whether twins run too.
    pub prove: bool,
    /// The filters that were given; none if everything was to be decided.
    pub selection: Vec<String>,
    /// The checks that were to be decided.
    pub checks: Vec<Planned>,
}

/// A check that a run was to decide.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Planned {
    /// The check's id.
    pub id: String,
    /// The shape.
    pub shape: Shape,
}

impl Planned {
    /// The check and its shape, as they are given on the command line.
    pub fn selector(&self) -> String {
        format!("{}@{}", self.id, self.shape)
    }
}

/// What a run found before its first check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What the cluster says about itself.
    pub cluster: ClusterFacts,
    /// The fixtures' images on it.
    pub images: Vec<ImageFacts>,
    /// The image that was judged, if the run was about one.
    #[serde(default)]
    pub subject: Option<SubjectFacts>,
}

/// The file which says that the sidecar of a role does not become ready.
fn unready(role: &str, shape: Shape) -> String {
    format!("unready-{}@{shape}.json", role.replace('/', "-"))
}

/// The folder of one run: `target/sidecheck/runs/<run id>`.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// The folder of the run `id` below `results`; it is made when something is written.
    pub fn new(results: &Path, id: &str) -> Self {
        Self {
            path: runs(results).join(id),
        }
    }

    /// Makes the folder of a run that begins.
    ///
    /// # Errors
    /// There was such a run before, or the folder cannot be made.
    pub fn create(results: &Path, id: &str) -> anyhow::Result<Self> {
        let folder = Self::new(results, id);
        fs::create_dir_all(runs(results))
            .and_then(|()| fs::create_dir(&folder.path))
            .with_context(|| format!("the run {id} cannot have the folder {}", folder.path.display()))?;
        Ok(folder)
    }

    /// The folder of every run below `results`, the latest first.
    pub fn all(results: &Path) -> Vec<Self> {
        let mut folders: Vec<(SystemTime, PathBuf)> = fs::read_dir(runs(results))
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let entry = entry.ok()?;
                Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
            })
            .collect();
        folders.sort();
        folders.into_iter().rev().map(|(_, path)| Self { path }).collect()
    }

    /// Keeps the folders of the latest `kept` runs only. One that cannot be removed stays.
    pub fn prune(results: &Path, kept: usize) {
        for folder in Self::all(results).iter().skip(kept) {
            fs::remove_dir_all(&folder.path).ok();
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run's id.
    pub fn id(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Where one check's evidence is kept; `twin` is the twin's number if the run was a twin's.
    pub fn evidence(&self, id: &str, shape: impl std::fmt::Display, twin: Option<usize>) -> PathBuf {
        let twin = twin.map_or(String::new(), |number| format!("-twin-{}", number + 1));
        self.path.join("evidence").join(format!("{id}@{shape}{twin}"))
    }

    /// Writes what the run is to decide.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_plan(&self, plan: &Plan) -> anyhow::Result<()> {
        self.write(PLAN, plan)
    }

    /// What the run was to decide; none if nextest alone started the run.
    pub fn plan(&self) -> Option<Plan> {
        self.read(PLAN)
    }

    /// Notes that the sidecar of a role does not become ready in a shape.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note_unready(&self, role: &str, shape: Shape) -> anyhow::Result<()> {
        self.write(&unready(role, shape), &true)
    }

    /// Whether that was noted.
    pub fn is_unready(&self, role: &str, shape: Shape) -> bool {
        self.read(&unready(role, shape)) == Some(true)
    }

    /// Writes what the run found before its first check.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_found(&self, found: &Found) -> anyhow::Result<()> {
        self.write(FOUND, found)
    }

    /// What the run found before its first check, if it got that far.
    pub fn found(&self) -> Option<Found> {
        self.read(FOUND)
    }

    /// Notes why the run ends before its checks have.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note_ended(&self, why: &str) -> anyhow::Result<()> {
        self.write(ENDED, &why)
    }

    /// Why the run ended before its checks had, if it did and that was noted.
    pub fn ended(&self) -> Option<String> {
        self.read(ENDED)
    }

    /// Writes a value as JSON into the file `name`, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
        write_whole(&self.path.join(name), &serde_json::to_vec_pretty(value)?)
    }

    /// The value in the file `name`; none if there is no such file or it does not hold one.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.path.join(name)).ok()?).ok()
    }

    /// Writes a check's outcome, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn record(&self, result: &CheckResult) -> anyhow::Result<()> {
        self.write(&format!("checks/{}.json", result.selector()), result)
    }

    /// Every outcome recorded so far, by id and shape.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn results(&self) -> anyhow::Result<Vec<CheckResult>> {
        self.results_beyond(&mut BTreeSet::new())
    }

    /// The outcomes recorded in other files than those of `seen`, by id and shape; their files are added to `seen`.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn results_beyond(&self, seen: &mut BTreeSet<PathBuf>) -> anyhow::Result<Vec<CheckResult>> {
        let mut results: Vec<CheckResult> = Vec::new();
        for path in json_files(&self.path.join("checks"))? {
            if seen.contains(&path) {
                continue;
            }
            let text = fs::read(&path)?;
            let result = serde_json::from_slice(&text);
            results.push(result.with_context(|| format!("not a record: {}", path.display()))?);
            seen.insert(path);
        }
        results.sort_by_key(CheckResult::selector);
        Ok(results)
    }
}

/// The JSON files below a folder, which may not exist.
fn json_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(files);
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(json_files(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "json") {
            files.push(path);
        }
    }
    Ok(files)
}

fn runs(results: &Path) -> PathBuf {
    results.join("runs")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::sample;

    #[test]
    fn a_record_is_read_once() {
        let results = tempfile::tempdir().expect("a folder");
        let folder = RunFolder::create(results.path(), "first").expect("a folder");
        let checks = sample::report().checks;
        let mut seen = BTreeSet::new();
        for check in &checks {
            folder.record(check).expect("recorded");
            let new = folder.results_beyond(&mut seen).expect("records");
            assert_eq!(new.len(), 1);
            assert_eq!(new[0].selector(), check.selector());
        }
        assert_eq!(folder.results().expect("records").len(), checks.len());
    }

    #[test]
    fn a_run_never_writes_into_the_folder_of_another() {
        let results = tempfile::tempdir().expect("a folder");
        RunFolder::create(results.path(), "first").expect("a folder");
        let again = RunFolder::create(results.path(), "first").expect_err("there is one");
        assert!(format!("{again:#}").contains("the run first cannot have the folder"));
    }

    #[test]
    fn old_runs_are_removed() {
        let results = tempfile::tempdir().expect("a folder");
        for (seconds, id) in (1..).zip(["first", "second", "third"]) {
            let folder = RunFolder::create(results.path(), id).expect("a folder");
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let file = fs::File::open(folder.path()).expect("the folder");
            file.set_modified(time).expect("a time");
        }
        RunFolder::prune(results.path(), 2);
        let left: Vec<String> = RunFolder::all(results.path()).iter().map(RunFolder::id).collect();
        assert_eq!(left, ["third", "second"]);
    }
}
