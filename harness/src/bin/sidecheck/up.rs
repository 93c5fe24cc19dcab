//! `sidecheck up`

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use sidecheck::cluster::Target;
use sidecheck::display::say;
use sidecheck::environment;

use crate::cluster_options::ClusterOptions;

/// Bring the cluster up: made once per Kubernetes version, reused, and recreated if it is dead
#[derive(Args)]
pub struct Up {
    #[command(flatten)]
    cluster: ClusterOptions,
    /// Add what tests need to know to this file instead of printing it
    #[arg(long, env = "NEXTEST_ENV", value_name = "FILE", hide = true)]
    environment: Option<PathBuf>,
}

impl Up {
    pub async fn execute(self) -> anyhow::Result<u8> {
        let cluster = self.cluster.bring_up().await?;
        let line = match &cluster.target {
            Target::Context(name) => format!("{}={name}", environment::CONTEXT),
            Target::Kubeconfig(path) => format!("{}={}", environment::KUBECONFIG, path.display()),
        };
        match self.environment {
            Some(file) => {
                let mut file = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(&file)
                    .with_context(|| format!("cannot write {}", file.display()))?;
                writeln!(file, "{line}")?;
            }
            None => say(&line),
        }
        Ok(crate::MET)
    }
}
