//! Weights to test with.

use candle_core::Result;

use super::matrix::{BlockType, QuantizedMatrix};
use crate::ops::testing::random;

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
