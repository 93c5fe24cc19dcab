//! Where Pods run: a kind cluster that the harness made, or an existing one that was named.

pub mod capabilities;
pub mod engine;
pub mod images;
pub mod kind;
pub mod namespace;
pub mod objects;
pub(crate) mod request;
pub mod versions;

use std::path::PathBuf;

use anyhow::{Context, bail};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};

use crate::environment;
use crate::patience;
use crate::report::model::ClusterFacts;
use request::limited;

/// Which cluster is meant. An existing one is used only when it is named, never because it happens to be current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An existing cluster: a context of the user's kubeconfig.
    Context(String),
    /// A cluster that the harness made: its kubeconfig.
    Kubeconfig(PathBuf),
}

impl Target {
    /// The cluster that the environment names.
    ///
    /// # Errors
    /// It names none.
    pub fn from_environment() -> anyhow::Result<Self> {
        if let Some(context) = environment::value(environment::CONTEXT) {
            return Ok(Self::Context(context));
        }
        environment::value(environment::KUBECONFIG)
            .map(|path| Self::Kubeconfig(path.into()))
            .with_context(|| {
                format!(
                    "no cluster is named: set {} to a context of your kubeconfig, or run `sidecheck up` and set {} to what it prints",
                    environment::CONTEXT,
                    environment::KUBECONFIG
                )
            })
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
    /// The kubeconfig or the context in it does not exist.
    pub async fn connect_to(target: Target) -> anyhow::Result<Self> {
        let (kubeconfig, context, in_use) = match &target {
            Target::Context(name) => {
                // kube's message includes its cause; as a chain it would appear twice.
                let kubeconfig = Kubeconfig::read()
                    .map_err(|error| anyhow::anyhow!("the context “{name}” cannot be found: {error}"))?;
                let known: Vec<&str> = kubeconfig
                    .contexts
                    .iter()
                    .map(|context| context.name.as_str())
                    .collect();
                if !known.contains(&name.as_str()) {
                    bail!(
                        "the kubeconfig has no context “{name}”; it has: {}",
                        if known.is_empty() {
                            "none".to_owned()
                        } else {
                            known.join(", ")
                        }
                    );
                }
                (kubeconfig, Some(name.clone()), None)
            }
            Target::Kubeconfig(path) => (
                Kubeconfig::read_from(path)
                    .with_context(|| format!("{} cannot be read: run `sidecheck up`", path.display()))?,
                None,
                kind::Use::shared(path),
            ),
        };
        let options = KubeConfigOptions {
            context,
            ..KubeConfigOptions::default()
        };
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        config.connect_timeout = Some(patience::CONNECT);
        Ok(Self {
            client: Client::try_from(config)?,
            target,
            _use: in_use,
        })
    }

    /// Asks the API server whether it works and at least one node is ready.
    ///
    /// # Errors
    /// What is wrong, as far as is known.
    pub async fn probe(&self) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let nodes = limited("list the nodes", nodes.list(&ListParams::default())).await?;
        if !nodes.items.iter().any(node_is_ready) {
            bail!("none of the cluster's {} nodes is ready", nodes.items.len());
        }
        Ok(())
    }

    /// The version of the API server: `v1.37.0`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn version(&self) -> anyhow::Result<String> {
        let version = request::limited("ask for the version", self.client.apiserver_version()).await?;
        Ok(version.git_version)
    }

    /// What the cluster says about itself.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn facts(&self) -> anyhow::Result<ClusterFacts> {
        let version = limited("read the version", self.client.apiserver_version()).await?;
        let nodes: Api<Node> = Api::all(self.client.clone());
        let nodes = limited("list the nodes", nodes.list(&ListParams::default()))
            .await?
            .items;
        let daemons: Api<DaemonSet> = Api::namespaced(self.client.clone(), "kube-system");
        let daemons = limited("list the DaemonSets", daemons.list(&ListParams::default()))
            .await
            .map(|list| list.items)
            .unwrap_or_default();
        let mut facts = ClusterFacts {
            version: version.git_version,
            nodes: nodes.len(),
            ..ClusterFacts::default()
        };
        if let Some(node) = nodes.first() {
            if let Some(info) = node.status.as_ref().and_then(|status| status.node_info.as_ref()) {
                facts.runtime = info.container_runtime_version.clone();
                facts.kernel = info.kernel_version.clone();
            }
            if let Some((provider, _)) = node
                .spec
                .as_ref()
                .and_then(|spec| spec.provider_id.as_ref()?.split_once("://"))
            {
                facts.distribution = provider.to_owned();
            }
            if let Some(network) = node.labels().get(kind::NETWORK_LABEL) {
                facts.cni = network.clone();
            }
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
