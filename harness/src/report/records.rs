//! Outcomes on disk: one file a check, written at once, so that a killed run leaves a readable partial result.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::assemble::write_whole;
use super::model::CheckResult;

/// The folder of one run: `target/sidecheck/runs/<run id>`.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// The folder of the run `id` below `results`; it is made when something is written.
    pub fn new(results: &Path, id: &str) -> Self {
        Self {
            path: results.join("runs").join(id),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where one check's evidence is kept; `twin` is the twin's number where the run was a twin's.
    pub fn evidence(&self, id: &str, shape: impl std::fmt::Display, twin: Option<usize>) -> PathBuf {
        let twin = twin.map_or(String::new(), |number| format!("-twin-{}", number + 1));
        self.path.join("evidence").join(format!("{id}@{shape}{twin}"))
    }

    /// Writes a check's outcome, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn record(&self, result: &CheckResult) -> anyhow::Result<()> {
        let path = self.path.join("checks").join(format!("{}.json", result.selector()));
        write_whole(&path, &serde_json::to_vec_pretty(result)?)
    }

    /// Every outcome recorded so far, by id and shape.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn results(&self) -> anyhow::Result<Vec<CheckResult>> {
        let mut results = Vec::new();
        let Ok(areas) = fs::read_dir(self.path.join("checks")) else {
            return Ok(results);
        };
        for area in areas {
            for file in fs::read_dir(area?.path())? {
                let path = file?.path();
                if path.extension().is_some_and(|ending| ending == "json") {
                    let text = fs::read(&path)?;
                    results.push(
                        serde_json::from_slice(&text).with_context(|| format!("not a record: {}", path.display()))?,
                    );
                }
            }
        }
        results.sort_by_key(CheckResult::selector);
        Ok(results)
    }
}
