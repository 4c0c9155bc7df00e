//! Writes `.gguf` files, version 3, one piece of a tensor in memory at a time.

use std::io::{self, Write};

use serde_json::{Map, Value};

use super::{DEFAULT_ALIGNMENT, MAGIC, SHAPE_KEY};

/// Values that share a scale.
const BLOCK: usize = 32;

/// How the elements of a tensor shall be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GgufType {
    /// A block of 32 values: a scale in f16, and 4 bits a value.
    Q4_0,
    /// The same with a least value in f16 too.
    Q4_1,
    /// A scale, and 5 bits a value.
    Q5_0,
    /// A scale, and 8 bits a value.
    Q8_0,
    F16,
    F32,
}

impl GgufType {
    pub fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q8_0 => "Q8_0",
            Self::F16 => "F16",
            Self::F32 => "F32",
        }
    }

    /// Its number in ggml.
    fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q8_0 => 8,
        }
    }

    /// Bytes of a block, where values come in blocks.
    pub fn block_bytes(self) -> Option<usize> {
        match self {
            Self::F32 | Self::F16 => None,
            Self::Q4_0 => Some(2 + BLOCK / 2),
            Self::Q4_1 => Some(4 + BLOCK / 2),
            Self::Q5_0 => Some(2 + BLOCK / 8 + BLOCK / 2),
            Self::Q8_0 => Some(2 + BLOCK),
        }
    }

    /// Bytes of a tensor. In blocks each of its outermost rows is filled up to whole ones.
    pub fn bytes_of(self, shape: &[usize]) -> u64 {
        let elements = shape.iter().product::<usize>() as u64;
        match self.block_bytes() {
            Some(block) => {
                let [rows, length] = rows(shape);
                (rows * length.div_ceil(BLOCK) * block) as u64
            }
            None if self == Self::F16 => 2 * elements,
            None => 4 * elements,
        }
    }
}

/// What a file shall hold under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensor {
    pub name: String,
    /// Row-major, outermost first. In blocks a row is over positions and then inputs: of `(outputs, inputs, …positions)`.
    pub shape: Vec<usize>,
    pub kind: GgufType,
}

impl GgufTensor {
    pub fn bytes(&self) -> u64 {
        self.kind.bytes_of(&self.shape)
    }

    /// The dimensions in the file, outermost first.
    fn stored(&self) -> Vec<usize> {
        match self.kind.block_bytes() {
            Some(_) => {
                let [rows, length] = rows(&self.shape);
                vec![rows, length.next_multiple_of(BLOCK)]
            }
            None => self.shape.clone(),
        }
    }
}

/// Outputs, and values of each.
fn rows(shape: &[usize]) -> [usize; 2] {
    let (rows, rest) = shape.split_first().unwrap_or((&1, &[]));
    [*rows, rest.iter().product()]
}

/// Bytes of the file that [`write_gguf`] writes.
pub fn gguf_bytes(metadata: &Map<String, Value>, tensors: &[GgufTensor]) -> io::Result<u64> {
    let start = header(metadata, tensors)?.len() as u64;
    Ok(start + tensors.iter().map(|tensor| tensor.bytes().next_multiple_of(DEFAULT_ALIGNMENT)).sum::<u64>())
}

/// Writes texts, whole numbers, truth values and lists of texts beside tensors in the order of `tensors`; `fill` hands the
/// bytes of the one with that index to its sink.
///
/// Fails for other metadata, and for a tensor that gets fewer or more bytes than its shape has.
pub fn write_gguf<E: From<io::Error>>(
    writer: &mut impl Write,
    metadata: &Map<String, Value>,
    tensors: &[GgufTensor],
    mut fill: impl FnMut(usize, &mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    writer.write_all(&header(metadata, tensors)?)?;
    for (index, tensor) in tensors.iter().enumerate() {
        let mut counted = Counted { writer, bytes: 0 };
        fill(index, &mut counted)?;
        let (written, bytes) = (counted.bytes, tensor.bytes());
        if written != bytes {
            return Err(io::Error::other(format!("{written} bytes for {} of {bytes}", tensor.name)).into());
        }
        let padding = bytes.next_multiple_of(DEFAULT_ALIGNMENT) - bytes;
        writer.write_all(&vec![0; padding as usize])?;
    }
    Ok(())
}

struct Counted<'a, W> {
    writer: &'a mut W,
    bytes: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// All before the first tensor's bytes.
fn header(metadata: &Map<String, Value>, tensors: &[GgufTensor]) -> io::Result<Vec<u8>> {
    let mut keys: Vec<(String, Value)> = metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let other_shapes = tensors.iter().filter(|tensor| tensor.stored() != tensor.shape);
    keys.extend(other_shapes.map(|tensor| (format!("{SHAPE_KEY}{}", tensor.name), Value::from(tensor.shape.clone()))));
    let mut header = MAGIC.to_vec();
    header.extend(3u32.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        push_text(&mut header, &key);
        push_value(&mut header, &key, &value)?;
    }
    let mut offset = 0;
    for tensor in tensors {
        push_text(&mut header, &tensor.name);
        let stored = tensor.stored();
        header.extend((stored.len() as u32).to_le_bytes());
        // The file counts the innermost dimension first.
        stored.iter().rev().for_each(|size| header.extend((*size as u64).to_le_bytes()));
        header.extend(tensor.kind.number().to_le_bytes());
        header.extend(u64::to_le_bytes(offset));
        offset += tensor.bytes().next_multiple_of(DEFAULT_ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
    Ok(header)
}

fn push_text(header: &mut Vec<u8>, text: &str) {
    header.extend((text.len() as u64).to_le_bytes());
    header.extend(text.as_bytes());
}

/// A value after the number of its type; a list's elements share one.
fn push_value(header: &mut Vec<u8>, key: &str, value: &Value) -> io::Result<()> {
    header.extend(type_of(key, value)?.to_le_bytes());
    let Value::Array(values) = value else {
        push_bare(header, value);
        return Ok(());
    };
    let types = values.iter().map(|value| type_of(key, value)).collect::<io::Result<Vec<_>>>()?;
    let kind = types.first().copied().unwrap_or(TEXT);
    if kind == LIST || types.iter().any(|other| *other != kind) {
        return Err(io::Error::other(format!("{key} is a list of different kinds")));
    }
    header.extend(kind.to_le_bytes());
    header.extend((values.len() as u64).to_le_bytes());
    values.iter().for_each(|value| push_bare(header, value));
    Ok(())
}

const TRUTH: u32 = 7;
const TEXT: u32 = 8;
const LIST: u32 = 9;
const WHOLE: u32 = 10;

fn type_of(key: &str, value: &Value) -> io::Result<u32> {
    match value {
        Value::Bool(_) => Ok(TRUTH),
        Value::String(_) => Ok(TEXT),
        Value::Array(_) => Ok(LIST),
        Value::Number(number) if number.is_u64() => Ok(WHOLE),
        _ => Err(io::Error::other(format!("{key} is nothing that a gguf file is given: {value}"))),
    }
}

fn push_bare(header: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Bool(value) => header.push((*value).into()),
        Value::String(text) => push_text(header, text),
        value => header.extend(value.as_u64().unwrap_or_default().to_le_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Checkpoint, CheckpointError, ElementType};
    use serde_json::json;

    fn tensor(name: &str, shape: &[usize], kind: GgufType) -> GgufTensor {
        GgufTensor { name: name.to_owned(), shape: shape.to_vec(), kind }
    }

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn what_is_written_reads_back_bit_by_bit() -> Result<(), CheckpointError> {
        let metadata = object(json!({"labels": ["a \"b\"", "ü"], "architecture": "vit", "epoch": 7, "ema": true}));
        let tensors = [
            tensor("norm", &[5], GgufType::F32),
            tensor("depthwise", &[3, 1, 3, 3], GgufType::F16),
            tensor("conv", &[4, 3, 3, 3], GgufType::Q8_0),
            tensor("pointwise", &[2, 32, 1, 1], GgufType::Q4_0),
            tensor("linear", &[2, 64], GgufType::Q5_0),
            tensor("other", &[2, 40], GgufType::Q4_1),
            tensor("none", &[0, 4], GgufType::F32),
        ];
        let bytes = |index: usize| -> Vec<u8> {
            let length = tensors[index].bytes() as usize;
            // Bytes of which each two are a finite number in f16.
            (0..length).map(|byte| (byte * 31 + index) as u8 & 0x3f).collect()
        };
        let mut file = Vec::new();
        write_gguf::<io::Error>(&mut file, &metadata, &tensors, |index, sink| sink.write_all(&bytes(index))).unwrap();
        assert_eq!(file.len() as u64, gguf_bytes(&metadata, &tensors).unwrap());
        let checkpoint = Checkpoint::from_bytes("written.gguf", file)?;
        for (key, value) in &metadata {
            assert_eq!(&checkpoint.metadata()[key], value);
        }
        for (index, tensor) in tensors.iter().enumerate() {
            let info = &checkpoint.tensors()[index];
            assert_eq!((&info.name, &info.shape, info.bytes), (&tensor.name, &tensor.shape, tensor.bytes()));
            match info.element {
                ElementType::Quantized("Q8_0" | "Q4_0" | "Q5_0") => {
                    assert_eq!(checkpoint.read_blocks(&tensor.name)?.unwrap().bytes, bytes(index));
                }
                ElementType::F32 => {
                    let stored = bytes(index);
                    let expected = stored.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four));
                    assert_eq!(checkpoint.read_f32(&tensor.name)?, expected.collect::<Vec<_>>());
                }
                _ => assert_eq!(checkpoint.read_f32(&tensor.name)?.len(), tensor.shape.iter().product::<usize>()),
            }
        }
        Ok(())
    }

    #[test]
    fn a_tensor_of_another_length_and_strange_metadata_are_refused() {
        let tensors = [tensor("a", &[3], GgufType::F32)];
        let write = |metadata: Value, bytes: usize| {
            let fill = |_, sink: &mut dyn Write| sink.write_all(&vec![0; bytes]);
            write_gguf::<io::Error>(&mut Vec::new(), &object(metadata), &tensors, fill)
                .map_err(|error| error.to_string())
        };
        assert_eq!(write(json!({}), 12), Ok(()));
        assert_eq!(write(json!({}), 8).unwrap_err(), "8 bytes for a of 12");
        assert!(write(json!({"map": {}}), 12).unwrap_err().starts_with("map is nothing"));
        assert!(write(json!({"list": [1, "a"]}), 12).unwrap_err().contains("different kinds"));
    }
}
