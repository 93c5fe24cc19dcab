//! Profiles: what the author of a sidecar's image says about it.
//!
//! A profile is a YAML file. The command line goes before it ([`Profile::merge`]), and the image's own configuration fills what neither says
//! ([`Profile::with_defaults`]). Texts may have placeholders for what is known only in a Pod ([`Profile::filled`]).

mod flags;
mod image;
mod init;
mod placeholder;
mod role;
mod section;
mod source;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use flags::Overrides;
pub use image::{CLAIMS_LABEL, ImageDefaults, ROLE_LABEL, short_name};
pub use role::{Claim, Role};
pub use section::{ConfigReload, Delivers, Health, Logging, Reloads, Resources, ReverseProxy};
pub use value::{AbsolutePath, Capability, Period, Port, Quantity, Signal, UrlPath};

use role::named;
use source::Source;

/// What a sidecar's image is and does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Profile {
    /// What the image is for. Needed unless the command line or the image's label dev.sidecheck.role says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The image, unless the command line names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Replaces the image's ENTRYPOINT.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Replaces the image's CMD.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment variables.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Files that it needs, by their paths: their texts. They are read-only.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<AbsolutePath, String>,
    /// Some of the files with a wrong text: with these, it must end with another status than 0 and say why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub bad_files: BTreeMap<AbsolutePath, String>,
    /// The TCP ports that it opens. If left out, those of the image's EXPOSE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<Port>>,
    /// How to see that it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// The number of the user that it runs as. If left out, the image's USER, if that is a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// The Linux capabilities that it needs, without CAP_.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<Capability>,
    /// The folders that it must be able to write to. Each is an empty volume.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub writable: Vec<AbsolutePath>,
    /// What it may use at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// The signal that makes it end. If left out, the image's STOPSIGNAL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<Signal>,
    /// How long it may take to end: 500ms, 10s or 1m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<Period>,
    /// How long it may take from its start until it is ready: 20s or 2m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<Period>,
    /// Whether it needs a token of the Kubernetes API, which it never gets.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub kubernetes_api: bool,
    /// What it can do beyond what its role asks of each image. If left out, what the image's label dev.sidecheck.claims says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims: Option<Vec<Claim>>,
    /// Only for the role logging.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    /// Only for the role reverse-proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reverse_proxy: Option<ReverseProxy>,
    /// Only for the role config-reload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_reload: Option<ConfigReload>,
}

/// What a profile means that does not say how long its image may take, or what it may use. Nobody would wait longer for a sidecar, and few
/// sidecars need more.
const STARTUP: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(10);
const CPU: &str = "1";
const MEMORY: &str = "256Mi";

/// A part of a profile that does not fit the others.
struct Fault {
    /// The names of the fields that lead to it, and the indices in lists.
    field: Vec<String>,
    /// What is at fault inside a text.
    text: Option<String>,
    what: String,
}

impl Profile {
    /// Reads a profile; `role` is the command line's and goes before the file's.
    ///
    /// # Errors
    /// Names the file, the line, the column, and what would be right.
    pub fn read(path: &Path, role: Option<Role>) -> anyhow::Result<Self> {
        Source::read(path)?.profile(role)
    }

    /// Reads a profile to which nothing is to be added, from JSON.
    ///
    /// # Errors
    /// The file cannot be read or holds no profile.
    pub fn resolved(path: &Path) -> anyhow::Result<Self> {
        let what = || format!("the profile {} cannot be read", path.display());
        serde_json::from_slice(&fs::read(path).with_context(what)?).with_context(what)
    }

    /// With what the command line says. A list that it gives replaces the profile's; environment variables are added to the profile's.
    ///
    /// # Errors
    /// What it says does not fit the role.
    pub fn merge(mut self, overrides: &Overrides) -> anyhow::Result<Self> {
        let given = overrides.clone();
        self.role = given.role.or(self.role);
        replace(&mut self.command, given.command);
        replace(&mut self.args, given.args);
        self.env.extend(given.env);
        self.ports = some(given.ports).or(self.ports);
        self.health = given.health.or(self.health);
        replace(&mut self.writable, given.writable);
        self.user = given.user.or(self.user);
        self.grace = given.grace.or(self.grace);
        self.startup = given.startup.or(self.startup);
        self.claims = some(given.claims).or(self.claims);
        if let Some(mount) = given.mount {
            match self
                .role
                .context("--mount needs --role too, or a profile that says the role")?
            {
                Role::Logging => self.logging.get_or_insert_default().mount = mount,
                Role::ConfigReload => self.config_reload.get_or_insert_default().mount = mount,
                role => bail!("--mount is for the roles logging and config-reload, not for {role}"),
            }
        }
        if let Some(delivers) = given.delivers {
            match self.role {
                // If the image's label says another role, that is found out then.
                None | Some(Role::Logging) => self.logging.get_or_insert_default().delivers = delivers,
                Some(role) => bail!("--delivers is for the role logging, not for {role}"),
            }
        }
        self.checked()
    }

    /// With what the image says, where the profile says nothing.
    ///
    /// # Errors
    /// Its STOPSIGNAL or a label is faulty, or the profile does not fit the label's role.
    pub fn with_defaults(mut self, image: &ImageDefaults) -> anyhow::Result<Self> {
        if let (None, Some(role)) = (self.role, image.labels.get(ROLE_LABEL)) {
            self.role = Some(named("role", role).with_context(|| format!("the image's label {ROLE_LABEL}"))?);
        }
        if let (None, Some(claims)) = (&self.claims, image.labels.get(CLAIMS_LABEL)) {
            let claims = claims.split(',').map(str::trim).filter(|claim| !claim.is_empty());
            let claims = claims.map(|claim| self.claim(claim)).collect::<anyhow::Result<_>>();
            self.claims = Some(claims.with_context(|| format!("the image's label {CLAIMS_LABEL}"))?);
        }
        if let (None, Some(signal)) = (&self.stop_signal, &image.stop_signal) {
            self.stop_signal = Some(signal.parse().context("the image's STOPSIGNAL")?);
        }
        let user = image
            .user
            .as_ref()
            .and_then(|user| user.split(':').next()?.parse().ok());
        self.user = self.user.or(user);
        let exposed: Vec<Port> = image.exposed.iter().copied().map(Port::from).collect();
        self.ports = self.ports.or(some(exposed));
        self.checked()
    }

    /// The claim called `text`, which is one that this role has.
    fn claim(&self, text: &str) -> anyhow::Result<Claim> {
        let claims = self
            .role()
            .map_or_else(|_| Claim::value_variants().to_vec(), Role::claims);
        let found = claims.into_iter().find(|claim| claim.to_string() == text);
        found.with_context(|| unknown_claim(text, self.role))
    }

    /// With `values` in place of the placeholders, which [`Role::placeholders`] names. Only once: what stood for double braces is one of them then.
    ///
    /// # Errors
    /// A placeholder has no value.
    pub fn filled(&self, values: &BTreeMap<&str, String>) -> anyhow::Result<Self> {
        let mut filled = self.clone();
        for (field, text) in filled.texts() {
            *text = placeholder::filled(text, values).with_context(|| field.join("."))?;
        }
        Ok(filled)
    }

    /// The role.
    ///
    /// # Errors
    /// Nobody has said it.
    pub fn role(&self) -> anyhow::Result<Role> {
        self.role.with_context(|| {
            let roles: Vec<String> = Role::value_variants().iter().map(Role::to_string).collect();
            format!(
                "the role is missing: give --role, “role” in the profile, or the image's label {ROLE_LABEL}; roles: {}",
                roles.join(", ")
            )
        })
    }

    /// All TCP ports that it opens, each once.
    pub fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.ports.iter().flatten().map(|port| port.get()).collect();
        if self.role == Some(Role::ReverseProxy) {
            ports.push(self.reverse_proxy().listen.get());
        }
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// How long it may take from its start until it is ready.
    pub fn startup(&self) -> Duration {
        self.startup.map_or(STARTUP, Period::get)
    }

    /// How long it may take to end.
    pub fn grace(&self) -> Duration {
        self.grace.map_or(GRACE, Period::get)
    }

    /// The signal that makes it end: `SIGTERM`.
    pub fn stop_signal(&self) -> &str {
        self.stop_signal.as_ref().map_or("SIGTERM", Signal::as_str)
    }

    /// What it may use at most: the number of processors.
    pub fn cpu(&self) -> Quantity {
        let given = self.resources.as_ref().and_then(|resources| resources.cpu.clone());
        given.unwrap_or_else(|| CPU.parse().expect("a quantity"))
    }

    /// What it may use at most: bytes of memory.
    pub fn memory(&self) -> Quantity {
        let given = self.resources.as_ref().and_then(|resources| resources.memory.clone());
        given.unwrap_or_else(|| MEMORY.parse().expect("a quantity"))
    }

    /// Whether it makes this claim.
    pub fn claims(&self, claim: Claim) -> bool {
        self.claims.iter().flatten().any(|other| *other == claim)
    }

    /// What it says as a logging sidecar.
    pub fn logging(&self) -> Logging {
        self.logging.clone().unwrap_or_default()
    }

    /// What it says as a reverse proxy.
    pub fn reverse_proxy(&self) -> ReverseProxy {
        self.reverse_proxy.clone().unwrap_or_default()
    }

    /// What it says as a sidecar that reloads a configuration.
    pub fn config_reload(&self) -> ConfigReload {
        self.config_reload.clone().unwrap_or_default()
    }

    /// As the text of a file.
    ///
    /// # Errors
    /// None is known.
    pub fn to_yaml(&self) -> anyhow::Result<String> {
        Ok(serde_saphyr::to_string(self)?)
    }

    /// An example for an image of this role, with comments.
    pub fn init(role: Role) -> String {
        init::text(role)
    }

    fn checked(self) -> anyhow::Result<Self> {
        match self.fault() {
            Some(fault) => bail!("{}: {}", fault.field.join("."), fault.what),
            None => Ok(self),
        }
    }

    /// The first part that does not fit the others. What depends on the role is left out as long as that is unknown.
    fn fault(&self) -> Option<Fault> {
        self.foreign_section()
            .or_else(|| self.foreign_claim())
            .or_else(|| self.needless_bad_file())
            .or_else(|| self.faulty_placeholder())
    }

    fn foreign_section(&self) -> Option<Fault> {
        let role = self.role?;
        let sections = [
            ("logging", self.logging.is_some(), Role::Logging),
            ("reverseProxy", self.reverse_proxy.is_some(), Role::ReverseProxy),
            ("configReload", self.config_reload.is_some(), Role::ConfigReload),
        ];
        let (section, _, owner) = sections
            .into_iter()
            .find(|(_, is_there, owner)| *is_there && *owner != role)?;
        Some(Fault {
            field: vec![section.to_owned()],
            text: None,
            what: format!("“{section}” is for the role {owner}, and the role is {role}"),
        })
    }

    fn foreign_claim(&self) -> Option<Fault> {
        let role = self.role?;
        let possible = role.claims();
        let mut claims = self.claims.iter().flatten().enumerate();
        let (index, claim) = claims.find(|(_, claim)| !possible.contains(claim))?;
        Some(Fault {
            field: vec!["claims".to_owned(), index.to_string()],
            text: None,
            what: unknown_claim(&claim.to_string(), Some(role)),
        })
    }

    fn needless_bad_file(&self) -> Option<Fault> {
        let path = self
            .bad_files
            .keys()
            .find(|path| !self.files.contains_key(path))?
            .as_str();
        let files: Vec<&str> = self.files.keys().map(AbsolutePath::as_str).collect();
        Some(Fault {
            field: vec!["badFiles".to_owned(), path.to_owned()],
            text: None,
            what: match files.is_empty() {
                true => "badFiles replaces files, and there are none".to_owned(),
                false => format!("badFiles replaces files: {}", unknown("file", path, &files)),
            },
        })
    }

    fn faulty_placeholder(&self) -> Option<Fault> {
        self.clone().texts().into_iter().find_map(|(field, text)| {
            let (text, what) = placeholder::fault(text, self.role)?;
            let text = Some(text);
            Some(Fault { field, text, what })
        })
    }

    /// The texts that may have placeholders, each with the names of the fields that lead to it.
    fn texts(&mut self) -> Vec<(Vec<String>, &mut String)> {
        let mut texts = Vec::new();
        for (field, words) in [("command", &mut self.command), ("args", &mut self.args)] {
            let words = words.iter_mut().enumerate();
            texts.extend(words.map(|(index, word)| (vec![field.to_owned(), index.to_string()], word)));
        }
        let variables = self.env.iter_mut();
        texts.extend(variables.map(|(name, value)| (vec!["env".to_owned(), name.clone()], value)));
        for (field, files) in [("files", &mut self.files), ("badFiles", &mut self.bad_files)] {
            let files = files.iter_mut();
            texts.extend(files.map(|(path, text)| (vec![field.to_owned(), path.as_str().to_owned()], text)));
        }
        if let Some(Health::Http { path, .. }) = &mut self.health {
            let field = ["health", "http", "path"].map(str::to_owned).to_vec();
            texts.push((field, &mut path.0));
        }
        texts
    }
}

/// The JSON Schema of a profile.
pub fn schema() -> Value {
    schemars::schema_for!(Profile).to_value()
}

fn replace<T>(list: &mut Vec<T>, given: Vec<T>) {
    if !given.is_empty() {
        *list = given;
    }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// Says that there is no such thing, which was probably meant, and what there is.
fn unknown(what: &str, text: &str, known: &[&str]) -> String {
    let close = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(text, name), name))
        .filter(|(distance, _)| *distance <= (text.len() / 3).max(1))
        .min();
    let meant = close.map_or_else(|| ";".to_owned(), |(_, name)| format!("; did you mean “{name}”?"));
    format!("unknown {what} “{text}”{meant} known here: {}", known.join(", "))
}

/// Says that the role has no such claim.
fn unknown_claim(text: &str, role: Option<Role>) -> String {
    let claims = role.map_or_else(|| Claim::value_variants().to_vec(), Role::claims);
    let claims: Vec<String> = claims.iter().map(Claim::to_string).collect();
    let unknown = unknown("claim", text, &claims.iter().map(String::as_str).collect::<Vec<_>>());
    role.map_or_else(|| unknown.clone(), |role| format!("role {role}: {unknown}"))
}
