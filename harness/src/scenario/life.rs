//! One life of a fixture's Pods: created, watched, looked at by one check or several, and removed.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use futures::FutureExt;
use futures::future::try_join_all;
use serde_json::Value;
use tokio::time::timeout;

use super::interruption::Interruption;
use super::namespace::Claim;
use super::{Keep, Numbered, Setting, admission, apply, evidence, namespace, role};
use crate::cluster::Cluster;
use crate::cluster::namespace::unique;
use crate::display::explained;
use crate::finding::{Finding, Mismatch, Verdict};
use crate::fixture::{Begin, Fixture, PodSecurity, Shape};
use crate::patience;
use crate::pod::{ScenarioPod, Scene};
use crate::report::model::{Assertion, Measurement};
use crate::timeline::Timeline;

/// The assertion that everybody makes.
const RUNS_ON: &str = "no container crashes";

/// What is to live.
pub(super) struct Life<'a> {
    pub(super) setting: &'a Setting,
    pub(super) interruption: &'a Interruption,
    pub(super) cluster: &'a Cluster,
    pub(super) shape: Shape,
    pub(super) twin: Numbered<'a>,
}

/// A check that looks at a life.
pub(super) struct Watched<'a, B> {
    pub(super) fixture: &'a Fixture,
    pub(super) body: &'a B,
}

/// What came of one check.
pub(super) struct Seen {
    pub(super) verdict: Verdict,
    pub(super) assertions: Vec<Assertion>,
    pub(super) measurements: Vec<Measurement>,
    pub(super) notes: Vec<String>,
    pub(super) node: Option<String>,
    pub(super) timeline: Timeline,
    pub(super) duration: Duration,
}

/// Where a life takes place.
struct Stage {
    claim: Claim,
    scene: Arc<Scene>,
    pod: ScenarioPod,
    /// What is to be created.
    objects: Vec<Value>,
    applied: Vec<apply::Applied>,
}

impl Life<'_> {
    /// Decides the checks on one life, one after another. All of them use the same scenario.
    pub(super) async fn live<B>(&self, watched: &[Watched<'_, B>]) -> Vec<Seen>
    where
        B: AsyncFn(&ScenarioPod) -> Verdict,
    {
        let began = Instant::now();
        if let Some(reason) = self.knows_unready(watched) {
            return nothing_seen(watched, &Finding::Skipped(reason), began);
        }
        let mut stage = match self.interruption.unless(self.set(watched)).await {
            Ok(stage) => stage,
            Err(error) => return nothing_seen(watched, &error.into(), began),
        };
        // It may have waited for a namespace.
        let began = Instant::now();
        let scene = Arc::clone(&stage.scene);
        let mut ending = pin!(self.interruption.or_too_long(&scene));
        let begun = tokio::select! {
            begun = self.begin(&mut stage, watched) => begun,
            why = &mut ending => Err(anyhow!(why).into()),
        };
        let seen = match begun {
            Err(finding) => {
                self.note_unready(watched, &finding);
                nothing_seen(watched, &finding, began)
            }
            Ok(notes) => {
                let mut seen = Vec::new();
                let mut ended = None;
                let mut unfit = false;
                for check in watched {
                    let began = if seen.is_empty() { began } else { Instant::now() };
                    let verdict = match &ended {
                        Some(why) => Err(anyhow!("not begun; {why}").into()),
                        None if unfit => Err(Finding::Skipped(role::left_out(check.fixture))),
                        None => tokio::select! {
                            verdict = self.decide(check, &stage, &notes) => verdict,
                            why = &mut ending => Err(anyhow!(ended.insert(why).clone()).into()),
                        },
                    };
                    if let (Begin::Judged, Err(finding)) = (check.fixture.metadata.begin, &verdict) {
                        self.note_unready(watched, finding);
                        unfit = matches!(finding, Finding::NotMet(_));
                    }
                    seen.push(stage.seen(verdict, &notes, began));
                }
                seen
            }
        };
        self.save(watched, &stage).await;
        self.clear(stage, &seen).await;
        seen
    }

    /// Why nothing needs to begin: another life of the run has shown that a role's sidecar does not become ready in this shape.
    fn knows_unready<B>(&self, watched: &[Watched<'_, B>]) -> Option<String> {
        let fixture = watched.first()?.fixture;
        let judges = |check: &Watched<'_, B>| check.fixture.metadata.begin == Begin::Judged;
        let role = fixture.profile().is_some() && self.twin.is_none() && !watched.iter().any(judges);
        (role && self.setting.folder.is_unready(fixture.area(), self.shape)).then(|| role::left_out(fixture))
    }

    fn note_unready<B>(&self, watched: &[Watched<'_, B>], finding: &Finding) {
        if let (Finding::NotMet(_), None, [first, _, ..]) = (finding, self.twin, watched) {
            let noted = self.setting.folder.note_unready(first.fixture.area(), self.shape);
            if let Err(error) = noted {
                tracing::warn!("other checks will find it out again: {}", explained(&error));
            }
        }
    }

    /// Finds a namespace, begins to watch it, and prepares what is to be created there.
    async fn set<B>(&self, watched: &[Watched<'_, B>]) -> anyhow::Result<Stage> {
        let fixture = watched.first().context("nobody looks")?.fixture;
        let mut objects = self.objects(watched)?;
        let life = format!("{:08x}", unique() as u32);
        let nonces = apply::prepare(&mut objects, &self.setting.run, &life)?;
        // A resolver may remember for a while where a Service's name led.
        let fresh = objects.iter().any(|object| object["kind"] == "Service");
        let (client, setting) = (&self.cluster.client, self.setting);
        let standard = self.pod_security(watched);
        let claim = namespace::claim(client, setting, &life, fresh, standard).await?;
        if matches!(claim, Claim::Lent(_)) {
            // It would bind what others have there.
            objects.retain(|object| object["kind"] != "ResourceQuota");
        }
        let scene = Scene::watch_life(client.clone(), claim.name(), &life, nonces);
        let pod = ScenarioPod::new(
            Arc::clone(&scene),
            fixture.pod_name(),
            &fixture.metadata.main,
            &fixture.metadata.sidecars,
        )
        .with_profile(fixture.profile());
        Ok(Stage {
            claim,
            scene,
            pod,
            objects,
            applied: Vec::new(),
        })
    }

    /// What the namespace must allow for the Pods of all checks.
    fn pod_security<B>(&self, watched: &[Watched<'_, B>]) -> PodSecurity {
        let twin = self.twin.map(|(_, twin)| twin);
        let needed = watched.iter().map(|check| check.fixture.pod_security(twin));
        needed.max().unwrap_or_default()
    }

    /// The objects of all checks, each once.
    fn objects<B>(&self, watched: &[Watched<'_, B>]) -> anyhow::Result<Vec<Value>> {
        let mut all: Vec<Value> = Vec::new();
        let key = |object: &Value| (object["kind"].clone(), object["metadata"]["name"].clone());
        for check in watched {
            for object in check.fixture.objects(self.shape, self.twin.map(|(_, twin)| twin))? {
                if !all.iter().any(|known| key(known) == key(&object)) {
                    all.push(object);
                }
            }
        }
        Ok(all)
    }

    /// Creates the objects and waits until the checks can begin. Returns what a reader must know about the Pod.
    async fn begin<B>(&self, stage: &mut Stage, watched: &[Watched<'_, B>]) -> Result<Vec<String>, Finding> {
        for object in stage.objects.clone() {
            let (client, namespace) = (&stage.scene.client, &stage.scene.namespace);
            let created = apply::create(client, namespace, object).await;
            let refused = |error| admission::refused(error, namespace, self.pod_security(watched));
            stage.applied.push(created.map_err(refused)?);
        }
        let fixture = watched.first().context("nobody looks")?.fixture;
        if fixture.metadata.begin == Begin::Applied {
            return Ok(Vec::new());
        }
        let (kind, name) = fixture.subject();
        if kind != "Pod" {
            let pod = stage.scene.first_pod_of(kind, name).await?;
            stage.pod = stage.pod.renamed(&pod);
        }
        let bare = stage.objects.iter().filter(|object| object["kind"] == "Pod");
        let names = bare
            .filter_map(|object| object["metadata"]["name"].as_str())
            .filter(|name| *name != stage.pod.name())
            .map(|name| stage.pod.other(name));
        let pods: Vec<ScenarioPod> = names.chain([stage.pod.clone()]).collect();
        if let Err(error) = try_join_all(pods.iter().map(ScenarioPod::ready)).await {
            return Err(role::unready(&stage.scene, fixture, error).await);
        }
        for (container, text) in &fixture.metadata.begun {
            let container = stage.pod.container(container);
            let what = format!("the line “{text}”, which says that it has begun");
            container.given().prints_line(&what, |line| line.contains(text)).await?;
        }
        let mut notes = Vec::new();
        for object in &stage.objects {
            let ours = (object["kind"].as_str(), object["metadata"]["name"].as_str()) == (Some(kind), Some(name));
            let name = if ours {
                Some(stage.pod.name())
            } else {
                object["metadata"]["name"].as_str()
            };
            let live = name.and_then(|name| stage.pod.other(name).live());
            if let (Some(live), true) = (live, ours || object["kind"] == "Pod") {
                let live = serde_json::to_value(live).context("a Pod is an object")?;
                let sidecars = if ours { &fixture.metadata.sidecars[..] } else { &[] };
                notes.extend(admission::compare(object, &live, self.shape, sidecars)?);
            }
        }
        Ok(notes)
    }

    /// Runs one check's body, and asks the infrastructure before its verdict counts.
    async fn decide<B>(&self, check: &Watched<'_, B>, stage: &Stage, notes: &[String]) -> Verdict
    where
        B: AsyncFn(&ScenarioPod) -> Verdict,
    {
        stage.scene.begin_check();
        let verdict = AssertUnwindSafe((check.body)(&stage.pod)).catch_unwind().await;
        let verdict = verdict.unwrap_or_else(|panic| Err(anyhow!("the check panicked: {}", words(&*panic)).into()));
        match verdict {
            Ok(()) => {
                stage.scene.refresh().await?;
                self.nothing_restarted(check, stage, None)
            }
            Err(Finding::NotMet(mismatch)) => {
                let doubt = |why: anyhow::Error| Finding::Error(why.context(format!("nobody can tell: {mismatch}")));
                stage.scene.confirm().await.map_err(doubt)?;
                if !notes.is_empty() {
                    return Err(doubt(anyhow!(notes.join("; "))));
                }
                // A restart shows in the status, whatever the logs have.
                self.nothing_restarted(check, stage, Some(&mismatch))?;
                stage.scene.looked_at_all().map_err(doubt)?;
                Err(Finding::NotMet(mismatch))
            }
            other => other,
        }
    }

    /// A container that restarts although nobody ended it is trouble, unless its crash is the finding or the very thing that was asserted.
    fn nothing_restarted<B>(&self, check: &Watched<'_, B>, stage: &Stage, mismatch: Option<&Mismatch>) -> Verdict {
        let Some((pod, container, state)) = stage.scene.restarted_by_itself() else {
            return Ok(());
        };
        if mismatch.is_some_and(|mismatch| mismatch.is_about_restarts() && mismatch.container() == Some(&container)) {
            return Ok(());
        }
        let words = stage.scene.last_words(&pod, &container);
        let observed =
            format!("container {container} of Pod {pod} was restarted although nothing ended it: {state}; {words}");
        let fixture = check.fixture;
        let crash_is_finding = match fixture.profile() {
            // The others are the suite's own.
            Some(_) => fixture.metadata.sidecars.first() == Some(&container),
            None => fixture.metadata.crash_is_finding,
        };
        if crash_is_finding {
            return Err(Mismatch::new(RUNS_ON, Some(&container), "containers that run on", observed).into());
        }
        Err(match mismatch {
            Some(mismatch) => anyhow!("{observed}; the check had observed: {mismatch}"),
            None => anyhow!("{observed}"),
        }
        .into())
    }

    /// Saves the evidence, for each check in a folder of its own.
    async fn save<B>(&self, watched: &[Watched<'_, B>], stage: &Stage) {
        let collected = timeout(patience::EVIDENCE, evidence::collect(&stage.scene, &stage.pod)).await;
        let (evidence, mut complete) = match collected {
            Ok(collected) => collected,
            Err(_) => (
                Vec::new(),
                Err(anyhow!("not collected within {:?}", patience::EVIDENCE)),
            ),
        };
        for check in watched {
            let number = self.twin.map(|(number, _)| number);
            let folder = self.setting.folder.evidence(&check.fixture.id, self.shape, number);
            complete = complete.and(evidence::write(&evidence, &folder));
        }
        if let Err(error) = complete {
            tracing::warn!(
                namespace = stage.claim.name(),
                "the evidence is incomplete: {}",
                explained(&error)
            );
        }
    }

    /// Removes what was created, unless it is to stay.
    async fn clear(&self, stage: Stage, seen: &[Seen]) {
        let failed = seen
            .iter()
            .any(|seen| matches!(seen.verdict, Err(Finding::NotMet(_) | Finding::Error(_))));
        let stays = match self.setting.keep {
            Keep::Never => false,
            // A twin is meant to fail.
            Keep::OnFailure => failed && self.twin.is_none(),
            Keep::Always => true,
        };
        let (client, name) = (&self.cluster.client, stage.claim.name().to_owned());
        let had_services = stage.objects.iter().any(|object| object["kind"] == "Service");
        let life = stage.scene.life();
        let deletion = async {
            match stays {
                true => stage.claim.keep(client, had_services).await,
                false => stage.claim.clear(client, &stage.applied, life, had_services).await,
            }
        };
        if let Err(error) = deletion.await {
            tracing::warn!(
                namespace = name,
                "left behind, `sidecheck clean` removes it: {}",
                explained(&error)
            );
        }
    }
}

impl Stage {
    /// What came of the check that has just been decided.
    fn seen(&self, verdict: Verdict, notes: &[String], began: Instant) -> Seen {
        Seen {
            verdict,
            assertions: self.scene.assertions(),
            measurements: self.scene.measurements(),
            notes: [notes, &self.scene.notes()].concat(),
            node: self.pod.state().and_then(|state| state.pod.spec?.node_name),
            timeline: self.pod.timeline(),
            duration: began.elapsed(),
        }
    }
}

/// The life did not begin: what kept it from that is the finding of each check.
fn nothing_seen<B>(watched: &[Watched<'_, B>], finding: &Finding, began: Instant) -> Vec<Seen> {
    let seen = |check: &Watched<'_, B>| {
        let finding = role::without_life(check.fixture, finding);
        let failed = match &finding {
            Finding::NotMet(mismatch) => Some(Assertion {
                label: mismatch.label().to_owned(),
                container: mismatch.container().map(str::to_owned),
                held: false,
            }),
            _ => None,
        };
        Seen {
            verdict: Err(finding),
            assertions: failed.into_iter().collect(),
            measurements: Vec::new(),
            notes: Vec::new(),
            node: None,
            timeline: Timeline::default(),
            duration: began.elapsed(),
        }
    };
    watched.iter().map(seen).collect()
}

pub(super) fn words(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
        .unwrap_or_else(|| "no message".to_owned())
}
