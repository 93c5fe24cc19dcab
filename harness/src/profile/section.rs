//! The parts of a profile that have several fields or forms.

use std::fmt::{self, Formatter};
use std::str::FromStr;

use anyhow::{Context, bail};
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::unknown;
use super::value::{AbsolutePath, Port, Quantity, Signal, UrlPath};

/// How to see that the sidecar works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Health {
    /// It answers a GET with a status from 200 to 399.
    Http {
        /// The path.
        path: UrlPath,
        /// The port.
        port: Port,
    },
    /// It accepts a connection at a port.
    Tcp(Port),
    /// A command that it runs ends with 0.
    Exec(Vec<String>),
}

/// What the sidecar may use at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Resources {
    /// Processor time, such as 200m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Memory, such as 64Mi.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

/// What only a logging sidecar says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Logging {
    /// Where it finds main's log files.
    pub mount: AbsolutePath,
    /// Where it delivers the lines.
    pub delivers: Delivers,
}

/// Where a logging sidecar delivers lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Delivers {
    /// To its standard output.
    #[default]
    Stdout,
    /// To a TCP connection, one line after another.
    Tcp,
    /// In the bodies of HTTP requests.
    Http,
    /// As syslog messages over TCP.
    Syslog,
    /// To a file.
    File(AbsolutePath),
}

/// What only a reverse proxy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReverseProxy {
    /// The port at which it accepts requests. It is one of its ports, whether it is named there or not.
    pub listen: Port,
    /// What main's preStop hook gets, so that the proxy drains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<Endpoint>,
}

/// Something that answers a GET.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// The path.
    pub path: UrlPath,
    /// The port.
    pub port: Port,
}

/// What only a sidecar that reloads a configuration says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConfigReload {
    /// Where it finds main's configuration.
    pub mount: AbsolutePath,
    /// How it makes main use the configuration.
    pub reloads: Reloads,
}

/// How a sidecar makes main use a new configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Reloads {
    /// By an HTTP request.
    #[default]
    Http,
    /// By writing a file that main watches.
    File(AbsolutePath),
    /// By sending a signal to a process.
    #[serde(untagged)]
    Signal {
        /// The signal.
        signal: Signal,
        /// The name of main's process.
        process: String,
    },
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            mount: path("/logs"),
            delivers: Delivers::default(),
        }
    }
}

impl Default for ReverseProxy {
    fn default() -> Self {
        Self {
            listen: 8080.into(),
            drain: None,
        }
    }
}

impl Default for ConfigReload {
    fn default() -> Self {
        Self {
            mount: path("/config"),
            reloads: Reloads::default(),
        }
    }
}

fn path(text: &str) -> AbsolutePath {
    text.parse().expect("a path")
}

impl FromStr for Health {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text.split_once(':') {
            Some(("http", rest)) => {
                let slash = rest.find('/').context("the path is missing; write http:8080/health")?;
                let (port, path) = rest.split_at(slash);
                Ok(Self::Http {
                    path: path.parse()?,
                    port: port.parse()?,
                })
            }
            Some(("tcp", port)) => Ok(Self::Tcp(port.parse()?)),
            Some(("exec", command)) if !command.trim().is_empty() => {
                Ok(Self::Exec(command.split_whitespace().map(str::to_owned).collect()))
            }
            _ => bail!("write http:PORT/PATH, tcp:PORT or exec:COMMAND"),
        }
    }
}

impl FromStr for Delivers {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "stdout" => Ok(Self::Stdout),
            "tcp" => Ok(Self::Tcp),
            "http" => Ok(Self::Http),
            "syslog" => Ok(Self::Syslog),
            _ => match text.strip_prefix("file:") {
                Some(path) => Ok(Self::File(path.parse()?)),
                None => bail!(unknown("way", text, &["stdout", "tcp", "http", "syslog", "file:PATH"])),
            },
        }
    }
}

// By hand, because the derived one would say no more than that no form fits.
impl<'de> Deserialize<'de> for Reloads {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyReloads)
    }
}

struct AnyReloads;

/// The fields of all forms of [`Reloads`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReloadsFields {
    file: Option<AbsolutePath>,
    signal: Option<Signal>,
    process: Option<String>,
}

const RELOADS_FORMS: &str = "http, {signal: SIGHUP, process: NAME} or {file: PATH}";

impl<'de> Visitor<'de> for AnyReloads {
    type Value = Reloads;

    fn expecting(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(RELOADS_FORMS)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Reloads, E> {
        match text {
            "http" => Ok(Reloads::Http),
            _ => Err(E::custom(format!("unknown way “{text}”; write {RELOADS_FORMS}"))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Reloads, A::Error> {
        match Deserialize::deserialize(MapAccessDeserializer::new(map))? {
            ReloadsFields {
                file: Some(file),
                signal: None,
                process: None,
            } => Ok(Reloads::File(file)),
            ReloadsFields {
                file: None,
                signal: Some(signal),
                process: Some(process),
            } => Ok(Reloads::Signal { signal, process }),
            _ => Err(de::Error::custom(format!("write {RELOADS_FORMS}"))),
        }
    }
}
