//! What a check's body finds, and what becomes of it.

use std::fmt;

use crate::pod::Container;

/// What a check's body returns: nothing to complain about, or a finding.
pub type Verdict = Result<(), Finding>;

/// Why a check's body ended without the requirement being met.
#[derive(Debug)]
pub enum Finding {
    /// The cluster does not do what is required.
    NotMet(Box<Mismatch>),
    /// The cluster lacks what the requirement is about, and says so.
    NotApplicable(String),
    /// The check was left out, for this reason.
    Skipped(String),
    /// The suite could not tell: trouble with the API, the image, the node, or the suite itself.
    Error(anyhow::Error),
}

/// A requirement that was not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// What should have been seen.
    pub expected: String,
    /// What was seen.
    pub observed: String,
    /// The container it was seen at.
    pub container: Option<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "expected   {}", self.expected)?;
        write!(f, "observed   {}", self.observed)?;
        if let Some(container) = &self.container {
            write!(f, "\ncontainer  {container}")?;
        }
        Ok(())
    }
}

impl From<anyhow::Error> for Finding {
    fn from(error: anyhow::Error) -> Self {
        Self::Error(error)
    }
}

impl From<kube::Error> for Finding {
    fn from(error: kube::Error) -> Self {
        Self::Error(error.into())
    }
}

/// Asserts that what `container` shows is what the requirement demands.
///
/// # Errors
/// [`Finding::NotMet`] where `holds` is false.
pub fn expect(container: &Container, holds: bool, expected: impl Into<String>, observed: impl Into<String>) -> Verdict {
    if holds {
        return Ok(());
    }
    Err(not_met(container, expected, observed))
}

/// The finding that `container` does not show what the requirement demands; an error where the suite could not see all that it shows.
pub fn not_met(container: &Container, expected: impl Into<String>, observed: impl Into<String>) -> Finding {
    let (expected, observed) = (expected.into(), observed.into());
    if let Some(trouble) = container.trouble() {
        return Finding::Error(trouble.context(format!("expected {expected}, observed {observed}")));
    }
    Finding::NotMet(Box::new(Mismatch {
        expected,
        observed,
        container: Some(container.name().to_owned()),
    }))
}
