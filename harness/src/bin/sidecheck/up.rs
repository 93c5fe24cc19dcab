//! `sidecheck up`

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use sidecheck::display::say;

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
        self.cluster.take()?;
        let cluster = self.cluster.bring_up().await?;
        let variables = cluster.target.variables();
        let lines: Vec<String> = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        match self.environment {
            Some(file) => {
                let mut file = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(&file)
                    .with_context(|| format!("cannot write {}", file.display()))?;
                writeln!(file, "{}", lines.join("\n"))?;
            }
            None => lines.iter().for_each(|line| say(line)),
        }
        Ok(crate::MET)
    }
}
