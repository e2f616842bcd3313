//! The map of the house, held against the code: who may name whom, and what every file begins with.
#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use toml::Table;

/// Each package, where it lies, and which of ours it may name. Arrows point down only; tiers never name one another.
const MAP: [(&str, &str, &[&str]); 13] = [
    ("model", "infra/model", &[]),
    ("engine", "infra/engine", &[]),
    ("mqtt", "access-point/mqtt", &["model"]),
    ("audience", "filter/audience", &["model"]),
    ("broker", "infra/broker", &["engine", "model"]),
    ("store", "infra/store", &["engine", "model"]),
    ("ingest", "ingest", &["audience", "broker", "model", "store"]),
    ("dispatcher", "dispatcher", &["audience", "broker", "model", "store"]),
    ("access-point", "access-point", &["broker", "model", "mqtt", "store"]),
    ("filter", "filter", &["audience", "broker", "model", "store"]),
    ("stats", "stats", &["broker", "model", "store"]),
    ("lab", "infra/lab", &["model", "mqtt"]),
    (
        "node",
        "infra/node",
        &[
            "access-point",
            "broker",
            "dispatcher",
            "engine",
            "filter",
            "ingest",
            "lab",
            "model",
            "mqtt",
            "stats",
            "store",
        ],
    ),
];

/// Libraries that only these packages may name.
const RESERVED: [(&str, &[&str]); 8] = [
    ("fjall", &["engine"]),
    ("flowsdk", &["mqtt"]),
    ("flate2", &["mqtt"]),
    ("zstd", &["mqtt"]),
    ("lapin", &["broker"]),
    ("deadpool-redis", &["store"]),
    ("axum", &["ingest", "stats", "node"]),
    ("clap", &["node"]),
];

/// Packages that know neither the runtime nor the network: time and bytes come in as arguments.
const PURE: [&str; 3] = ["model", "mqtt", "audience"];

/// What lies at the top: tiers in the order of the pipeline, what they stand on, and texts.
const TOP: [&str; 12] = [
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "access-point",
    "dispatcher",
    "filter",
    "infra",
    "ingest",
    "stats",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn manifest(folder: &str) -> Table {
    fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap().parse().unwrap()
}

fn dependencies(folder: &str) -> Vec<String> {
    let table = manifest(folder);
    table.get("dependencies").and_then(|value| value.as_table()).into_iter().flat_map(|t| t.keys().cloned()).collect()
}

#[test]
fn arrows_point_down_only() {
    let known: BTreeMap<&str, &[&str]> = MAP.iter().map(|(name, _, may)| (*name, *may)).collect();
    for (name, folder, may) in MAP {
        assert_eq!(manifest(folder)["package"]["name"].as_str(), Some(name), "{folder}");
        for dependency in dependencies(folder) {
            let ours = known.contains_key(dependency.as_str());
            assert!(!ours || may.contains(&dependency.as_str()), "{name} -> {dependency} is not on the map");
        }
    }
    let members = manifest(".")["workspace"]["members"].as_array().unwrap().len();
    assert_eq!(members, MAP.len(), "a package is missing on the map");
}

#[test]
fn some_libraries_have_one_home() {
    for (name, folder, _) in MAP {
        for dependency in dependencies(folder) {
            if let Some((_, homes)) = RESERVED.iter().find(|(library, _)| *library == dependency) {
                assert!(homes.contains(&name), "{name} must not name {dependency}");
            }
            let impure = ["tokio", "tokio-util", "hyper", "axum", "socket2"].contains(&dependency.as_str());
            assert!(!(impure && PURE.contains(&name)), "{name} is pure and must not name {dependency}");
        }
    }
}

#[test]
fn the_top_shows_the_tiers() {
    let shown = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let hidden = ["target", "data"];
    let mut shown: Vec<String> = shown.filter(|n| !n.starts_with('.') && !hidden.contains(&n.as_str())).collect();
    shown.sort();
    assert_eq!(shown, TOP);
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut lengths = Vec::new();
    for (_, folder, _) in MAP {
        for part in ["src", "tests", "benches"] {
            visit(&root().join(folder).join(part), &mut lengths);
        }
    }
    lengths.sort();
    println!("longest files:");
    for (lines, file) in lengths.iter().rev().take(10) {
        println!("{lines:6} {}", file.display());
    }
}

fn visit(folder: &Path, lengths: &mut Vec<(usize, PathBuf)>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, lengths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("//!"), "{} does not begin by saying what it is for", path.display());
            assert!(path.file_name().unwrap() != "mod.rs", "{}: foo.rs beside foo/, not mod.rs", path.display());
            lengths.push((text.lines().count(), path));
        }
    }
}
