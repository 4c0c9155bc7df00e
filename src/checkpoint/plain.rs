//! The plain values beside the tensors (`classes`, `epoch`, `args`) as JSON, within bounds.

use std::collections::BTreeMap;

use serde_json::{Map, Number};

use super::pickle::{Id, Pickle, Value};
use super::state_dict::is_optimizer;

pub(super) type Metadata = BTreeMap<String, serde_json::Value>;

const MAX_DEPTH: usize = 6;
/// Under one key: enough for the 21,843 classes of the full ImageNet with something to spare.
const MAX_VALUES: usize = 100_000;
/// Under one key as well.
const MAX_TEXT_BYTES: usize = 4 << 20;

/// How much may still be gathered.
struct Budget {
    values: usize,
    text_bytes: usize,
}

pub(super) struct Plain<'a> {
    pickle: &'a Pickle,
    pub(super) metadata: Metadata,
    /// For all keys together.
    total: Budget,
    /// For the key at hand, so that a long list never costs the keys after it their values.
    left: Budget,
}

impl<'a> Plain<'a> {
    pub(super) fn new(pickle: &'a Pickle) -> Self {
        // What the file holds once; only values that are shared again and again are more.
        let total = Budget { values: MAX_VALUES + held(pickle), text_bytes: MAX_TEXT_BYTES + pickle.text.len() };
        Plain { pickle, metadata: Metadata::new(), total, left: Budget { values: 0, text_bytes: 0 } }
    }

    /// Adds the plain values of a dictionary. A key that an outer dictionary had keeps its value.
    pub(super) fn gather(&mut self, dictionary: Id) {
        for (key, value) in self.pickle.entries(dictionary).unwrap_or_default() {
            let Some(key) = self.pickle.text(*key) else { continue };
            let worth_it = key.len() <= 256 && !is_optimizer(self.pickle, key, *value);
            if worth_it
                && !self.metadata.contains_key(key)
                && let Some(value) = self.under_a_key(*value)
            {
                self.metadata.insert(key.to_owned(), value);
            }
        }
    }

    /// The value of a top-level key, with a budget of its own.
    fn under_a_key(&mut self, id: Id) -> Option<serde_json::Value> {
        let (values, text_bytes) = (self.total.values.min(MAX_VALUES), self.total.text_bytes.min(MAX_TEXT_BYTES));
        self.left = Budget { values, text_bytes };
        let value = self.json(id, 0);
        self.total.values -= values - self.left.values;
        self.total.text_bytes -= text_bytes - self.left.text_bytes;
        value
    }

    /// `None` for what is not plain, is empty once what is not plain is left out, or is too much.
    fn json(&mut self, id: Id, depth: usize) -> Option<serde_json::Value> {
        self.left.values = self.left.values.checked_sub(1)?;
        if depth > MAX_DEPTH {
            return None;
        }
        match self.pickle.get(id) {
            Value::None => Some(serde_json::Value::Null),
            Value::Bool(value) => Some((*value).into()),
            Value::Int(value) => Some((*value).into()),
            Value::Float(value) => Number::from_f64(*value).map(serde_json::Value::Number),
            Value::Text(span) => {
                self.left.text_bytes = self.left.text_bytes.checked_sub(span.len as usize)?;
                self.pickle.text(id).map(|text| text.into())
            }
            Value::Tuple(members) | Value::List(members) => {
                // A list with holes would be a wrong list, so it is all or nothing.
                members.iter().map(|member| self.json(*member, depth + 1)).collect()
            }
            Value::Dict(entries) => self.object(entries, depth),
            Value::Object(object) => {
                let state = object.state.and_then(|state| self.pickle.entries(state));
                let entries = state.unwrap_or(&object.items);
                if entries.is_empty() { None } else { self.object(entries, depth) }
            }
            _ => None,
        }
    }

    fn object(&mut self, entries: &[(Id, Id)], depth: usize) -> Option<serde_json::Value> {
        let mut object = Map::new();
        for (key, value) in entries {
            if self.left.values == 0 {
                break;
            }
            let key = match self.pickle.get(*key) {
                Value::Int(number) => number.to_string(),
                _ => self.pickle.text(*key)?.to_owned(),
            };
            self.left.text_bytes = self.left.text_bytes.checked_sub(key.len())?;
            if let Some(value) = self.json(*value, depth + 1) {
                object.insert(key, value);
            }
        }
        (!object.is_empty() || entries.is_empty()).then_some(object.into())
    }
}

/// How many values all containers of the pickle hold.
fn held(pickle: &Pickle) -> usize {
    let members = pickle.values.iter().map(|value| match value {
        Value::Tuple(members) | Value::List(members) => members.len(),
        Value::Dict(entries) => entries.len(),
        Value::Object(object) => object.items.len(),
        _ => 0,
    });
    members.sum()
}
