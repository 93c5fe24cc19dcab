//! `sidecheck clean`

use std::ffi::OsStr;
use std::iter;

use anyhow::Context;
use clap::Args;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::Process;
use sidecheck::cluster::engine::{self, Engine};
use sidecheck::cluster::{Cluster, Target, kind};
use sidecheck::display::say;
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
            end(process)?;
            say(&format!("ended the process {process} of an earlier run"));
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
            for object in scenario::remove_cluster_objects(&cluster.client, None).await? {
                say(&format!("removed {object}"));
            }
            for name in scenario::remove_namespaces(&cluster.client, None).await? {
                say(&format!("removed the namespace {name}"));
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
                say(&format!("removed the dead cluster {name}"));
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
        say(&format!("removed the container {id}"));
    }
    Ok(())
}

/// Processes of a run whose runner is gone: tests that carry a run's id and have no nextest or cargo among their ancestors any more.
fn leftover_processes() -> anyhow::Result<Vec<i32>> {
    let own = Process::myself()?.pid();
    let results = environment::results();
    let target = results.parent().unwrap_or(&results);
    let is_test = |process: &Process| {
        let program = process.exe().unwrap_or_default();
        program.starts_with(target)
            && process
                .environ()
                .is_ok_and(|environment| environment.contains_key(OsStr::new("NEXTEST_RUN_ID")))
    };
    // Processes that have ended meanwhile do not count.
    let tests = procfs::process::all_processes()?.flatten().filter(is_test);
    Ok(tests
        .filter(|process| process.pid() != own && !has_runner(process))
        .map(|process| process.pid())
        .collect())
}

fn has_runner(process: &Process) -> bool {
    let parent = |process: &Process| Process::new(process.stat().ok()?.ppid).ok();
    iter::successors(parent(process), parent)
        .filter_map(|ancestor| ancestor.stat().ok())
        .any(|ancestor| ["cargo-nextest", "cargo"].contains(&ancestor.comm.as_str()))
}

fn end(process: i32) -> anyhow::Result<()> {
    match kill(Pid::from_raw(process), Signal::SIGKILL) {
        // It has ended by itself.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("the process {process} of an earlier run cannot be ended")),
    }
}
