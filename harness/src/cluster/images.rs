//! The fixtures' own images: built by `scripts/images`, loaded into nodes as one archive, and only when changed.

use std::path::PathBuf;

use anyhow::Context;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, Patch, PatchParams};
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
    let stale: Vec<Node> = limited("list the nodes", nodes.list(&ListParams::default()))
        .await?
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
            names.push(format!("{LOCAL_PREFIX}{}:v1", entry.file_name().to_string_lossy()));
        }
    }
    names.sort();
    Ok(names)
}

/// The images as the cluster's nodes know them; with the digest `unknown` if no node names one.
///
/// # Errors
/// The folder of the images or the nodes cannot be read.
pub async fn on(cluster: &Cluster) -> anyhow::Result<Vec<ImageFacts>> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let nodes = limited("list the nodes", nodes.list(&ListParams::default())).await?;
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

/// The address of a fixture's image on the cluster under test: below the image prefix if there is one.
pub fn address(image: &str) -> String {
    match (
        environment::value(environment::IMAGE_PREFIX),
        image.strip_prefix(LOCAL_PREFIX),
    ) {
        (Some(prefix), Some(name)) => format!("{}/{name}", prefix.trim_end_matches('/')),
        _ => image.to_owned(),
    }
}

/// Puts the image prefix in front of every fixture image that an object names.
pub fn readdress(object: &mut Value) {
    match object {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(image) if name == "image" => *image = address(image),
                    other => readdress(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(readdress),
        _ => {}
    }
}
