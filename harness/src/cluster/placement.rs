//! Where Pods go on somebody else's cluster, and how their images get there.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Taint, Toleration};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{images, node_is_ready};
use crate::environment;

/// The Secret with the credentials of registries that a Pod's images need
/// (<https://kubernetes.io/docs/tasks/configure-pod-container/pull-image-private-registry/>).
pub(crate) const PULL_SECRET: &str = "sidecheck-pull";

/// The label of a node with its architecture (<https://kubernetes.io/docs/reference/labels-annotations-taints/>).
const ARCHITECTURE: &str = "kubernetes.io/arch";

/// A label that a node must have, as kubectl writes it: `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLabel {
    key: String,
    value: String,
}

impl FromStr for NodeLabel {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = text.split_once('=').context("it must be KEY=VALUE")?;
        ensure!(!key.is_empty(), "it must be KEY=VALUE");
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

impl fmt::Display for NodeLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// A taint that Pods tolerate, as kubectl writes taints: `KEY`, `KEY=VALUE`, each with `:EFFECT` if only that effect is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tolerated {
    key: String,
    value: Option<String>,
    effect: Option<String>,
}

impl FromStr for Tolerated {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        let (taint, effect) = match text.rsplit_once(':') {
            Some((taint, effect)) => (taint, Some(effect)),
            None => (text, None),
        };
        if let Some(effect) = effect.filter(|effect| !EFFECTS.contains(effect)) {
            bail!("“{effect}” is no effect of a taint; there are: {}", EFFECTS.join(", "));
        }
        let (key, value) = match taint.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (taint, None),
        };
        ensure!(!key.is_empty(), "it must be KEY[=VALUE][:EFFECT]");
        Ok(Self {
            key: key.to_owned(),
            value: value.map(str::to_owned),
            effect: effect.map(str::to_owned),
        })
    }
}

impl fmt::Display for Tolerated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, "={value}")?;
        }
        if let Some(effect) = &self.effect {
            write!(f, ":{effect}")?;
        }
        Ok(())
    }
}

impl Tolerated {
    fn covers(&self, taint: &Taint) -> bool {
        self.key == taint.key
            && self
                .value
                .as_ref()
                .is_none_or(|value| taint.value.as_ref() == Some(value))
            && self.effect.as_ref().is_none_or(|effect| *effect == taint.effect)
    }
}

impl From<Tolerated> for Toleration {
    fn from(tolerated: Tolerated) -> Self {
        Self {
            key: Some(tolerated.key),
            operator: Some(if tolerated.value.is_some() { "Equal" } else { "Exists" }.to_owned()),
            value: tolerated.value,
            effect: tolerated.effect,
            ..Self::default()
        }
    }
}

/// Puts into a Pod's spec where it can run: the addresses of the fixtures' images and their architecture, and what the environment says of the
/// nodes' labels, tolerations and the pull secret.
///
/// # Errors
/// What the environment says cannot be understood.
pub(crate) fn place(spec: &mut Value) -> anyhow::Result<()> {
    images::readdress(spec);
    if spec["nodeSelector"][ARCHITECTURE].is_null() {
        spec["nodeSelector"][ARCHITECTURE] = images::architecture().into();
    }
    for text in environment::list(environment::NODE_SELECTOR) {
        let label: NodeLabel = understood(environment::NODE_SELECTOR, &text)?;
        spec["nodeSelector"][label.key] = label.value.into();
    }
    for text in environment::list(environment::TOLERATIONS) {
        let tolerated: Tolerated = understood(environment::TOLERATIONS, &text)?;
        push(&mut spec["tolerations"], json!(Toleration::from(tolerated)));
    }
    if environment::value(environment::PULL_SECRET).is_some() {
        push(&mut spec["imagePullSecrets"], json!({"name": PULL_SECRET}));
    }
    Ok(())
}

/// Whether the node takes Pods that go where the environment says.
///
/// # Errors
/// What the environment says cannot be understood.
pub(crate) fn takes_pods(node: &Node) -> anyhow::Result<bool> {
    let mut tolerated = Vec::new();
    for text in environment::list(environment::TOLERATIONS) {
        tolerated.push(understood::<Tolerated>(environment::TOLERATIONS, &text)?);
    }
    let of_images = NodeLabel {
        key: ARCHITECTURE.to_owned(),
        value: images::architecture().to_owned(),
    };
    let mut labels = vec![of_images];
    for text in environment::list(environment::NODE_SELECTOR) {
        let label: NodeLabel = understood(environment::NODE_SELECTOR, &text)?;
        labels.retain(|other| other.key != label.key);
        labels.push(label);
    }
    for label in labels {
        if node.labels().get(&label.key) != Some(&label.value) {
            return Ok(false);
        }
    }
    let spec = node.spec.as_ref();
    let closed = spec.and_then(|spec| spec.unschedulable).unwrap_or_default();
    let mut taints = spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
    let is_kept_off = taints
        .any(|taint| taint.effect != "PreferNoSchedule" && !tolerated.iter().any(|tolerated| tolerated.covers(taint)));
    Ok(node_is_ready(node) && !closed && !is_kept_off)
}

fn understood<T: FromStr<Err = anyhow::Error>>(variable: &str, text: &str) -> anyhow::Result<T> {
    text.parse().with_context(|| format!("{variable}: “{text}”"))
}

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(items) => items.push(item),
        None => *list = json!([item]),
    }
}

/// The Secret named [`PULL_SECRET`], with the credentials of the file that the environment names; none if it names none.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn pull_secret() -> anyhow::Result<Option<Value>> {
    let Some(path) = environment::value(environment::PULL_SECRET) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(&path).with_context(|| format!("the pull secret {path} cannot be read"))?;
    Ok(Some(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": PULL_SECRET},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": text},
    })))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("dedicated", json!({"key": "dedicated", "operator": "Exists"}))]
    #[case("dedicated=tests", json!({"key": "dedicated", "operator": "Equal", "value": "tests"}))]
    #[case("example.com/gpu:NoExecute", json!({"key": "example.com/gpu", "operator": "Exists", "effect": "NoExecute"}))]
    #[case("a=b:NoSchedule", json!({"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"}))]
    fn a_taint_is_tolerated_as_it_is_written(#[case] text: &str, #[case] expected: Value) {
        let tolerated: Tolerated = text.parse().expect("a taint");
        assert_eq!(tolerated.to_string(), text);
        assert_eq!(json!(Toleration::from(tolerated)), expected);
    }

    #[rstest]
    #[case("", "it must be KEY[=VALUE][:EFFECT]")]
    #[case(
        "a:Never",
        "“Never” is no effect of a taint; there are: NoSchedule, PreferNoSchedule, NoExecute"
    )]
    fn what_is_no_taint_is_told(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(text.parse::<Tolerated>().expect_err("no taint").to_string(), expected);
    }
}
