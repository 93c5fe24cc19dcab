//! `sidecheck fixture`

use clap::Args;
use sidecheck::cluster::images;
use sidecheck::display::say;
use sidecheck::environment;
use sidecheck::fixture::{self, Fixture, Shape, Twin};

use crate::Usage;

/// Print the objects of a check as it applies them, ready for `kubectl apply -f -`
#[derive(Args)]
pub struct ShowFixture {
    /// The check: ID or ID@SHAPE; without a shape, in its first one
    #[arg(value_name = "ID[@SHAPE]")]
    check: String,
    /// With the change of this twin, by its name or number
    #[arg(long, value_name = "NAME")]
    twin: Option<String>,
}

impl ShowFixture {
    pub fn execute(self) -> anyhow::Result<u8> {
        let root = environment::root().join("fixtures");
        let (id, shape) = match self.check.split_once('@') {
            Some((id, shape)) => (id, Some(shape)),
            None => (self.check.as_str(), None),
        };
        let ids = fixture::ids(&root)?;
        if !ids.iter().any(|known| known == id) {
            return Err(unknown(&format!("check {id}"), &ids));
        }
        let fixture = Fixture::load(&root, id)?;
        let shape = shape_of(&fixture, shape)?;
        let twin = self.twin.map(|name| twin_of(&fixture, shape, &name)).transpose()?;
        let mut objects = fixture.objects(shape, twin)?;
        objects.iter_mut().for_each(images::readdress);
        say(serde_saphyr::to_string_multiple(&objects)?.trim_end());
        Ok(crate::MET)
    }
}

fn shape_of(fixture: &Fixture, name: Option<&str>) -> anyhow::Result<Shape> {
    let mut shapes = fixture.metadata.shapes.iter();
    let shape = shapes.find(|shape| name.is_none_or(|name| name == shape.to_string()));
    shape.copied().ok_or_else(|| {
        let shapes: Vec<String> = fixture.metadata.shapes.iter().map(ToString::to_string).collect();
        unknown(
            &format!("shape {} of {}", name.unwrap_or_default(), fixture.id),
            &shapes,
        )
    })
}

fn twin_of<'a>(fixture: &'a Fixture, shape: Shape, name: &str) -> anyhow::Result<&'a Twin> {
    let numbered = || fixture.twins(shape).zip(1..);
    let twin = numbered().find(|(twin, number)| twin.name == name || number.to_string() == name);
    twin.map(|(twin, _)| twin).ok_or_else(|| {
        let twins: Vec<String> = numbered()
            .map(|(twin, number)| format!("{number} {}", twin.name))
            .collect();
        unknown(&format!("twin {name} of {}@{shape}", fixture.id), &twins)
    })
}

fn unknown(what: &str, known: &[String]) -> anyhow::Error {
    Usage(format!("there is no {what}; there are:\n  {}", known.join("\n  "))).into()
}
