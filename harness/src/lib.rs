//! `sidecheck`: does a cluster honour what sidecars rely on?
//!
//! The library that the suites speak. A check is a fixture (YAML) and a body; [`scenario::check`] does everything between the two.
//!
//! Dependencies point one way, from a module to those above it in this list; a test keeps it so.

pub mod cluster;
pub mod display;
pub mod environment;
pub mod finding;
pub mod fixture;
pub mod image;
pub mod patience;
pub mod pod;
pub mod profile;
pub mod redact;
pub mod report;
pub mod scenario;
pub mod timeline;

pub use finding::{Finding, Verdict};
pub use fixture::Shape;
pub use pod::{Container, ScenarioPod};
pub use scenario::Outcome;
pub use sidecheck_agent::statement as agent;
