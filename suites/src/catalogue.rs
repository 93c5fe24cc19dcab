//! Fixtures, functions and twins belong together: no orphan on any side.

use std::collections::BTreeSet;
use std::process::Command;

use sidecheck::environment;
use sidecheck::fixture::{self, Fixture};

/// Every check in each of its shapes, as its test is called: `area::check::Native`.
fn declared() -> BTreeSet<String> {
    let root = environment::root().join("fixtures");
    let ids = fixture::ids(&root).expect("fixtures");
    ids.iter()
        .flat_map(|id| {
            let fixture = Fixture::load(&root, id).unwrap_or_else(|error| panic!("{error:#}"));
            let function = id.replace('-', "_").replace('/', "::");
            let shapes = fixture.metadata.shapes.into_iter();
            shapes.map(move |shape| format!("{function}::{shape:?}"))
        })
        .collect()
}

/// Every test function of this binary that takes a shape.
fn written() -> BTreeSet<String> {
    let binary = std::env::current_exe().expect("the path of this test");
    let listed = Command::new(binary)
        .args(["--list", "--format", "terse"])
        .output()
        .expect("a list of tests");
    String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter_map(|line| {
            let (function, case) = line.strip_suffix(": test")?.rsplit_once("::shape_")?;
            let shape = case.rsplit('_').next()?;
            Some(format!("{function}::{shape}"))
        })
        .collect()
}

#[test]
fn every_fixture_has_its_function_and_every_function_its_fixture() {
    let (declared, written) = (declared(), written());
    let orphans: Vec<_> = declared.symmetric_difference(&written).collect();
    assert!(orphans.is_empty(), "on one side only: {orphans:#?}");
    assert!(!declared.is_empty());
}

#[test]
fn every_shape_has_a_twin() {
    let root = environment::root().join("fixtures");
    for id in fixture::ids(&root).expect("fixtures") {
        let fixture = Fixture::load(&root, &id).unwrap_or_else(|error| panic!("{error:#}"));
        for shape in &fixture.metadata.shapes {
            assert!(
                fixture.twins(*shape).next().is_some(),
                "{id} has no twin in the {shape} shape"
            );
        }
    }
}
