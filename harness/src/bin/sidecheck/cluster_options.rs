//! The options that say which cluster is meant, and how to work there.

use std::fmt::Display;
use std::fs;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use serde_json::Value;
use sidecheck::cluster::kind::KindCluster;
use sidecheck::cluster::placement::{NodeLabel, Tolerated};
use sidecheck::cluster::versions::KubernetesVersion;
use sidecheck::cluster::{Cluster, Target, rights};
use sidecheck::environment;

use crate::Usage;

/// An existing cluster, which is used only if it is named.
#[derive(Args, Clone)]
#[command(group = ArgGroup::new("existing").multiple(true))]
pub struct Existing {
    /// An existing cluster: a context of your kubeconfig
    #[arg(long, env = environment::CONTEXT, value_name = "NAME", group = "existing")]
    pub context: Option<String>,
    /// An existing cluster: a kubeconfig, by its current context or that of --context
    #[arg(long, value_name = "FILE", group = "existing")]
    pub kubeconfig: Option<PathBuf>,
    /// The cluster in one of whose Pods this runs, as that Pod's account
    #[arg(long, env = environment::IN_CLUSTER, conflicts_with_all = ["context", "kubeconfig"], group = "existing")]
    pub in_cluster: bool,
    /// Namespaces of the existing cluster to work in, instead of making some (several are quicker)
    #[arg(long, env = environment::NAMESPACES, value_name = "NAME,…", value_delimiter = ',', requires = "existing")]
    pub namespace: Vec<String>,
}

impl Existing {
    /// The cluster, if one is named.
    pub fn target(&self) -> anyhow::Result<Option<Target>> {
        if self.in_cluster {
            return Ok(Some(Target::InCluster));
        }
        if self.kubeconfig.is_none() && self.context.is_none() {
            return Ok(None);
        }
        Target::existing(self.kubeconfig.clone(), self.context.clone()).map(Some)
    }
}

/// Which cluster is meant: one that the harness makes by default, an existing one only if it is named.
#[derive(Args, Clone)]
pub struct ClusterOptions {
    #[command(flatten)]
    pub existing: Existing,
    /// A label that nodes must have for Pods to go there; can be repeated
    #[arg(long, env = environment::NODE_SELECTOR, value_name = "KEY=VALUE", value_delimiter = ',', requires = "existing")]
    pub node_selector: Vec<NodeLabel>,
    /// A taint that Pods tolerate; can be repeated
    #[arg(long, env = environment::TOLERATIONS, value_name = "KEY[=VALUE][:EFFECT]", value_delimiter = ',', requires = "existing")]
    pub toleration: Vec<Tolerated>,
    /// What stands before the names of the fixtures' images, where `sidecheck images push` has put them
    #[arg(long, env = environment::IMAGE_PREFIX, value_name = "REGISTRY/PATH")]
    pub image_prefix: Option<String>,
    /// Credentials with which an existing cluster pulls images: a config.json of docker
    #[arg(long, env = environment::PULL_SECRET, value_name = "FILE", requires = "existing")]
    pub pull_secret: Option<PathBuf>,
    /// The Kubernetes version of the harness's own cluster
    #[arg(long, env = environment::KUBERNETES, value_name = "VERSION", default_value = environment::DEFAULT_KUBERNETES)]
    pub kubernetes: String,
}

impl ClusterOptions {
    /// The parsed version.
    pub fn version(&self) -> anyhow::Result<KubernetesVersion> {
        self.kubernetes
            .parse()
            .map_err(|error: anyhow::Error| Usage(error.to_string()).into())
    }

    /// Makes them count in the place of the environment's variables.
    pub fn take(&self) -> anyhow::Result<()> {
        let credentials = self.credentials()?.map(|file| file.display().to_string());
        let joined = |list: &[String]| (!list.is_empty()).then(|| list.join(","));
        let options = [
            (environment::NAMESPACES, joined(&self.existing.namespace)),
            (environment::NODE_SELECTOR, joined(&texts(&self.node_selector))),
            (environment::TOLERATIONS, joined(&texts(&self.toleration))),
            (environment::IMAGE_PREFIX, self.image_prefix.clone()),
            (environment::PULL_SECRET, credentials),
            (environment::KUBERNETES, Some(self.kubernetes.clone())),
        ];
        let target = self.existing.target()?;
        let target = target.iter().flat_map(Target::variables);
        environment::give(target.chain(options.into_iter().filter_map(|(name, value)| Some((name, value?)))));
        Ok(())
    }

    /// The file with credentials, by its full path; it has some.
    fn credentials(&self) -> anyhow::Result<Option<PathBuf>> {
        let Some(given) = &self.pull_secret else {
            return Ok(None);
        };
        let wrong = |why: String| Usage(format!("--pull-secret {}: {why}", given.display()));
        let text = fs::read(given).map_err(|error| wrong(error.to_string()))?;
        let config: Value = serde_json::from_slice(&text).map_err(|error| wrong(format!("it is no JSON: {error}")))?;
        let known = config["auths"].as_object();
        if known.is_none_or(|known| {
            known
                .values()
                .all(|known| known["auth"].is_null() && known["username"].is_null())
        }) {
            let why = "it has no credentials in “auths”; what a helper keeps is not in the file: log in with another config.json";
            return Err(wrong(why.to_owned()).into());
        }
        Ok(Some(std::path::absolute(given)?))
    }

    /// The named cluster if its account has the rights that every check needs, or the harness's own, which is brought up if necessary.
    pub async fn bring_up(&self) -> anyhow::Result<Cluster> {
        match self.existing.target()? {
            Some(target) => {
                let cluster = Cluster::connect_to(target).await?;
                cluster.probe().await?;
                rights::require(&cluster.client, &self.existing.namespace).await?;
                Ok(cluster)
            }
            None => KindCluster::new(self.version()?)?.up().await,
        }
    }
}

fn texts(list: &[impl Display]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}
