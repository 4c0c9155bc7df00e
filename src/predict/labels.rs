//! Names of classes, from whatever people keep them in: text, JSON, CSV, and the metadata of checkpoints.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::PredictError;

/// No list of class names is this long; a checkpoint chosen by mistake is.
const MAX_FILE_BYTES: u64 = 16_000_000;

/// Keys under which checkpoints and `config.json` files keep names by class, best known first.
const KEYS: [&str; 9] = [
    "labels",
    "label_names",
    "class_names",
    "classes",
    "idx_to_class",
    "id2label",
    "class_to_idx",
    "label2id",
    "categories",
];

/// Reads a file of class names: JSON when it looks like it, CSV by its extension, else one name per line.
pub fn read(path: &Path) -> Result<Vec<String>, PredictError> {
    let text = read_text(path)?;
    let wrong = |reason: &str| PredictError::LabelsFormat { path: path.to_owned(), reason: reason.to_owned() };
    let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    let names = if text.trim_start().starts_with(['[', '{']) {
        let value = serde_json::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
        from_json(&value).ok_or_else(|| wrong("it is neither a list of names nor a map between names and numbers"))?
    } else if is_csv {
        from_csv(&text).ok_or_else(|| wrong("it has neither one column of names nor columns of numbers and names"))?
    } else {
        from_lines(&text)
    };
    if names.is_empty() {
        return Err(wrong("it holds no names"));
    }
    match names.iter().position(String::is_empty) {
        Some(index) => Err(wrong(&format!("the name of class {index} is empty"))),
        None => Ok(names),
    }
}

fn read_text(path: &Path) -> Result<String, PredictError> {
    let failed = |source| PredictError::LabelsRead { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)).map_err(failed)?;
    let text = String::from_utf8(bytes).ok().filter(|text| text.len() as u64 <= MAX_FILE_BYTES);
    let text = text.ok_or_else(|| PredictError::LabelsFormat {
        path: path.to_owned(),
        reason: "it is not a text file of class names in UTF-8".to_owned(),
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// One name per line; empty lines at the end do not count.
fn from_lines(text: &str) -> Vec<String> {
    text.trim_end().lines().map(|line| line.trim().to_owned()).collect()
}

/// One column of names, or a column of class numbers (from 0) beside one of names, with or without a heading.
fn from_csv(text: &str) -> Option<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).trim(csv::Trim::All).from_reader(text.as_bytes());
    let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().ok()?;
    if rows.iter().all(|row| row.len() == 1) {
        return Some(rows.iter().map(|row| row[0].to_owned()).collect());
    }
    let numbered = |rows: &[csv::StringRecord], number: usize, name: usize| {
        by_number(rows.iter().map(|row| Some((row.get(number)?.parse().ok()?, row.get(name)?.to_owned()))))
    };
    let without_heading = rows.get(1..)?;
    [rows.as_slice(), without_heading]
        .into_iter()
        .find_map(|rows| numbered(rows, 0, 1).or_else(|| numbered(rows, 1, 0)))
}

/// The first names found under a key that is used for them.
pub fn find<'a>(get: impl Fn(&str) -> Option<&'a Value>) -> Option<(&'static str, Vec<String>)> {
    KEYS.iter().find_map(|key| Some((*key, from_metadata(get(key)?)?)))
}

/// Metadata of `.safetensors` and `.gguf` files is text: lists are JSON inside it.
fn from_metadata(value: &Value) -> Option<Vec<String>> {
    let names = match value {
        Value::String(text) => from_json(&serde_json::from_str(text).ok()?),
        value => from_json(value),
    };
    names.filter(|names| !names.is_empty() && !names.iter().any(String::is_empty))
}

/// `["name", …]`, `{"0": "name", …}` or `{"name": 0, …}`; a name may be a list whose last text it is (`["n01440764", "tench"]`).
fn from_json(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(names) => names.iter().map(name).collect(),
        Value::Object(map) => by_number(map.iter().map(|(key, value)| Some((key.parse().ok()?, name(value)?))))
            .or_else(|| by_number(map.iter().map(|(key, value)| Some((value_number(value)?, key.clone()))))),
        _ => None,
    }
}

fn name(value: &Value) -> Option<String> {
    match value {
        Value::String(name) => Some(name.trim().to_owned()),
        Value::Array(parts) => parts.last().filter(|last| last.is_string()).and_then(name),
        _ => None,
    }
}

fn value_number(value: &Value) -> Option<usize> {
    value.as_u64()?.try_into().ok()
}

/// Names in the order of their numbers, which must be 0, 1, 2, … each once.
fn by_number(pairs: impl Iterator<Item = Option<(usize, String)>>) -> Option<Vec<String>> {
    let mut pairs = pairs.collect::<Option<Vec<_>>>()?;
    pairs.sort_by_key(|(number, _)| *number);
    let complete = pairs.iter().enumerate().all(|(index, (number, _))| index == *number);
    complete.then(|| pairs.into_iter().map(|(_, name)| name).collect())
}

/// The files beside a checkpoint that may name its classes, most specific first. The starter model has no file, hence
/// nothing beside it.
pub fn beside(checkpoint: &Path) -> Vec<PathBuf> {
    if !checkpoint.is_file() {
        return Vec::new();
    }
    let mut names = Vec::new();
    if let Some(stem) = checkpoint.file_stem() {
        for ending in [".labels.txt", ".labels.json"] {
            let mut name = stem.to_owned();
            name.push(ending);
            names.push(name);
        }
    }
    names.extend(["labels.txt", "labels.json", "classes.txt", "classes.json"].map(Into::into));
    names.into_iter().map(|name| checkpoint.with_file_name(name)).filter(|path| path.is_file()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(file: &str, bytes: &[u8]) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        std::fs::write(&path, bytes).unwrap();
        read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn every_common_form_gives_the_same_names() {
        let expected: Vec<String> = ["apple pie", "soup, cold", "taco"].map(str::to_owned).into();
        for (file, text) in [
            ("labels.txt", "apple pie\nsoup, cold\ntaco"),
            ("labels.txt", "apple pie\nsoup, cold\ntaco\n"),
            ("labels.txt", "\u{feff}apple pie\r\nsoup, cold\r\ntaco\r\n\r\n"),
            ("labels.json", r#"["apple pie", "soup, cold", "taco"]"#),
            ("labels.json", r#"{"2": "taco", "0": "apple pie", "1": "soup, cold"}"#),
            ("labels.json", r#"{"taco": 2, "apple pie": 0, "soup, cold": 1}"#),
            ("index.json", r#"{"0": ["n1", "apple pie"], "1": ["n2", "soup, cold"], "2": ["n3", "taco"]}"#),
            ("labels.csv", "apple pie\n\"soup, cold\"\ntaco\n"),
            ("labels.csv", "id,name\n0,apple pie\n1,\"soup, cold\"\n2,taco\n"),
            ("labels.csv", "apple pie,0\n\"soup, cold\",1\ntaco,2\n"),
        ] {
            assert_eq!(names(file, text.as_bytes()).as_ref(), Ok(&expected), "{file}: {text}");
        }
    }

    #[test]
    fn files_that_do_not_name_classes_are_refused() {
        for (file, bytes, reason) in [
            ("empty.txt", &b"\n\n"[..], "holds no names"),
            ("gap.txt", b"a\n\nc\n", "class 1 is empty"),
            ("model.pth", b"PK\x03\x04\xff\xfe", "not a text file"),
            ("gap.json", br#"{"0": "a", "2": "c"}"#, "neither"),
            ("twice.json", br#"{"a": 0, "b": 0}"#, "neither"),
            ("broken.json", b"[\"a\",", "EOF"),
        ] {
            let error = names(file, bytes).expect_err(file);
            assert!(error.contains(reason) && error.contains(file), "{file}: {error}");
        }
    }

    #[test]
    fn a_count_of_classes_is_not_taken_for_names() {
        let metadata = serde_json::json!({ "classes": 10, "class_to_idx": "{\"b\": 1, \"a\": 0}" });
        assert_eq!(find(|key| metadata.get(key)), Some(("class_to_idx", vec!["a".to_owned(), "b".to_owned()])));
    }
}
