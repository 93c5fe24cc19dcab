//! `sidecheck list`

use clap::Args;
use sidecheck::display::{display_safe, say};
use sidecheck::environment;
use sidecheck::fixture::{self, Fixture};

/// List the checks: id, level, shapes, requirement
#[derive(Args)]
pub struct List {}

impl List {
    pub fn execute(self) -> anyhow::Result<u8> {
        let root = environment::root().join("fixtures");
        for id in fixture::ids(&root)? {
            let fixture = Fixture::load(&root, &id)?;
            let shapes: Vec<String> = fixture.metadata.shapes.iter().map(ToString::to_string).collect();
            let text = format!("{id}  [{}]\n    {}", shapes.join(", "), fixture.metadata.requirement);
            say(&display_safe(&text));
        }
        Ok(crate::MET)
    }
}
