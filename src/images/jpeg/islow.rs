//! The full-size inverse DCT of libjpeg ("islow": Loeffler, Ligtenberg and Moschytz, 13-bit constants), to the last bit,
//! so that photos decode to the pixels that networks were trained on.

/// Eight columns at a time.
#[derive(Clone, Copy)]
struct Lanes([i32; 8]);

impl Lanes {
    #[inline]
    fn zip(self, other: Self, operation: impl Fn(i32, i32) -> i32) -> Self {
        Self(std::array::from_fn(|lane| operation(self.0[lane], other.0[lane])))
    }

    // Hostile coefficients overflow; what becomes of them does not matter.
    #[inline]
    fn plus(self, other: Self) -> Self {
        self.zip(other, i32::wrapping_add)
    }

    #[inline]
    fn minus(self, other: Self) -> Self {
        self.zip(other, i32::wrapping_sub)
    }

    #[inline]
    fn times(self, factor: i32) -> Self {
        Self(self.0.map(|value| value.wrapping_mul(factor)))
    }

    /// Divided by a power of two and rounded.
    #[inline]
    fn descale(self, bits: u32) -> Self {
        Self(self.0.map(|value| value.wrapping_add(1 << (bits - 1)) >> bits))
    }
}

const CONSTANT_BITS: u32 = 13;
/// Extra precision between the passes.
const PASS1_BITS: u32 = 2;

/// Writes 8 × 8 pixels to `output`, whose rows are `stride` apart. Coefficients are dequantized, in rows of 8.
pub fn inverse(coefficients: &[i32; 64], output: &mut [u8], stride: usize) {
    if coefficients[1..].iter().all(|coefficient| *coefficient == 0) {
        // Both passes of a constant come to this.
        let pixel = (coefficients[0].wrapping_add(4) >> 3).wrapping_add(128).clamp(0, 255) as u8;
        return output.chunks_mut(stride).take(8).for_each(|row| row[..8].fill(pixel));
    }
    both_passes(coefficients, output, stride);
}

fn both_passes(coefficients: &[i32; 64], output: &mut [u8], stride: usize) {
    let rows = std::array::from_fn(|row| Lanes(std::array::from_fn(|lane| coefficients[row * 8 + lane])));
    let columns = transpose(pass(rows, CONSTANT_BITS - PASS1_BITS));
    let pixels = transpose(pass(columns, CONSTANT_BITS + PASS1_BITS + 3));
    for (Lanes(pixels), output) in pixels.iter().zip(output.chunks_mut(stride)) {
        for (output, pixel) in output.iter_mut().zip(pixels) {
            *output = pixel.wrapping_add(128).clamp(0, 255) as u8;
        }
    }
}

fn transpose(rows: [Lanes; 8]) -> [Lanes; 8] {
    std::array::from_fn(|row| Lanes(std::array::from_fn(|lane| rows[lane].0[row])))
}

/// One 8-point transform down each column. Constants are the standard's cosines times 2¹³ (`jidctint.c`).
#[inline]
fn pass(x: [Lanes; 8], descale_bits: u32) -> [Lanes; 8] {
    let rotated = x[2].plus(x[6]).times(4_433);
    let even2 = rotated.minus(x[6].times(15_137));
    let even3 = rotated.plus(x[2].times(6_270));
    let even0 = x[0].plus(x[4]).times(1 << CONSTANT_BITS);
    let even1 = x[0].minus(x[4]).times(1 << CONSTANT_BITS);
    let even = [even0.plus(even3), even1.plus(even2), even1.minus(even2), even0.minus(even3)];

    let z5 = x[7].plus(x[3]).plus(x[5].plus(x[1])).times(9_633);
    let z1 = x[7].plus(x[1]).times(-7_373);
    let z2 = x[5].plus(x[3]).times(-20_995);
    let z3 = x[7].plus(x[3]).times(-16_069).plus(z5);
    let z4 = x[5].plus(x[1]).times(-3_196).plus(z5);
    let odd = [
        x[1].times(12_299).plus(z1).plus(z4),
        x[3].times(25_172).plus(z2).plus(z3),
        x[5].times(16_819).plus(z2).plus(z4),
        x[7].times(2_446).plus(z1).plus(z3),
    ];
    std::array::from_fn(|row| {
        let sum = if row < 4 { even[row].plus(odd[row]) } else { even[7 - row].minus(odd[7 - row]) };
        sum.descale(descale_bits)
    })
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
    fn hostile_coefficients_do_not_overflow() {
        for value in [i32::MIN, i32::MAX] {
            inverse(&[value; 64], &mut [0; 64], 8);
        }
    }
}
