//! What the command line says about an image.

use clap::Args;

use super::role::{Claim, Role};
use super::section::{Delivers, Health};
use super::value::{AbsolutePath, Period, Port};

/// What the command line says about an image. It goes before what the profile says.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "What the image is; goes before what the profile says")]
pub struct Overrides {
    /// What the image is for
    #[arg(long, value_enum)]
    pub role: Option<Role>,
    /// A word of the command, which replaces the image's ENTRYPOINT; for several words, again
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// An argument; for several, again
    #[arg(long = "arg", value_name = "ARG", allow_hyphen_values = true)]
    pub args: Vec<String>,
    /// An environment variable beside the profile's; for several, again
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// A TCP port that it opens; for several, again
    #[arg(long = "port", value_name = "PORT")]
    pub ports: Vec<Port>,
    /// How to see that it works: http:8080/health, tcp:5170 or exec:/bin/check
    #[arg(long, value_name = "HOW")]
    pub health: Option<Health>,
    /// Where it finds main's logs (logging) or main's configuration (config-reload)
    #[arg(long, value_name = "PATH")]
    pub mount: Option<AbsolutePath>,
    /// Where a logging sidecar delivers lines: stdout, tcp, http, syslog or file:PATH
    #[arg(long, value_name = "WHERE")]
    pub delivers: Option<Delivers>,
    /// A folder that it must be able to write to; for several, again
    #[arg(long, value_name = "PATH")]
    pub writable: Vec<AbsolutePath>,
    /// The number of the user that it runs as
    #[arg(long, value_name = "UID")]
    pub user: Option<u32>,
    /// How long it may take to end, such as 500ms, 10s or 1m
    #[arg(long, value_name = "DURATION")]
    pub grace: Option<Period>,
    /// How long it may take from its start until it is ready
    #[arg(long, value_name = "DURATION")]
    pub startup: Option<Period>,
    /// What it can do beyond what its role asks of each image; which --init lists; for several, again
    #[arg(long = "claim", value_enum, value_name = "CLAIM", hide_possible_values = true)]
    pub claims: Vec<Claim>,
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE"),
    }
}
