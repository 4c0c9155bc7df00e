//! Finds the network's tensors in what a training script saved, and tells the rest apart.

use std::collections::HashSet;

use super::TensorKind;
use super::error::{Fault, malformed, refused};
use super::pickle::{Id, Pickle, Value};
use super::plain::{Metadata, Plain};
use super::rebuild::{TensorRef, is_tensor, tensor};

/// Keys that people keep the network under, the one that is trained before its averaged copies.
const WRAPPERS: [&str; 15] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
    "params",
    "module",
    "ema",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "model_ema_state_dict",
    "params_ema",
];
const MAX_NESTING: usize = 64;
const MAX_NAME_BYTES: usize = 512;
const MAX_TENSORS: usize = 100_000;
const REMEDY: &str = "in Python, load it with the code it was saved from and save its parameters: \
                      torch.save(model.state_dict(), \"weights.pth\")";

pub(super) struct Selection {
    pub(super) tensors: Vec<(String, TensorKind, TensorRef)>,
    /// Keys from the outermost value to the state dict.
    pub(super) keys: Vec<String>,
    pub(super) metadata: Metadata,
}

pub(super) fn select(pickle: &Pickle) -> Result<Selection, Fault> {
    let mut plain = Plain::new(pickle);
    let mut search = Search { pickle, visits: pickle.values.len() * 64 };
    let mut keys = Vec::new();
    let mut here = pickle.root;
    loop {
        refuse_module(pickle, here)?;
        plain.gather(here);
        match search.inner(here, keys.is_empty())? {
            Some((key, value)) if keys.len() < MAX_NESTING => {
                keys.push(key);
                here = value;
            }
            _ => break,
        }
    }
    let mut listing = Listing { pickle, visits: pickle.values.len() + 1024, tensors: Vec::new() };
    listing.weights(here, "", 0)?;
    if listing.tensors.is_empty() {
        return Err(no_tensors(pickle, here));
    }
    refuse_duplicates(&listing.tensors)?;
    listing.others(here)?;
    Ok(Selection { tensors: listing.tensors, keys, metadata: plain.metadata })
}

/// Looks for the dictionary that holds the network.
struct Search<'a> {
    pickle: &'a Pickle,
    /// How many entries may still be looked at: dictionaries may share others, but not without end.
    visits: usize,
}

impl Search<'_> {
    /// The dictionary inside `here` that holds the network, when `here` only wraps it.
    fn inner(&mut self, here: Id, outermost: bool) -> Result<Option<(String, Id)>, Fault> {
        let pickle = self.pickle;
        for key in WRAPPERS {
            let Some(value) = pickle.entry(here, key) else { continue };
            if self.holds_tensors(value)? {
                return Ok(Some((key.to_owned(), value)));
            }
            refuse_module(pickle, value)?;
        }
        let entries = pickle.entries(here).unwrap_or_default();
        if !outermost || entries.iter().any(|(_, value)| is_tensor(pickle, *value)) {
            return Ok(None);
        }
        let mut only = None;
        for (key, value) in entries {
            let Some(key) = pickle.text(*key) else { continue };
            if !is_optimizer(pickle, key, *value) && self.holds_tensors(*value)? {
                if only.is_some() {
                    return Ok(None);
                }
                only = Some((key.to_owned(), *value));
            }
        }
        Ok(only)
    }

    /// True for a dictionary with a tensor in it, or in a dictionary in it, and so on.
    fn holds_tensors(&mut self, dictionary: Id) -> Result<bool, Fault> {
        let mut seen = HashSet::from([dictionary]);
        let mut pending = vec![dictionary];
        while let Some(id) = pending.pop() {
            for (_, value) in self.pickle.entries(id).unwrap_or_default() {
                self.visits = self.visits.checked_sub(1).ok_or_else(repeated)?;
                if is_tensor(self.pickle, *value) {
                    return Ok(true);
                }
                if self.pickle.entries(*value).is_some() && seen.insert(*value) {
                    pending.push(*value);
                }
            }
        }
        Ok(false)
    }
}

fn repeated() -> Fault {
    refused("its dictionaries hold one another again and again")
}

/// Optimizer state, by its key or by the two keys that every `Optimizer.state_dict()` has.
pub(super) fn is_optimizer(pickle: &Pickle, key: &str, value: Id) -> bool {
    // Only a small dictionary is searched: the same large one may be asked about under every key of another.
    let is_small = pickle.entries(value).is_some_and(|entries| entries.len() <= 16);
    key.to_ascii_lowercase().contains("optim")
        || (is_small && pickle.entry(value, "param_groups").is_some() && pickle.entry(value, "state").is_some())
}

fn refuse_module(pickle: &Pickle, id: Id) -> Result<(), Fault> {
    match pickle.module_class(id) {
        Some(class) => Err(refused(format!(
            "it holds a whole pickled module ({class}), which only its own Python code can rebuild; {REMEDY}"
        ))),
        None => Ok(()),
    }
}

fn no_tensors(pickle: &Pickle, here: Id) -> Fault {
    if is_tensor(pickle, here) {
        return refused("it holds a single tensor without a name, not a state dict");
    }
    let entries = pickle.entries(here).unwrap_or_default();
    // Objects may share one large state, which is searched once.
    let mut searched = HashSet::new();
    for (_, value) in entries {
        if let Some(state) = pickle.object(*value).and_then(|object| object.state)
            && searched.insert(state)
            && let Err(fault) = refuse_module(pickle, *value)
        {
            return fault;
        }
    }
    if let Some(class) = pickle.object(here).and_then(|object| pickle.class_of(object)) {
        return refused(format!("it holds an object of the class {class}, not a state dict; {REMEDY}"));
    }
    let keys = entries.iter().filter_map(|(key, _)| pickle.text(*key));
    let keys: Vec<_> = keys.take(8).map(|key| key.chars().take(40).collect::<String>()).collect();
    match keys[..] {
        [] => refused("it holds no tensors"),
        _ => refused(format!("it holds no tensors, only the keys {}", keys.join(", "))),
    }
}

fn refuse_duplicates(tensors: &[(String, TensorKind, TensorRef)]) -> Result<(), Fault> {
    let mut seen = HashSet::new();
    match tensors.iter().find(|(name, ..)| !seen.insert(name)) {
        Some((name, ..)) => Err(malformed(format!("the tensor {name} appears twice"))),
        None => Ok(()),
    }
}

struct Listing<'a> {
    pickle: &'a Pickle,
    /// How many values may still be looked at: shared dictionaries may be listed again, but not without end.
    visits: usize,
    tensors: Vec<(String, TensorKind, TensorRef)>,
}

impl Listing<'_> {
    /// Lists a state dict; dictionaries inside it are joined with dots.
    fn weights(&mut self, dictionary: Id, prefix: &str, depth: usize) -> Result<(), Fault> {
        if depth > MAX_NESTING {
            return Err(refused("its dictionaries lie more than 64 deep in one another"));
        }
        let pickle = self.pickle;
        for (key, value) in pickle.entries(dictionary).unwrap_or_default() {
            let is_inner = pickle.entries(*value).is_some();
            if !is_inner && !is_tensor(pickle, *value) {
                continue;
            }
            self.visits = self.visits.checked_sub(1).ok_or_else(repeated)?;
            let Some(key) = self.key(*key) else { continue };
            let name = joined(prefix, &key, '.')?;
            if is_inner {
                if depth > 0 || !is_optimizer(pickle, &key, *value) {
                    self.weights(*value, &name, depth + 1)?;
                }
            } else if let Some(found) = tensor(pickle, *value).map_err(|fault| fault.in_tensor(&name))? {
                self.push(name, TensorKind::Weight, found)?;
            }
        }
        Ok(())
    }

    /// Lists every other tensor under its path of keys; what cannot be read is left out, as it is never asked for.
    fn others(&mut self, chosen: Id) -> Result<(), Fault> {
        let pickle = self.pickle;
        let mut seen = HashSet::from([chosen]);
        seen.extend(pickle.entries(chosen).unwrap_or_default().iter().map(|(_, value)| *value));
        let mut pending = vec![(pickle.root, String::new(), TensorKind::Other)];
        if pickle.root == chosen {
            // Optimizer state beside the tensors themselves: `weights` passed over it.
            pending = self.passed_over(chosen);
        }
        while let Some((id, path, kind)) = pending.pop() {
            if is_tensor(pickle, id) {
                if let Ok(Some(found)) = tensor(pickle, id) {
                    self.push(path, kind, found)?;
                }
                continue;
            }
            for (key, value) in self.children(id) {
                let kind = if is_optimizer(pickle, &key, value) { TensorKind::Optimizer } else { kind };
                if seen.insert(value) {
                    pending.push((value, joined(&path, &key, '/').unwrap_or_default(), kind));
                }
            }
        }
        Ok(())
    }

    fn passed_over(&self, chosen: Id) -> Vec<(Id, String, TensorKind)> {
        let children = self.children(chosen).into_iter();
        let optimizers = children
            .filter(|(key, value)| self.pickle.entries(*value).is_some() && is_optimizer(self.pickle, key, *value));
        optimizers.map(|(key, value)| (value, key, TensorKind::Optimizer)).collect()
    }

    /// What lies directly in a container, last first because the caller takes from the end.
    fn children(&self, id: Id) -> Vec<(String, Id)> {
        let entries = self.pickle.entries(id).unwrap_or_default().iter();
        let mut children: Vec<_> = entries.map(|(key, value)| (self.key(*key).unwrap_or_default(), *value)).collect();
        let members = self.pickle.sequence(id).unwrap_or_default().iter().enumerate();
        children.extend(members.map(|(position, value)| (position.to_string(), *value)));
        let state = self.pickle.object(id).and_then(|object| object.state);
        children.extend(state.map(|state| ("state".to_owned(), state)));
        children.reverse();
        children
    }

    fn key(&self, key: Id) -> Option<String> {
        match self.pickle.get(key) {
            Value::Int(number) => Some(number.to_string()),
            _ => self.pickle.text(key).map(str::to_owned),
        }
    }

    fn push(&mut self, name: String, kind: TensorKind, found: TensorRef) -> Result<(), Fault> {
        if self.tensors.len() == MAX_TENSORS {
            return Err(refused(format!("it lists more than {MAX_TENSORS} tensors")));
        }
        self.tensors.push((name, kind, found));
        Ok(())
    }
}

fn joined(prefix: &str, key: &str, separator: char) -> Result<String, Fault> {
    if prefix.len() + key.len() >= MAX_NAME_BYTES {
        return Err(refused(format!("a tensor's name is longer than {MAX_NAME_BYTES} bytes")));
    }
    Ok(if prefix.is_empty() { key.to_owned() } else { format!("{prefix}{separator}{key}") })
}
