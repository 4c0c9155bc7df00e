//! Lines of weights whose products may be added in 16 bits, see [`super::instructions`]: two byte products then become sums of
//! 32 bits together.

use super::matrix::Bytes;

/// For every two lines of a panel whether they are narrow; nothing where too many are not: going back and forth would take
/// longer than it saves.
pub fn narrow(lines: &[Bytes]) -> Vec<bool> {
    const MOST_OTHERS: f64 = 0.15;
    let narrow: Vec<bool> = lines.as_chunks::<2>().0.iter().map(are_narrow).collect();
    let others = narrow.iter().filter(|is_narrow| !**is_narrow).count();
    if others as f64 > MOST_OTHERS * narrow.len() as f64 { vec![] } else { narrow }
}

/// Whether the products of four weights, two of either line, with bytes up to 128 add up to 16 bits in every column: the
/// weights above zero to 255 at most, and those below.
fn are_narrow([one, other]: &[Bytes; 2]) -> bool {
    let fits = |(one, other): (&[u8], &[u8])| {
        let weights = || one.iter().chain(other).map(|byte| i32::from(*byte as i8));
        let above: i32 = weights().map(|weight| weight.max(0)).sum();
        let below: i32 = weights().map(|weight| weight.min(0)).sum();
        above <= 255 && below >= -255
    };
    one.0.chunks_exact(2).zip(other.0.chunks_exact(2)).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::packed::PANEL;
    use crate::ops::quantized::matrix::STEP;

    #[test]
    fn two_lines_are_narrow_as_long_as_four_weights_of_each_sign_fit() {
        let with = |places: &[(usize, usize, i8)]| {
            let mut lines = [Bytes([0; STEP * PANEL]); 2];
            places.iter().for_each(|(line, place, weight)| lines[*line].0[*place] = *weight as u8);
            lines
        };
        // The first and second place of a column are one sum, the third and fourth another.
        assert!(are_narrow(&with(&[(0, 0, 127), (0, 1, 127), (1, 1, 1), (1, 2, 127), (1, 4, 127), (1, 0, -128)])));
        assert!(!are_narrow(&with(&[(0, 0, 127), (0, 1, 127), (1, 1, 2)])));
        assert!(are_narrow(&with(&[(0, 62, -128), (1, 63, -127)])));
        assert!(!are_narrow(&with(&[(0, 62, -128), (1, 63, -128)])));
        let [all, others] = [with(&[]), with(&[(0, 0, 127), (0, 1, 127), (1, 1, 2)])];
        let of = |count: usize| [all.repeat(10 - count), others.repeat(count)].concat();
        assert_eq!(narrow(&of(1)), [vec![true; 9], vec![false]].concat());
        assert!(narrow(&of(2)).is_empty(), "going back and forth");
    }
}
