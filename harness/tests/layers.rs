//! The modules of the library depend on one another in one direction only.

use std::fs;
use std::path::Path;

/// From the ground up: each module may use those before it.
const LAYERS: [&str; 13] = [
    "display",
    "patience",
    "redact",
    "environment",
    "finding",
    "timeline",
    "profile",
    "fixture",
    "report",
    "cluster",
    "image",
    "pod",
    "scenario",
];

/// The lines of a module's files that name another module of the library, and that module.
fn uses(path: &Path, found: &mut Vec<(String, String)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            uses(&entry.expect("an entry").path(), found);
        }
    } else if path.extension().is_some_and(|ending| ending == "rs") {
        let text = fs::read_to_string(path).expect("a file");
        for (number, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            for rest in line.split("crate::").skip(1) {
                // `use crate::{a, b}` names several.
                let names = rest.strip_prefix('{').map_or(rest, |list| list.trim_end_matches("};"));
                let several = if rest.starts_with('{') {
                    names.split(',').collect()
                } else {
                    vec![names]
                };
                for name in several {
                    let name = name
                        .trim()
                        .split(|c: char| !c.is_alphanumeric() && c != '_')
                        .next()
                        .unwrap_or_default();
                    found.push((format!("{}:{}", path.display(), number + 1), name.to_owned()));
                }
            }
        }
    }
}

#[test]
fn dependencies_point_one_way() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut upwards = Vec::new();
    for (floor, module) in LAYERS.iter().enumerate() {
        let paths = [source.join(module), source.join(format!("{module}.rs"))];
        let path = paths.iter().find(|path| path.exists());
        let mut found = Vec::new();
        uses(
            path.unwrap_or_else(|| panic!("there is no module {module}")),
            &mut found,
        );
        let higher = found
            .into_iter()
            .filter(|(_, name)| LAYERS.iter().skip(floor + 1).any(|higher| higher == name));
        upwards.extend(higher.map(|(place, name)| format!("{place}: {module} uses {name}")));
    }
    assert!(upwards.is_empty(), "{upwards:#?}");
}
