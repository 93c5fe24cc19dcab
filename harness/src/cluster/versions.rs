//! The Kubernetes versions that clusters can be made of.

use std::fmt;
use std::str::FromStr;

use anyhow::anyhow;

/// Everything that is pinned per version, in the one table that the scripts read too.
const TABLE: &str = include_str!("../../../scripts/kubernetes-versions.tsv");

/// A version that a cluster can be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesVersion {
    /// `1.37`
    pub minor: String,
    /// `v1.37.0`
    pub full: String,
    /// The published node image by digest, if one is known.
    pub published_image: Option<String>,
}

impl KubernetesVersion {
    /// Every known version, oldest first.
    pub fn all() -> Vec<Self> {
        let mut lines = TABLE.lines();
        let header: Vec<&str> = lines
            .next()
            .unwrap_or_default()
            .trim_start_matches('#')
            .split('\t')
            .map(str::trim)
            .collect();
        let column = |row: &[&str], name: &str| {
            header
                .iter()
                .position(|title| *title == name)
                .and_then(|place| row.get(place))
                .map(|value| (*value).to_owned())
        };
        lines
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
            .filter_map(|line| {
                let row: Vec<&str> = line.split('\t').map(str::trim).collect();
                Some(Self {
                    minor: column(&row, "minor")?,
                    full: column(&row, "kubernetes")?,
                    published_image: column(&row, "kindest_node").filter(|image| image != "-"),
                })
            })
            .collect()
    }

    /// Whether the version is at least `1.minor`.
    pub fn is_at_least(&self, minor: u32) -> bool {
        self.minor
            .split_once('.')
            .and_then(|(_, own)| own.parse::<u32>().ok())
            .is_some_and(|own| own >= minor)
    }
}

impl FromStr for KubernetesVersion {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wanted = text.trim_start_matches('v');
        Self::all()
            .into_iter()
            .find(|version| version.minor == wanted || version.full.trim_start_matches('v') == wanted)
            .ok_or_else(|| {
                let known: Vec<String> = Self::all().into_iter().map(|version| version.minor).collect();
                anyhow!("unknown Kubernetes version “{text}”; known are {}", known.join(", "))
            })
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment;

    #[test]
    fn the_default_is_known() {
        let version: KubernetesVersion = environment::DEFAULT_KUBERNETES.parse().expect("known");
        assert!(version.full.starts_with("v1.37."));
        assert!(version.is_at_least(33) && !version.is_at_least(38));
    }

    #[test]
    fn a_full_version_is_understood_too() {
        let minor: KubernetesVersion = "1.33".parse().expect("known");
        assert_eq!(minor.full.parse::<KubernetesVersion>().expect("known"), minor);
    }

    #[test]
    fn an_unknown_version_is_told_with_the_known_ones() {
        let error = "1.12".parse::<KubernetesVersion>().expect_err("unknown");
        insta::assert_snapshot!(error.to_string(), @"unknown Kubernetes version “1.12”; known are 1.33, 1.34, 1.35, 1.36, 1.37");
    }
}
