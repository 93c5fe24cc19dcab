//! `sidecheck`: does a cluster honour what sidecars rely on?
//!
//! The library that the suites speak. A check is a fixture (YAML) and a body; [`check`] does everything between the two.
//!
//! Dependencies point one way, from the low modules to the high ones: `display`, `redact`, `environment`, `patience` and `timeline` know
//! nothing of the others, `fixture` nothing of clusters, `report` the run model alone, and `cluster` nothing of checks.

pub mod cluster;
pub mod display;
pub mod environment;
pub mod fixture;
pub mod patience;
pub mod pod;
pub mod redact;
pub mod report;
pub mod scenario;
pub mod timeline;

pub use fixture::Shape;
pub use pod::{Container, ScenarioPod, eventually};
pub use scenario::{Finding, Outcome, Verdict, check, expect, not_met};
