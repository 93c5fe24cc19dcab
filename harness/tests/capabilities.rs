//! What the harness finds out about a real cluster, with all rights and with few.

mod common;

use std::collections::BTreeSet;

use common::account::Account;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use sidecheck::cluster::Cluster;
use sidecheck::cluster::capabilities::{Answer, Capabilities, of_run, probe};
use sidecheck::cluster::namespace::RUN_LABEL;
use sidecheck::fixture::Need;
use sidecheck::report::records::RunFolder;
use tempfile::TempDir;

async fn cluster() -> Cluster {
    Cluster::connect().await.expect("a cluster")
}

fn needs(words: &[&str]) -> BTreeSet<Need> {
    words.iter().map(|word| word.parse().expect("a need")).collect()
}

/// A run's id that no other test has.
fn run(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

fn answer<'a>(capabilities: &'a Capabilities, word: &str) -> &'a Answer {
    let need = word.parse().expect("a need");
    capabilities.answer(&need).expect("an answer")
}

/// The namespaces of the run that nobody has deleted yet.
async fn left(client: &Client, run: &str) -> Vec<String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let of_run = ListParams::default().labels(&format!("{RUN_LABEL}={run}"));
    let left = namespaces.list(&of_run).await.expect("a list");
    left.iter()
        .filter(|namespace| namespace.metadata.deletion_timestamp.is_none())
        .map(ResourceExt::name_any)
        .collect()
}

#[tokio::test]
async fn every_need_has_an_answer_on_a_cluster_of_ones_own() {
    let (cluster, run) = (cluster().await, run("all-rights"));
    let available = [
        "exec",
        "port-forward",
        "own-cluster",
        "create deployments.apps",
        "create pods",
    ];
    let lacking = ["feature-gate NoSuchGate", "create nothings.example.com"];
    let either = ["ipv6", "network-policy", "two-nodes"];
    let all = needs(&[&available[..], &lacking, &either].concat());
    let found = probe(&cluster, &run, &all).await.expect("answers");
    for word in available {
        assert_eq!(*answer(&found, word), Answer::Available, "{word}");
    }
    for word in lacking {
        assert!(matches!(answer(&found, word), Answer::Lacking(_)), "{word}");
    }
    for word in either {
        assert!(!matches!(answer(&found, word), Answer::Unknown(_)), "{word}");
    }
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let nodes = nodes.list(&ListParams::default()).await.expect("nodes").items.len();
    assert_eq!(*answer(&found, "two-nodes") == Answer::Available, nodes > 1);
    assert!(left(&cluster.client, &run).await.is_empty());
}

#[tokio::test]
async fn a_need_is_asked_for_once_in_a_run() {
    let (cluster, results) = (cluster().await, TempDir::new().expect("a folder"));
    let folder = RunFolder::new(results.path(), &run("once"));
    let known = json!({"two-nodes": {"lacking": "as it was found before"}});
    folder.write("capabilities.json", &known).expect("written");
    let (one, other) = (needs(&["two-nodes", "create pods"]), needs(&["create pods"]));
    let (run, ask) = (folder.id(), async |needs| {
        of_run(&folder, &cluster, &folder.id(), &[], needs)
            .await
            .expect("answers")
    });
    let (first, second) = tokio::join!(ask(&one), ask(&other));
    let before = Answer::Lacking("as it was found before".to_owned());
    assert_eq!(*answer(&first, "two-nodes"), before);
    assert_eq!(*answer(&second, "create pods"), Answer::Available);
    assert_eq!(folder.read::<Capabilities>("capabilities.json"), Some(first));
    assert!(left(&cluster.client, &run).await.is_empty());
}

#[tokio::test]
async fn what_an_account_may_not_find_out_is_unknown() {
    let account = Account::create("no-rights", json!([])).await;
    let words = [
        "feature-gate SidecarContainers",
        "ipv6",
        "network-policy",
        "two-nodes",
        "exec",
        "port-forward",
        "create deployments.apps",
    ];
    let found = probe(&account.cluster().await, &account.name, &needs(&words)).await;
    let name = account.name.clone();
    account.remove().await;
    let found = found.expect("answers");
    for word in words {
        let Answer::Unknown(reason) = answer(&found, word) else {
            panic!("{word}: {found:?}");
        };
        let why = match word {
            "create deployments.apps" => format!("this account may not {word}"),
            "two-nodes" => "this account may not list nodes".to_owned(),
            _ => name.clone(),
        };
        assert!(reason.contains(&why), "{word}: {reason}");
    }
}

#[tokio::test]
async fn an_account_that_may_create_pods_may_still_not_reach_into_them() {
    let rules = json!([
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["create", "delete"]},
        {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["create", "patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "get", "list", "watch"]},
    ]);
    let account = Account::create("few-rights", rules).await;
    let words = ["ipv6", "exec", "port-forward", "network-policy"];
    let found = probe(&account.cluster().await, &account.name, &needs(&words)).await;
    let left = left(&account.client, &account.name).await;
    account.remove().await;
    let found = found.expect("answers");
    assert!(!matches!(answer(&found, "ipv6"), Answer::Unknown(_)), "{found:?}");
    let may_not = |what: &str| Answer::Unknown(format!("this account may not {what}"));
    assert_eq!(*answer(&found, "exec"), may_not("run commands in containers"));
    assert_eq!(*answer(&found, "network-policy"), may_not("run commands in containers"));
    assert_eq!(*answer(&found, "port-forward"), may_not("forward ports of Pods"));
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn an_account_that_is_no_longer_valid_is_an_error() {
    let account = Account::create("expired", json!([])).await;
    let cluster = account.cluster().await;
    // Its tokens end with it.
    account
        .accounts()
        .delete(&account.name, &DeleteParams::default())
        .await
        .expect("removed");
    let found = probe(&cluster, &account.name, &needs(&["two-nodes"])).await;
    account.remove().await;
    let error = format!("{:#}", found.expect_err("an error"));
    assert!(error.contains("cannot list the nodes"), "{error}");
    assert!(error.contains("Unauthorized"), "{error}");
}
