//! What the harness says and leaves behind when things go wrong on a real cluster.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{as_from_a_shell, is_error, kubeconfig, outcome, run};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::config::Kubeconfig;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use rstest::rstest;
use serde_json::json;
use sidecheck::cluster::namespace::RUN_LABEL;
use sidecheck::cluster::{Cluster, Target};
use sidecheck::scenario::Leftovers;
use sidecheck::{ScenarioPod, environment, patience};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_pod_that_no_node_takes_is_an_error() {
    let spec = "  nodeSelector: {moon: full}
  containers:
  - {name: main, image: \"localhost/sidecheck/agent:v1\"}
";
    let result = outcome(spec, None, async |_| Ok(())).await;
    is_error(
        &result,
        &["Pod app cannot be scheduled: 0/1 nodes are available", "selector"],
    );
}

#[tokio::test]
async fn a_missing_image_is_an_error() {
    let spec = "  containers:
  - {name: main, image: \"localhost/sidecheck/absent:v1\"}
";
    let result = outcome(spec, None, async |_| Ok(())).await;
    is_error(
        &result,
        &["container main of Pod app does not run", "localhost/sidecheck/absent:"],
    );
}

#[tokio::test]
async fn a_container_that_crashes_at_once_is_an_error_with_its_last_words() {
    let spec = "  containers:
  - {name: main, image: \"localhost/sidecheck/agent:v1\", args: [say farewell, exit 3],
     readinessProbe: {tcpSocket: {port: 80}}}
";
    let result = outcome(spec, None, async |_| Ok(())).await;
    is_error(
        &result,
        &["container main of Pod app does not run", "exit code 3", "farewell"],
    );
}

#[tokio::test]
async fn a_container_that_keeps_crashing_while_the_check_looks_is_an_error() {
    let spec = "  containers:
  - {name: main, image: \"localhost/sidecheck/agent:v1\", args: [say farewell, exit 3]}
";
    let body = async |pod: &ScenarioPod| {
        pod.main()
            .expect("a line")
            .within(Duration::from_secs(20))
            .prints_line("a line that never comes", |_| false)
            .await?;
        Ok(())
    };
    let result = outcome(spec, None, body).await;
    is_error(
        &result,
        &[
            "container main of Pod app was restarted although nothing ended it",
            "exit code 3",
            "farewell",
        ],
    );
}

#[tokio::test]
async fn a_body_that_panics_is_an_error() {
    let spec = "  containers:
  - {name: main, image: \"localhost/sidecheck/agent:v1\"}
";
    let result = outcome(spec, None, async |_| panic!("a mistake in the suite")).await;
    is_error(&result, &["the check panicked: a mistake in the suite"]);
}

/// The API server behind a door that can be closed.
async fn door(to: &Path, folder: &Path) -> (Target, tokio::task::AbortHandle) {
    let mut kubeconfig = Kubeconfig::read_from(to).expect("a kubeconfig");
    let server = kubeconfig.clusters[0]
        .cluster
        .as_mut()
        .expect("a cluster")
        .server
        .replace(String::new());
    let address = server.expect("an address").trim_start_matches("https://").to_owned();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let door = format!("https://{}", listener.local_addr().expect("an address"));
    kubeconfig.clusters[0].cluster.as_mut().expect("a cluster").server = Some(door);
    let path = folder.join("kubeconfig");
    fs::write(&path, serde_json::to_string(&kubeconfig).expect("JSON")).expect("a file");
    let open = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let address = address.clone();
            connections.spawn(async move {
                let mut far = TcpStream::connect(address).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    (Target::Own(path), open.abort_handle())
}

async fn client() -> Client {
    Cluster::connect().await.expect("a cluster").client
}

#[tokio::test]
async fn a_cluster_that_stops_answering_is_an_error() {
    let folder = TempDir::new().expect("a folder");
    let (target, open) = door(&kubeconfig(), folder.path()).await;
    let spec = "  containers:
  - {name: main, image: \"localhost/sidecheck/agent:v1\"}
";
    let result = outcome(spec, Some(target), async |pod| {
        open.abort();
        pod.main()
            .expect("a line")
            .within(Duration::from_secs(1))
            .prints_line("a line that never comes", |_| false)
            .await?;
        Ok(())
    })
    .await;
    is_error(&result, &["cannot read the log"]);
    // What could not be removed through the closed door is removed as `clean` does it.
    let (client, run) = (client().await, run());
    leftovers(&client, &run).remove().await.expect("removed");
}

fn leftovers<'a>(client: &'a Client, run: &'a str) -> Leftovers<'a> {
    Leftovers {
        client,
        run: Some(run),
        namespaces: &[],
    }
}

#[tokio::test]
async fn a_namespace_that_is_stuck_in_deletion_is_told_with_what_holds_it() {
    let client = client().await;
    let run = format!("stuck-{}", std::process::id());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": run, "labels": {RUN_LABEL: run}}}));
    namespaces
        .create(&PostParams::default(), &namespace.expect("a namespace"))
        .await
        .expect("created");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &run);
    let map = serde_json::from_value(json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}}));
    maps.create(&PostParams::default(), &map.expect("a ConfigMap"))
        .await
        .expect("created");

    leftovers(&client, &run).remove().await.expect("asked");
    let held = |namespace: Option<&Namespace>| {
        let conditions = namespace.and_then(|namespace| namespace.status.as_ref()?.conditions.as_ref());
        conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == "NamespaceFinalizersRemaining" && condition.status == "True")
    };
    await_condition(namespaces, &run, held).await.expect("a watch");
    let error = leftovers(&client, &run).wait_until_gone(Duration::from_secs(1)).await;
    let text = error.expect_err("stuck").to_string();
    assert!(
        text.contains(&format!("after 1s, the namespace {run} is still there")),
        "{text}"
    );
    assert!(text.contains("example.com/hold"), "{text}");

    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("held", &PatchParams::default(), &release)
        .await
        .expect("released");
    let leftovers = leftovers(&client, &run);
    leftovers.wait_until_gone(patience::CLEAN_UP).await.expect("gone");
}

/// A run of the command on one check that takes a while, once its namespace is there.
async fn started(client: &Client, results: &Path) -> std::process::Child {
    // How long a build takes says nothing about the run.
    let built = as_from_a_shell("cargo")
        .args(["build", "--quiet", "--package", "suites", "--tests"])
        .status()
        .expect("cargo");
    assert!(built.success());
    let child = as_from_a_shell(env!("CARGO_BIN_EXE_sidecheck"))
        .args(["run", "logging/nginx-requests-are-shipped@native", "--prove"])
        .stdin(Stdio::null())
        .stdout(fs::File::create(results.join("out")).expect("a file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("the command");
    let deadline = Instant::now() + Duration::from_secs(120);
    while left(client).await.is_empty() {
        assert!(Instant::now() < deadline, "the run has not begun");
        tokio::time::sleep(patience::LOOK_AGAIN).await;
    }
    child
}

/// The namespaces of runs of the suite itself.
async fn left(client: &Client) -> Vec<String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let labelled = namespaces
        .list(&ListParams::default().labels(RUN_LABEL))
        .await
        .expect("a list");
    labelled
        .iter()
        .map(ResourceExt::name_any)
        .filter(|name| !name.contains("self-test"))
        .collect()
}

/// Sends a signal to the command and to nextest, which it called, as a terminal does to every process of the foreground group.
fn send_to_all(signal: &str, run: &std::process::Child) {
    let children = Command::new("pgrep")
        .args(["-P", &run.id().to_string()])
        .output()
        .expect("pgrep");
    send(signal, run.id());
    for child in String::from_utf8_lossy(&children.stdout).split_whitespace() {
        send(signal, child.parse().expect("a number"));
    }
}

fn send(signal: &str, process: u32) {
    let sent = Command::new("kill")
        .args([signal, &process.to_string()])
        .status()
        .expect("kill");
    assert!(sent.success());
}

/// A terminal sends ctrl-c to every process of the foreground group; a signal that a supervisor sends goes to the command alone.
#[rstest]
#[case::ctrl_c(|run: &std::process::Child| send_to_all("-INT", run))]
#[case::sigterm(|run: &std::process::Child| send("-TERM", run.id()))]
#[tokio::test]
async fn alone_a_signal_ends_the_run_and_leaves_nothing(#[case] interrupt: fn(&std::process::Child)) {
    let (client, folder) = (client().await, TempDir::new().expect("a folder"));
    let mut run = started(&client, folder.path()).await;
    interrupt(&run);
    let status = run.wait().expect("an end");
    assert_eq!(status.code(), Some(2));
    let out = fs::read_to_string(folder.path().join("out")).expect("output");
    assert!(out.ends_with("0 passed, 1 failed, 0 skipped\n"), "{out}");
    assert!(left(&client).await.is_empty());
}

#[tokio::test]
async fn alone_clean_removes_what_a_killed_run_left() {
    let (client, folder) = (client().await, TempDir::new().expect("a folder"));
    let mut run = started(&client, folder.path()).await;
    send_to_all("-KILL", &run);
    run.wait().expect("an end");
    let clean = Command::new(env!("CARGO_BIN_EXE_sidecheck"))
        .arg("clean")
        .output()
        .expect("clean");
    assert!(clean.status.success(), "{}", String::from_utf8_lossy(&clean.stderr));
    assert!(left(&client).await.is_empty());
    let tests = environment::results()
        .parent()
        .map(|target| target.join("debug/deps/suites-"));
    let tests = tests.expect("a folder").display().to_string();
    let running = Command::new("pgrep").args(["-f", &tests]).output().expect("pgrep");
    assert!(
        running.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&running.stdout)
    );
}
