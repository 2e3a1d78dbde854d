//! The house: imports point down, parts are strangers, doors only re-export, files stay short, floor 1 has no unsafe code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules of `crates/proto`, lowest first: each may use those before it.
const NOUNS_AND_TOOLS: [&str; 17] = [
    "time", "rng", "table", "phi", "merkle", "ring", "member", "entry", "record", "metrics", "wire",
    "config", "image", "output", "budget", "replica", "roster",
];
/// Strangers to each other.
const PARTS: [&str; 10] =
    ["absence", "detector", "rumors", "store", "sync", "join", "transfer", "talk", "confirm", "persist"];
const HALL: &str = "gossip";
/// Lines of code in one file, tests, comments and blank lines apart.
const LINES_MAX: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(Path::parent).unwrap().to_path_buf()
}

fn sources(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if !["target", "node_modules", "dist", "npm"].iter().any(|skip| name == *skip) {
                sources(&path, extension, found);
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn is_test(path: &Path) -> bool {
    path.components().any(|c| {
        let c = c.as_os_str().to_string_lossy();
        c.starts_with("tests") || c == "__test__" || c.ends_with("_tests.rs") || c == "benches"
    })
}

/// The code of a Rust file: without comments, blank lines and what follows `#[cfg(test)]`.
fn code(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with("#[cfg(test)]") {
            break;
        }
        let line = line.trim();
        let comment = ["//", "/*", "* ", "*/"].iter().any(|c| line.starts_with(c)) || line == "*";
        if !line.is_empty() && !comment {
            lines.push(line);
        }
    }
    lines
}

/// Modules of this crate that a piece of code names as `crate::x`.
fn uses(code: &[&str]) -> BTreeSet<String> {
    let text = code.join("\n");
    text.match_indices("crate::")
        .flat_map(|(at, _)| {
            let rest = &text[at + "crate::".len()..];
            let word =
                |s: &str| -> String { s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
            match rest.strip_prefix('{') {
                Some(list) => {
                    list[..list.find('}').unwrap_or(0)].split(',').map(|s| word(s.trim())).collect()
                }
                None => vec![word(rest)],
            }
        })
        .filter(|w| !w.is_empty())
        .collect()
}

fn module_of(src: &Path, file: &Path) -> String {
    let first = file.strip_prefix(src).unwrap().components().next().unwrap();
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_string()
}

#[test]
fn imports_of_proto_point_down_and_parts_are_strangers() {
    let src = root().join("crates/proto/src");
    let mut files = Vec::new();
    sources(&src, "rs", &mut files);
    assert!(files.len() > 20);
    // Names re-exported by the door: only outsiders may use them.
    let mut faults = Vec::new();
    for file in files.iter().filter(|f| !is_test(f)) {
        let module = module_of(&src, file);
        if module == "lib" {
            continue;
        }
        let text = fs::read_to_string(file).unwrap();
        for used in uses(&code(&text)) {
            if used == module {
                continue;
            }
            let level = |name: &str| NOUNS_AND_TOOLS.iter().position(|m| *m == name);
            let allowed = match (level(&module), level(&used)) {
                (Some(own), Some(other)) => other < own,
                (None, Some(_)) => module == HALL || PARTS.contains(&module.as_str()),
                (None, None) => module == HALL && PARTS.contains(&used.as_str()),
                (Some(_), None) => false,
            };
            if !allowed {
                faults.push(format!("{} uses crate::{used}", file.strip_prefix(&src).unwrap().display()));
            }
        }
    }
    assert!(faults.is_empty(), "imports that point up or sideways:\n{}", faults.join("\n"));
}

#[test]
fn crates_depend_downward_only() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("proto", &[][..]),
        ("runtime", &["hearsay-proto"][..]),
        ("sim", &["hearsay-proto"][..]),
        ("addon", &["hearsay-proto", "hearsay-runtime", "hearsay-sim"][..]),
        ("fuzz", &["hearsay-proto"][..]),
    ]);
    for entry in fs::read_dir(root().join("crates")).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().to_string();
        let manifest = fs::read_to_string(entry.path().join("Cargo.toml")).unwrap();
        let known = allowed.get(name.as_str()).unwrap_or_else(|| panic!("crate {name} has no floor"));
        for line in manifest.lines().filter(|l| l.starts_with("hearsay-")) {
            let dependency = line.split(['.', ' ', '=']).next().unwrap();
            assert!(known.contains(&dependency), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn no_source_file_is_over_the_limit() {
    let mut files = Vec::new();
    for dir in ["crates", "ts", "scripts"] {
        for extension in ["rs", "ts", "mjs"] {
            sources(&root().join(dir), extension, &mut files);
        }
    }
    let long: Vec<String> = files
        .iter()
        .filter(|f| !is_test(f))
        .filter_map(|f| {
            let lines = code(&fs::read_to_string(f).ok()?).len();
            (lines > LINES_MAX).then(|| format!("{} has {lines} lines of code", f.display()))
        })
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn floor_one_forbids_unsafe_code_and_its_door_only_re_exports() {
    let door = fs::read_to_string(root().join("crates/proto/src/lib.rs")).unwrap();
    assert!(door.contains("#![forbid(unsafe_code)]"));
    for line in code(&door) {
        let ok = line.starts_with("pub mod ")
            || line.starts_with("pub use ")
            || line.starts_with("mod ")
            || line.starts_with("#!");
        assert!(ok, "the door does more than re-export: {line}");
    }
}

#[test]
fn only_ts_native_knows_the_binding() {
    let mut files = Vec::new();
    sources(&root().join("ts"), "ts", &mut files);
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let knows = text.lines().any(|l| {
            (l.contains("from '") || l.contains("require(") || l.contains("import("))
                && l.contains("/native/")
        });
        if knows {
            assert_eq!(file.file_name().unwrap(), "native.ts", "{} imports the binding", file.display());
        }
    }
}

/// TypeScript modules, lowest first.
const TS_LEVELS: [&[&str]; 7] = [
    &["types", "errors", "platform"],
    &["native", "packed"],
    &["options", "events", "blocked"],
    &["codec", "flush", "ringtable"],
    &["phi", "merkle", "ring", "state", "talk", "announcer", "joining", "simulate"],
    &["cluster"],
    &["testing", "index"],
];

#[test]
fn imports_of_ts_point_down() {
    let level = |name: &str| TS_LEVELS.iter().position(|names| names.contains(&name));
    let mut files = Vec::new();
    sources(&root().join("ts"), "ts", &mut files);
    let mut faults = Vec::new();
    for file in &files {
        let name = file.file_stem().unwrap().to_string_lossy().to_string();
        let Some(own) = level(&name) else {
            faults.push(format!("ts/{name}.ts has no floor"));
            continue;
        };
        let text = fs::read_to_string(file).unwrap();
        for line in text.lines() {
            let Some(at) = line.find("from './") else { continue };
            let used: String =
                line[at + 8..].chars().take_while(|c| c.is_alphanumeric() || *c == '-').collect();
            let type_only =
                line.trim_start().starts_with("import type") || line.trim_start().starts_with("export type");
            let down = level(&used).is_some_and(|l| l < own || (l == own && type_only) || name == "index");
            if !down {
                faults.push(format!("ts/{name}.ts imports {used}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
