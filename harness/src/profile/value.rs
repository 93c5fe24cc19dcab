//! The single values of a profile: each is one text on the command line, and one scalar in the file.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// A TCP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Port(u16);

/// An amount of a resource, as Kubernetes writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quantity(String);

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(Duration);

/// A signal's name, with `SIG`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signal(String);

/// A Linux capability's name, without `CAP_`, as Kubernetes wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capability(String);

/// A path below the root folder of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct AbsolutePath(String);

/// The path of a URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UrlPath(pub(super) String);

/// The signals by number, from 1.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// What follows the number of a [`Quantity`].
const QUANTITY_SUFFIXES: [&str; 16] = [
    "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
];

impl Port {
    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Quantity {
    /// The number that it stands for: 0.2 for `200m`, 65536 for `64Ki`.
    pub fn amount(&self) -> f64 {
        let unit = self.0.find(char::is_alphabetic).unwrap_or(self.0.len());
        let (number, unit) = self.0.split_at(unit);
        let units = [
            ("n", 1e-9),
            ("u", 1e-6),
            ("m", 1e-3),
            ("", 1.0),
            ("k", 1e3),
            ("M", 1e6),
            ("G", 1e9),
            ("T", 1e12),
            ("Ki", 1024.0),
            ("Mi", 1_048_576.0),
            ("Gi", 1_073_741_824.0),
            ("Ti", 1_099_511_627_776.0),
        ];
        let factor = units
            .iter()
            .find(|(name, _)| *name == unit)
            .map_or(1.0, |(_, factor)| *factor);
        number.parse::<f64>().map_or(0.0, |number| number * factor)
    }
}

impl Period {
    /// The length of time.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl From<u16> for Port {
    fn from(port: u16) -> Self {
        Self(port)
    }
}

impl FromStr for Port {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text.parse() {
            Ok(port) if port > 0 => Ok(Self(port)),
            _ => bail!("“{text}” is no port; a port is a number from 1 to 65535"),
        }
    }
}

impl FromStr for Quantity {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
        if !number.parse().is_ok_and(|number: f64| number > 0.0) || !QUANTITY_SUFFIXES.contains(&suffix) {
            bail!("“{text}” is no quantity; write it as Kubernetes does, above 0: 200m, 0.5 or 64Mi");
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Period {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            _ => 0,
        };
        let length = number
            .parse()
            .ok()
            .and_then(|number: u64| number.checked_mul(milliseconds));
        match length {
            Some(length) if length > 0 => Ok(Self(Duration::from_millis(length))),
            _ => bail!("“{text}” is no duration; write a number above 0 and ms, s or m: 500ms, 10s or 1m"),
        }
    }
}

impl FromStr for Signal {
    type Err = anyhow::Error;

    /// Reads a name with or without `SIG`, or a number: an image's STOPSIGNAL may be one.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let number = text.parse().ok().and_then(|number: usize| number.checked_sub(1));
        let name = match number {
            Some(index) => SIGNALS.get(index).copied(),
            None => text.strip_prefix("SIG").or(Some(text)),
        };
        match name {
            Some(name) if SIGNALS.contains(&name) || is_realtime(name) => Ok(Self(format!("SIG{name}"))),
            _ => bail!("“{text}” is no signal; write its name, such as SIGTERM, SIGQUIT or SIGRTMIN+3"),
        }
    }
}

/// Whether `name` is that of a real-time signal: `RTMIN`, `RTMIN+3`, `RTMAX-2`.
fn is_realtime(name: &str) -> bool {
    let offset = |prefix: &str, sign: char| name.strip_prefix(prefix).map(|rest| (rest, sign));
    let Some((rest, sign)) = offset("RTMIN", '+').or_else(|| offset("RTMAX", '-')) else {
        return false;
    };
    rest.is_empty()
        || rest
            .strip_prefix(sign)
            .is_some_and(|number| matches!(number.parse(), Ok(1..=15)))
}

impl FromStr for Capability {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let name = text.strip_prefix("CAP_").unwrap_or(text);
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
            bail!("“{text}” is no capability; write its name in capitals, such as NET_BIND_SERVICE");
        }
        Ok(Self(name.to_owned()))
    }
}

impl FromStr for AbsolutePath {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let rest = text
            .strip_prefix('/')
            .with_context(|| format!("“{text}” is relative; a path begins with /"))?;
        if rest.trim_matches('/').is_empty() {
            bail!("nothing can be mounted at the root folder; name a path below /");
        }
        if rest.contains(':') || rest.split('/').any(|part| part == "..") {
            bail!("“{text}” has “..” or “:”, and nothing can be mounted there; name a path without");
        }
        Ok(Self(format!("/{}", rest.trim_matches('/'))))
    }
}

impl FromStr for UrlPath {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if !text.starts_with('/') {
            bail!("“{text}” does not begin with /; write the path of a URL, such as /health");
        }
        Ok(Self(text.to_owned()))
    }
}

impl Display for Period {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        match milliseconds % 1000 {
            0 => write!(f, "{}s", milliseconds / 1000),
            _ => write!(f, "{milliseconds}ms"),
        }
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads a scalar, whether YAML takes it for a text or a number, with [`FromStr`].
struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err = anyhow::Error>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str("a single value")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

/// How a value is read, and its part of the JSON Schema.
macro_rules! read_with_from_str {
    ($name:ident, $schema:tt) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Text(PhantomData))
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

/// The text of a value that is kept as a text.
macro_rules! is_a_text {
    ($($name:ident)*) => {
        $(impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        })*
    };
}

read_with_from_str!(Port, { "type": "integer", "minimum": 1, "maximum": 65535 });
read_with_from_str!(Quantity, { "type": ["string", "number"], "pattern": r"^[0-9]*\.?[0-9]+([numkMGTPE]|[KMGTPE]i)?$" });
read_with_from_str!(Period, { "type": "string", "pattern": "^[0-9]+(ms|s|m)$" });
read_with_from_str!(Signal, { "type": "string", "pattern": r"^(SIG)?[A-Z0-9]+([+-][0-9]+)?$" });
read_with_from_str!(Capability, { "type": "string", "pattern": "^[A-Z_]+$" });
read_with_from_str!(AbsolutePath, { "type": "string", "pattern": "^/[^:]*[^:/][^:]*$" });
read_with_from_str!(UrlPath, { "type": "string", "pattern": "^/" });
is_a_text!(Quantity Signal Capability AbsolutePath UrlPath);
