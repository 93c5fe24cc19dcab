//! Checks of an image alone: its container runs on the local engine, without a cluster.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::{Instant, SystemTime};

use anyhow::{Context, anyhow};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::interruption::{Interruption, too_long};
use super::life::{Seen, words};
use super::{Outcome, Results, Setting, evidence, judge};
use crate::display::explained;
use crate::environment;
use crate::finding::{Finding, Mismatch, Verdict};
use crate::fixture::{Fixture, Shape, Twin};
use crate::image::{Alone, NoEngine};
use crate::patience;
use crate::profile::Profile;
use crate::report::model::{Assertion, CheckResult, OutcomeKind};
use crate::timeline::Timeline;

/// The function that decides a requirement on containers that run alone.
pub type LoneBody = for<'a> fn(&'a Lone) -> LocalBoxFuture<'a, Verdict>;

/// The sidecar of a fixture, to be run alone as often as a check needs.
#[derive(Debug)]
pub struct Lone {
    pod: Value,
    container: String,
    config_maps: Vec<Value>,
    profile: Profile,
    assertions: Mutex<Vec<Assertion>>,
    /// What containers have said, for evidence.
    outputs: Mutex<Vec<String>>,
}

impl Lone {
    fn new(fixture: &Fixture, twin: Option<&Twin>) -> anyhow::Result<Self> {
        let objects = fixture.objects(Shape::Alone, twin)?;
        let (kind, name) = fixture.subject();
        let is_subject = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        let pod = objects.iter().find(is_subject).context("the Pod is gone")?["spec"].clone();
        let is_config = |object: &&Value| object["kind"] == "ConfigMap";
        Ok(Self {
            pod,
            container: fixture
                .metadata
                .sidecars
                .first()
                .context("there is no sidecar")?
                .clone(),
            config_maps: objects.iter().filter(is_config).cloned().collect(),
            profile: fixture.profile().context("the area is no role")?.clone(),
            assertions: Mutex::default(),
            outputs: Mutex::default(),
        })
    }

    /// What is known of the image.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Starts a container as it is declared.
    ///
    /// # Errors
    /// The engine does not answer, or cannot start it.
    pub async fn start(&self) -> anyhow::Result<Alone> {
        self.start_with(&json!({}), &BTreeMap::new()).await
    }

    /// Starts a container with these fields instead of the declared ones, and these texts in place of the declared files of the same paths.
    ///
    /// # Errors
    /// Like [`Self::start`].
    pub async fn start_with(&self, fields: &Value, files: &BTreeMap<String, String>) -> anyhow::Result<Alone> {
        let mut pod = self.pod.clone();
        let containers = pod["containers"].as_array_mut().into_iter().flatten();
        let mut ours = containers.filter(|container| container["name"] == self.container.as_str());
        let container = ours.next().context("the container is gone")?;
        for (name, value) in fields.as_object().into_iter().flatten() {
            match value.as_object() {
                Some(inner) if container[name].is_object() => {
                    for (key, value) in inner {
                        container[name][key] = value.clone();
                    }
                }
                _ => container[name] = value.clone(),
            }
        }
        let mut config_maps = self.config_maps.clone();
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let file = mount["mountPath"].as_str().and_then(|path| files.get(path));
            let key = mount["subPath"].as_str();
            if let (Some(text), Some(key)) = (file, key) {
                let holder = config_maps.iter_mut().find(|map| map["data"].get(key).is_some());
                holder.context("the file is in no ConfigMap")?["data"][key] = json!(text);
            }
        }
        Alone::start(&pod, &self.container, &config_maps).await
    }

    /// Keeps what a container has said, for evidence.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn heard(&self, alone: &Alone) -> anyhow::Result<String> {
        let output = alone.output().await?;
        let text = format!("{}{}", output.stdout, output.stderr);
        locked(&self.outputs).push(text.clone());
        Ok(text)
    }

    /// What the image owes; `label` names the assertion.
    pub fn expect<'a>(&'a self, label: &'static str) -> LoneExpect<'a> {
        LoneExpect { lone: self, label }
    }
}

/// What an image owes.
#[derive(Debug)]
#[must_use]
pub struct LoneExpect<'a> {
    lone: &'a Lone,
    label: &'static str,
}

impl LoneExpect<'_> {
    /// Asserts.
    ///
    /// # Errors
    /// It does not hold.
    pub fn holds(&self, holds: bool, expected: impl Into<String>, observed: impl Into<String>) -> Verdict {
        let container = &self.lone.container;
        locked(&self.lone.assertions).push(Assertion {
            label: self.label.to_owned(),
            container: Some(container.clone()),
            held: holds,
        });
        if holds {
            return Ok(());
        }
        Err(Mismatch::new(self.label, Some(container), expected, observed).into())
    }
}

/// A check of an image alone: its name and its function.
#[derive(Clone, Copy, Debug)]
pub struct LoneCheck {
    /// The area.
    pub area: &'static str,
    /// The function's name; the check's is the same with hyphens.
    pub function: &'static str,
    /// The function.
    pub body: LoneBody,
}

impl LoneCheck {
    /// `<area>/<check>`.
    pub fn id(&self) -> String {
        super::id_of(self.area, self.function)
    }
}

/// Decides one requirement on an image alone; and its twins, if they are asked for.
pub async fn alone(check: LoneCheck) -> Outcome {
    let (id, shape) = (check.id(), Shape::Alone);
    let setting = match Setting::from_environment() {
        Ok(setting) => setting,
        Err(error) => return Outcome(vec![CheckResult::undecided(&id, shape, None, explained(&error))]),
    };
    let interruption = Interruption::listen(&setting.folder);
    let results = Results::new(&setting);
    match Fixture::load_for(&setting.fixtures, &id, setting.profile.as_ref()) {
        Ok(fixture) => match super::claimed(&fixture) {
            Ok(()) => results.add(decide(&setting, &interruption, &fixture, check.body).await),
            Err(finding) => {
                let mut result = CheckResult::undecided(&id, shape, Some(&fixture.metadata), String::new());
                judge::conclude(&mut result, Err(finding), &fixture.metadata.remediation);
                results.add(result);
            }
        },
        Err(error) => results.add(CheckResult::undecided(&id, shape, None, explained(&error))),
    }
    results.into_outcome()
}

async fn decide(setting: &Setting, interruption: &Interruption, fixture: &Fixture, body: LoneBody) -> CheckResult {
    let began = SystemTime::now();
    let mut result = CheckResult::undecided(&fixture.id, Shape::Alone, Some(&fixture.metadata), String::new());
    let evidence = setting.folder.evidence(&fixture.id, Shape::Alone, None);
    result.evidence = environment::relative(&evidence);
    let seen = live(interruption, fixture, None, body, &evidence).await;
    judge::fill(&mut result, &seen, began);
    judge::conclude(&mut result, seen.verdict, &fixture.metadata.remediation);
    if setting.prove && result.outcome == OutcomeKind::Met {
        for (number, twin) in fixture.twins(Shape::Alone).enumerate() {
            let evidence = setting.folder.evidence(&fixture.id, Shape::Alone, Some(number));
            let seen = live(interruption, fixture, Some(twin), body, &evidence).await;
            result
                .twins
                .push(judge::twin(twin, seen.verdict, environment::relative(&evidence)));
        }
        if let Some(fault) = judge::unproved(&result, &fixture.metadata.unproved) {
            result.outcome = OutcomeKind::Error;
            result.reason = Some(fault);
        }
    }
    result
}

/// Runs the body, and saves what the containers have said.
async fn live(
    interruption: &Interruption,
    fixture: &Fixture,
    twin: Option<&Twin>,
    body: LoneBody,
    folder: &Path,
) -> Seen {
    let began = Instant::now();
    let (mut assertions, mut outputs) = (Vec::new(), Vec::new());
    let verdict = match Lone::new(fixture, twin) {
        Err(error) => Err(error.into()),
        Ok(lone) => {
            let verdict = tokio::select! {
                biased;
                why = interruption.comes() => Err(anyhow!(why).into()),
                () = sleep(patience::LIFE) => Err(anyhow!(too_long()).into()),
                verdict = AssertUnwindSafe(body(&lone)).catch_unwind() => {
                    verdict.unwrap_or_else(|panic| Err(anyhow!("the check panicked: {}", words(&*panic)).into()))
                }
            };
            assertions.append(&mut locked(&lone.assertions));
            outputs.append(&mut locked(&lone.outputs));
            verdict
        }
    };
    let verdict = match verdict {
        Err(Finding::Error(error)) if error.is::<NoEngine>() => Err(Finding::Skipped(explained(&error))),
        other => other,
    };
    let files = outputs
        .into_iter()
        .zip(1..)
        .map(|(output, number)| (format!("output-{number}.log"), output));
    if let Err(error) = evidence::write(&files.collect::<Vec<_>>(), folder) {
        tracing::warn!("the evidence is incomplete: {}", explained(&error));
    }
    Seen {
        verdict,
        assertions,
        measurements: Vec::new(),
        notes: Vec::new(),
        node: None,
        timeline: Timeline::default(),
        duration: began.elapsed(),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder panics")
}
