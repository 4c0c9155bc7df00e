//! The transpose of sixteen lines.

use super::matrix::{Line, PANEL};

/// Column `c` becomes line `c`.
pub fn transpose(lines: &mut [Line; PANEL]) {
    #[cfg(target_arch = "x86_64")]
    if pulp::x86::V4::try_new().is_some() {
        // SAFETY: the machine has AVX-512.
        return unsafe { x86::transpose_lines(lines) };
    }
    let rows = *lines;
    for (place, row) in rows.iter().enumerate() {
        lines.iter_mut().zip(row.0).for_each(|(line, value)| line.0[place] = value);
    }
}

#[cfg(target_arch = "x86_64")]
pub mod x86 {
    use std::arch::x86_64::*;

    use super::{Line, PANEL};

    #[target_feature(enable = "avx512f")]
    pub fn transpose_lines(lines: &mut [Line; PANEL]) {
        // SAFETY: a line is a vector, and aligned to one.
        unsafe {
            let rows = std::array::from_fn(|index| _mm512_load_ps(lines[index].0.as_ptr()));
            lines.iter_mut().zip(transpose(rows)).for_each(|(line, row)| _mm512_store_ps(line.0.as_mut_ptr(), row));
        }
    }

    /// The transpose of sixteen rows.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn transpose(rows: [__m512; PANEL]) -> [__m512; PANEL] {
        // Each step interleaves rows that are twice as far apart as those before, in units twice as large.
        let mut pairs = rows;
        for index in 0..PANEL / 2 {
            let (a, b) = (rows[2 * index], rows[2 * index + 1]);
            pairs[2 * index] = _mm512_unpacklo_ps(a, b);
            pairs[2 * index + 1] = _mm512_unpackhi_ps(a, b);
        }
        let mut fours = pairs;
        for index in 0..PANEL / 4 {
            for half in 0..2 {
                let a = _mm512_castps_pd(pairs[4 * index + half]);
                let b = _mm512_castps_pd(pairs[4 * index + 2 + half]);
                fours[4 * index + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                fours[4 * index + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
            }
        }
        // Lane `l` of `fours[4 i + c]` holds column `4 l + c` of rows `4 i` to `4 i + 3`: now the lanes are transposed.
        let mut columns = fours;
        for column in 0..4 {
            let [a, b, c, d] = [fours[column], fours[4 + column], fours[8 + column], fours[12 + column]];
            let (ab_even, ab_odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xDD>(a, b));
            let (cd_even, cd_odd) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xDD>(c, d));
            columns[column] = _mm512_shuffle_f32x4::<0x88>(ab_even, cd_even);
            columns[8 + column] = _mm512_shuffle_f32x4::<0xDD>(ab_even, cd_even);
            columns[4 + column] = _mm512_shuffle_f32x4::<0x88>(ab_odd, cd_odd);
            columns[12 + column] = _mm512_shuffle_f32x4::<0xDD>(ab_odd, cd_odd);
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_lines() {
        let mut lines: [Line; PANEL] =
            std::array::from_fn(|row| Line(std::array::from_fn(|column| (100 * row + column) as f32)));
        transpose(&mut lines);
        for (column, line) in lines.iter().enumerate() {
            assert_eq!(line.0, std::array::from_fn(|row| (100 * row + column) as f32));
        }
    }
}
