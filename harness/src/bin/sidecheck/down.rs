//! `sidecheck down`

use clap::Args;
use sidecheck::cluster::engine::Engine;
use sidecheck::cluster::kind::{self, KindCluster};
use sidecheck::display::say;
use sidecheck::environment;

use crate::Usage;

/// Remove a cluster that the harness made
#[derive(Args)]
pub struct Down {
    /// Its Kubernetes version
    #[arg(long, env = environment::KUBERNETES, value_name = "VERSION", default_value = environment::DEFAULT_KUBERNETES)]
    kubernetes: String,
    /// Every cluster that the harness made
    #[arg(long, conflicts_with = "kubernetes")]
    all: bool,
}

impl Down {
    pub async fn execute(self) -> anyhow::Result<u8> {
        if self.all {
            let engine = Engine::chosen()?;
            for name in kind::existing(&engine).await? {
                kind::delete(&engine, &name).await?;
                say(&format!("removed the cluster {name}"));
            }
            return Ok(crate::MET);
        }
        let version = self
            .kubernetes
            .parse()
            .map_err(|error: anyhow::Error| Usage(error.to_string()))?;
        KindCluster::new(version)?.down().await?;
        Ok(crate::MET)
    }
}
