//! The oracle of the quantized layers: rounding in plain code.

use candle_core::{Device, Result, Tensor};

use super::matrix::{BlockType, QuantizedMatrix};
use crate::ops::testing::random;

/// A tensor whose values were rounded to bytes by the range of all of them.
pub fn rounded(x: &Tensor) -> Result<Tensor> {
    let values = x.flatten_all()?.to_vec1::<f32>()?;
    let least = values.iter().copied().fold(0.0, f32::min);
    let most = values.iter().copied().fold(0.0, f32::max);
    let scale = most / 255.0 - least / 255.0;
    let zero = (-least / scale).round_ties_even();
    let round = |value: f32| ((value / scale + zero).round_ties_even().clamp(0.0, 255.0) - zero) * scale;
    let values: Vec<f32> = values.into_iter().map(round).collect();
    Tensor::from_vec(values, x.shape(), &Device::Cpu)
}

/// The same with each row by its own range.
pub fn rounded_rows(x: &Tensor) -> Result<Tensor> {
    let rows = x.flatten_to(x.rank() - 2)?;
    let rounded: Vec<Tensor> = (0..rows.dim(0)?).map(|row| rounded(&rows.get(row)?)).collect::<Result<_>>()?;
    Tensor::stack(&rounded, 0)?.reshape(x.shape())
}

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

/// The weight as a tensor of shape `(depth, columns)`.
pub fn dequantized(weight: &QuantizedMatrix) -> Result<Tensor> {
    let (depth, columns) = (weight.depth(), weight.columns());
    let places = (0..depth).flat_map(|row| (0..columns).map(move |column| (row, column)));
    let values: Vec<f32> = places.map(|(row, column)| weight.value(row, column)).collect();
    Tensor::from_vec(values, (depth, columns), &Device::Cpu)
}
