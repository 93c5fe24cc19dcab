//! What the command says about a call or a machine that is wrong. No cluster is needed.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::says;
use rstest::rstest;
use sidecheck::environment;
use tempfile::TempDir;

/// A call with a cache folder of its own.
fn call(cache: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidecheck"));
    command
        .args(arguments)
        .env("XDG_CACHE_HOME", cache)
        .env_remove(environment::CONTEXT)
        .env_remove(environment::KUBECONFIG)
        .env_remove(environment::KUBERNETES)
        .env_remove(environment::RUN)
        .env_remove("NEXTEST_ENV");
    command
}

#[rstest]
#[case(&["up", "--kubernetes", "1.12"], "unknown Kubernetes version “1.12”; known are 1.33, 1.34, 1.35, 1.36, 1.37")]
#[case(&["run", "no/such-check"], "no check is named by no/such-check; `sidecheck list` shows them all")]
#[case(&["run", "--keep", "sometimes"], "invalid value 'sometimes'")]
#[case(&["run", "--timeout", "soon"], "invalid value 'soon' for '--timeout <DURATION>': write a number and s, m or h: 90s, 30m or 1h")]
#[case(&["run", "--timeout", "0s"], "it must be above 0")]
#[case(&["fly"], "unrecognized subcommand 'fly'")]
#[case(&["validate"], "the following required arguments were not provided")]
#[case(&["validate", "an/image", "--role", "loging"], "a similar value exists: 'logging'")]
#[case(&["validate", "an/image", "--profile", "nobody"], "nobody is no file and no ready-made profile; there are: busybox-tail,")]
#[case(&["validate", "an/image", "--role", "generic", "--mount", "/logs"], "--mount is for the roles logging and config-reload, not for generic")]
#[case(&["validate", "an/image", "--pull-secret", "/dev/null"], "--context <NAME>")]
#[case(&["run", "--context", "theirs", "--pull-secret", "/dev/null"], "--pull-secret /dev/null: it is no JSON: EOF while parsing")]
fn a_wrong_call_is_told_with_what_is_right(#[case] arguments: &[&str], #[case] message: &str) {
    let cache = TempDir::new().expect("a folder");
    // The version is looked at before the engine, which an empty cache lacks.
    let output = call(cache.path(), arguments).output().expect("the command");
    says(&output, 64, &[message]);
}

#[test]
fn a_run_with_a_name_that_cannot_be_one_is_a_wrong_call() {
    let cache = TempDir::new().expect("a folder");
    let mut command = call(cache.path(), &["run"]);
    let output = command.env(environment::RUN, "../a").output().expect("the command");
    says(&output, 64, &["SIDECHECK_RUN: “../a” is no id of a run"]);
}

#[test]
fn what_a_fixture_says_cannot_steer_the_terminal() {
    let root = TempDir::new().expect("a folder");
    for folder in ["fixtures/area", "scripts"] {
        fs::create_dir_all(root.path().join(folder)).expect("a folder");
    }
    let fixture = root.path().join("fixtures/area/check.yaml");
    fs::write(&fixture, "\u{1b}[2J\u{202e}: [").expect("a file");
    let cache = TempDir::new().expect("a folder");
    let mut command = call(cache.path(), &["list"]);
    let output = command
        .env("CARGO_MANIFEST_DIR", root.path())
        .output()
        .expect("the command");
    says(&output, 2, &["fixtures/area/check.yaml:"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains(['\u{1b}', '\u{202e}']));
}

#[test]
fn no_engine_is_told_with_what_to_do() {
    let cache = TempDir::new().expect("a folder");
    let output = call(cache.path(), &["up"]).output().expect("the command");
    says(&output, 2, &["no container engine is set up yet: run scripts/setup"]);
}

#[test]
fn a_context_that_does_not_exist_is_told_with_those_that_do() {
    let cache = TempDir::new().expect("a folder");
    let kubeconfig = cache.path().join("config");
    let text = "{apiVersion: v1, kind: Config, clusters: [], users: [], contexts: [{name: staging, context: {cluster: a, user: b}}]}";
    fs::write(&kubeconfig, text).expect("a file");
    let output = call(cache.path(), &["run", "--context", "prod"])
        .env("KUBECONFIG", &kubeconfig)
        .output()
        .expect("the command");
    says(&output, 2, &["the kubeconfig has no context “prod”; it has: staging"]);
}

#[test]
fn a_kubeconfig_that_does_not_exist_is_told_once() {
    let cache = TempDir::new().expect("a folder");
    let output = call(cache.path(), &["run", "--context", "prod"])
        .env("KUBECONFIG", cache.path().join("absent"))
        .output()
        .expect("the command");
    says(&output, 2, &["the context “prod” cannot be found: ", "absent"]);
    let told = String::from_utf8_lossy(&output.stderr).matches("No such file").count();
    assert_eq!(told, 1);
}

/// The engine's settings with one changed, below `cache`.
fn engine_settings(cache: &Path, containers_conf: Option<&str>) -> bool {
    let Ok(settings) = fs::read_to_string(environment::cache().join("engine/env")) else {
        return false;
    };
    let folder = cache.join("sidecheck/engine");
    fs::create_dir_all(&folder).expect("a folder");
    let changed: String = settings
        .lines()
        .map(|line| match (line.strip_prefix("CONTAINERS_CONF="), containers_conf) {
            (Some(path), Some(text)) => {
                let original = fs::read_to_string(path.trim_matches(['"', '\''])).unwrap_or_default();
                let kept: String = original.lines().filter(|line| !line.contains("default_ulimits")).fold(
                    String::new(),
                    |all, line| match line.trim() {
                        "[containers]" => format!("{all}{line}\n{text}\n"),
                        _ => format!("{all}{line}\n"),
                    },
                );
                let file = folder.join("containers.conf");
                fs::write(&file, kept).expect("a file");
                format!("CONTAINERS_CONF={}\n", file.display())
            }
            _ => format!("{line}\n"),
        })
        .collect();
    fs::write(folder.join("env"), &changed).expect("a file");
    changed.contains("CONTAINERS_CONF")
}

#[test]
fn an_engine_without_privileged_containers_is_told() {
    let cache = TempDir::new().expect("a folder");
    // More open files than this machine allows: the engine then starts no container.
    if !engine_settings(
        cache.path(),
        Some("default_ulimits = [\"nofile=1999999999:1999999999\"]"),
    ) {
        // Set-up found an engine that works as it is; its configuration is not ours to break.
        return;
    }
    let output = call(cache.path(), &["up"]).output().expect("the command");
    says(
        &output,
        2,
        &["podman cannot run privileged containers, which every kind cluster needs"],
    );
}

#[test]
fn too_little_disk_is_told_with_what_is_needed() {
    let cache = TempDir::new().expect("a folder");
    // A small file system that only this process sees.
    let script = r#"mount -t tmpfs -o size=16m tmpfs "$1" && mkdir -p "$1/sidecheck" && exec "$2" doctor"#;
    let mut inside = Command::new("unshare");
    inside
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(cache.path())
        .arg(env!("CARGO_BIN_EXE_sidecheck"))
        .env("XDG_CACHE_HOME", cache.path());
    let output = inside.output().expect("unshare");
    says(&output, 2, &["too little disk: a cluster needs 4.0 GiB"]);
}

#[test]
fn a_broken_fixture_is_told_with_file_and_line() {
    let root = TempDir::new().expect("a folder");
    for folder in ["fixtures/area", "scripts"] {
        fs::create_dir_all(root.path().join(folder)).expect("a folder");
    }
    let fixture = root.path().join("fixtures/area/check.yaml");
    fs::write(&fixture, "apiVersion: v1\nkind: Pod\nmetadata: {name: [}\n").expect("a file");
    let cache = TempDir::new().expect("a folder");
    let mut command = call(cache.path(), &["list"]);
    let output = command
        .env("CARGO_MANIFEST_DIR", root.path())
        .output()
        .expect("the command");
    says(&output, 2, &["fixtures/area/check.yaml:3: not valid YAML"]);
}
