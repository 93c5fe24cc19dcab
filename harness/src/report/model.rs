//! The run model: what was checked, on which cluster, with which outcome.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::fixture::{Level, Metadata, Shape, area_of};

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
    /// When the run began; see [`timestamp`].
    pub date: String,
    /// Whether nothing was left out and every planned check has an outcome. A run that was filtered or killed is not complete.
    pub complete: bool,
    /// Why some checks have no outcome, or why it is not known whether they all have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    /// The filters that were given; none if everything was to be decided.
    pub selection: Vec<String>,
    /// Whether twins were to run too.
    pub prove: bool,
    /// How long the run took, in milliseconds.
    pub duration_ms: u64,
    /// What checked.
    pub suite: SuiteFacts,
    /// The fixtures' images on the cluster.
    pub images: Vec<ImageFacts>,
    /// The image that was judged; none if the cluster was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<SubjectFacts>,
    /// What was checked, or where.
    pub cluster: ClusterFacts,
    /// How many checks had which outcome.
    pub summary: Summary,
    /// Every check of the run, by id and shape.
    pub checks: Vec<CheckResult>,
}

/// The suite that made a report; by default this one.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct SuiteFacts {
    /// Its version.
    pub version: String,
    /// The commit it was built from, as `git describe` names it; `unknown` if it was built without git.
    pub commit: String,
}

impl Default for SuiteFacts {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("SIDECHECK_COMMIT").to_owned(),
        }
    }
}

/// An image of the fixtures.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its name on the cluster.
    pub name: String,
    /// Its digest, `sha256:…`; `unknown` if no node names it.
    pub digest: String,
}

/// An image that was judged.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SubjectFacts {
    /// How the user named it.
    pub image: String,
    /// The digest of its configuration, `sha256:…`, which is the same wherever the image is; `unknown` if no engine could look at the image.
    pub id: String,
    /// The digest by which a registry knows it, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The role that it was judged in.
    pub role: String,
    /// What its author claims beyond what every image of the role must do.
    pub claims: Vec<String>,
    /// The processor architecture that it is for, or `unknown`.
    pub architecture: String,
    /// Its size in bytes; 0 if it is unknown.
    pub size: u64,
    /// How many layers it has; 0 if it is unknown.
    pub layers: usize,
}

/// What a cluster says about itself; `unknown` if it says nothing.
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

/// A count per outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    missing_docs,
    reason = "each of the others is the number of checks with that outcome"
)]
pub struct Summary {
    pub met: usize,
    /// The requirements that are not met.
    pub not_met: usize,
    /// The recommendations that are not met; the run does not fail because of them.
    pub should_not_met: usize,
    pub not_applicable: usize,
    pub skipped: usize,
    pub error: usize,
    /// The twins that did not run.
    pub not_proved: usize,
}

impl Summary {
    /// Counts.
    pub fn of<'a>(checks: impl IntoIterator<Item = &'a CheckResult>) -> Self {
        let mut summary = Self::default();
        for check in checks {
            *match check.outcome {
                OutcomeKind::Met => &mut summary.met,
                OutcomeKind::NotMet if check.level == Level::Should => &mut summary.should_not_met,
                OutcomeKind::NotMet => &mut summary.not_met,
                OutcomeKind::NotApplicable => &mut summary.not_applicable,
                OutcomeKind::Skipped => &mut summary.skipped,
                OutcomeKind::Error => &mut summary.error,
            } += 1;
            summary.not_proved += check.not_proved().count();
        }
        summary
    }

    /// The exit code that the outcomes call for: 2 if the suite could not tell, 1 if a requirement is not met, else 0.
    pub fn exit_code(self) -> u8 {
        match self {
            Self { error: 1.., .. } => 2,
            Self { not_met: 1.., .. } => 1,
            _ => 0,
        }
    }

    /// The closing line: skips and errors are not passes, and a recommendation that is not met is not counted at all.
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
    /// When the check began; see [`timestamp`]. None if it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// From the namespace's creation to the outcome, in milliseconds; twins are not counted.
    pub duration_ms: u64,
    /// The node that the Pod ran on, if one took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Whether other checks looked at the same Pod.
    #[serde(default)]
    pub shared: bool,
    /// What a reader of the outcome must know: “admission added the container istio-proxy”.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What was asserted, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assertions: Vec<Assertion>,
    /// What should have been seen and was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What was seen instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed: Option<String>,
    /// The container it was seen at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// What to do about a requirement that is not met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remediation: Option<String>,
    /// The folder with the evidence, relative to `target/sidecheck`.
    pub evidence: String,
    /// What the check measured on its way; the outcome does not depend on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measurements: Vec<Measurement>,
    /// What the Pod's containers recorded, earliest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<TimelineEvent>,
    /// The twins, if they were asked for.
    pub twins: Vec<TwinResult>,
}

impl CheckResult {
    /// A check that is not decided, for this reason; without metadata if its fixture cannot be read.
    pub fn undecided(id: &str, shape: Shape, metadata: Option<&Metadata>, reason: String) -> Self {
        let text = |pick: fn(&Metadata) -> &String| metadata.map_or(String::new(), |metadata| pick(metadata).clone());
        Self {
            id: id.to_owned(),
            area: area_of(id).to_owned(),
            shape,
            level: metadata.map_or(Level::Must, |metadata| metadata.level),
            rows: metadata.map_or(Vec::new(), |metadata| metadata.rows.clone()),
            requirement: text(|metadata| &metadata.requirement),
            source: text(|metadata| &metadata.source),
            outcome: OutcomeKind::Error,
            reason: Some(reason),
            started: None,
            duration_ms: 0,
            node: None,
            shared: false,
            notes: Vec::new(),
            assertions: Vec::new(),
            expected: None,
            observed: None,
            container: None,
            remediation: None,
            evidence: String::new(),
            measurements: Vec::new(),
            timeline: Vec::new(),
            twins: Vec::new(),
        }
    }

    /// The check and its shape, as they are given on the command line: `logging/every-line-reaches-the-sidecar@native`.
    pub fn selector(&self) -> String {
        format!("{}@{}", self.id, self.shape)
    }

    /// The twins that did not run.
    pub fn not_proved(&self) -> impl Iterator<Item = &TwinResult> {
        self.twins.iter().filter(|twin| twin.result == TwinOutcome::NotProved)
    }

    /// Whether a recommendation, not a requirement, is not met.
    pub fn should_not_met(&self) -> bool {
        self.outcome == OutcomeKind::NotMet && self.level == Level::Should
    }

    /// Whether the run fails because of this check: a requirement that is not met, or an error.
    pub fn fails(&self) -> bool {
        self.outcome == OutcomeKind::Error || self.outcome == OutcomeKind::NotMet && !self.should_not_met()
    }

    /// The outcome for people.
    pub fn word(&self) -> &'static str {
        match self.outcome {
            _ if self.should_not_met() => "should, not met",
            OutcomeKind::Met => "met",
            OutcomeKind::NotMet => "not met",
            OutcomeKind::NotApplicable => "not applicable",
            OutcomeKind::Skipped => "skipped",
            OutcomeKind::Error => "error",
        }
    }
}

/// Something that a check asserted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assertion {
    /// What was asserted, in a few words; unique within its check.
    pub label: String,
    /// The container it is about; none if it is about the Pod as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Whether it held.
    pub held: bool,
}

/// Something that a check measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Measurement {
    /// What was measured; the same name each time if it was measured several times.
    pub name: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// Something that a container recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimelineEvent {
    /// When, in milliseconds since the first event of the timeline.
    pub t_ms: f64,
    /// The container.
    pub container: String,
    /// The event's name.
    pub event: String,
    /// What belongs to the event.
    pub fields: Map<String, Value>,
}

/// What became of a twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TwinOutcome {
    /// The check's outcome was `not met`, at the expected assertion.
    Caught,
    /// It was not.
    Missed,
    /// The twin did not run.
    NotProved,
}

/// A twin's run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TwinResult {
    /// What was different.
    pub name: String,
    /// What became of it.
    pub result: TwinOutcome,
    /// Why, unless it was caught.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The assertion that did not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<String>,
    /// What the check observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<String>,
    /// The folder with the evidence, relative to `target/sidecheck`; none if the twin did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

/// A point in time as reports write it: RFC 3339 in UTC, to the millisecond.
pub fn timestamp(time: SystemTime) -> String {
    k8s_openapi::jiff::Timestamp::try_from(time)
        .unwrap_or_default()
        .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
        .to_string()
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
                assertions: vec![Assertion {
                    label: "every line arrives".to_owned(),
                    container: Some("shipper".to_owned()),
                    held: false,
                }],
                timeline: vec![TimelineEvent {
                    t_ms: 0.0,
                    container: "main".to_owned(),
                    event: "wrote".to_owned(),
                    fields: Map::from_iter([("n".to_owned(), Value::from(1))]),
                }],
                notes: vec!["admission added the container istio-proxy".to_owned()],
                container: Some("shipper".to_owned()),
                remediation: Some("Look at the node's file system.".to_owned()),
                ..check("logging/last-lines-survive", OutcomeKind::NotMet)
            },
            CheckResult {
                level: Level::Should,
                requirement: "Every line SHOULD arrive within a second.".to_owned(),
                reason: Some("Every line SHOULD arrive within a second.".to_owned()),
                expected: Some("all lines within 1 s".to_owned()),
                observed: Some("the last one after 1.4 s".to_owned()),
                shared: true,
                ..check("logging/lines-arrive-soon", OutcomeKind::NotMet)
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
            date: timestamp(SystemTime::UNIX_EPOCH),
            complete: false,
            incomplete: Some("1 of 5 checks have no outcome".to_owned()),
            selection: vec!["logging".to_owned(), "network".to_owned()],
            prove: true,
            duration_ms: 4200,
            suite: SuiteFacts::default(),
            images: vec![ImageFacts {
                name: "localhost/sidecheck/agent:v1".to_owned(),
                digest: "sha256:1a2b".to_owned(),
            }],
            subject: None,
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
        let twin = TwinResult {
            name: "nobody writes".to_owned(),
            result: TwinOutcome::Caught,
            reason: None,
            assertion: Some("every line arrives".to_owned()),
            observed: Some("0 lines".to_owned()),
            evidence: Some(format!("runs/1a2b3c4d/evidence/{id}@native-twin-1")),
        };
        let skipped = TwinResult {
            name: "main and sidecar share nothing".to_owned(),
            result: TwinOutcome::NotProved,
            reason: Some("the cluster does not allow privileged containers".to_owned()),
            assertion: None,
            observed: None,
            evidence: None,
        };
        CheckResult {
            rows: vec!["A3".to_owned()],
            requirement: "Every line MUST arrive.".to_owned(),
            source: "https://kubernetes.io/docs/".to_owned(),
            outcome,
            reason: None,
            started: Some(timestamp(SystemTime::UNIX_EPOCH)),
            duration_ms: 2100,
            node: Some("worker-1".to_owned()),
            evidence: format!("runs/1a2b3c4d/evidence/{id}@native"),
            // They run if the check is met.
            twins: if outcome == OutcomeKind::Met {
                vec![twin, skipped]
            } else {
                Vec::new()
            },
            ..CheckResult::undecided(id, Shape::Native, None, String::new())
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
        let report = serde_json::to_value(report()).expect("JSON");
        for place in [
            "/checks/0/outcome",
            "/checks/0/twins/0/result",
            "/checks/0/other",
            "/other",
        ] {
            let mut changed = report.clone();
            let (parent, key) = place.rsplit_once('/').expect("a place");
            changed.pointer_mut(parent).expect("an object")[key] = "passed".into();
            assert!(!jsonschema::is_valid(&schema, &changed), "{place}");
        }
    }
}
