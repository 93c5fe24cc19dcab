//! The Pods of one life: watched, their logs followed, and everything noted that the outcome depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::agent::Control;
use super::follow::Follower;
use super::log::{Line, Log};
use super::state::{self, Pods};
use super::{pulse, wait};
use crate::cluster::request::limited;
use crate::patience;
use crate::report::model::{Assertion, Measurement};
use crate::timeline::{Event, Timeline};

/// The label that every object of one life carries.
pub const LIFE_LABEL: &str = "sidecheck.dev/life";

/// What happens in one life: its Pods, their logs, and what the check that looks at them has done and asserted.
pub struct Scene {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    life: String,
    changes: watch::Sender<Pods>,
    pods: watch::Receiver<Pods>,
    logs: Mutex<BTreeMap<(String, String), Arc<Log>>>,
    nonces: BTreeMap<String, String>,
    /// The agents' control ports, by the runtime's id of the container.
    controls: Mutex<BTreeMap<String, Arc<Control>>>,
    deeds: Mutex<Deeds>,
    /// What is being waited for, in the order in which that began.
    awaited: Mutex<BTreeMap<u64, Awaited>>,
    /// From when on the life's time counts.
    counts_from: Mutex<Instant>,
}

/// Something that is being waited for.
#[derive(Debug)]
struct Awaited {
    what: String,
    /// The Pod that it has to do with.
    pod: String,
    /// What says that it will take long.
    help: Option<String>,
}

/// A wait that goes on for as long as the value lives.
pub(super) struct Waiting<'a> {
    scene: &'a Scene,
    number: u64,
}

impl Waiting<'_> {
    /// Says that the cluster is at it, and that this takes long: no time of the life.
    pub(super) fn is_long(&self, help: &str) {
        if let Some(awaited) = self
            .scene
            .awaited
            .lock()
            .expect("no holder panics")
            .get_mut(&self.number)
        {
            awaited.help = Some(help.to_owned());
        }
        *self.scene.counts_from.lock().expect("no holder panics") = Instant::now();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.scene
            .awaited
            .lock()
            .expect("no holder panics")
            .remove(&self.number);
    }
}

/// What the body of the present check has done.
#[derive(Debug, Default)]
struct Deeds {
    /// The containers that it ended, by Pod and name.
    ended: BTreeSet<(String, String)>,
    /// The Pods that it deleted, by name, in this check or an earlier one of the same life.
    deleted: BTreeSet<String>,
    assertions: Vec<Assertion>,
    measurements: Vec<Measurement>,
    notes: Vec<String>,
    /// The containers whose logs it has looked at, by Pod and name.
    looked_at: BTreeSet<(String, String)>,
    /// The containers' restarts when it began, by UID of the Pod and name.
    restarts: BTreeMap<(String, String), i32>,
}

impl fmt::Debug for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scene").field(&self.namespace).field(&self.life).finish()
    }
}

impl Scene {
    /// Watches the Pods of one life in a namespace that exists; `nonces` has what proves the events of each container.
    pub(crate) fn watch_life(
        client: Client,
        namespace: &str,
        life: &str,
        nonces: BTreeMap<String, String>,
    ) -> Arc<Self> {
        let api = Api::namespaced(client.clone(), namespace);
        let (changes, pods) = state::watch_pods(api, &format!("{LIFE_LABEL}={life}"));
        tokio::spawn(pulse::feel(client.clone(), changes.clone()));
        let scene = Arc::new(Self {
            client,
            namespace: namespace.to_owned(),
            life: life.to_owned(),
            changes,
            pods: pods.clone(),
            logs: Mutex::default(),
            nonces,
            controls: Mutex::default(),
            deeds: Mutex::default(),
            awaited: Mutex::default(),
            counts_from: Mutex::new(Instant::now()),
        });
        tokio::spawn(follow_all(Arc::downgrade(&scene), pods));
        scene
    }

    /// Which life it is: the value of [`LIFE_LABEL`].
    pub(crate) fn life(&self) -> &str {
        &self.life
    }

    pub(crate) fn api(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// What the watch shows at this moment.
    pub(crate) fn pods(&self) -> Pods {
        self.pods.borrow().clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Pods> {
        self.pods.clone()
    }

    /// The Pods as the API server lists them now; it is asked again while it does not answer, for [`patience::API`].
    pub(super) async fn api_list(&self) -> anyhow::Result<Vec<Pod>> {
        let parameters = ListParams::default().labels(&format!("{LIFE_LABEL}={}", self.life));
        let begun = Instant::now();
        loop {
            match limited("list the Pods", self.api().list(&parameters)).await {
                Ok(list) => return Ok(list.items),
                Err(error) if begun.elapsed() > patience::API => return Err(error),
                Err(_) => {
                    self.changes.send_modify(|pods| pods.disturbed = Some(Instant::now()));
                    sleep(patience::RECONNECT).await;
                }
            }
        }
    }

    pub(super) fn take(&self, list: Vec<Pod>) {
        self.changes
            .send_modify(|pods| list.into_iter().for_each(|pod| pods.update(pod)));
    }

    /// The log of a container that its Pod declares.
    ///
    /// # Errors
    /// There is no such Pod or container.
    pub(super) fn log(&self, pod: &str, container: &str) -> anyhow::Result<Arc<Log>> {
        let pods = self.pods.borrow();
        let state = pods.get(pod).with_context(|| format!("there is no Pod {pod}"))?;
        if state::spec(&state.pod, container).is_none() {
            let names = state::container_names(&state.pod).join(", ");
            bail!("Pod {pod} has no container “{container}”; it has: {names}");
        }
        Ok(self.follow(&state.pod, container))
    }

    fn follow(&self, pod: &Pod, container: &str) -> Arc<Log> {
        let uid = pod.uid().unwrap_or_default();
        let mut logs = self.logs.lock().expect("no holder panics");
        let log = logs.entry((uid.clone(), container.to_owned())).or_insert_with(|| {
            let log = Log::new();
            let follower = Follower {
                api: self.api(),
                pods: self.pods.clone(),
                pod: pod.name_any(),
                uid,
                container: container.to_owned(),
                nonce: self.nonces.get(container).cloned(),
                log: Arc::clone(&log),
            };
            tokio::spawn(follower.follow());
            log
        });
        Arc::clone(log)
    }

    pub(super) fn control(&self, run: &str) -> Option<Arc<Control>> {
        self.controls.lock().expect("no holder panics").get(run).cloned()
    }

    pub(super) fn keep_control(&self, run: String, control: Arc<Control>) {
        self.controls.lock().expect("no holder panics").insert(run, control);
    }

    /// What every container has printed: the Pod's name and UID, the container, and its log.
    pub(super) fn logs(&self) -> Vec<(String, String, String, Arc<Log>)> {
        let pods = self.pods.borrow();
        let logs = self.logs.lock().expect("no holder panics");
        logs.iter()
            .filter_map(|((uid, container), log)| {
                let name = pods.uid(uid)?.pod.name_any();
                Some((name, uid.clone(), container.clone(), Arc::clone(log)))
            })
            .collect()
    }

    /// What every container has printed, by Pod and container, for evidence; and how many lines before that were dropped.
    pub(crate) fn printed(&self) -> Vec<(String, String, usize, Vec<Line>)> {
        let logs = self.logs().into_iter();
        logs.map(|(pod, _, container, log)| (pod, container, log.dropped(), log.lines()))
            .collect()
    }

    /// Everything that the containers of all Pods have recorded. Containers of Pods other than `subject` are named with their Pod.
    pub(crate) fn timeline(&self, subject: &str) -> Timeline {
        let mut events = Vec::new();
        for (pod, _, container, log) in self.logs() {
            let name = if pod == subject {
                container
            } else {
                format!("{pod}/{container}")
            };
            events.extend(log.lines().iter().filter_map(|line| {
                let mut event = Event::clone(line.event.as_deref()?);
                event.container.clone_from(&name);
                Some(event)
            }));
        }
        Timeline::new(events)
    }

    /// Notes what is being waited for until the result is dropped; `what` completes the sentence “waiting for …”.
    pub(super) fn waits_for(&self, what: String, pod: &str) -> Waiting<'_> {
        let mut awaited = self.awaited.lock().expect("no holder panics");
        let number = awaited.last_key_value().map_or(0, |(last, _)| last + 1);
        let (pod, help) = (pod.to_owned(), None);
        awaited.insert(number, Awaited { what, pod, help });
        Waiting { scene: self, number }
    }

    /// What is being waited for at this moment, and the state of the Pods that it has to do with; none if nothing is.
    pub(crate) fn awaited(&self) -> Option<String> {
        let (awaited, pods) = (self.awaited.lock().expect("no holder panics"), self.pods());
        let texts = awaited.values().map(|awaited| {
            let help = awaited
                .help
                .as_ref()
                .map_or_else(String::new, |help| format!(" ({help})"));
            format!("{}{help}: {}", awaited.what, state::describe(pods.get(&awaited.pod)))
        });
        let texts: Vec<String> = texts.collect();
        (!texts.is_empty()).then(|| texts.join("; and for "))
    }

    /// Returns when the life has taken [`patience::LIFE`], not counting long waits for what the cluster was at.
    pub(crate) async fn takes_too_long(&self) {
        loop {
            let until = *self.counts_from.lock().expect("no holder panics") + patience::LIFE;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    fn deeds(&self) -> MutexGuard<'_, Deeds> {
        self.deeds.lock().expect("no holder panics")
    }

    /// A check begins: what earlier ones did to containers is past.
    pub(crate) fn begin_check(&self) {
        let mut restarts = BTreeMap::new();
        for state in self.pods.borrow().all() {
            let uid = state.pod.uid().unwrap_or_default();
            for name in state::container_names(&state.pod) {
                let count = state::status(&state.pod, &name).map_or(0, |status| status.restart_count);
                restarts.insert((uid.clone(), name), count);
            }
        }
        let mut deeds = self.deeds();
        let deleted = std::mem::take(&mut deeds.deleted);
        *deeds = Deeds {
            deleted,
            restarts,
            ..Deeds::default()
        };
    }

    /// The check itself ends this container.
    pub(super) fn ends(&self, pod: &str, container: &str) {
        self.deeds().ended.insert((pod.to_owned(), container.to_owned()));
    }

    /// The check itself deletes this Pod; whether that is the first time.
    pub(super) fn deletes(&self, pod: &str) -> bool {
        self.deeds().deleted.insert(pod.to_owned())
    }

    pub(super) fn asked_to_delete(&self, pod: &str) -> bool {
        self.deeds().deleted.contains(pod)
    }

    /// The check looks at what this container has printed.
    pub(super) fn looks_at(&self, pod: &str, container: &str) {
        self.deeds().looked_at.insert((pod.to_owned(), container.to_owned()));
    }

    /// The check looks at what the containers that have the agent have recorded.
    pub(super) fn looks_at_events(&self) {
        for (pod, _, container, _) in self.logs() {
            if self.nonces.contains_key(&container) {
                self.looks_at(&pod, &container);
            }
        }
    }

    pub(super) fn was_looked_at(&self, pod: &str, container: &str) -> bool {
        self.deeds().looked_at.contains(&(pod.to_owned(), container.to_owned()))
    }

    /// A container that was restarted since the check began although the check did not end it: its Pod, its name, and its state.
    pub(crate) fn restarted_by_itself(&self) -> Option<(String, String, String)> {
        let pods = self.pods.borrow();
        let deeds = self.deeds();
        deeds.restarts.iter().find_map(|((uid, container), before)| {
            let state = pods.uid(uid)?;
            let (pod, status) = (state.pod.name_any(), state::status(&state.pod, container)?);
            let own_doing = deeds.ended.contains(&(pod.clone(), container.clone()));
            let restarted = status.restart_count > *before && !own_doing;
            restarted.then(|| {
                let text = state::status_text(&state.pod, container);
                (pod, container.clone(), text)
            })
        })
    }

    /// What a container said last.
    pub(crate) fn last_words(&self, pod: &str, container: &str) -> String {
        self.log(pod, container)
            .map_or_else(|error| error.to_string(), |log| log.last_words())
    }

    /// Waits for the first Pod that a workload makes; returns its name.
    ///
    /// # Errors
    /// It makes none within [`patience::REACTION`].
    pub(crate) async fn first_pod_of(self: &Arc<Self>, kind: &str, name: &str) -> anyhow::Result<String> {
        let _waiting = self.waits_for(format!("a Pod of {kind} {name}"), name);
        let made = wait::watch_until(self, patience::REACTION, |pods| {
            let all = pods.all();
            let mut made = all
                .iter()
                .filter(|state| !state.deleted && !state.pod.owner_references().is_empty());
            made.next().map(|state| state.pod.name_any())
        });
        made.await?
            .with_context(|| format!("{kind} {name} has made no Pod within {:?}", patience::REACTION))
    }

    pub(super) fn asserted(&self, label: &str, container: Option<&str>, held: bool) {
        self.deeds().assertions.push(Assertion {
            label: label.to_owned(),
            container: container.map(str::to_owned),
            held,
        });
    }

    /// What the present check has asserted so far.
    pub(crate) fn assertions(&self) -> Vec<Assertion> {
        self.deeds().assertions.clone()
    }

    pub(super) fn measured(&self, measurement: Measurement) {
        self.deeds().measurements.push(measurement);
    }

    pub(super) fn noted(&self, note: String) {
        self.deeds().notes.push(note);
    }

    /// What the present check has noted so far.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.deeds().notes.clone()
    }

    /// What the present check has measured so far.
    pub(crate) fn measurements(&self) -> Vec<Measurement> {
        self.deeds().measurements.clone()
    }
}

/// Follows the log of every container that appears, so that nothing is lost whatever happens to it.
async fn follow_all(scene: Weak<Scene>, mut pods: watch::Receiver<Pods>) {
    while pods.changed().await.is_ok() {
        let Some(scene) = scene.upgrade() else { break };
        let seen = pods.borrow_and_update().clone();
        for state in seen.all() {
            for container in state::container_names(&state.pod) {
                scene.follow(&state.pod, &container);
            }
        }
    }
}
