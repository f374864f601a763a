//! Rules of the source that no compiler checks.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The parts of a line that are code.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// What only the door may name.
const BEHIND_THE_DOOR: [&str; 6] = [
    "std::sync",
    "core::sync",
    "arc_swap",
    "crossbeam::queue",
    "moka::sync",
    "loom::",
];

fn named(text: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = code(line);
        let named = BEHIND_THE_DOOR.iter().filter(|name| line.contains(**name));
        found.extend(named.map(|name| (number + 1, *name)));
        // `use std::{sync::..., ...}` on one line or several.
        let nested = line.trim_start();
        if nested.starts_with("sync::") || line.contains("{sync::") || line.contains(", sync::") {
            found.push((number + 1, "sync::"));
        }
    }
    found
}

#[test]
fn only_the_door_names_atomics() {
    let door = src().join("sync");
    let mut behind = 0;
    for path in sources(&src()) {
        let named = named(&fs::read_to_string(&path).unwrap());
        if path.starts_with(&door) || path == door.with_extension("rs") {
            behind += named.len();
        } else {
            assert!(named.is_empty(), "{}: {named:?}", path.display());
        }
    }
    assert!(
        behind > 3,
        "the door itself names them, or this test looks at nothing"
    );
}

#[test]
fn the_search_finds_what_it_is_for() {
    assert_eq!(named("use std::sync::Arc;"), [(1, "std::sync")]);
    assert_eq!(
        named("\nlet x = arc_swap::Guard::new();"),
        [(2, "arc_swap")]
    );
    assert_eq!(named("use std::{fmt, sync::Arc};"), [(1, "sync::")]);
    assert!(named("//! `std::sync` is behind the door").is_empty());
    assert!(named("use crate::sync::Arc;").is_empty());
}

#[test]
fn no_file_is_long() {
    let folders = ["src", "tests", "examples", "benches", "loom-tests"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files: Vec<PathBuf> = folders
        .iter()
        .map(|folder| root.join(folder))
        .filter(|folder| folder.is_dir())
        .flat_map(|folder| sources(&folder))
        .collect();
    assert!(files.len() > 30, "{} files", files.len());
    for path in files {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines < 500, "{} has {lines} lines", path.display());
    }
}

#[test]
fn unsafe_code_is_forbidden() {
    let lib = fs::read_to_string(src().join("lib.rs")).unwrap();
    assert!(
        lib.lines()
            .any(|line| line.trim() == "#![forbid(unsafe_code)]")
    );
}
