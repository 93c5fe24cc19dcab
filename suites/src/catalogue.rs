//! Fixtures and functions belong together: neither exists without the other.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};
use sidecheck::Shape;
use sidecheck::environment;
use sidecheck::fixture::{self, Fixture};
use sidecheck::profile::Profile;
use sidecheck::scenario::Check;

/// An area with the checks that share a Pod and those that have one of their own.
type Area = (
    &'static str,
    &'static [Check],
    &'static [(&'static str, &'static [Shape])],
);

fn areas() -> [Area; 10] {
    use crate::{config_reload, logging, monitoring, reverse_proxy, timestamped_page, validate};
    [
        ("config-reload", config_reload::check::SHARED, config_reload::check::OWN),
        ("logging", logging::check::SHARED, logging::check::OWN),
        ("monitoring", monitoring::check::SHARED, monitoring::check::OWN),
        ("reverse-proxy", reverse_proxy::check::SHARED, reverse_proxy::check::OWN),
        (
            "timestamped-page",
            timestamped_page::check::SHARED,
            timestamped_page::check::OWN,
        ),
        (
            "validate/config-reload",
            validate::config_reload::check::SHARED,
            validate::config_reload::check::OWN,
        ),
        ("validate/contract", &[], validate::contract::check::OWN),
        (
            "validate/generic",
            validate::generic::check::SHARED,
            validate::generic::check::OWN,
        ),
        (
            "validate/logging",
            validate::logging::check::SHARED,
            validate::logging::check::OWN,
        ),
        (
            "validate/reverse-proxy",
            validate::reverse_proxy::check::SHARED,
            validate::reverse_proxy::check::OWN,
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
    for (area, shared, own) in areas() {
        for check in shared {
            let id = check.id();
            if fixture::is_left_out(&environment::root().join("fixtures"), &id) {
                continue;
            }
            let fixture = fixtures.remove(&id).unwrap_or_else(|| panic!("{id} has no fixture"));
            assert!(
                fixture.is_shareable(),
                "{id} changes the scenario: it needs a Pod of its own"
            );
        }
        for (function, shapes) in own {
            let id = format!("{area}/{}", function.replace('_', "-"));
            let fixture = fixtures.remove(&id).unwrap_or_else(|| panic!("{id} has no fixture"));
            assert_eq!(&fixture.metadata.shapes[..], *shapes, "the shapes of {id}");
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

/// A user reads what a role's check says of an image: it has to name what is wrong.
#[test]
fn every_twin_of_a_role_says_what_is_observed() {
    let root = environment::root().join("fixtures");
    for (id, fixture) in fixtures() {
        if fixture::is_role(&root, fixture.area()) {
            for twin in &fixture.metadata.twins {
                assert!(twin.observed.is_some(), "{id}: “{}” has no observation", twin.name);
            }
        }
    }
}

#[test]
fn every_ready_made_profile_fits_its_role() {
    let root = environment::root().join("fixtures");
    for entry in fs::read_dir(root.join("profiles")).expect("profiles") {
        let path = entry.expect("a profile").path().join("profile.yaml");
        let profile = Profile::read(&path, None).unwrap_or_else(|error| panic!("{error:#}"));
        let id = format!("validate/{}/becomes-ready", profile.role().expect("a role"));
        Fixture::load_for(&root, &id, Some(&profile)).unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
    }
}

/// Somebody else's cluster may inject containers, give out tokens, have nodes of other kinds, or refuse Pods without limits.
#[test]
fn every_pod_is_a_good_citizen() {
    for (id, fixture) in fixtures() {
        for &shape in fixture.metadata.shapes.iter().filter(|shape| **shape != Shape::Alone) {
            for twin in fixture.twins(shape).map(Some).chain([None]) {
                let objects = fixture.objects(shape, twin).expect("objects");
                for pod in objects.iter().filter_map(fixture::pod) {
                    let links = id.ends_with("/works-beside-services") && pod["metadata"]["name"] == fixture.pod_name();
                    let faults = faults(pod, links);
                    let twin = twin.map(|twin| &twin.name);
                    assert!(faults.is_empty(), "{id}@{shape}, twin {twin:?}: {faults:#?} in {pod:#}");
                }
            }
        }
    }
}

/// What a Pod does not say as it should.
fn faults(pod: &Value, links: bool) -> Vec<String> {
    let of_pod = [
        ("/metadata/labels/sidecar.istio.io~1inject", json!("false")),
        ("/metadata/labels/istio.io~1dataplane-mode", json!("none")),
        ("/metadata/labels/kuma.io~1sidecar-injection", json!("disabled")),
        ("/metadata/annotations/linkerd.io~1inject", json!("disabled")),
        (
            "/metadata/annotations/consul.hashicorp.com~1connect-inject",
            json!("false"),
        ),
        ("/spec/enableServiceLinks", json!(links)),
        ("/spec/automountServiceAccountToken", json!(false)),
        ("/spec/nodeSelector/kubernetes.io~1os", json!("linux")),
        ("/spec/securityContext/seccompProfile/type", json!("RuntimeDefault")),
    ];
    let of_container = [
        ("/securityContext/allowPrivilegeEscalation", json!(false)),
        ("/securityContext/capabilities/drop", json!(["ALL"])),
    ];
    let differs = |object: &Value, place: &str, expected: &Value| object.pointer(place) != Some(expected);
    let wrong = of_pod.iter().filter(|(place, expected)| differs(pod, place, expected));
    let mut faults: Vec<String> = wrong.map(|(place, _)| (*place).to_owned()).collect();
    let lists = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array());
    for container in lists.into_iter().flatten().flatten() {
        let name = container["name"].as_str().expect("a name");
        let mut missing = |place: &str| faults.push(format!("{name}: {place}"));
        for place in ["/requests/cpu", "/requests/memory", "/limits/cpu", "/limits/memory"] {
            if container["resources"].pointer(place).is_none() {
                missing(place);
            }
        }
        for (place, expected) in &of_container {
            if differs(container, place, expected) && container["securityContext"]["privileged"] != true {
                missing(place);
            }
        }
    }
    faults
}
