//! A table of photos: CSV with a heading, or a JSON object per line. Columns `path` and `label`, perhaps `split`, and
//! further columns of numbers, which are kept by name. Relative paths count from the manifest's folder.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{DataError, Entry, Listing, Skipped, Split};
use crate::format;

/// Other names people give the columns, after the one that messages use.
const PATH: [&str; 7] = ["path", "file", "filename", "file_name", "image", "image_path", "filepath"];
const LABEL: [&str; 4] = ["label", "class", "class_name", "category"];
const SPLIT: [&str; 4] = ["split", "set", "subset", "part"];

/// The manifest as text: each row with its line, one cell per column (empty where there is none).
struct Table<'a> {
    path: &'a Path,
    columns: Vec<String>,
    rows: Vec<(u64, Vec<String>)>,
}

/// The photos that a manifest names.
pub(super) fn list(path: &Path) -> Result<Listing, DataError> {
    let bytes = fs::read(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    let text = String::from_utf8(bytes).map_err(|_| DataError::NotText(path.to_owned()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let table = if text.trim_start().starts_with('{') { json_lines(path, text)? } else { csv(path, text)? };
    table.listing()
}

fn csv<'a>(path: &'a Path, text: &str) -> Result<Table<'a>, DataError> {
    let heading = text.lines().next().unwrap_or_default();
    let delimiter = [b',', b';', b'\t'].into_iter().rev().max_by_key(|delimiter| count(heading, *delimiter));
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter.unwrap_or(b','))
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let wrong = |error: csv::Error| {
        let line = error.position().map_or(1, |position| line_at(text, position));
        let reason = match error.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("has {}, the heading {expected_len}", format::counted(*len, "cell"))
            }
            _ => format!("cannot be read ({error})"),
        };
        DataError::Line { path: path.to_owned(), line, reason }
    };
    let columns = reader.headers().map_err(wrong)?.iter().map(str::to_owned).collect();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(wrong)?;
        rows.push((
            record.position().map_or(0, |position| line_at(text, position)),
            record.iter().map(str::to_owned).collect(),
        ));
    }
    Ok(Table { path, columns, rows })
}

/// The line a record stands on: its position is that of the empty lines before it.
fn line_at(text: &str, position: &csv::Position) -> u64 {
    let rest = text.as_bytes().get(position.byte() as usize..).unwrap_or_default();
    let empty = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).filter(|byte| **byte == b'\n');
    position.line() + empty.count() as u64
}

fn count(text: &str, delimiter: u8) -> usize {
    text.bytes().filter(|byte| *byte == delimiter).count()
}

fn json_lines<'a>(path: &'a Path, text: &str) -> Result<Table<'a>, DataError> {
    let mut table = Table { path, columns: Vec::new(), rows: Vec::new() };
    for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
        let object: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| table.wrong(line, format!("is no JSON object (column {}: {error})", error.column())))?;
        let mut cells = vec![String::new(); table.columns.len()];
        for (name, value) in object {
            let cell = match value {
                Value::String(text) => text,
                Value::Null => String::new(),
                other => other.to_string(),
            };
            match table.columns.iter().position(|column| *column == name) {
                Some(column) => cells[column] = cell,
                None => {
                    table.columns.push(name);
                    cells.push(cell);
                }
            }
        }
        table.rows.push((line, cells));
    }
    Ok(table)
}

impl Table<'_> {
    fn listing(self) -> Result<Listing, DataError> {
        let (path, label) = (self.required(&PATH)?, self.required(&LABEL)?);
        let split = self.column(&SPLIT);
        let numeric: Vec<usize> = (0..self.columns.len())
            .filter(|column| ![Some(path), Some(label), split].contains(&Some(*column)) && self.is_numeric(*column))
            .collect();
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let mut listing = Listing {
            columns: numeric.iter().map(|column| self.columns[*column].clone()).collect(),
            ..Listing::default()
        };
        let mut named: HashMap<PathBuf, u64> = HashMap::new();
        for (line, cells) in &self.rows {
            let cell = |column: usize| cells.get(column).map_or("", |cell| cell.trim());
            let mut entry = Entry::new(folder.join(self.filled(*line, "path", cell(path))?));
            self.filled(*line, "label", cell(label))?.clone_into(&mut entry.label);
            let part = split.map(cell).filter(|name| !name.is_empty());
            entry.split = part.map(|name| self.split(*line, name)).transpose()?;
            entry.values = numeric.iter().map(|column| cell(*column).parse().ok()).collect();
            let reason = match named.entry(entry.path.clone()) {
                Slot::Occupied(first) => Some(format!("named again on line {line}, after line {}", first.get())),
                Slot::Vacant(slot) => {
                    slot.insert(*line);
                    (!entry.path.is_file()).then(|| format!("line {line} names it, and it is not there"))
                }
            };
            match reason {
                Some(reason) => listing.skipped.push(Skipped { path: entry.path, reason }),
                None => listing.entries.push(entry),
            }
        }
        if listing.entries.is_empty() {
            return Err(DataError::AllMissing { path: self.path.to_owned(), photos: self.rows.len() as u64 });
        }
        Ok(listing)
    }

    fn column(&self, names: &[&str]) -> Option<usize> {
        names.iter().find_map(|name| self.columns.iter().position(|column| column.eq_ignore_ascii_case(name)))
    }

    fn required(&self, names: &[&'static str]) -> Result<usize, DataError> {
        let missing = || DataError::MissingColumn {
            path: self.path.to_owned(),
            wanted: names[0],
            found: self.columns.iter().map(|column| format!("`{column}`")).collect::<Vec<_>>().join(", "),
        };
        self.column(names).ok_or_else(missing)
    }

    /// True when there are numbers in the column and nothing else.
    fn is_numeric(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().filter_map(|(_, cells)| cells.get(column)).map(|cell| cell.trim());
        let mut filled = cells.by_ref().filter(|cell| !cell.is_empty()).peekable();
        filled.peek().is_some() && filled.all(|cell| cell.parse::<f64>().is_ok_and(f64::is_finite))
    }

    fn filled<'c>(&self, line: u64, column: &str, cell: &'c str) -> Result<&'c str, DataError> {
        if cell.is_empty() { Err(self.wrong(line, format!("has no {column}"))) } else { Ok(cell) }
    }

    fn split(&self, line: u64, name: &str) -> Result<Split, DataError> {
        let unknown = || format!("has the split `{name}`, which is none of train, validation and test");
        Split::from_name(name).ok_or_else(|| self.wrong(line, unknown()))
    }

    fn wrong(&self, line: u64, reason: String) -> DataError {
        DataError::Line { path: self.path.to_owned(), line, reason }
    }
}
