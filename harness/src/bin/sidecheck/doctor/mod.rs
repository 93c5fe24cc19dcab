//! `sidecheck doctor`

mod existing;
mod machine;

use anyhow::bail;
use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use sidecheck::display::{display_safe, explained, say};
use sidecheck::environment;
use sidecheck::fixture::{self, Fixture, Shape};

use crate::cluster_options::ClusterOptions;

/// Say what works and what is missing, what that costs, and how to get it: on this machine, or on an existing cluster that is named
///
/// On an existing cluster, a Pod of each image is run on its nodes, and removed.
#[derive(Args)]
pub struct Doctor {
    #[command(flatten)]
    cluster: ClusterOptions,
}

impl Doctor {
    pub async fn execute(self) -> anyhow::Result<u8> {
        self.cluster.take()?;
        let rows = match self.cluster.existing.target()? {
            Some(target) => existing::examine(target, &self.cluster.existing.namespace).await?,
            None => machine::examine().await,
        };
        say(&display_safe(&table(&rows)));
        Ok(if rows.iter().any(|row| row.state == State::Missing) {
            crate::ERROR
        } else {
            crate::MET
        })
    }
}

/// What was found out about one thing.
struct Row {
    state: State,
    what: &'static str,
    found: String,
    /// What cannot be decided without it, and how to get it.
    advice: Option<(String, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It works.
    Ok,
    /// It does not, and some checks need it.
    Lacking,
    /// It does not, and nothing goes without it.
    Missing,
    /// Nobody can tell.
    Unknown,
}

impl Row {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            state: State::Ok,
            what,
            found: found.into(),
            advice: None,
        }
    }

    fn without(state: State, what: &'static str, found: impl Into<String>, costs: &str, remedy: &str) -> Self {
        Self {
            state,
            what,
            found: found.into(),
            advice: Some((costs.to_owned(), remedy.to_owned())),
        }
    }

    /// What a trial has shown, of something that nothing goes without.
    fn tried(what: &'static str, trial: anyhow::Result<String>, costs: &str, remedy: &str) -> Self {
        match trial {
            Ok(found) => Self::ok(what, found),
            Err(error) => Self::without(State::Missing, what, explained(&error), costs, remedy),
        }
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["state", "what", "found", "without it", "how to get it"]);
    for row in rows {
        let state = match row.state {
            State::Ok => "ok",
            State::Lacking => "lacking",
            State::Missing => "missing",
            State::Unknown => "unknown",
        };
        let (costs, remedy) = row.advice.clone().unwrap_or_default();
        table.add_row([state, row.what, &row.found, &costs, &remedy]);
    }
    table.trim_fmt()
}

/// How many of the checks, each in each of its shapes, are such: `12 of 293 checks are skipped`.
fn count(outcome: &str, is_such: impl Fn(&Fixture, Shape) -> bool) -> anyhow::Result<Option<String>> {
    let root = environment::root().join("fixtures");
    let (mut such, mut all) = (0, 0);
    for id in fixture::ids(&root)? {
        let fixture = Fixture::load(&root, &id)?;
        for shape in &fixture.metadata.shapes {
            all += 1;
            such += usize::from(is_such(&fixture, *shape));
        }
    }
    if all == 0 {
        bail!("there are no fixtures in {}", root.display());
    }
    Ok((such > 0).then(|| format!("{such} of {all} checks are {outcome}")))
}
