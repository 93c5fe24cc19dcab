//! What this machine has and lacks for clusters of its own.

use std::fs;

use anyhow::{Context, ensure};
use sidecheck::cluster::engine::{self, Engine};
use sidecheck::cluster::kind::{self, KindCluster};
use sidecheck::cluster::versions::KubernetesVersion;
use sidecheck::display::explained;
use sidecheck::{environment, patience};

use super::{Row, State};

/// How many inotify instances a user of a machine with kind clusters should have; each node's kubelet, and each log that is followed, takes some
/// (<https://kind.sigs.k8s.io/docs/user/known-issues/>).
const INOTIFY_INSTANCES: u32 = 128;

const NO_CLUSTER: &str = "no cluster of its own";
const SET_UP: &str = "run scripts/setup";

pub(super) async fn examine() -> Vec<Row> {
    let mut rows = Vec::new();
    match Engine::chosen() {
        Err(error) => rows.push(Row::without(
            State::Missing,
            "engine",
            explained(&error),
            "no cluster of its own; an image is judged on an existing cluster only",
            SET_UP,
        )),
        Ok(engine) => {
            rows.push(Row::tried("engine", works(&engine).await, NO_CLUSTER, SET_UP));
            rows.push(Row::tried(
                "kind",
                version_of(&engine, "kind", &["version"]).await,
                NO_CLUSTER,
                SET_UP,
            ));
            let nextest = version_of(&engine, "cargo-nextest", &["nextest", "--version"]).await;
            rows.push(Row::tried("nextest", nextest, "nothing runs", SET_UP));
        }
    }
    let disk = kind::enough_disk(&environment::cache()).map(|()| "enough for a cluster".to_owned());
    rows.push(Row::tried(
        "disk",
        disk,
        NO_CLUSTER,
        "make room, or set XDG_CACHE_HOME to a folder elsewhere",
    ));
    rows.push(Row::tried(
        "inotify",
        inotify(),
        "logs cannot be followed, and kubelets do not start",
        &format!("sysctl fs.inotify.max_user_instances={}", INOTIFY_INSTANCES * 4),
    ));
    rows.extend(clusters().await);
    rows
}

async fn works(engine: &Engine) -> anyhow::Result<String> {
    engine.probe().await?;
    engine.runs_privileged().await?;
    Ok(format!("{} runs privileged containers", engine.program()))
}

async fn version_of(engine: &Engine, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = engine::run(engine.tool(program).args(arguments), patience::ENGINE).await?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned())
}

fn inotify() -> anyhow::Result<String> {
    let text = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances")?;
    let instances: u32 = text.trim().parse().context("the kernel's limit is no number")?;
    ensure!(
        instances >= INOTIFY_INSTANCES,
        "a user has {instances} instances, and a cluster needs {INOTIFY_INSTANCES}"
    );
    Ok(format!("{instances} instances for a user"))
}

/// The clusters that exist; a dead one is replaced when it is needed.
async fn clusters() -> Vec<Row> {
    let mut rows = Vec::new();
    for version in KubernetesVersion::all() {
        let Ok(cluster) = KindCluster::new(version) else {
            continue;
        };
        if !cluster.kubeconfig().exists() {
            continue;
        }
        let name = cluster.name();
        rows.push(match cluster.connect().await {
            Ok(_) => Row::ok("cluster", format!("{name} answers")),
            Err(error) => Row::without(
                State::Missing,
                "cluster",
                format!("{name} is dead: {}", explained(&error)),
                "it takes some seconds more to begin",
                "the next `sidecheck up` makes it anew",
            ),
        });
    }
    rows
}
