//! Dependencies point one way, and `context` stays free of the runtime: this reads the sources and says where not.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::sources::{root, rust_files};

/// Modules from top to bottom. A module may use those of lower ranks, and itself.
const RANKS: &[&[&str]] = &[
    &["python"],
    &["engine", "check"],
    &["moby", "sandbox"],
    &["buildkit", "fetch", "image", "layer"],
    &["context", "daemon", "dockerfile", "registry", "rootfs", "store"],
    &["net", "oci", "pack"],
    &["options"],
    &["request", "outcome"],
    &["reference", "platform"],
    &["digest", "secret", "cancel", "event"],
    &["error", "environment", "folders", "mtime", "paths", "scoped", "spelling"],
];

/// Words that may not stand in the sources of a module.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("context", &["tokio", "bollard", "pyo3", "hyper"]),
    ("dockerfile", &["tokio", "std::fs", "std::io", "bollard", "pyo3", "hyper"]),
    ("image", &["tokio", "bollard", "pyo3", "hyper"]),
    ("layer", &["tokio", "bollard", "pyo3", "hyper"]),
    ("rootfs", &["tokio", "bollard", "pyo3", "hyper"]),
    ("store", &["tokio", "bollard", "pyo3", "hyper"]),
    ("pack", &["tokio", "std::fs", "bollard", "pyo3", "hyper"]),
    ("oci", &["tokio", "std::fs", "bollard", "pyo3", "hyper"]),
    ("buildkit", &["bollard::", "pyo3"]),
    ("fetch", &["bollard", "pyo3"]),
    ("daemon", &["pyo3"]),
    ("engine", &["pyo3"]),
    ("registry", &["bollard::", "pyo3"]),
    ("check", &["tokio", "bollard", "pyo3"]),
    ("options", &["tokio", "std::fs", "pyo3"]),
];

fn rank(module: &str) -> Option<usize> {
    RANKS.iter().position(|modules| modules.contains(&module))
}

/// Module name -> (file, code without comments).
fn sources() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let root = root();
    let mut modules: BTreeMap<String, Vec<(PathBuf, String)>> = BTreeMap::new();
    for file in rust_files(&root) {
        let inner = file.strip_prefix(&root).unwrap();
        let module =
            inner.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        modules.entry(module).or_default().push((file, code.join("\n")));
    }
    modules.remove("lib");
    modules
}

/// The first part of every path behind `crate::` or `cooper::`.
fn used(code: &str) -> Vec<String> {
    let pattern = regex::Regex::new(r"\bcrate::(\{[^}]*\}|\w+)").unwrap();
    let word = regex::Regex::new(r"\b([a-z_]+)\b").unwrap();
    pattern
        .captures_iter(code)
        .flat_map(|found| word.find_iter(&found[1]).map(|m| m.as_str().to_owned()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn every_module_has_a_rank() {
    let unknown: Vec<String> = sources().into_keys().filter(|module| rank(module).is_none()).collect();
    assert!(unknown.is_empty(), "give these a place in RANKS: {unknown:?}");
}

#[test]
fn dependencies_point_down() {
    let modules = sources();
    let mut seen = 0;
    for (module, files) in &modules {
        for (file, code) in files {
            for target in used(code).iter().filter(|target| modules.contains_key(*target)) {
                seen += 1;
                let upward = rank(target) < rank(module) || (rank(target) == rank(module) && target != module);
                assert!(!upward, "{}: `{module}` may not use `{target}`", file.display());
            }
        }
    }
    assert!(seen > 100, "only {seen} uses were found: does this test still look at the sources?");
}

#[test]
fn engines_do_not_know_each_other() {
    let engines = root().join("engine");
    let names: Vec<String> = fs::read_dir(&engines)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert!(!names.is_empty());
    for name in &names {
        for file in rust_files(&engines.join(name)) {
            let code = fs::read_to_string(&file).unwrap();
            for other in names.iter().filter(|other| *other != name) {
                assert!(!code.contains(&format!("engine::{other}")), "{} uses the engine `{other}`", file.display());
            }
        }
    }
}

#[test]
fn modules_stay_free_of_what_they_must_not_know() {
    let modules = sources();
    for (module, words) in FORBIDDEN {
        for (file, code) in modules.get(*module).into_iter().flatten() {
            for word in *words {
                assert!(!code.contains(word), "{}: `{module}` may not use `{word}`", file.display());
            }
        }
    }
    assert!(modules.contains_key("context"));
}
