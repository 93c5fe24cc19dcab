//! Fixtures in namespaces that enforce a Pod Security Standard, on a real cluster.

mod common;

use std::collections::BTreeMap;

use common::{fixture, run, setting};
use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, ResourceExt};
use sidecheck::cluster::{Cluster, namespace};
use sidecheck::environment;
use sidecheck::fixture::{Fixture, PodSecurity, ids};
use sidecheck::report::model::{CheckResult, OutcomeKind, TwinOutcome};
use sidecheck::scenario::{Setting, decide};
use sidecheck::{ScenarioPod, Shape, Verdict};

async fn client() -> Client {
    Cluster::connect().await.expect("a cluster").client
}

/// The Pods that are applied together, and what they need.
struct Applied {
    name: String,
    needed: PodSecurity,
    pods: Vec<Pod>,
}

/// Every fixture in every shape, as it is and with each of its twins. Pods that are the same are there once.
fn everything() -> Vec<Applied> {
    let root = environment::root().join("fixtures");
    let mut all = BTreeMap::new();
    for id in ids(&root).expect("fixtures") {
        let fixture = Fixture::load(&root, &id).unwrap_or_else(|error| panic!("{error:#}"));
        for &shape in fixture.metadata.shapes.iter().filter(|shape| **shape != Shape::Alone) {
            for twin in fixture.twins(shape).map(Some).chain([None]) {
                let mut objects = fixture.objects(shape, twin).expect("objects");
                objects.retain(|object| object["kind"] == "Pod");
                let needed = fixture.pod_security(twin);
                let name = format!("{id}@{shape}, twin {:?}", twin.map(|twin| &twin.name));
                all.entry((needed, serde_json::to_string(&objects).expect("JSON")))
                    .or_insert((name, objects));
            }
        }
    }
    let applied = |((needed, _), (name, objects)): ((PodSecurity, String), (String, Vec<_>))| Applied {
        name,
        needed,
        pods: objects
            .into_iter()
            .map(|object| serde_json::from_value(object).expect("a Pod"))
            .collect(),
    };
    all.into_iter().map(applied).collect()
}

/// What the API server says of the Pods that it would not take.
async fn refusals(pods: &Api<Pod>, applied: &Applied) -> Vec<String> {
    let try_it = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let mut refusals = Vec::new();
    for pod in &applied.pods {
        if let Err(error) = pods.create(&try_it, pod).await {
            refusals.push(format!("{}: {}: {error}", applied.name, pod.name_any()));
        }
    }
    refusals
}

#[tokio::test]
async fn every_fixture_needs_what_it_says_and_no_less() {
    let (client, run) = (client().await, run());
    let name = |standard: PodSecurity| format!("sidecheck-{run}-{standard}");
    let mut namespaces = BTreeMap::new();
    for standard in PodSecurity::ALL {
        let name = name(standard);
        assert!(
            namespace::create(&client, &run, &name, standard)
                .await
                .expect("created")
        );
        namespaces.insert(standard, Api::namespaced(client.clone(), &name));
    }
    let everything = everything();
    let faults = stream::iter(&everything).map(async |applied| {
        let mut faults = refusals(&namespaces[&applied.needed], applied).await;
        // What enforces one level more.
        if let Some((_, stricter)) = namespaces.range(..applied.needed).next_back() {
            let refusals = refusals(stricter, applied).await;
            if !refusals.iter().any(|refusal| refusal.contains("violates PodSecurity")) {
                faults.push(format!("{}: it needs less than {}", applied.name, applied.needed));
            }
        }
        faults
    });
    let faults: Vec<String> = faults.buffer_unordered(8).map(stream::iter).flatten().collect().await;
    for standard in PodSecurity::ALL {
        remove(&client, &name(standard)).await;
    }
    assert!(faults.is_empty(), "{faults:#?}");
    let asks_for_more = everything
        .iter()
        .filter(|applied| applied.needed > PodSecurity::Restricted);
    assert!(
        asks_for_more.count() > 0,
        "nothing shows what a stricter namespace does"
    );
}

const PRIVILEGED: &str = "{privileged: true, runAsUser: 0, runAsNonRoot: false}";

/// What comes of a check of a Pod with this security context and of its twins, in a namespace of somebody else's that enforces `restricted`:
/// its name. `more` is what the fixture says besides.
async fn outcome_where_little_is_allowed(context: &str, more: &str) -> (CheckResult, String) {
    let spec = format!(
        "  containers:
  - {{name: main, image: \"localhost/sidecheck/agent:v1\", args: [control], securityContext: {context}}}
"
    );
    let folder = fixture(&spec, more);
    let (client, name) = (client().await, format!("sidecheck-{}", run()));
    let setting = Setting {
        prove: true,
        namespaces: vec![name.clone()],
        ..setting(folder.path(), None)
    };
    let created = namespace::create(&client, &setting.run, &name, PodSecurity::Restricted).await;
    assert!(created.expect("created"));
    let mut outcome = decide(&setting, &[("area/check".to_owned(), has_no_label)], Shape::Classic).await;
    remove(&client, &name).await;
    (outcome.0.pop().expect("a result"), name)
}

async fn remove(client: &Client, namespace: &str) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .delete(namespace, &DeleteParams::background())
        .await
        .expect("deleted");
}

async fn has_no_label(pod: &ScenarioPod) -> Verdict {
    let live = pod.state().expect("a Pod").pod;
    let labelled = live.labels().contains_key("is");
    pod.main()
        .expect("nothing")
        .holds(!labelled, "no label", format!("{:?}", live.labels()))
}

#[tokio::test]
async fn a_check_that_its_namespace_does_not_allow_is_skipped() {
    let (result, namespace) = outcome_where_little_is_allowed(PRIVILEGED, "podSecurity: privileged\n").await;
    let reason = result.reason.expect("a reason");
    assert_eq!(result.outcome, OutcomeKind::Skipped, "{reason}");
    let expected = format!(
        "it needs a namespace with the Pod Security Standard “privileged”, and {namespace} enforces “restricted”: "
    );
    assert!(reason.starts_with(&expected), "{reason}");
    assert!(reason.contains("privileged (container \"main\""), "{reason}");
}

#[tokio::test]
async fn a_twin_that_its_namespace_does_not_allow_is_not_proved() {
    let twin = format!(
        "- name: it is privileged
  fails: nothing
  podSecurity: privileged
  patch: {{spec: {{containers: [{{name: main, securityContext: {PRIVILEGED}}}]}}}}
"
    );
    let (result, namespace) = outcome_where_little_is_allowed("{}", &twin).await;
    assert_eq!(result.outcome, OutcomeKind::Met, "{result:#?}");
    let twins: Vec<TwinOutcome> = result.twins.iter().map(|twin| twin.result).collect();
    assert_eq!(twins, [TwinOutcome::Caught, TwinOutcome::NotProved], "{result:#?}");
    let reason = result.twins[1].reason.as_deref().unwrap_or_default();
    assert!(
        reason.contains(&format!("{namespace} enforces “restricted”")),
        "{reason}"
    );
    assert!(result.twins[1].evidence.is_none());
}
