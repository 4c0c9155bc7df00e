//! Holds the layer rule of `src/lib.rs` against the code, and that every file says what it is for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// For each module, the modules it may import. One line per module, as in the architecture document.
const MAY_IMPORT: &[(&str, &str)] = &[
    ("gui", "jobs platform journal settings export compress train predict data images memory worker device format"),
    ("cli", "jobs platform journal settings export compress train predict data images memory worker device format"),
    (
        "jobs",
        "journal settings export report compress train predict data models checkpoint images ops memory worker device format",
    ),
    ("platform", ""),
    ("journal", "predict data models checkpoint images ops memory worker device format"),
    ("export", "predict data models checkpoint images ops memory worker device format"),
    ("report", "compress train predict data models checkpoint images ops memory worker device format"),
    ("settings", "train predict data models checkpoint images ops memory worker device format"),
    ("compress", "train predict data models checkpoint images ops memory worker device format"),
    ("predict", "data models checkpoint images ops memory worker device format"),
    ("train", "data models checkpoint images ops memory worker device format"),
    ("data", "images memory worker format"),
    ("models", "checkpoint images ops memory worker device format"),
    ("checkpoint", "memory worker device format"),
    ("images", "memory worker device format"),
    ("ops", "memory worker device format"),
    ("memory", "worker format"),
    ("worker", "device format"),
    ("device", "format"),
    ("format", ""),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The module a file belongs to: `src/models/detect.rs` → `models`.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(source_root()).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Every top-level module that `code` names after `crate::`, also in `use crate::{a, b::c}`.
fn imports(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            None => drop(found.insert(word(after))),
            Some(group) => found.extend(top_level_items(group).iter().map(|item| word(item.trim()))),
        }
    }
    found
}

/// The comma-separated items of a `{…}` group whose opening brace is already taken off.
fn top_level_items(group: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut depth = 0;
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => items.push(String::new()),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                items.last_mut().expect("never empty").push(c);
            }
        }
    }
    items
}

/// The code without its comments and without what follows `mod tests`: tests may look anywhere.
fn program_text(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn imports_point_down() {
    let mut broken = Vec::new();
    for file in sources(&source_root()) {
        let module = module_of(&file);
        if ["main", "lib"].contains(&module.as_str()) {
            continue;
        }
        let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == module);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{module} is not in the layer table"));
        for import in imports(&program_text(&file)) {
            let is_module = MAY_IMPORT.iter().any(|(name, _)| *name == import);
            if is_module && import != module && !allowed.split(' ').any(|name| name == import) {
                broken.push(format!("{} imports {import}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn front_ends_see_no_tensor_and_only_they_speak() {
    let mut broken = Vec::new();
    for file in sources(&source_root()) {
        let (module, text) = (module_of(&file), program_text(&file));
        let mut forbid = |what: &str, allowed_in: &[&str]| {
            if text.contains(what) && !allowed_in.contains(&module.as_str()) {
                broken.push(format!("{} contains {what}", file.display()));
            }
        };
        for words in ["egui::", "eframe::"] {
            forbid(words, &["gui"]);
        }
        // What belongs to one system alone is in one place, but for what a device of it is.
        for words in ["objc2_app_kit", "objc2_foundation", "muda::"] {
            forbid(words, &["platform"]);
        }
        for words in ["println!", "eprintln!"] {
            forbid(words, &["cli", "main"]);
        }
        forbid("thread::spawn", &[]);
        forbid("candle", &["device", "checkpoint", "ops", "models", "train", "predict", "compress", "lib"]);
        forbid("Builder::new().name(", &["worker", "jobs", "data"]);
        // Whoever waits is told of what failed, which others must learn too.
        forbid(".synchronize()", &["device"]);
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_file_says_what_it_is_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in sources(&source_root()).into_iter().chain(sources(&root.join("tests/it"))) {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//! "), "{} does not open with //!", file.display());
    }
}

#[test]
fn the_architecture_document_names_every_module() {
    let document = std::fs::read_to_string(source_root().join("lib.rs")).unwrap();
    for (module, _) in MAY_IMPORT {
        assert!(document.contains(&format!("`{module}`")), "lib.rs does not name {module}");
        assert!(document.contains(&format!("pub mod {module};")), "lib.rs does not declare {module}");
    }
}

#[test]
fn grouped_and_nested_imports_are_seen() {
    let found = imports("use crate::{ops::{a, b}, gui};\nuse crate::models::Network; fn f() { crate::jobs::x() }");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["gui", "jobs", "models", "ops"]);
}
