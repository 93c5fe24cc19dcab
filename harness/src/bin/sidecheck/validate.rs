//! `sidecheck validate`

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use sidecheck::cluster::engine::Engine;
use sidecheck::display::{display_safe, explained, say};
use sidecheck::environment;
use sidecheck::fixture::area_of;
use sidecheck::image::{NoEngine, Subject};
use sidecheck::profile::{Overrides, Profile, Role};
use sidecheck::report::model::Report;
use sidecheck::report::records::{Plan, write_whole};
use sidecheck::report::{github, verdict};

use crate::Usage;
use crate::cluster_options::ClusterOptions;
use crate::run::{Conduct, Job, ROLES, planned};

/// Judge an image as a sidecar: alone, and beside a main container in both shapes
///
/// The image stays as it is. A profile says what its author must say: how it is called, what it needs, what it claims.
#[derive(Args)]
pub struct Validate {
    /// The image: a name in the local engine or a registry, or an archive (docker save, OCI)
    #[arg(required_unless_present = "init")]
    image: Option<String>,
    /// Which checks: a part of an id, or ID@SHAPE; all of the role if nothing is given
    filters: Vec<String>,
    /// What its author says about it: a file, or the name of a ready-made profile
    #[arg(long, value_name = "FILE|NAME")]
    profile: Option<String>,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    cluster: ClusterOptions,
    #[command(flatten)]
    conduct: Conduct,
    /// Print a profile to begin with, and nothing else
    #[arg(long, value_name = "ROLE", exclusive = true)]
    init: Option<Role>,
}

/// The folder with the ready-made profiles.
const PROFILES: &str = "fixtures/profiles";

/// The area of the checks that every image has to pass alone.
const CONTRACT: &str = "contract";

impl Validate {
    pub async fn execute(self) -> anyhow::Result<u8> {
        if let Some(role) = self.init {
            say(Profile::init(role).trim_end());
            return Ok(crate::MET);
        }
        self.cluster.version()?;
        self.cluster.take()?;
        let given = self.profile.as_deref().map(file_of).transpose()?;
        let misunderstood = |error: anyhow::Error| anyhow::Error::from(Usage(explained(&error)));
        let profile = match &given {
            Some(file) => Profile::read(file, self.overrides.role).map_err(misunderstood)?,
            None => Profile::default(),
        };
        let profile = profile.merge(&self.overrides).map_err(misunderstood)?;
        let image = self.image.clone().context("clap requires it")?;
        let subject = match Subject::obtain(&image).await {
            // A cluster that pulls it needs no engine here, or knows a password that the engine does not.
            Err(error) if self.pulls_itself(&error) => {
                tracing::warn!("{}; the image is judged on the cluster only", explained(&error));
                Subject::unseen(&image)
            }
            other => other?,
        };
        let in_use = in_use(&subject)?;
        let mut profile = profile.with_defaults(&subject.defaults).map_err(misunderstood)?;
        let role = profile.role().map_err(misunderstood)?;
        profile.image = Some(subject.reference.clone());
        let areas = [format!("{ROLES}/{role}"), format!("{ROLES}/{CONTRACT}")];
        let checks = planned(&self.filters, |id| areas.iter().any(|area| area == area_of(id)))?;
        let job = Job {
            plan: Plan {
                command: again(&self.filters),
                prove: false,
                selection: self.filters,
                checks,
            },
            cluster: self.cluster,
            conduct: self.conduct,
            subject: Some((subject.clone(), profile)),
        };
        let report = job.carry_out().await;
        in_use.unlock()?;
        // The node keeps the image for the next time; the engine has it under the user's name.
        if subject.is_seen()
            && in_use.try_lock().is_ok()
            && let Err(error) = subject.remove_tag(&Engine::chosen()?).await
        {
            tracing::warn!("{} is left in the engine: {}", subject.reference, explained(&error));
        }
        let report = report?;
        conclude(&report)?;
        Ok(report.summary.exit_code())
    }

    /// Whether the cluster may have the image although the engine does not.
    fn pulls_itself(&self, error: &anyhow::Error) -> bool {
        self.cluster.existing.target().is_ok_and(|target| target.is_some())
            && (error.is::<NoEngine>() || self.cluster.pull_secret.is_some())
    }
}

/// A file that is locked for as long as somebody judges this image: then the engine needs our name for it.
fn in_use(subject: &Subject) -> anyhow::Result<File> {
    let folder = environment::cache().join("subjects");
    let name = subject.id.trim_start_matches("sha256:");
    let what = || format!("no lock can be had in {}", folder.display());
    fs::create_dir_all(&folder).with_context(what)?;
    let file = File::create(folder.join(format!("{name}.lock"))).with_context(what)?;
    file.lock_shared().with_context(what)?;
    Ok(file)
}

/// The command line that validates the same image again, without the filters.
fn again(filters: &[String]) -> String {
    let mut words: Vec<String> = std::env::args().skip(2).collect();
    for filter in filters {
        if let Some(place) = words.iter().rposition(|word| word == filter) {
            words.remove(place);
        }
    }
    let quoted = words.iter().map(|word| {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_=./:@,+%".contains(letter);
        match word.chars().all(plain) && !word.is_empty() {
            true => word.clone(),
            false => format!("'{}'", word.replace('\'', "'\\''")),
        }
    });
    let words: Vec<String> = quoted.collect();
    format!("./scripts/validate {}", words.join(" "))
}

/// The file of a profile that is given by its path or its name.
fn file_of(given: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(given);
    if path.is_file() {
        return Ok(path.to_owned());
    }
    let folder = environment::root().join(PROFILES);
    let named = folder.join(given).join("profile.yaml");
    if named.is_file() {
        return Ok(named);
    }
    let mut known: Vec<String> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    known.sort();
    Err(Usage(format!(
        "{given} is no file and no ready-made profile; there are: {}",
        known.join(", ")
    ))
    .into())
}

/// In a run of GitHub Actions, the verdict is the step's summary, and what is not met are annotations.
fn show_on_github(report: &Report) -> anyhow::Result<()> {
    if let Some(file) = environment::value("GITHUB_STEP_SUMMARY") {
        let mut file = File::options().append(true).create(true).open(&file).context(file)?;
        file.write_all(github::summary(&verdict::markdown(report)).as_bytes())?;
    }
    if environment::value("GITHUB_ACTIONS").is_some() {
        github::annotations(report)
            .iter()
            .for_each(|command| say(&display_safe(command)));
    }
    Ok(())
}

/// Prints the verdict, and writes it as Markdown beside the report; the closing line is the last one.
fn conclude(report: &Report) -> anyhow::Result<()> {
    say(&verdict::render(report));
    show_on_github(report)?;
    let path = environment::results().join("verdict.md");
    write_whole(&path, verdict::markdown(report).as_bytes())?;
    for name in ["report.json", "verdict.md"] {
        let path = environment::results().join(name);
        let shown = path.strip_prefix(environment::root()).map_or(path.as_path(), Path::new);
        say(&format!("report: {}", display_safe(&shown.display().to_string())));
    }
    say(&report.summary.closing_line());
    Ok(())
}
