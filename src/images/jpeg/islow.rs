//! The full-size inverse DCT of libjpeg ("islow": Loeffler, Ligtenberg and Moschytz, 13-bit constants), to the last bit,
//! so that photos decode to the pixels that networks were trained on.

const CONSTANT_BITS: u32 = 13;
/// Extra precision between the passes.
const PASS1_BITS: u32 = 2;

/// Writes 8 × 8 pixels to `output`, whose rows are `stride` apart. Coefficients are dequantized, in rows of 8.
#[inline(always)]
pub fn inverse(coefficients: &[i32; 64], output: &mut [u8], stride: usize) {
    if coefficients[1..].iter().all(|coefficient| *coefficient == 0) {
        // Both passes of a constant come to this.
        let pixel = (coefficients[0].wrapping_add(4) >> 3).wrapping_add(128).clamp(0, 255) as u8;
        return output.chunks_mut(stride).take(8).for_each(|row| row[..8].fill(pixel));
    }
    both_passes(coefficients, output, stride);
}

/// Eight rows of eight.
type Square = [[i32; 8]; 8];

#[inline(always)]
fn both_passes(coefficients: &[i32; 64], output: &mut [u8], stride: usize) {
    let (rows, _) = coefficients.as_chunks::<8>();
    let (mut across, mut down) = (Square::default(), Square::default());
    pass::<{ CONSTANT_BITS - PASS1_BITS }>(rows, &mut across);
    transpose(&across, &mut down);
    pass::<{ CONSTANT_BITS + PASS1_BITS + 3 }>(&down, &mut across);
    transpose(&across, &mut down);
    for (pixels, output) in down.iter().zip(output.chunks_mut(stride)) {
        for (output, pixel) in output[..8].iter_mut().zip(pixels) {
            *output = pixel.wrapping_add(128).clamp(0, 255) as u8;
        }
    }
}

/// One 8-point transform down each column, divided by a power of two and rounded. Constants are the standard's cosines
/// times 2¹³ (`jidctint.c`). Hostile coefficients overflow; what becomes of them does not matter.
#[inline(always)]
fn pass<const DESCALE_BITS: u32>(rows: &[[i32; 8]], result: &mut Square) {
    for lane in 0..8 {
        let x = |row: usize| rows[row][lane];
        let plus = i32::wrapping_add;
        let minus = i32::wrapping_sub;
        let times = i32::wrapping_mul;

        let rotated = times(plus(x(2), x(6)), 4_433);
        let even2 = minus(rotated, times(x(6), 15_137));
        let even3 = plus(rotated, times(x(2), 6_270));
        let even0 = times(plus(x(0), x(4)), 1 << CONSTANT_BITS);
        let even1 = times(minus(x(0), x(4)), 1 << CONSTANT_BITS);
        let even = [plus(even0, even3), plus(even1, even2), minus(even1, even2), minus(even0, even3)];

        let z5 = times(plus(plus(x(7), x(3)), plus(x(5), x(1))), 9_633);
        let z1 = times(plus(x(7), x(1)), -7_373);
        let z2 = times(plus(x(5), x(3)), -20_995);
        let z3 = plus(times(plus(x(7), x(3)), -16_069), z5);
        let z4 = plus(times(plus(x(5), x(1)), -3_196), z5);
        let odd = [
            plus(plus(times(x(1), 12_299), z1), z4),
            plus(plus(times(x(3), 25_172), z2), z3),
            plus(plus(times(x(5), 16_819), z2), z4),
            plus(plus(times(x(7), 2_446), z1), z3),
        ];
        let rounded = |sum: i32| plus(sum, 1 << (DESCALE_BITS - 1)) >> DESCALE_BITS;
        for row in 0..4 {
            result[row][lane] = rounded(plus(even[row], odd[row]));
            result[7 - row][lane] = rounded(minus(even[row], odd[row]));
        }
    }
}

#[inline(always)]
fn transpose(from: &Square, to: &mut Square) {
    #[cfg(target_arch = "x86_64")]
    if let Some(v3) = pulp::x86::V3::try_new() {
        return transpose_avx2(v3, from, to);
    }
    for (row, line) in to.iter_mut().enumerate() {
        *line = std::array::from_fn(|column| from[column][row]);
    }
}

/// The same in 24 instructions that the compiler does not find.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transpose_avx2(pulp::x86::V3 { avx2, .. }: pulp::x86::V3, from: &Square, to: &mut Square) {
    let mut pairs = [[pulp::cast([0_i32; 8]); 2]; 4];
    for (pair, rows) in pairs.iter_mut().zip(from.as_chunks::<2>().0) {
        let [a, b] = rows.map(pulp::cast);
        *pair = [avx2._mm256_unpacklo_epi32(a, b), avx2._mm256_unpackhi_epi32(a, b)];
    }
    // Columns 0 to 3 of four rows, with columns 4 to 7 in their upper halves.
    let mut fours = [[pairs[0][0]; 4]; 2];
    for (four, [[a, b], [c, d]]) in fours.iter_mut().zip(pairs.as_chunks::<2>().0.iter().copied()) {
        *four = [
            avx2._mm256_unpacklo_epi64(a, c),
            avx2._mm256_unpackhi_epi64(a, c),
            avx2._mm256_unpacklo_epi64(b, d),
            avx2._mm256_unpackhi_epi64(b, d),
        ];
    }
    for column in 0..4 {
        let (a, b) = (fours[0][column], fours[1][column]);
        to[column] = pulp::cast(avx2._mm256_permute2x128_si256::<0x20>(a, b));
        to[column + 4] = pulp::cast(avx2._mm256_permute2x128_si256::<0x31>(a, b));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_undoes_the_forward_transform() {
        let pixels: [f64; 64] = std::array::from_fn(|at| ((at * at * 37 + at * 11) % 256) as f64);
        let coefficients = std::array::from_fn(|at| {
            let wave = |frequency: usize, position: usize| {
                let scale = if frequency == 0 { 0.5_f64.sqrt() } else { 1.0 } / 2.0;
                scale * ((2 * position + 1) as f64 * frequency as f64 * std::f64::consts::PI / 16.0).cos()
            };
            let sum: f64 = (0..64).map(|p| (pixels[p] - 128.0) * wave(at / 8, p / 8) * wave(at % 8, p % 8)).sum();
            sum.round() as i32
        });
        let mut output = [0; 64];
        inverse(&coefficients, &mut output, 8);
        // Whole coefficients are off by up to a half each, which adds up to little more than one level.
        assert!(output.iter().zip(pixels).all(|(a, b)| (f64::from(*a) - b).abs() <= 2.0));
    }

    #[test]
    fn a_constant_block_is_what_both_passes_make_of_it() {
        for constant in -1100..1100 {
            let mut coefficients = [0; 64];
            coefficients[0] = constant;
            let (mut short, mut full) = ([0; 64], [0; 64]);
            inverse(&coefficients, &mut short, 8);
            both_passes(&coefficients, &mut full, 8);
            assert_eq!(short, full);
        }
    }

    #[test]
    fn transposing_swaps_rows_and_columns() {
        let from: Square = std::array::from_fn(|row| std::array::from_fn(|column| (row * 8 + column) as i32));
        let mut to = Square::default();
        transpose(&from, &mut to);
        let expected: Square = std::array::from_fn(|row| std::array::from_fn(|column| (column * 8 + row) as i32));
        assert_eq!(to, expected);
    }

    #[test]
    fn hostile_coefficients_do_not_overflow() {
        for value in [i32::MIN, i32::MAX] {
            inverse(&[value; 64], &mut [0; 64], 8);
        }
    }
}
