//! What the tests on a real cluster share.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod account;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sidecheck::cluster::Target;
use sidecheck::cluster::engine::Engine;
use sidecheck::report::model::{CheckResult, OutcomeKind};
use sidecheck::report::records::RunFolder;
use sidecheck::scenario::{Keep, Setting, decide};
use sidecheck::{ScenarioPod, Shape, Verdict};
use tempfile::TempDir;

/// The run of this test process.
pub fn run() -> String {
    format!("self-test-{}", std::process::id())
}

/// A folder with one check, whose fixture has a Pod with `spec` and whose first document ends with `more`.
pub fn fixture(spec: &str, more: &str) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    fs::create_dir(folder.path().join("area")).expect("a folder");
    let text = format!(
        r"level: MUST
requirement: It MUST run.
source: https://kubernetes.io/docs/
rows: [A3]
remediation: None.
scenario: none
shapes: [classic]
twins:
- name: another label
  fails: nothing
  patch:
    metadata: {{labels: {{is: another}}}}
{more}---
apiVersion: v1
kind: Pod
metadata:
  name: app
  annotations:
    sidecheck.dev/main: main
    sidecheck.dev/sidecar: main
    sidecheck.dev/rows: A3
spec:
  terminationGracePeriodSeconds: 1
{spec}"
    );
    fs::write(folder.path().join("area/check.yaml"), text).expect("a fixture");
    folder
}

/// How a check is decided here.
pub fn setting(folder: &Path, target: Option<Target>) -> Setting {
    let run = run();
    Setting {
        fixtures: folder.to_owned(),
        folder: RunFolder::new(folder, &run),
        run,
        prove: false,
        keep: Keep::Never,
        target,
        namespaces: Vec::new(),
        slot: None,
        selection: None,
        profile: None,
    }
}

/// What comes of `body` on a Pod with `spec`.
pub async fn outcome<B: AsyncFn(&ScenarioPod) -> Verdict>(spec: &str, target: Option<Target>, body: B) -> CheckResult {
    outcome_with(spec, "", target, body).await
}

/// Like [`outcome`], of a fixture that says more.
pub async fn outcome_with<B: AsyncFn(&ScenarioPod) -> Verdict>(
    spec: &str,
    more: &str,
    target: Option<Target>,
    body: B,
) -> CheckResult {
    let folder = fixture(spec, more);
    let setting = setting(folder.path(), target);
    let mut outcome = decide(&setting, &[("area/check".to_owned(), body)], Shape::Classic).await;
    outcome.0.pop().expect("a result")
}

/// The outcome is an `error` whose reason has these parts.
pub fn is_error(result: &CheckResult, parts: &[&str]) {
    let reason = result.reason.as_deref().unwrap_or_default();
    assert_eq!(result.outcome, OutcomeKind::Error, "{reason}");
    for part in parts {
        assert!(reason.contains(part), "“{part}” is missing in: {reason}");
    }
}

/// The kubeconfig of the harness's own cluster.
pub fn kubeconfig() -> PathBuf {
    match Target::from_environment().expect("a cluster") {
        Target::Own(path) => path,
        other => panic!("these tests run on the harness's own cluster, not on {other}"),
    }
}

/// Runs a command on the node; returns what it prints.
pub async fn on_node(command: &str) -> anyhow::Result<String> {
    let name = kubeconfig().file_stem().expect("a name").to_string_lossy().into_owned();
    let mut exec = Engine::chosen()?.command();
    exec.args(["exec", &format!("{name}-control-plane"), "sh", "-c", command]);
    let output = exec.output().await?;
    anyhow::ensure!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The program as a shell would call it: what nextest and Cargo say about this test is not true of it, and build scripts that read it would
/// have everything built anew.
pub fn as_from_a_shell(program: &str) -> Command {
    let of_this_test = ["NEXTEST", "SIDECHECK_RUN", "CARGO_MANIFEST_", "CARGO_PKG_"];
    let mut command = Command::new(program);
    for (name, _) in std::env::vars() {
        if of_this_test.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// A call of the command has ended with that code, and has said these parts.
pub fn says(output: &Output, code: i32, parts: &[&str]) {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "“{part}” is missing in: {text}");
    }
}
