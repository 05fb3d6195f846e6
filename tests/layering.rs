//! Who may use whom in src/. The pure half knows neither the world nor its clock.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each module of src/ and the modules of this crate it may name. A module that is not listed, or
/// that is listed and gone, fails the test: the picture in src/lib.rs stays true.
const MAY_USE: &[(&str, &[&str])] = &[
    // Pure: no clock, no file, no map.
    ("model", &[]),
    ("telemetry", &["model"]),
    ("engine", &["model", "telemetry"]),
    ("autotune", &["engine"]),
    ("exempt", &["model", "telemetry"]),
    ("graph", &["model"]),
    // The seams and what crosses them.
    ("error", &["rights"]),
    ("rights", &[]),
    ("seams", &["error", "model"]),
    // The world.
    (
        "dataplane",
        &[
            "error",
            "graph",
            "model",
            "rights",
            "seams",
            "telemetry",
            "trust",
        ],
    ),
    ("trust", &["error"]),
    ("version", &[]),
    ("profile", &["engine", "graph", "model", "trust"]),
    ("runtime", &["error", "model", "trust"]),
    (
        "state",
        &["autotune", "engine", "error", "exempt", "model", "trust"],
    ),
    ("store", &["error", "graph", "model", "trust"]),
    (
        "metrics",
        &["dataplane", "engine", "error", "graph", "model", "trust"],
    ),
    ("capture", &["error"]),
    ("record", &["engine", "error", "model", "telemetry"]),
    ("top", &["dataplane", "model", "telemetry"]),
    ("page", &["model", "state"]),
    (
        "report",
        &[
            "dataplane",
            "engine",
            "error",
            "graph",
            "model",
            "profile",
            "state",
            "store",
            "telemetry",
        ],
    ),
    (
        "cli",
        &["dataplane", "graph", "model", "profile", "version"],
    ),
    // The command line laid over the host's file.
    (
        "host",
        &[
            "cli",
            "dataplane",
            "error",
            "model",
            "profile",
            "store",
            "trust",
        ],
    ),
    // The composition roots.
    (
        "cmd",
        &[
            "autotune",
            "capture",
            "cli",
            "dataplane",
            "engine",
            "error",
            "exempt",
            "graph",
            "host",
            "metrics",
            "model",
            "page",
            "profile",
            "record",
            "report",
            "rights",
            "runtime",
            "seams",
            "state",
            "store",
            "telemetry",
            "top",
            "trust",
        ],
    ),
    // Tests of several modules together.
    ("scenarios", &["engine", "model", "profile", "telemetry"]),
    ("lib", &["cmd"]),
    ("main", &[]),
];

const PURE: &[&str] = &[
    "model",
    "telemetry",
    "engine",
    "autotune",
    "exempt",
    "graph",
];

/// What the pure half never names.
const WORLD: &[&str] = &[
    "std::fs",
    "std::io",
    "std::net::Tcp",
    "std::net::Udp",
    "std::thread",
    "std::env",
    "std::process",
    "SystemTime",
    "Instant",
    "libbpf",
    "nix::",
    "libc::",
    "log::",
];

/// `src/engine/ladder.rs` belongs to `engine`, `src/error.rs` to `error`.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix(source()).unwrap();
    let first = inside.components().next().unwrap().as_os_str();
    first.to_string_lossy().trim_end_matches(".rs").to_owned()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file: without comments and without its tests, which may use what they like.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let production = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = production.lines();
    lines
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The modules named by `crate::x` or inside `crate::{x, y}`.
fn used(code: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
        text[..end.unwrap_or(text.len())].to_owned()
    };
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => drop(found.insert(word(rest))),
            Some(list) => {
                let list = list.split("};").next().unwrap_or_default();
                let mut depth = 0;
                for part in list.split_inclusive([',', '{', '}']) {
                    if depth == 0 {
                        found.insert(word(part.trim()));
                    }
                    depth += part.matches('{').count();
                    depth = depth.saturating_sub(part.matches('}').count());
                }
            }
        }
    }
    found.remove("");
    found
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let mut paths = Vec::new();
    files(&source(), &mut paths);
    let there: BTreeSet<String> = paths.iter().map(|path| module(path)).collect();
    let listed: BTreeSet<String> = MAY_USE.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(there, listed, "modules of src/ and the list above differ");
    let mut wrong = Vec::new();
    for path in paths.iter().filter(|path| !is_test(path)) {
        let name = module(path);
        let (_, allowed) = MAY_USE.iter().find(|(known, _)| *known == name).unwrap();
        for other in used(&code(path))
            .iter()
            .filter(|other| there.contains(*other))
        {
            if *other != name && !allowed.contains(&other.as_str()) {
                wrong.push(format!("{}: {name} may not use {other}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_pure_half_names_nothing_of_the_world() {
    let mut paths = Vec::new();
    files(&source(), &mut paths);
    let mut wrong = Vec::new();
    let pure = |path: &&PathBuf| PURE.contains(&module(path).as_str()) && !is_test(path);
    let chosen: Vec<&PathBuf> = paths.iter().filter(pure).collect();
    assert!(chosen.len() > PURE.len());
    for path in chosen {
        let code = code(path);
        for name in WORLD.iter().filter(|name| code.contains(**name)) {
            wrong.push(format!("{}: names {name}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn is_test(path: &Path) -> bool {
    let parts: Vec<_> = path
        .components()
        .map(|part| part.as_os_str().to_owned())
        .collect();
    parts
        .iter()
        .any(|part| part == "tests" || part == "tests.rs")
}

#[test]
fn the_reader_of_uses_sees_lists_and_nesting() {
    let code = "use crate::model::{Stage, Ktime};\nuse crate::{engine::{A, B}, error};\nlet x = crate::seams::Order;";
    let all: Vec<String> = used(code).into_iter().collect();
    assert_eq!(all, ["engine", "error", "model", "seams"]);
}
