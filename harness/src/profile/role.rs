//! What an image is for, and what it may claim beyond that.

use std::fmt::{self, Display, Formatter};

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::unknown;

/// What a sidecar is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It reads what main writes to log files, and delivers each line.
    Logging,
    /// It accepts requests and passes them on to main.
    ReverseProxy,
    /// It makes main use its configuration as soon as that has changed.
    ConfigReload,
    /// It is something else that runs beside main.
    Generic,
}

/// What an image can do beyond what its role asks of each. Only what is claimed is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// It delivers each line once although main renames its log file and begins a new one.
    Rename,
    /// It delivers what main writes after it has emptied its log file in place.
    Truncation,
    /// It reads a new log file from the start although it has the inode of one that was removed.
    InodeReuse,
    /// It delivers the lines of several log files.
    SeveralFiles,
    /// It delivers the lines of log files that appear after it has started.
    LateFiles,
    /// It goes on where it was after a restart, and misses no line.
    Resume,
    /// It waits for what is away, the sink that it sends to or the application that it tells to reload, and tries again.
    Retry,
    /// It delivers lines of 64 KiB whole.
    LongLines,
    /// It delivers lines with bytes that are not UTF-8 as they are.
    AnyBytes,
    /// It delivers the last line of a file although no line end follows it.
    LastLineWithoutEnd,
    /// It delivers a line that main writes in two parts as one.
    HalfLines,
    /// It passes WebSocket connections on.
    Websocket,
    /// It passes each part of an answer on as soon as it has it.
    Streaming,
    /// It tells main about the client and the request in X-Forwarded-For, X-Forwarded-Host and X-Forwarded-Proto.
    ForwardedHeaders,
    /// It reaches an upstream that listens at an IPv6 address.
    Ipv6Upstream,
    /// It starts although its upstream is not there yet, and reaches it once it is.
    LateUpstream,
    /// It starts although its upstream's name has no address yet, and finds the upstream whenever the name gets another one.
    UpstreamByName,
    /// It passes the path and the query of a request on as they are, with all their escapes.
    PreservesPath,
    /// It answers the requests that it has accepted before it ends.
    Drain,
    /// It is ready only after main uses the configuration for the first time.
    ReadyAfterFirstSync,
    /// Without inotify, it notices a change all the same, or ends and says why.
    NoInotify,
    /// It runs as any user, also one that is not in /etc/passwd.
    ArbitraryUser,
    /// It does all its work with a read-only root file system.
    ReadOnlyRoot,
    /// There is no shell in the image.
    NoShell,
}

impl Role {
    /// The claims that an image of this role can make.
    pub fn claims(self) -> Vec<Claim> {
        use Claim::*;
        let own: &[Claim] = match self {
            Self::Logging => &[
                Rename,
                Truncation,
                InodeReuse,
                SeveralFiles,
                LateFiles,
                Resume,
                Retry,
                LongLines,
                AnyBytes,
                LastLineWithoutEnd,
                HalfLines,
            ],
            Self::ReverseProxy => &[
                Websocket,
                Streaming,
                ForwardedHeaders,
                Ipv6Upstream,
                LateUpstream,
                UpstreamByName,
                PreservesPath,
                Drain,
            ],
            Self::ConfigReload => &[Retry, ReadyAfterFirstSync, NoInotify],
            Self::Generic => &[],
        };
        [own, &[ArbitraryUser, ReadOnlyRoot, NoShell]].concat()
    }

    /// The placeholders that a profile of this role can use, each with what it stands for.
    pub fn placeholders(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Logging => &[
                ("logs", "the folder with main's log files"),
                ("sink.host", "the host that the lines are to be sent to"),
                ("sink.port", "its port"),
            ],
            Self::ReverseProxy => &[
                ("listen", "the port to accept requests at"),
                ("upstream", "main's host and port, as HOST:PORT"),
                ("upstream.host", "main's host"),
                ("upstream.port", "main's port"),
            ],
            Self::ConfigReload => &[
                ("config.dir", "the folder with main's configuration"),
                ("reload.url", "the URL that makes main reload its configuration"),
            ],
            Self::Generic => &[],
        }
    }

    /// One sentence about the role.
    pub fn description(self) -> String {
        description(self)
    }
}

impl Claim {
    /// One sentence about the claim.
    pub fn description(self) -> String {
        description(self)
    }
}

impl Display for Role {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&name(*self))
    }
}

impl Display for Claim {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&name(*self))
    }
}

/// The value called `text`.
pub(super) fn named<T: ValueEnum>(what: &str, text: &str) -> anyhow::Result<T> {
    let names: Vec<String> = T::value_variants().iter().cloned().map(name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    T::from_str(text, false).map_err(|_| anyhow::anyhow!(unknown(what, text, &names)))
}

fn name<T: ValueEnum>(value: T) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

/// The first sentence of the documentation, which clap leaves without its full stop.
fn description<T: ValueEnum>(value: T) -> String {
    let value = value.to_possible_value();
    value
        .and_then(|value| value.get_help().map(ToString::to_string))
        .unwrap_or_default()
}
