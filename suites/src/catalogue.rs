//! Fixtures and functions belong together: no orphan on either side.

use std::collections::BTreeMap;

use sidecheck::Shape;
use sidecheck::environment;
use sidecheck::fixture::{self, Fixture};

/// The checks of an area: those with a Pod of their own, and those that share one.
type Written = (&'static [(&'static str, Option<&'static [Shape]>)], Vec<&'static str>);

fn areas() -> [(&'static str, Written); 5] {
    use crate::{config_reload, logging, monitoring, reverse_proxy, timestamped_page};
    [
        (
            "config-reload",
            (
                config_reload::check::ALL,
                config_reload::check::shared_checks().collect(),
            ),
        ),
        (
            "logging",
            (logging::check::ALL, logging::check::shared_checks().collect()),
        ),
        (
            "monitoring",
            (monitoring::check::ALL, monitoring::check::shared_checks().collect()),
        ),
        (
            "reverse-proxy",
            (
                reverse_proxy::check::ALL,
                reverse_proxy::check::shared_checks().collect(),
            ),
        ),
        (
            "timestamped-page",
            (
                timestamped_page::check::ALL,
                timestamped_page::check::shared_checks().collect(),
            ),
        ),
    ]
}

/// Every fixture, by id.
fn fixtures() -> BTreeMap<String, Fixture> {
    let root = environment::root().join("fixtures");
    let load = |id: String| {
        let fixture = Fixture::load(&root, &id).unwrap_or_else(|error| panic!("{error:#}"));
        (id, fixture)
    };
    fixture::ids(&root).expect("fixtures").into_iter().map(load).collect()
}

#[test]
fn every_fixture_has_its_function_and_every_function_its_fixture() {
    let mut fixtures = fixtures();
    for (area, (own, shared)) in areas() {
        for (function, shapes) in own {
            let id = format!("{area}/{}", function.replace('_', "-"));
            let fixture = fixtures.remove(&id).unwrap_or_else(|| panic!("{id} has no fixture"));
            assert_eq!(Some(&fixture.metadata.shapes[..]), *shapes, "the shapes of {id}");
        }
        for function in shared {
            let id = format!("{area}/{}", function.replace('_', "-"));
            let fixture = fixtures.remove(&id).unwrap_or_else(|| panic!("{id} has no fixture"));
            assert!(
                fixture.is_shareable(),
                "{id} changes the scenario: it needs a Pod of its own"
            );
        }
    }
    assert!(fixtures.is_empty(), "without a function: {:#?}", fixtures.keys());
}

#[test]
fn every_shape_has_a_twin() {
    for (id, fixture) in fixtures() {
        for shape in &fixture.metadata.shapes {
            assert!(
                fixture.twins(*shape).next().is_some(),
                "{id} has no twin in the {shape} shape"
            );
        }
    }
}
