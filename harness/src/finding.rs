//! What a check's body finds.
//!
//! What the suite arranges and what the cluster owes are two types. Arrangements ([`Given`](crate::pod::Given)) fail with an [`anyhow::Error`],
//! which can only become an `error`; a [`Mismatch`], the reason for `not met`, is made by assertions ([`Expect`](crate::pod::Expect)) alone.

use std::fmt;

/// What a check's body returns: nothing to complain about, or a finding.
pub type Verdict = Result<(), Finding>;

/// Why a check's body ended without the requirement being met.
#[derive(Debug)]
pub enum Finding {
    /// The cluster does not do what is required.
    NotMet(Box<Mismatch>),
    /// The cluster lacks what the requirement is about.
    NotApplicable(String),
    /// The check was left out, for this reason.
    Skipped(String),
    /// The suite could not tell: trouble with the API, the image, the node, or the suite itself.
    Error(anyhow::Error),
}

/// An assertion that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    label: String,
    container: Option<String>,
    expected: String,
    observed: String,
    about_restarts: bool,
}

impl Mismatch {
    /// Only assertions make one.
    pub(crate) fn new(
        label: &str,
        container: Option<&str>,
        expected: impl Into<String>,
        observed: impl Into<String>,
    ) -> Self {
        Self {
            label: label.to_owned(),
            container: container.map(str::to_owned),
            expected: expected.into(),
            observed: observed.into(),
            about_restarts: false,
        }
    }

    /// Says that the assertion is about a restart of its container, which is no trouble then but the finding.
    pub(crate) fn about_restarts(self, about_restarts: bool) -> Self {
        Self { about_restarts, ..self }
    }

    /// Whether the assertion is about a restart of its container.
    pub(crate) fn is_about_restarts(&self) -> bool {
        self.about_restarts
    }

    /// The assertion, as the body names it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The container it was observed at; none if it was observed at the Pod as a whole.
    pub fn container(&self) -> Option<&str> {
        self.container.as_deref()
    }

    /// What should have been seen.
    pub fn expected(&self) -> &str {
        &self.expected
    }

    /// What was seen.
    pub fn observed(&self) -> &str {
        &self.observed
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, observed {}", self.expected, self.observed)?;
        if let Some(container) = &self.container {
            write!(f, " (container {container})")?;
        }
        Ok(())
    }
}

impl From<anyhow::Error> for Finding {
    fn from(error: anyhow::Error) -> Self {
        Self::Error(error)
    }
}

impl From<Mismatch> for Finding {
    fn from(mismatch: Mismatch) -> Self {
        Self::NotMet(Box::new(mismatch))
    }
}
