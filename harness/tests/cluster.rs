//! What the harness says and leaves behind when things go wrong on a real cluster.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{as_from_a_shell, fixture, is_error, kubeconfig, on_node, outcome, run, setting};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, Pod};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::config::Kubeconfig;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use nix::sys::signal::{Signal, raise};
use rstest::rstest;
use serde_json::json;
use sidecheck::cluster::namespace::RUN_LABEL;
use sidecheck::cluster::{Cluster, Target, images};
use sidecheck::report::model::OutcomeKind;
use sidecheck::scenario::{Leftovers, decide};
use sidecheck::{ScenarioPod, Shape, environment, patience};
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

/// A Pod of this run, once it is as wanted.
async fn pod_of_this_run(is_wanted: impl Fn(&Pod) -> bool) -> Pod {
    let pods: Api<Pod> = Api::all(client().await);
    let of_run = ListParams::default().labels(&format!("{RUN_LABEL}={}", run()));
    loop {
        let mut found = pods.list(&of_run).await.expect("a list").items.into_iter();
        if let Some(pod) = found.find(&is_wanted) {
            return pod;
        }
        tokio::time::sleep(patience::LOOK_AGAIN).await;
    }
}

fn reason_to_wait(pod: &Pod) -> Option<&str> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses[0].state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

#[tokio::test]
async fn an_interrupted_check_says_what_it_waited_for_and_the_next_one_that_it_has_not_begun() {
    let spec = "  containers:
  - {name: main, image: \"localhost/sidecheck/agent:v1\"}
";
    let folder = fixture(spec, "");
    let check = folder.path().join("area/check.yaml");
    fs::copy(&check, check.with_file_name("next.yaml")).expect("another check");
    let body = async |pod: &ScenarioPod| {
        raise(Signal::SIGTERM).map_err(anyhow::Error::from)?;
        let main = pod.main();
        main.given().prints_line("a line that never comes", |_| false).await?;
        Ok(())
    };
    let checks = ["area/check", "area/next"].map(|id| (id.to_owned(), body));
    let outcome = decide(&setting(folder.path(), None), &checks, Shape::Classic).await;
    let waiting = "interrupted by SIGTERM, while waiting for a line that never comes, at container main of Pod app: Running; main: running";
    assert_eq!(outcome.0[0].reason.as_deref(), Some(waiting));
    assert_eq!(outcome.0[1].reason, Some(format!("not begun; {waiting}")));
}

#[tokio::test]
async fn an_interrupted_check_says_that_its_image_is_missing() {
    let spec = "  containers:
  - {name: main, image: \"localhost/sidecheck/absent:v1\"}
";
    tokio::spawn(async {
        pod_of_this_run(|pod| reason_to_wait(pod) == Some("ImagePullBackOff")).await;
        raise(Signal::SIGTERM).expect("sent");
    });
    let result = outcome(spec, None, async |_| Ok(())).await;
    is_error(
        &result,
        &[
            "interrupted by SIGTERM, while waiting for Pod app to be ready: Pending; main: waiting (ImagePullBackOff: ",
            "localhost/sidecheck/absent:",
        ],
    );
}

/// Somebody reports something of a Pod.
async fn report(pod: &Pod, reason: &str) {
    let (client, namespace) = (client().await, pod.namespace().expect("a namespace"));
    let event = json!({
        "metadata": {"generateName": "app."}, "type": "Normal", "reason": reason, "message": "as a test says",
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": pod.name_any(), "namespace": namespace, "uid": pod.uid()},
    });
    let events: Api<Event> = Api::namespaced(client, &namespace);
    let event = serde_json::from_value(event).expect("an event");
    events.create(&PostParams::default(), &event).await.expect("created");
}

/// The node gets a label only when a Pod that needs it has waited for longer than it would without word of a new node.
#[rstest]
#[case::of_the_cluster_autoscaler(Some("TriggeredScaleUp"))]
#[case::of_karpenter(Some("Nominated"))]
#[case::none(None)]
#[tokio::test]
async fn a_pod_waits_for_a_node_if_there_is_word_of_one(#[case] word: Option<&'static str>) {
    let label = format!("sidecheck.dev/{}", run());
    let spec = format!(
        "  nodeSelector: {{{label}: new}}
  containers:
  - {{name: main, image: \"localhost/sidecheck/agent:v1\"}}
"
    );
    let nodes: Api<Node> = Api::all(client().await);
    let node = nodes.list(&ListParams::default()).await.expect("nodes").items[0].name_any();
    let mark = async |value: Option<&str>| {
        let labels = Patch::Merge(json!({"metadata": {"labels": {&label: value}}}));
        nodes
            .patch(&node, &PatchParams::default(), &labels)
            .await
            .expect("labelled");
    };
    let autoscaler = async {
        let pod = pod_of_this_run(|pod| pod.status.as_ref().is_some_and(|status| status.conditions.is_some())).await;
        if let Some(word) = word {
            report(&pod, word).await;
        }
        tokio::time::sleep(patience::SCHEDULED + Duration::from_secs(5)).await;
        mark(Some("new")).await;
    };
    let (result, ()) = tokio::join!(outcome(&spec, None, async |_| Ok(())), autoscaler);
    mark(None).await;
    match word {
        Some(_) => assert_eq!(result.outcome, OutcomeKind::Met, "{result:#?}"),
        None => is_error(
            &result,
            &["Pod app cannot be scheduled: 0/1 nodes are available", "selector"],
        ),
    }
}

/// A registry that begins every answer and never goes on, on the node; `@PORT` is its port.
const SLOW_REGISTRY: &str = r#"
    setsid perl -MIO::Socket::INET -e '
        $registry = IO::Socket::INET->new(LocalAddr => "127.0.0.1:@PORT", Listen => 9, ReuseAddr => 1) or die;
        $manifest = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\nDocker-Content-Digest: sha256:" . "0" x 64;
        while ($client = $registry->accept) {
            next if fork;
            print $client "HTTP/1.1 200 OK\r\n$manifest\r\nContent-Length: 1000\r\n\r\n" while sysread $client, $request, 9999;
            exit;
        }' >/dev/null 2>&1 &
    echo $!"#;

/// The node has the image in the end, but only when a Pod that needs it has waited for longer than it would without word of a pull.
#[tokio::test]
async fn a_pod_waits_for_an_image_that_is_being_pulled() {
    let port = 20_000 + std::process::id() % 10_000;
    let image = format!("127.0.0.1:{port}/slow:{}", run());
    let process = on_node(&SLOW_REGISTRY.replace("@PORT", &port.to_string())).await;
    let process = process.expect("a registry");
    let spec = format!(
        "  containers:
  - {{name: main, image: \"{image}\"}}
"
    );
    let registry = async {
        pod_of_this_run(|pod| reason_to_wait(pod) == Some("ContainerCreating")).await;
        tokio::time::sleep(patience::READY + Duration::from_secs(5)).await;
        on_node(&format!(
            "ctr --namespace k8s.io images tag {} {image}",
            images::address("localhost/sidecheck/agent:v1")
        ))
        .await?;
        on_node(&format!("kill -KILL -{process}")).await
    };
    let (result, ended) = tokio::join!(outcome(&spec, None, async |_| Ok(())), registry);
    ended.expect("the registry ends");
    on_node(&format!("ctr --namespace k8s.io images remove {image}"))
        .await
        .expect("removed");
    assert_eq!(result.outcome, OutcomeKind::Met, "{result:#?}");
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
async fn started(client: &Client, results: &Path, options: &[&str]) -> std::process::Child {
    // How long a build takes says nothing about the run.
    let built = as_from_a_shell("cargo")
        .args(["build", "--quiet", "--package", "suites", "--tests"])
        .status()
        .expect("cargo");
    assert!(built.success());
    let child = as_from_a_shell(env!("CARGO_BIN_EXE_sidecheck"))
        .args(["run", "logging/nginx-requests-are-shipped@native", "--prove"])
        .args(options)
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
    let mut run = started(&client, folder.path(), &[]).await;
    interrupt(&run);
    let status = run.wait().expect("an end");
    assert_eq!(status.code(), Some(2));
    let out = fs::read_to_string(folder.path().join("out")).expect("output");
    assert!(out.ends_with("0 passed, 1 failed, 0 skipped\n"), "{out}");
    assert!(left(&client).await.is_empty());
}

#[tokio::test]
async fn alone_a_time_limit_ends_the_run_and_says_what_it_waited_for() {
    let (client, folder) = (client().await, TempDir::new().expect("a folder"));
    // The check is met by then, and its twin waits for a line that does not come.
    let mut run = started(&client, folder.path(), &["--timeout", "20s"]).await;
    let status = run.wait().expect("an end");
    assert_eq!(status.code(), Some(2));
    let out = fs::read_to_string(folder.path().join("out")).expect("output");
    assert!(
        out.contains("the time limit of 20s was over, while waiting for "),
        "{out}"
    );
    assert!(out.ends_with("0 passed, 1 failed, 0 skipped\n"), "{out}");
    assert!(left(&client).await.is_empty());
}

#[tokio::test]
async fn alone_clean_removes_what_a_killed_run_left() {
    let (client, folder) = (client().await, TempDir::new().expect("a folder"));
    let mut run = started(&client, folder.path(), &[]).await;
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
