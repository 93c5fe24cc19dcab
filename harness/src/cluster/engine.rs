//! The container engine that set-up chose, and the programs that speak to it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::{environment, patience};

/// docker or podman, with the settings that `scripts/setup` wrote down.
#[derive(Clone, Debug)]
pub struct Engine {
    program: String,
    settings: BTreeMap<String, String>,
}

impl Engine {
    /// The engine that set-up chose.
    ///
    /// # Errors
    /// Set-up has not run with this cache folder.
    pub fn chosen() -> anyhow::Result<Self> {
        let file = environment::cache().join("engine/env");
        let text = fs::read_to_string(&file).context("no container engine is set up yet: run scripts/setup")?;
        let settings: BTreeMap<String, String> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
            .collect();
        let program = settings
            .get("SIDECHECK_ENGINE")
            .with_context(|| format!("{} names no engine: run scripts/setup", file.display()))?
            .clone();
        Ok(Self { program, settings })
    }

    /// `docker` or `podman`.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// A call of the engine itself.
    pub fn command(&self) -> Command {
        self.tool(&self.program)
    }

    /// A call of a program that speaks to the engine, found in the cache's `bin` first.
    pub fn tool(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        let bin = environment::cache().join("bin");
        let path = environment::value("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{}:{path}", bin.display()))
            .envs(&self.settings);
        command
    }

    /// Asks the engine whether it works.
    ///
    /// # Errors
    /// Its message, and what to do.
    pub async fn probe(&self) -> anyhow::Result<()> {
        run(self.command().arg("info"), patience::ENGINE)
            .await
            .with_context(|| format!("the container engine {} does not work: run scripts/setup", self.program))?;
        Ok(())
    }

    /// Runs a privileged container, as a node of a cluster is one.
    ///
    /// # Errors
    /// It cannot: its message, and what to do.
    pub async fn runs_privileged(&self) -> anyhow::Result<()> {
        let agent = "localhost/sidecheck/agent:v1";
        if !self.has_image(agent).await? {
            return Ok(());
        }
        let mut container = self.command();
        container.args([
            "run",
            "--rm",
            "--privileged",
            "--network=none",
            "--label=sidecheck.dev/test",
            agent,
            "exit 0",
        ]);
        run(&mut container, patience::ENGINE).await.with_context(|| {
            format!(
                "{} cannot run privileged containers, which every kind cluster needs: remove {} and run scripts/setup",
                self.program,
                environment::cache().join("engine/env").display()
            )
        })?;
        Ok(())
    }

    /// Whether the engine has this image.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn has_image(&self, image: &str) -> anyhow::Result<bool> {
        let mut inspect = self.command();
        inspect.args(["image", "inspect", image]).stderr(Stdio::null());
        Ok(end_of(&mut inspect, patience::ENGINE).await?.status.success())
    }
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// It cannot be called, takes longer than `limit`, or fails: then the error has the last lines that it printed.
pub async fn run(command: &mut Command, limit: Duration) -> anyhow::Result<Output> {
    finish(command.stderr(Stdio::piped()), limit).await
}

/// Like [`run`], for a slow command: its progress on standard error is shown to the user directly.
///
/// # Errors
/// Like [`run`].
pub async fn run_aloud(command: &mut Command, limit: Duration) -> anyhow::Result<Output> {
    finish(command.stderr(Stdio::inherit()), limit).await
}

async fn finish(command: &mut Command, limit: Duration) -> anyhow::Result<Output> {
    let output = end_of(command, limit).await?;
    if !output.status.success() {
        const SHOWN: usize = 12;
        let name = name(command);
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
        bail!("{name} failed ({}):\n{last}", output.status);
    }
    Ok(output)
}

/// Runs a command until it ends, successfully or not; it is killed after `limit`.
async fn end_of(command: &mut Command, limit: Duration) -> anyhow::Result<Output> {
    let name = name(command);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{name} cannot be called"))?;
    tokio::time::timeout(limit, child.wait_with_output())
        .await
        .with_context(|| format!("{name} did not end within {limit:?}"))?
        .with_context(|| format!("{name} cannot be waited for"))
}

fn name(command: &Command) -> String {
    command.as_std().get_program().to_string_lossy().into_owned()
}
