//! One check's life: fixture, shape, namespace, apply, wait, body, outcome, evidence, clean-up.

mod evidence;
mod namespace;
mod outcome;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::{ExitCode, Termination};
use std::time::Instant;

use anyhow::Context;
use futures::FutureExt;

use crate::cluster::{Cluster, Target};
use crate::environment;
use crate::fixture::{Begin, Fixture, Shape, Twin};
use crate::pod::ScenarioPod;
use crate::report::model::{CheckResult, Measurement, OutcomeKind, TwinResult};
use crate::report::records::RunFolder;
use crate::report::terminal;

pub(crate) use namespace::api_for;
pub use namespace::{RUN_LABEL, remove_namespaces, wait_until_gone};
pub use outcome::{Finding, Mismatch, Verdict, expect, not_met};

/// A check's result as the value of a test function: the test passes unless the outcome is `not met` or `error`.
#[derive(Debug)]
#[must_use]
pub struct Outcome(pub CheckResult);

impl Termination for Outcome {
    fn report(self) -> ExitCode {
        print!("{}", terminal::block(&self.0, &environment::command()));
        match self.0.outcome {
            OutcomeKind::NotMet | OutcomeKind::Error => ExitCode::FAILURE,
            OutcomeKind::Met | OutcomeKind::NotApplicable | OutcomeKind::Skipped => ExitCode::SUCCESS,
        }
    }
}

/// Where a check finds what it needs.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The folder with the fixtures.
    pub fixtures: PathBuf,
    /// Where outcomes and evidence go.
    pub folder: RunFolder,
    /// The run's id.
    pub run: String,
    /// Whether twins run too.
    pub prove: bool,
    /// Which namespaces stay.
    pub keep: Keep,
    /// The cluster; where it is not given, the one that the environment names.
    pub target: Option<Target>,
}

/// Which namespaces stay after their check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Keep {
    /// None.
    #[default]
    Never,
    /// Those of checks that are not met or could not be decided.
    OnFailure,
    /// All.
    Always,
}

/// Decides one requirement: applies the fixture `id` in `shape`, runs `body` on its Pod, and records the outcome.
///
/// Where twins are asked for, the same body runs on each of them, and a twin that it does not notice makes the outcome an `error`.
pub async fn check<B>(id: &str, shape: Shape, body: B) -> Outcome
where
    B: AsyncFn(&ScenarioPod) -> Verdict,
{
    let setting = environment::setting();
    let outcome = check_in(&setting, id, shape, body).await;
    if let Err(error) = setting.folder.record(&outcome.0) {
        eprintln!("sidecheck: the outcome of {id} could not be recorded: {error:#}");
    }
    outcome
}

/// Like [`check`], with everything from the environment given, and without recording the outcome.
pub async fn check_in<B>(setting: &Setting, id: &str, shape: Shape, body: B) -> Outcome
where
    B: AsyncFn(&ScenarioPod) -> Verdict,
{
    let fixture = match Fixture::load(&setting.fixtures, id) {
        Ok(fixture) => fixture,
        Err(error) => return Outcome(CheckResult::undecided(id, shape, None, format!("{error:#}"))),
    };
    let mut result = CheckResult::undecided(id, shape, Some(&fixture.metadata), String::new());
    result.evidence = environment::relative(&setting.folder.evidence(id, shape, None));
    let began = Instant::now();
    let target = setting.target.clone().map_or_else(Target::from_environment, Ok);
    let connected = match target {
        Ok(target) => Cluster::connect_to(target).await,
        Err(error) => Err(error),
    };
    let cluster = match connected {
        Ok(cluster) => cluster,
        Err(error) => {
            conclude(&mut result, Err(Finding::Error(error)), &fixture.metadata.remediation);
            return Outcome(result);
        }
    };
    let (verdict, measurements) = run(setting, &cluster, &fixture, shape, None, &body).await;
    result.duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    // One after another: how much a node has to do at once is the runner's business. Trouble would meet the next twin as well.
    if setting.prove && verdict.is_ok() {
        for (number, twin) in fixture.twins(shape).enumerate() {
            let (verdict, _) = run(setting, &cluster, &fixture, shape, Some((number, twin)), &body).await;
            let trouble = matches!(verdict, Err(Finding::Error(_)));
            result.twins.push(judge_twin(twin, verdict));
            if trouble {
                break;
            }
        }
    }
    result.measurements = measurements;
    conclude(&mut result, verdict, &fixture.metadata.remediation);
    if result.outcome == OutcomeKind::Met
        && let Some(twin) = result.twins.iter().find(|twin| !twin.caught)
    {
        result.outcome = OutcomeKind::Error;
        result.reason = Some(format!(
            "the check does not notice its twin “{}”: {}",
            twin.name, twin.observed
        ));
    }
    Outcome(result)
}

/// One run of the body, on the fixture itself or on one of its twins, and what the body measured.
async fn run<B>(
    setting: &Setting,
    cluster: &Cluster,
    fixture: &Fixture,
    shape: Shape,
    twin: Option<(usize, &Twin)>,
    body: &B,
) -> (Verdict, Vec<Measurement>)
where
    B: AsyncFn(&ScenarioPod) -> Verdict,
{
    let label = match twin {
        None => format!("{}@{shape}", fixture.id),
        Some((number, _)) => format!("{}@{shape}-twin-{}", fixture.id, number + 1),
    };
    let namespace = match namespace::create(&cluster.client, &setting.run, &label).await {
        Ok(namespace) => namespace,
        Err(error) => return (Err(Finding::Error(error)), Vec::new()),
    };
    let pod = ScenarioPod::new(
        namespace.clone(),
        fixture.pod_name(),
        &fixture.metadata.main,
        &fixture.metadata.sidecars,
    );
    let life = async {
        namespace::apply(&namespace, fixture.objects(shape, twin.map(|(_, twin)| twin))?).await?;
        if fixture.metadata.begin == Begin::Ready {
            namespace::all_ready(&namespace, &pod).await?;
        }
        let verdict = body(&pod).await;
        match (&verdict, pod.crashing()) {
            // Nothing can be said about a requirement whose Pod does not even run. A twin may be meant to be such a Pod.
            (Err(Finding::NotMet(mismatch)), Some(crash)) if twin.is_none() => Err(Finding::Error(anyhow::anyhow!(
                "{crash}; the check had observed: {}",
                mismatch.observed
            ))),
            _ => verdict,
        }
    };
    let verdict = tokio::select! {
        verdict = AssertUnwindSafe(life).catch_unwind() => verdict.unwrap_or_else(|panic| {
            Err(Finding::Error(anyhow::anyhow!("the check panicked: {}", words(&*panic))))
        }),
        _ = tokio::signal::ctrl_c() => Err(Finding::Error(anyhow::anyhow!("interrupted"))),
    };
    let folder = setting
        .folder
        .evidence(&fixture.id, shape, twin.map(|(number, _)| number));
    if let Err(error) = evidence::save(&namespace, &pod, &folder).await {
        tracing::warn!(%label, "the evidence is incomplete: {error:#}");
    }
    let failed = matches!(verdict, Err(Finding::NotMet(_) | Finding::Error(_)));
    let keep = match setting.keep {
        Keep::Never => false,
        // A twin is meant to fail.
        Keep::OnFailure => failed && twin.is_none(),
        Keep::Always => true,
    };
    if !keep {
        namespace::discard(&namespace).await;
    }
    (verdict, namespace.measurements())
}

fn judge_twin(twin: &Twin, verdict: Verdict) -> TwinResult {
    let (caught, observed) = match verdict {
        Ok(()) => (false, "the outcome was met all the same".to_owned()),
        Err(Finding::NotMet(mismatch)) => {
            let expected = twin
                .observed
                .as_ref()
                .filter(|expected| !expected.is_match(&mismatch.observed));
            match expected {
                None => (true, mismatch.observed),
                Some(expected) => {
                    let observed = format!("expected an observation like “{expected}”, got: {}", mismatch.observed);
                    (false, observed)
                }
            }
        }
        Err(Finding::NotApplicable(reason)) => (false, format!("not applicable: {reason}")),
        Err(Finding::Skipped(reason)) => (false, format!("skipped: {reason}")),
        Err(Finding::Error(error)) => (false, format!("error: {error:#}")),
    };
    TwinResult {
        name: twin.name.clone(),
        caught,
        observed,
    }
}

fn conclude(result: &mut CheckResult, verdict: Verdict, remediation: &str) {
    result.reason = None;
    match verdict {
        Ok(()) => result.outcome = OutcomeKind::Met,
        Err(Finding::NotMet(mismatch)) => {
            result.outcome = OutcomeKind::NotMet;
            result.reason = Some(result.requirement.clone());
            result.remediation = Some(remediation.to_owned());
            result.expected = Some(mismatch.expected);
            result.observed = Some(mismatch.observed);
            result.container = mismatch.container;
        }
        Err(Finding::NotApplicable(reason)) => {
            result.outcome = OutcomeKind::NotApplicable;
            result.reason = Some(reason);
        }
        Err(Finding::Skipped(reason)) => {
            result.outcome = OutcomeKind::Skipped;
            result.reason = Some(reason);
        }
        Err(Finding::Error(error)) => {
            result.outcome = OutcomeKind::Error;
            result.reason = Some(format!("{error:#}"));
        }
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
        .unwrap_or_else(|| "no message".to_owned())
}

/// Reads the fixture of a check without running it.
///
/// # Errors
/// Like [`Fixture::load`].
pub fn fixture(id: &str) -> anyhow::Result<Fixture> {
    Fixture::load(&environment::setting().fixtures, id).context("the fixture cannot be read")
}

#[cfg(test)]
mod tests;
