//! The agent in a container as a remote control.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use futures::future::try_join_all;
use serde_json::Value;
use sidecheck_agent::statement::{self, Statement};
use tokio::time::{Instant, sleep};

use super::exec::Running;
use super::http::{Connections, Http, Unanswered};
use super::{Container, Run, state, wait};
use crate::image::signal_number;
use crate::patience;
use crate::timeline::Event;

/// The name of the container port at which an agent takes statements. It listens on the Pod's loopback interface only.
const CONTROL: &str = "agent";

/// The first port for agents that are started beside a container's program.
const FIRST_PORT: u16 = 19000;

/// What a container sees of itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Identity {
    /// Its host name.
    pub hostname: String,
    /// The addresses of every network interface.
    pub interfaces: std::collections::BTreeMap<String, Vec<String>>,
    /// The kernel's number of each namespace: `net`, `pid`, `ipc`, `mnt`, `uts`, `user`; none if the container may not see it.
    pub namespaces: std::collections::BTreeMap<String, Option<u64>>,
    /// The processes that it sees.
    pub processes: Vec<Process>,
    /// The container's first process.
    pub first_process: FirstProcess,
}

/// A process that a container sees.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// The name that the kernel knows it by.
    pub name: String,
    /// The kernel's letter for what it does: `Z` if it has ended and its parent has not waited for it.
    pub state: char,
}

/// A container's first process. No two have the same one: a number may be given again, the time of its start may not.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct FirstProcess {
    /// Its number, as the agent sees it.
    pub pid: i32,
    /// When it started, in clock ticks since the node's boot.
    pub start: u64,
}

impl Identity {
    /// Every address but loopback ones.
    pub fn addresses(&self) -> Vec<&str> {
        self.interfaces
            .iter()
            .filter(|(name, _)| *name != "lo")
            .flat_map(|(_, addresses)| addresses.iter().map(String::as_str))
            .filter(|address| !address.starts_with("fe80:"))
            .collect()
    }

    /// Whether the loopback interface has an IPv6 address.
    pub fn has_ipv6_loopback(&self) -> bool {
        self.interfaces
            .get("lo")
            .is_some_and(|addresses| addresses.iter().any(|address| address == "::1"))
    }
}

/// Where the agent is mounted into containers of images that do not have it.
const INSTALLED: &str = "/sidecheck";

/// The control port of an agent.
#[derive(Debug)]
pub(super) struct Control {
    http: Http,
    /// The agent, if it was started for this.
    agent: Option<Running>,
}

impl Control {
    /// Sends a statement; returns the answer, or nothing if the agent runs and nobody can get to its port.
    async fn post(&self, statement: &Statement) -> anyhow::Result<Option<String>> {
        let begun = Instant::now();
        loop {
            match self.http.post("/run", statement.to_string()).await {
                Ok(answer) if answer.status == 200 => return Ok(Some(answer.body)),
                Ok(answer) => bail!("{answer}"),
                Err(Unanswered::Refused) if self.agent.is_some() => return Ok(None),
                // It has not begun yet.
                Err(Unanswered::Refused) if begun.elapsed() < patience::REACTION => sleep(patience::LOOK_AGAIN).await,
                // Nobody has got the statement: the API server or the kubelet may be back in a moment.
                Err(Unanswered::Undelivered(_)) if begun.elapsed() < patience::API => sleep(patience::RECONNECT).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Container {
    /// Has the agent in this container carry out a statement; returns the events that it caused, a failure among them.
    ///
    /// Through the agent's port if the container has one named `agent`; else through an agent that is started beside the container's program,
    /// once for each run of the container.
    ///
    /// # Errors
    /// The agent cannot be reached or does not understand.
    pub async fn tell(&self, statement: &Statement) -> anyhow::Result<Vec<Event>> {
        let _waiting = self.waits_for(&format!("the agent to carry out “{statement}”"));
        let what = || format!("the agent in {} did not carry out “{statement}”", self.name());
        let control = self.control().await.with_context(what)?;
        let answered: Vec<String> = match control.post(statement).await.with_context(what)? {
            Some(body) => {
                let events: Vec<Value> = serde_json::from_str(&body).with_context(what)?;
                events.iter().map(Value::to_string).collect()
            }
            // A container that left the Pod's network can only be reached by commands.
            None => {
                let text = statement.to_string();
                let output = self.exec(&[self.agent(), "--once", &text]).await.with_context(what)?;
                ensure!(
                    !output.stdout.is_empty(),
                    "{}: exit code {}: {}",
                    what(),
                    output.code,
                    output.stderr
                );
                output.stdout.lines().map(str::to_owned).collect()
            }
        };
        answered
            .iter()
            .map(|line| {
                let mut event: Event = serde_json::from_str(line).with_context(what)?;
                event.container = self.name().to_owned();
                Ok(event)
            })
            .collect()
    }

    /// The control port of an agent in the present run of this container.
    async fn control(&self) -> anyhow::Result<Arc<Control>> {
        let run = self.run()?.container_id;
        if let Some(control) = self.scene().control(&run) {
            return Ok(control);
        }
        let (port, agent) = match self.declared_port() {
            Some(port) => (port, None),
            None => {
                // Above the ports that checks use, and another one for each container of the Pod.
                let names = self
                    .scene()
                    .pods()
                    .get(self.pod())
                    .map(|state| state::container_names(&state.pod));
                let place = names
                    .unwrap_or_default()
                    .iter()
                    .position(|name| name == self.name())
                    .unwrap_or_default();
                let port = FIRST_PORT + u16::try_from(place)?;
                let ready = |line: &str| line.contains("\"event\":\"controlled\"");
                let statement = format!("control {port}");
                (port, Some(self.exec_until(&[self.agent(), &statement], ready).await?))
            }
        };
        let http = Http::forward(self.scene().api(), self.pod(), port, Connections::Kept).await?;
        let control = Arc::new(Control { http, agent });
        self.scene().keep_control(run, Arc::clone(&control));
        Ok(control)
    }

    /// The agent's program: our images have it; in another one it lies in a volume, if it was put there.
    fn agent(&self) -> &'static str {
        let pods = self.scene().pods();
        let spec = pods
            .get(self.pod())
            .and_then(|state| state::spec(&state.pod, self.name()));
        let mounts = spec.and_then(|spec| spec.volume_mounts.as_ref());
        if mounts.into_iter().flatten().any(|mount| mount.mount_path == INSTALLED) {
            "/sidecheck/agent"
        } else {
            "agent"
        }
    }

    fn declared_port(&self) -> Option<u16> {
        let pods = self.scene().pods();
        let spec = state::spec(&pods.get(self.pod())?.pod, self.name())?;
        let mut ports = spec.ports.iter().flatten();
        let port = ports.find(|port| port.name.as_deref() == Some(CONTROL))?;
        u16::try_from(port.container_port).ok()
    }

    /// Like [`Self::tell`], for a statement that causes one event; the event says whether it failed.
    ///
    /// # Errors
    /// Like [`Self::tell`], and if there was no event.
    pub async fn ask(&self, statement: impl Into<Statement>) -> anyhow::Result<Event> {
        let statement = statement.into();
        let mut events = self.tell(&statement).await?;
        events
            .pop()
            .with_context(|| format!("“{statement}” caused no event in {}", self.name()))
    }

    /// Like [`Self::ask`], for what a check arranges: that it fails is an error.
    ///
    /// # Errors
    /// The statement could not be carried out.
    pub async fn arrange(&self, statement: impl Into<Statement>) -> anyhow::Result<Event> {
        let statement = statement.into();
        let event = self.ask(statement.clone()).await?;
        ensure!(!event.failed(), "“{statement}” failed in {}: {event}", self.name());
        Ok(event)
    }

    /// Like [`Self::ask`], that many times at once.
    ///
    /// # Errors
    /// Like [`Self::ask`], of the first that fails.
    pub async fn ask_at_once(&self, times: usize, statement: impl Into<Statement>) -> anyhow::Result<Vec<Event>> {
        let statement = statement.into();
        try_join_all((0..times).map(|_| self.ask(statement.clone()))).await
    }

    /// What the container sees of itself: host name, addresses, namespaces, first process.
    ///
    /// # Errors
    /// Like [`Self::tell`].
    pub async fn identity(&self) -> anyhow::Result<Identity> {
        let event = self.arrange(statement::identity()).await?;
        serde_json::from_value(Value::Object(event.fields))
            .with_context(|| format!("the identity of {} is not understood", self.name()))
    }

    /// Has an agent serve `body` over HTTP at `address` in this container, beside its own program.
    ///
    /// # Errors
    /// The address cannot be served.
    pub async fn serve(&self, address: &str, body: &str) -> anyhow::Result<()> {
        self.arrange(statement::serve(address).body(body)).await.map(drop)
    }

    /// Sends a signal to the processes of that program's name, or to the process of that number, in order to end this container.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub async fn end_program(&self, program: &str, signal: &str) -> anyhow::Result<()> {
        self.end_by(statement::signal(program, signal)).await
    }

    /// Sends a signal to the container's first process, in order to end this container.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub async fn end_first_process(&self, signal: &str) -> anyhow::Result<()> {
        self.end_program(&self.first_process().await?, signal).await
    }

    /// The number of the container's first process, as the agent sees it.
    async fn first_process(&self) -> anyhow::Result<String> {
        let pod = self.scene().pods().get(self.pod()).map(|state| state.pod.clone());
        let shares = pod.and_then(|pod| pod.spec?.share_process_namespace);
        Ok(match shares {
            // The first one of all is the Pod's.
            Some(true) => self.identity().await?.first_process.pid.to_string(),
            _ => "1".to_owned(),
        })
    }

    /// Sends SIGTERM to the container's first process.
    ///
    /// The kernel discards what a first process neither handles nor blocks, and a container runs before its program does either: so this
    /// waits until it does.
    ///
    /// # Errors
    /// It does neither within [`patience::REACTION`]; the signal cannot be sent.
    pub async fn terminate(&self) -> anyhow::Result<()> {
        let what = format!("a first process of {} that handles SIGTERM", self.name());
        self.given()
            .eventually(&what, async || {
                let obeys = self.first_process_obeys("SIGTERM").await?;
                Ok(obeys.then_some(()).ok_or("it has no handler".to_owned()))
            })
            .await?;
        self.end_first_process("TERM").await
    }

    /// Whether the container's first process handles or blocks a signal; the kernel discards it otherwise.
    ///
    /// # Errors
    /// There is no such signal; the agent cannot be reached.
    pub async fn first_process_obeys(&self, signal: &str) -> anyhow::Result<bool> {
        let number = signal_number(signal)?;
        let file = format!("/proc/{}/status", self.first_process().await?);
        let status = self.arrange(statement::read(file)).await?;
        Ok(obeys(status.text("content"), number))
    }

    /// Carries out a statement that ends this container, perhaps before the agent has answered.
    ///
    /// # Errors
    /// The statement cannot be carried out; there is no answer, and the container goes on.
    pub async fn end_by(&self, statement: impl Into<Statement>) -> anyhow::Result<()> {
        let (statement, before) = (statement.into(), self.run()?);
        self.will_end();
        match self.ask(statement.clone()).await {
            Ok(event) if event.failed() => bail!("“{statement}” failed in {}: {event}", self.name()),
            Ok(_) => Ok(()),
            Err(silent) => self.run_ended(&before).await.map_err(|_| silent),
        }
    }

    /// Waits until this run of the container has ended.
    ///
    /// # Errors
    /// It goes on for [`patience::REACTION`].
    pub async fn run_ended(&self, run: &Run) -> anyhow::Result<()> {
        let goes_on = |state: &state::PodState| {
            let status = state::status(&state.pod, self.name());
            status.is_some_and(|status| {
                status.container_id.as_deref() == Some(&run.container_id)
                    && status.state.as_ref().is_some_and(|state| state.running.is_some())
            })
        };
        let what = format!("the end of container {}", self.name());
        wait::until(self.scene(), self.pod(), &what, patience::REACTION, |state| {
            !goes_on(state)
        })
        .await?
        .map(drop)
        .map_err(|wait::TimedOut(text)| anyhow::anyhow!(text))
    }
}

/// Whether a process with this `/proc/PID/status` handles or blocks the signal of this number.
fn obeys(status: &str, signal: u32) -> bool {
    status
        .lines()
        .filter_map(|line| line.strip_prefix("SigCgt:").or_else(|| line.strip_prefix("SigBlk:")))
        .filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .any(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::obeys;

    #[test]
    fn a_signal_is_obeyed_if_it_is_handled_or_blocked() {
        let status = |blocked: &str, ignored: &str, caught: &str| {
            let status = format!("Name:\tsh\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\n");
            obeys(&status, 15)
        };
        assert!(status("0000000000000000", "0000000000000000", "0000000000004000"));
        assert!(status("0000000000014a07", "0000000000000000", "0000000000000000"));
        assert!(!status("0000000000000000", "0000000000004000", "0000000000010002"));
        assert!(!obeys("", 15));
    }
}
