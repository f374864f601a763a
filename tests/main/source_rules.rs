//! Rules of the source that no compiler checks.

use std::fs;
use std::path::{Path, PathBuf};

/// The files below a folder whose names are wanted; not those of hidden folders or of `target`.
fn found(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !name.starts_with('.') && !name.starts_with("target") {
                files.extend(found(&path, wanted));
            }
        } else if wanted(name) {
            files.push(path);
        }
    }
    files
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    found(folder, &|name| name.ends_with(".rs"))
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The parts of a line that are code.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// What only the door may name.
const BEHIND_THE_DOOR: [&str; 7] = [
    "std::sync",
    "core::sync",
    "arc_swap",
    "triomphe",
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

/// Every source file of the repository.
fn repository() -> Vec<PathBuf> {
    let folders = [
        "src",
        "tests",
        "examples",
        "benches",
        "dev-support",
        "loom-tests",
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = folders.iter().map(|folder| root.join(folder));
    let files: Vec<PathBuf> = folders
        .filter(|folder| folder.is_dir())
        .flat_map(|folder| sources(&folder))
        .collect();
    assert!(files.len() > 30, "{} files", files.len());
    files
}

#[test]
fn no_file_is_long() {
    for path in repository() {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines < 500, "{} has {lines} lines", path.display());
    }
}

/// Whether a line is longer than 100 columns and could be shorter. A row of a table cannot wrap,
/// and an address cannot either.
fn is_long(line: &str) -> bool {
    let text = line.trim_start().trim_start_matches(['/', '!', ' ']);
    let cannot_wrap = text.starts_with('|') || !text.contains(' ');
    line.chars().count() > 100 && !cannot_wrap
}

/// Words that hide who acts. The subject of a sentence is a noun: the caller, a reader.
fn is_vague(line: &str) -> bool {
    // In parts, or this file would have them.
    let starts = ["who", "some", "no", "any"];
    let ends = ["ever", "body", "body", "body"];
    let line = line.to_lowercase();
    let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.any(|word| {
        let mut parts = starts.iter().zip(ends);
        parts.any(|(start, end)| word.strip_prefix(start) == Some(end))
    })
}

/// The lines of all texts of the repository for which `is_wrong` holds.
fn lines_that_are(is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let texts = [".md", ".rs", ".sh"];
    let files = found(root, &|name| texts.iter().any(|end| name.ends_with(end)));
    assert!(files.len() > 200, "{} files", files.len());
    let mut wrong = Vec::new();
    for path in files {
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            if is_wrong(line) {
                wrong.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    wrong
}

#[test]
fn lines_have_at_most_100_columns() {
    assert_eq!(lines_that_are(is_long), [""; 0]);
}

#[test]
fn sentences_say_who_acts() {
    assert_eq!(lines_that_are(is_vague), [""; 0]);
}

#[test]
fn long_and_vague_lines_are_found() {
    let words = "a word ".repeat(15);
    assert!(is_long(&words) && is_long(&format!("/// {words}")));
    assert!(!is_long(&words[..100]));
    assert!(!is_long(&format!("//! | {words} |")));
    assert!(is_vague(&["// No", "body waits."].concat()));
    assert!(!is_vague("// The body of a loop that ever runs."));
}

/// Shared code is a crate, `dev-support`, so no file names another one by its path.
#[test]
fn modules_lie_where_their_names_say() {
    // In two parts, or this file would have it.
    let attribute = ["#[", "path"].concat();
    for path in repository() {
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&attribute), "{}", path.display());
    }
}

#[test]
fn unsafe_code_is_in_one_file() {
    let lib = fs::read_to_string(src().join("lib.rs")).unwrap();
    assert!(
        lib.lines()
            .any(|line| line.starts_with("#![deny(unsafe_code)]"))
    );
    // In two parts, or this file would have them.
    let [allowed, keyword] =
        [["allow(unsafe", "_code)"], ["uns", "afe "]].map(|part| part.concat());
    for path in sources(&src()) {
        let text = fs::read_to_string(&path).unwrap();
        let code = || {
            text.lines()
                .filter(|line| !line.trim_start().starts_with("//"))
        };
        let is = |end: &str| path.ends_with(end);
        if !is("sync/mod.rs") {
            assert!(
                !code().any(|line| line.contains(&allowed)),
                "{}",
                path.display()
            );
        }
        if !is("sync/slot.rs") {
            assert!(
                !code().any(|line| line.contains(&keyword)),
                "{}",
                path.display()
            );
        }
    }
}

/// The folders of `src`, from the top: each may import those below it, and no other.
///
/// Files that lie beside `lib.rs` are leaves: they may import `sync`, and each other.
const LAYERS: [&str; 8] = [
    "testing", "cache", "fleet", "load", "store", "observe", "protocol", "time",
];
const LEAVES: [&str; 4] = ["error", "panics", "rng", "sync"];

/// Imports that the order of the layers does not allow, each with its reason.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

/// What a file imports from the crate: the first name after `crate::`.
fn imported(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines().map(code) {
        for (at, _) in line.match_indices("crate::") {
            // `$crate` is a name for the users of a macro.
            let other = |before: char| before.is_alphanumeric() || before == '_' || before == '$';
            if line[..at].ends_with(other) {
                continue;
            }
            let rest = &line[at + "crate::".len()..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            found.push(rest[..end.unwrap_or(rest.len())].to_owned());
        }
    }
    found
}

/// Whether a file of `folder` may import `name`: a folder, a leaf, or an export of `lib.rs`.
fn may_import(folder: &str, name: &str) -> bool {
    let height = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let excepted = |exception: &(&str, &str, &str)| (exception.0, exception.1) == (folder, name);
    if EXCEPTIONS.iter().any(excepted) || folder == name {
        return true;
    }
    match (height(folder), height(name)) {
        (Some(upper), Some(lower)) => upper < lower,
        (Some(_), None) => LEAVES.contains(&name),
        (None, _) => LEAVES.contains(&name),
    }
}

#[test]
fn imports_run_down_the_layers_only() {
    let root = src();
    let mut arrows = 0;
    for path in sources(&root) {
        let relative = path.strip_prefix(&root).unwrap();
        let folder = match relative.components().count() {
            1 => relative.file_stem().unwrap().to_str().unwrap(),
            _ => relative.iter().next().unwrap().to_str().unwrap(),
        };
        if folder == "lib" {
            continue;
        }
        assert!(
            LAYERS.contains(&folder) || LEAVES.contains(&folder),
            "{folder} has no place among the layers"
        );
        for name in imported(&fs::read_to_string(&path).unwrap()) {
            let allowed = may_import(folder, &name);
            assert!(allowed, "{} imports crate::{name}", path.display());
            arrows += usize::from(name != folder);
        }
    }
    assert!(arrows > 100, "{arrows} imports: this test looks at nothing");
}

#[test]
fn an_import_that_runs_up_is_found() {
    assert_eq!(imported("use crate::cache::Cache;"), ["cache"]);
    assert_eq!(
        imported("let x = crate::rng::with_rng(crate::time::now);"),
        ["rng", "time"]
    );
    assert!(imported("// crate::cache is above").is_empty());
    assert!(imported("$crate::testing::check(x)").is_empty());
    assert!(may_import("cache", "load") && may_import("protocol", "sync"));
    assert!(!may_import("load", "cache") && !may_import("sync", "time"));
    assert!(!may_import("protocol", "observe") && !may_import("error", "protocol"));
}

#[test]
fn folders_have_one_module_style() {
    for path in sources(&src()) {
        let folder = path.with_extension("");
        assert!(
            !folder.is_dir(),
            "{} and a folder of that name: make it {}/mod.rs",
            path.display(),
            folder.display()
        );
    }
}
