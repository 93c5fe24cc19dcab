//! `sidecheck validate` as its users call it, on a real cluster: what it says of images that are good and bad.

mod common;

use std::fs;
use std::process::Stdio;

use common::as_from_a_shell;
use rstest::rstest;
use serde_json::Value;
use sidecheck::environment;
use sidecheck::report::records::RunFolder;
use tempfile::TempDir;

/// The good log shipper.
const REFERENCE: &str = "fixtures/validate/logging/reference.yaml";

/// The good reloader.
const RELOADER: &str = "fixtures/validate/config-reload/reference.yaml";

/// What a call has said.
struct Said {
    code: Option<i32>,
    text: String,
    report: Value,
}

impl Said {
    fn has(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.text.contains(part), "“{part}” is missing in: {}", self.text);
        }
    }

    fn outcomes(&self) -> Vec<&str> {
        let checks = self.report["checks"].as_array().expect("checks");
        checks
            .iter()
            .map(|check| check["outcome"].as_str().expect("a text"))
            .collect()
    }
}

/// Validates the specimen with these arguments, in a run of that name.
fn validate(name: &str, arguments: &[&str]) -> Said {
    let run = format!("validate-{}-{name}", std::process::id());
    let output = as_from_a_shell(env!("CARGO_BIN_EXE_sidecheck"))
        .args(["validate", "localhost/sidecheck/specimen:v1"])
        .args(arguments)
        .current_dir(environment::root())
        .env(environment::RUN, &run)
        .stdin(Stdio::null())
        .output()
        .expect("the command");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let folder = RunFolder::new(&environment::results(), &run);
    let report = folder
        .read("report.json")
        .unwrap_or_else(|| panic!("no report: {text}"));
    fs::remove_dir_all(folder.path()).expect("removed");
    Said {
        code: output.status.code(),
        text,
        report,
    }
}

#[test]
fn a_good_image_is_told_so() {
    let said = validate(
        "good",
        &[
            "--profile",
            REFERENCE,
            "becomes-ready",
            "works-as-soon",
            "starts-as-declared",
        ],
    );
    assert_eq!(said.code, Some(0), "{}", said.text);
    said.has(&[
        "logging sidecar, as far as was asked: 5 of 5 MUST",
        "5 passed, 0 failed, 0 skipped",
    ]);
    assert_eq!(said.report["subject"]["role"], "logging");
}

#[rstest]
#[case::ends_at_once(
    "ends-at-once",
    &["it ended with code 3; last words: specimen: cannot start: broken on purpose", "it cannot be judged while validate/logging/becomes-ready is not met"]
)]
#[case::needs_a_token("needs-token", &["/var/run/secrets/kubernetes.io/serviceaccount/token"])]
fn one_that_does_not_start_is_not_met_once(#[case] fault: &str, #[case] words: &[&str]) {
    let with_fault = format!("--fault={fault}");
    let image = ["--role", "logging", "--startup", "20s"];
    let arguments = ["--arg=ship", "--arg", &with_fault, "--arg={{logs}}/*.log"];
    let checks = ["starts-as-declared", "becomes-ready", "works"];
    let said = validate(fault, &[&image[..], &arguments, &checks].concat());
    assert_eq!(said.code, Some(1), "{}", said.text);
    said.has(&["not a good logging sidecar"]);
    said.has(words);
    let not_met = said.outcomes().iter().filter(|outcome| **outcome == "notMet").count();
    // Alone, and in each shape.
    assert_eq!(not_met, 3, "{}", said.text);
}

#[test]
fn an_image_that_needs_the_api_is_not_judged_as_a_sidecar() {
    let folder = TempDir::new().expect("a folder");
    let profile = folder.path().join("profile.yaml");
    fs::write(&profile, "role: generic\nargs: [idle]\nkubernetesApi: true\n").expect("a profile");
    let said = validate(
        "api",
        &["--profile", profile.to_str().expect("a path"), "becomes-ready"],
    );
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert_eq!(said.outcomes(), ["notApplicable", "notApplicable"]);
}

#[rstest]
#[case::stdout("--to=stdout", "delivers: stdout")]
#[case::http("--to=http://{{sink.host}}:{{sink.port}}/", "delivers: http")]
#[case::syslog("--to=syslog+tcp://{{sink.host}}:{{sink.port}}", "delivers: syslog")]
#[case::file("--to=file:///out/all.log", "delivers: {file: /out/all.log}")]
fn every_way_to_deliver_is_judged(#[case] to: &str, #[case] delivers: &str) {
    let changes = [
        ("--to=tcp://{{sink.host}}:{{sink.port}}", to),
        ("delivers: tcp", delivers),
    ];
    let checks = ["works-as-soon", "rotation-by-rename", "a-kill"];
    all_met(REFERENCE, &changes, &checks);
}

#[rstest]
#[case::signal("--signal=HUP\n- --process=app", "reloads: {signal: SIGHUP, process: app}")]
#[case::file("--copy-to=/out/app.conf\n- --from=app.conf", "reloads: {file: /out/app.conf}")]
fn every_way_to_reload_is_judged(#[case] by: &str, #[case] reloads: &str) {
    let changes = [("--url={{reload.url}}", by), ("reloads: http", reloads)];
    let checks = ["works-as-soon", "a-reload-finds", "restarts-alone"];
    all_met(RELOADER, &changes, &checks);
}

/// Validates the specimen with a reference's profile that is changed in these places.
fn all_met(reference: &str, changes: &[(&str, &str)], checks: &[&str]) {
    let mut text = fs::read_to_string(environment::root().join(reference)).expect("a profile");
    for (from, to) in changes {
        assert!(text.contains(from), "{from} is not in {reference}");
        text = text.replace(from, to);
    }
    let folder = TempDir::new().expect("a folder");
    let profile = folder.path().join("profile.yaml");
    fs::write(&profile, text).expect("a profile");
    let letters = changes[1].1.chars().filter(char::is_ascii_lowercase);
    let name: String = letters.take(15).collect();
    let said = validate(
        &name,
        &[&["--profile", profile.to_str().expect("a path")], checks].concat(),
    );
    // In each shape.
    assert_eq!(said.outcomes(), vec!["met"; 2 * checks.len()], "{}", said.text);
}
