//! Placeholders in the texts of a profile.
//!
//! `{{name}}` stands for a value, and `{{{{` for two braces. Other double braces are no placeholders, such as those before a blank or a full
//! stop: the `{{ .Name }}` of a Go template stays as it is.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use anyhow::bail;
use clap::ValueEnum;
use regex::{Captures, Regex};

use super::role::Role;
use super::unknown;

static BRACES: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\{\{\{\{|\{\{(?<before> *)(?<name>[A-Za-z][A-Za-z0-9._-]*)(?<after> *)\}\}")
        .expect("a valid expression")
});

/// The first fault among the placeholders of `text`: what is at fault, and what would be right.
pub(super) fn fault(text: &str, role: Option<Role>) -> Option<(String, String)> {
    let known: Vec<&str> = match role {
        Some(role) => names(role).collect(),
        None => Role::value_variants().iter().flat_map(|role| names(*role)).collect(),
    };
    BRACES.captures_iter(text).find_map(|braces| {
        let name = braces.name("name")?.as_str();
        let itself = &braces[0];
        let is_known = known.contains(&name);
        let what = match (is_known, has_blanks(&braces)) {
            (true, false) | (false, true) => return None,
            (true, true) => format!("a placeholder has no blanks: {{{{{name}}}}}"),
            (false, false) if known.is_empty() => {
                let role = role.map_or_else(String::new, |role| format!("the role {role} has no placeholders: "));
                format!("{role}there is no “{name}”")
            }
            (false, false) => unknown("placeholder", name, &known),
        };
        Some((
            itself.to_owned(),
            format!("{what}; for the text itself write {{{{{itself}"),
        ))
    })
}

/// The text with its placeholders' values, and with each `{{{{` as `{{`.
pub(super) fn filled(text: &str, values: &BTreeMap<&str, String>) -> anyhow::Result<String> {
    let mut filled = String::new();
    let mut end = 0;
    for braces in BRACES.captures_iter(text) {
        let whole = braces.get_match();
        filled.push_str(&text[end..whole.start()]);
        end = whole.end();
        match braces.name("name").map(|name| name.as_str()) {
            None => filled.push_str("{{"),
            Some(_) if has_blanks(&braces) => filled.push_str(whole.as_str()),
            Some(name) => match values.get(name) {
                Some(value) => filled.push_str(value),
                None => bail!(unknown(
                    "placeholder",
                    name,
                    &values.keys().copied().collect::<Vec<_>>()
                )),
            },
        }
    }
    filled.push_str(&text[end..]);
    Ok(filled)
}

fn names(role: Role) -> impl Iterator<Item = &'static str> {
    role.placeholders().iter().map(|(name, _)| *name)
}

fn has_blanks(braces: &Captures) -> bool {
    !braces["before"].is_empty() || !braces["after"].is_empty()
}
