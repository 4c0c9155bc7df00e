//! Turns stored elements into `f32`: any type, either byte order, any strides.

use half::{bf16, f16};

use super::ElementType;
use super::error::{Fault, malformed};
use super::source::Source;

/// Where the elements of a tensor lie in a source.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// Which of the checkpoint's files holds it.
    pub(super) file: usize,
    /// Byte of the first element in that file.
    pub(super) start: u64,
    /// In elements, one per dimension.
    pub(super) strides: Vec<usize>,
    pub(super) big_endian: bool,
}

impl Stored {
    pub(super) fn row_major(file: usize, start: u64, shape: &[usize]) -> Self {
        Stored { file, start, strides: row_major_strides(shape), big_endian: false }
    }
}

/// The strides of a tensor without gaps. The product of `shape` must fit, as [`count`] checks.
pub(super) fn row_major_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis].max(1));
    }
    strides
}

/// The number of elements of `shape`.
pub(super) fn count(shape: &[usize]) -> Result<usize, Fault> {
    let product = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    product.ok_or_else(|| malformed(format!("the shape {shape:?} has more elements than can be counted")))
}

/// The number of elements from the first to the last one in storage: 0 for an empty tensor, `None` beyond counting.
pub(super) fn extent(shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .zip(strides)
        .try_fold(1usize, |extent, (size, stride)| extent.checked_add((size - 1).checked_mul(*stride)?))
}

/// The elements in row-major order.
pub(super) fn read(source: &Source, element: ElementType, shape: &[usize], stored: &Stored) -> Result<Vec<f32>, Fault> {
    let elements = count(shape)?;
    let whole = Block { source, element, big_endian: stored.big_endian };
    let values = if elements == 0 || squeezed(shape, &stored.strides) == squeezed(shape, &row_major_strides(shape)) {
        whole.read(stored.start, elements)?
    } else {
        let mut values = Vec::with_capacity(elements);
        whole.gather(stored.start, shape, &stored.strides, &mut values)?;
        values
    };
    if values.len() != elements {
        return Err(malformed(format!(
            "its shape {shape:?} needs {elements} elements, but {} were read",
            values.len()
        )));
    }
    Ok(values)
}

/// The strides that matter: an axis of one element never moves.
fn squeezed(shape: &[usize], strides: &[usize]) -> Vec<usize> {
    shape.iter().zip(strides).filter(|(size, _)| **size != 1).map(|(_, stride)| *stride).collect()
}

struct Block<'a> {
    source: &'a Source,
    element: ElementType,
    big_endian: bool,
}

impl Block<'_> {
    /// `elements` neighbouring elements.
    fn read(&self, start: u64, elements: usize) -> Result<Vec<f32>, Fault> {
        let bytes = (elements as u64).checked_mul(self.element.bytes()).filter(|bytes| *bytes <= self.source.len());
        let bytes = bytes.ok_or_else(|| malformed(format!("{elements} elements are more than the file holds")))?;
        let mut values = Vec::with_capacity(elements);
        self.source.chunks(start, bytes, |chunk| extend(&mut values, chunk, self.element, self.big_endian))?;
        Ok(values)
    }

    /// Appends a strided tensor. Storage with few gaps is read at once and picked from; with many, axis by axis,
    /// so that a thin slice of a large storage never costs the whole of it.
    fn gather(&self, start: u64, shape: &[usize], strides: &[usize], values: &mut Vec<f32>) -> Result<(), Fault> {
        let overflow = || malformed("its strides reach beyond any file");
        let extent = extent(shape, strides).ok_or_else(overflow)?;
        if extent <= count(shape)?.saturating_mul(2).saturating_add(4096) {
            let block = self.read(start, extent)?;
            pick(&block, shape, strides, values);
            return Ok(());
        }
        let ([size, shape @ ..], [stride, strides @ ..]) = (shape, strides) else { return Ok(()) };
        let step = (*stride as u64).checked_mul(self.element.bytes()).ok_or_else(overflow)?;
        for index in 0..*size as u64 {
            let offset = index.checked_mul(step).and_then(|offset| start.checked_add(offset)).ok_or_else(overflow)?;
            self.gather(offset, shape, strides, values)?;
        }
        Ok(())
    }
}

/// Appends the elements of a strided tensor whose storage, from its first element on, is `block`.
pub(super) fn pick(block: &[f32], shape: &[usize], strides: &[usize], values: &mut Vec<f32>) {
    match (shape, strides) {
        ([size], [0]) => {
            if let Some(value) = block.first() {
                values.extend(std::iter::repeat_n(*value, *size));
            }
        }
        ([size], [stride]) => values.extend(block.iter().step_by(*stride).take(*size).copied()),
        ([size, shape @ ..], [stride, strides @ ..]) => {
            for index in 0..*size {
                pick(block.get(index * stride..).unwrap_or_default(), shape, strides, values);
            }
        }
        _ => values.extend(block.first()),
    }
}

fn extend(values: &mut Vec<f32>, bytes: &[u8], element: ElementType, big_endian: bool) {
    macro_rules! numbers {
        ($number:ty, $convert:expr) => {{
            let (chunks, _) = bytes.as_chunks::<{ size_of::<$number>() }>();
            match big_endian {
                true => values.extend(chunks.iter().map(|bytes| $convert(<$number>::from_be_bytes(*bytes)))),
                false => values.extend(chunks.iter().map(|bytes| $convert(<$number>::from_le_bytes(*bytes)))),
            }
        }};
    }
    match element {
        ElementType::F64 => numbers!(f64, |value| value as f32),
        ElementType::F32 => numbers!(f32, |value| value),
        ElementType::F16 => numbers!(f16, f16::to_f32),
        ElementType::BF16 => numbers!(bf16, bf16::to_f32),
        ElementType::I64 => numbers!(i64, |value| value as f32),
        ElementType::I32 => numbers!(i32, |value| value as f32),
        ElementType::I16 => numbers!(i16, f32::from),
        ElementType::I8 => numbers!(i8, f32::from),
        ElementType::U8 => numbers!(u8, f32::from),
        ElementType::Bool => values.extend(bytes.iter().map(|byte| f32::from(*byte != 0))),
        ElementType::Quantized(_) => {} // read by its blocks, in `gguf`
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_strided(numbers: &[f32], shape: &[usize], strides: &[usize]) -> Result<Vec<f32>, Fault> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let stored = Stored { file: 0, start: 0, strides: strides.to_vec(), big_endian: false };
        read(&Source::Memory(bytes.into()), ElementType::F32, shape, &stored)
    }

    #[test]
    fn an_axis_of_stride_0_repeats_what_it_holds() {
        assert_eq!(read_strided(&[7.0], &[64], &[0]).unwrap(), [7.0; 64]);
        assert_eq!(read_strided(&[1.0, 2.0, 3.0], &[3, 2], &[1, 0]).unwrap(), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
        assert_eq!(read_strided(&[1.0, 2.0, 3.0], &[2, 3], &[0, 1]).unwrap(), [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
        assert_eq!(read_strided(&[5.0], &[2, 3], &[0, 0]).unwrap(), [5.0; 6]);
    }

    #[test]
    fn an_axis_of_stride_0_repeats_across_large_gaps_too() {
        let numbers: Vec<f32> = (0..10_001).map(|n| n as f32).collect();
        assert_eq!(read_strided(&numbers, &[2, 2], &[10_000, 0]).unwrap(), [0.0, 0.0, 10_000.0, 10_000.0]);
        assert_eq!(read_strided(&numbers, &[2, 2], &[0, 10_000]).unwrap(), [0.0, 10_000.0, 0.0, 10_000.0]);
    }

    #[test]
    fn a_wrong_number_of_elements_is_an_error() {
        assert!(read_strided(&[1.0, 2.0], &[3], &[1]).is_err());
        assert!(read_strided(&[1.0, 2.0], &[2, 2], &[0, 2]).is_err());
        // More axes than strides: the last one is left out.
        assert!(read_strided(&[1.0, 2.0], &[2, 2], &[0]).is_err());
    }
}
