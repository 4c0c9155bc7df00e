//! The inverse DCT at a reduced size: a block of 8 × 8 coefficients becomes 1, 2, 4 or 8 pixels each way, from its
//! lowest frequencies alone. That is a low-pass filter and a reduction in one, and far less work than either. Full
//! blocks are libjpeg's ([`islow`]).

use std::sync::OnceLock;

use super::islow;

/// Basis functions by size (1, 2, 4, 8): `basis[size][frequency][position]`.
///
/// The coefficients of JPEG are those of an orthonormal 8-point DCT. Those of an n-point DCT of the reduced picture
/// are smaller by √(n/8), so the factor `√(2/n)` of its basis becomes ½ for every size.
fn basis(size: usize) -> &'static [[f32; 8]; 8] {
    static TABLES: OnceLock<[[[f32; 8]; 8]; 4]> = OnceLock::new();
    let tables = TABLES.get_or_init(|| [1, 2, 4, 8].map(table));
    &tables[size.trailing_zeros() as usize]
}

fn table(size: usize) -> [[f32; 8]; 8] {
    let mut table = [[0.0; 8]; 8];
    for (frequency, row) in table.iter_mut().enumerate().take(size) {
        let weight = if frequency == 0 { 0.5 * std::f64::consts::FRAC_1_SQRT_2 } else { 0.5 };
        for (position, value) in row.iter_mut().enumerate().take(size) {
            let angle = (2 * position + 1) as f64 * frequency as f64 * std::f64::consts::PI / (2 * size) as f64;
            *value = (weight * angle.cos()) as f32;
        }
    }
    table
}

/// Writes a block of `width` × `height` pixels (each of 1, 2, 4, 8) to `output`, whose rows are `stride` apart.
/// Coefficients are dequantized, in rows of 8.
#[inline(always)]
pub fn inverse((width, height): (usize, usize), coefficients: &[i32; 64], output: &mut [u8], stride: usize) {
    match (width, height) {
        (8, 8) => islow::inverse(coefficients, output, stride),
        (4, 4) => reduced::<4, 4>(coefficients, output, stride),
        (2, 2) => reduced::<2, 2>(coefficients, output, stride),
        (1, 1) => reduced::<1, 1>(coefficients, output, stride),
        _ => oblong(width, height)(coefficients, output, stride),
    }
}

type BlockFunction = fn(coefficients: &[i32; 64], output: &mut [u8], stride: usize);

/// What a channel needs that is reduced more one way than the other: rare enough to do without vector instructions.
fn oblong(width: usize, height: usize) -> BlockFunction {
    match (width, height) {
        (1, 2) => reduced::<1, 2>,
        (1, 4) => reduced::<1, 4>,
        (1, 8) => reduced::<1, 8>,
        (2, 1) => reduced::<2, 1>,
        (2, 4) => reduced::<2, 4>,
        (2, 8) => reduced::<2, 8>,
        (4, 1) => reduced::<4, 1>,
        (4, 2) => reduced::<4, 2>,
        (4, 8) => reduced::<4, 8>,
        (8, 1) => reduced::<8, 1>,
        (8, 2) => reduced::<8, 2>,
        _ => reduced::<8, 4>,
    }
}

#[inline(always)]
fn reduced<const W: usize, const H: usize>(coefficients: &[i32; 64], output: &mut [u8], stride: usize) {
    let (across, down) = (basis(W), basis(H));
    let mut columns = [[0.0_f32; W]; H];
    for frequency in 0..H {
        let row: [f32; W] = std::array::from_fn(|x| coefficients[frequency * 8 + x] as f32);
        for (y, line) in columns.iter_mut().enumerate() {
            line.iter_mut().zip(row).for_each(|(sum, coefficient)| *sum += down[frequency][y] * coefficient);
        }
    }
    for (line, output) in columns.iter().zip(output.chunks_mut(stride)) {
        // The half makes the conversion to whole numbers, which cuts off, a rounding.
        let mut pixels = [128.5_f32; W];
        for (coefficient, weights) in line.iter().zip(across) {
            pixels.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight * coefficient);
        }
        output[..W].copy_from_slice(&pixels.map(level));
    }
}

/// `pixel as u8` in a form that has vector instructions: numbers of 24 bits end in their whole part.
#[inline(always)]
fn level(pixel: f32) -> u8 {
    const WHOLE: f32 = (1 << 23) as f32;
    let light = if pixel > 0.0 { pixel } else { 0.0 }; // what is no number is black
    let light = if light < 255.0 { light } else { 255.0 };
    (light.floor() + WHOLE).to_bits() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_block_is_constant_at_every_size() {
        let mut coefficients = [0; 64];
        coefficients[0] = 8 * 50;
        for width in [1, 2, 4, 8] {
            for height in [1, 2, 4, 8] {
                let mut output = [0; 64];
                inverse((width, height), &coefficients, &mut output, 8);
                for row in output.chunks(8).take(height) {
                    assert!(row[..width].iter().all(|pixel| *pixel == 178), "{width} × {height}");
                }
            }
        }
    }
}
