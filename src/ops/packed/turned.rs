//! The product of a transposed matrix with a packed one: the gradient of a weight, summed over rows.

use pulp::{Arch, Simd, WithSimd};

use super::kernel::{self, Place, Turned};
use super::matrix::{Form, PANEL, PackedMatrix};
use super::operands::Target;
use crate::ops::Activation;

/// `target = leftᵀ · right`, added to what it holds if it holds values, on the calling thread.
///
/// `left` has as many rows as `right`, `stride` apart, each of as many values as the target has rows; the target has the
/// columns of `right`.
pub fn multiply_turned(left: &[f32], stride: usize, right: &PackedMatrix, target: Target) {
    let (rows, columns) = (target.rows, target.columns);
    assert_eq!(right.columns(), columns, "the product fills its target");
    if rows == 0 || columns == 0 {
        return;
    }
    let end = right.depth().checked_sub(1).map_or(0, |last| last * stride + rows);
    assert!(end <= left.len(), "the left factor lies in its slice");
    #[cfg(target_arch = "x86_64")]
    if right.form() == Form::Planes
        && let Some(tiles) = crate::ops::amx::Tiles::configure()
    {
        let left = super::factors::Turned { elements: left, stride };
        return super::tiles::multiply(&tiles, &left, &super::factors::Right::whole(right, &target), &target);
    }
    #[cfg(all(target_os = "macos", target_arch = "aarch64"))]
    if right.form() == Form::LinesOfUnit {
        let left = super::factors::Turned { elements: left, stride };
        return super::library::multiply(&left, &super::factors::Right::whole(right, &target), &target);
    }
    assert_eq!(right.form(), Form::Lines, "vectors read lines");
    Arch::new().dispatch(Multiply { left, stride, right, target });
}

/// A product whose slices have been checked.
struct Multiply<'a> {
    left: &'a [f32],
    stride: usize,
    right: &'a PackedMatrix,
    target: Target<'a>,
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let panels = self.right.panels();
        let mut first = 0;
        while first < panels {
            // Never one alone while there are two to share the left factor's values with.
            first += match panels - first {
                _ if !kernel::takes_pairs::<S>() => self.panels::<S, 1>(simd, first),
                3 | 5.. => self.panels::<S, 3>(simd, first),
                2 | 4 => self.panels::<S, 2>(simd, first),
                _ => self.panels::<S, 1>(simd, first),
            };
        }
    }
}

impl Multiply<'_> {
    /// All rows of the result, of the columns of `PANELS` panels from `first` on. Returns `PANELS`.
    #[inline(always)]
    fn panels<S: Simd, const PANELS: usize>(&self, simd: S, first: usize) -> usize {
        let column = first * PANEL;
        let mut row = 0;
        while row < self.target.rows {
            // SAFETY: the row and the column are in the target, and `multiply_turned` has checked the left factor.
            unsafe {
                let block = Turned::<PANELS> {
                    left: self.left.as_ptr().add(row),
                    left_stride: self.stride,
                    panels: std::array::from_fn(|index| self.right.panel(first + index)),
                    place: Place {
                        result: self.target.first.add(row * self.target.stride + column),
                        stride: self.target.stride,
                        columns: (self.target.columns - column).min(PANELS * PANEL),
                        holds_start: self.target.holds_values,
                        residual: None,
                        activation: Activation::None,
                    },
                };
                row += match (PANEL * size_of::<f32>() / size_of::<S::f32s>(), self.target.rows - row) {
                    // Eight values lie in one line of the cache where rows are whole lines apart.
                    (1, 8..) => rows::<S, 8, PANELS, 1>(simd, &block),
                    (1, 4..) => rows::<S, 4, PANELS, 1>(simd, &block),
                    (1, 2..) => rows::<S, 2, PANELS, 1>(simd, &block),
                    (1, _) => rows::<S, 1, PANELS, 1>(simd, &block),
                    (2, 6..) => rows::<S, 6, PANELS, 2>(simd, &block),
                    (2, 4..) => rows::<S, 4, PANELS, 2>(simd, &block),
                    (2, 2..) => rows::<S, 2, PANELS, 2>(simd, &block),
                    (2, _) => rows::<S, 1, PANELS, 2>(simd, &block),
                    (4, 2..) => rows::<S, 2, PANELS, 4>(simd, &block),
                    (4, _) => rows::<S, 1, PANELS, 4>(simd, &block),
                    _ => rows::<S, 1, PANELS, PANEL>(simd, &block),
                };
            }
        }
        PANELS
    }
}

/// One block of `ROWS` rows, compiled on its own so that its sums get all registers. Returns `ROWS`.
///
/// # Safety
/// As for [`kernel::multiply_turned`].
#[inline(always)]
unsafe fn rows<S: Simd, const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
    simd: S,
    block: &Turned<PANELS>,
) -> usize {
    // What does not fit this machine's registers is not compiled.
    if const { PANEL / VECTORS * size_of::<f32>() == size_of::<S::f32s>() } {
        simd.vectorize(
            #[inline(always)]
            || {
                // SAFETY: the caller's promise is passed on.
                unsafe { kernel::multiply_turned::<S, ROWS, PANELS, VECTORS>(simd, block) }
            },
        );
    }
    ROWS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::packed::factors::{Right, Turned};
    use crate::ops::packed::library;
    use crate::ops::testing::random;

    #[test]
    fn every_shape_equals_plain_sums() {
        let values = |length: usize, seed| random(&[length], seed).unwrap().to_vec1::<f32>().unwrap();
        for (depth, rows, columns) in
            [(1, 1, 1), (5, 3, 16), (9, 14, 33), (31, 45, 40), (2, 29, 7), (64, 6, 90), (100, 460, 97)]
        {
            let (stride, target_stride) = (rows + 3, columns + 5);
            let (left, right) = (values(depth * stride, 1), values(depth * columns, 2));
            let held = values(rows * target_stride, 3);
            let mut packed = PackedMatrix::empty();
            // What it held before does not matter.
            packed.refill(&values(99 * 17, 4), 17, 99, 17);
            packed.refill(&right, columns, depth, columns);
            let in_lines = PackedMatrix::new(depth, columns, |row, column| right[row * columns + column]);
            for adds in [false, true] {
                let multiply = |multiply: &dyn Fn(Target)| {
                    let mut result = held.clone();
                    let mut target = Target::holding(&mut result, target_stride);
                    target.holds_values = adds;
                    multiply(target.columns(2..2 + columns));
                    result
                };
                let ours = multiply(&|target| multiply_turned(&left, stride, &packed, target));
                // With eight floats in a register, as on machines without AVX-512.
                #[cfg(target_arch = "x86_64")]
                if let Some(simd) = pulp::x86::V3::try_new() {
                    let narrow = multiply(&|target| {
                        Multiply { left: &left, stride, right: &in_lines, target }.with_simd(simd);
                    });
                    assert!(narrow.iter().zip(&ours).all(|(one, other)| (one - other).abs() < 1e-5));
                }
                let by_library = multiply(&|target| {
                    let left = Turned { elements: &left, stride };
                    library::multiply(&left, &Right::whole(&in_lines, &target), &target);
                });
                for (index, &value) in ours.iter().chain(&by_library).enumerate() {
                    let index = index % held.len();
                    let (row, column) = (index / target_stride, index % target_stride);
                    let Some(column) = column.checked_sub(2).filter(|column| *column < columns) else {
                        assert_eq!(value, held[index], "other columns are left alone");
                        continue;
                    };
                    let products = (0..depth)
                        .map(|step| f64::from(left[step * stride + row]) * f64::from(right[step * columns + column]));
                    let expected = products.sum::<f64>() + if adds { f64::from(held[index]) } else { 0.0 };
                    assert!((f64::from(value) - expected).abs() < 1e-5, "{value} instead of {expected}");
                }
            }
        }
    }
}
