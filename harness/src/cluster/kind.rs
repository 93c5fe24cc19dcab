//! The harness's own kind clusters: one per Kubernetes version, made once, reused, and replaced when dead.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::json;
use tokio::time::sleep;

use super::engine::{self, Engine};
use super::versions::KubernetesVersion;
use super::{Cluster, Target, images};
use crate::display::explained;
use crate::{environment, patience};

/// What the names of the harness's clusters begin with.
const PREFIX: &str = "sidecheck-";

/// The label of a node that names the Pod network of its node image.
pub(super) const NETWORK_LABEL: &str = "sidecheck.dev/network";

/// The Pod network of the published node images, and that of the image built here.
const KINDNET: &str = "kindnet";
const PTP: &str = "ptp";

/// What a cluster needs on disk, with room for the Pods' own files, in bytes.
const DISK: u64 = 4 << 30;

/// A cluster that the harness made, or will make.
#[derive(Clone, Debug)]
pub struct KindCluster {
    /// Its version.
    pub version: KubernetesVersion,
    engine: Engine,
}

impl KindCluster {
    /// The harness's cluster of that version.
    ///
    /// # Errors
    /// No engine is set up.
    pub fn new(version: KubernetesVersion) -> anyhow::Result<Self> {
        Ok(Self {
            version,
            engine: Engine::chosen()?,
        })
    }

    /// kind's name for it.
    pub fn name(&self) -> String {
        format!("{PREFIX}{}", self.version.minor)
    }

    /// Its kubeconfig, apart from the user's own.
    pub fn kubeconfig(&self) -> PathBuf {
        environment::clusters().join(format!("{}.kubeconfig", self.name()))
    }

    /// Connects to it and checks that it works. The engine's status does not count: it says “up” of dead clusters too.
    ///
    /// # Errors
    /// It does not exist or does not answer.
    pub async fn connect(&self) -> anyhow::Result<Cluster> {
        let cluster = Cluster::connect_to(Target::Own(self.kubeconfig())).await?;
        cluster.probe().await?;
        Ok(cluster)
    }

    /// Makes sure that the cluster exists, works, and holds the fixtures' images.
    ///
    /// # Errors
    /// What failed, and what to do about it.
    pub async fn up(&self) -> anyhow::Result<Cluster> {
        fs::create_dir_all(environment::clusters())?;
        let lock = File::create(environment::clusters().join(format!("{}.lock", self.name())))?;
        lock.lock()
            .context("cannot wait for another process that brings the cluster up")?;
        let cluster = match self.usable().await {
            Ok(cluster) => cluster,
            Err(fault) => self.replace(fault).await?,
        };
        images::load(&self.engine, &cluster, &self.name()).await?;
        Ok(cluster)
    }

    /// Connects to it, unless there is a reason to make it anew.
    async fn usable(&self) -> Result<Cluster, &'static str> {
        match self.connect().await {
            Ok(cluster) if self.is_current() => Ok(cluster),
            Ok(_) => Err("was made with other settings"),
            Err(_) => Err("does not answer"),
        }
    }

    /// Makes the cluster, unless somebody uses it: then it is perhaps that test that holds it up, and it answers again later.
    async fn replace(&self, fault: &str) -> anyhow::Result<Cluster> {
        let begun = Instant::now();
        let mut said = false;
        loop {
            if let Some(alone) = Use::alone(&self.kubeconfig())? {
                self.create(fault).await?;
                drop(alone);
                return self.connect().await;
            }
            if !said {
                tracing::info!(
                    "the cluster {} {fault}, and somebody uses it: waiting for them",
                    self.name()
                );
                said = true;
            }
            if begun.elapsed() > patience::IN_USE {
                bail!(
                    "the cluster {} {fault}, and somebody still uses it: end what runs there, or wait for it",
                    self.name()
                );
            }
            sleep(patience::RECONNECT).await;
            if let Ok(cluster) = self.usable().await {
                return Ok(cluster);
            }
        }
    }

    /// Whether the cluster was made with the settings that it would be made with now.
    fn is_current(&self) -> bool {
        let made = fs::read_to_string(self.configuration()).unwrap_or_default();
        [KINDNET, PTP]
            .iter()
            .any(|network| serde_saphyr::to_string(&self.config(network)).is_ok_and(|wanted| wanted == made))
    }

    fn configuration(&self) -> PathBuf {
        environment::clusters().join(format!("{}.yaml", self.name()))
    }

    /// Makes the cluster. An existing one is removed first, and the reason is logged.
    async fn create(&self, fault: &str) -> anyhow::Result<()> {
        self.engine.probe().await?;
        self.engine.runs_privileged().await?;
        enough_disk(&environment::cache())?;
        if self.exists().await? {
            tracing::info!("the cluster {} exists but {fault}: it is recreated", self.name());
            self.down().await?;
        }
        let (image, network) = self.node_image().await?;
        let began = Instant::now();
        let config = self.configuration();
        fs::write(&config, serde_saphyr::to_string(&self.config(network))?)?;
        let mut create = self.engine.tool("kind");
        create
            .args([
                "create",
                "cluster",
                "--name",
                &self.name(),
                "--image",
                &image,
                "--wait",
                "300s",
            ])
            .arg("--config")
            .arg(&config)
            .arg("--kubeconfig")
            .arg(self.kubeconfig());
        if let Err(error) = engine::run(&mut create, patience::CREATE).await {
            self.down().await.ok();
            return Err(error.context(format!(
                "kind cannot make a cluster of Kubernetes {}; `sidecheck doctor` checks this machine",
                self.version.full
            )));
        }
        tracing::info!(
            "Kubernetes {} is up after {:.1} s",
            self.version.full,
            began.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// The node image, and the Pod network it brings: the published one if a registry answers, else the one built here.
    async fn node_image(&self) -> anyhow::Result<(String, &'static str)> {
        if let Some(published) = &self.version.published_image {
            if self.engine.has_image(published).await? {
                return Ok((published.clone(), KINDNET));
            }
            if registry_answers().await {
                tracing::info!("pulling {published}");
                let mut pull = self.engine.command();
                pull.args(["pull", published]);
                match engine::run(&mut pull, patience::TRANSFER).await {
                    Ok(_) => return Ok((published.clone(), KINDNET)),
                    Err(error) => tracing::warn!("{}; building the image instead", explained(&error)),
                }
            }
        }
        let script = environment::root().join("scripts/node-image");
        let mut build = tokio::process::Command::new(script);
        build.arg(&self.version.minor);
        let output = engine::run_aloud(&mut build, patience::BUILD)
            .await
            .context("the node image cannot be built; the next try continues from here")?;
        Ok((String::from_utf8_lossy(&output.stdout).trim().to_owned(), PTP))
    }

    /// Removes the cluster and its kubeconfig.
    ///
    /// # Errors
    /// kind fails.
    pub async fn down(&self) -> anyhow::Result<()> {
        delete(&self.engine, &self.name()).await
    }

    /// Whether kind knows the cluster, alive or dead.
    async fn exists(&self) -> anyhow::Result<bool> {
        Ok(existing(&self.engine).await?.contains(&self.name()))
    }

    /// kind's configuration: settings that make tests quick, if the version has them.
    fn config(&self, network: &str) -> serde_json::Value {
        let mut kubelet = json!({
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "maxPods": 250,
            "serializeImagePulls": false,
            "syncFrequency": "5s",
            "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
        });
        if !self.version.is_at_least(35) {
            kubelet["featureGates"] = json!({"KubeletCrashLoopBackOffMax": true});
        }
        if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            // A cgroup v1 host: kubelets from 1.35 on refuse it by default.
            kubelet["failCgroupV1"] = json!(false);
        }
        // A scheduler or controller that cannot renew its lease for 10 s ends; there is no other one that could take over.
        let alone = ("leader-elect", "false");
        let controller = [
            alone,
            // Nor is there another node if this one stands still for a while.
            ("node-monitor-grace-period", "5m"),
            // Every check deletes a namespace: the default of 20 requests a second would take minutes for a run's.
            ("kube-api-qps", "5000"),
            ("kube-api-burst", "10000"),
            ("concurrent-namespace-syncs", "50"),
        ];
        // A test cluster need not survive a power cut.
        let etcd = [("unsafe-no-fsync", "true")];
        let arguments = |pairs: &[(&str, &str)]| -> serde_json::Value {
            let list = self.version.is_at_least(36);
            if list {
                pairs
                    .iter()
                    .map(|(name, value)| json!({"name": name, "value": value}))
                    .collect()
            } else {
                pairs.iter().map(|(name, value)| (*name, *value)).collect()
            }
        };
        let kubeadm = if self.version.is_at_least(36) {
            "v1beta4"
        } else {
            "v1beta3"
        };
        let control_plane = json!({
            "kind": "ClusterConfiguration",
            "apiVersion": format!("kubeadm.k8s.io/{kubeadm}"),
            "controllerManager": {"extraArgs": arguments(&controller)},
            "scheduler": {"extraArgs": arguments(&[alone])},
            "etcd": {"local": {"extraArgs": arguments(&etcd)}},
        });
        json!({
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "nodes": [{"role": "control-plane", "labels": {NETWORK_LABEL: network}}],
            "kubeadmConfigPatches": [kubelet.to_string(), control_plane.to_string()],
        })
    }
}

/// kind's name for the cluster with this kubeconfig, if it is one of the harness's.
pub fn name_of(kubeconfig: &Path) -> Option<String> {
    let name = kubeconfig.file_stem()?.to_str()?;
    name.starts_with(PREFIX).then(|| name.to_owned())
}

/// The names of the harness's clusters that kind knows, alive or dead.
///
/// # Errors
/// kind cannot be called.
pub async fn existing(engine: &Engine) -> anyhow::Result<Vec<String>> {
    let output = engine::run(engine.tool("kind").args(["get", "clusters"]), patience::ENGINE).await?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|name| name.starts_with(PREFIX))
        .map(str::to_owned)
        .collect())
}

/// Removes one of the harness's clusters, and its files.
///
/// # Errors
/// kind fails.
pub async fn delete(engine: &Engine, name: &str) -> anyhow::Result<()> {
    let kubeconfig = environment::clusters().join(format!("{name}.kubeconfig"));
    let mut delete = engine.tool("kind");
    delete
        .args(["delete", "cluster", "--name", name, "--kubeconfig"])
        .arg(&kubeconfig);
    engine::run(&mut delete, patience::ENGINE)
        .await
        .with_context(|| format!("the cluster {name} cannot be removed"))?;
    for ending in ["kubeconfig", "kubeconfig.lock", "yaml"] {
        fs::remove_file(environment::clusters().join(format!("{name}.{ending}"))).ok();
    }
    Ok(())
}

/// That somebody uses a cluster of the harness, for as long as it lives: nobody else then makes it anew.
#[derive(Clone)]
pub(super) struct Use {
    _lock: Arc<File>,
}

impl Use {
    /// Together with others. There is none while somebody makes the cluster, and where the folder cannot be written.
    pub(super) fn shared(kubeconfig: &Path) -> Option<Self> {
        let lock = Self::file(kubeconfig).ok()?;
        lock.try_lock_shared().is_ok().then(|| Self { _lock: Arc::new(lock) })
    }

    /// Alone; none if somebody uses it.
    fn alone(kubeconfig: &Path) -> anyhow::Result<Option<Self>> {
        let lock = Self::file(kubeconfig)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { _lock: Arc::new(lock) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).context("a lock cannot be had"),
        }
    }

    fn file(kubeconfig: &Path) -> anyhow::Result<File> {
        let path = kubeconfig.with_extension("use");
        File::create(&path).with_context(|| format!("{} cannot be written", path.display()))
    }
}

/// Whether the registry of the published images can be reached at all.
async fn registry_answers() -> bool {
    let connect = tokio::net::TcpStream::connect("registry-1.docker.io:443");
    matches!(tokio::time::timeout(patience::REGISTRY, connect).await, Ok(Ok(_)))
}

/// Fails if the disk below `folder` has too little room for a cluster.
///
/// # Errors
/// How much there is and how much is needed.
pub fn enough_disk(folder: &Path) -> anyhow::Result<()> {
    let existing = folder
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"));
    let free = fs4::available_space(existing)?;
    if free < DISK {
        bail!(
            "too little disk: a cluster needs {:.1} GiB below {}, {:.1} GiB are free",
            gib(DISK),
            folder.display(),
            gib(free)
        );
    }
    Ok(())
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
