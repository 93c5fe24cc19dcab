//! One container of a Pod.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::ContainerStatus;
use kube::api::AttachParams;
use tokio::io::AsyncReadExt;

use super::http::Http;
use super::log::{Line, Printed};
use super::{Namespace, state, wait};
use crate::patience;
use crate::scenario::{Finding, not_met};
use crate::timeline::Event;

/// A container of a running Pod.
#[derive(Clone, Debug)]
pub struct Container {
    namespace: Arc<Namespace>,
    pod: String,
    name: String,
}

/// One run of a container: what changes when it restarts and must not change when another one does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The runtime's id of the container.
    pub container_id: String,
    /// How many restarts came before.
    pub restarts: i32,
    /// When it started, as the kubelet says.
    pub started_at: Option<String>,
}

/// What a command in a container printed, and how it ended.
#[derive(Clone, Debug)]
pub struct ExecOutput {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The exit code.
    pub code: i32,
}

/// What a container sees of itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Identity {
    /// Its host name.
    pub hostname: String,
    /// The addresses of every network interface.
    pub interfaces: std::collections::BTreeMap<String, Vec<String>>,
    /// The kernel's number of each namespace: `net`, `pid`, `ipc`, `mnt`, `uts`, `user`.
    pub namespaces: std::collections::BTreeMap<String, u64>,
}

impl Identity {
    /// Every address but loopback ones.
    pub fn addresses(&self) -> Vec<&str> {
        self.interfaces
            .iter()
            .filter(|(name, _)| *name != "lo")
            .flat_map(|(_, addresses)| addresses.iter().map(String::as_str))
            .collect()
    }

    /// Whether the loopback interface has an IPv6 address.
    pub fn has_ipv6_loopback(&self) -> bool {
        self.interfaces
            .get("lo")
            .is_some_and(|addresses| addresses.iter().any(|address| address.starts_with("::1")))
    }
}

impl Container {
    pub(super) fn new(namespace: Arc<Namespace>, pod: &str, name: &str) -> Self {
        Self {
            namespace,
            pod: pod.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its latest known status; `None` before the kubelet wrote one.
    pub fn status(&self) -> Option<ContainerStatus> {
        let pods = self.namespace.pods();
        state::status(&pods.get(&self.pod)?.pod, &self.name).cloned()
    }

    /// What runs now.
    ///
    /// # Errors
    /// The container is not running.
    pub fn run(&self) -> anyhow::Result<Run> {
        let status = self
            .status()
            .with_context(|| format!("container {} has no status", self.name))?;
        let running = status.state.as_ref().and_then(|state| state.running.as_ref());
        let Some(running) = running else {
            bail!("container {} is not running: {}", self.name, self.describe());
        };
        Ok(Run {
            container_id: status.container_id.unwrap_or_default(),
            restarts: status.restart_count,
            started_at: running.started_at.as_ref().map(|time| time.0.to_string()),
        })
    }

    fn describe(&self) -> String {
        state::describe(self.namespace.pods().get(&self.pod))
    }

    /// Waits until the container runs again after `before` and is ready.
    ///
    /// # Errors
    /// `not met` where it does not within [`patience::RESTART`].
    pub async fn restarted_since(&self, before: &Run) -> Result<Run, Finding> {
        let name = self.name.clone();
        let restarted = wait::until(&self.namespace, &self.pod, "a restart", patience::RESTART, |state| {
            state::status(&state.pod, &name).is_some_and(|status| {
                status.restart_count > before.restarts
                    && status.ready
                    && status.state.as_ref().is_some_and(|state| state.running.is_some())
            })
        })
        .await;
        match restarted {
            Ok(_) => Ok(self.run()?),
            Err(wait::Waited::Trouble(error)) => Err(Finding::Error(error)),
            Err(wait::Waited::InVain(last)) => Err(not_met(
                self,
                format!("a restart of {} within {:?}", self.name, patience::RESTART),
                last,
            )),
        }
    }

    /// Why the suite may not have seen everything of it: the API server is silent, or its log could not be read.
    pub(crate) fn trouble(&self) -> Option<anyhow::Error> {
        wait::trouble(&self.namespace).or_else(|| {
            let trouble = self.printed().trouble?;
            Some(anyhow::anyhow!(
                "the log of {} could not be read to its end: {trouble}",
                self.name
            ))
        })
    }

    /// What it has printed so far.
    pub fn printed(&self) -> Printed {
        self.namespace.follower(&self.pod, &self.name).printed.borrow().clone()
    }

    /// Waits until what it printed satisfies `condition`; `what` completes the sentence “expected …”.
    ///
    /// # Errors
    /// `not met` where it does not within [`patience::REACTION`], with the last lines.
    pub async fn prints<T>(&self, what: &str, condition: impl Fn(&Printed) -> Option<T>) -> Result<T, Finding> {
        self.prints_within(patience::REACTION, what, condition).await
    }

    /// Like [`Self::prints`], with a bound of its own.
    ///
    /// # Errors
    /// `not met` where it does not within `limit`, with the last lines.
    pub async fn prints_within<T>(
        &self,
        limit: Duration,
        what: &str,
        condition: impl Fn(&Printed) -> Option<T>,
    ) -> Result<T, Finding> {
        let mut printed = self.namespace.follower(&self.pod, &self.name).printed.clone();
        let found = tokio::time::timeout(limit, async {
            let printed = printed
                .wait_for(|printed| printed.ended || condition(printed).is_some())
                .await
                .ok()?;
            condition(&printed)
        })
        .await;
        match found {
            Ok(Some(found)) => Ok(found),
            // The Pod is gone and nothing can follow, or time is up.
            ended => {
                let when = if ended.is_ok() {
                    "by the end of the Pod".to_owned()
                } else {
                    format!("within {limit:?}")
                };
                Err(not_met(
                    self,
                    format!("{what} {when}"),
                    format!("{}; the Pod: {}", last_lines(&self.printed()), self.describe()),
                ))
            }
        }
    }

    /// Waits for a line that satisfies `condition`.
    ///
    /// # Errors
    /// Like [`Self::prints`].
    pub async fn prints_line(&self, what: &str, condition: impl Fn(&str) -> bool) -> Result<Line, Finding> {
        self.prints(what, |printed| {
            printed.lines.iter().find(|line| condition(&line.text)).cloned()
        })
        .await
    }

    /// Waits until it has printed `marker`, and asserts that the agent's numbered lines `line 1` to `line COUNT` came before it.
    ///
    /// # Errors
    /// `not met` where one is missing, repeated or out of order.
    pub async fn prints_numbered_lines(&self, count: usize, marker: &str) -> Result<(), Finding> {
        let seen = self
            .prints(&format!("the line “{marker}”"), |printed| {
                let end = printed.texts().position(|line| line == marker)?;
                let lines = printed.texts().take(end).filter(|line| line.starts_with("line "));
                Some(lines.map(str::to_owned).collect::<Vec<_>>())
            })
            .await?;
        let expected: Vec<String> = (1..=count).map(|number| format!("line {number}")).collect();
        if seen == expected {
            return Ok(());
        }
        let place = seen
            .iter()
            .zip(&expected)
            .position(|(seen, expected)| seen != expected)
            .unwrap_or(count.min(seen.len()));
        Err(not_met(
            self,
            format!("`line 1` to `line {count}`, each once and in order, before “{marker}”"),
            format!(
                "{} lines; number {} is {:?} instead of {:?}",
                seen.len(),
                place + 1,
                seen.get(place),
                expected.get(place)
            ),
        ))
    }

    /// Waits for a recorded event of that name that satisfies `condition`.
    ///
    /// # Errors
    /// Like [`Self::prints`].
    pub async fn records(&self, event: &str, condition: impl Fn(&Event) -> bool) -> Result<Event, Finding> {
        self.prints(&format!("the event “{event}” of {}", self.name), |printed| {
            printed
                .events(&self.name)
                .into_iter()
                .find(|candidate| candidate.event == event && condition(candidate))
        })
        .await
    }

    /// Every event it recorded so far.
    pub fn events(&self) -> Vec<Event> {
        self.printed().events(&self.name)
    }

    /// Waits until its log was read to the end after the Pod's deletion.
    pub(super) async fn log_ended(&self) -> anyhow::Result<()> {
        let mut printed = self.namespace.follower(&self.pod, &self.name).printed.clone();
        tokio::time::timeout(patience::REACTION, printed.wait_for(|printed| printed.ended))
            .await
            .with_context(|| format!("the log of {} did not end after its Pod was gone", self.name))??;
        Ok(())
    }

    /// Runs a command in the container.
    ///
    /// # Errors
    /// The command cannot be started, or the connection breaks. A command that fails is no error: see [`ExecOutput::code`].
    pub async fn exec(&self, command: &[&str]) -> anyhow::Result<ExecOutput> {
        let what = || format!("cannot run {command:?} in container {}", self.name);
        let run = async {
            let parameters = AttachParams::default().container(&self.name);
            let mut process = self
                .namespace
                .api()
                .exec(&self.pod, command.iter().copied(), &parameters)
                .await?;
            let mut stdout = process.stdout().context("no standard output")?;
            let mut stderr = process.stderr().context("no standard error")?;
            let status = process.take_status().context("no status")?;
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let (read_out, read_err, status) =
                tokio::join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err), status);
            read_out?;
            read_err?;
            let status = status.context("the connection broke")?;
            let code = match status.status.as_deref() {
                Some("Success") => 0,
                _ => status
                    .details
                    .as_ref()
                    .and_then(|details| {
                        details
                            .causes
                            .iter()
                            .flatten()
                            .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
                    })
                    .and_then(|cause| cause.message.as_deref()?.parse().ok())
                    .with_context(|| status.message.clone().unwrap_or_default())?,
            };
            anyhow::Ok(ExecOutput {
                stdout: String::from_utf8_lossy(&out).into_owned(),
                stderr: String::from_utf8_lossy(&err).into_owned(),
                code,
            })
        };
        tokio::time::timeout(patience::ROUND_TRIP, run)
            .await
            .with_context(what)?
            .with_context(what)
    }

    /// Has the agent in this container execute a statement; returns the events that it caused.
    ///
    /// Through the agent's port where the container has one named `agent`; else a second agent executes it, started in the container.
    ///
    /// # Errors
    /// The agent cannot be reached or does not understand.
    pub async fn tell(&self, statement: &str) -> anyhow::Result<Vec<Event>> {
        let what = || format!("the agent in {} did not execute “{statement}”", self.name);
        let mut events: Vec<Event> = match self.agent_port() {
            Some(port) => {
                self.agent_listens(port).await;
                let http = Http::forward(self.namespace.api(), &self.pod, port).await?;
                let answer = http.post("/run", statement).await.with_context(what)?;
                if answer.status != 200 {
                    bail!("{}: {}", what(), answer.body);
                }
                serde_json::from_str(&answer.body).with_context(what)?
            }
            None => {
                let output = self.exec(&["agent", "--once", statement]).await.with_context(what)?;
                let events: Vec<Event> = output
                    .stdout
                    .lines()
                    .filter_map(|line| Event::parse(&self.name, line))
                    .collect();
                if events.is_empty() && output.code != 0 {
                    bail!("{}: exit code {}: {}", what(), output.code, output.stderr);
                }
                events
            }
        };
        for event in &mut events {
            event.container.clone_from(&self.name);
        }
        Ok(events)
    }

    fn agent_port(&self) -> Option<u16> {
        let pods = self.namespace.pods();
        let spec = pods.get(&self.pod)?.pod.spec.as_ref()?;
        let container = spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
            .find(|container| container.name == self.name)?;
        let port = container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some("agent"))?;
        u16::try_from(port.container_port).ok()
    }

    /// What the container sees of itself: host name, addresses, namespaces, users.
    ///
    /// # Errors
    /// Like [`Self::tell`].
    pub async fn identity(&self) -> anyhow::Result<Identity> {
        let event = self.ask("identity").await?;
        serde_json::from_value(serde_json::Value::Object(event.fields))
            .with_context(|| format!("the identity of {} is not understood", self.name))
    }

    /// Sends SIGTERM to the container's first process. Where Pods share their processes, that is not the container's own.
    ///
    /// The kernel discards what a first process neither handles nor blocks, and a container runs before its program does either:
    /// so this waits until it does.
    ///
    /// # Errors
    /// `not met` where it does neither within [`patience::REACTION`]; the signal cannot be sent.
    pub async fn terminate(&self) -> Result<(), Finding> {
        let expected = "a first process that handles SIGTERM";
        wait::eventually(self, expected, patience::REACTION, async || {
            let status = self.ask("read /proc/1/status").await?;
            ensure!(
                status.event == "read",
                "{} cannot read /proc/1/status: {status}",
                self.name
            );
            let obeys = obeys_sigterm(status.text("content"));
            Ok(obeys.then_some(()).ok_or("it has no handler".to_owned()))
        })
        .await?;
        Ok(self.signal_program("1", "TERM").await?)
    }

    /// Like [`Self::tell`], for a statement that causes one event.
    ///
    /// # Errors
    /// Like [`Self::tell`], and where there was no event.
    pub async fn ask(&self, statement: &str) -> anyhow::Result<Event> {
        let mut events = self.tell(statement).await?;
        events
            .pop()
            .with_context(|| format!("“{statement}” caused no event in {}", self.name))
    }

    /// Like [`Self::ask`], that many times at once.
    ///
    /// # Errors
    /// Like [`Self::ask`], of the first that fails.
    pub async fn ask_at_once(&self, times: usize, statement: &str) -> anyhow::Result<Vec<Event>> {
        futures::future::try_join_all((0..times).map(|_| self.ask(statement))).await
    }

    /// Sends a signal to the processes of that program's name, or to the process of that number.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub async fn signal_program(&self, program: &str, signal: &str) -> anyhow::Result<()> {
        self.tell_to_end(&format!("signal {program} {signal}")).await
    }

    /// Like [`Self::ask`], for a statement that may end the container before the agent has answered.
    ///
    /// # Errors
    /// The statement cannot be carried out; there is no answer, and the container goes on.
    pub async fn tell_to_end(&self, statement: &str) -> anyhow::Result<()> {
        let before = self.run()?;
        match self.ask(statement).await {
            Ok(event) if event.event == "failed" => {
                bail!("“{statement}” failed in {}: {}", self.name, event.text("message"))
            }
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
            let status = state::status(&state.pod, &self.name);
            status.is_some_and(|status| {
                status.container_id.as_deref() == Some(&run.container_id)
                    && status.state.as_ref().is_some_and(|state| state.running.is_some())
            })
        };
        wait::until(
            &self.namespace,
            &self.pod,
            "the end of a container",
            patience::REACTION,
            |state| !goes_on(state),
        )
        .await?;
        Ok(())
    }

    /// Waits until it has printed `count` lines more than now, and returns all that it has printed then.
    ///
    /// # Errors
    /// Like [`Self::prints`].
    pub async fn prints_more(&self, count: usize) -> Result<Printed, Finding> {
        let enough = self.printed().lines.len() + count;
        self.prints(&format!("{count} lines more"), |printed| {
            (printed.lines.len() >= enough).then(|| printed.clone())
        })
        .await
    }

    /// Waits until it has recorded the event of that name `times` times.
    ///
    /// # Errors
    /// Like [`Self::prints`].
    pub async fn records_times(&self, event: &str, times: usize) -> Result<(), Finding> {
        self.prints(&format!("{times} events “{event}” of {}", self.name), |printed| {
            let events = printed.events(&self.name);
            let seen = events.iter().filter(|candidate| candidate.event == event).count();
            (seen >= times).then_some(())
        })
        .await
    }

    /// Waits until the agent of the present run has told that it serves `port`: a container is ready before its program has begun.
    /// An agent that does not tell is asked all the same.
    async fn agent_listens(&self, port: u16) {
        let restarts = self.status().map_or(0, |status| status.restart_count);
        let serves = |line: &Line| {
            line.restarts >= restarts
                && Event::parse(&self.name, &line.text).is_some_and(|event| {
                    event.event == "serving" && event.text("address").ends_with(&format!(":{port}"))
                })
        };
        let told = |printed: &Printed| printed.lines.iter().any(serves).then_some(());
        let _ = self.prints("that the agent serves", told).await;
    }
}

/// Whether a process with this `/proc/PID/status` handles or blocks SIGTERM.
fn obeys_sigterm(status: &str) -> bool {
    const SIGTERM: u64 = 1 << 14;
    status
        .lines()
        .filter_map(|line| line.strip_prefix("SigCgt:").or_else(|| line.strip_prefix("SigBlk:")))
        .filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .any(|mask| mask & SIGTERM != 0)
}

/// The last lines that were printed, for a message.
pub(super) fn last_lines(printed: &Printed) -> String {
    const SHOWN: usize = 5;
    let lines: Vec<&str> = printed.texts().collect();
    if lines.is_empty() {
        return "it printed nothing".to_owned();
    }
    let last = &lines[lines.len().saturating_sub(SHOWN)..];
    format!("its last lines of {}: {}", lines.len(), last.join(" ⏎ "))
}

#[cfg(test)]
mod tests {
    use super::obeys_sigterm;

    #[test]
    fn sigterm_is_obeyed_where_it_is_handled_or_blocked() {
        let status = |blocked: &str, ignored: &str, caught: &str| {
            obeys_sigterm(&format!(
                "Name:\tsh\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\n"
            ))
        };
        assert!(status("0000000000000000", "0000000000000000", "0000000000004000"));
        assert!(status("0000000000014a07", "0000000000000000", "0000000000000000"));
        assert!(!status("0000000000000000", "0000000000004000", "0000000000010002"));
        assert!(!obeys_sigterm(""));
    }
}
