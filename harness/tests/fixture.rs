//! What `sidecheck fixture` prints. No cluster is needed.

use std::fs;
use std::process::{Command, Output};

use rstest::rstest;
use serde_json::Value;
use sidecheck::Shape;
use sidecheck::environment;
use sidecheck::fixture::Fixture;
use tempfile::TempDir;

const SCENARIO: &str = r##"apiVersion: v1
kind: Pod
metadata:
  name: app
  annotations:
    sidecheck.dev/main: main
    sidecheck.dev/sidecar: shipper
    sidecheck.dev/rows: A3
spec:
  containers:
  - name: main
    image: localhost/sidecheck/agent:v1
    # Texts that a YAML 1.1 reader takes for something else unless they are quoted.
    args: ["8080", "yes", "on", "0x1F", "1e3", "~", "null", "1_000", "22:30:00", "# none", "a: b", "", "2026-01-31", "010"]
  - name: shipper
    image: localhost/sidecheck/busybox:v1
    command:
    - sh
    - -c
    - |
      while true; do
        cat "$0"; sleep 1

      done
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: page
data:
  index.html: "  indented\n\n"
  long: "a text  of more than eighty characters, which must not be broken or folded on its way from the file to the cluster "
"##;

const CHECK: &str = r#"level: SHOULD
requirement: Every line SHOULD arrive.
source: https://kubernetes.io/docs/
remediation: None.
twins:
- {name: nobody writes, fails: lines, patch: {spec: {containers: [{name: main, args: [idle]}]}}}
- {name: nobody ships, fails: lines, shapes: [native], patch: {spec: {containers: [{name: shipper, args: [idle]}]}}}
"#;

/// A project's folder with one check.
fn project() -> TempDir {
    let root = TempDir::new().expect("a folder");
    for folder in ["fixtures/area", "scripts"] {
        fs::create_dir_all(root.path().join(folder)).expect("a folder");
    }
    let area = root.path().join("fixtures/area");
    fs::write(area.join("scenario.yaml"), SCENARIO).expect("a file");
    fs::write(area.join("check.yaml"), CHECK).expect("a file");
    root
}

fn print(project: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidecheck"));
    command
        .arg("fixture")
        .args(arguments)
        .env("CARGO_MANIFEST_DIR", project.path())
        .env(environment::IMAGE_TAG, "v1")
        .env_remove(environment::IMAGE_PREFIX);
    command.output().expect("the command")
}

#[rstest]
#[case(&["area/check"], Shape::Classic, None)]
#[case(&["area/check@native"], Shape::Native, None)]
#[case(&["area/check@classic", "--twin", "nobody writes"], Shape::Classic, Some("nobody writes"))]
#[case(&["area/check@native", "--twin", "2"], Shape::Native, Some("nobody ships"))]
fn the_objects_are_printed_as_they_are_applied(
    #[case] arguments: &[&str],
    #[case] shape: Shape,
    #[case] twin: Option<&str>,
) {
    let project = project();
    let output = print(&project, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("a text");
    let fixture = Fixture::load(&project.path().join("fixtures"), "area/check").expect("a fixture");
    let twin = fixture.twins(shape).find(|other| Some(other.name.as_str()) == twin);
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
    assert_eq!(objects, fixture.objects(shape, twin).expect("objects"), "{text}");
}

#[test]
fn images_have_the_addresses_that_the_cluster_knows() {
    let project = project();
    let output = Command::new(env!("CARGO_BIN_EXE_sidecheck"))
        .args(["fixture", "area/check"])
        .env("CARGO_MANIFEST_DIR", project.path())
        .env(environment::IMAGE_PREFIX, "registry.example/team")
        .env(environment::IMAGE_TAG, "0123")
        .output()
        .expect("the command");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("image: registry.example/team/agent:0123"), "{text}");
}

#[rstest]
#[case(&["area/chek"], "there is no check area/chek; there are:\n  area/check")]
#[case(&["area/check@nativ"], "there is no shape nativ of area/check; there are:\n  classic\n  native")]
#[case(&["area/check", "--twin", "2"], "there is no twin 2 of area/check@classic; there are:\n  1 nobody writes\n")]
fn what_does_not_exist_is_answered_with_what_does(#[case] arguments: &[&str], #[case] message: &str) {
    let output = print(&project(), arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(text.contains(message), "{text}");
}
