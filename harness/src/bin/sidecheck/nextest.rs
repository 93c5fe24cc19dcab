//! nextest, which runs the tests that decide checks.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use nextest_metadata::TestListSummary;
use sidecheck::environment;
use sidecheck::fixture::Shape;
use sidecheck::report::records::Planned;
use tokio::process::Command;

/// A call of nextest on the suites' tests: `run` or `list`.
pub fn call(subcommand: &str) -> Command {
    let bin = environment::cache().join("bin");
    let path = environment::value("PATH").unwrap_or_default();
    let mut command = Command::new("cargo");
    command
        .args(["nextest", subcommand, "--package", "suites"])
        .current_dir(environment::root())
        .env("PATH", format!("{}:{path}", bin.display()))
        .stdin(Stdio::null());
    command
}

/// The names of all tests of the suites, which are built if necessary. cargo's messages go into the file `log`.
pub async fn tests(log: &Path) -> anyhow::Result<Vec<String>> {
    let output = call("list")
        .args(["--message-format", "json"])
        .stderr(File::create(log)?)
        .kill_on_drop(true)
        .output()
        .await
        .context("cargo cannot be called")?;
    if !output.status.success() {
        bail!("the tests cannot be listed ({}):\n{}", output.status, last_lines(log));
    }
    let list = TestListSummary::parse_json(String::from_utf8_lossy(&output.stdout))
        .context("nextest's list of tests cannot be understood")?;
    let cases = list.rust_suites.into_values().flat_map(|suite| suite.test_cases);
    Ok(cases.map(|(name, _)| name.as_str().to_owned()).collect())
}

/// The end of a log, for a message.
pub fn last_lines(log: &Path) -> String {
    const SHOWN: usize = 40;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

/// The tests that decide the planned checks, and the checks that no test decides.
///
/// A test is called `AREA::…::CHECK::shape_N_Classic`. `AREA::…::shared::shape_N_Classic` decides every check of its area and shape that has
/// no own test.
pub fn deciding<'a>(planned: &'a [Planned], tests: &[String]) -> (BTreeSet<String>, Vec<&'a Planned>) {
    let tests: Vec<(Decides<'_>, &String)> = tests
        .iter()
        .filter_map(|test| Some((Decides::parse(test)?, test)))
        .collect();
    let find = |wanted: &Decides<'_>| {
        tests
            .iter()
            .find(|(decides, _)| decides == wanted)
            .map(|(_, test)| *test)
    };
    let (mut names, mut undecidable) = (BTreeSet::new(), Vec::new());
    for check in planned {
        let id = check.id.replace('-', "_");
        let (area, function) = id.rsplit_once('/').unwrap_or((&id, ""));
        let area = area.replace('/', "::");
        let shape = check.shape;
        let own = Decides {
            area: &area,
            function,
            shape,
        };
        let shared = Decides {
            function: "shared",
            ..own
        };
        match find(&own).or_else(|| find(&shared)) {
            Some(test) => {
                names.insert(test.clone());
            }
            None => undecidable.push(check),
        }
    }
    (names, undecidable)
}

/// What a test decides, as far as its name says.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Decides<'a> {
    area: &'a str,
    function: &'a str,
    shape: Shape,
}

impl<'a> Decides<'a> {
    fn parse(test: &'a str) -> Option<Self> {
        let (path, case) = test.rsplit_once("::shape_")?;
        let (module, function) = path.rsplit_once("::")?;
        Some(Self {
            area: module.strip_suffix("::check").unwrap_or(module),
            function,
            shape: match case.rsplit('_').next()? {
                "Classic" => Shape::Classic,
                "Native" => Shape::Native,
                "Alone" => Shape::Alone,
                _ => return None,
            },
        })
    }
}

/// The filterset of exactly these tests.
pub fn filterset(tests: &BTreeSet<String>) -> String {
    let exact: Vec<String> = tests.iter().map(|test| format!("test(={test})")).collect();
    exact.join(" + ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(id: &str, shape: Shape) -> Planned {
        Planned {
            id: id.to_owned(),
            shape,
        }
    }

    #[test]
    fn a_check_is_decided_by_its_own_test_or_by_the_shared_one() {
        let tests = [
            "logging::check::every_line_arrives::shape_1_Classic",
            "logging::check::every_line_arrives::shape_2_Native",
            "logging::check::shared::shape_2_Native",
            "config_reload::reload_takes_effect::shape_2_Native",
            "catalogue::every_shape_has_a_twin",
        ]
        .map(str::to_owned);
        let planned = [
            planned("logging/every-line-arrives", Shape::Native),
            planned("logging/containers-share-one-ip", Shape::Native),
            planned("logging/one-volume", Shape::Native),
            planned("logging/one-volume", Shape::Classic),
            planned("config-reload/reload-takes-effect", Shape::Native),
            planned("config-reload/one-volume", Shape::Native),
        ];
        let (names, undecidable) = deciding(&planned, &tests);
        insta::assert_snapshot!(filterset(&names), @"test(=config_reload::reload_takes_effect::shape_2_Native) + test(=logging::check::every_line_arrives::shape_2_Native) + test(=logging::check::shared::shape_2_Native)");
        assert_eq!(undecidable, [&planned[3], &planned[5]]);
    }
}
