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

/// Writes a block of `width` × `height` pixels to `output`, whose rows are `stride` apart.
pub type BlockFunction = fn(coefficients: &[i32; 64], output: &mut [u8], stride: usize);

/// The inverse DCT for blocks of this size (each of 1, 2, 4, 8). Coefficients are dequantized, in rows of 8.
pub fn block_function(width: usize, height: usize) -> BlockFunction {
    match (width, height) {
        (1, 1) => inverse::<1, 1>,
        (1, 2) => inverse::<1, 2>,
        (1, 4) => inverse::<1, 4>,
        (1, 8) => inverse::<1, 8>,
        (2, 1) => inverse::<2, 1>,
        (2, 2) => inverse::<2, 2>,
        (2, 4) => inverse::<2, 4>,
        (2, 8) => inverse::<2, 8>,
        (4, 1) => inverse::<4, 1>,
        (4, 2) => inverse::<4, 2>,
        (4, 4) => inverse::<4, 4>,
        (4, 8) => inverse::<4, 8>,
        (8, 1) => inverse::<8, 1>,
        (8, 2) => inverse::<8, 2>,
        (8, 4) => inverse::<8, 4>,
        _ => islow::inverse,
    }
}

fn inverse<const W: usize, const H: usize>(coefficients: &[i32; 64], output: &mut [u8], stride: usize) {
    let (across, down) = (basis(W), basis(H));
    let mut columns = [[0.0_f32; W]; H];
    for (frequency, weights) in down.iter().enumerate().take(H) {
        let row = &coefficients[frequency * 8..frequency * 8 + W];
        // Most blocks have nothing but low frequencies.
        if frequency > 0 && row.iter().all(|coefficient| *coefficient == 0) {
            continue;
        }
        for (line, weight) in columns.iter_mut().zip(weights) {
            line.iter_mut().zip(row).for_each(|(sum, coefficient)| *sum += weight * *coefficient as f32);
        }
    }
    for (line, output) in columns.iter().zip(output.chunks_mut(stride)) {
        // The half makes the conversion to whole numbers, which cuts off, a rounding.
        let mut pixels = [128.5_f32; W];
        for (coefficient, weights) in line.iter().zip(across) {
            pixels.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight * coefficient);
        }
        output.iter_mut().zip(pixels).for_each(|(output, pixel)| *output = pixel as u8);
    }
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
                block_function(width, height)(&coefficients, &mut output, 8);
                for row in output.chunks(8).take(height) {
                    assert!(row[..width].iter().all(|pixel| *pixel == 178), "{width} × {height}");
                }
            }
        }
    }
}
