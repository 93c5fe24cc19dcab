//! The options that say which cluster is meant.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
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
    /// Credentials with which an existing cluster pulls images: a config.json of docker
    #[arg(long, env = environment::PULL_SECRET, value_name = "FILE", requires = "context")]
    pub pull_secret: Option<PathBuf>,
}

impl ClusterOptions {
    /// The parsed version.
    pub fn version(&self) -> anyhow::Result<KubernetesVersion> {
        self.kubernetes
            .parse()
            .map_err(|error: anyhow::Error| Usage(error.to_string()).into())
    }

    /// The file with credentials, by its full path; it has some.
    pub fn credentials(&self) -> anyhow::Result<Option<PathBuf>> {
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
