//! Where Pods run: a kind cluster that the harness made, or an existing one that was named.

pub mod capabilities;
pub mod engine;
pub mod images;
pub mod kind;
pub mod namespace;
pub mod objects;
pub mod placement;
pub(crate) mod request;
pub mod rights;
pub mod versions;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::fmt::rfc2822;
use kube::api::ListParams;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};

use crate::environment;
use crate::patience;
use crate::report::model::ClusterFacts;
use request::{limited, permitted};

/// Which cluster is meant. An existing one is used only when it is named, never because it happens to be current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An existing cluster.
    Existing {
        /// The file that describes it; the user's own kubeconfig if there is none.
        kubeconfig: Option<PathBuf>,
        /// The context in it.
        context: String,
    },
    /// The cluster in one of whose Pods this program runs.
    InCluster,
    /// A cluster that the harness made: its kubeconfig.
    Own(PathBuf),
}

impl Target {
    /// An existing cluster, by a context of the kubeconfig: its current one if none is named.
    ///
    /// # Errors
    /// The kubeconfig cannot be read, or has no current context.
    pub fn existing(kubeconfig: Option<PathBuf>, context: Option<String>) -> anyhow::Result<Self> {
        let kubeconfig = kubeconfig.map(std::path::absolute).transpose()?;
        let context = match context {
            Some(name) => name,
            None => read(kubeconfig.as_deref())?
                .current_context
                .context("the kubeconfig has no current context: name one with --context")?,
        };
        Ok(Self::Existing { kubeconfig, context })
    }

    /// The cluster that the environment names.
    ///
    /// # Errors
    /// It names none.
    pub fn from_environment() -> anyhow::Result<Self> {
        if environment::value(environment::IN_CLUSTER).is_some() {
            return Ok(Self::InCluster);
        }
        let kubeconfig = environment::value(environment::KUBECONFIG).map(PathBuf::from);
        let context = environment::value(environment::CONTEXT);
        match (kubeconfig, context) {
            (Some(path), None) if environment::is_own(&path) => Ok(Self::Own(path)),
            (None, None) => bail!(
                "no cluster is named: set {} to a context of your kubeconfig, or run `sidecheck up` and set {} to what it prints",
                environment::CONTEXT,
                environment::KUBECONFIG
            ),
            (kubeconfig, context) => Self::existing(kubeconfig, context),
        }
    }

    /// The variables of the environment that name it, with their values.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Path| (environment::KUBECONFIG, path.display().to_string());
        match self {
            Self::Existing { kubeconfig, context } => {
                let context = (environment::CONTEXT, context.clone());
                kubeconfig.as_deref().map(path).into_iter().chain([context]).collect()
            }
            Self::InCluster => vec![(environment::IN_CLUSTER, "true".to_owned())],
            Self::Own(kubeconfig) => vec![path(kubeconfig)],
        }
    }

    /// Whether the harness made it.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// How a client reaches it.
    async fn config(&self) -> anyhow::Result<Config> {
        let (kubeconfig, context) = match self {
            Self::InCluster => {
                return Config::incluster().context("this is no Pod of a cluster, or its account has no token");
            }
            Self::Existing { kubeconfig, context } => {
                let read = read(kubeconfig.as_deref());
                let what = || format!("the context “{context}” cannot be found");
                (read.with_context(what)?, Some(context.clone()))
            }
            Self::Own(path) => {
                let what = || format!("{} cannot be read: run `sidecheck up`", path.display());
                (Kubeconfig::read_from(path).with_context(what)?, None)
            }
        };
        let known: Vec<&str> = kubeconfig.contexts.iter().map(|known| known.name.as_str()).collect();
        if let Some(name) = context.as_deref().filter(|name| !known.contains(name)) {
            let all = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            bail!("the kubeconfig has no context “{name}”; it has: {all}");
        }
        let options = KubeConfigOptions {
            context,
            ..KubeConfigOptions::default()
        };
        Ok(Config::from_custom_kubeconfig(kubeconfig, &options).await?)
    }
}

/// The named kubeconfig, or the user's own.
fn read(kubeconfig: Option<&Path>) -> anyhow::Result<Kubeconfig> {
    let read = kubeconfig.map_or_else(Kubeconfig::read, Kubeconfig::read_from);
    // kube's message includes its cause; as a chain it would appear twice.
    read.map_err(|error| anyhow!("the kubeconfig cannot be read: {error}"))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Existing { context, .. } => write!(f, "the cluster of the context {context}"),
            Self::InCluster => f.write_str("the cluster of this Pod"),
            Self::Own(path) => write!(f, "the cluster {}", kind::name_of(path).unwrap_or_default()),
        }
    }
}

/// A connection to the cluster under test.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub client: Client,
    /// What was connected to.
    pub target: Target,
    /// Keeps others from replacing the cluster.
    _use: Option<kind::Use>,
}

impl Cluster {
    /// Connects to the cluster that the environment names.
    ///
    /// # Errors
    /// Like [`Self::connect_to`].
    pub async fn connect() -> anyhow::Result<Self> {
        Self::connect_to(Target::from_environment()?).await
    }

    /// Prepares a connection; nothing is sent yet.
    ///
    /// # Errors
    /// The kubeconfig or the context in it does not exist, or this is no Pod.
    pub async fn connect_to(target: Target) -> anyhow::Result<Self> {
        let in_use = match &target {
            Target::Own(path) => kind::Use::shared(path),
            _ => None,
        };
        let mut config = target.config().await?;
        config.connect_timeout = Some(patience::CONNECT);
        Ok(Self {
            client: Client::try_from(config)?,
            target,
            _use: in_use,
        })
    }

    /// Asks the API server whether it works and at least one node is ready, as far as the account may see nodes.
    ///
    /// # Errors
    /// What is wrong, as far as is known.
    pub async fn probe(&self) -> anyhow::Result<()> {
        self.version().await?;
        match self.nodes().await? {
            Some(nodes) if !nodes.iter().any(node_is_ready) => {
                bail!("none of the cluster's {} nodes is ready", nodes.len())
            }
            _ => Ok(()),
        }
    }

    /// What time it is for the API server, to the second.
    ///
    /// # Errors
    /// It does not answer, or does not say.
    pub async fn time(&self) -> anyhow::Result<Timestamp> {
        let request = http::Request::get("/version").body(Body::empty())?;
        let answer = limited("ask for the time", self.client.send(request)).await?;
        let date = answer
            .headers()
            .get(http::header::DATE)
            .context("the answer has no date")?;
        let date = rfc2822::parse(date.to_str()?).context("the answer's date cannot be read")?;
        Ok(date.timestamp())
    }

    /// The nodes; none if the account may not list them.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn nodes(&self) -> anyhow::Result<Option<Vec<Node>>> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let listed = limited("list the nodes", nodes.list(&ListParams::default())).await;
        Ok(permitted(listed)?.map(|list| list.items))
    }

    /// The version of the API server: `v1.37.0`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn version(&self) -> anyhow::Result<String> {
        let version = limited("ask for the version", self.client.apiserver_version()).await?;
        Ok(version.git_version)
    }

    /// What the cluster says about itself.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn facts(&self) -> anyhow::Result<ClusterFacts> {
        let version = self.version().await?;
        let nodes = self.nodes().await?.unwrap_or_default();
        let daemons: Api<DaemonSet> = Api::namespaced(self.client.clone(), "kube-system");
        let daemons = limited("list the DaemonSets", daemons.list(&ListParams::default()))
            .await
            .map(|list| list.items)
            .unwrap_or_default();
        let mut facts = ClusterFacts {
            version,
            nodes: nodes.len(),
            ..ClusterFacts::default()
        };
        let info = || nodes.iter().filter_map(|node| node.status.as_ref()?.node_info.as_ref());
        let told = |values: BTreeSet<&str>| values.into_iter().collect::<Vec<_>>().join(", ");
        if info().next().is_some() {
            facts.runtime = told(info().map(|info| info.container_runtime_version.as_str()).collect());
            facts.kernel = told(info().map(|info| info.kernel_version.as_str()).collect());
        }
        let mut provided = nodes.iter().filter_map(|node| node.spec.as_ref()?.provider_id.as_ref());
        if let Some((provider, _)) = provided.next().and_then(|id| id.split_once("://")) {
            facts.distribution = provider.to_owned();
        }
        if let Some(network) = nodes.iter().find_map(|node| node.labels().get(kind::NETWORK_LABEL)) {
            facts.cni.clone_from(network);
        }
        if let Some(name) = daemons.iter().map(ResourceExt::name_any).find(|name| is_network(name)) {
            facts.cni = name;
        }
        Ok(facts)
    }
}

/// Whether a DaemonSet of kube-system is one of the well-known Pod networks.
fn is_network(daemon: &str) -> bool {
    [
        "kindnet",
        "calico",
        "cilium",
        "flannel",
        "weave",
        "antrea",
        "aws-node",
        "azure-cni",
        "canal",
        "kube-router",
    ]
    .iter()
    .any(|known| daemon.contains(known))
}

/// Whether the node is ready.
pub(crate) fn node_is_ready(node: &Node) -> bool {
    node.status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .is_some_and(|conditions| {
            conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        })
}
