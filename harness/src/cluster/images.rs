//! The fixtures' own images: built by `scripts/images`, loaded into nodes as one archive, and only when changed.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::Context;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::process::Command;

use super::Cluster;
use super::engine::{self, Engine};
use super::request::limited;
use crate::report::model::ImageFacts;
use crate::{environment, patience};

/// What the fixtures' images are called.
pub const LOCAL_PREFIX: &str = "localhost/sidecheck/";

/// The tag of the images in fixtures and in the engine. Nodes know them by [`tag`].
const LOCAL_TAG: &str = ":v1";

/// The annotation of a node that names the archive it holds.
const LOADED: &str = "sidecheck.dev/images";

/// Builds the images if they changed; returns the archive that holds them all.
///
/// # Errors
/// The build fails: what it said last.
pub async fn archive() -> anyhow::Result<PathBuf> {
    if let Some(archive) = environment::value(environment::IMAGES) {
        return Ok(archive.into());
    }
    let script = environment::root().join("scripts/images");
    let output = engine::run_aloud(&mut Command::new(&script), patience::BUILD)
        .await
        .context("the fixtures' images cannot be built")?;
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// Loads the archive into the kind cluster `name`, unless its nodes have it.
///
/// # Errors
/// Building or loading fails.
pub async fn load(engine: &Engine, cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let archive = archive().await?;
    let content = archive.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let stale: Vec<Node> = cluster
        .nodes()
        .await?
        .unwrap_or_default()
        .into_iter()
        .filter(|node| node.annotations().get(LOADED) != Some(&content))
        .collect();
    if stale.is_empty() {
        return Ok(());
    }
    let mut load = engine.tool("kind");
    load.args(["load", "image-archive", "--name", name]).arg(&archive);
    engine::run(&mut load, patience::TRANSFER)
        .await
        .context("the fixtures' images cannot be loaded into the cluster")?;
    let mark = json!({"metadata": {"annotations": {LOADED: content}}});
    for node in stale {
        let name = node.name_any();
        limited(
            "mark the node",
            nodes.patch(&name, &PatchParams::default(), &Patch::Merge(&mark)),
        )
        .await?;
    }
    Ok(())
}

/// The names of the images, as fixtures use them.
///
/// # Errors
/// The folder cannot be read.
pub fn names() -> anyhow::Result<Vec<String>> {
    let folder = environment::root().join("fixtures/images");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("no folder {}", folder.display()))? {
        let entry = entry?;
        if entry.path().join("Containerfile").is_file() {
            names.push(format!(
                "{LOCAL_PREFIX}{}{LOCAL_TAG}",
                entry.file_name().to_string_lossy()
            ));
        }
    }
    names.sort();
    Ok(names)
}

/// The name of one of the images without prefix and tag: `agent`.
pub fn short(image: &str) -> &str {
    image.trim_start_matches(LOCAL_PREFIX).trim_end_matches(LOCAL_TAG)
}

/// The images as the cluster's nodes know them; with the digest `unknown` if no node names one.
///
/// # Errors
/// The folder of the images or the nodes cannot be read.
pub async fn on(cluster: &Cluster) -> anyhow::Result<Vec<ImageFacts>> {
    let nodes = cluster.nodes().await?.unwrap_or_default();
    let known: Vec<Vec<String>> = nodes
        .into_iter()
        .flat_map(|node| node.status.and_then(|status| status.images).unwrap_or_default())
        .map(|image| image.names.unwrap_or_default())
        .collect();
    let digest = |name: &String| {
        let names = known.iter().find(|names| names.contains(name))?;
        names.iter().find_map(|name| Some(name.split_once('@')?.1.to_owned()))
    };
    let images = names()?.into_iter().map(|name| address(&name)).map(|name| ImageFacts {
        digest: digest(&name).unwrap_or_else(|| "unknown".to_owned()),
        name,
    });
    Ok(images.collect())
}

/// The images' tag on nodes and in registries: the hash of what they are made from, so that no node runs those of another version.
///
/// # Panics
/// `scripts/images`, which makes it, cannot be called or fails.
pub fn tag() -> &'static str {
    static TAG: OnceLock<String> = OnceLock::new();
    TAG.get_or_init(|| {
        environment::value(environment::IMAGE_TAG).unwrap_or_else(|| {
            let script = environment::root().join("scripts/images");
            let output = std::process::Command::new(&script).arg("--tag").output();
            let output = output.unwrap_or_else(|error| panic!("{} cannot be called: {error}", script.display()));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{} fails: {said}", script.display());
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        })
    })
}

/// The architecture that the images are built for, as Kubernetes names it: this machine's.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The address of a fixture's image on the cluster under test: with the images' tag, and below the image prefix if there is one.
pub fn address(image: &str) -> String {
    below(
        &environment::value(environment::IMAGE_PREFIX).unwrap_or_else(|| LOCAL_PREFIX.to_owned()),
        image,
    )
}

/// The address of a fixture's image below a prefix; any other image's is its own.
pub fn below(prefix: &str, image: &str) -> String {
    let ours = image
        .strip_prefix(LOCAL_PREFIX)
        .and_then(|name| name.strip_suffix(LOCAL_TAG));
    match ours {
        Some(name) => format!("{}/{name}:{}", prefix.trim_end_matches('/'), tag()),
        None => image.to_owned(),
    }
}

/// Puts the addresses of fixtures' images in the place of their names, in containers and in volumes.
pub fn readdress(object: &mut Value) {
    match object {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(image) if name == "image" || name == "reference" => *image = address(image),
                    other => readdress(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(readdress),
        _ => {}
    }
}
