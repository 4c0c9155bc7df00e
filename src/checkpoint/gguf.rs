//! Reads `.gguf` files, versions 2 and 3: float tensors, and quantized ones, as blocks or as `f32`.
//!
//! Source of the layout: the GGUF specification of the ggml project (`docs/gguf.md`). Its rows are whole blocks; those of
//! networks for images often are not. So a key `galley.shape.NAME` may hold the shape that the quantized tensor `NAME` has
//! in PyTorch: stored is then a row for each of its outputs, over positions and then inputs, with zeros up to a whole block.

mod write;

use std::collections::HashSet;

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use half::f16;
use serde_json::{Number, Value};

use super::elements::{Stored, count, pick, row_major_strides};
use super::error::{Fault, malformed, refused};
use super::plain::Metadata;
use super::reader::Reader;
use super::rebuild::unreadable;
use super::source::Source;
use super::{Blocks, Container, Contents, ElementType, TensorInfo, TensorKind};

pub use write::{GgufTensor, GgufType, gguf_bytes, write_gguf};

pub(super) const MAGIC: &[u8] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
/// Before a quantized tensor's name: the key of its shape.
const SHAPE_KEY: &str = "galley.shape.";
/// ggml's own limit is 4.
const MAX_DIMENSIONS: u32 = 8;
const MAX_NAME_BYTES: u64 = 512;
/// Strings and arrays beyond these are passed over: no label list or transform is that long.
const MAX_TEXT_BYTES: u64 = 64 << 10;
const MAX_ARRAY_VALUES: u64 = 100_000;
const MAX_ARRAY_DEPTH: usize = 4;
/// The least that a key with its value, or a tensor's description, takes in the file.
const MIN_KEY_BYTES: u64 = 13;
const MIN_TENSOR_BYTES: u64 = 24;

/// Elements that are dequantized at once: a multiple of every block's size.
const CHUNK_ELEMENTS: usize = 1 << 18;

pub(super) fn open(source: Source) -> Result<Contents, Fault> {
    let mut reader = Reader::new(&source, MAGIC.len() as u64..source.len());
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(refused(format!("its gguf version is {version}; Galley reads versions 2 and 3, little endian")));
    }
    let tensor_count = at_most(reader.u64()?, reader.remaining() / MIN_TENSOR_BYTES, "tensors")?;
    let key_count = at_most(reader.u64()?, reader.remaining() / MIN_KEY_BYTES, "keys")?;
    let mut metadata = Metadata::new();
    for _ in 0..key_count {
        let key = name(&mut reader)?;
        let kind = reader.u32()?;
        if let Some(value) = value(&mut reader, kind, 0)? {
            metadata.insert(key, value);
        }
    }
    let alignment = alignment(&metadata)?;
    let described = (0..tensor_count).map(|_| describe(&mut reader)).collect::<Result<Vec<_>, _>>()?;
    let data_start = reader.position().next_multiple_of(alignment);
    refuse_overlaps(&described)?;
    let mut names = HashSet::new();
    let mut tensors = Vec::new();
    for (info, offset) in described {
        if !names.insert(info.name.clone()) {
            return Err(malformed(format!("the tensor {} appears twice", info.name)));
        }
        let start =
            place(&info, offset, alignment, data_start, source.len()).map_err(|fault| fault.in_tensor(&info.name))?;
        let placed = match metadata.get(&format!("{SHAPE_KEY}{}", info.name)) {
            Some(shape) => {
                let name = info.name.clone();
                in_rows(info, start, shape).map_err(|fault| fault.in_tensor(&name))?
            }
            None => {
                let stored = Stored::row_major(0, start, &info.shape);
                (info, stored)
            }
        };
        tensors.push((placed.0, Some(placed.1)));
    }
    let found_as = format!("the tensors of a gguf file, version {version}");
    Ok(Contents { container: Container::Gguf, files: vec![source], tensors, metadata, found_as })
}

fn at_most(count: u64, limit: u64, what: &str) -> Result<u64, Fault> {
    if count > limit {
        return Err(malformed(format!("it claims {count} {what}, more than the file has room for")));
    }
    Ok(count)
}

fn name(reader: &mut Reader) -> Result<String, Fault> {
    let len = reader.u64()?;
    if len > MAX_NAME_BYTES {
        return Err(malformed(format!("a name of {len} bytes is beyond any limit, at byte {}", reader.position())));
    }
    let mut name = Vec::new();
    reader.append_to(&mut name, len)?;
    String::from_utf8(name).map_err(|_| malformed(format!("a name is not UTF-8, before byte {}", reader.position())))
}

/// The next value of the type `kind`; `None` when it is too long to keep.
fn value(reader: &mut Reader, kind: u32, depth: usize) -> Result<Option<Value>, Fault> {
    Ok(Some(match kind {
        0 => reader.byte()?.into(),
        1 => i8::from_le_bytes(reader.array()?).into(),
        2 => u16::from_le_bytes(reader.array()?).into(),
        3 => i16::from_le_bytes(reader.array()?).into(),
        4 => reader.u32()?.into(),
        5 => i32::from_le_bytes(reader.array()?).into(),
        6 => float(f32::from_le_bytes(reader.array()?).into()),
        7 => (reader.byte()? != 0).into(),
        8 => return text(reader),
        9 => return array(reader, depth),
        10 => reader.u64()?.into(),
        11 => i64::from_le_bytes(reader.array()?).into(),
        12 => float(f64::from_le_bytes(reader.array()?)),
        other => {
            return Err(malformed(format!("a value has the unknown type {other}, before byte {}", reader.position())));
        }
    }))
}

fn float(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn text(reader: &mut Reader) -> Result<Option<Value>, Fault> {
    let len = reader.u64()?;
    if len > MAX_TEXT_BYTES {
        reader.skip(len)?;
        return Ok(None);
    }
    let mut text = Vec::new();
    reader.append_to(&mut text, len)?;
    Ok(Some(String::from_utf8_lossy(&text).into_owned().into()))
}

fn array(reader: &mut Reader, depth: usize) -> Result<Option<Value>, Fault> {
    if depth == MAX_ARRAY_DEPTH {
        return Err(malformed(format!("arrays lie more than {MAX_ARRAY_DEPTH} deep in one another")));
    }
    let kind = reader.u32()?;
    let count = at_most(reader.u64()?, reader.remaining(), "array values")?;
    let mut values = Vec::new();
    for _ in 0..count {
        let value = value(reader, kind, depth + 1)?;
        if count <= MAX_ARRAY_VALUES {
            values.extend(value);
        }
    }
    Ok((values.len() as u64 == count).then(|| values.into()))
}

fn alignment(metadata: &Metadata) -> Result<u64, Fault> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    match value.as_u64() {
        Some(alignment) if alignment.is_power_of_two() && (8..=1 << 16).contains(&alignment) => Ok(alignment),
        _ => Err(malformed(format!("its alignment {value} is not a power of two from 8 to 65536"))),
    }
}

/// A tensor's table entry: what it is, and where it starts within the data.
fn describe(reader: &mut Reader) -> Result<(TensorInfo, u64), Fault> {
    let name = name(reader)?;
    let dimensions = reader.u32()?;
    if dimensions > MAX_DIMENSIONS {
        return Err(malformed(format!("it has {dimensions} dimensions")).in_tensor(&name));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        let size = usize::try_from(reader.u64()?);
        shape.push(size.map_err(|_| malformed("a dimension is beyond counting").in_tensor(&name))?);
    }
    shape.reverse(); // the file counts the innermost dimension first
    let kind = reader.u32()?;
    let offset = reader.u64()?;
    let (element, bytes) = sizes(kind, &shape).map_err(|fault| fault.in_tensor(&name))?;
    Ok((TensorInfo { name, element, shape, kind: TensorKind::Weight, bytes }, offset))
}

fn sizes(kind: u32, shape: &[usize]) -> Result<(ElementType, u64), Fault> {
    let too_large = || malformed(format!("the shape {shape:?} is too large"));
    let element = element(kind)?;
    let elements = count(shape)?;
    let bytes = match quantized(element) {
        None => (elements as u64).checked_mul(element.bytes()).ok_or_else(too_large)?,
        Some(quantized) => {
            let block = quantized.block_size();
            if shape.last().is_none_or(|size| size % block != 0) {
                return Err(malformed(format!("the rows of shape {shape:?} are not made of blocks of {block}")));
            }
            ((elements / block) as u64).checked_mul(quantized.type_size() as u64).ok_or_else(too_large)?
        }
    };
    Ok((element, bytes))
}

/// ggml's numbers for its types.
fn element(kind: u32) -> Result<ElementType, Fault> {
    Ok(match kind {
        0 => ElementType::F32,
        1 => ElementType::F16,
        2 => ElementType::Quantized("Q4_0"),
        3 => ElementType::Quantized("Q4_1"),
        6 => ElementType::Quantized("Q5_0"),
        7 => ElementType::Quantized("Q5_1"),
        8 => ElementType::Quantized("Q8_0"),
        10 => ElementType::Quantized("Q2_K"),
        11 => ElementType::Quantized("Q3_K"),
        12 => ElementType::Quantized("Q4_K"),
        13 => ElementType::Quantized("Q5_K"),
        14 => ElementType::Quantized("Q6_K"),
        24 => ElementType::I8,
        25 => ElementType::I16,
        26 => ElementType::I32,
        27 => ElementType::I64,
        28 => ElementType::F64,
        30 => ElementType::BF16,
        other => return Err(unreadable(&format!("number {other} of ggml"))),
    })
}

fn quantized(element: ElementType) -> Option<GgmlDType> {
    let ElementType::Quantized(name) = element else { return None };
    Some(match name {
        "Q4_0" => GgmlDType::Q4_0,
        "Q4_1" => GgmlDType::Q4_1,
        "Q5_0" => GgmlDType::Q5_0,
        "Q5_1" => GgmlDType::Q5_1,
        "Q8_0" => GgmlDType::Q8_0,
        "Q2_K" => GgmlDType::Q2K,
        "Q3_K" => GgmlDType::Q3K,
        "Q4_K" => GgmlDType::Q4K,
        "Q5_K" => GgmlDType::Q5K,
        "Q6_K" => GgmlDType::Q6K,
        _ => return None,
    })
}

fn place(info: &TensorInfo, offset: u64, alignment: u64, data_start: u64, file_bytes: u64) -> Result<u64, Fault> {
    if !offset.is_multiple_of(alignment) {
        return Err(malformed(format!("its offset {offset} is not a multiple of {alignment}")));
    }
    let start = data_start.checked_add(offset);
    match start.and_then(|start| start.checked_add(info.bytes)) {
        Some(end) if end <= file_bytes => Ok(start.unwrap_or_default()),
        _ => Err(malformed(format!("its {} bytes at offset {offset} reach past the end of the file", info.bytes))),
    }
}

fn refuse_overlaps(described: &[(TensorInfo, u64)]) -> Result<(), Fault> {
    let mut ranges: Vec<_> = described.iter().filter(|(info, _)| info.bytes > 0).collect();
    ranges.sort_by_key(|(_, offset)| *offset);
    for pair in ranges.windows(2) {
        if let [(first, start), (second, next)] = pair
            && start.saturating_add(first.bytes) > *next
        {
            return Err(malformed(format!("the tensors {} and {} overlap", first.name, second.name)));
        }
    }
    Ok(())
}

/// A tensor of the shape its key gives, whose rows the file holds as `info` says.
fn in_rows(info: TensorInfo, start: u64, shape: &Value) -> Result<(TensorInfo, Stored), Fault> {
    let wrong = || malformed(format!("its rows {:?} do not fit the shape {shape} of its key", info.shape));
    let sizes = shape.as_array().into_iter().flatten().map(|size| size.as_u64().and_then(|size| size.try_into().ok()));
    let shape: Vec<usize> = sizes.collect::<Option<_>>().ok_or_else(wrong)?;
    let ([outputs, inputs, ..], Some(quantized)) = (&shape[..], quantized(info.element)) else { return Err(wrong()) };
    let padded = count(&shape[1..])?.checked_next_multiple_of(quantized.block_size()).ok_or_else(wrong)?;
    if info.shape != [*outputs, padded] || shape.contains(&0) {
        return Err(wrong());
    }
    // The places of a row, one after the other in the file, hold all inputs each.
    let of_positions = row_major_strides(&shape[2..]).into_iter().map(|stride| stride * inputs);
    let strides = [padded, 1].into_iter().chain(of_positions).collect();
    Ok((TensorInfo { shape, ..info }, Stored { file: 0, start, strides, big_endian: false }))
}

/// The elements of a tensor that is kept in quantized blocks.
pub(super) fn dequantize(source: &Source, info: &TensorInfo, stored: &Stored) -> Result<Vec<f32>, Fault> {
    let Some(quantized) = quantized(info.element) else { return Err(unreadable("unknown blocks")) };
    let elements = (info.bytes as usize) / quantized.type_size() * quantized.block_size();
    let mut values = Vec::with_capacity(elements);
    let mut start = stored.start;
    while values.len() < elements {
        let piece = (elements - values.len()).min(CHUNK_ELEMENTS);
        let bytes = source.read(start, (piece / quantized.block_size() * quantized.type_size()) as u64)?;
        values.extend(blocks_to_f32(quantized, &bytes, piece).map_err(|error| malformed(error.to_string()))?);
        start += bytes.len() as u64;
    }
    if stored.strides == row_major_strides(&info.shape) {
        return Ok(values);
    }
    let mut picked = Vec::with_capacity(values.len());
    pick(&values, &info.shape, &stored.strides, &mut picked);
    Ok(picked)
}

/// The blocks of a tensor, if each of its outputs is a row of Q8_0, Q5_0 or Q4_0 blocks over positions and then inputs.
pub(super) fn blocks(source: &Source, info: &TensorInfo, stored: &Stored) -> Result<Option<Blocks>, Fault> {
    let (ElementType::Quantized(kind @ ("Q8_0" | "Q5_0" | "Q4_0")), Some(quantized)) =
        (info.element, quantized(info.element))
    else {
        return Ok(None);
    };
    let [_, inputs, rest @ ..] = &info.shape[..] else { return Ok(None) };
    let is_row = stored.strides[1] == 1 && (rest.is_empty() || stored.strides[stored.strides.len() - 1] == *inputs);
    if !is_row {
        return Ok(None);
    }
    let bytes = source.read(stored.start, info.bytes)?;
    let scales = bytes.chunks_exact(quantized.type_size()).map(|block| f16::from_le_bytes([block[0], block[1]]));
    if let Some(position) = scales.into_iter().position(|scale| !scale.is_finite()) {
        return Err(malformed(format!("the scale of its block {position} is not a number to compute with")));
    }
    Ok(Some(Blocks { kind, bytes }))
}

fn blocks_to_f32(quantized: GgmlDType, bytes: &[u8], elements: usize) -> candle_core::Result<Vec<f32>> {
    let tensor = qtensor_from_ggml(quantized, bytes, vec![elements], &Device::Cpu)?;
    tensor.dequantize(&Device::Cpu)?.to_vec1()
}
