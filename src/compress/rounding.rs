//! Rounds rows of a weight to the blocks of `.gguf` files.
//!
//! Source of the layouts: ggml's `ggml-quants.c`. In 8 bits all blocks of a row share a scale, so that a kernel sums whole rows
//! in integers; in 4 and 5 bits each block has the scale that loses least, found among some near the one that fits the value
//! furthest from zero (as ggml's `make_qx_quants` does).

use half::f16;

use crate::checkpoint::GgufType;

/// Values that share a scale.
const BLOCK: usize = 32;
/// The largest value in 8 bits.
const LARGEST: f32 = 127.0;
/// Scales that are tried on either side of the first, and how far they are apart, in steps of the value furthest from zero.
const TRIED: i32 = 9;
const APART: f32 = 0.1;

/// Appends a row in whole blocks to `bytes`, and the values that a reader will get for it to `values`.
///
/// `importance` weighs the squared error of each value; without it all count the same.
pub fn round_row(kind: GgufType, row: &[f32], importance: Option<&[f32]>, bytes: &mut Vec<u8>, values: &mut Vec<f32>) {
    let begin = values.len();
    match kind {
        GgufType::F32 => {
            bytes.extend(row.iter().flat_map(|value| value.to_le_bytes()));
            values.extend(row);
        }
        GgufType::F16 => {
            let halves = row.iter().map(|value| f16::from_f32(*value));
            bytes.extend(halves.clone().flat_map(f16::to_le_bytes));
            values.extend(halves.map(f16::to_f32));
        }
        GgufType::Q8_0 => round_to_8_bits(row, bytes, values),
        kind => {
            for (index, block) in row.chunks(BLOCK).enumerate() {
                let importance = importance.map(|importance| &importance[index * BLOCK..][..block.len()]);
                round_block(kind, block, importance, bytes, values);
            }
        }
    }
    values.truncate(begin + row.len());
}

fn round_to_8_bits(row: &[f32], bytes: &mut Vec<u8>, values: &mut Vec<f32>) {
    let largest = row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = up(largest / LARGEST);
    let inverse = if scale.to_f32() > 0.0 { 1.0 / scale.to_f32() } else { 0.0 };
    for block in row.chunks(BLOCK) {
        let mut rounded = [0i8; BLOCK];
        for (rounded, value) in rounded.iter_mut().zip(block) {
            *rounded = nearest_whole(value * inverse).clamp(-LARGEST, LARGEST) as i8;
        }
        bytes.extend(scale.to_le_bytes());
        bytes.extend(rounded.map(|value| value as u8));
        values.extend(rounded.map(|value| f32::from(value) * scale.to_f32()));
    }
}

/// The whole number nearest to a `value` below 2^22, the even one of two: what `round_ties_even` gives, which is a call of a
/// function where the processor is not known to round.
fn nearest_whole(value: f32) -> f32 {
    const WHOLE_ABOVE: f32 = 12_582_912.0; // 1.5 · 2^23
    value + WHOLE_ABOVE - WHOLE_ABOVE
}

/// The least half that is not below `value`, which is not negative: a scale that is too small would cut the largest value.
fn up(value: f32) -> f16 {
    let near = f16::from_f32(value);
    if near.to_f32() < value { f16::from_bits(near.to_bits() + 1) } else { near }
}

fn round_block(kind: GgufType, block: &[f32], importance: Option<&[f32]>, bytes: &mut Vec<u8>, values: &mut Vec<f32>) {
    let mut padded = [0.0; BLOCK];
    padded[..block.len()].copy_from_slice(block);
    let mut weights = [0.0; BLOCK];
    match importance {
        Some(importance) => weights[..block.len()].copy_from_slice(importance),
        None => weights[..block.len()].fill(1.0),
    }
    let (levels, scale, least) = match kind {
        GgufType::Q5_0 => symmetric(&padded, &weights, 16),
        GgufType::Q4_1 => between_least_and_most(block, &padded),
        _ => symmetric(&padded, &weights, 8),
    };
    bytes.extend(scale.to_le_bytes());
    if kind == GgufType::Q4_1 {
        bytes.extend(least.to_le_bytes());
    }
    if kind == GgufType::Q5_0 {
        let fifth = levels.iter().enumerate().fold(0u32, |bits, (place, level)| bits | u32::from(level >> 4) << place);
        bytes.extend(fifth.to_le_bytes());
    }
    let (low, high) = levels.split_at(BLOCK / 2);
    bytes.extend(low.iter().zip(high).map(|(low, high)| low & 15 | (high & 15) << 4));
    let middle = match kind {
        GgufType::Q5_0 => 16.0,
        GgufType::Q4_1 => 0.0,
        _ => 8.0,
    };
    values.extend(levels.map(|level| (f32::from(level) - middle) * scale.to_f32() + least.to_f32()));
}

/// Levels from 0 to `2 · middle - 1`, of which `middle` is zero, and the scale with which they are nearest.
fn symmetric(block: &[f32; BLOCK], weights: &[f32; BLOCK], middle: u8) -> ([u8; BLOCK], f16, f16) {
    let furthest = block.iter().fold(0.0f32, |far, value| if value.abs() > far.abs() { *value } else { far });
    if furthest == 0.0 {
        return ([middle; BLOCK], f16::ZERO, f16::ZERO);
    }
    let middle = f32::from(middle);
    let level = |value: f32, inverse: f32| nearest_whole(value * inverse).clamp(-middle, middle - 1.0);
    let nearest = |scale: f16| {
        let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
        let error = |(value, weight): (&f32, &f32)| {
            let lost = value - level(*value, inverse) * scale.to_f32();
            weight * lost * lost
        };
        (block.iter().zip(weights).map(error).sum::<f32>(), scale)
    };
    let tried = (-TRIED..=TRIED).map(|step| {
        let inverse = -(middle + APART * step as f32) / furthest;
        // With levels given, the scale of least squares.
        let (mut product, mut squares) = (0.0, 0.0);
        for (value, weight) in block.iter().zip(weights) {
            let level = level(*value, inverse);
            product += weight * value * level;
            squares += weight * level * level;
        }
        f16::from_f32(if squares > 0.0 { product / squares } else { 1.0 / inverse })
    });
    let first = f16::from_f32(-furthest / middle);
    let (_, scale) = tried.map(nearest).fold(nearest(first), |best, other| if other.0 < best.0 { other } else { best });
    let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
    (block.map(|value| (level(value, inverse) + middle) as u8), scale, f16::ZERO)
}

/// Levels from 0 to 15 above the least value.
fn between_least_and_most(block: &[f32], padded: &[f32; BLOCK]) -> ([u8; BLOCK], f16, f16) {
    let least = block.iter().copied().fold(f32::INFINITY, f32::min);
    let most = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (scale, least) = (f16::from_f32((most - least) / 15.0), f16::from_f32(least));
    let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
    let level = |value: f32| nearest_whole((value - least.to_f32()) * inverse).clamp(0.0, 15.0) as u8;
    (padded.map(level), scale, least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::{GgmlDType, QTensor, ggml_file::qtensor_from_ggml};
    use candle_core::{Device, Tensor};

    const TYPES: [(GgufType, GgmlDType); 4] = [
        (GgufType::Q8_0, GgmlDType::Q8_0),
        (GgufType::Q5_0, GgmlDType::Q5_0),
        (GgufType::Q4_1, GgmlDType::Q4_1),
        (GgufType::Q4_0, GgmlDType::Q4_0),
    ];

    /// Bell-shaped values, as weights are, with a far one here and there.
    fn row(length: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut uniform = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..length)
            .map(|place| (0..6).map(|_| uniform()).sum::<f32>() * if place % 97 == 5 { 0.4 } else { 0.1 })
            .collect()
    }

    fn rounded(kind: GgufType, row: &[f32], importance: Option<&[f32]>) -> (Vec<u8>, Vec<f32>) {
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        round_row(kind, row, importance, &mut bytes, &mut values);
        (bytes, values)
    }

    fn error(row: &[f32], values: &[f32], importance: impl Fn(usize) -> f32) -> f32 {
        row.iter().zip(values).enumerate().map(|(place, (one, other))| importance(place) * (one - other).powi(2)).sum()
    }

    #[test]
    fn the_blocks_hold_what_candle_reads_from_them() {
        for (kind, theirs) in TYPES {
            for length in [32, 320, 77, 5] {
                let row = row(length, 3);
                let (bytes, values) = rounded(kind, &row, None);
                assert_eq!(bytes.len() as u64, kind.bytes_of(&[1, length]));
                let padded = length.next_multiple_of(BLOCK);
                let read = qtensor_from_ggml(theirs, &bytes, vec![padded], &Device::Cpu).unwrap();
                let read = read.dequantize(&Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(values, read[..length], "{kind:?} {length}");
                if kind != GgufType::Q4_1 {
                    assert!(read[length..].iter().all(|value| *value == 0.0));
                }
            }
        }
    }

    #[test]
    fn nothing_is_further_off_than_candles_rounding() {
        for (kind, theirs) in TYPES {
            let row = row(4096, 5);
            let tensor = Tensor::new(row.as_slice(), &Device::Cpu).unwrap();
            let theirs = QTensor::quantize(&tensor, theirs).unwrap().dequantize(&Device::Cpu).unwrap();
            let theirs = error(&row, &theirs.to_vec1().unwrap(), |_| 1.0);
            let ours = error(&row, &rounded(kind, &row, None).1, |_| 1.0);
            // The scale of a whole row is coarser than one per block.
            let allowed = if kind == GgufType::Q8_0 { 8.0 } else { 1.001 };
            assert!(ours <= allowed * theirs, "{kind:?} {ours} {theirs}");
            if matches!(kind, GgufType::Q4_0 | GgufType::Q5_0) {
                assert!(ours < 0.95 * theirs, "{kind:?} {ours} {theirs}");
            }
        }
    }

    #[test]
    fn what_matters_is_nearer() {
        let row = row(640, 7);
        let importance: Vec<f32> = (0..640).map(|place| if place % 5 == 0 { 50.0 } else { 0.1 }).collect();
        let of = |values: &[f32]| error(&row, values, |place| importance[place]);
        let plain = of(&rounded(GgufType::Q4_0, &row, None).1);
        assert!(of(&rounded(GgufType::Q4_0, &row, Some(&importance)).1) < 0.8 * plain);
    }

    #[test]
    fn the_nearest_whole_number_is_rounds() {
        for step in -100_000..100_000 {
            let value = step as f32 * 0.0125;
            assert_eq!(nearest_whole(value), value.round_ties_even());
        }
    }

    #[test]
    fn the_largest_value_of_a_row_is_never_cut() {
        for largest in [1.0f32, 0.3333, 1e-4, 6e-6, 900.0] {
            let (_, values) = rounded(GgufType::Q8_0, &[largest, -largest, 0.0, largest * 0.5], None);
            assert!((values[0] - largest).abs() <= largest / 127.0 + 6e-8, "{largest} {values:?}");
            assert_eq!(values[0], -values[1]);
        }
        for (kind, _) in TYPES {
            assert_eq!(rounded(kind, &[0.0; 40], None).1, [0.0; 40]);
        }
    }
}
