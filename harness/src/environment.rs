//! What the environment says: where the project, its cache and its results are, and how a run is meant.

use std::env;
use std::path::{Path, PathBuf};

use crate::cluster::versions;
use crate::report::records::RunFolder;
use crate::scenario::{Keep, Setting};

/// Names an existing cluster: a context of the kubeconfig.
pub const CONTEXT: &str = "SIDECHECK_CONTEXT";
/// The kubeconfig of the cluster that the harness made; set by nextest's setup script.
pub const KUBECONFIG: &str = "SIDECHECK_KUBECONFIG";
/// The Kubernetes minor version of the cluster to make.
pub const KUBERNETES: &str = "SIDECHECK_KUBERNETES";
/// The run's id.
pub const RUN: &str = "SIDECHECK_RUN";
/// `1` runs the twins too.
pub const PROVE: &str = "SIDECHECK_PROVE";
/// `never`, `on-failure` or `always`: which namespaces stay.
pub const KEEP: &str = "SIDECHECK_KEEP";
/// What stands before the fixtures' image names on a cluster elsewhere.
pub const IMAGE_PREFIX: &str = "SIDECHECK_IMAGE_PREFIX";

/// An archive of the fixtures' images, made by `sidecheck images archive`, where they cannot be built.
pub const IMAGES: &str = "SIDECHECK_IMAGES";

/// A variable's value, unless it is empty.
pub fn value(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The project's root: the nearest folder, from the test's package or the current one upwards, that holds `fixtures`.
///
/// Packages move when tests run from an archive, so the compile-time path does not count.
pub fn root() -> PathBuf {
    let start = value("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .or_else(|| env::current_dir().ok())
        .unwrap_or_default();
    start
        .ancestors()
        .find(|folder| folder.join("fixtures").is_dir() && folder.join("scripts").is_dir())
        .map_or(start.clone(), Path::to_path_buf)
}

/// The cache folder: `${XDG_CACHE_HOME:-~/.cache}/sidecheck`.
pub fn cache() -> PathBuf {
    value("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| value("HOME").map(|home| Path::new(&home).join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join("sidecheck")
}

/// Where reports, records and evidence go.
pub fn results() -> PathBuf {
    value("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), PathBuf::from)
        .join("sidecheck")
}

/// A path below the results, as the report names it.
pub fn relative(path: &Path) -> String {
    path.strip_prefix(results()).unwrap_or(path).display().to_string()
}

/// The id of this run: given by `sidecheck run`, else nextest's, else the process'.
pub fn run_id() -> String {
    value(RUN)
        .or_else(|| value("NEXTEST_RUN_ID"))
        .unwrap_or_else(|| format!("process-{}", std::process::id()))
}

/// The command that decides checks on the cluster that the environment names.
pub fn command() -> String {
    command_on(value(CONTEXT).as_deref(), value(KUBERNETES).as_deref())
}

/// The command that decides checks on this cluster: an existing one, or the harness's own of a version.
pub fn command_on(context: Option<&str>, kubernetes: Option<&str>) -> String {
    let command = "./scripts/conformance";
    match (context, kubernetes) {
        (Some(context), _) => format!("{command} --context {context}"),
        (None, Some(version)) if version != versions::DEFAULT => format!("{command} --kubernetes {version}"),
        _ => command.to_owned(),
    }
}

/// Everything a check needs to know.
pub fn setting() -> Setting {
    let run = run_id();
    Setting {
        fixtures: root().join("fixtures"),
        folder: RunFolder::new(&results(), &run),
        run,
        prove: value(PROVE).is_some_and(|value| value == "1"),
        keep: match value(KEEP).as_deref() {
            Some("always") => Keep::Always,
            Some("on-failure") => Keep::OnFailure,
            _ => Keep::Never,
        },
        target: None,
    }
}
