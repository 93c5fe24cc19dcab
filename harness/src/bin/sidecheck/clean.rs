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
use sidecheck::display::{display_safe, say};
use sidecheck::scenario::Leftovers;
use sidecheck::{environment, patience};

use crate::cluster_options::Existing;

/// Remove what killed runs left: on this machine and its clusters, or on an existing cluster that is named
///
/// On this machine these are processes, namespaces, containers and dead clusters; on an existing cluster everything with the label
/// sidecheck.dev/run, and namespaces only if a run has made them. A run that is still going on loses what it has, too.
#[derive(Args)]
pub struct Clean {
    #[command(flatten)]
    existing: Existing,
}

impl Clean {
    pub async fn execute(self) -> anyhow::Result<u8> {
        let clusters = match self.existing.target()? {
            Some(target) => vec![Cluster::connect_to(target).await?],
            None => clean_machine().await?,
        };
        let namespaces = &self.existing.namespace;
        let leftovers: Vec<Leftovers<'_>> = clusters
            .iter()
            .map(|cluster| Leftovers {
                client: &cluster.client,
                run: None,
                namespaces,
            })
            .collect();
        for leftovers in &leftovers {
            for what in leftovers.remove().await? {
                say(&format!("removed {}", display_safe(&what)));
            }
        }
        for leftovers in &leftovers {
            leftovers.wait_until_gone(patience::CLEAN_UP).await?;
        }
        Ok(crate::MET)
    }
}

/// Ends processes, and removes containers and dead clusters; returns the clusters that work.
async fn clean_machine() -> anyhow::Result<Vec<Cluster>> {
    for process in leftover_processes()? {
        end(process)?;
        say(&format!("ended the process {process} of an earlier run"));
    }
    let Ok(engine) = Engine::chosen() else {
        return Ok(Vec::new());
    };
    remove_containers(&engine).await?;
    own_clusters(&engine).await
}

/// The harness's clusters that work; dead ones are removed.
async fn own_clusters(engine: &Engine) -> anyhow::Result<Vec<Cluster>> {
    let mut clusters = Vec::new();
    for name in kind::existing(engine).await? {
        let kubeconfig = environment::clusters().join(format!("{name}.kubeconfig"));
        let alive = async {
            let cluster = Cluster::connect_to(Target::Own(kubeconfig)).await?;
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
