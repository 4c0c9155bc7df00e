//! The product of a tile of rows with a packed weight, over any part of its depth and panels.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::kernel::{self, Block};
use super::matrix::{Form, PANEL, PackedMatrix, suit_tiles};
use super::operands::{Rows, Start, Target};
use crate::ops::Activation;

/// With fewer rows of an image, the matrix unit is no faster: the weight would be brought into its order for too few products.
const MIN_TILE_ROWS: usize = 64;

/// `result = activation(start + rows · weight[depth, panels] + residual)`, on the calling thread.
#[derive(Clone)]
pub struct Product<'a> {
    pub rows: Rows<'a>,
    pub weight: &'a PackedMatrix,
    pub depth: Range<usize>,
    pub panels: Range<usize>,
    pub start: Start<'a>,
    /// As long as the result, and laid out alike.
    pub residual: Option<&'a [f32]>,
    pub activation: Activation,
    pub unit: Unit,
}

/// The part of the processor that multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Vectors,
    /// The matrix unit, where there is one: that of Intel's servers or of a Mac.
    Tiles,
}

impl Unit {
    /// For a layer that is given so many rows of each image: whichever images come together, a row's result is the same.
    pub fn for_rows(rows_per_image: usize) -> Self {
        if rows_per_image >= MIN_TILE_ROWS { Self::Tiles } else { Self::Vectors }
    }

    /// Whether a weight in lines is multiplied in the matrix unit, where there is one.
    fn takes_tiles(self, depth: usize, columns: usize) -> bool {
        self == Self::Tiles && suit_tiles(depth, columns)
    }

    /// Bytes of working memory of a thread that multiplies a tile of rows with a weight of this depth and these columns, so
    /// much of the depth at a time.
    pub fn workspace(self, rows: usize, part: usize, [depth, columns]: [usize; 2]) -> usize {
        let _ = (rows, part);
        if self.takes_tiles(depth, columns) {
            #[cfg(target_arch = "x86_64")]
            if crate::ops::amx::is_available() {
                return (super::tiles::plane_lines(rows, part) + 1) * size_of::<super::Line>();
            }
            #[cfg(all(target_os = "macos", target_arch = "aarch64"))]
            return super::library::floats(part) * size_of::<f32>();
        }
        0
    }
}

impl Product<'_> {
    /// Computes every value of `target`, whose first column is the first of `panels`.
    pub fn write(&self, target: Target) {
        let (rows, columns) = (self.rows.all(), self.columns());
        assert_eq!((target.rows, target.columns), (rows, columns), "the product fills its target");
        if rows == 0 || columns == 0 {
            return;
        }
        let length = (rows - 1) * target.stride + columns;
        assert!(self.residual.is_none_or(|residual| length <= residual.len()), "the residual covers the result");
        assert_eq!(self.rows.depth(), self.depth.len(), "inner lengths of a product");
        assert!(self.rows.end() <= self.rows.elements.len(), "rows lie in their slice");
        assert!(
            self.depth.end <= self.weight.depth() && self.panels.end <= self.weight.panels(),
            "a part of the weight"
        );
        match self.start {
            Start::Bias(bias) => assert_eq!(bias.len(), self.weight.panels(), "a bias per column"),
            Start::Result => assert!(target.holds_values, "a sum goes on from values"),
        }
        if self.takes_tiles() {
            #[cfg(target_arch = "x86_64")]
            if let Some(tiles) = crate::ops::amx::Tiles::configure() {
                return super::tiles::multiply(&tiles, &self.rows, &super::factors::Right::of(self), &target);
            }
            #[cfg(all(target_os = "macos", target_arch = "aarch64"))]
            return super::library::multiply(&self.rows, &super::factors::Right::of(self), &target);
        }
        assert_eq!(self.weight.form(), Form::Lines, "vectors read lines");
        Arch::new().dispatch(Write { product: self, target });
    }

    /// Whether this is a product for the matrix unit, where there is one.
    fn takes_tiles(&self) -> bool {
        self.weight.form() != Form::Lines || self.unit.takes_tiles(self.weight.depth(), self.weight.columns())
    }

    fn columns(&self) -> usize {
        (self.panels.end * PANEL).min(self.weight.columns()) - self.panels.start * PANEL
    }
}

/// A product whose slices have been checked.
struct Write<'a> {
    product: &'a Product<'a>,
    target: Target<'a>,
}

impl WithSimd for Write<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Range { start, end } = self.product.panels;
        let pairs = if kernel::takes_pairs::<S>() { (end - start) / 2 } else { 0 };
        for panel in (start..start + 2 * pairs).step_by(2) {
            self.panels::<S, 2>(simd, panel);
        }
        for panel in start + 2 * pairs..end {
            self.panels::<S, 1>(simd, panel);
        }
    }
}

impl Write<'_> {
    /// All rows times `PANELS` panels from `first` on, while those are in the cache.
    #[inline(always)]
    fn panels<S: Simd, const PANELS: usize>(&self, simd: S, first: usize) {
        let Product { rows, weight, depth, panels, start, residual, activation, .. } = self.product;
        let column = (first - panels.start) * PANEL;
        let columns = (self.product.columns() - column).min(PANELS * PANEL);
        let block = Block::<PANELS> {
            rows: rows.elements.as_ptr(),
            row_stride: rows.row_stride,
            segments: rows.segments,
            segment_stride: rows.segment_stride,
            segment_length: rows.segment_length,
            panels: std::array::from_fn(|index| &weight.panel(first + index)[depth.clone()]),
            // SAFETY: `column` is a column of the result's first row.
            result: unsafe { self.target.first.add(column) },
            result_stride: self.target.stride,
            columns,
            bias: match start {
                Start::Bias(bias) => Some(std::array::from_fn(|index| &bias[first + index])),
                Start::Result => None,
            },
            residual: residual.map(|residual| residual[column..].as_ptr()),
            activation: *activation,
        };
        for index in 0..rows.images * rows.groups {
            let first = index / rows.groups * rows.image_stride + index % rows.groups * rows.group_stride;
            // SAFETY: `write` has checked rows, result and residual.
            unsafe {
                let below = Block { rows: block.rows.add(first), ..block.below(index * rows.count) };
                multiply_rows(simd, below, rows.count);
            }
        }
        if activation.is_immediate() {
            return;
        }
        // SAFETY: these values have just been written.
        unsafe {
            self.target.activate(
                column..column + columns,
                #[inline(always)]
                |values| activation.apply_inlined(values),
            );
        }
    }
}

/// Walks down `count` rows in blocks as high as the registers allow.
///
/// # Safety
/// As for [`kernel::multiply`], with `count` rows.
#[inline(always)]
unsafe fn multiply_rows<S: Simd, const PANELS: usize>(simd: S, mut block: Block<PANELS>, count: usize) {
    // Rows a multiple of 4 KiB apart share a set of the first-level cache, which has 8 places or more.
    let most = if block.row_stride.is_multiple_of(1024) { 7 } else { usize::MAX };
    let mut left = count;
    while left > 0 {
        // SAFETY: at most the rows that are left are asked for.
        let done = unsafe {
            match (PANEL * size_of::<f32>() / size_of::<S::f32s>(), left.min(most)) {
                (1, 14..) => rows::<S, 14, PANELS, 1>(simd, &block),
                (1, 7..) => rows::<S, 7, PANELS, 1>(simd, &block),
                (1, 4..) => rows::<S, 4, PANELS, 1>(simd, &block),
                (1, 2..) => rows::<S, 2, PANELS, 1>(simd, &block),
                (1, _) => rows::<S, 1, PANELS, 1>(simd, &block),
                (2, _) => match left.div_ceil(left.div_ceil(6)) {
                    // All about equally high: of one row, sums would wait for each other.
                    6 => rows::<S, 6, PANELS, 2>(simd, &block),
                    5 => rows::<S, 5, PANELS, 2>(simd, &block),
                    4 => rows::<S, 4, PANELS, 2>(simd, &block),
                    3 => rows::<S, 3, PANELS, 2>(simd, &block),
                    2 => rows::<S, 2, PANELS, 2>(simd, &block),
                    _ => rows::<S, 1, PANELS, 2>(simd, &block),
                },
                (4, 3..) => rows::<S, 3, PANELS, 4>(simd, &block),
                (4, _) => rows::<S, 1, PANELS, 4>(simd, &block),
                _ => rows::<S, 1, PANELS, PANEL>(simd, &block),
            }
        };
        left -= done;
        if left > 0 {
            block = block.below(done);
        }
    }
}

/// One block of `ROWS` rows, compiled on its own so that its sums get all registers. Returns `ROWS`.
///
/// # Safety
/// As for [`kernel::multiply`].
#[inline(always)]
unsafe fn rows<S: Simd, const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
    simd: S,
    block: &Block<PANELS>,
) -> usize {
    // What does not fit this machine's registers is not compiled.
    if const { PANEL / VECTORS * size_of::<f32>() == size_of::<S::f32s>() } {
        simd.vectorize(
            #[inline(always)]
            || {
                // SAFETY: the caller's promise is passed on.
                unsafe { kernel::multiply::<S, ROWS, PANELS, VECTORS>(simd, block) }
            },
        );
    }
    ROWS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::packed::factors::Right;
    use crate::ops::packed::library;
    use crate::ops::packed::matrix::{Line, lines};
    use crate::ops::testing::random;

    type Way = fn(Product, Target);

    /// All that multiply.
    const WAYS: [Way; 4] = [
        |product, target| Product { unit: Unit::Vectors, ..product }.write(target),
        in_narrow_vectors,
        |product, target| Product { unit: Unit::Tiles, ..product }.write(target),
        |product, target| library::multiply(&product.rows, &Right::of(&product), &target),
    ];

    /// With eight floats in a register, as on machines without AVX-512.
    fn in_narrow_vectors(product: Product, target: Target) {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            return Write { product: &product, target }.with_simd(simd);
        }
        Product { unit: Unit::Vectors, ..product }.write(target);
    }

    #[test]
    fn activations_are_those_of_the_finished_sums() {
        use Activation::*;
        let (rows, depth, columns) = (17, 96, 101);
        let mut elements = values(rows * depth, 1);
        elements[5 * depth] = f32::NAN;
        let weights = values(depth * columns, 2);
        let weight = PackedMatrix::new(depth, columns, |row, column| 9.0 * weights[row * columns + column]);
        let (bias, residual) = (lines(&values(columns, 3)), values(rows * columns, 4));
        let activations = [None, Relu, Relu6, Gelu, GeluTanh, Silu, HardSwish, HardSigmoid, Sigmoid];
        for (activation, way) in activations.into_iter().flat_map(|activation| WAYS.map(|way| (activation, way))) {
            let [mut plain, mut ours] = [vec![0.0; rows * columns], vec![0.0; rows * columns]];
            let product = |activation| Product {
                rows: Rows::dense(&elements, rows, depth),
                weight: &weight,
                depth: 0..depth,
                panels: 0..weight.panels(),
                start: Start::Bias(&bias),
                residual: Some(&residual),
                activation,
                unit: Unit::Vectors,
            };
            way(product(None), Target::holding(&mut plain, columns));
            way(product(activation), Target::holding(&mut ours, columns));
            activation.apply(&mut plain);
            let same = |(plain, ours): (&f32, &f32)| plain == ours || plain.is_nan() && ours.is_nan();
            assert!(plain.iter().zip(&ours).all(same), "{activation:?}");
            assert!(ours[5 * columns..][..columns].iter().all(|value| value.is_nan()), "{activation:?}");
        }
    }

    /// Rows in groups and segments, a part of the depth and of the panels, both starts: against plain sums in f64.
    #[test]
    fn every_shape_equals_plain_sums() {
        for (images, groups, count) in [(1, 1, 1), (1, 1, 3), (2, 3, 7), (3, 2, 14), (1, 1, 31), (1, 2, 45)] {
            for (segments, segment_length, columns) in [(1, 5, 16), (3, 4, 40), (2, 58, 113), (1, 99, 97)] {
                for way in WAYS {
                    check([images, groups, count], segments, segment_length, columns, way);
                }
            }
        }
        // More rows, and more depth, than are in planes at a time.
        for way in WAYS {
            check([1, 1, 460], 1, 96, 97, way);
            check([2, 5, 7], 3, 400, 100, way);
        }
    }

    #[test]
    fn matrices_in_the_order_of_either_kernel_multiply_alike() {
        let (rows, depth, columns) = (37, 100, 104);
        let (elements, weights, bias) =
            (values(rows * depth, 1), values(depth * columns, 2), lines(&values(columns, 3)));
        let (turned, scale) = (values(columns * depth, 4), values(columns, 5));
        let scaled = |row: usize, column: usize| weights[row * columns + column] * scale[column];
        let pairs = [
            (PackedMatrix::scaled(&weights, columns, Some(&scale)), PackedMatrix::new(depth, columns, scaled)),
            (
                PackedMatrix::turned(&turned, depth, None),
                PackedMatrix::new(depth, columns, |row, column| turned[column * depth + row]),
            ),
        ];
        for (passing, kept) in pairs {
            for (depth, panels) in [(0..depth, 0..7), (32..64, 1..3), (64..depth, 6..7)] {
                let width = columns.min(panels.end * PANEL) - panels.start * PANEL;
                let [first, second] = [&passing, &kept].map(|weight| {
                    let mut result = vec![0.0; rows * width];
                    let product = Product {
                        rows: Rows::dense(&elements[..rows * depth.len()], rows, depth.len()),
                        weight,
                        depth: depth.clone(),
                        panels: panels.clone(),
                        start: Start::Bias(&bias),
                        residual: None,
                        activation: Activation::None,
                        unit: Unit::Tiles,
                    };
                    product.write(Target::holding(&mut result, width));
                    result
                });
                assert_eq!(first, second, "{depth:?} {panels:?}");
            }
        }
    }

    /// Values of very different size, whose sums cancel: as near to sums in f64 as products of vectors are.
    #[test]
    fn matrix_units_are_as_exact_as_vectors() {
        let (rows, depth, columns) = (33, 700, 97);
        let spread = |values: Vec<f32>| -> Vec<f32> {
            values.iter().enumerate().map(|(index, value)| value * 2f32.powi((index * 7 % 41) as i32 - 20)).collect()
        };
        let (elements, weights) = (spread(values(rows * depth, 1)), spread(values(depth * columns, 2)));
        let weight = PackedMatrix::new(depth, columns, |row, column| weights[row * columns + column]);
        let bias = lines(&vec![0.0; columns]);
        let errors = WAYS.map(|way| {
            let mut result = vec![0.0; rows * columns];
            way(whole(&elements, &weight, &bias), Target::holding(&mut result, columns));
            let error = |(index, value): (usize, &f32)| {
                let products = (0..depth).map(|step| {
                    f64::from(elements[index / columns * depth + step])
                        * f64::from(weights[step * columns + index % columns])
                });
                let (sum, size) =
                    products.fold((0.0, 0.0), |(sum, size), product| (sum + product, size + product.abs()));
                (f64::from(*value) - sum).abs() / size
            };
            result.iter().enumerate().map(error).fold(0.0, f64::max)
        });
        assert!(errors.iter().all(|error| *error < 2.0 * errors[0]) && errors[0] < 1e-6, "{errors:?}");
    }

    #[test]
    fn a_result_does_not_depend_on_what_is_computed_beside_it() {
        let (rows, depth, columns) = (150, 600, 300);
        let (elements, weights) = (values(rows * depth, 1), values(depth * columns, 2));
        let weight = PackedMatrix::new(depth, columns, |row, column| weights[row * columns + column]);
        let bias = lines(&values(columns, 3));
        for way in WAYS {
            let multiply = |some: Range<usize>, panels: Range<usize>| {
                let width = columns.min(panels.end * PANEL) - panels.start * PANEL;
                let mut result = vec![0.0; some.len() * width];
                let product = whole(&elements[some.start * depth..some.end * depth], &weight, &bias);
                way(Product { panels, ..product }, Target::holding(&mut result, width));
                result
            };
            let all = multiply(0..rows, 0..weight.panels());
            for some in [0..1, 3..67, 63..66, 40..150] {
                for panels in [0..weight.panels(), 0..1, 5..9, 18..19] {
                    let part = multiply(some.clone(), panels.clone());
                    let first = panels.start * PANEL;
                    let width = part.len() / some.len();
                    for (row, part) in some.clone().zip(part.chunks(width)) {
                        assert_eq!(part, &all[row * columns + first..][..width], "row {row}, panels {panels:?}");
                    }
                }
            }
        }
    }

    /// All rows times all of a weight.
    fn whole<'a>(elements: &'a [f32], weight: &'a PackedMatrix, bias: &'a [Line]) -> Product<'a> {
        Product {
            rows: Rows::dense(elements, elements.len() / weight.depth(), weight.depth()),
            weight,
            depth: 0..weight.depth(),
            panels: 0..weight.panels(),
            start: Start::Bias(bias),
            residual: None,
            activation: Activation::None,
            unit: Unit::Vectors,
        }
    }

    fn values(length: usize, seed: u64) -> Vec<f32> {
        random(&[length], seed).unwrap().to_vec1().unwrap()
    }

    fn check([images, groups, count]: [usize; 3], segments: usize, segment_length: usize, columns: usize, way: Way) {
        let depth = segments * segment_length;
        let (row_stride, segment_stride) = (segment_length + 1, (segment_length + 1) * count + 2);
        let group_stride = segment_stride * segments + 3;
        let image_stride = group_stride * groups + 5;
        let elements = values(image_stride * images, 1);
        let rows = Rows {
            elements: &elements,
            images,
            image_stride,
            groups,
            group_stride,
            count,
            row_stride,
            segments,
            segment_stride,
            segment_length,
        };
        let (whole_depth, before) = (depth + 4, 3);
        let weights = values(whole_depth * columns, 2);
        let weight = PackedMatrix::new(whole_depth, columns, |row, column| weights[row * columns + column]);
        for panels in [0..weight.panels(), weight.panels() - 1..weight.panels()] {
            let first = panels.start * PANEL;
            let width = columns - first;
            let (before_columns, stride) = (3, width + 3);
            let (held, residual) = (values(rows.all() * stride, 3), values(rows.all() * stride, 4));
            let bias = values(columns, 5);
            let lines = lines(&bias);
            for start in [Start::Bias(&lines), Start::Result] {
                let mut result = held.clone();
                let product = Product {
                    rows,
                    weight: &weight,
                    depth: before..before + depth,
                    panels: panels.clone(),
                    start,
                    residual: Some(&residual[before_columns..]),
                    activation: Activation::Relu,
                    unit: Unit::Vectors,
                };
                way(product, Target::holding(&mut result, stride).split_at_column(before_columns).1);
                for (index, &value) in result.iter().enumerate() {
                    let (row, column) = (index / stride, index % stride);
                    let Some(column) = column.checked_sub(before_columns) else {
                        assert_eq!(value, held[index], "other columns are left alone");
                        continue;
                    };
                    let mut sum = match start {
                        Start::Bias(_) => f64::from(bias[first + column]),
                        Start::Result => f64::from(held[index]),
                    };
                    for step in 0..depth {
                        let at = row / count / groups * image_stride
                            + row / count % groups * group_stride
                            + row % count * row_stride
                            + step / segment_length * segment_stride
                            + step % segment_length;
                        let weight = weights[(before + step) * columns + first + column];
                        sum += f64::from(elements[at]) * f64::from(weight);
                    }
                    let expected = (sum + f64::from(residual[index])).max(0.0);
                    assert!(
                        (f64::from(value) - expected).abs() < 1e-5 * (depth as f64 / 64.0).max(1.0),
                        "{value} instead of {expected}"
                    );
                }
            }
        }
    }
}
