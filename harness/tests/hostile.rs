//! The suite on a cluster that does everything to those who come: a plain one, with the kubelet's defaults, whose policies refuse, inject and limit.

mod common;

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::as_from_a_shell;
use futures::{FutureExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use sidecheck::cluster::engine::{self, Engine};
use sidecheck::cluster::{Cluster, Target, images, kind, objects};
use sidecheck::report::records::RunFolder;
use sidecheck::{environment, patience};
use tokio::task::AbortHandle;

/// kind's name for it, by which `sidecheck clean` and `down` know it as one of ours.
const NAME: &str = "sidecheck-hostile";

/// The file with what is in a folder beside this one.
fn documents(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile").join(name);
    let text = std::fs::read_to_string(path).expect("a file");
    serde_saphyr::from_multiple(&text).expect("YAML")
}

/// A plain cluster with a node for us and a tainted one; the node image is that of the cluster that the tests run on.
async fn make_cluster() -> PathBuf {
    let engine = Engine::chosen().expect("an engine");
    kind::delete(&engine, NAME).await.expect("there is none");
    let own = kind::name_of(&common::kubeconfig()).expect("a name");
    let mut inspect = engine.command();
    inspect.args([
        "inspect",
        "--format",
        "{{.Config.Image}}",
        &format!("{own}-control-plane"),
    ]);
    let inspected = engine::run(&mut inspect, patience::ENGINE).await.expect("a node");
    let image = String::from_utf8_lossy(&inspected.stdout).trim().to_owned();
    let config = environment::clusters().join(format!("{NAME}.yaml"));
    // Kubelets refuse hosts with cgroup v1 by default; a host is what it is.
    let kubelet = json!({
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "failCgroupV1": Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
    });
    let cluster = json!({
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [{"role": "control-plane"}, {"role": "worker"}],
        "kubeadmConfigPatches": [kubelet.to_string()],
    });
    std::fs::write(&config, cluster.to_string()).expect("a file");
    let kubeconfig = environment::clusters().join(format!("{NAME}.kubeconfig"));
    let mut create = engine.tool("kind");
    create
        .args(["create", "cluster", "--name", NAME, "--image", &image, "--wait", "300s"])
        .arg("--config")
        .arg(&config)
        .arg("--kubeconfig")
        .arg(&kubeconfig);
    engine::run(&mut create, patience::CREATE).await.expect("a cluster");
    let mut load = engine.tool("kind");
    load.args(["load", "image-archive", "--name", NAME])
        .arg(images::archive().await.expect("an archive"));
    engine::run(&mut load, patience::TRANSFER).await.expect("loaded");
    kubeconfig
}

/// The first node takes Pods, the other one only those of somebody else.
async fn taint(client: &Client) {
    let nodes: Api<Node> = Api::all(client.clone());
    for (name, taints) in [
        ("control-plane", json!(null)),
        (
            "worker",
            json!([{"key": "dedicated", "value": "others", "effect": "NoSchedule"}]),
        ),
    ] {
        let (name, patch) = (
            format!("{NAME}-{name}"),
            Patch::Merge(json!({"spec": {"taints": taints}})),
        );
        let patched = nodes.patch(&name, &PatchParams::default(), &patch).await;
        patched.expect("patched");
    }
}

async fn create(client: &Client, namespace: &str, object: &Value) -> kube::Result<DynamicObject> {
    let object: DynamicObject = serde_json::from_value(object.clone()).expect("an object");
    let types = object.types.clone().expect("a kind");
    let api = objects::api(client, namespace, &types.api_version, &types.kind)
        .await
        .expect("a kind");
    api.create(&PostParams::default(), &object).await
}

/// Gives each new namespace a LimitRange and a quota.
fn govern(client: Client) -> AbortHandle {
    let govern = async move {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let new = watcher(namespaces, watcher::Config::default())
            .default_backoff()
            .applied_objects();
        let mut new = std::pin::pin!(new);
        while let Ok(Some(namespace)) = new.try_next().await {
            let name = namespace.name_any();
            if !name.starts_with("kube-") && namespace.metadata.deletion_timestamp.is_none() {
                for object in documents("tenancy.yaml") {
                    // It may be there, or the namespace gone.
                    create(&client, &name, &object).await.ok();
                }
            }
        }
    };
    tokio::spawn(govern).abort_handle()
}

/// Waits until the policies bite: a namespace that says nothing is restricted, a Pod without limits is refused, and one that does not opt out
/// gets a container.
async fn is_hostile(client: &Client) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let limits = json!({"limits": {"cpu": "100m", "memory": "32Mi"}});
    let pod = |resources: &Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "guest"}, "spec": {"containers": [
            {"name": "main", "image": "localhost/sidecheck/agent:v1", "resources": resources},
        ]}})
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut number = 0;
    let found = loop {
        number += 1;
        let name = format!("guest-{number}");
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let made = create(client, "", &namespace).await.expect("a namespace");
        let is_restricted = made
            .labels()
            .get("pod-security.kubernetes.io/enforce")
            .is_some_and(|level| level == "restricted");
        let relaxed =
            Patch::Merge(json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}));
        namespaces
            .patch(&name, &PatchParams::default(), &relaxed)
            .await
            .expect("patched");
        let pods: Api<Pod> = Api::namespaced(client.clone(), &name);
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let without = pods
            .create(&dry, &serde_json::from_value(pod(&json!({}))).expect("a Pod"))
            .await;
        let refusal = without.err().map(|error| error.to_string()).unwrap_or_default();
        let opted_out = {
            let mut pod = pod(&limits);
            pod["metadata"]["labels"] = json!({"sidecar.istio.io/inject": "false"});
            pods.create(&dry, &serde_json::from_value(pod).expect("a Pod")).await
        };
        let injected = pods
            .create(&dry, &serde_json::from_value(pod(&limits)).expect("a Pod"))
            .await;
        let injected = injected.err().map(|error| error.to_string()).unwrap_or_default();
        namespaces
            .delete(&name, &DeleteParams::background())
            .await
            .expect("deleted");
        // The injected container has no limits of its own.
        let found = (is_restricted, refusal, opted_out.is_ok(), injected);
        let bites = |text: &str| text.contains("every container needs limits");
        if found.0 && bites(&found.1) && found.2 && bites(&found.3) {
            return;
        }
        if Instant::now() > deadline {
            break found;
        }
        tokio::time::sleep(patience::LOOK_AGAIN).await;
    };
    panic!("the cluster is not hostile: {found:?}");
}

#[tokio::test]
async fn alone_the_suite_is_never_wrong_on_a_hostile_cluster() {
    let kubeconfig = make_cluster().await;
    let outcome = AssertUnwindSafe(the_suite_is_never_wrong(&kubeconfig))
        .catch_unwind()
        .await;
    let engine = Engine::chosen().expect("an engine");
    kind::delete(&engine, NAME).await.expect("removed");
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

async fn the_suite_is_never_wrong(kubeconfig: &Path) {
    let target = Target::existing(Some(kubeconfig.to_owned()), None).expect("a kubeconfig");
    let client = Cluster::connect_to(target).await.expect("a cluster").client;
    taint(&client).await;
    for policy in documents("policies.yaml") {
        create(&client, "", &policy).await.expect("created");
    }
    is_hostile(&client).await;
    let governor = govern(client.clone());

    let run = format!("hostile-{}", std::process::id());
    let output = as_from_a_shell(env!("CARGO_BIN_EXE_sidecheck"))
        .args(["run", "--kubeconfig"])
        .arg(kubeconfig)
        .env(environment::RUN, &run)
        .env_remove(environment::KUBECONFIG)
        .stdin(Stdio::null())
        .output()
        .expect("the command");
    governor.abort();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let folder = RunFolder::new(&environment::results(), &run);
    let report: Value = folder
        .read("report.json")
        .unwrap_or_else(|| panic!("no report: {text}"));
    let checks = report["checks"].as_array().expect("checks");
    let other: Vec<&Value> = checks
        .iter()
        .filter(|check| check["outcome"] != "met")
        .filter(|check| {
            !check["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains("changes the whole cluster"))
        })
        .collect();
    assert!(other.is_empty(), "{text}");
    assert!(checks.len() > 100, "{text}");
}
