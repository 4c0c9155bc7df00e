//! The plain values beside the tensors (`classes`, `epoch`, `args`) as JSON, within bounds.

use std::collections::BTreeMap;

use serde_json::{Map, Number};

use super::pickle::{Id, Pickle, Value};
use super::state_dict::is_optimizer;

pub(super) type Metadata = BTreeMap<String, serde_json::Value>;

const MAX_DEPTH: usize = 6;
/// Enough for the 21,843 classes of the full ImageNet with something to spare.
const MAX_VALUES: usize = 100_000;
const MAX_TEXT_BYTES: usize = 4 << 20;

pub(super) struct Plain<'a> {
    pickle: &'a Pickle,
    pub(super) metadata: Metadata,
    values_left: usize,
    text_left: usize,
}

impl<'a> Plain<'a> {
    pub(super) fn new(pickle: &'a Pickle) -> Self {
        Plain { pickle, metadata: Metadata::new(), values_left: MAX_VALUES, text_left: MAX_TEXT_BYTES }
    }

    /// Adds the plain values of a dictionary. A key that an outer dictionary had keeps its value.
    pub(super) fn gather(&mut self, dictionary: Id) {
        for (key, value) in self.pickle.entries(dictionary).unwrap_or_default() {
            let Some(key) = self.pickle.text(*key) else { continue };
            let worth_it = key.len() <= 256 && !is_optimizer(self.pickle, key, *value);
            if worth_it
                && !self.metadata.contains_key(key)
                && let Some(value) = self.json(*value, 0)
            {
                self.metadata.insert(key.to_owned(), value);
            }
        }
    }

    /// `None` for what is not plain, is empty once what is not plain is left out, or is too much.
    fn json(&mut self, id: Id, depth: usize) -> Option<serde_json::Value> {
        self.values_left = self.values_left.checked_sub(1)?;
        if depth > MAX_DEPTH {
            return None;
        }
        match self.pickle.get(id) {
            Value::None => Some(serde_json::Value::Null),
            Value::Bool(value) => Some((*value).into()),
            Value::Int(value) => Some((*value).into()),
            Value::Float(value) => Number::from_f64(*value).map(serde_json::Value::Number),
            Value::Text(span) => {
                self.text_left = self.text_left.checked_sub(span.len as usize)?;
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
            let key = match self.pickle.get(*key) {
                Value::Int(number) => number.to_string(),
                _ => self.pickle.text(*key)?.to_owned(),
            };
            self.text_left = self.text_left.checked_sub(key.len())?;
            if let Some(value) = self.json(*value, depth + 1) {
                object.insert(key, value);
            }
        }
        (!object.is_empty() || entries.is_empty()).then_some(object.into())
    }
}
