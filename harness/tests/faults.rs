//! Trouble on a real cluster while a check looks: it is an `error` that names the cause, or it does not matter; never `not met`.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{is_error, kubeconfig, on_node, outcome, outcome_with, run};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, DynamicObject, EvictParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use sidecheck::cluster::{Cluster, Target, images, objects};
use sidecheck::pod::state::{PodState, describe};
use sidecheck::report::model::OutcomeKind;
use sidecheck::{Container, ScenarioPod, Verdict, agent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A Pod whose agent takes statements.
const AGENT: &str = "  containers:
  - name: main
    image: localhost/sidecheck/agent:v1
    args: [control]
    ports: [{name: agent, containerPort: 9000}]
";

async fn client() -> Client {
    Cluster::connect().await.expect("a cluster").client
}

/// A finding that would be false: what is awaited never comes.
async fn never(container: &Container) -> Verdict {
    let expect = container.expect("a line").within(Duration::from_secs(3));
    expect.prints_line("a line that never comes", |_| false).await?;
    Ok(())
}

async fn pods(pod: &ScenarioPod) -> anyhow::Result<Api<Pod>> {
    Ok(Api::namespaced(client().await, pod.namespace()))
}

/// Fifty lines that come after some trouble are all read.
async fn all_lines_arrive(spec: &str, trouble: impl AsyncFn() -> anyhow::Result<()>) {
    let result = outcome(spec, None, async |pod| {
        trouble().await?;
        let main = pod.main();
        main.arrange(agent::append("/dev/stdout", 50)).await?;
        main.arrange(agent::append_text("/dev/stdout", "end")).await?;
        main.expect("every line").numbered_lines(50, "end").await
    })
    .await;
    assert_eq!(result.outcome, OutcomeKind::Met, "{result:#?}");
}

#[tokio::test]
async fn alone_a_restarted_kubelet_loses_no_line() {
    all_lines_arrive(AGENT, async || on_node("systemctl restart kubelet").await.map(drop)).await;
}

#[tokio::test]
async fn alone_a_restarted_kubelet_is_named() {
    let result = outcome(AGENT, None, async |pod| {
        on_node("systemctl restart kubelet").await?;
        never(&pod.main()).await
    })
    .await;
    is_error(&result, &["was disturbed meanwhile: Starting"]);
}

#[tokio::test]
async fn alone_an_api_server_that_stands_still_for_20_s_changes_nothing() {
    let result = outcome(AGENT, None, async |pod| {
        on_node("pkill -STOP kube-apiserver; (sleep 20; pkill -CONT kube-apiserver) >/dev/null 2>&1 &").await?;
        let main = pod.main();
        let told = main.arrange(agent::say("later", "")).await;
        // The statement may have been held up longer than a request may take: it is carried out all the same, or was never delivered.
        if told.is_err() {
            main.arrange(agent::say("later", "")).await?;
        }
        main.expect("it comes")
            .within(Duration::from_secs(5))
            .records("later", |_| true)
            .await?;
        Ok(())
    })
    .await;
    assert_eq!(result.outcome, OutcomeKind::Met, "{result:#?}");
}

#[tokio::test]
async fn alone_a_restarted_container_runtime_is_no_finding() {
    all_lines_arrive(AGENT, async || on_node("systemctl restart containerd").await.map(drop)).await;
}

#[tokio::test]
async fn a_pod_that_somebody_else_deletes_is_an_error() {
    let result = outcome(AGENT, None, async |pod| {
        pods(pod)
            .await?
            .delete(pod.name(), &DeleteParams::default())
            .await
            .map_err(anyhow::Error::from)?;
        never(&pod.main()).await
    })
    .await;
    is_error(&result, &["Pod app was deleted by somebody else"]);
}

#[tokio::test]
async fn an_evicted_pod_is_an_error() {
    let result = outcome(AGENT, None, async |pod| {
        pods(pod)
            .await?
            .evict(pod.name(), &EvictParams::default())
            .await
            .map_err(anyhow::Error::from)?;
        never(&pod.main()).await
    })
    .await;
    is_error(&result, &["Pod app was ended by the cluster"]);
}

#[tokio::test]
async fn an_image_that_is_not_there_in_the_middle_of_a_check_is_an_error() {
    let result = outcome(AGENT, None, async |pod| {
        let (main, before) = (pod.main(), pod.main().run()?);
        pod.set_image(&main, "localhost/sidecheck/absent:v1").await?;
        pod.until("a failed pull", |_| main.run().is_err()).await?;
        main.expect("it is restarted").restarts(&before).await?;
        Ok(())
    })
    .await;
    is_error(&result, &["container main cannot start", "localhost/sidecheck/absent:"]);
}

#[tokio::test]
async fn an_image_that_is_removed_from_the_node_is_an_error() {
    let image = format!("localhost/sidecheck/agent:{}", run());
    on_node(&format!(
        "ctr --namespace k8s.io images tag {} {image}",
        images::address("localhost/sidecheck/agent:v1")
    ))
    .await
    .expect("tagged");
    let spec = AGENT.replace("localhost/sidecheck/agent:v1", &image);
    let result = outcome(&spec, None, async |pod| {
        on_node(&format!("ctr --namespace k8s.io images remove {image}")).await?;
        pod.main().end_by(agent::exit(1)).await?;
        let failed = |state: &PodState| describe(Some(state)).contains("Image");
        pod.until("a failed pull", failed).await?;
        never(&pod.main()).await
    })
    .await;
    is_error(&result, &["container main cannot start", &image]);
}

/// Carries connections to the API server until they are cut.
struct Wire {
    /// A kubeconfig that leads through the wire.
    target: Target,
    connections: Arc<Mutex<JoinSet<()>>>,
    _folder: tempfile::TempDir,
}

impl Wire {
    async fn new() -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(kubeconfig())?;
        let server = text
            .split("https://")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next());
        let server = server.expect("a server").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let folder = tempfile::TempDir::new()?;
        let path = folder.path().join("kubeconfig");
        std::fs::write(&path, text.replace(&server, &listener.local_addr()?.to_string()))?;
        let connections = Arc::new(Mutex::new(JoinSet::new()));
        let carried = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let server = server.clone();
                carried.lock().expect("no panic").spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(server).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Ok(Self {
            target: Target::Own(path),
            connections,
            _folder: folder,
        })
    }

    fn cut(&self) {
        self.connections.lock().expect("no panic").abort_all();
    }
}

#[tokio::test]
async fn connections_that_are_cut_lose_no_line() {
    let wire = Wire::new().await.expect("a wire");
    let spec = r#"  containers:
  - name: main
    image: localhost/sidecheck/busybox:v1
    command: [sh, -c, 'for i in $(seq 300); do echo line $i; sleep 0.01; done; echo end; exec sleep 1000']
"#;
    let result = outcome(spec, Some(wire.target.clone()), async |pod| {
        let main = pod.main();
        for line in ["line 50", "line 150", "line 250"] {
            main.given().prints_line(line, |text| text == line).await?;
            wire.cut();
        }
        main.expect("every line").numbered_lines(300, "end").await
    })
    .await;
    assert_eq!(result.outcome, OutcomeKind::Met, "{result:#?}");
}

/// Stands before the API server and refuses every third request.
struct Throttle {
    target: Target,
    requests: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
}

impl Throttle {
    /// What a busy API server answers.
    const REFUSAL: &str = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n\
        {\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\"reason\":\"TooManyRequests\",\"code\":429,\
        \"message\":\"Too many requests, please try again later.\"}";

    async fn new() -> anyhow::Result<Self> {
        // Without TLS, requests can be told apart here; the node's own kubectl has the credentials.
        let port = 20_000 + std::process::id() % 10_000;
        let proxy = format!(
            "timeout 300 kubectl --kubeconfig /etc/kubernetes/admin.conf proxy --address 0.0.0.0 --port {port} --disable-filter >/run/{port} 2>&1 &
            until grep -q Starting /run/{port}; do sleep 0.1; done; hostname -i"
        );
        let addresses = on_node(&proxy).await?;
        let server = format!("{}:{port}", addresses.split_whitespace().next().unwrap_or_default());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "throttled",
            "contexts": [{"name": "throttled", "context": {"cluster": "throttled", "user": "nobody"}}],
            "clusters": [{"name": "throttled", "cluster": {"server": format!("http://{}", listener.local_addr()?)}}],
            "users": [{"name": "nobody", "user": {}}],
        });
        let folder = tempfile::TempDir::new()?;
        let path = folder.path().join("kubeconfig");
        std::fs::write(&path, kubeconfig.to_string())?;
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(Self::carry(near, server.clone(), Arc::clone(&counted)));
            }
        });
        Ok(Self {
            target: Target::Own(path),
            requests,
            _folder: folder,
        })
    }

    /// Carries one request: each has a connection of its own.
    async fn carry(mut near: TcpStream, server: String, requests: Arc<AtomicUsize>) -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(near.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head);
        let lower = head.to_lowercase();
        if requests.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
            let length = lower
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.lines().next());
            let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
            near.read_exact(&mut body).await?;
            return near.write_all(Self::REFUSAL.as_bytes()).await;
        }
        let head = if lower.contains("\r\nupgrade: ") {
            head.into_owned()
        } else {
            head.replacen("\r\n", "\r\nConnection: close\r\n", 1)
        };
        let mut far = TcpStream::connect(server).await?;
        far.write_all(head.as_bytes()).await?;
        tokio::io::copy_bidirectional(&mut near, &mut far).await.map(drop)
    }
}

#[tokio::test]
async fn an_api_server_that_refuses_every_third_request_for_now_makes_a_run_slower_and_no_worse() {
    let throttle = Throttle::new().await.expect("a proxy");
    let begun = std::time::Instant::now();
    let result = outcome(AGENT, Some(throttle.target.clone()), async |pod| {
        let main = pod.main();
        main.arrange(agent::append("/dev/stdout", 50)).await?;
        for _ in 0..5 {
            let output = main.exec(&["/agent", "--once", "say again"]).await?;
            main.expect("its command succeeds")
                .holds(output.code == 0, "exit code 0", output.stderr)?;
        }
        main.arrange(agent::append_text("/dev/stdout", "end")).await?;
        main.expect("every line").numbered_lines(50, "end").await?;
        main.end_by(agent::exit(1)).await?;
        pod.deleted().await?;
        Ok(())
    })
    .await;
    let requests = throttle.requests.load(Ordering::Relaxed);
    eprintln!("{requests} requests in {:?}", begun.elapsed());
    assert_eq!(result.outcome, OutcomeKind::Met, "{result:#?}");
    assert!(requests > 20, "{requests} requests only");
}

#[tokio::test]
async fn a_container_that_restarts_by_itself_is_an_error_with_its_last_words() {
    let result = outcome(AGENT, None, async |pod| {
        let (main, before) = (pod.main(), pod.main().run()?);
        // Behind the harness's back: it does not know that the check does this.
        main.exec(&["/agent", "--once", "signal 1 TERM"]).await?;
        main.given().restarts(&before).await?;
        Ok(())
    })
    .await;
    is_error(
        &result,
        &["container main of Pod app was restarted although nothing ended it"],
    );
}

#[tokio::test]
async fn a_crash_that_is_the_finding_is_not_met() {
    let result = outcome_with(AGENT, "crash: not met\n", None, async |pod| {
        let (main, before) = (pod.main(), pod.main().run()?);
        main.exec(&["/agent", "--once", "signal 1 TERM"]).await?;
        main.given().restarts(&before).await?;
        Ok(())
    })
    .await;
    assert_eq!(result.outcome, OutcomeKind::NotMet, "{result:#?}");
    assert!(
        result
            .observed
            .is_some_and(|observed| observed.contains("was restarted")),
        "no last words"
    );
}

#[tokio::test]
async fn what_the_check_arranges_is_never_not_met() {
    let result = outcome(AGENT, None, async |pod| {
        pod.main()
            .given()
            .within(Duration::from_secs(1))
            .prints_line("a line that never comes", |_| false)
            .await?;
        Ok(())
    })
    .await;
    is_error(
        &result,
        &["what the check needs at first did not come", "a line that never comes"],
    );
}

#[tokio::test]
async fn a_container_that_is_not_there_is_an_error() {
    let result = outcome(AGENT, None, async |pod| never(&pod.container("mian")).await).await;
    is_error(&result, &["Pod app has no container “mian”; it has: main"]);
}

#[tokio::test]
async fn a_hundred_thousand_lines_are_all_read() {
    const LINES: usize = 100_000;
    let result = outcome(AGENT, None, async |pod| {
        let main = pod.main();
        main.arrange(agent::append("/dev/stdout", LINES as u64).quietly())
            .await?;
        main.arrange(agent::append_text("/dev/stdout", "end")).await?;
        main.expect("every line")
            .within(Duration::from_secs(120))
            .numbered_lines(LINES, "end")
            .await
    })
    .await;
    assert_eq!(
        result.outcome,
        OutcomeKind::Met,
        "{:?} {:?}",
        result.reason,
        result.observed
    );
}

/// A policy that changes this run's Pods on admission, until it is dropped by [`Policy::remove`].
struct Policy {
    objects: Vec<(Api<DynamicObject>, String)>,
}

impl Policy {
    async fn new(name: &str, change: &str) -> Self {
        let (client, name, version) = (
            client().await,
            format!("{name}-{}", run()),
            "admissionregistration.k8s.io/v1",
        );
        let policy = json!({
            "apiVersion": version, "kind": "MutatingAdmissionPolicy", "metadata": {"name": name, "labels": {"sidecheck.dev/run": run()}},
            "spec": {
                "failurePolicy": "Fail", "reinvocationPolicy": "Never",
                "matchConstraints": {
                    "namespaceSelector": {"matchLabels": {"sidecheck.dev/run": run()}},
                    "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                },
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": change}}],
            },
        });
        let binding = json!({
            "apiVersion": version, "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name, "labels": {"sidecheck.dev/run": run()}}, "spec": {"policyName": name},
        });
        let mut objects = Vec::new();
        for object in [policy, binding] {
            let api = objects::api(&client, "", version, object["kind"].as_str().expect("a kind"))
                .await
                .expect("a kind");
            let object = serde_json::from_value(object).expect("an object");
            api.create(&PostParams::default(), &object).await.expect("created");
            objects.push((api, name.clone()));
        }
        Self { objects }
    }

    /// Waits until the policy is in force: the API server takes a moment.
    async fn applies(&self, changed: impl AsyncFn() -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while !changed().await {
            assert!(tokio::time::Instant::now() < deadline, "the policy is not applied");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn remove(self) {
        for (api, name) in self.objects {
            api.delete(&name, &DeleteParams::default()).await.expect("deleted");
        }
    }
}

#[tokio::test]
async fn a_container_that_admission_adds_is_named() {
    // The namespace refuses what asks for more than the fixture does.
    let change = r#"[JSONPatch{op: "add", path: "/spec/containers/0", value: Object.spec.containers{
        name: "mesh", image: "@IMAGE@",
        securityContext: Object.spec.containers.securityContext{
            allowPrivilegeEscalation: false, capabilities: Object.spec.containers.securityContext.capabilities{drop: ["ALL"]}
        }
    }}]"#;
    let image = images::address("localhost/sidecheck/agent:v1");
    let policy = Policy::new("adds", &change.replace("@IMAGE@", &image)).await;
    let met = async || outcome(AGENT, None, async |_| Ok(())).await;
    policy.applies(async || !met().await.notes.is_empty()).await;
    let (met, not_met) = (
        met().await,
        outcome(AGENT, None, async |pod| never(&pod.main()).await).await,
    );
    policy.remove().await;
    assert_eq!(
        (met.outcome, &met.notes[..]),
        (
            OutcomeKind::Met,
            &["admission added the container mesh to spec.containers".to_owned()][..]
        )
    );
    is_error(&not_met, &["admission added the container mesh"]);
}

#[tokio::test]
async fn a_pod_that_admission_changes_is_not_judged() {
    let change = r#"[JSONPatch{op: "add", path: "/spec/containers/0/args", value: ["control", "say changed"]}]"#;
    let policy = Policy::new("changes", change).await;
    let outcome = async || outcome(AGENT, None, async |_| Ok(())).await;
    policy
        .applies(async || outcome().await.outcome == OutcomeKind::Error)
        .await;
    let result = outcome().await;
    policy.remove().await;
    is_error(
        &result,
        &["the Pod was changed on admission", "spec.containers[main].args"],
    );
}
