//! Before the first check on somebody else's cluster: its nodes have the images, and connections to Pods come through.
//!
//! What fails here would fail in every check, and would take its time from each.

use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use futures::future::try_join_all;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::interruption::Interruption;
use super::{Setting, apply, namespace};
use crate::agent as statement;
use crate::cluster::namespace::unique;
use crate::cluster::{Cluster, images, placement};
use crate::fixture::{self, PodSecurity};
use crate::pod::{ScenarioPod, Scene};

/// The container that connections are tried with, and its port.
const AGENT: &str = "agent";
const PORT: u16 = 9000;

/// The label of a node that names it (<https://kubernetes.io/docs/reference/labels-annotations-taints/>).
const HOST_NAME: &str = "kubernetes.io/hostname";

/// On how many nodes the images are pulled ahead of the checks; other nodes pull them when they are needed.
const NODES: usize = 10;

/// Runs each of the fixtures' images once on each node that takes Pods, and connects to them.
///
/// # Errors
/// What does not work, and on which node.
pub async fn rehearse(setting: &Setting, cluster: &Cluster) -> anyhow::Result<()> {
    let nodes = cluster.nodes().await?.unwrap_or_default();
    let mut hosts = Vec::new();
    for node in &nodes {
        if placement::takes_pods(node)? {
            hosts.extend(node.labels().get(HOST_NAME).cloned());
        }
    }
    hosts.truncate(NODES);
    let (interruption, life) = (
        Interruption::listen(&setting.folder),
        format!("{:08x}", unique() as u32),
    );
    let mut objects = match &hosts[..] {
        // Who may not list the nodes leaves it to the scheduler.
        [] => vec![pod("rehearsal", None)?],
        hosts => hosts
            .iter()
            .zip(1..)
            .map(|(host, number)| pod(&format!("rehearsal-{number}"), Some(host)))
            .collect::<anyhow::Result<_>>()?,
    };
    let names: Vec<String> = objects
        .iter()
        .filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned()))
        .collect();
    let nonces = apply::prepare(&mut objects, &setting.run, &life)?;
    let claim = namespace::claim(&cluster.client, setting, &life, false, PodSecurity::Restricted).await?;
    let scene = Scene::watch_life(cluster.client.clone(), claim.name(), &life, nonces);
    let mut applied = Vec::new();
    let rehearsed = async {
        for object in objects {
            applied.push(apply::create(&cluster.client, claim.name(), object).await?);
        }
        try_join_all(names.iter().map(|name| connects(&scene, name))).await
    };
    let rehearsed = tokio::select! {
        rehearsed = rehearsed => rehearsed.map(drop),
        why = interruption.or_too_long(&scene) => Err(anyhow!(why)),
    };
    claim.clear(&cluster.client, &applied, &life, false).await?;
    rehearsed
}

/// A Pod with a container of each image, on that host if one is given.
fn pod(name: &str, host: Option<&str>) -> anyhow::Result<Value> {
    let mut containers = Vec::new();
    for image in images::names()? {
        let short = images::short(&image);
        let mut container = match short {
            // It has no agent.
            "specimen" => json!({"command": ["specimen", "idle"]}),
            AGENT => json!({"args": [format!("control {PORT}")], "ports": [{"name": "agent", "containerPort": PORT}]}),
            _ => json!({"command": ["agent"]}),
        };
        container["name"] = short.into();
        container["image"] = image.clone().into();
        containers.push(container);
    }
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": containers},
    });
    if let Some(host) = host {
        pod["spec"]["nodeSelector"] = json!({HOST_NAME: host});
    }
    fixture::complete(&mut pod, &[]);
    Ok(pod)
}

/// The Pod becomes ready; a command, a request and a log come through.
async fn connects(scene: &Arc<Scene>, pod: &str) -> anyhow::Result<()> {
    const ADVICE: &str = "something between here and the cluster does not let connections to Pods through";
    let pod = ScenarioPod::new(Arc::clone(scene), pod, AGENT, &[]);
    pod.ready().await?;
    let agent = pod.container(AGENT);
    let what = || format!("a command in a container of Pod {} cannot be run: {ADVICE}", pod.name());
    let output = agent.exec(&["agent", "--once", "say run"]).await.with_context(what)?;
    ensure!(output.code == 0, "{}: {}", what(), output.stderr);
    let what = || format!("a port of Pod {} cannot be forwarded: {ADVICE}", pod.name());
    agent
        .arrange(statement::say("forwarded", ""))
        .await
        .with_context(what)?;
    let what = format!("the log of Pod {} cannot be followed", pod.name());
    agent.given().records("forwarded", |_| true).await.context(what)?;
    Ok(())
}
