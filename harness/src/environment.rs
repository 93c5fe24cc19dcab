//! What the environment says: where the project, its cache and its results are, and what a run is to do.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::bail;

/// Names an existing cluster: a context of the kubeconfig.
pub const CONTEXT: &str = "SIDECHECK_CONTEXT";
/// `true` means the cluster in one of whose Pods the program runs.
pub const IN_CLUSTER: &str = "SIDECHECK_IN_CLUSTER";
/// Existing namespaces of the cluster, separated by commas, in which the run works instead of making its own.
pub const NAMESPACES: &str = "SIDECHECK_NAMESPACES";
/// Labels that a node must have for Pods to go there: `KEY=VALUE,…`.
pub const NODE_SELECTOR: &str = "SIDECHECK_NODE_SELECTOR";
/// Taints that Pods tolerate: `KEY[=VALUE][:EFFECT],…`.
pub const TOLERATIONS: &str = "SIDECHECK_TOLERATIONS";
/// A kubeconfig: that of the cluster that the harness made, set by nextest's setup script, or that of an existing one.
pub const KUBECONFIG: &str = "SIDECHECK_KUBECONFIG";
/// The Kubernetes minor version of the cluster to make.
pub const KUBERNETES: &str = "SIDECHECK_KUBERNETES";
/// The run's id; see [`checked_run`].
pub const RUN: &str = "SIDECHECK_RUN";
/// The checks that a filtered run decides, as `ID@SHAPE,…`; everything if it is not set.
pub const SELECTION: &str = "SIDECHECK_SELECTION";
/// `1` runs the twins too.
pub const PROVE: &str = "SIDECHECK_PROVE";
/// `never`, `on-failure` or `always`: which namespaces stay.
pub const KEEP: &str = "SIDECHECK_KEEP";
/// How long the checks of a run may take, such as `30m`.
pub const TIMEOUT: &str = "SIDECHECK_TIMEOUT";
/// The project's root, for a command that is called from another folder.
pub const ROOT: &str = "SIDECHECK_ROOT";
/// What stands before the fixtures' image names on a cluster elsewhere.
pub const IMAGE_PREFIX: &str = "SIDECHECK_IMAGE_PREFIX";
/// The tag of the fixtures' images; made from what they are made of if it is not set.
pub const IMAGE_TAG: &str = "SIDECHECK_IMAGE_TAG";
/// A file with credentials of registries, a `config.json` of docker: each namespace gets them as its pull secret.
pub const PULL_SECRET: &str = "SIDECHECK_PULL_SECRET";
/// A file with the profile, as JSON, of the image that takes the place of a role's reference image.
pub const PROFILE: &str = "SIDECHECK_PROFILE";

/// An archive of the fixtures' images, made by `sidecheck images archive`, for machines that cannot build them.
pub const IMAGES: &str = "SIDECHECK_IMAGES";

/// The Kubernetes version of the harness's own cluster if none is named.
pub const DEFAULT_KUBERNETES: &str = "1.37";

/// What a command line has said in the place of variables.
static GIVEN: OnceLock<BTreeMap<&'static str, String>> = OnceLock::new();

/// Takes values of a command line for those of variables, in this process and, with [`given`], in those that it calls. Later calls count for
/// nothing.
pub fn give(values: impl IntoIterator<Item = (&'static str, String)>) {
    GIVEN.get_or_init(|| values.into_iter().collect());
}

/// What was given to [`give`].
pub fn given() -> impl Iterator<Item = (&'static str, &'static String)> {
    GIVEN.get().into_iter().flatten().map(|(name, value)| (*name, value))
}

/// A variable's value, unless it is empty.
pub fn value(name: &str) -> Option<String> {
    let given = GIVEN.get().and_then(|given| given.get(name).cloned());
    given.or_else(|| env::var(name).ok()).filter(|value| !value.is_empty())
}

/// The project's root: the named one, or the nearest folder, from the test's package or the current one upwards, that holds `fixtures`.
///
/// Packages move when tests run from an archive, so the compile-time path does not count.
pub fn root() -> PathBuf {
    if let Some(root) = value(ROOT) {
        return root.into();
    }
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

/// The folder with the kubeconfigs of the harness's own clusters.
pub fn clusters() -> PathBuf {
    cache().join("clusters")
}

/// Whether this is the kubeconfig of one of the harness's own clusters.
pub fn is_own(kubeconfig: &Path) -> bool {
    kubeconfig.parent() == Some(&clusters())
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

/// The id of this run: given by `sidecheck run`, else the beginning of nextest's, else made of the process number.
///
/// # Errors
/// The given id is not valid; see [`checked_run`].
pub fn run_id() -> anyhow::Result<String> {
    if let Some(given) = value(RUN) {
        return checked_run(&given);
    }
    // A UUID: its first eight digits are enough.
    let nextest = value("NEXTEST_RUN_ID").map(|id| id.chars().take(8).collect::<String>());
    nextest.map_or_else(|| Ok(format!("process-{}", std::process::id())), |id| checked_run(&id))
}

/// The id of a run as it was given. It names a folder and is a label's value: at most 40 of `a-z`, `0-9` and `-`, with no `-` at either end.
///
/// # Errors
/// It is something else.
pub fn checked_run(id: &str) -> anyhow::Result<String> {
    let allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    if id.is_empty() || id.len() > 40 || !id.chars().all(allowed) || id.starts_with('-') || id.ends_with('-') {
        bail!("{RUN}: “{id}” is no id of a run; use up to 40 of a-z, 0-9 and -, with a letter or digit at both ends");
    }
    Ok(id.to_owned())
}

/// The checks that this run decides, as `ID@SHAPE`; none if it decides them all.
pub fn selection() -> Option<BTreeSet<String>> {
    let selected = value(SELECTION)?;
    Some(selected.split(',').map(|check| check.trim().to_owned()).collect())
}

/// Values of a variable that are separated by commas; none if it is not set.
pub fn list(name: &str) -> Vec<String> {
    let text = value(name).unwrap_or_default();
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

/// The command that decides checks on the cluster that the environment names.
pub fn command() -> String {
    let mut words = vec!["./scripts/conformance".to_owned()];
    let is_own = value(KUBECONFIG).is_some_and(|path| is_own(Path::new(&path)));
    let options = [
        ("--kubeconfig", KUBECONFIG),
        ("--context", CONTEXT),
        ("--namespace", NAMESPACES),
        ("--node-selector", NODE_SELECTOR),
        ("--toleration", TOLERATIONS),
        ("--image-prefix", IMAGE_PREFIX),
    ];
    words.extend(value(IN_CLUSTER).map(|_| "--in-cluster".to_owned()));
    for (option, name) in options {
        let value = value(name).filter(|_| !(is_own && name == KUBECONFIG));
        words.extend(value.map(|value| format!("{option} {value}")));
    }
    let is_existing =
        value(IN_CLUSTER).is_some() || value(CONTEXT).is_some() || (value(KUBECONFIG).is_some() && !is_own);
    if let Some(version) = value(KUBERNETES).filter(|version| version != DEFAULT_KUBERNETES && !is_existing) {
        words.push(format!("--kubernetes {version}"));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::checked_run;

    #[rstest]
    #[case("1a2b3c4d", true)]
    #[case("nightly-2026-01-31", true)]
    #[case("a", true)]
    #[case("a123456789b123456789c123456789d123456789", true)]
    #[case("a123456789b123456789c123456789d123456789e", false)]
    #[case("", false)]
    #[case("-a", false)]
    #[case("a-", false)]
    #[case("A", false)]
    #[case("a/../b", false)]
    #[case("a b", false)]
    fn a_run_has_a_name_that_is_good_for_folders_and_labels(#[case] id: &str, #[case] good: bool) {
        assert_eq!(checked_run(id).is_ok(), good);
    }
}
