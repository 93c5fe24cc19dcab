//! `sidecheck clean`

use std::fs;

use clap::Args;
use sidecheck::cluster::engine::{self, Engine};
use sidecheck::cluster::{Cluster, Target, kind};
use sidecheck::{environment, patience, scenario};

/// Remove what a killed run left: processes, namespaces, containers and dead clusters
///
/// A run that is still going on loses its namespaces too.
#[derive(Args)]
pub struct Clean {
    /// Also clean an existing cluster: a context of your kubeconfig
    #[arg(long, env = environment::CONTEXT, value_name = "NAME")]
    context: Option<String>,
}

impl Clean {
    pub async fn execute(self) -> anyhow::Result<u8> {
        for process in leftover_processes()? {
            end(process).await?;
            println!("ended the process {process} of an earlier run");
        }
        let mut clusters = Vec::new();
        if let Some(context) = self.context {
            clusters.push(Cluster::connect_to(Target::Context(context)).await?);
        }
        if let Ok(engine) = Engine::chosen() {
            clusters.extend(own_clusters(&engine).await?);
            remove_containers(&engine).await?;
        }
        for cluster in &clusters {
            for name in scenario::remove_namespaces(&cluster.client, None).await? {
                println!("removed the namespace {name}");
            }
        }
        for cluster in &clusters {
            scenario::wait_until_gone(&cluster.client, None, patience::CLEAN_UP).await?;
        }
        Ok(crate::MET)
    }
}

/// The harness's clusters that work; dead ones are removed.
async fn own_clusters(engine: &Engine) -> anyhow::Result<Vec<Cluster>> {
    let mut clusters = Vec::new();
    for name in kind::existing(engine).await? {
        let kubeconfig = environment::cache().join("clusters").join(format!("{name}.kubeconfig"));
        let alive = async {
            let cluster = Cluster::connect_to(Target::Kubeconfig(kubeconfig)).await?;
            cluster.probe().await?;
            anyhow::Ok(cluster)
        };
        match alive.await {
            Ok(cluster) => clusters.push(cluster),
            Err(_) => {
                kind::delete(engine, &name).await?;
                println!("removed the dead cluster {name}");
            }
        }
    }
    Ok(clusters)
}

/// Containers that tests of the fixtures' images started on the engine.
async fn remove_containers(engine: &Engine) -> anyhow::Result<()> {
    let mut list = engine.command();
    list.args(["ps", "--all", "--quiet", "--filter", "label=sidecheck.dev/test"]);
    let listed = engine::run(&mut list, patience::ENGINE).await?;
    for id in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
        engine::run(engine.command().args(["rm", "--force", id]), patience::ENGINE).await?;
        println!("removed the container {id}");
    }
    Ok(())
}

/// Processes of a run whose runner is gone: tests that carry a run's id and no longer have nextest as their parent.
fn leftover_processes() -> anyhow::Result<Vec<u32>> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let is_test = read("environ")
            .split(|byte| *byte == 0)
            .any(|variable| variable.starts_with(b"NEXTEST_RUN_ID="))
            && read("cmdline").starts_with(environment::root().join("target").as_os_str().as_encoded_bytes());
        let status = String::from_utf8_lossy(&read("status")).into_owned();
        let orphan = status.lines().any(|line| line.split_whitespace().eq(["PPid:", "1"]));
        if process != own && is_test && orphan {
            found.push(process);
        }
    }
    Ok(found)
}

async fn end(process: u32) -> anyhow::Result<()> {
    let mut kill = tokio::process::Command::new("kill");
    kill.args(["-KILL", &process.to_string()]);
    engine::run(&mut kill, patience::ENGINE).await?;
    Ok(())
}
