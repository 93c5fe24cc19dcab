//! The command on a cluster that is somebody else's: with few rights, in namespaces that were there before.

mod common;

use std::process::Output;
use std::time::{Duration, Instant};

use common::account::Account;
use common::{as_from_a_shell, says};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sidecheck::cluster::namespace::RUN_LABEL;
use sidecheck::cluster::{Cluster, rights};
use sidecheck::environment;
use sidecheck::scenario::Leftovers;

/// Namespaces of somebody else, with an object in each that is none of ours.
struct Theirs {
    client: Client,
    names: Vec<String>,
}

impl Theirs {
    async fn create(names: &[&str]) -> Self {
        let client = Cluster::connect().await.expect("a cluster").client;
        let names: Vec<String> = names
            .iter()
            .map(|name| format!("{name}-{}", std::process::id()))
            .collect();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        for name in &names {
            let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace");
            namespaces
                .create(&PostParams::default(), &namespace)
                .await
                .expect("created");
            let map = serde_json::from_value(json!({"metadata": {"name": "theirs"}})).expect("a ConfigMap");
            let maps: Api<ConfigMap> = Api::namespaced(client.clone(), name);
            maps.create(&PostParams::default(), &map).await.expect("created");
        }
        Self { client, names }
    }

    /// What of ours is in them, and whether theirs is still there.
    async fn holds(&self) -> (Vec<String>, bool) {
        let (mut ours, mut theirs) = (Vec::new(), true);
        for namespace in &self.names {
            ours.extend(self.labelled::<Pod>(namespace).await);
            ours.extend(self.labelled::<ConfigMap>(namespace).await);
            ours.extend(self.labelled::<Service>(namespace).await);
            let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
            theirs &= maps.get_opt("theirs").await.expect("an answer").is_some();
        }
        (ours, theirs)
    }

    async fn labelled<K>(&self, namespace: &str) -> Vec<String>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let listed = api
            .list(&ListParams::default().labels(RUN_LABEL))
            .await
            .expect("a list");
        listed.iter().map(ResourceExt::name_any).collect()
    }

    async fn remove(self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for name in &self.names {
            namespaces
                .delete(name, &DeleteParams::background())
                .await
                .expect("deleted");
        }
    }
}

/// The rules of a role in `docs/rbac`.
fn rules(file: &str) -> Value {
    let path = environment::root().join("docs/rbac").join(file);
    let role: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).expect("a file")).expect("YAML");
    role["rules"].clone()
}

/// A call of the command as that account.
async fn call(account: &Account, arguments: &[&str]) -> Output {
    let mut command = as_from_a_shell(env!("CARGO_BIN_EXE_sidecheck"));
    command
        .args(arguments)
        .arg("--kubeconfig")
        .arg(account.kubeconfig().await)
        .env_remove(environment::KUBECONFIG);
    command.output().expect("the command")
}

#[tokio::test]
async fn an_account_that_is_bound_to_namespaces_works_there_and_leaves_nothing() {
    let theirs = Theirs::create(&["theirs", "theirs-too"]).await;
    let account = Account::bound("bound", &theirs.names, &rules("namespace.yaml")).await;
    let namespaces = theirs.names.join(",");
    let checks = [
        "logging/every-line",
        "timestamped-page/reached-through",
        "validate/logging/every-line",
    ];
    let arguments = [&["run", "--namespace", &namespaces], &checks[..]].concat();
    let output = call(&account, &arguments).await;
    let holds = theirs.holds().await;
    account.remove().await;
    theirs.remove().await;
    says(&output, 0, &["6 passed, 0 failed, 0 skipped"]);
    assert_eq!(holds, (vec![], true));
}

#[tokio::test]
async fn an_account_that_makes_namespaces_needs_no_more_than_the_documented_role() {
    let account = Account::create("maker", rules("cluster.yaml")).await;
    let output = call(&account, &["run", "logging/every-line", "validate/logging/every-line"]).await;
    account.remove().await;
    says(&output, 0, &["4 passed, 0 failed, 0 skipped"]);
}

/// The rules without that verb on that resource.
fn without(rules: &Value, resource: &str, verb: &str) -> Value {
    let mut rules = rules.as_array().expect("rules").clone();
    for rule in &mut rules {
        if rule["resources"]
            .as_array()
            .is_some_and(|known| known.contains(&json!(resource)))
        {
            let verbs = rule["verbs"].as_array_mut().expect("verbs");
            verbs.retain(|known| known != verb);
        }
    }
    // A rule without verbs is refused.
    rules.retain(|rule| rule["verbs"] != json!([]));
    rules.into()
}

#[tokio::test]
async fn each_right_that_is_missing_is_told_and_nothing_is_created() {
    let theirs = Theirs::create(&["few"]).await;
    let all = rules("namespace.yaml");
    let needed = [
        ("pods", "create get list watch patch delete deletecollection"),
        ("pods/log", "get"),
        ("events", "list"),
        ("configmaps", "create list patch delete"),
    ];
    for (resource, verbs) in needed {
        for verb in verbs.split(' ') {
            let rules = without(&all, resource, verb);
            let account = Account::bound(
                &format!("no-{verb}-{}", resource.replace('/', "-")),
                &theirs.names,
                &rules,
            )
            .await;
            let cluster = account.cluster().await;
            let missing = rights::missing(&cluster.client, &theirs.names)
                .await
                .expect("an answer");
            account.remove().await;
            let told: Vec<String> = missing.iter().map(|(right, _)| right.to_string()).collect();
            assert_eq!(told, [format!("{verb} {resource}")]);
        }
    }
    let rules = without(&without(&all, "pods/exec", "create"), "pods/exec", "get");
    let account = Account::bound("no-exec", &theirs.names, &rules).await;
    let namespace = theirs.names[0].clone();
    let begun = Instant::now();
    let output = call(&account, &["run", "--namespace", &namespace, "logging/every-line"]).await;
    let duration = begun.elapsed();
    let everywhere = call(&account, &["run", "logging/every-line"]).await;
    let holds = theirs.holds().await;
    account.remove().await;
    theirs.remove().await;
    let lacks = format!(
        "nothing was created. It lacks
  create pods/exec in the namespace {namespace}
  create pods/portforward in the namespace {namespace}
docs/rbac/namespace.yaml has all the rights"
    );
    says(&output, 2, &[&lacks]);
    says(
        &everywhere,
        2,
        &["create namespaces in every namespace", "names them with --namespace"],
    );
    assert_eq!(holds, (vec![], true));
    assert!(duration < Duration::from_secs(30), "{duration:?}");
}

#[tokio::test]
async fn what_an_account_may_not_create_is_skipped_by_the_checks_that_need_it() {
    let theirs = Theirs::create(&["no-services"]).await;
    let rules = without(&rules("namespace.yaml"), "services", "create");
    let account = Account::bound("no-services", &theirs.names, &rules).await;
    let arguments = [
        "run",
        "--namespace",
        &theirs.names[0],
        "timestamped-page/reached-through",
    ];
    let output = call(&account, &arguments).await;
    account.remove().await;
    theirs.remove().await;
    says(
        &output,
        0,
        &["this account may not create services", "0 passed, 0 failed, 2 skipped"],
    );
}

#[tokio::test]
async fn what_was_to_stay_goes_with_clean_and_what_is_held_by_others_is_named() {
    let theirs = Theirs::create(&["kept"]).await;
    let account = Account::bound("kept", &theirs.names, &rules("namespace.yaml")).await;
    let namespace = theirs.names[0].clone();
    let check = "logging/every-line@native";
    let run = call(&account, &["run", "--namespace", &namespace, "--keep", "always", check]).await;
    let kept = theirs.holds().await;
    let pods: Api<Pod> = Api::namespaced(theirs.client.clone(), &namespace);
    let hold = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/hold"]}}));
    pods.patch("app", &PatchParams::default(), &hold).await.expect("held");
    let leftovers = Leftovers {
        client: &theirs.client,
        run: None,
        namespaces: &theirs.names,
    };
    leftovers.remove().await.expect("asked");
    let held = leftovers.wait_until_gone(Duration::from_secs(3)).await;
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    pods.patch("app", &PatchParams::default(), &release)
        .await
        .expect("released");
    let clean = call(&account, &["clean", "--namespace", &namespace]).await;
    let holds = theirs.holds().await;
    account.remove().await;
    theirs.remove().await;
    says(&run, 0, &["1 passed"]);
    assert!(kept.0.contains(&"app".to_owned()), "{kept:?}");
    let told = format!("Pod app in the namespace {namespace} is held by example.com/hold");
    assert!(held.expect_err("held").to_string().contains(&told));
    says(&clean, 0, &[]);
    assert_eq!(holds, (vec![], true));
}
