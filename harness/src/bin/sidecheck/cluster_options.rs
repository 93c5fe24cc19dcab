//! The options that say which cluster is meant.

use clap::Args;
use sidecheck::cluster::kind::KindCluster;
use sidecheck::cluster::versions::KubernetesVersion;
use sidecheck::cluster::{Cluster, Target};
use sidecheck::environment;

use crate::Usage;

/// Which cluster is meant: one that the harness makes by default, an existing one only if it is named.
#[derive(Args, Clone)]
pub struct ClusterOptions {
    /// An existing cluster: a context of your kubeconfig
    #[arg(long, env = environment::CONTEXT, value_name = "NAME")]
    pub context: Option<String>,
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

    /// The named cluster, or the harness's own, which is brought up if necessary.
    pub async fn bring_up(&self) -> anyhow::Result<Cluster> {
        match &self.context {
            Some(context) => {
                let cluster = Cluster::connect_to(Target::Context(context.clone())).await?;
                cluster.probe().await?;
                Ok(cluster)
            }
            None => KindCluster::new(self.version()?)?.up().await,
        }
    }
}
