//! An image that a user wants to have judged, as it is: where it comes from, and one container of it without a cluster.

pub mod alone;
mod container;
pub mod process;
mod reach;
pub mod source;

pub use alone::{Alone, Exit, Output, Stopped};
pub use process::{Disposition, FirstProcess, Process, Usage, signal_number};
pub use source::Subject;

/// No container engine answers: nothing can be said about any image.
#[derive(Debug, thiserror::Error)]
#[error("no container engine answers: {0}; `sidecheck doctor` checks this machine")]
pub struct NoEngine(pub String);
