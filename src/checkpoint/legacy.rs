//! The container that `torch.save` wrote before version 1.6: four pickles (a magic number, a protocol version, the
//! system, the value), a pickled list of storage keys, and the storages in that order.

use std::collections::HashMap;

use super::error::{Fault, malformed, refused};
use super::pickle::{Pickle, Value};
use super::pth::Storages;
use super::rebuild::{storage_element_bytes, storage_key};
use super::source::Source;
use super::unpickle::load;

/// 0x1950a86a20f9469cfc6c, little endian, as `torch/serialization.py` has it.
const MAGIC_NUMBER: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL_VERSION: i64 = 1001;
/// The three pickles before the value are tiny; no more than this is looked at for each.
const MAX_PREAMBLE_BYTES: u64 = 4096;

/// The pickle that holds the value, and where it ends.
pub(super) fn main_pickle(source: &Source) -> Result<(Pickle, u64), Fault> {
    let (magic, magic_end) = load(source, 0..MAX_PREAMBLE_BYTES)?;
    let is_magic = match magic.get(magic.root) {
        Value::BigInt(span) => magic.bytes(*span) == MAGIC_NUMBER,
        _ => false,
    };
    if !is_magic {
        return Err(Fault::Unrecognised("it is a plain Python pickle, which torch.save did not write".into()));
    }
    let (version, version_end) = load(source, magic_end..magic_end + MAX_PREAMBLE_BYTES)?;
    if !matches!(version.get(version.root), Value::Int(PROTOCOL_VERSION)) {
        return Err(refused("its version of PyTorch's old format is unknown"));
    }
    // Storages are little endian in this format, whatever system it names: torch converts while writing.
    let (_system, system_end) = load(source, version_end..version_end + MAX_PREAMBLE_BYTES)?;
    load(source, system_end..source.len())
}

pub(super) struct LegacyStorages(HashMap<String, (u64, u64)>);

impl Storages for LegacyStorages {
    fn find(&self, key: &str) -> Result<(u64, u64), Fault> {
        self.0.get(key).copied().ok_or_else(|| malformed(format!("the storage {key} is missing")))
    }

    fn big_endian(&self) -> bool {
        false
    }
}

/// Walks from storage to storage from `start` on, reading their lengths alone.
///
/// Lengths count elements, whose size only the value's own pickle tells.
pub(super) fn storages(source: &Source, start: u64, pickle: &Pickle) -> Result<LegacyStorages, Fault> {
    let element_bytes = storage_element_bytes(pickle);
    let (keys, mut position) = load(source, start..source.len())?;
    let ids = keys.sequence(keys.root).ok_or_else(|| malformed("its list of storages is no list"))?;
    let mut found = HashMap::new();
    for id in ids {
        let key = storage_key(&keys, *id).ok_or_else(|| malformed("a storage has no key"))?;
        let element_bytes = element_bytes.get(&key).copied();
        let element_bytes =
            element_bytes.ok_or_else(|| refused(format!("nothing says how the storage {key} is stored")))?;
        let mut elements = [0; 8];
        source.read_exact_at(&mut elements, position).map_err(|_| cut_short(&key))?;
        let start = position + 8;
        let end = u64::from_le_bytes(elements).checked_mul(element_bytes).and_then(|bytes| start.checked_add(bytes));
        position = end.filter(|end| *end <= source.len()).ok_or_else(|| cut_short(&key))?;
        found.insert(key, (start, position - start));
    }
    Ok(LegacyStorages(found))
}

fn cut_short(key: &str) -> Fault {
    malformed(format!("the file ends within the storage {key}"))
}
