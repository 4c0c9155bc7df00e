//! A weight in 8 or 4 bits, in the kernel's order, with what turns integer sums back into values.

use half::f16;
use rayon::prelude::*;

use super::instructions::Instructions;
use super::narrow::narrow;
use crate::ops::packed::{Line, PANEL};

/// Steps of the depth that one instruction multiplies.
pub const STEP: usize = 4;
/// Values that share a scale in Q8_0, Q5_0 and Q4_0.
pub const BLOCK: usize = 32;
/// A product can begin and end at multiples of this depth.
pub const PART: usize = 8 * BLOCK;
/// Values of a row that a tile of bytes holds, see [`crate::ops::amx`].
pub const TILE: usize = 64;
/// The largest weight in 8 bits.
const LARGEST: f32 = 127.0;

/// Four values of each column of a panel: a cache line. In 4 bits two such lines share one, the later steps above.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Bytes(pub [u8; STEP * PANEL]);

/// What a weight is held in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// 8 bits, one scale per column: what Q8_0 is when all blocks of a row share their scale. Its sums are integers over
    /// the whole depth.
    Columns,
    /// 8 bits, a scale per [`BLOCK`] values: Q8_0, and Q5_0 with three bits to spare.
    Blocks,
    /// 4 bits, a scale per [`BLOCK`] values: Q4_0.
    HalfBlocks,
}

/// A type of blocks that files hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockType {
    Q8_0,
    Q5_0,
    Q4_0,
}

impl BlockType {
    /// A scale in f16, then the values; of five bits the fifth ones first.
    pub fn bytes(self) -> usize {
        match self {
            Self::Q8_0 => 2 + BLOCK,
            Self::Q5_0 => 2 + BLOCK / 8 + BLOCK / 2,
            Self::Q4_0 => 2 + BLOCK / 2,
        }
    }

    /// Reads a block: its scale, and its values as integers.
    fn read(self, block: &[u8], values: &mut [i8]) -> f32 {
        let (scale, stored) = block.split_at(2);
        match self {
            Self::Q8_0 => values.iter_mut().zip(stored).for_each(|(value, byte)| *value = *byte as i8),
            Self::Q5_0 => {
                let (fifth, stored) = stored.split_at(BLOCK / 8);
                let fifth = |place: usize| (fifth[place / 8] >> (place % 8) & 1) << 4;
                let (low, high) = values.split_at_mut(BLOCK / 2);
                for (place, ((low, high), byte)) in low.iter_mut().zip(high).zip(stored).enumerate() {
                    *low = (byte & 15 | fifth(place)) as i8 - 16;
                    *high = (byte >> 4 | fifth(place + BLOCK / 2)) as i8 - 16;
                }
            }
            Self::Q4_0 => {
                let (low, high) = values.split_at_mut(BLOCK / 2);
                for ((low, high), byte) in low.iter_mut().zip(high).zip(stored) {
                    (*low, *high) = ((byte & 15) as i8 - 8, (byte >> 4) as i8 - 8);
                }
            }
        }
        f16::from_le_bytes([scale[0], scale[1]]).to_f32()
    }
}

/// A matrix in panels of [`PANEL`] columns. Its depth lies in segments of equal length, each padded with zeros to whole
/// tiles or blocks.
pub struct QuantizedMatrix {
    bytes: Vec<Bytes>,
    /// Per panel one, or one per block.
    scales: Vec<Line>,
    /// Sums of the weights' values, per panel one for each [`PART`] of the depth.
    sums: Vec<Line>,
    /// By panel, for every two of its lines whether their products may be added in 16 bits, see [`super::narrow`]; nothing where
    /// that does not help.
    narrow: Vec<Vec<bool>>,
    segments: usize,
    segment_length: usize,
    columns: usize,
    form: Form,
}

impl QuantizedMatrix {
    /// Rounds a matrix of `segments · segment_length` rows, whose element `(row, column)` is `element(row, column)`, to 8
    /// bits with one scale per column.
    pub fn new(
        [segments, segment_length]: [usize; 2],
        columns: usize,
        element: impl Fn(usize, usize) -> f32 + Sync,
    ) -> Self {
        Self::filled([segments, segment_length], columns, Form::Columns, |column, values, scales| {
            let weights = (0..segments * segment_length).map(|row| element(row, column));
            let largest = weights.fold(0.0, |largest: f32, weight| largest.max(weight.abs()));
            let per_scale = if largest > 0.0 { LARGEST / largest } else { 0.0 };
            scales[0] = largest / LARGEST;
            let padded = values.len() / segments;
            for row in 0..segments * segment_length {
                values[row / segment_length * padded + row % segment_length] =
                    rounded(element(row, column) * per_scale);
            }
        })
    }

    /// Rounds such a matrix to 4 bits as Q4_0 does: a scale per block, so that the value furthest from zero is exact.
    pub fn in_4_bits(
        [segments, segment_length]: [usize; 2],
        columns: usize,
        element: impl Fn(usize, usize) -> f32 + Sync,
    ) -> Self {
        let per_segment = segment_length.div_ceil(BLOCK);
        Self::filled([segments, segment_length], columns, Form::HalfBlocks, |column, values, scales| {
            for (block, (values, scale)) in values.chunks_exact_mut(BLOCK).zip(scales).enumerate() {
                let (segment, within) = (block / per_segment, block % per_segment * BLOCK);
                let rows = within..segment_length.min(within + BLOCK);
                let weights = rows.map(|row| element(segment * segment_length + row, column));
                let furthest =
                    weights.clone().fold(0.0, |far: f32, weight| if weight.abs() > far.abs() { weight } else { far });
                *scale = f16::from_f32(furthest / -8.0).to_f32();
                let per_scale = if *scale == 0.0 { 0.0 } else { 1.0 / *scale };
                for (value, weight) in values.iter_mut().zip(weights) {
                    *value = rounded((weight * per_scale).clamp(-8.0, 7.0));
                }
            }
        })
    }

    /// Takes over the blocks of a file, where each of `columns` rows of `segments · segment_length` values is whole blocks,
    /// zeros after the last value; the values of column `c` are multiplied by `factor(c)`, the blocks left as they are.
    ///
    /// `None` when `stored` is not as long as that, and when a block with a scale of its own lies in two segments.
    pub fn from_blocks(
        kind: BlockType,
        stored: &[u8],
        [segments, segment_length]: [usize; 2],
        columns: usize,
        factor: impl Fn(usize) -> f32 + Sync,
    ) -> Option<Self> {
        let depth = segments * segment_length;
        let row_bytes = depth.div_ceil(BLOCK) * kind.bytes();
        if stored.len() != row_bytes * columns || depth == 0 {
            return None;
        }
        let is_even = |row: &[u8]| row.chunks_exact(kind.bytes()).all(|block| block[..2] == row[..2]);
        let form = match kind {
            BlockType::Q4_0 => Form::HalfBlocks,
            BlockType::Q8_0 if stored.chunks_exact(row_bytes).all(is_even) => Form::Columns,
            BlockType::Q8_0 | BlockType::Q5_0 => Form::Blocks,
        };
        if form != Form::Columns && segments > 1 && !segment_length.is_multiple_of(BLOCK) {
            return None;
        }
        Some(Self::filled([segments, segment_length], columns, form, |column, values, scales| {
            let row = &stored[column * row_bytes..][..row_bytes];
            let mut read = vec![0; depth.next_multiple_of(BLOCK)];
            let blocks = row.chunks_exact(kind.bytes()).zip(read.chunks_exact_mut(BLOCK));
            for (index, (block, read)) in blocks.enumerate() {
                scales[if form == Form::Columns { 0 } else { index }] = kind.read(block, read) * factor(column);
            }
            // What a writer left after the last value is no part of the matrix.
            let padded = values.len() / segments;
            for (values, read) in values.chunks_exact_mut(padded).zip(read[..depth].chunks_exact(segment_length)) {
                values[..segment_length].copy_from_slice(read);
            }
        }))
    }

    /// A matrix of this shape without values, of which nothing but its shape and size is asked.
    ///
    /// `in_blocks` says whether it comes as a file's blocks: in 8 bits these may turn out to need fewer scales.
    pub fn outline(kind: BlockType, [segments, segment_length]: [usize; 2], columns: usize, in_blocks: bool) -> Self {
        let form = match kind {
            BlockType::Q4_0 => Form::HalfBlocks,
            BlockType::Q8_0 if !in_blocks => Form::Columns,
            BlockType::Q8_0 | BlockType::Q5_0 => Form::Blocks,
        };
        Self { bytes: vec![], scales: vec![], sums: vec![], narrow: vec![], segments, segment_length, columns, form }
    }

    /// `fill` is called with each column's number, its zeroed values in whole segments, and its scales.
    fn filled(
        [segments, segment_length]: [usize; 2],
        columns: usize,
        form: Form,
        fill: impl Fn(usize, &mut [i8], &mut [f32]) + Sync,
    ) -> Self {
        let matrix = Self {
            bytes: vec![],
            scales: vec![],
            sums: vec![],
            narrow: vec![],
            segments,
            segment_length,
            columns,
            form,
        };
        let panels = matrix.panels();
        // In 4 bits zero is 8.
        let zero = if form == Form::HalfBlocks { 0x88 } else { 0 };
        let mut bytes = vec![Bytes([zero; STEP * PANEL]); panels * matrix.panel_lines()];
        let mut scales = vec![Line([0.0; PANEL]); panels * matrix.panel_scales()];
        let mut sums = vec![Line([0.0; PANEL]); panels * matrix.parts()];
        let parts =
            bytes.par_chunks_mut(matrix.panel_lines().max(1)).zip(scales.par_chunks_mut(matrix.panel_scales().max(1)));
        parts.zip(sums.par_chunks_mut(matrix.parts())).enumerate().for_each(|(panel, ((bytes, scales), sums))| {
            let mut values = vec![0; segments * matrix.padded_segment()];
            let mut column_scales = vec![0.0; matrix.panel_scales()];
            for lane in 0..PANEL.min(columns - panel * PANEL) {
                values.fill(0);
                fill(panel * PANEL + lane, &mut values, &mut column_scales);
                for (line, scale) in scales.iter_mut().zip(&column_scales) {
                    line.0[lane] = *scale;
                }
                store(form, bytes, lane, &values);
                let share = if segments == 1 { PART } else { usize::MAX };
                for (index, values) in values.chunks(share.min(values.len())).enumerate() {
                    let scales =
                        if form == Form::Columns { &column_scales[..] } else { &column_scales[index * PART / BLOCK..] };
                    sums[index].0[lane] = sum(form, values, scales);
                }
            }
        });
        let narrow = match form {
            Form::Columns if Instructions::best().adds_narrow() => {
                bytes.par_chunks(matrix.panel_lines().max(1)).map(narrow).collect()
            }
            _ => vec![],
        };
        Self { bytes, scales, sums, narrow, ..matrix }
    }

    pub fn depth(&self) -> usize {
        self.segments * self.segment_length
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn form(&self) -> Form {
        self.form
    }

    pub fn panels(&self) -> usize {
        self.columns.div_ceil(PANEL)
    }

    /// Bytes of a row that may be read for a segment of `length`.
    pub fn padded(&self, length: usize) -> usize {
        length.next_multiple_of(if self.form == Form::Columns { TILE } else { BLOCK })
    }

    /// How a row must be laid out: in so many segments of equal length.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// The lines of one panel from step `depth` on, which begins a part.
    pub fn panel_bytes(&self, panel: usize, depth: usize) -> &[Bytes] {
        let skipped = depth / if self.form == Form::HalfBlocks { 2 * STEP } else { STEP };
        &self.bytes[panel * self.panel_lines()..][..self.panel_lines()][skipped..]
    }

    /// For every two lines of one panel from step `depth` on, which begins a part, whether their products may be added in 16
    /// bits; nothing where that does not help.
    pub fn narrow(&self, panel: usize, depth: usize) -> Option<&[bool]> {
        let narrow = self.narrow.get(panel)?;
        if narrow.is_empty() { None } else { Some(&narrow[depth / STEP / 2..]) }
    }

    /// The scales of one panel from step `depth` on.
    pub fn scales(&self, panel: usize, depth: usize) -> &[Line] {
        let skipped = if self.form == Form::Columns { 0 } else { depth / BLOCK };
        &self.scales[panel * self.panel_scales()..][..self.panel_scales()][skipped..]
    }

    /// The sum of each column's weights over a part of the depth that begins and ends with parts.
    pub fn weight_sums(&self, panel: usize, depth: std::ops::Range<usize>) -> Line {
        let parts = self.parts();
        let range = if parts == 1 { 0..1 } else { depth.start / PART..depth.end.div_ceil(PART) };
        let mut total = Line([0.0; PANEL]);
        for line in &self.sums[panel * parts..][range] {
            total.0.iter_mut().zip(line.0).for_each(|(total, sum)| *total += sum);
        }
        total
    }

    /// More than a column's weights can be together, whatever their signs.
    pub fn reach(&self) -> f32 {
        let mut scales = self.scales.iter().flat_map(|line| line.0);
        let largest = scales.clone().fold(0.0, |largest: f32, scale| largest.max(scale.abs()));
        if scales.all(f32::is_finite) { largest * 128.0 * self.depth() as f32 } else { f32::INFINITY }
    }

    /// Bytes held, by an outline those of the matrix.
    pub fn bytes(&self) -> usize {
        let narrow =
            if self.form == Form::Columns && Instructions::best().adds_narrow() { self.panel_lines() / 2 } else { 0 };
        self.panels() * ((self.panel_lines() + self.panel_scales() + self.parts()) * size_of::<Line>() + narrow)
    }

    /// The value of an element.
    pub fn value(&self, row: usize, column: usize) -> f32 {
        let (panel, lane) = (column / PANEL, column % PANEL);
        let place = row / self.segment_length * self.padded_segment() + row % self.segment_length;
        let (step, within) = (place / STEP, lane * STEP + place % STEP);
        let lines = &self.bytes[panel * self.panel_lines()..];
        let value = match self.form {
            Form::HalfBlocks => {
                let byte = lines[step / 8 * 4 + step % 4].0[within];
                i32::from(if step % 8 < 4 { byte & 15 } else { byte >> 4 }) - 8
            }
            _ => i32::from(lines[step].0[within] as i8),
        };
        let scale = if self.form == Form::Columns { 0 } else { place / BLOCK };
        value as f32 * self.scales[panel * self.panel_scales() + scale].0[lane]
    }

    fn padded_segment(&self) -> usize {
        self.padded(self.segment_length)
    }

    /// Lines of a panel for each segment.
    pub fn segment_lines(&self) -> usize {
        self.padded_segment() / if self.form == Form::HalfBlocks { 2 * STEP } else { STEP }
    }

    fn panel_lines(&self) -> usize {
        self.segments * self.segment_lines()
    }

    fn panel_scales(&self) -> usize {
        if self.form == Form::Columns { 1 } else { self.segments * self.padded_segment() / BLOCK }
    }

    fn parts(&self) -> usize {
        if self.segments == 1 { self.segment_length.div_ceil(PART).max(1) } else { 1 }
    }
}

/// The nearest integer, of two the even one. The value is within the range of an `i8`.
fn rounded(value: f32) -> i8 {
    // Adding 1.5·2²³ rounds to an integer and leaves it in the low bits.
    (value + 12_582_912.0).to_bits() as i8
}

/// Puts a column's values into its lane.
fn store(form: Form, bytes: &mut [Bytes], lane: usize, values: &[i8]) {
    for (step, values) in values.chunks_exact(STEP).enumerate() {
        let half = BLOCK / STEP / 2;
        let (line, shift) = match form {
            Form::HalfBlocks => (step / (2 * half) * half + step % half, 4 * (step / half % 2)),
            _ => (step, 0),
        };
        let bytes = &mut bytes[line].0[lane * STEP..][..STEP];
        for (byte, value) in bytes.iter_mut().zip(values) {
            *byte = match form {
                Form::HalfBlocks => *byte & !(15 << shift) | ((value + 8) as u8) << shift,
                _ => *value as u8,
            };
        }
    }
}

/// The sum of values, each times the scale of its block or of all.
fn sum(form: Form, values: &[i8], scales: &[f32]) -> f32 {
    let whole = |values: &[i8]| values.iter().map(|value| i64::from(*value)).sum::<i64>() as f64;
    if form == Form::Columns {
        return (whole(values) * f64::from(scales[0])) as f32;
    }
    values.chunks(BLOCK).zip(scales).map(|(values, scale)| whole(values) * f64::from(*scale)).sum::<f64>() as f32
}

impl std::fmt::Debug for QuantizedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (depth, columns) = (self.depth(), self.columns);
        f.debug_struct("QuantizedMatrix")
            .field("form", &self.form)
            .field("depth", &depth)
            .field("columns", &columns)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::{GgmlDType, QTensor};
    use candle_core::{DType, Device, Result};

    use super::*;
    use crate::ops::testing::random;

    #[test]
    fn eight_bits_are_within_half_a_step_of_each_column() {
        let element = |row: usize, column: usize| ((row * 7 + column * 3) % 11) as f32 * 0.1 - 0.4 * column as f32;
        let matrix = QuantizedMatrix::new([3, 5], 19, element);
        for column in 0..19 {
            let largest = (0..15).map(|row| element(row, column).abs()).fold(0.0, f32::max);
            for row in 0..15 {
                let error = (matrix.value(row, column) - element(row, column)).abs();
                assert!(error <= 0.5001 * largest / 127.0, "{row} {column}: {error}");
            }
        }
        assert_eq!(QuantizedMatrix::new([1, 4], 1, |_, _| 0.0).value(2, 0), 0.0);
    }

    #[test]
    fn a_files_blocks_have_the_values_that_candle_reads_from_them() -> Result<()> {
        for (kind, theirs) in
            [(BlockType::Q8_0, GgmlDType::Q8_0), (BlockType::Q5_0, GgmlDType::Q5_0), (BlockType::Q4_0, GgmlDType::Q4_0)]
        {
            let (columns, depth) = (18, 320);
            let stored = QTensor::quantize(&random(&[columns, depth], 5)?, theirs)?;
            let values = stored.dequantize(&Device::Cpu)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
            for shorter in [0, 9] {
                let depth = depth - shorter;
                let matrix = QuantizedMatrix::from_blocks(kind, &stored.data()?, [1, depth], columns, |_| 1.0).unwrap();
                let scaled =
                    QuantizedMatrix::from_blocks(kind, &stored.data()?, [1, depth], columns, |c| c as f32).unwrap();
                for (column, values) in values.iter().enumerate() {
                    for (row, value) in values[..depth].iter().enumerate() {
                        assert_eq!(matrix.value(row, column), *value);
                        let product = value * column as f32;
                        assert!((scaled.value(row, column) - product).abs() <= 1e-6 * product.abs());
                    }
                    let (panel, lane) = (column / PANEL, column % PANEL);
                    let part = |range: std::ops::Range<usize>| values[range].iter().sum::<f32>();
                    for range in [0..depth, 0..256, 256..depth] {
                        let sum = matrix.weight_sums(panel, range.clone()).0[lane];
                        assert!((sum - part(range)).abs() < 1e-4);
                    }
                }
            }
            assert!(QuantizedMatrix::from_blocks(kind, &stored.data()?, [1, depth + 1], columns, |_| 1.0).is_none());
        }
        Ok(())
    }

    #[test]
    fn blocks_of_one_scale_become_one_scale_per_column() {
        let block = |scale: f32| [&f16::from_f32(scale).to_le_bytes()[..], &[3; BLOCK]].concat();
        let (even, uneven) = ([block(0.5), block(0.5)].concat(), [block(0.5), block(0.25)].concat());
        let form =
            |stored: &[u8]| QuantizedMatrix::from_blocks(BlockType::Q8_0, stored, [1, 64], 1, |_| 1.0).unwrap().form();
        assert_eq!((form(&even), form(&uneven)), (Form::Columns, Form::Blocks));
    }

    #[test]
    fn four_bits_are_as_near_as_candles() -> Result<()> {
        let weights = random(&[64, 20], 3)?;
        let plain = weights.to_vec2::<f32>()?;
        let matrix = QuantizedMatrix::in_4_bits([1, 64], 20, |row, column| plain[row][column]);
        let theirs = QTensor::quantize(&weights.t()?.contiguous()?, GgmlDType::Q4_0)?.dequantize(&Device::Cpu)?;
        let theirs = theirs.to_vec2::<f32>()?;
        for (row, values) in plain.iter().enumerate() {
            for (column, value) in values.iter().enumerate() {
                let allowed = (theirs[column][row] - value).abs() + 1e-3;
                assert!((matrix.value(row, column) - value).abs() <= allowed);
            }
        }
        assert!(matrix.bytes() < 64 * 32);
        Ok(())
    }
}
