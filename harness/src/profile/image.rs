//! What an image says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The label with the role.
pub const ROLE_LABEL: &str = "dev.sidecheck.role";

/// The label with the claims, separated by commas.
pub const CLAIMS_LABEL: &str = "dev.sidecheck.claims";

/// What an image's configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDefaults {
    /// USER: a name or a number, with or without a group.
    pub user: Option<String>,
    /// The TCP ports of EXPOSE.
    pub exposed: Vec<u16>,
    /// STOPSIGNAL: a name or a number.
    pub stop_signal: Option<String>,
    /// ENTRYPOINT.
    pub entrypoint: Vec<String>,
    /// CMD.
    pub cmd: Vec<String>,
    /// Whether there is a HEALTHCHECK.
    pub has_healthcheck: bool,
    /// The labels.
    pub labels: BTreeMap<String, String>,
}
