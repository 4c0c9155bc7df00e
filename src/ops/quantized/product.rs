//! The product of a tile of coded rows with a quantized weight, over whole parts of its depth and any of its panels.

use std::ops::Range;

use rayon::prelude::*;

use super::activate::activate;
use super::activations::Code;
use super::instructions::Instructions;
use super::kernel::{Block, Passed};
use super::matrix::{PART, QuantizedMatrix};
use super::output::Output;
use crate::ops::packed::{PANEL, Rows, Start, Target};
use crate::ops::{Activation, vectorized};

/// `result = activation(start + rows · weight[depth, panels] + residual)`, on the calling thread.
#[derive(Clone)]
pub struct Product<'a> {
    pub rows: Rows<'a, u8>,
    /// One per row.
    pub codes: &'a [Code],
    pub weight: &'a QuantizedMatrix,
    pub depth: Range<usize>,
    pub panels: Range<usize>,
    pub start: Start<'a>,
    pub residual: Residual<'a>,
    pub activation: Activation,
}

/// What is added to a product: as long as the result, and laid out alike.
#[derive(Clone, Copy)]
pub enum Residual<'a> {
    None,
    Floats(&'a [f32]),
    Coded(CodedRows<'a>),
}

/// Rows in 16 bits, see [`super::activations::encode_rows_finely`].
#[derive(Clone, Copy)]
pub struct CodedRows<'a> {
    pub bytes: &'a [u8],
    pub rests: &'a [u8],
    /// One per row, see [`Code::fine`].
    pub codes: &'a [Code],
}

impl<'a> Residual<'a> {
    pub fn floats(values: Option<&'a [f32]>) -> Self {
        values.map_or(Self::None, Self::Floats)
    }

    /// Whether it has `rows` rows, `stride` apart, of `columns` values.
    fn covers(self, rows: usize, stride: usize, columns: usize) -> bool {
        let length = |columns: usize| (rows - 1) * stride + columns;
        match self {
            Self::None => true,
            Self::Floats(values) => length(columns) <= values.len(),
            Self::Coded(CodedRows { bytes, rests, codes }) => {
                length(columns) <= bytes.len().min(rests.len()) && codes.len() == rows
            }
        }
    }

    /// From a column on.
    fn at_column(self, column: usize) -> Self {
        match self {
            Self::None => Self::None,
            Self::Floats(values) => Self::Floats(&values[column..]),
            Self::Coded(rows) => {
                Self::Coded(CodedRows { bytes: &rows.bytes[column..], rests: &rows.rests[column..], ..rows })
            }
        }
    }
}

impl<'a> Product<'a> {
    /// `start + rows · weight`, the whole of it.
    pub fn whole(rows: Rows<'a, u8>, codes: &'a [Code], weight: &'a QuantizedMatrix, start: Start<'a>) -> Self {
        let (depth, panels) = (0..weight.depth(), 0..weight.panels());
        Self { rows, codes, weight, depth, panels, start, residual: Residual::None, activation: Activation::None }
    }
}

impl Product<'_> {
    /// Computes every value of `target`, whose first column is the first of `panels`.
    pub fn write(&self, target: Target) {
        self.write_to(target.into());
    }

    /// The same of any output.
    pub(super) fn write_to(&self, output: Output) {
        self.write_with(output, Instructions::best());
    }

    pub(super) fn write_with(&self, output: Output, instructions: Instructions) {
        let Self { rows, weight, depth, panels, .. } = self;
        let columns = (panels.end * PANEL).min(weight.columns()) - panels.start * PANEL;
        assert_eq!((output.rows(), output.columns()), (rows.all(), columns), "the product fills its target");
        if rows.all() == 0 || columns == 0 {
            return;
        }
        assert!(self.residual.covers(rows.all(), output.stride(), columns), "the residual covers the result");
        if let Output::Coded(target) = &output {
            assert!(self.activation == Activation::Relu && target.begins_with_zero(), "codes of a ReLU");
        }
        assert_eq!(rows.depth(), depth.len(), "inner lengths of a product");
        let is_part =
            depth.start.is_multiple_of(PART) && (depth.end.is_multiple_of(PART) || depth.end == weight.depth());
        let is_whole = *depth == (0..weight.depth());
        assert!(is_whole || is_part && depth.end <= weight.depth() && weight.segments() == 1, "parts of the depth");
        assert!(rows.segments == weight.segments(), "segments of the depth");
        assert!(panels.end <= weight.panels(), "a part of the weight");
        let read_beyond = weight.padded(rows.segment_length) - rows.segment_length;
        assert!(rows.end() + read_beyond <= rows.elements.len(), "rows lie in their slice");
        assert_eq!(self.codes.len(), rows.all(), "a code per row");
        match self.start {
            Start::Bias(bias) => assert_eq!(bias.len(), weight.panels(), "a bias per column"),
            Start::Result => {
                assert!(matches!(&output, Output::Floats(target) if target.holds_values), "a sum goes on from values")
            }
        }
        let _configured = instructions.configure();
        let pairs = if instructions.take_pairs() { panels.len() / 2 } else { 0 };
        for panel in (panels.start..panels.start + 2 * pairs).step_by(2) {
            self.write_panels::<2>(&output, panel, instructions);
        }
        for panel in panels.start + 2 * pairs..panels.end {
            self.write_panels::<1>(&output, panel, instructions);
        }
    }

    /// All rows times `PANELS` panels from `first` on, while those are in the cache. The slices have been checked.
    fn write_panels<const PANELS: usize>(&self, output: &Output, first: usize, instructions: Instructions) {
        let Self { rows, codes, weight, depth, panels, start, residual, activation } = self;
        let column = (first - panels.start) * PANEL;
        let (mut residual, mut passed) = match residual.at_column(column) {
            Residual::None => (None, None),
            Residual::Floats(values) => (Some(values.as_ptr()), None),
            Residual::Coded(CodedRows { bytes, rests, codes }) => {
                (None, Some(Passed { bytes: bytes.as_ptr(), rests: rests.as_ptr(), codes: codes.as_ptr() }))
            }
        };
        let (result, coded) = match output {
            Output::Floats(target) => (target.first.wrapping_add(column), None),
            Output::Coded(target) => {
                let (place, held) = target.place(column);
                if held.is_some() {
                    (residual, passed) = (None, held);
                }
                (std::ptr::null_mut(), Some(place))
            }
        };
        let weight_sums: [_; PANELS] = std::array::from_fn(|index| weight.weight_sums(first + index, depth.clone()));
        let block = Block::<PANELS> {
            rows: rows.elements.as_ptr(),
            row_stride: rows.row_stride,
            segments: rows.segments,
            segment_stride: rows.segment_stride,
            segment_length: rows.segment_length,
            segment_lines: weight.segment_lines(),
            codes: codes.as_ptr(),
            bytes: std::array::from_fn(|index| weight.panel_bytes(first + index, depth.start).as_ptr()),
            narrow: std::array::from_fn(|index| weight.narrow(first + index, depth.start).map(<[bool]>::as_ptr)),
            scales: std::array::from_fn(|index| weight.scales(first + index, depth.start).as_ptr()),
            weight_sums: weight_sums.each_ref(),
            result,
            coded,
            result_stride: output.stride(),
            columns: (output.columns() - column).min(PANELS * PANEL),
            bias: match start {
                Start::Bias(bias) => Some(std::array::from_fn(|index| &bias[first + index])),
                Start::Result => None,
            },
            residual,
            passed,
            activation: *activation,
        };
        // SAFETY: `write` has checked rows, codes, result and residual, and configured the instructions; the weight has all
        // steps of its depth.
        unsafe { instructions.multiply(weight.form(), &block, rows) };
        let Output::Floats(target) = output else { return };
        if activation.is_immediate() {
            return;
        }
        vectorized(
            #[inline(always)]
            || {
                let columns = column..column + block.columns;
                // SAFETY: these values have just been written.
                unsafe {
                    target.activate(
                        columns,
                        #[inline(always)]
                        |values| activate(*activation, values),
                    );
                }
            },
        );
    }

    /// The same on all threads, an equal share of panels for each.
    pub fn write_shared(&self, mut target: Target) {
        let panels = self.panels.len();
        let share = panels.div_ceil(rayon::current_num_threads()).max(1);
        let mut parts = Vec::new();
        for first in (self.panels.start..self.panels.end).step_by(share) {
            let (part, rest) = target.split_at_column(share * PANEL);
            target = rest;
            let residual = self.residual.at_column((first - self.panels.start) * PANEL);
            parts.push((Self { panels: first..(first + share).min(self.panels.end), residual, ..self.clone() }, part));
        }
        parts.into_par_iter().for_each(|(product, part)| product.write(part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::packed::lines;
    use crate::ops::quantized::matrix::{BLOCK, BlockType, Form};
    use crate::ops::quantized::row_bytes::SLACK;
    use crate::ops::quantized::testing::{Fine, floats, numbers, row_bytes};

    /// Rows of bytes times a weight, as they are: without scales of the rows, and without a bias.
    fn sums(bytes: &[u8], rows: usize, weight: &QuantizedMatrix, instructions: Instructions) -> Vec<f32> {
        let columns = weight.columns();
        let mut result = vec![f32::NAN; rows * columns];
        let product = Product {
            rows: Rows::dense(bytes, rows, weight.depth()),
            codes: &vec![Code { scale: 1.0, offset: 0.0 }; rows],
            weight,
            depth: 0..weight.depth(),
            panels: 0..weight.panels(),
            start: Start::Bias(&lines(&vec![0.0; columns])),
            residual: Residual::None,
            activation: Activation::None,
        };
        product.write_with(Target::holding(&mut result, columns).into(), instructions);
        result
    }

    /// Also of the largest bytes, one more than which rounding may make, with the weights that are furthest from zero, and
    /// with those that just fit where products are added in 16 bits, among some that do not.
    #[test]
    fn sums_of_the_furthest_bytes_and_weights_are_exact() {
        let just_fits = |step: usize| [127, 0, 5, 5, 127, 1, -100, -2][step % 8];
        let weights: [&dyn Fn(usize) -> i8; 5] = [&|_| -128, &|_| 127, &just_fits, &|step| -just_fits(step), &|step| {
            if step / 8 % 9 == 3 { 127 } else { just_fits(step) }
        }];
        for (rows, depth) in [(7, 96), (5, 164), (1, 4)] {
            for weight in weights {
                let block = |index: usize| {
                    let steps = BLOCK * index..BLOCK * (index + 1);
                    let values = steps.map(|step| if step < depth { weight(step) as u8 } else { 0 });
                    half::f16::ONE.to_le_bytes().into_iter().chain(values)
                };
                let stored = (0..depth.div_ceil(BLOCK)).flat_map(block).collect::<Vec<u8>>().repeat(PANEL);
                let matrix =
                    QuantizedMatrix::from_blocks(BlockType::Q8_0, &stored, [1, depth], PANEL, |_| 1.0).unwrap();
                for instructions in Instructions::all() {
                    let byte = instructions.largest_byte().saturating_add(1);
                    let bytes = vec![byte; rows * depth + SLACK];
                    let sum: i32 = (0..depth).map(|step| i32::from(byte) * i32::from(weight(step))).sum();
                    assert_eq!(
                        sums(&bytes, rows, &matrix, instructions),
                        vec![sum as f32; rows * PANEL],
                        "{instructions:?}, {rows} rows"
                    );
                }
            }
        }
    }

    #[test]
    fn sums_of_every_instruction_set_are_exact() {
        for (rows, depth, columns) in [(1, 4, 16), (3, 33, 1), (14, 500, 40), (33, 64, 17), (29, 1, 32), (100, 130, 49)]
        {
            let weights: Vec<i64> =
                numbers(2).map(|number| (number % 255) as i64 - 127).take(depth * columns).collect();
            let weight = QuantizedMatrix::new([1, depth], columns, |row, column| match row {
                // The largest weight decides on the scale, which is 1 then.
                0 => 127.0,
                _ => weights[row * columns + column] as f32,
            });
            for instructions in Instructions::all() {
                let bytes = row_bytes(rows * depth + SLACK, instructions);
                for (index, value) in sums(&bytes, rows, &weight, instructions).iter().enumerate() {
                    let (row, column) = (index / columns, index % columns);
                    let weight = |step: usize| if step == 0 { 127 } else { weights[step * columns + column] };
                    let sum: i64 = (0..depth).map(|step| i64::from(bytes[row * depth + step]) * weight(step)).sum();
                    assert_eq!(*value, sum as f32, "{instructions:?} {row} {column}");
                }
            }
        }
    }

    /// Rows in groups and segments, parts of the depth and of the panels, all forms, both starts: against plain sums in
    /// f64.
    #[test]
    fn every_shape_equals_plain_sums() {
        for counts in [[1, 1, 1], [1, 1, 3], [2, 3, 7], [3, 2, 14], [1, 1, 31], [2, 1, 50]] {
            for (segments, length, columns) in [(1, 5, 16), (3, 4, 40), (2, 9, 33), (1, 64, 7)] {
                let weights = floats(segments * length * columns, 2);
                let element = |row: usize, column: usize| weights[row * columns + column];
                let weight = QuantizedMatrix::new([segments, length], columns, element);
                check(counts, &weight, 0..segments * length);
                let halves = QuantizedMatrix::in_4_bits([segments, length], columns, element);
                check(counts, &halves, 0..segments * length);
            }
            for (kind, form) in
                [(BlockType::Q8_0, Form::Blocks), (BlockType::Q5_0, Form::Blocks), (BlockType::Q4_0, Form::HalfBlocks)]
            {
                for (depth, part) in [(40, 0..40), (300, 0..256), (300, 256..300), (300, 0..300)] {
                    let columns = 35;
                    let count = columns * usize::div_ceil(depth, BLOCK);
                    let mut numbers = numbers(4);
                    let block = |_| -> Vec<u8> {
                        let scale = half::f16::from_f32(0.01 + (numbers.next().unwrap() % 64) as f32 * 1e-3);
                        let values = numbers.by_ref().map(|number| number as u8).take(kind.bytes() - 2);
                        scale.to_le_bytes().into_iter().chain(values).collect()
                    };
                    let stored: Vec<u8> = (0..count).flat_map(block).collect();
                    let weight = QuantizedMatrix::from_blocks(kind, &stored, [1, depth], columns, |_| 0.5).unwrap();
                    assert_eq!(weight.form(), form);
                    check(counts, &weight, part);
                }
            }
        }
    }

    fn check(counts: [usize; 3], weight: &QuantizedMatrix, depth: Range<usize>) {
        Instructions::all().for_each(|instructions| check_with(instructions, counts, weight, depth.clone()));
    }

    fn check_with(
        instructions: Instructions,
        [images, groups, count]: [usize; 3],
        weight: &QuantizedMatrix,
        depth: Range<usize>,
    ) {
        let (segments, columns) = (weight.segments(), weight.columns());
        let segment_length = depth.len() / segments;
        let (row_stride, segment_stride) = (segment_length + 1, (segment_length + 1) * count + 2);
        let group_stride = segment_stride * segments + 3;
        let image_stride = group_stride * groups + 5;
        let bytes = row_bytes(image_stride * images + SLACK, instructions);
        let rows = Rows {
            elements: &bytes,
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
        let codes: Vec<Code> =
            (0..rows.all()).map(|row| Code { scale: 0.01 + row as f32 * 1e-3, offset: -(row as f32) * 0.1 }).collect();
        for panels in [0..weight.panels(), weight.panels() - 1..weight.panels()] {
            let first = panels.start * PANEL;
            let width = columns - first;
            let (before_columns, stride) = (3, width + 3);
            let (held, coded) = (floats(rows.all() * stride, 3), Fine::new(&floats(rows.all() * stride, 4), stride));
            let residual = coded.values(stride);
            let none = vec![0.0; residual.len()];
            let residuals = [
                (Residual::None, &none),
                (Residual::Floats(&residual[before_columns..]), &residual),
                (Residual::Coded(coded.rows()).at_column(before_columns), &residual),
            ];
            let bias = floats(columns, 5);
            let bias_lines = lines(&bias);
            let starts = [Start::Bias(&bias_lines), Start::Result];
            let cases = starts.into_iter().flat_map(|start| residuals.map(move |residual| (start, residual)));
            for (start, (added, residual)) in cases {
                let mut result = held.clone();
                let product = Product {
                    rows,
                    codes: &codes,
                    weight,
                    depth: depth.clone(),
                    panels: panels.clone(),
                    start,
                    residual: added,
                    activation: Activation::Relu,
                };
                let target = Target::holding(&mut result, stride).split_at_column(before_columns).1;
                product.write_with(target.into(), instructions);
                for (index, &value) in result.iter().enumerate() {
                    let (row, column) = (index / stride, index % stride);
                    let Some(column) = column.checked_sub(before_columns) else {
                        assert_eq!(value, held[index], "other columns are left alone");
                        continue;
                    };
                    let start = match start {
                        Start::Bias(_) => f64::from(bias[first + column]),
                        Start::Result => f64::from(held[index]),
                    };
                    let (mut sum, mut size) = (start + f64::from(residual[index]), 1.0);
                    for step in 0..depth.len() {
                        let at = row / count / groups * image_stride
                            + row / count % groups * group_stride
                            + row % count * row_stride
                            + step / segment_length * segment_stride
                            + step % segment_length;
                        let value = f64::from(codes[row].offset) + f64::from(codes[row].scale) * f64::from(bytes[at]);
                        let product = value * f64::from(weight.value(depth.start + step, first + column));
                        sum += product;
                        size += product.abs();
                    }
                    let error = (f64::from(value) - sum.max(0.0)).abs();
                    assert!(error < 2e-6 * size, "{value} instead of {sum} by {instructions:?}, {weight:?}");
                }
            }
        }
    }

    #[test]
    fn activations_and_ends_of_rows_are_right_with_every_instruction_set() {
        use Activation::*;
        let (rows, depth, columns) = (17, 8, 37);
        let weights = floats(depth * columns, 1);
        let weight = QuantizedMatrix::new([1, depth], columns, |row, column| weights[row * columns + column]);
        let bias = lines(&floats(columns, 3));
        for activation in [None, Relu, Relu6, Gelu, GeluTanh, Silu, HardSwish, HardSigmoid, Sigmoid] {
            for instructions in Instructions::all() {
                let bytes = row_bytes(rows * depth + SLACK, instructions);
                let [mut plain, mut ours] = [vec![0.0; rows * columns], vec![0.0; rows * columns]];
                let codes = [Code { scale: 0.01, offset: -1.0 }; 17];
                let whole = Product::whole(Rows::dense(&bytes, rows, depth), &codes, &weight, Start::Bias(&bias));
                let product = |activation| Product { activation, ..whole.clone() };
                product(None).write_with(Target::holding(&mut plain, columns).into(), instructions);
                product(activation).write_with(Target::holding(&mut ours, columns).into(), instructions);
                activation.apply(&mut plain);
                for (plain, ours) in plain.iter().zip(&ours) {
                    assert!((plain - ours).abs() < 5e-5, "{activation:?} {instructions:?}: {ours} instead of {plain}");
                }
            }
        }
    }
}
