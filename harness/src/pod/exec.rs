//! Commands in containers.

use anyhow::Context;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::time::timeout;

use super::Container;
use crate::cluster::request::passed_on;
use crate::patience;

/// The most that is kept of a command's output, in bytes.
const OUTPUT: u64 = 1 << 20;

/// What a command in a container printed, and how it ended.
#[derive(Clone, Debug)]
pub struct ExecOutput {
    /// Standard output, at most a mebibyte of it.
    pub stdout: String,
    /// Standard error, as much of it.
    pub stderr: String,
    /// The exit code.
    pub code: i32,
}

/// A command that runs in a container for as long as the value lives, or longer: nobody ends it but itself.
pub(super) struct Running {
    _process: AttachedProcess,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Running")
    }
}

impl Container {
    /// Runs a command in the container.
    ///
    /// # Errors
    /// The command cannot be started, or the connection breaks. A command that fails is no error: see [`ExecOutput::code`].
    pub async fn exec(&self, command: &[&str]) -> anyhow::Result<ExecOutput> {
        let run = async {
            let mut process = self.start(command).await?;
            let stdout = process.stdout().context("no standard output")?;
            let stderr = process.stderr().context("no standard error")?;
            let status = process.take_status().context("no status")?;
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let (mut stdout, mut stderr) = (stdout.take(OUTPUT), stderr.take(OUTPUT));
            let (read_out, read_err, status) =
                tokio::join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err), status);
            read_out?;
            read_err?;
            anyhow::Ok(ExecOutput {
                stdout: String::from_utf8_lossy(&out).into_owned(),
                stderr: String::from_utf8_lossy(&err).into_owned(),
                code: exit_code(&status.context("the connection broke")?)?,
            })
        };
        self.bounded(command, run).await
    }

    /// Starts a command and waits for a line of its output that satisfies `ready`.
    pub(super) async fn exec_until(&self, command: &[&str], ready: impl Fn(&str) -> bool) -> anyhow::Result<Running> {
        let run = async {
            let mut process = self.start(command).await?;
            let mut lines = BufReader::new(process.stdout().context("no standard output")?).lines();
            let mut last = String::new();
            while let Some(line) = lines.next_line().await? {
                if ready(&line) {
                    return Ok(Running { _process: process });
                }
                last = line;
            }
            anyhow::bail!("it ended; its last line: {last}")
        };
        self.bounded(command, run).await
    }

    async fn start(&self, command: &[&str]) -> anyhow::Result<AttachedProcess> {
        let parameters = AttachParams::default().container(self.name());
        let api = self.scene().api();
        let started = passed_on(|| api.exec(self.pod(), command.iter().copied(), &parameters));
        Ok(started.await?)
    }

    async fn bounded<T>(&self, command: &[&str], run: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let _waiting = self.waits_for(&format!("the command {command:?}"));
        let what = || format!("cannot run {command:?} in container {}", self.name());
        timeout(patience::ROUND_TRIP, run)
            .await
            .with_context(what)?
            .with_context(what)
    }
}

fn exit_code(status: &Status) -> anyhow::Result<i32> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status
        .details
        .iter()
        .flat_map(|details| details.causes.iter().flatten());
    causes
        .filter(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .find_map(|cause| cause.message.as_deref()?.parse().ok())
        .with_context(|| status.message.clone().unwrap_or_default())
}
