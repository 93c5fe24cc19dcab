//! The file with a profile, and the places of its faults.

use std::fmt::{self, Formatter};
use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error, Location, Spanned};

use super::role::{Claim, Role};
use super::{Fault, Profile, unknown, unknown_claim};

/// A file and its text.
pub(super) struct Source<'a> {
    path: &'a Path,
    text: String,
}

/// What is in the file, with places.
enum Node {
    /// The keys and values of a mapping.
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
    List(Vec<Spanned<Node>>),
    Text(String),
    Other,
}

impl<'a> Source<'a> {
    pub(super) fn read(path: &'a Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("no profile {}", path.display()))?;
        Ok(Self::new(path, text))
    }

    pub(super) fn new(path: &'a Path, text: String) -> Self {
        Self { path, text }
    }

    /// The profile, with `role` in place of the file's if it is given.
    pub(super) fn profile(&self, role: Option<Role>) -> anyhow::Result<Profile> {
        let mut profile: Profile =
            serde_saphyr::from_str(&self.text).map_err(|error| self.not_understood(&error, role))?;
        profile.role = role.or(profile.role);
        match profile.fault() {
            Some(fault) => Err(self.refused(&fault)),
            None => Ok(profile),
        }
    }

    /// The error of a text that is no profile at all.
    fn not_understood(&self, error: &Error, role: Option<Role>) -> anyhow::Error {
        let place = error.location().map(|location| (location.line(), location.column()));
        self.at(place, &self.in_words(error.without_snippet(), role))
    }

    fn in_words(&self, error: &Error, role: Option<Role>) -> String {
        match error {
            Error::AliasError { error, .. } => self.in_words(error, role),
            Error::Message { msg, .. } => msg.clone(),
            Error::SerdeUnknownField { field, expected, .. } => unknown("field", field, expected),
            Error::SerdeUnknownVariant { variant, expected, .. } => self.unknown_variant(variant, expected, role),
            Error::SerdeMissingField { field, .. } => format!("the field “{field}” is missing"),
            Error::SerdeInvalidType {
                unexpected, expected, ..
            } => format!("expected {expected}, found {unexpected}"),
            Error::ExpectedMappingEndAfterEnumVariantValue { .. } => "only one of these is possible at once".to_owned(),
            Error::InvalidScalar { ty: "boolean", .. } => "expected true or false".to_owned(),
            Error::InvalidScalar { .. } => "expected a whole number, 0 or above".to_owned(),
            Error::DuplicateMappingKey { key: Some(key), .. } => format!("“{key}” is there twice"),
            Error::NullIntoString { .. } => "the text is missing".to_owned(),
            Error::Unexpected {
                expected: "sequence start",
                ..
            } => "expected a list".to_owned(),
            Error::Unexpected {
                expected: "mapping start",
                ..
            } => "expected fields, as NAME: VALUE".to_owned(),
            other => self.in_other_words(other),
        }
    }

    /// Of the claims, only those of the role are possible.
    fn unknown_variant(&self, variant: &str, expected: &[&str], role: Option<Role>) -> String {
        let role = role.or_else(|| self.role());
        let claims: Vec<String> = Claim::value_variants().iter().map(Claim::to_string).collect();
        if expected == claims {
            unknown_claim(variant, role)
        } else {
            unknown("value", variant, expected)
        }
    }

    /// What the file says about the role, even if it is at fault elsewhere.
    fn role(&self) -> Option<Role> {
        let Node::Map(entries) = serde_saphyr::from_str(&self.text).ok()? else {
            return None;
        };
        entries.iter().find_map(|(key, value)| match &value.value {
            Node::Text(role) if key.value == "role" => Role::from_str(role, false).ok(),
            _ => None,
        })
    }

    /// The message of the YAML library without the place, which is given already.
    fn in_other_words(&self, error: &Error) -> String {
        let text = error.to_string();
        let message = text
            .split_once(" at line ")
            .map_or(text.as_str(), |(message, _)| message);
        let line = error
            .location()
            .and_then(|location| self.text.lines().nth((location.line() as usize).saturating_sub(1)));
        match line {
            Some(line) if line.contains("{{") => format!("{message}; a text that begins with a brace needs quotes"),
            _ => message.to_owned(),
        }
    }

    /// The error of a profile with a fault.
    fn refused(&self, fault: &Fault) -> anyhow::Error {
        let place = self.place(fault.field.as_slice()).map(|location| {
            let text = fault.text.as_ref();
            let found = text.and_then(|text| self.find(text, location.line()));
            found.unwrap_or((location.line(), location.column()))
        });
        self.at(place, &fault.what)
    }

    /// The place of a field, of its key if it has one; if it is written in another way, the place of what contains it.
    fn place(&self, field: &[String]) -> Option<Location> {
        let mut node: Spanned<Node> = serde_saphyr::from_str(&self.text).ok()?;
        let mut place = node.referenced;
        for part in field {
            let inner = match node.value {
                Node::Map(entries) => {
                    let entry = entries.into_iter().find(|(key, _)| key.value == *part);
                    entry.map(|(key, value)| (key.referenced, value))
                }
                Node::List(list) => {
                    let element = part.parse().ok().and_then(|index: usize| list.into_iter().nth(index));
                    element.map(|element| (element.referenced, element))
                }
                Node::Text(_) | Node::Other => None,
            };
            let Some(inner) = inner else { break };
            (place, node) = inner;
        }
        Some(place)
    }

    /// Line and column of the first `text` from line `first` on.
    fn find(&self, text: &str, first: u64) -> Option<(u64, u64)> {
        let mut lines = (1..).zip(self.text.lines()).skip((first as usize).saturating_sub(1));
        lines.find_map(|(number, line)| {
            let before = &line[..line.find(text)?];
            Some((number, before.chars().count() as u64 + 1))
        })
    }

    fn at(&self, place: Option<(u64, u64)>, what: &str) -> anyhow::Error {
        match place {
            Some((line, column)) => anyhow!("{}:{line}:{column}: {what}", self.path.display()),
            None => anyhow!("{}: {what}", self.path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Node;

    fn expecting(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element()? {
            list.push(element);
        }
        Ok(Node::List(list))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }
}
