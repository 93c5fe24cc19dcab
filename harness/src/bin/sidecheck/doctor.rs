//! `sidecheck doctor`

use clap::Args;
use sidecheck::cluster::engine::{self, Engine};
use sidecheck::cluster::kind::{self, KindCluster};
use sidecheck::cluster::versions::KubernetesVersion;
use sidecheck::display::{display_safe, explained, say};
use sidecheck::{environment, patience};

/// Say what this machine has and lacks for running clusters
#[derive(Args)]
pub struct Doctor {}

impl Doctor {
    pub async fn execute(self) -> anyhow::Result<u8> {
        let mut healthy = true;
        let mut tell = |name: &str, result: anyhow::Result<String>| match result {
            Ok(text) => say(&format!("ok       {name:<12} {}", display_safe(&text))),
            Err(error) => {
                healthy = false;
                say(&format!("missing  {name:<12} {}", display_safe(&explained(&error))));
            }
        };
        let engine = Engine::chosen();
        tell("engine", check_engine(&engine).await);
        if let Ok(engine) = &engine {
            tell("kind", version_of(engine, "kind", &["version"]).await);
            tell(
                "nextest",
                version_of(engine, "cargo-nextest", &["nextest", "--version"]).await,
            );
        }
        tell(
            "disk",
            kind::enough_disk(&environment::cache()).map(|()| "enough for a cluster".to_owned()),
        );
        for version in KubernetesVersion::all() {
            let Ok(cluster) = KindCluster::new(version) else {
                continue;
            };
            if !cluster.kubeconfig().exists() {
                continue;
            }
            let state = cluster.connect().await.map(|_| "answers".to_owned());
            tell(
                &cluster.name(),
                state.map_err(|error| error.context("it is dead; the next `sidecheck up` recreates it")),
            );
        }
        Ok(if healthy { crate::MET } else { crate::ERROR })
    }
}

async fn check_engine(engine: &anyhow::Result<Engine>) -> anyhow::Result<String> {
    match engine {
        Ok(engine) => {
            engine.probe().await?;
            engine.runs_privileged().await?;
            Ok(format!("{} runs privileged containers", engine.program()))
        }
        Err(error) => Err(anyhow::anyhow!(explained(error))),
    }
}

async fn version_of(engine: &Engine, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = engine::run(engine.tool(program).args(arguments), patience::ENGINE)
        .await
        .map_err(|error| error.context("run scripts/setup"))?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned())
}
