//! One container of an image on the local engine, without a cluster and without a network.
//!
//! testcontainers finds the engine. Its way to start a container is not used: it asks for a description right after the start, which some
//! engines cannot give of a container that ended at once, and it leaves behind what could not be started.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt;
use serde_json::Value;
use tempfile::TempDir;
use testcontainers::bollard::Docker;
use testcontainers::bollard::container::LogOutput;
use testcontainers::bollard::errors::Error;
use testcontainers::bollard::models::{ContainerState, ContainerStateStatusEnum, HealthConfig};
use testcontainers::bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, KillContainerOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions,
};
use testcontainers::core::client::docker_client_instance;
use tokio::time::{Instant, sleep, timeout};

use super::NoEngine;
use super::container::request;
use super::process::{FirstProcess, Main, Process, Usage, signal_number};
use super::source;
use crate::cluster::engine::Engine;
use crate::display::explained;
use crate::patience;

/// The most that is read of one of a container's streams, in bytes.
const READ: usize = 1 << 20;

/// The code of a program that SIGKILL ended.
const KILLED: i64 = 128 + 9;

/// A container; it is removed when this is dropped.
#[derive(Debug)]
pub struct Alone {
    docker: Docker,
    id: String,
    started: Instant,
    /// Whether its memory is.
    limited: bool,
    /// Whether it was sent SIGKILL from here.
    killed: AtomicBool,
    /// What its volumes hold.
    _volumes: TempDir,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The code of its first process; 128 and the signal's number if a signal ended it.
    pub code: i64,
    /// Whether it was killed because it needed more memory than it may: the engine says so, or there is a limit and nobody here killed it.
    pub oom: bool,
}

/// What came of asking a container to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// How it ended.
    pub exit: Exit,
    /// How long after the signal.
    pub after: Duration,
    /// Whether it was killed after the grace period.
    pub killed: bool,
}

/// What a container printed, from the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Its standard output; what is no UTF-8 is replaced.
    pub stdout: String,
    /// Its standard error, likewise.
    pub stderr: String,
    /// Whether there was more than is read: 1 MiB of each.
    pub cut: bool,
}

impl Alone {
    /// Starts a container of a Pod's specification with the contents of its volumes, and returns as soon as the engine has started it.
    /// That it ends at once is no error.
    ///
    /// # Errors
    /// [`NoEngine`]; the engine lacks the image or cannot start the container; or the container needs what only a cluster has.
    pub async fn start(pod_spec: &Value, container: &str, config_maps: &[Value]) -> anyhow::Result<Self> {
        let volumes = tempfile::Builder::new()
            .prefix("sidecheck-volumes-")
            .tempdir()
            .context("no folder can be made for the container's volumes")?;
        let docker = docker_client_instance()
            .await
            .map_err(|error| NoEngine(error.to_string()))?;
        let engine = asked("ask the engine what it is", docker.version()).await?;
        let parts = engine.components.unwrap_or_default();
        let podman = parts.iter().any(|part| part.name.starts_with("Podman"));
        let mut body = request(pod_spec, container, config_maps, volumes.path(), podman)?;
        let image = body.image.clone().unwrap_or_default();
        // podman tells of an image's health check in its own words only.
        let described = source::inspect(&Engine::chosen()?, &image).await?;
        let described = described.with_context(|| format!("the container engine has no image {image}"))?;
        if described.defaults.has_healthcheck {
            // Kubernetes does not carry out an image's own health check.
            body.healthcheck = Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthConfig::default()
            });
        }
        let limited = body.host_config.as_ref().is_some_and(|host| host.memory.is_some());
        let created = asked(
            &format!("create a container of {image}"),
            docker.create_container(None::<CreateContainerOptions>, body),
        )
        .await?;
        // From here on it is removed whatever happens.
        let mut alone = Self {
            docker,
            id: created.id,
            started: Instant::now(),
            limited,
            killed: AtomicBool::new(false),
            _volumes: volumes,
        };
        let start = alone.docker.start_container(&alone.id, None::<StartContainerOptions>);
        asked(&format!("start a container of {image}"), start).await?;
        alone.started = Instant::now();
        Ok(alone)
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// The engine does not say.
    pub async fn running(&self) -> anyhow::Result<bool> {
        Ok(self.exit().await?.is_none())
    }

    /// How it ended; none if it runs.
    ///
    /// # Errors
    /// The engine does not say.
    pub async fn exit(&self) -> anyhow::Result<Option<Exit>> {
        let state = self.state().await?;
        if state.running == Some(true) {
            return Ok(None);
        }
        let code = state.exit_code.unwrap_or_default();
        // Not every engine notices.
        let without_reason = self.limited && code == KILLED && !self.killed.load(Ordering::Relaxed);
        Ok(Some(Exit {
            code,
            oom: state.oom_killed == Some(true) || without_reason,
        }))
    }

    /// Waits for its end: how it ended, and how long after its start this was seen. None if it still runs after `limit`.
    ///
    /// # Errors
    /// The engine does not say.
    pub async fn ended_within(&self, limit: Duration) -> anyhow::Result<Option<(Exit, Duration)>> {
        let asked = Instant::now();
        loop {
            if let Some(exit) = self.exit().await? {
                return Ok(Some((exit, self.started.elapsed())));
            }
            if asked.elapsed() >= limit {
                return Ok(None);
            }
            sleep(patience::LOOK_AGAIN.min(limit.saturating_sub(asked.elapsed()))).await;
        }
    }

    /// Asks it to end by a signal to its first process, and kills it if it still runs after the grace period.
    ///
    /// # Errors
    /// There is no such signal, the engine fails, or it cannot be killed.
    pub async fn stop(&self, signal: &str, grace: Duration) -> anyhow::Result<Stopped> {
        let asked = Instant::now();
        self.signal(signal).await?;
        if let Some((exit, _)) = self.ended_within(grace).await? {
            return Ok(Stopped {
                exit,
                after: asked.elapsed(),
                killed: false,
            });
        }
        self.signal("SIGKILL").await?;
        let ended = self.ended_within(patience::ENGINE).await?;
        let (exit, _) = ended.with_context(|| format!("it still runs {:?} after SIGKILL", patience::ENGINE))?;
        Ok(Stopped {
            exit,
            after: asked.elapsed(),
            killed: true,
        })
    }

    /// Sends a signal to its first process; nothing happens if it has ended.
    ///
    /// # Errors
    /// There is no such signal, or the engine cannot send it.
    pub async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let number = signal_number(signal)?;
        self.killed
            .fetch_or(i64::from(number) == KILLED - 128, Ordering::Relaxed);
        let options = KillContainerOptionsBuilder::new().signal(&number.to_string()).build();
        let what = format!("send {signal} to the container");
        let sent = asked(&what, self.docker.kill_container(&self.id, Some(options))).await;
        match sent {
            Err(error) if error.is::<NoEngine>() || self.running().await? => Err(error),
            _ => Ok(()),
        }
    }

    /// What it has printed so far.
    ///
    /// # Errors
    /// The engine does not say.
    pub async fn output(&self) -> anyhow::Result<Output> {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail("all").build();
        let mut stream = self.docker.logs(&self.id, Some(options));
        let (mut stdout, mut stderr, mut cut) = (Vec::new(), Vec::new(), false);
        while let Some(part) = timeout(patience::ENGINE, stream.next())
            .await
            .context("the engine does not go on with the container's output")?
        {
            let (bytes, all) = match part.map_err(|error| told("read the container's output", error))? {
                LogOutput::StdErr { message } => (message, &mut stderr),
                LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message } => {
                    (message, &mut stdout)
                }
            };
            let room = READ - all.len();
            cut |= bytes.len() > room;
            all.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if stdout.len() == READ && stderr.len() == READ {
                break;
            }
        }
        Ok(Output {
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            cut,
        })
    }

    /// The TCP ports that it listens at, on whatever address; none if it has ended.
    ///
    /// # Errors
    /// The engine does not say, or `/proc` cannot be read.
    pub async fn listening(&self) -> anyhow::Result<BTreeSet<u16>> {
        let main = self.main().await?;
        main.map_or_else(|| Ok(BTreeSet::new()), |main| main.listening())
    }

    /// Its processes, zombies too; none if it has ended.
    ///
    /// # Errors
    /// Like [`Self::listening`].
    pub async fn processes(&self) -> anyhow::Result<Vec<Process>> {
        let main = self.main().await?;
        main.map_or_else(|| Ok(Vec::new()), |main| main.all())
    }

    /// What its processes use; none if it has ended.
    ///
    /// # Errors
    /// Like [`Self::listening`].
    pub async fn usage(&self) -> anyhow::Result<Option<Usage>> {
        self.main().await?.map(|main| main.usage()).transpose()
    }

    /// Its first process; none if it has ended.
    ///
    /// # Errors
    /// Like [`Self::listening`].
    pub async fn first_process(&self) -> anyhow::Result<Option<FirstProcess>> {
        let main = self.main().await?;
        main.map_or(Ok(None), |main| main.first())
    }

    /// Whether there is such a file in it; false if it has ended.
    ///
    /// # Errors
    /// Like [`Self::listening`].
    pub async fn has_file(&self, path: &str) -> anyhow::Result<bool> {
        let main = self.main().await?;
        main.map_or(Ok(false), |main| main.has_file(path))
    }

    async fn main(&self) -> anyhow::Result<Option<Main>> {
        match self.state().await?.pid {
            None | Some(0) => Ok(None),
            Some(pid) => Main::find(pid),
        }
    }

    /// Its state: running or ended. Between the two an engine may describe it in a way that its client rejects.
    async fn state(&self) -> anyhow::Result<ContainerState> {
        let begun = Instant::now();
        loop {
            let request = self.docker.inspect_container(&self.id, None::<InspectContainerOptions>);
            let answer = timeout(patience::ENGINE, request).await;
            let state = match answer.context("the engine does not describe the container")? {
                Ok(container) => container
                    .state
                    .context("the engine says nothing about the container's state")?,
                Err(Error::JsonDataError { .. } | Error::JsonSerdeError { .. }) => ContainerState::default(),
                Err(error) => return Err(told("look at the container", error)),
            };
            let ended = [
                Some(ContainerStateStatusEnum::EXITED),
                Some(ContainerStateStatusEnum::DEAD),
            ];
            if state.running == Some(true) || ended.contains(&state.status) {
                return Ok(state);
            }
            if begun.elapsed() > patience::ENGINE {
                bail!(
                    "expected a container that runs or has ended, observed {:?}",
                    state.status
                );
            }
            sleep(patience::LOOK_AGAIN).await;
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let (docker, id) = (self.docker.clone(), self.id.clone());
        // The runtime that this is dropped in may have no other thread.
        let removal = thread::spawn(move || -> anyhow::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            runtime.block_on(asked("remove it", docker.remove_container(&id, Some(options))))
        });
        if let Ok(Err(error)) = removal.join() {
            tracing::warn!(
                "the container {} is left: {error:#}; `sidecheck clean` removes it",
                self.id
            );
        }
    }
}

/// A request to the engine, bounded in time; `what` completes the sentence “cannot …”.
async fn asked<T>(what: &str, request: impl Future<Output = Result<T, Error>>) -> anyhow::Result<T> {
    timeout(patience::ENGINE, request)
        .await
        .with_context(|| format!("cannot {what}: the engine has not answered for {:?}", patience::ENGINE))?
        .map_err(|error| told(what, error))
}

/// What the engine answered, or that there is no engine.
fn told(what: &str, error: Error) -> anyhow::Error {
    match error {
        Error::DockerResponseServerError { message, .. } => anyhow::anyhow!("cannot {what}: {message}"),
        Error::SocketNotFoundError(_) | Error::IOError { .. } | Error::HyperLegacyError { .. } => {
            NoEngine(explained(&error.into())).into()
        }
        other => anyhow::Error::new(other).context(format!("cannot {what}")),
    }
}
