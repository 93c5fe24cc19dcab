//! The run model: what was checked, on which cluster, with which outcome.

use serde::{Deserialize, Serialize};

use crate::fixture::{Level, Metadata, Shape};

/// The version of the report's format.
pub const API_VERSION: &str = "sidecheck.dev/v1alpha1";

/// A run's result.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `ConformanceReport`.
    pub kind: String,
    /// The run's id, which its namespaces carry as a label.
    pub run: String,
    /// What decides checks on the same cluster again, followed by their names.
    pub command: String,
    /// When the run began, as RFC 3339 in UTC.
    pub date: String,
    /// Whether every planned check has an outcome of its own; a run that was killed is not complete.
    pub complete: bool,
    /// How long the run took, in milliseconds.
    pub duration_ms: u64,
    /// What was checked.
    pub cluster: ClusterFacts,
    /// How many checks had which outcome.
    pub summary: Summary,
    /// Every check of the run, by id and shape.
    pub checks: Vec<CheckResult>,
}

/// What a cluster says about itself. `unknown` stands where it says nothing.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ClusterFacts {
    /// The API server's version: `v1.37.0`.
    pub version: String,
    /// Who made it: `kind`, or what the nodes' provider id names.
    pub distribution: String,
    /// The nodes' container runtime.
    pub runtime: String,
    /// The nodes' kernel.
    pub kernel: String,
    /// The Pod network, as far as kube-system shows it.
    pub cni: String,
    /// How many nodes there are.
    pub nodes: usize,
}

impl Default for ClusterFacts {
    fn default() -> Self {
        let unknown = || "unknown".to_owned();
        Self {
            version: unknown(),
            distribution: unknown(),
            runtime: unknown(),
            kernel: unknown(),
            cni: unknown(),
            nodes: 0,
        }
    }
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OutcomeKind {
    /// The cluster does what is required.
    Met,
    /// It does not.
    NotMet,
    /// The cluster lacks what the requirement is about.
    NotApplicable,
    /// The check was left out.
    Skipped,
    /// The suite could not tell.
    Error,
}

impl OutcomeKind {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "not met",
            Self::NotApplicable => "not applicable",
            Self::Skipped => "skipped",
            Self::Error => "error",
        }
    }
}

/// A count per outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each is the number of checks with that outcome")]
pub struct Summary {
    pub met: usize,
    pub not_met: usize,
    pub not_applicable: usize,
    pub skipped: usize,
    pub error: usize,
}

impl Summary {
    /// Counts.
    pub fn of<'a>(checks: impl IntoIterator<Item = &'a CheckResult>) -> Self {
        let mut summary = Self::default();
        for check in checks {
            *match check.outcome {
                OutcomeKind::Met => &mut summary.met,
                OutcomeKind::NotMet => &mut summary.not_met,
                OutcomeKind::NotApplicable => &mut summary.not_applicable,
                OutcomeKind::Skipped => &mut summary.skipped,
                OutcomeKind::Error => &mut summary.error,
            } += 1;
        }
        summary
    }

    /// The exit code that the outcomes call for: 2 where the suite could not tell, 1 where something is not met, else 0.
    pub fn exit_code(self) -> u8 {
        match self {
            Self { error: 1.., .. } => 2,
            Self { not_met: 1.., .. } => 1,
            _ => 0,
        }
    }

    /// The closing line: a skip is no pass, an error no pass either.
    pub fn closing_line(self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.met,
            self.not_met + self.error,
            self.skipped + self.not_applicable
        )
    }
}

/// One check in one shape.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckResult {
    /// `<area>/<check>`.
    pub id: String,
    /// The area that the check belongs to.
    pub area: String,
    /// How the sidecar was declared.
    pub shape: Shape,
    /// MUST or SHOULD.
    pub level: Level,
    /// The rows of the project's catalogue that the check decides.
    pub rows: Vec<String>,
    /// The requirement, one sentence.
    pub requirement: String,
    /// Where the requirement comes from.
    pub source: String,
    /// How it ended.
    pub outcome: OutcomeKind,
    /// Why, for every outcome but `met`; one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// From the namespace's creation to the outcome, in milliseconds; twins are not counted.
    pub duration_ms: u64,
    /// What should have been seen, where it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What was seen instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed: Option<String>,
    /// The container it was seen at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// What to do about it, where the requirement was not met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remediation: Option<String>,
    /// The folder with the evidence, relative to `target/sidecheck`.
    pub evidence: String,
    /// What the check measured on its way; the outcome does not depend on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measurements: Vec<Measurement>,
    /// The twins that ran, and whether the check noticed them.
    pub twins: Vec<TwinResult>,
}

impl CheckResult {
    /// A check that nobody could decide yet, for this reason; without metadata where its fixture cannot be read.
    pub fn undecided(id: &str, shape: Shape, metadata: Option<&Metadata>, reason: String) -> Self {
        let text = |pick: fn(&Metadata) -> &String| metadata.map_or(String::new(), |metadata| pick(metadata).clone());
        Self {
            id: id.to_owned(),
            area: id.split('/').next().unwrap_or_default().to_owned(),
            shape,
            level: metadata.map_or(Level::Must, |metadata| metadata.level),
            rows: metadata.map_or(Vec::new(), |metadata| metadata.rows.clone()),
            requirement: text(|metadata| &metadata.requirement),
            source: text(|metadata| &metadata.source),
            outcome: OutcomeKind::Error,
            reason: Some(reason),
            duration_ms: 0,
            expected: None,
            observed: None,
            container: None,
            remediation: None,
            evidence: String::new(),
            measurements: Vec::new(),
            twins: Vec::new(),
        }
    }

    /// The check and its shape, as they are given on the command line: `logging/every-line-reaches-the-sidecar@native`.
    pub fn selector(&self) -> String {
        format!("{}@{}", self.id, self.shape)
    }
}

/// Something that a check measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Measurement {
    /// What was measured; the same name several times where it was measured several times.
    pub name: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// A twin's run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TwinResult {
    /// What was different.
    pub name: String,
    /// Whether the check's outcome was `not met`, for the expected reason.
    pub caught: bool,
    /// What the check said.
    pub observed: String,
}

/// A report with one check of most outcomes, for the tests of its renderings.
#[cfg(test)]
pub(crate) mod sample {
    use super::*;

    pub(crate) fn report() -> Report {
        let checks = vec![
            CheckResult {
                measurements: [1200, 950]
                    .map(|duration_ms| Measurement {
                        name: "time to arrive".to_owned(),
                        duration_ms,
                    })
                    .to_vec(),
                ..check("logging/lines-arrive", OutcomeKind::Met)
            },
            CheckResult {
                expected: Some("`line 1` to `line 5` before “end”".to_owned()),
                observed: Some("3 lines; number 4 is None instead of Some(\"line 4\")".to_owned()),
                container: Some("shipper".to_owned()),
                remediation: Some("Look at the node's file system.".to_owned()),
                ..check("logging/last-lines-survive", OutcomeKind::NotMet)
            },
            CheckResult {
                reason: Some("the cluster has no IPv6".to_owned()),
                ..check("network/localhost-ipv6", OutcomeKind::NotApplicable)
            },
            CheckResult {
                reason: Some("Pod app cannot be scheduled: 0/1 nodes are available".to_owned()),
                ..check("network/shared-ip", OutcomeKind::Error)
            },
        ];
        Report {
            api_version: API_VERSION.to_owned(),
            kind: "ConformanceReport".to_owned(),
            run: "1a2b3c4d".to_owned(),
            command: "./scripts/conformance --kubernetes 1.36".to_owned(),
            date: "2026-01-31T12:00:00Z".to_owned(),
            complete: true,
            duration_ms: 4200,
            cluster: ClusterFacts {
                version: "v1.37.0".to_owned(),
                distribution: "kind".to_owned(),
                runtime: "containerd://2.4.2".to_owned(),
                kernel: "6.12.1".to_owned(),
                cni: "ptp".to_owned(),
                nodes: 1,
            },
            summary: Summary::of(&checks),
            checks,
        }
    }

    fn check(id: &str, outcome: OutcomeKind) -> CheckResult {
        CheckResult {
            id: id.to_owned(),
            area: id.split('/').next().unwrap_or_default().to_owned(),
            shape: Shape::Native,
            level: Level::Must,
            rows: vec!["A3".to_owned()],
            requirement: "Every line MUST arrive.".to_owned(),
            source: "https://kubernetes.io/docs/".to_owned(),
            outcome,
            reason: None,
            duration_ms: 2100,
            expected: None,
            observed: None,
            container: None,
            remediation: None,
            evidence: format!("runs/1a2b3c4d/evidence/{id}@native"),
            measurements: Vec::new(),
            twins: vec![TwinResult {
                name: "nobody writes".to_owned(),
                caught: true,
                observed: "0 lines".to_owned(),
            }],
        }
    }

    #[test]
    fn a_report_fits_the_published_schema() {
        let schema = serde_json::from_str(include_str!("../../../docs/conformance-report.schema.json")).expect("JSON");
        let report = serde_json::to_value(report()).expect("JSON");
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let faults: Vec<String> = validator.iter_errors(&report).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{faults:#?}");
    }

    #[test]
    fn the_schema_refuses_what_it_does_not_know() {
        let schema = serde_json::from_str(include_str!("../../../docs/conformance-report.schema.json")).expect("JSON");
        let mut report = serde_json::to_value(report()).expect("JSON");
        report["checks"][0]["outcome"] = "passed".into();
        assert!(!jsonschema::is_valid(&schema, &report));
    }
}
