//! Weights and rows to test with.

use std::mem::MaybeUninit;

use candle_core::Result;

use super::activations::{Code, encode_rows_finely};
use super::instructions::Instructions;
use super::matrix::{BlockType, QuantizedMatrix};
use super::product::CodedRows;
use crate::ops::testing::random;
use crate::ops::written;

/// Weights in every form.
pub fn weights(depth: usize, columns: usize) -> Result<Vec<QuantizedMatrix>> {
    let plain = random(&[depth, columns], 2)?.to_vec2::<f32>()?;
    let element = |row: usize, column: usize| plain[row][column];
    let block = |column: usize, block: usize| {
        let mut bytes = half::f16::from_f32(1e-2 / (1 + block) as f32).to_le_bytes().to_vec();
        bytes.extend(
            (0..32).map(|index| plain.get(32 * block + index).map_or(0, |row| (row[column] * 127.0) as i8 as u8)),
        );
        bytes
    };
    let blocks = |column| (0..depth.div_ceil(32)).flat_map(move |index| block(column, index));
    let stored: Vec<u8> = (0..columns).flat_map(blocks).collect();
    let whole = QuantizedMatrix::from_blocks(BlockType::Q8_0, &stored, [1, depth], columns, |_| 1.0);
    let forms =
        [QuantizedMatrix::new([1, depth], columns, element), QuantizedMatrix::in_4_bits([1, depth], columns, element)];
    Ok(forms.into_iter().chain(whole).collect())
}

/// A sequence of numbers without pattern.
pub fn numbers(seed: u64) -> impl Iterator<Item = u64> {
    (0..).map(move |index: u64| {
        let z = (index + seed * 77).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (z ^ (z >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 33
    })
}

/// Bytes of rows, up to the largest that the instructions take.
pub fn row_bytes(length: usize, instructions: Instructions) -> Vec<u8> {
    let values = u64::from(instructions.largest_byte()) + 1;
    numbers(1).map(|number| (number % values) as u8).take(length).collect()
}

pub fn floats(length: usize, seed: u64) -> Vec<f32> {
    random(&[length], seed).unwrap().to_vec1().unwrap()
}

/// Rows in 16 bits.
pub struct Fine {
    bytes: Vec<u8>,
    rests: Vec<u8>,
    codes: Vec<Code>,
}

impl Fine {
    pub fn new(values: &[f32], length: usize) -> Self {
        let [mut bytes, mut rests] = [(); 2].map(|()| vec![MaybeUninit::new(0); values.len()]);
        let mut codes = vec![Code::default(); values.len() / length];
        encode_rows_finely(values, length, &mut bytes, &mut rests, &mut codes);
        // SAFETY: all have been zero from the beginning.
        let [bytes, rests] = [bytes, rests].map(|bytes| unsafe { written(bytes) });
        Self { bytes, rests, codes: codes.iter().map(|code| code.fine()).collect() }
    }

    pub fn rows(&self) -> CodedRows<'_> {
        CodedRows { bytes: &self.bytes, rests: &self.rests, codes: &self.codes }
    }

    pub fn values(&self, length: usize) -> Vec<f32> {
        let mut values = vec![0.0; self.codes.len() * length];
        for (row, (values, code)) in values.chunks_exact_mut(length).zip(&self.codes).enumerate() {
            code.decode(&self.bytes[row * length..], &self.rests[row * length..], values);
        }
        values
    }
}
