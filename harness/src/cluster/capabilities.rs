//! What a cluster can do, found out by trying.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};
use futures::future::{try_join, try_join_all};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{AttachParams, DeleteParams, ListParams, PostParams};
use kube::client::UpgradeConnectionError;
use kube::discovery::{Discovery, Scope};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

use super::namespace::{Lent, RUN_LABEL};
use super::request::{is_answer, limited};
use super::rights::is_allowed;
use super::{Cluster, Target, images, namespace, placement};
use crate::display::explained;
use crate::fixture::{self, Need, PodSecurity};
use crate::patience;
use crate::report::records::RunFolder;

/// The file of a run's folder with what the cluster can do, and the one whose lock is held while that is found out.
const FILE: &str = "capabilities.json";
const LOCK: &str = "capabilities.lock";

/// The image of the Pods that try things out, the port they serve, the label with their names, and their names.
const IMAGE: &str = "localhost/sidecheck/agent:v1";
const PORT: u16 = 8080;
const LABEL: &str = "sidecheck.dev/probe";
const SUBJECT: &str = "sidecheck-probe";
const DENIED: &str = "sidecheck-denied";
const CALLER: &str = "sidecheck-caller";

/// Whether a cluster has what a check needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// It has.
    Available,
    /// It has not, for this reason: the check is not applicable.
    Lacking(String),
    /// This account cannot find out or may not do it, for this reason: the check is skipped.
    Unknown(String),
}

/// What was found out about a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities {
    answers: BTreeMap<Need, Answer>,
}

impl Capabilities {
    /// The answer to one need; none if nobody has asked.
    pub fn answer(&self, need: &Need) -> Option<&Answer> {
        self.answers.get(need)
    }

    /// The first answer among those to `needs` that keeps a check from running; nothing keeps it if there is none.
    pub fn obstacle<'a>(&self, needs: impl IntoIterator<Item = &'a Need>) -> Option<&Answer> {
        needs
            .into_iter()
            .filter_map(|need| self.answer(need))
            .find(|answer| **answer != Answer::Available)
    }
}

/// What the run knows about the cluster, including all of `needs`. Each need is tried out once per run, by the first check that has it.
///
/// # Errors
/// Like [`probe`], or the run's folder cannot be written.
pub async fn of_run(
    folder: &RunFolder,
    cluster: &Cluster,
    run: &str,
    namespaces: &[String],
    needs: &BTreeSet<Need>,
) -> anyhow::Result<Capabilities> {
    let known = || folder.read::<Capabilities>(FILE).unwrap_or_default();
    let asked = |known: &Capabilities| needs.iter().all(|need| known.answers.contains_key(need));
    let before = known();
    if asked(&before) {
        return Ok(before);
    }
    std::fs::create_dir_all(folder.path())?;
    let lock = File::create(folder.path().join(LOCK))?;
    let _lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock))
        .await?
        .context("cannot wait for another check that asks what the cluster can do")?;
    let mut capabilities = known();
    if !asked(&capabilities) {
        let open = needs.iter().filter(|need| !capabilities.answers.contains_key(need));
        let given = (!namespaces.is_empty()).then(|| (folder.path(), namespaces));
        let found = answers(cluster, run, given, &open.cloned().collect()).await?;
        capabilities.answers.extend(found.answers);
        folder.write(FILE, &capabilities)?;
    }
    Ok(capabilities)
}

/// Finds out whether the cluster has each of `needs`. What has to be tried out is tried in a separate namespace, which is deleted
/// afterwards.
///
/// # Errors
/// The cluster does not answer, or does not run a simple Pod. That an account may not do something is an answer, not an error.
pub async fn probe(cluster: &Cluster, run: &str, needs: &BTreeSet<Need>) -> anyhow::Result<Capabilities> {
    answers(cluster, run, None, needs).await
}

/// Like [`probe`]; in one of the given namespaces if there are some, which the processes of the run lend each other by its folder.
async fn answers(
    cluster: &Cluster,
    run: &str,
    given: Option<(&Path, &[String])>,
    needs: &BTreeSet<Need>,
) -> anyhow::Result<Capabilities> {
    let probe = Probe {
        cluster,
        run,
        given,
        place: OnceCell::new(),
        subject: OnceCell::new(),
    };
    let answers = needs
        .iter()
        .map(async |need| Ok((need.clone(), probe.answer(need).await?)));
    let answers = try_join_all(answers).await;
    probe.discard().await;
    answers.map(|answers| Capabilities {
        answers: answers.into_iter().collect(),
    })
}

/// The questions to a cluster, and the objects that answering them needs, made on first use.
struct Probe<'a> {
    cluster: &'a Cluster,
    run: &'a str,
    given: Option<(&'a Path, &'a [String])>,
    place: OnceCell<Place>,
    subject: OnceCell<Pod>,
}

/// The namespace in which something is tried out.
enum Place {
    Own(String),
    Lent(Lent),
}

impl Place {
    fn name(&self) -> &str {
        match self {
            Self::Own(name) => name,
            Self::Lent(lent) => &lent.name,
        }
    }
}

impl Probe<'_> {
    async fn answer(&self, need: &Need) -> anyhow::Result<Answer> {
        let client = &self.cluster.client;
        let found = match need {
            Need::FeatureGate(name) => feature_gate(client, name).await,
            Need::Ipv6 => self.ipv6().await,
            Need::NetworkPolicy => self.network_policy().await,
            Need::TwoNodes => two_nodes(self.cluster).await,
            Need::Exec => self.exec().await,
            Need::PortForward => self.port_forward().await,
            Need::OwnCluster => Ok(own_cluster(&self.cluster.target)),
            Need::Create(resource) => can_create(client, resource, self.given.map_or(&[], |(_, names)| names)).await,
        };
        // A refusal is final; any other trouble may be gone next time.
        found.or_else(|error| match refusal(&error) {
            Some(refusal) => Ok(Answer::Unknown(format!(
                "whether the cluster offers “{need}” cannot be found out: {refusal}"
            ))),
            None => Err(error.context(format!("cannot find out whether the cluster offers “{need}”"))),
        })
    }

    async fn namespace(&self) -> anyhow::Result<&str> {
        let find = async || match self.given {
            Some((folder, names)) => Lent::borrow(folder, names, false).await.map(Place::Lent),
            None => {
                let name = format!("sidecheck-probe-{}-{:08x}", self.run, namespace::unique() as u32);
                namespace::create(&self.cluster.client, self.run, &name, PodSecurity::Restricted).await?;
                Ok(Place::Own(name))
            }
        };
        self.place.get_or_try_init(find).await.map(Place::name)
    }

    async fn pods(&self) -> anyhow::Result<Api<Pod>> {
        Ok(Api::namespaced(self.cluster.client.clone(), self.namespace().await?))
    }

    /// A ready Pod that serves [`PORT`].
    async fn subject(&self) -> anyhow::Result<&Pod> {
        let create = async || create_pod(&self.pods().await?, self.run, SUBJECT).await;
        self.subject.get_or_try_init(create).await
    }

    async fn ipv6(&self) -> anyhow::Result<Answer> {
        let status = self.subject().await?.status.as_ref();
        let addresses = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten();
        Ok(if addresses.into_iter().any(|address| address.ip.contains(':')) {
            Answer::Available
        } else {
            Answer::Lacking("the cluster gives Pods no IPv6 addresses".to_owned())
        })
    }

    async fn exec(&self) -> anyhow::Result<Answer> {
        if !self.may_use("pods/exec").await? {
            return Ok(Answer::Unknown(
                "this account may not run commands in containers".to_owned(),
            ));
        }
        self.subject().await?;
        Ok(if command(&self.pods().await?, SUBJECT, "say probed").await? {
            Answer::Available
        } else {
            Answer::Unknown("a command that was run in a container failed".to_owned())
        })
    }

    async fn port_forward(&self) -> anyhow::Result<Answer> {
        if !self.may_use("pods/portforward").await? {
            return Ok(Answer::Unknown("this account may not forward ports of Pods".to_owned()));
        }
        self.subject().await?;
        Ok(if answers_through_port(&self.pods().await?).await? {
            Answer::Available
        } else {
            Answer::Unknown("nothing comes back from a Pod's forwarded port".to_owned())
        })
    }

    /// Whether the account has one of the rights that servers ask for, depending on their version, before they connect to a Pod.
    async fn may_use(&self, resource: &str) -> anyhow::Result<bool> {
        let (client, namespace) = (&self.cluster.client, Some(self.namespace().await?));
        Ok(is_allowed(client, "get", "", resource, namespace).await?
            || is_allowed(client, "create", "", resource, namespace).await?)
    }

    /// Connects from one Pod to another, and again with a policy that denies it.
    async fn network_policy(&self) -> anyhow::Result<Answer> {
        match self.exec().await? {
            Answer::Available => {}
            other => return Ok(other),
        }
        let pods = self.pods().await?;
        let create = |name| create_pod(&pods, self.run, name);
        let (denied, caller) = try_join(create(DENIED), create(CALLER)).await?;
        let address = denied
            .status
            .and_then(|status| status.pod_ip)
            .context("a ready Pod has an IP")?;
        let address = SocketAddr::new(address.parse()?, PORT);
        let connect = format!("connect {address} within {}s", patience::ATTEMPT.as_secs());
        let caller = caller.name_any();
        let connects = async || command(&pods, &caller, &connect).await;
        if !settles(true, connects).await? {
            bail!("two Pods could not connect to each other before there was any NetworkPolicy");
        }
        let policy: NetworkPolicy = serde_json::from_value(json!({
            "metadata": {"name": DENIED, "labels": {RUN_LABEL: self.run}},
            "spec": {"podSelector": {"matchLabels": {LABEL: DENIED}}, "policyTypes": ["Ingress"]},
        }))?;
        let policies = self.policies().await?;
        limited(
            "create a NetworkPolicy",
            policies.create(&PostParams::default(), &policy),
        )
        .await?;
        Ok(if settles(false, connects).await? {
            Answer::Available
        } else {
            Answer::Lacking("the cluster does not enforce NetworkPolicy: a denied connection went through".to_owned())
        })
    }

    async fn policies(&self) -> anyhow::Result<Api<NetworkPolicy>> {
        Ok(Api::namespaced(self.cluster.client.clone(), self.namespace().await?))
    }

    /// Deletes what was made: an own namespace in the background, but whoever gets a lent one next finds it clear.
    async fn discard(self) {
        if !self.place.initialized() {
            return;
        }
        let (Ok(pods), Ok(policies)) = (self.pods().await, self.policies().await) else {
            return;
        };
        let Some(place) = self.place.into_inner() else { return };
        let name = place.name().to_owned();
        let deletion = async {
            match place {
                Place::Own(name) => {
                    let namespaces: Api<Namespace> = Api::all(self.cluster.client.clone());
                    let background = DeleteParams::background();
                    limited("delete the namespace", namespaces.delete(&name, &background)).await?;
                }
                Place::Lent(lent) => {
                    let ours = ListParams::default().labels(LABEL);
                    let soon = DeleteParams::background().grace_period(1);
                    limited("delete the Pods", pods.delete_collection(&soon, &ours)).await?;
                    match limited("delete a NetworkPolicy", policies.delete(DENIED, &soon)).await {
                        Err(error) if !is_answer(&error, &[403, 404]) => return Err(error),
                        _ => {}
                    }
                    let left = async || limited("list the Pods", pods.list(&ours)).await;
                    let deadline = Instant::now() + patience::DELETION;
                    while !left().await?.items.is_empty() && Instant::now() < deadline {
                        sleep(patience::LOOK_AGAIN).await;
                    }
                    lent.give_back(false, left().await?.items.is_empty())?;
                }
            }
            anyhow::Ok(())
        };
        if let Err(error) = deletion.await {
            tracing::warn!(
                namespace = name,
                "left behind, `sidecheck clean` removes it: {}",
                explained(&error)
            );
        }
    }
}

/// Makes a Pod that serves [`PORT`], and waits until it is ready.
async fn create_pod(pods: &Api<Pod>, run: &str, name: &str) -> anyhow::Result<Pod> {
    let mut pod = json!({
        "metadata": {"name": name, "labels": {LABEL: name, RUN_LABEL: run}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main",
                "image": IMAGE,
                "args": [format!("serve {PORT}")],
                "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
            }],
        },
    });
    fixture::complete(&mut pod, &[]);
    placement::place(&mut pod["spec"])?;
    let pod: Pod = serde_json::from_value(pod)?;
    limited("create a Pod", pods.create(&PostParams::default(), &pod)).await?;
    let ready = |pod: Option<&Pod>| {
        let conditions = pod.and_then(|pod| pod.status.as_ref()?.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
    };
    timeout(patience::READY, await_condition(pods.clone(), name, ready))
        .await
        .with_context(|| {
            format!(
                "a simple Pod with {} was not ready within {:?}",
                images::address(IMAGE),
                patience::READY
            )
        })?
        .context("cannot watch a Pod")?
        .context("a Pod was deleted while it was waited for")
}

/// Whether the agent in a Pod carries a statement out.
async fn command(pods: &Api<Pod>, pod: &str, statement: &str) -> anyhow::Result<bool> {
    let attach = AttachParams::default().stdout(false);
    let mut process = limited(
        "run a command in a container",
        pods.exec(pod, ["agent", "--once", statement], &attach),
    )
    .await?;
    let status = process.take_status().context("an executed command has a status")?;
    let status = timeout(patience::ROUND_TRIP, status)
        .await
        .context("a command in a container did not end")?;
    Ok(status
        .and_then(|status| status.status)
        .is_some_and(|status| status == "Success"))
}

/// Whether an answer to a request comes back through a forwarded port.
async fn answers_through_port(pods: &Api<Pod>) -> anyhow::Result<bool> {
    let mut forwarder = limited("forward a port", pods.portforward(SUBJECT, &[PORT])).await?;
    let mut stream = forwarder.take_stream(PORT).context("a forwarded port has a stream")?;
    let exchange = async {
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        stream.read_u8().await
    };
    Ok(matches!(timeout(patience::ROUND_TRIP, exchange).await, Ok(Ok(_))))
}

/// Waits until connections go through, or until they do not; false if that does not happen in time.
async fn settles(goes_through: bool, connects: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<bool> {
    let deadline = Instant::now() + patience::REACTION;
    while connects().await? != goes_through {
        if Instant::now() > deadline {
            return Ok(false);
        }
        sleep(patience::LOOK_AGAIN).await;
    }
    Ok(true)
}

fn own_cluster(target: &Target) -> Answer {
    match target {
        Target::Own(_) => Answer::Available,
        other => Answer::Unknown(format!(
            "the check changes the whole cluster, which is done only to clusters that sidecheck made, not to {other}"
        )),
    }
}

async fn feature_gate(client: &Client, name: &str) -> anyhow::Result<Answer> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let metrics = limited("read the API server's metrics", client.request_text(request)).await?;
    Ok(gate_in(&metrics, name))
}

/// Looks for the gate among metrics such as `kubernetes_feature_enabled{name="SidecarContainers",stage=""} 1`.
fn gate_in(metrics: &str, name: &str) -> Answer {
    let label = format!("name=\"{name}\"");
    let mut values = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("kubernetes_feature_enabled{")?.split_once('}'))
        .filter(|(labels, _)| labels.split(',').any(|candidate| candidate == label))
        .map(|(_, value)| value.trim());
    match values.next() {
        Some("1") => Answer::Available,
        Some(_) => Answer::Lacking(format!("the feature gate {name} is off")),
        None => Answer::Lacking(format!("the API server has no feature gate {name}")),
    }
}

async fn two_nodes(cluster: &Cluster) -> anyhow::Result<Answer> {
    let Some(nodes) = cluster.nodes().await? else {
        return Ok(Answer::Unknown("this account may not list nodes".to_owned()));
    };
    let takes = nodes
        .iter()
        .map(placement::takes_pods)
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(match takes.into_iter().filter(|takes| *takes).count() {
        2.. => Answer::Available,
        1 => Answer::Lacking("only one node of the cluster takes Pods".to_owned()),
        0 => Answer::Lacking("no node of the cluster takes Pods".to_owned()),
    })
}

/// Whether objects of the resource can be created: in the whole cluster, or in each of the given namespaces if it is one of namespaces.
async fn can_create(client: &Client, resource: &str, given: &[String]) -> anyhow::Result<Answer> {
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    let discovery = Discovery::new(client.clone()).filter(&[group]);
    let discovery = limited("list the API's resources", discovery.run()).await?;
    let scope = discovery
        .groups()
        .filter(|served| served.name() == group)
        .flat_map(|served| served.resources_by_stability())
        .find(|(served, _)| served.plural == plural)
        .map(|(_, capabilities)| capabilities.scope);
    let Some(scope) = scope else {
        return Ok(Answer::Lacking(format!("the API server does not serve {resource}")));
    };
    let namespaces: Vec<Option<&str>> = match scope {
        Scope::Namespaced if !given.is_empty() => given.iter().map(|name| Some(name.as_str())).collect(),
        _ => vec![None],
    };
    for namespace in namespaces {
        if !is_allowed(client, "create", group, plural, namespace).await? {
            return Ok(Answer::Unknown(format!("this account may not create {resource}")));
        }
    }
    Ok(Answer::Available)
}

/// What the API server, or something before it, says if it refuses a request for good: the rights are missing, or connections to Pods are
/// not let through.
fn refusal(error: &anyhow::Error) -> Option<String> {
    match error.chain().find_map(|cause| cause.downcast_ref::<kube::Error>())? {
        kube::Error::Api(status) if status.code == 403 => Some(status.message.clone()),
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => {
            Some(format!("a connection to a Pod was answered with {status}"))
        }
        _ => None,
    }
}

/// Why a check that came with the Kubernetes version `since` (`1.35`) does not apply to a server of the version `server`
/// (`v1.34.2-gke.100`): the server is older. None if it is not, or if a version cannot be read.
pub fn older_than(server: &str, since: &str) -> Option<String> {
    let minor = |version: &str| {
        let mut numbers = version
            .trim_start_matches('v')
            .split(['.', '+', '-'])
            .map(|number| number.parse::<u32>().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    (minor(server)? < minor(since)?).then(|| format!("the cluster has Kubernetes {server}, and this came with {since}"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("v1.34.2", "1.35", true)]
    #[case("v1.35.0", "1.35", false)]
    #[case("v1.35.0-alpha.1", "1.35", false)]
    #[case("v1.9.11-gke.5", "1.33", true)]
    #[case("v1.37+", "1.33", false)]
    #[case("v2.0.0", "1.35", false)]
    #[case("unknown", "1.35", false)]
    fn versions_are_compared_by_their_numbers(#[case] server: &str, #[case] since: &str, #[case] older: bool) {
        assert_eq!(older_than(server, since).is_some(), older);
    }

    const METRICS: &str = "# TYPE kubernetes_feature_enabled gauge
kubernetes_feature_enabled{name=\"Alpha\",stage=\"ALPHA\"} 0
kubernetes_feature_enabled{name=\"Stable\",stage=\"\"} 1
apiserver_request_total{name=\"Other\"} 1
";

    #[rstest]
    #[case("Stable", Answer::Available)]
    #[case("Alpha", Answer::Lacking("the feature gate Alpha is off".to_owned()))]
    #[case("Other", Answer::Lacking("the API server has no feature gate Other".to_owned()))]
    fn a_gate_is_read_from_the_metrics(#[case] name: &str, #[case] answer: Answer) {
        assert_eq!(gate_in(METRICS, name), answer);
    }

    #[test]
    fn one_missing_need_is_an_obstacle() {
        let lacking = Answer::Lacking("the cluster gives Pods no IPv6 addresses".to_owned());
        let capabilities: Capabilities = serde_json::from_value(json!({
            "exec": "available",
            "feature-gate Alpha": "available",
            "ipv6": {"lacking": "the cluster gives Pods no IPv6 addresses"},
        }))
        .expect("capabilities");
        assert_eq!(capabilities.obstacle([&Need::Exec, &Need::Ipv6]), Some(&lacking));
        assert_eq!(
            capabilities.obstacle([&Need::Exec, &Need::FeatureGate("Alpha".to_owned())]),
            None
        );
    }
}
