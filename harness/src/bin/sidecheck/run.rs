//! `sidecheck run`

use std::collections::BTreeSet;
use std::fs::File;
use std::future::pending;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Instant, SystemTime};

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::jiff::SignedDuration;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sidecheck::cluster::{Cluster, images};
use sidecheck::display::{display_safe, explained, say};
use sidecheck::fixture::{self, Fixture, Shape};
use sidecheck::image::Subject;
use sidecheck::profile::Profile;
use sidecheck::report::assemble::{Ran, assemble};
use sidecheck::report::model::{CheckResult, OutcomeKind, Report};
use sidecheck::report::records::{Found, Plan, Planned, RunFolder};
use sidecheck::report::{terminal, verdict};
use sidecheck::scenario::{Keep, Leftovers, Setting, rehearse};
use sidecheck::{environment, patience};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::cluster_options::ClusterOptions;
use crate::report::{conclude, publish};
use crate::{Usage, nextest};

/// Decide the checks and print the result
#[derive(Args)]
pub struct Run {
    /// Which checks: an area, a part of an id, or ID@SHAPE; if nothing is given, all but those of validate
    filters: Vec<String>,
    #[command(flatten)]
    cluster: ClusterOptions,
    /// Also prove that each check can fail, by its twins
    #[arg(long)]
    prove: bool,
    #[command(flatten)]
    conduct: Conduct,
}

/// How checks are carried out.
#[derive(Args)]
pub struct Conduct {
    /// Which namespaces stay after their check
    #[arg(long, value_enum, env = environment::KEEP, default_value_t, value_name = "WHEN")]
    keep: Keep,
    /// How long the checks may take, without set-up, such as 30m or 1h; what is undecided then is an error
    #[arg(long, env = environment::TIMEOUT, value_parser = duration, value_name = "DURATION")]
    timeout: Option<SignedDuration>,
}

/// The exit code of nextest when tests failed; any other than 0 means that it could not run them.
const TESTS_FAILED: i32 = 100;

/// The file with the profile of the image that a run is about.
const PROFILE: &str = "profile.json";

/// How many tests nextest runs at the same time; see `.config/nextest.toml`.
const TEST_THREADS: usize = 8;

/// How many runs' folders are kept.
const KEPT: usize = 10;

impl Run {
    pub async fn execute(self) -> anyhow::Result<u8> {
        self.cluster.version()?;
        self.cluster.take()?;
        let plan = Plan {
            command: environment::command(),
            prove: self.prove,
            checks: of_cluster(&self.filters)?,
            selection: self.filters,
        };
        let job = Job {
            plan,
            cluster: self.cluster,
            conduct: self.conduct,
            subject: None,
        };
        let report = job.carry_out().await?;
        conclude(&report);
        Ok(report.summary.exit_code())
    }
}

/// A length of time as people write it.
fn duration(text: &str) -> anyhow::Result<SignedDuration> {
    let duration: SignedDuration = text
        .parse()
        .map_err(|_| anyhow!("write a number and s, m or h: 90s, 30m or 1h"))?;
    ensure!(duration.is_positive(), "it must be above 0");
    Ok(duration)
}

/// What is to be decided, where, and how.
pub struct Job {
    pub plan: Plan,
    pub cluster: ClusterOptions,
    pub conduct: Conduct,
    /// The image that takes the place of the role's reference image, and what is known of it.
    pub subject: Option<(Subject, Profile)>,
}

impl Job {
    /// Decides it, and writes the report.
    pub async fn carry_out(mut self) -> anyhow::Result<Report> {
        let run = match environment::value(environment::RUN) {
            Some(given) => environment::checked_run(&given).map_err(|error| Usage(error.to_string()))?,
            None => new_id(),
        };
        let results = environment::results();
        let folder = RunFolder::create(&results, &run)?;
        RunFolder::prune(&results, KEPT);
        folder.write_plan(&self.plan)?;

        let cluster = match self.needs_cluster() {
            true => Some(self.cluster.bring_up().await?),
            false => None,
        };
        if let Some(cluster) = cluster.as_ref().filter(|cluster| !cluster.target.is_own()) {
            let setting = Setting {
                run: run.clone(),
                folder: folder.clone(),
                ..Setting::from_environment()?
            };
            rehearse(&setting, cluster).await?;
        }
        let mut found = match &cluster {
            Some(cluster) => Found {
                cluster: cluster.facts().await?,
                images: images::on(cluster).await?,
                subject: None,
            },
            None => Found::default(),
        };
        if let Some((subject, profile)) = &mut self.subject {
            if let Some(cluster) = &cluster {
                profile.image = Some(subject.reach(cluster).await?);
            }
            folder.write(PROFILE, profile)?;
            found.subject = Some(subject.facts(profile));
        }
        folder.write_found(&found)?;

        let (began, clock) = (SystemTime::now(), Instant::now());
        let trouble = self.decide(&run, &folder, cluster.as_ref()).await?;
        let duration = clock.elapsed();
        if let (Some(trouble), true) = (&trouble, folder.results()?.is_empty()) {
            bail!("{trouble}");
        }
        // Nodes may have pulled some of them meanwhile.
        if let Some(cluster) = &cluster
            && let Ok(images) = images::on(cluster).await
        {
            found.images = images;
        }

        let ran = Ran {
            command: self.plan.command.clone(),
            plan: Some(self.plan),
            found,
            began,
            duration,
        };
        let mut report = assemble(&folder, &environment::root().join("fixtures"), ran)?;
        if report.subject.is_some() {
            verdict::fold(&mut report);
        }
        publish(&report)?;
        // The namespaces of what is to stay are marked, and left out.
        if let (Some(cluster), true) = (&cluster, self.conduct.keep != Keep::Always) {
            let leftovers = Leftovers {
                client: &cluster.client,
                run: Some(&run),
                namespaces: &self.cluster.existing.namespace,
            };
            sweep(leftovers).await;
        }
        if let Some(trouble) = trouble {
            eprintln!("sidecheck: {}", display_safe(&trouble));
        }
        Ok(report)
    }

    /// Whether some of the checks do not run on the engine alone.
    fn needs_cluster(&self) -> bool {
        self.plan.checks.iter().any(|check| check.shape != Shape::Alone)
    }

    /// Runs the tests with nextest and shows each outcome as it is recorded; returns what else went wrong.
    async fn decide(&self, run: &str, folder: &RunFolder, cluster: Option<&Cluster>) -> anyhow::Result<Option<String>> {
        let plan = &self.plan;
        let log = folder.path().join("nextest.log");
        let unseen = self.subject.as_ref().is_some_and(|(subject, _)| !subject.is_seen());
        let (here, beside): (Vec<Planned>, Vec<Planned>) = plan
            .checks
            .iter()
            .cloned()
            .partition(|check| unseen && check.shape == Shape::Alone);
        for check in &here {
            let reason = "no container engine here has the image";
            folder.record(&undecided(check, OutcomeKind::Skipped, reason))?;
        }
        let (tests, undecidable) = nextest::deciding(&beside, &nextest::tests(&log).await?);
        for check in undecidable {
            let reason = "the suite has no test that decides this check";
            folder.record(&undecided(check, OutcomeKind::Error, reason))?;
        }
        let mut progress = Progress::new(plan.checks.len());
        progress.show(folder);
        if tests.is_empty() {
            progress.finish();
            return Ok(None);
        }
        let output = File::options().append(true).open(&log)?;
        let mut command = nextest::call("run");
        command
            .args(["--no-fail-fast", "--hide-progress-bar"])
            .args(["--status-level", "none", "--final-status-level", "none"])
            .args(["--failure-output", "never", "--success-output", "never"])
            .args(["--filterset", &nextest::filterset(&tests)])
            .env(environment::RUN, run)
            .env(environment::PROVE, if plan.prove { "1" } else { "0" })
            .envs(environment::given())
            .env(environment::IMAGE_TAG, images::tag())
            .env(
                environment::KEEP,
                match self.conduct.keep {
                    Keep::Never => "never",
                    Keep::OnFailure => "on-failure",
                    Keep::Always => "always",
                },
            )
            .env_remove(environment::SELECTION)
            .env_remove(environment::PROFILE)
            .stdout(output.try_clone()?)
            .stderr(output);
        if !plan.selection.is_empty() {
            let selected: Vec<String> = plan.checks.iter().map(Planned::selector).collect();
            command.env(environment::SELECTION, selected.join(","));
        }
        if self.subject.is_some() {
            command.env(environment::PROFILE, folder.path().join(PROFILE));
        }
        if let Some(cluster) = cluster {
            command.envs(cluster.target.variables());
        }
        // Each namespace takes one life at a time.
        let namespaces = self.cluster.existing.namespace.len();
        if (1..TEST_THREADS).contains(&namespaces) {
            command.args(["--test-threads", &namespaces.to_string()]);
        }
        let mut terminate = signal(SignalKind::terminate())?;
        let mut nextest = command.spawn().context("cargo cannot be called")?;
        let mut time_is_up = pin!(async {
            match self.conduct.timeout {
                Some(limit) => sleep(limit.unsigned_abs()).await,
                None => pending().await,
            }
        });
        let status = loop {
            tokio::select! {
                status = nextest.wait() => break status?,
                // A terminal sends it to nextest too, which ends its tests and then exits.
                _ = tokio::signal::ctrl_c() => folder.note_ended("interrupted")?,
                _ = terminate.recv() => end(&nextest, folder, "interrupted by SIGTERM")?,
                () = &mut time_is_up, if folder.ended().is_none() => {
                    let limit = self.conduct.timeout.unwrap_or_default();
                    end(&nextest, folder, &format!("the time limit of {limit:#} was over"))?;
                }
                () = sleep(patience::LOOK_AGAIN * 2) => progress.show(folder),
            }
        };
        progress.show(folder);
        progress.finish();
        Ok(match status.code() {
            Some(0 | TESTS_FAILED) => None,
            _ => Some(format!("nextest ended with {status}:\n{}", nextest::last_lines(&log))),
        })
    }
}

/// An id that no other run on this machine has.
fn new_id() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    format!("{:x}-{:x}", now.unwrap_or_default().as_millis(), std::process::id())
}

/// Asks nextest to end, which asks its tests to; they find out why.
fn end(nextest: &Child, folder: &RunFolder, why: &str) -> anyhow::Result<()> {
    folder.note_ended(why)?;
    if let Some(process) = nextest.id() {
        kill(Pid::from_raw(process.try_into()?), Signal::SIGTERM)?;
    }
    Ok(())
}

/// The outcome of a check that no test decides, and why.
fn undecided(check: &Planned, outcome: OutcomeKind, reason: &str) -> CheckResult {
    let fixture = Fixture::load(&environment::root().join("fixtures"), &check.id).ok();
    let metadata = fixture.as_ref().map(|fixture| &fixture.metadata);
    CheckResult {
        outcome,
        ..CheckResult::undecided(&check.id, check.shape, metadata, reason.to_owned())
    }
}

/// What is to be decided of a cluster: every check in each of its shapes that one of the filters names. The checks of roles say something about
/// an image, so they are only meant if a filter begins with their folder.
fn of_cluster(filters: &[String]) -> anyhow::Result<Vec<Planned>> {
    let meant = |id: &str| {
        let folder = id.split('/').next().unwrap_or_default();
        folder != ROLES || filters.iter().any(|filter| filter.starts_with(folder))
    };
    planned(filters, meant)
}

/// The folder of the roles.
pub const ROLES: &str = "validate";

/// Every check that is meant, in each of its shapes that one of the filters names.
pub fn planned(filters: &[String], meant: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Planned>> {
    let root = environment::root().join("fixtures");
    let mut planned = Vec::new();
    for id in fixture::ids(&root)?.into_iter().filter(|id| meant(id)) {
        for shape in Fixture::load(&root, &id)?.metadata.shapes {
            if filters.is_empty() || filters.iter().any(|filter| names(filter, &id, shape)) {
                planned.push(Planned { id: id.clone(), shape });
            }
        }
    }
    if planned.is_empty() {
        bail!(Usage(format!(
            "no check is named by {}; `sidecheck list` shows them all",
            filters.join(" ")
        )));
    }
    Ok(planned)
}

fn names(filter: &str, id: &str, shape: Shape) -> bool {
    let (part, wanted) = filter.split_once('@').unwrap_or((filter, ""));
    id.contains(part) && (wanted.is_empty() || wanted == shape.to_string())
}

/// Shows outcomes as they come: a bar in a terminal, a line each elsewhere.
struct Progress {
    bar: ProgressBar,
    shown: BTreeSet<PathBuf>,
}

impl Progress {
    fn new(checks: usize) -> Self {
        let bar = ProgressBar::new(checks as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            shown: BTreeSet::new(),
        }
    }

    fn show(&mut self, folder: &RunFolder) {
        for check in folder.results_beyond(&mut self.shown).unwrap_or_default() {
            self.bar.inc(1);
            self.bar.set_message(check.selector());
            let line = terminal::line(&check);
            if self.bar.is_hidden() {
                say(&line);
            } else if check.outcome != OutcomeKind::Met {
                self.bar.println(line);
            }
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
        say("");
    }
}

/// Makes sure that the run leaves nothing behind, and warns if it does.
async fn sweep(leftovers: Leftovers<'_>) {
    let swept = async {
        leftovers.remove().await?;
        leftovers.wait_until_gone(patience::CLEAN_UP).await
    };
    if let Err(error) = swept.await {
        let error = explained(&error);
        eprintln!("sidecheck: {}; `sidecheck clean` tries again", display_safe(&error));
    }
}
