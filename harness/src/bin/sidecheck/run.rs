//! `sidecheck run`

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use sidecheck::cluster::{Cluster, Target};
use sidecheck::fixture::{self, Fixture, Shape};
use sidecheck::report::assemble::{Planned, Ran, assemble, write_whole};
use sidecheck::report::model::OutcomeKind;
use sidecheck::report::records::RunFolder;
use sidecheck::scenario::Keep;
use sidecheck::{environment, patience, scenario};
use tokio::process::Command;

use crate::Usage;
use crate::cluster_options::ClusterOptions;
use crate::report::{FACTS, PLAN, conclude, publish};

/// Decide the checks and print the result
#[derive(Args)]
pub struct Run {
    /// Which checks: an area, a part of an id, or ID@SHAPE; all where nothing is given
    filters: Vec<String>,
    #[command(flatten)]
    cluster: ClusterOptions,
    /// Also prove that each check can fail, by its twins
    #[arg(long)]
    prove: bool,
    /// Which namespaces stay after their check
    #[arg(long, value_enum, env = environment::KEEP, default_value_t, value_name = "WHEN")]
    keep: Keep,
}

/// The exit code of nextest when tests failed; any other than 0 means that it could not run them.
const TESTS_FAILED: i32 = 100;

impl Run {
    pub async fn execute(self) -> anyhow::Result<u8> {
        self.cluster.version()?;
        let planned = plan(&self.filters)?;
        let run = format!("{:08x}", std::process::id() ^ seconds());
        let folder = RunFolder::new(&environment::results(), &run);
        prune();
        write_whole(&folder.path().join(PLAN), &serde_json::to_vec_pretty(&planned)?)?;

        let cluster = self.cluster.bring_up().await?;
        let facts = cluster.facts().await?;
        write_whole(&folder.path().join(FACTS), &serde_json::to_vec_pretty(&facts)?)?;

        let (began, clock) = (SystemTime::now(), Instant::now());
        let trouble = self.decide(&run, &folder, &planned, &cluster).await?;
        let duration = clock.elapsed();
        if let (Some(trouble), true) = (&trouble, folder.results()?.is_empty()) {
            bail!("{trouble}");
        }

        let fixtures = environment::root().join("fixtures");
        let command = environment::command_on(self.cluster.context.as_deref(), Some(&self.cluster.kubernetes));
        let ran = Ran {
            run: run.clone(),
            command,
            cluster: facts,
            began,
            duration,
        };
        let report = assemble(&folder, &fixtures, &planned, ran)?;
        publish(&report)?;
        if self.keep == Keep::Never {
            sweep(&cluster, &run).await;
        }
        if let Some(trouble) = trouble {
            eprintln!("sidecheck: {trouble}");
        }
        conclude(&report);
        Ok(report.summary.exit_code())
    }

    /// Runs the tests with nextest and shows each outcome as it is recorded; returns what went wrong beside them.
    async fn decide(
        &self,
        run: &str,
        folder: &RunFolder,
        planned: &[Planned],
        cluster: &Cluster,
    ) -> anyhow::Result<Option<String>> {
        let log = folder.path().join("nextest.log");
        let output = fs::File::create(&log)?;
        let mut nextest = Command::new("cargo");
        nextest
            .args([
                "nextest",
                "run",
                "--package",
                "suites",
                "--no-fail-fast",
                "--hide-progress-bar",
            ])
            .args(["--status-level", "none", "--final-status-level", "none"])
            .args(["--failure-output", "never", "--success-output", "never"])
            .args(["--filterset", &filterset(planned)])
            .current_dir(environment::root())
            .env(
                "PATH",
                format!(
                    "{}:{}",
                    environment::cache().join("bin").display(),
                    environment::value("PATH").unwrap_or_default()
                ),
            )
            .env(environment::RUN, run)
            .env(environment::PROVE, if self.prove { "1" } else { "0" })
            .env(environment::KUBERNETES, &self.cluster.kubernetes)
            .env(
                environment::KEEP,
                match self.keep {
                    Keep::Never => "never",
                    Keep::OnFailure => "on-failure",
                    Keep::Always => "always",
                },
            )
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        match &cluster.target {
            Target::Context(name) => nextest.env(environment::CONTEXT, name),
            Target::Kubeconfig(path) => nextest.env(environment::KUBECONFIG, path),
        };
        let mut nextest = nextest.spawn().context("cargo cannot be called")?;
        let mut progress = Progress::new(planned.len());
        let status = loop {
            tokio::select! {
                status = nextest.wait() => break status?,
                // nextest gets the same signal, ends its tests and then itself.
                _ = tokio::signal::ctrl_c() => {}
                () = tokio::time::sleep(patience::LOOK_AGAIN * 2) => progress.show(folder),
            }
        };
        progress.show(folder);
        progress.finish();
        Ok(match status.code() {
            Some(0 | TESTS_FAILED) => None,
            _ => Some(format!(
                "nextest ended with {status}:\n{}",
                fs::read_to_string(&log).unwrap_or_default().trim_end()
            )),
        })
    }
}

/// What is to be decided: every check in each of its shapes that one of the filters names.
fn plan(filters: &[String]) -> anyhow::Result<Vec<Planned>> {
    let root = environment::root().join("fixtures");
    let mut planned = Vec::new();
    for id in fixture::ids(&root)? {
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

/// The checks as nextest names them: `area::check::shape_1_Native`.
fn filterset(planned: &[Planned]) -> String {
    let tests: BTreeSet<String> = planned
        .iter()
        .map(|planned| {
            let function = planned.id.replace('-', "_").replace('/', "::");
            let shape = match planned.shape {
                Shape::Classic => "Classic",
                Shape::Native => "Native",
            };
            format!("test(/^{function}::shape_[0-9]+_(Shape__)?{shape}$/)")
        })
        .collect();
    tests.into_iter().collect::<Vec<_>>().join(" + ")
}

/// Shows outcomes as they come: a bar in a terminal, a line each elsewhere.
struct Progress {
    bar: ProgressBar,
    shown: BTreeSet<String>,
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
        for check in folder.results().unwrap_or_default() {
            if !self.shown.insert(check.selector()) {
                continue;
            }
            self.bar.inc(1);
            self.bar.set_message(check.selector());
            let line = format!(
                "{:<14} {:>6.1} s  {}",
                check.outcome.word(),
                check.duration_ms as f64 / 1000.0,
                check.selector()
            );
            if self.bar.is_hidden() {
                println!("{line}");
            } else if check.outcome != OutcomeKind::Met {
                self.bar.println(line);
            }
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
        println!();
    }
}

/// Makes sure that the run leaves no namespace behind; says so where it does.
async fn sweep(cluster: &Cluster, run: &str) {
    let swept = async {
        scenario::remove_namespaces(&cluster.client, Some(run)).await?;
        scenario::wait_until_gone(&cluster.client, Some(run), patience::CLEAN_UP).await
    };
    if let Err(error) = swept.await {
        eprintln!("sidecheck: {error:#}; `sidecheck clean` tries again");
    }
}

/// Keeps the folders of the last runs only.
fn prune() {
    const KEPT: usize = 10;
    let runs = environment::results().join("runs");
    let mut folders: Vec<_> = fs::read_dir(&runs)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
        })
        .collect();
    folders.sort();
    for (_, folder) in folders.iter().rev().skip(KEPT) {
        fs::remove_dir_all(folder).ok();
    }
}

fn seconds() -> u32 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    now.subsec_nanos() ^ (now.as_secs() as u32)
}
