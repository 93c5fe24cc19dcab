//! What an existing cluster, and an account there, have and lack.

use std::collections::BTreeSet;
use std::time::SystemTime;

use anyhow::Context;
use k8s_openapi::jiff::Timestamp;
use sidecheck::cluster::capabilities::{self, Answer};
use sidecheck::cluster::{Cluster, Target, images, rights};
use sidecheck::display::explained;
use sidecheck::environment;
use sidecheck::fixture::{self, Fixture, Need, Shape};
use sidecheck::report::records::RunFolder;
use sidecheck::scenario::{Setting, rehearse};
use tempfile::TempDir;

use super::{Row, State, count};

/// The first version with native sidecars
/// (<https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/>).
const NATIVE_SINCE: &str = "1.29";

/// By how many seconds clocks may differ before it shows.
const SAME_TIME: i64 = 5;

pub(super) async fn examine(target: Target, namespaces: &[String]) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let cluster = Cluster::connect_to(target).await?;
    let version = match cluster.version().await {
        Ok(version) => version,
        Err(error) => {
            let remedy = "look at the kubeconfig: its server, and the account's credentials";
            rows.push(Row::without(
                State::Missing,
                "API server",
                explained(&error),
                "nothing runs",
                remedy,
            ));
            return Ok(rows);
        }
    };
    rows.push(match capabilities::older_than(&version, NATIVE_SINCE) {
        None => Row::ok("API server", format!("{version}, {}", cluster.target)),
        Some(reason) => {
            let costs = count("not applicable", |_, shape| shape == Shape::Native)?.unwrap_or_default();
            Row::without(
                State::Lacking,
                "API server",
                reason,
                &costs,
                "a newer version of Kubernetes",
            )
        }
    });
    rows.push(clock(&cluster).await?);
    rows.extend(nodes(&cluster, &version).await?);
    let missing = rights::missing(&cluster.client, namespaces).await?;
    if !missing.is_empty() {
        let listed: Vec<String> = missing.iter().map(|(right, _)| right.to_string()).collect();
        let found = format!("the account lacks {}", listed.join(", "));
        rows.push(Row::without(
            State::Missing,
            "rights",
            found,
            "nothing runs",
            "docs/rbac has roles with all of them",
        ));
        return Ok(rows);
    }
    rows.push(Row::ok("rights", "all that every check needs"));
    let folder = TempDir::new()?;
    let run = format!("doctor-{}", std::process::id());
    let setting = Setting {
        folder: RunFolder::new(folder.path(), &run),
        run,
        ..Setting::from_environment()?
    };
    if let Err(error) = rehearse(&setting, &cluster).await {
        let remedy = "push the images with `sidecheck images push`, and name the place with --image-prefix; see docs/clusters.md";
        rows.push(Row::without(
            State::Missing,
            "Pods",
            explained(&error),
            "nothing runs",
            remedy,
        ));
        return Ok(rows);
    }
    rows.push(Row::ok(
        "Pods",
        format!(
            "the images (tag {}) run, and commands, ports and logs come through",
            images::tag()
        ),
    ));
    rows.extend(needs(&setting, &cluster).await?);
    Ok(rows)
}

/// The API server's clock beside this machine's.
async fn clock(cluster: &Cluster) -> anyhow::Result<Row> {
    let theirs = cluster
        .time()
        .await
        .context("the API server does not say what time it is")?;
    let ours = Timestamp::try_from(SystemTime::now())?;
    let apart = theirs.as_second() - ours.as_second();
    Ok(if apart.abs() <= SAME_TIME {
        Row::ok("clock", "the same time here and there")
    } else {
        let found = format!("the API server's is {apart} s from this machine's");
        Row::without(
            State::Lacking,
            "clock",
            found,
            "no check; times in the report do not fit those here",
            "set the clocks",
        )
    })
}

/// How many nodes there are, and whether the images fit them.
async fn nodes(cluster: &Cluster, version: &str) -> anyhow::Result<Vec<Row>> {
    let Some(nodes) = cluster.nodes().await? else {
        let costs = "no check; trouble on a node may not be told apart from a cluster's fault";
        return Ok(vec![Row::without(
            State::Unknown,
            "nodes",
            "the account may not list them",
            costs,
            "docs/rbac/cluster.yaml",
        )]);
    };
    let info = || nodes.iter().filter_map(|node| node.status.as_ref()?.node_info.as_ref());
    let architectures: BTreeSet<&str> = info().map(|info| info.architecture.as_str()).collect();
    let kubelets: BTreeSet<&str> = info().map(|info| info.kubelet_version.as_str()).collect();
    let listed = |values: &BTreeSet<&str>| values.iter().copied().collect::<Vec<_>>().join(", ");
    let mut rows = vec![Row::ok(
        "nodes",
        format!(
            "{}, {}, kubelets {}",
            nodes.len(),
            listed(&architectures),
            listed(&kubelets)
        ),
    )];
    if !architectures.contains(images::architecture()) {
        rows.push(Row::without(
            State::Missing,
            "architecture",
            format!(
                "the images are for {}, the nodes are {}",
                images::architecture(),
                listed(&architectures)
            ),
            "nothing runs",
            "build and push the images on a machine of that architecture",
        ));
    }
    let minor = |version: &str| version.split('.').take(2).collect::<Vec<_>>().join(".");
    if kubelets.iter().any(|kubelet| minor(kubelet) != minor(version)) {
        rows.push(Row::without(
            State::Lacking,
            "version skew",
            format!("the API server is {version}, kubelets are {}", listed(&kubelets)),
            "no check; what is met may hold for one of the versions only",
            "finish the upgrade",
        ));
    }
    Ok(rows)
}

/// What some checks need.
async fn needs(setting: &Setting, cluster: &Cluster) -> anyhow::Result<Vec<Row>> {
    let root = environment::root().join("fixtures");
    let mut all = BTreeSet::new();
    for id in fixture::ids(&root)? {
        all.extend(of_fixture(&Fixture::load(&root, &id)?, setting));
    }
    let found = capabilities::of_run(&setting.folder, cluster, &setting.run, &setting.namespaces, &all).await?;
    let mut rows = Vec::new();
    for need in &all {
        let needs_it = |fixture: &Fixture, _| of_fixture(fixture, setting).contains(need);
        let (state, reason, outcome) = match found.answer(need) {
            Some(Answer::Lacking(reason)) => (State::Lacking, reason.clone(), "not applicable"),
            Some(Answer::Unknown(reason)) => (State::Unknown, reason.clone(), "skipped"),
            _ => {
                rows.push(Row::ok("need", need.to_string()));
                continue;
            }
        };
        let costs = count(outcome, needs_it)?.unwrap_or_default();
        let remedy = match need {
            Need::Create(_) => "docs/rbac has roles with this right",
            Need::OwnCluster => "run the suite on a cluster of its own too",
            _ => "a cluster that has it",
        };
        rows.push(Row::without(state, "need", reason, &costs, remedy));
    }
    Ok(rows)
}

/// What a check needs beyond Pods.
fn of_fixture(fixture: &Fixture, setting: &Setting) -> BTreeSet<Need> {
    let mut needs = fixture.needs();
    needs.extend(fixture.creates(!setting.namespaces.is_empty()));
    needs
}
