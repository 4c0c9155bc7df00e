//! Reads `.safetensors` files, and checkpoints split over several of them by their index.
//!
//! The crate `safetensors` checks the header: no gaps, overlaps, or sizes that differ from shape times type.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata};

use super::elements::Stored;
use super::error::{Fault, malformed, refused};
use super::plain;
use super::rebuild::unreadable;
use super::source::Source;
use super::{Container, Contents, ElementType, TensorInfo, TensorKind};

const LENGTH_BYTES: u64 = 8;
/// The format's own limit on its header.
const MAX_HEADER_BYTES: u64 = 100_000_000;
const MAX_INDEX_BYTES: u64 = 64 << 20;
const MAX_SHARDS: usize = 1024;
/// What the names of the state of Galley's own training begin with.
const STATE: &str = "galley.";

/// True for bytes that start as a safetensors file does.
pub(super) fn looks_like(start: &[u8]) -> bool {
    match start.split_first_chunk::<8>() {
        Some((len, rest)) => u64::from_le_bytes(*len) <= MAX_HEADER_BYTES && rest.starts_with(b"{"),
        None => false,
    }
}

pub(super) fn open(source: Source) -> Result<Contents, Fault> {
    let (tensors, metadata) = read_header(&source, 0)?;
    let found_as = "the tensors of a safetensors file".to_owned();
    Ok(Contents { container: Container::Safetensors, files: vec![source], tensors, metadata, found_as })
}

type Header = (Vec<(TensorInfo, Option<Stored>)>, plain::Metadata);

fn read_header(source: &Source, file: usize) -> Result<Header, Fault> {
    let mut len = [0; LENGTH_BYTES as usize];
    source.read_exact_at(&mut len, 0)?;
    let len = u64::from_le_bytes(len);
    if len > MAX_HEADER_BYTES {
        return Err(malformed(format!("a header of {len} bytes is beyond the format's limit")));
    }
    let header: Metadata = serde_json::from_slice(&source.read(LENGTH_BYTES, len)?)
        .map_err(|error| malformed(format!("its header does not make sense ({error})")))?;
    let data_start = LENGTH_BYTES + len;
    if header.data_len() as u64 != source.len() - data_start {
        return Err(malformed(format!(
            "its header describes {} bytes of tensors, but {} follow",
            header.data_len(),
            source.len() - data_start
        )));
    }
    let mut tensors = Vec::new();
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        let element = element(info.dtype).map_err(|fault| fault.in_tensor(&name))?;
        let (start, end) = info.data_offsets;
        let stored = Stored::row_major(file, data_start + start as u64, &info.shape);
        let bytes = (end - start) as u64;
        let shape = info.shape.clone();
        let kind = if name.starts_with(STATE) { TensorKind::Optimizer } else { TensorKind::Weight };
        tensors.push((TensorInfo { name, element, shape, kind, bytes }, stored));
    }
    // Empty tensors share an offset; the header's own order is lost by then.
    tensors.sort_by(|(a, at), (b, bt)| (at.start, &a.name).cmp(&(bt.start, &b.name)));
    let tensors = tensors.into_iter().map(|(info, stored)| (info, Some(stored))).collect();
    let metadata = header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone().into()));
    Ok((tensors, metadata.collect()))
}

fn element(dtype: Dtype) -> Result<ElementType, Fault> {
    Ok(match dtype {
        Dtype::F64 => ElementType::F64,
        Dtype::F32 => ElementType::F32,
        Dtype::F16 => ElementType::F16,
        Dtype::BF16 => ElementType::BF16,
        Dtype::I64 => ElementType::I64,
        Dtype::I32 => ElementType::I32,
        Dtype::I16 => ElementType::I16,
        Dtype::I8 => ElementType::I8,
        Dtype::U8 => ElementType::U8,
        Dtype::BOOL => ElementType::Bool,
        other => return Err(unreadable(&format!("{other:?}"))),
    })
}

/// The index of a split checkpoint: which file, beside it, holds which tensor.
#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Opens every file that the index at `path` names.
pub(super) fn open_index(source: &Source, path: &Path) -> Result<Contents, Fault> {
    if source.len() > MAX_INDEX_BYTES {
        return Err(Fault::Unrecognised("it is a text file of more than 64 MB".into()));
    }
    let index: Index = serde_json::from_slice(&source.read(0, source.len())?).map_err(|error| {
        Fault::Unrecognised(format!("it is a JSON file, but not the index of a split checkpoint ({error})"))
    })?;
    let mut shards: Vec<&str> = index.weight_map.values().map(String::as_str).collect();
    shards.sort_unstable();
    shards.dedup();
    if shards.len() > MAX_SHARDS {
        return Err(malformed(format!("its index names more than {MAX_SHARDS} files")));
    }
    let mut contents = Contents {
        container: Container::Safetensors,
        files: Vec::new(),
        tensors: Vec::new(),
        metadata: plain::Metadata::new(),
        found_as: format!("the tensors of {} safetensors files, by their index", shards.len()),
    };
    for shard in shards {
        add_shard(&mut contents, &index.weight_map, path, shard).map_err(|fault| in_shard(fault, shard))?;
    }
    let found: HashMap<_, _> = contents.tensors.iter().map(|(info, _)| (info.name.as_str(), ())).collect();
    match index.weight_map.iter().find(|(name, _)| !found.contains_key(name.as_str())) {
        Some((name, shard)) => Err(malformed(format!("the file {shard} does not hold the tensor {name}"))),
        None => Ok(contents),
    }
}

/// Adds the tensors that the index expects in `shard`.
fn add_shard(
    contents: &mut Contents,
    weight_map: &BTreeMap<String, String>,
    index: &Path,
    shard: &str,
) -> Result<(), Fault> {
    if Path::new(shard).file_name().is_none_or(|name| name != shard) {
        return Err(refused("the index names a file outside of its own folder"));
    }
    let source = Source::open(&index.with_file_name(shard))?;
    let (tensors, metadata) = read_header(&source, contents.files.len())?;
    contents.files.push(source);
    let expected = tensors.into_iter().filter(|(info, _)| weight_map.get(&info.name).is_some_and(|file| file == shard));
    contents.tensors.extend(expected);
    contents.metadata.extend(metadata);
    Ok(())
}

fn in_shard(fault: Fault, shard: &str) -> Fault {
    match fault {
        Fault::Read(error) => Fault::Read(std::io::Error::new(error.kind(), format!("{shard}: {error}"))),
        Fault::Refused(reason) => Fault::Refused(format!("{shard}: {reason}")),
        Fault::Unrecognised(text) | Fault::Malformed(text) => Fault::Malformed(format!("{shard}: {text}")),
    }
}
