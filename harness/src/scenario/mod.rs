//! A check's life: fixture, shape, namespace, objects, wait, body, outcome, evidence, clean-up; and the same for its twins.
//!
//! Checks that look at the scenario's Pod and change nothing share one life; see [`share`].

mod admission;
mod alone;
mod apply;
mod evidence;
mod interruption;
mod judge;
mod leftovers;
mod life;
mod namespace;
mod rehearsal;
mod role;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Termination};
use std::time::SystemTime;

use futures::future::{LocalBoxFuture, join_all};

use crate::cluster::capabilities::{self, Answer};
use crate::cluster::{Cluster, Target};
use crate::display::explained;
use crate::environment;
use crate::finding::{Finding, Verdict};
use crate::fixture::{self, Fixture, Shape, Twin};
use crate::pod::ScenarioPod;
use crate::profile::Profile;
use crate::report::model::{CheckResult, OutcomeKind};
use crate::report::records::RunFolder;
use crate::report::terminal;
use interruption::Interruption;
use life::{Life, Watched};

pub use alone::{Lone, LoneBody, LoneCheck, LoneExpect, alone};
pub use leftovers::Leftovers;
pub use rehearsal::rehearse;

/// Results as the value of a test function: the test passes unless a requirement that is a MUST is not met, or something could not be decided.
#[derive(Debug)]
#[must_use]
pub struct Outcome(pub Vec<CheckResult>);

impl Termination for Outcome {
    fn report(self) -> ExitCode {
        for result in &self.0 {
            print!("{}", terminal::block(result, &environment::command()));
        }
        if self.0.iter().any(CheckResult::fails) {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}

/// Where checks find what they need.
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
    /// Which objects stay.
    pub keep: Keep,
    /// The cluster.
    pub target: Option<Target>,
    /// The namespaces that the run may use; if there are none, it makes its own.
    pub namespaces: Vec<String>,
    /// A number that no other test of the run has at the same time, if namespaces are kept for later ones.
    pub slot: Option<String>,
    /// The checks that are wanted, as `ID@SHAPE`; all if there is no selection.
    pub selection: Option<BTreeSet<String>>,
    /// The image that takes the place of a role's reference image.
    pub profile: Option<Profile>,
}

impl Setting {
    /// What the environment says.
    ///
    /// # Errors
    /// The run's id cannot be one, see [`environment::run_id`]; the profile cannot be read.
    pub fn from_environment() -> anyhow::Result<Self> {
        let run = environment::run_id()?;
        let value = environment::value;
        Ok(Self {
            fixtures: environment::root().join("fixtures"),
            folder: RunFolder::new(&environment::results(), &run),
            prove: value(environment::PROVE).is_some_and(|value| value == "1"),
            keep: match value(environment::KEEP).as_deref() {
                Some("always") => Keep::Always,
                Some("on-failure") => Keep::OnFailure,
                _ => Keep::Never,
            },
            target: None,
            namespaces: environment::list(environment::NAMESPACES),
            // Nobody would remove the namespaces of a run that nextest alone has started.
            slot: value(environment::RUN).and(value("NEXTEST_TEST_GLOBAL_SLOT")),
            selection: environment::selection(),
            profile: value(environment::PROFILE)
                .map(|file| Profile::resolved(Path::new(&file)))
                .transpose()?,
            run,
        })
    }
}

impl Setting {
    /// The same for one of several lanes that need namespaces at the same time.
    fn in_lane(&self, lane: usize) -> Self {
        Self {
            slot: self.slot.as_ref().map(|slot| format!("{slot}-{lane}")),
            ..self.clone()
        }
    }
}

/// Which objects stay after their check.
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

/// The function that decides a requirement on a Pod.
pub type Body = for<'a> fn(&'a ScenarioPod) -> LocalBoxFuture<'a, Verdict>;

/// A check of the suite: its id and its function.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// The area.
    pub area: &'static str,
    /// The function's name; the check's is the same with hyphens.
    pub function: &'static str,
    /// The function.
    pub body: Body,
}

impl Check {
    /// `<area>/<check>`.
    pub fn id(&self) -> String {
        id_of(self.area, self.function)
    }
}

/// The id of the check that a function of an area decides.
fn id_of(area: &str, function: &str) -> String {
    format!("{area}/{function}").replace('_', "-")
}

/// Decides one requirement on a Pod of its own.
///
/// If twins are asked for, the same body runs on each of them, and a twin that it does not catch makes the outcome an `error`.
pub async fn check(check: Check, shape: Shape) -> Outcome {
    share(&[check], shape).await
}

/// Decides several requirements on one Pod, one after another: they look at the area's scenario and change nothing that a later one
/// looks at. Each has its own outcome, record and twins.
pub async fn share(checks: &[Check], shape: Shape) -> Outcome {
    let setting = match Setting::from_environment() {
        Ok(setting) => setting,
        Err(error) => {
            let undecided = |check: &Check| CheckResult::undecided(&check.id(), shape, None, explained(&error));
            return Outcome(checks.iter().map(undecided).collect());
        }
    };
    let wanted = |check: &&Check| {
        let selector = format!("{}@{shape}", check.id());
        setting
            .selection
            .as_ref()
            .is_none_or(|wanted| wanted.contains(&selector))
    };
    let bodies: Vec<(String, Body)> = checks
        .iter()
        .filter(wanted)
        .map(|check| (check.id(), check.body))
        .collect();
    decide(&setting, &bodies, shape).await
}

/// Like [`share`], with everything from the environment given.
///
/// Checks that do not have the shape, and properties that their area goes without, are left out.
pub async fn decide<B>(setting: &Setting, bodies: &[(String, B)], shape: Shape) -> Outcome
where
    B: AsyncFn(&ScenarioPod) -> Verdict,
{
    let interruption = Interruption::listen(&setting.folder);
    let results = Results::new(setting);
    let mut open = Vec::new();
    for (id, body) in bodies {
        if fixture::is_left_out(&setting.fixtures, id) {
            continue;
        }
        match Fixture::load_for(&setting.fixtures, id, setting.profile.as_ref()) {
            Ok(fixture) if !fixture.metadata.shapes.contains(&shape) => {}
            Ok(fixture) => open.push((fixture, body)),
            Err(error) => results.add(CheckResult::undecided(id, shape, None, explained(&error))),
        }
    }
    let target = setting.target.clone().map_or_else(Target::from_environment, Ok);
    let connected = match target {
        Ok(target) => interruption.unless(Cluster::connect_to(target)).await,
        Err(error) => Err(error),
    };
    match connected {
        Ok(cluster) => decide_on(setting, &interruption, &cluster, open, shape, &results).await,
        Err(error) => {
            for (fixture, _) in open {
                let reason = explained(&error);
                results.add(CheckResult::undecided(
                    &fixture.id,
                    shape,
                    Some(&fixture.metadata),
                    reason,
                ));
            }
        }
    }
    results.into_outcome()
}

/// Final results, each on disk as soon as it is one.
struct Results<'a> {
    setting: &'a Setting,
    all: RefCell<Vec<CheckResult>>,
}

impl<'a> Results<'a> {
    fn new(setting: &'a Setting) -> Self {
        Self {
            setting,
            all: RefCell::default(),
        }
    }

    fn into_outcome(self) -> Outcome {
        Outcome(self.all.into_inner())
    }

    fn add(&self, result: CheckResult) {
        if let Err(error) = self.setting.folder.record(&result) {
            eprintln!(
                "sidecheck: the outcome of {} could not be recorded: {error:#}",
                result.id
            );
        }
        self.all.borrow_mut().push(result);
    }
}

/// Decides those checks that apply to the cluster, all on one life, and then each on its twins.
async fn decide_on<B>(
    setting: &Setting,
    interruption: &Interruption,
    cluster: &Cluster,
    open: Vec<(Fixture, &B)>,
    shape: Shape,
    results: &Results<'_>,
) where
    B: AsyncFn(&ScenarioPod) -> Verdict,
{
    let mut applicable = Vec::new();
    for (fixture, body) in open {
        match interruption.unless(applies(setting, cluster, &fixture)).await {
            Ok(()) => applicable.push((fixture, body)),
            Err(finding) => {
                let mut result = CheckResult::undecided(&fixture.id, shape, Some(&fixture.metadata), String::new());
                judge::conclude(&mut result, Err(finding), &fixture.metadata.remediation);
                results.add(result);
            }
        }
    }
    if applicable.is_empty() {
        return;
    }
    let began = SystemTime::now();
    let watched: Vec<_> = applicable
        .iter()
        .map(|(fixture, body)| Watched { fixture, body: *body })
        .collect();
    let life = Life {
        setting,
        interruption,
        cluster,
        shape,
        twin: None,
    };
    let seen = life.live(&watched).await;
    let mut met = Vec::new();
    for (check, seen) in watched.into_iter().zip(seen) {
        let fixture = check.fixture;
        let mut result = CheckResult::undecided(&fixture.id, shape, Some(&fixture.metadata), String::new());
        result.evidence = environment::relative(&setting.folder.evidence(&fixture.id, shape, None));
        result.shared = applicable.len() > 1;
        judge::fill(&mut result, &seen, began);
        judge::conclude(&mut result, seen.verdict, &fixture.metadata.remediation);
        if setting.prove && result.outcome == OutcomeKind::Met {
            met.push((check, result));
        } else {
            results.add(result);
        }
    }
    // Twins wait most of their time for what does not come.
    let lanes = (0..LANES).map(|lane| {
        let (setting, life, met) = (setting.in_lane(lane), &life, &met);
        async move {
            for (check, result) in met.iter().skip(lane).step_by(LANES) {
                let mut result = result.clone();
                let life = Life {
                    setting: &setting,
                    ..*life
                };
                prove(&life, check, &mut result).await;
                results.add(result);
            }
        }
    });
    join_all(lanes).await;
}

/// In how many lanes the checks of one life are proved at the same time.
const LANES: usize = 2;

/// Runs the twins of one check, one after another.
async fn prove<B>(life: &Life<'_>, check: &Watched<'_, B>, result: &mut CheckResult)
where
    B: AsyncFn(&ScenarioPod) -> Verdict,
{
    let (fixture, shape) = (check.fixture, life.shape);
    for (number, twin) in fixture.twins(shape).enumerate() {
        let life = Life {
            twin: Some((number, twin)),
            ..*life
        };
        let Some(seen) = life.live(std::slice::from_ref(check)).await.pop() else {
            continue;
        };
        let trouble = matches!(seen.verdict, Err(Finding::Error(_)));
        let evidence = environment::relative(&life.setting.folder.evidence(&fixture.id, shape, Some(number)));
        result.twins.push(judge::twin(twin, seen.verdict, evidence));
        // Trouble would meet the next twin as well.
        if trouble {
            break;
        }
    }
    if let Some(fault) = judge::unproved(result, &fixture.metadata.unproved) {
        result.outcome = OutcomeKind::Error;
        result.reason = Some(fault);
    }
}

/// Whether the cluster has what the check is about, and the image claims it.
async fn applies(setting: &Setting, cluster: &Cluster, fixture: &Fixture) -> Verdict {
    if fixture.profile().is_some_and(|profile| profile.kubernetes_api) {
        let reason = "the image needs the Kubernetes API by its profile, and validate gives it no access";
        return Err(Finding::NotApplicable(reason.to_owned()));
    }
    claimed(fixture)?;
    if let Some(since) = &fixture.metadata.since
        && let Some(reason) = capabilities::older_than(&cluster.version().await?, since)
    {
        return Err(Finding::NotApplicable(reason));
    }
    let mut needs = fixture.needs();
    if !cluster.target.is_own() {
        needs.extend(fixture.creates(!setting.namespaces.is_empty()));
    }
    if needs.is_empty() {
        return Ok(());
    }
    let capabilities =
        capabilities::of_run(&setting.folder, cluster, &setting.run, &setting.namespaces, &needs).await?;
    match capabilities.obstacle(&needs) {
        Some(Answer::Lacking(reason)) => Err(Finding::NotApplicable(reason.clone())),
        Some(Answer::Unknown(reason)) => Err(Finding::Skipped(reason.clone())),
        Some(Answer::Available) | None => Ok(()),
    }
}

/// Whether the image claims what the check is about.
fn claimed(fixture: &Fixture) -> Verdict {
    match (fixture.profile(), fixture.metadata.claim) {
        (Some(profile), Some(claim)) if !profile.claims(claim) => {
            Err(Finding::NotApplicable(format!("the profile does not claim “{claim}”")))
        }
        _ => Ok(()),
    }
}

/// A twin, and its place among those of its check.
type Numbered<'a> = Option<(usize, &'a Twin)>;

#[cfg(test)]
mod tests;
