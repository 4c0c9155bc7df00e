//! The product kernel: exact integer sums of a few rows times one or two panels stay in registers, and become floats only
//! at the end of the depth, or of each block of it. One code for every instruction set, which says how bytes are
//! multiplied and how many sums fit.

mod coded;

use coded::{encode, line_of, places, write_coded};
use pulp::Simd;

use super::activations::{Code, Coder};
use super::matrix::{BLOCK, Bytes, STEP};
use crate::ops::Activation;
use crate::ops::packed::{Line, PANEL, Place, each, write};

/// A block of rows and panels, as addresses. All of it lies inside its slices: the caller has checked.
#[derive(Clone, Copy)]
pub struct Block<'a, const PANELS: usize> {
    /// First row of the left factor; its depth lies in `segments` runs of `segment_length` bytes.
    pub rows: *const u8,
    pub row_stride: usize,
    pub segments: usize,
    pub segment_stride: usize,
    pub segment_length: usize,
    /// Lines of a panel for each segment.
    pub segment_lines: usize,
    /// One per row, from the first on.
    pub codes: *const Code,
    /// The panels' bytes and scales from the first step of this depth on.
    pub bytes: [*const Bytes; PANELS],
    /// For every two lines of a panel whether products with both may be added in 16 bits.
    pub narrow: [Option<*const bool>; PANELS],
    pub scales: [*const Line; PANELS],
    /// Sums of the weights of this depth, per column.
    pub weight_sums: [&'a Line; PANELS],
    pub result: *mut f32,
    pub result_stride: usize,
    /// Where the result goes instead, if it is coded.
    pub coded: Option<CodedPlace>,
    /// Columns of the result, at most `PANELS * PANEL`.
    pub columns: usize,
    /// What the sums begin with: a bias per column (padded to whole panels), or what `result` holds.
    pub bias: Option<[&'a Line; PANELS]>,
    /// Added at the end, laid out as `result`.
    pub residual: Option<*const f32>,
    /// The same in 16 bits.
    pub passed: Option<Passed>,
    /// What follows, where it is immediate.
    pub activation: Activation,
}

/// Rows that become bytes, as far apart as those of a result. They are what follows a ReLU.
#[derive(Clone, Copy)]
pub struct CodedPlace {
    pub bytes: *mut u8,
    /// What is beyond the bytes, of rows in 16 bits.
    pub rests: Option<*mut u8>,
    pub coder: Coder,
}

impl CodedPlace {
    /// So many places further on.
    ///
    /// # Safety
    /// They must be there.
    #[inline(always)]
    pub unsafe fn at(self, places: usize) -> Self {
        // SAFETY: the caller's promise.
        let at = |bytes: *mut u8| unsafe { bytes.add(places) };
        Self { bytes: at(self.bytes), rests: self.rests.map(at), ..self }
    }
}

/// Rows coded in 16 bits, as far apart as those of the result.
#[derive(Clone, Copy)]
pub struct Passed {
    pub bytes: *const u8,
    pub rests: *const u8,
    /// One per row, for `256 · byte + rest`.
    pub codes: *const Code,
}

impl<const PANELS: usize> Block<'_, PANELS> {
    /// The same block from `rows` further down.
    ///
    /// # Safety
    /// The rows must be there.
    pub unsafe fn below(&self, rows: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            Self {
                rows: self.rows.add(rows * self.row_stride),
                codes: self.codes.add(rows),
                result: self.result.wrapping_add(rows * self.result_stride),
                coded: self.coded.map(|coded| coded.at(rows * self.result_stride)),
                residual: self.residual.map(|residual| residual.add(rows * self.result_stride)),
                passed: self.passed.map(|passed| Passed {
                    bytes: passed.bytes.add(rows * self.result_stride),
                    rests: passed.rests.add(rows * self.result_stride),
                    codes: passed.codes.add(rows),
                }),
                ..*self
            }
        }
    }

    /// Begins to fetch what follows the sums.
    #[inline(always)]
    fn fetch<const ROWS: usize>(&self) {
        if self.coded.is_none() {
            self.place().fetch::<ROWS, PANELS>();
        }
    }

    /// Where its sums go.
    #[inline(always)]
    fn place(&self) -> Place {
        Place {
            result: self.result,
            stride: self.result_stride,
            columns: self.columns,
            holds_start: self.bias.is_none(),
            residual: self.residual,
            activation: self.activation,
        }
    }
}

/// How an instruction set multiplies bytes: `VECTORS` vectors hold the sixteen columns of a panel.
///
/// All methods are unsafe because of the instructions they are made of: they may run inside functions compiled for them.
pub trait Dot: Copy {
    type Simd: Simd;
    /// Four weights of each column of a vector.
    type Weights: Copy;
    /// Four bytes of a row, once per column.
    type Values: Copy;
    /// One sum per column, or more that add up to it.
    type Sums: Copy;
    const VECTORS: usize;
    /// What is subtracted from every byte of a row before it is multiplied.
    const SHIFT: f32;

    fn simd(self) -> Self::Simd;
    unsafe fn zero(self) -> Self::Sums;
    /// The weights of vector number `vector` of a line.
    unsafe fn weights(self, line: *const Bytes, vector: usize) -> Self::Weights;
    /// The same from half bytes, the low or the high ones, that count from -8.
    unsafe fn half_weights(self, line: *const Bytes, vector: usize, high: bool) -> Self::Weights;
    unsafe fn values(self, bytes: *const u8) -> Self::Values;
    unsafe fn add_products(self, sums: Self::Sums, values: Self::Values, weights: Self::Weights) -> Self::Sums;
    unsafe fn floats(self, sums: Self::Sums) -> Floats<Self>;

    /// Writes a panel's values as bytes, those below zero as zero: as [`Coder::encode`], or [`Coder::encode_finely`] where
    /// there are rests.
    #[inline(always)]
    unsafe fn store<const VECTORS: usize>(self, values: [Floats<Self>; VECTORS], place: CodedPlace) {
        // SAFETY: the caller's promise.
        unsafe { encode(&mut line_of::<Self, VECTORS>(values).0, place) }
    }

    /// Adds the products of `length` bytes of each row, in whole steps, with the lines from `lines` on.
    ///
    /// # Safety
    /// As for [`multiply`].
    #[inline(always)]
    unsafe fn add_run<const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
        self,
        sums: &mut Each<Self::Sums, ROWS, PANELS, VECTORS>,
        run: &Run<PANELS>,
    ) {
        for step in 0..run.steps {
            // SAFETY: the caller's promise.
            unsafe { add_step(self, sums, run, step) };
        }
    }
}

/// Some bytes of each row, and the lines that they are multiplied with.
#[derive(Clone, Copy)]
pub struct Run<const PANELS: usize> {
    pub rows: *const u8,
    pub row_stride: usize,
    /// Steps of these rows, each with a line of its own.
    pub steps: usize,
    pub lines: [*const Bytes; PANELS],
    /// As in a [`Block`].
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "AVX2 alone adds in 16 bits"))]
    pub narrow: [Option<*const bool>; PANELS],
    pub read: Read,
}

/// What is read of a line.
#[derive(Clone, Copy)]
pub enum Read {
    Bytes,
    LowHalves,
    HighHalves,
}

impl<const PANELS: usize> Run<PANELS> {
    /// The weights of a step in one vector of a panel.
    ///
    /// # Safety
    /// As for [`multiply`].
    #[inline(always)]
    pub unsafe fn weights<D: Dot>(&self, dot: D, step: usize, panel: usize, vector: usize) -> D::Weights {
        // SAFETY: the caller's promise.
        unsafe {
            let line = self.lines[panel].add(step);
            match self.read {
                Read::Bytes => dot.weights(line, vector),
                Read::LowHalves => dot.half_weights(line, vector, false),
                Read::HighHalves => dot.half_weights(line, vector, true),
            }
        }
    }
}

pub type Floats<D> = <<D as Dot>::Simd as Simd>::f32s;

/// Something for each vector of a block: by row, panel and vector.
pub type Each<T, const ROWS: usize, const PANELS: usize, const VECTORS: usize> = [[[T; VECTORS]; PANELS]; ROWS];

/// `result = start + rows · weights + residual` for `ROWS` rows, with one scale per column.
///
/// # Safety
/// Must be inlined where `D`'s instructions are enabled. `ROWS` rows from `block.rows` on, each of all its segments rounded
/// up to whole steps, must be readable, as many codes, and the panels' bytes and scales; `ROWS` rows of `block.columns`
/// values must be writable from `block.result` on (and readable when there is no bias), or as many bytes where the result is
/// coded, and readable from `block.residual`; of what is passed, whole panels must be.
#[inline(always)]
pub unsafe fn multiply<D: Dot, const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
    dot: D,
    block: &Block<PANELS>,
) {
    block.fetch::<ROWS>();
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[[dot.zero(); VECTORS]; PANELS]; ROWS];
        for segment in 0..block.segments {
            let run = Run {
                rows: block.rows.add(segment * block.segment_stride),
                row_stride: block.row_stride,
                steps: block.segment_length.div_ceil(STEP),
                lines: block.bytes.map(|lines| lines.add(segment * block.segment_lines)),
                narrow: block.narrow.map(|narrow| narrow.map(|narrow| narrow.add(segment * block.segment_lines / 2))),
                read: Read::Bytes,
            };
            dot.add_run(&mut sums, &run);
        }
        finish_sums(dot, block, sums);
    }
}

/// Writes integer sums over the whole depth, with one scale per column, as [`multiply`] does.
///
/// # Safety
/// As for [`multiply`], but rows and bytes are not read.
#[inline(always)]
pub unsafe fn finish_sums<D: Dot, const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
    dot: D,
    block: &Block<PANELS>,
    sums: Each<D::Sums, ROWS, PANELS, VECTORS>,
) {
    let simd = dot.simd();
    // SAFETY: the caller's promise.
    unsafe {
        let scales: [[_; VECTORS]; PANELS] = vectors(dot, block.scales);
        let mut totals: Each<_, ROWS, PANELS, VECTORS> = [[[simd.splat_f32s(0.0); VECTORS]; PANELS]; ROWS];
        each(
            &mut totals,
            #[inline(always)]
            |row, column, total| {
                let (panel, vector) = (column / PANEL, column % PANEL / (PANEL / VECTORS));
                *total = simd.mul_f32s(dot.floats(sums[row][panel][vector]), scales[panel][vector]);
            },
        );
        finish(dot, block, totals);
    }
}

/// The same with a scale per column and [`BLOCK`] steps of the depth, of whole bytes or half ones.
///
/// # Safety
/// As for [`multiply`], with segments rounded up to whole blocks.
#[inline(always)]
pub unsafe fn multiply_blocks<
    D: Dot,
    const ROWS: usize,
    const PANELS: usize,
    const VECTORS: usize,
    const HALVES: bool,
>(
    dot: D,
    block: &Block<PANELS>,
) {
    let simd = dot.simd();
    let lines = if HALVES { BLOCK / STEP / 2 } else { BLOCK / STEP };
    block.fetch::<ROWS>();
    // SAFETY: the caller's promise.
    unsafe {
        let mut totals: Each<_, ROWS, PANELS, VECTORS> = [[[simd.splat_f32s(0.0); VECTORS]; PANELS]; ROWS];
        let mut index = 0;
        for segment in 0..block.segments {
            let start = block.rows.add(segment * block.segment_stride);
            for offset in (0..block.segment_length).step_by(BLOCK) {
                let mut sums = [[[dot.zero(); VECTORS]; PANELS]; ROWS];
                let run = Run {
                    rows: start.add(offset),
                    row_stride: block.row_stride,
                    steps: lines,
                    lines: block.bytes.map(|bytes| bytes.add(index * lines)),
                    narrow: [None; PANELS],
                    read: if HALVES { Read::LowHalves } else { Read::Bytes },
                };
                dot.add_run(&mut sums, &run);
                if HALVES {
                    let rows = run.rows.add(lines * STEP);
                    dot.add_run(&mut sums, &Run { rows, read: Read::HighHalves, ..run });
                }
                for panel in 0..PANELS {
                    for vector in 0..VECTORS {
                        let scale = part(dot, block.scales[panel].add(index), vector);
                        for row in 0..ROWS {
                            let total = &mut totals[row][panel][vector];
                            *total = simd.mul_add_f32s(dot.floats(sums[row][panel][vector]), scale, *total);
                        }
                    }
                }
                index += 1;
            }
        }
        finish(dot, block, totals);
    }
}

/// Adds the products of one step of a run.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
pub unsafe fn add_step<D: Dot, const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
    dot: D,
    sums: &mut Each<D::Sums, ROWS, PANELS, VECTORS>,
    run: &Run<PANELS>,
    step: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut weights = [[run.weights(dot, step, 0, 0); VECTORS]; PANELS];
        for (panel, weights) in weights.iter_mut().enumerate() {
            for (vector, weights) in weights.iter_mut().enumerate() {
                *weights = run.weights(dot, step, panel, vector);
            }
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            let values = dot.values(run.rows.add(row * run.row_stride + step * STEP));
            for (sums, weights) in sums.iter_mut().zip(&weights) {
                for (sums, weights) in sums.iter_mut().zip(weights) {
                    *sums = dot.add_products(*sums, values, *weights);
                }
            }
        }
    }
}

/// Vector number `vector` of a line.
///
/// # Safety
/// The line must be readable.
#[inline(always)]
unsafe fn part<D: Dot>(_: D, line: *const Line, vector: usize) -> Floats<D> {
    // SAFETY: a line is `VECTORS` vectors long, and aligned to more than a vector.
    unsafe { *line.cast::<f32>().add(vector * (PANEL / D::VECTORS)).cast() }
}

/// All vectors of a line per panel.
///
/// # Safety
/// The lines must be readable.
#[inline(always)]
unsafe fn vectors<D: Dot, const PANELS: usize, const VECTORS: usize>(
    dot: D,
    lines: [*const Line; PANELS],
) -> [[Floats<D>; VECTORS]; PANELS] {
    let mut all = [[dot.simd().splat_f32s(0.0); VECTORS]; PANELS];
    for (line, vectors) in lines.iter().zip(&mut all) {
        for (index, vector) in vectors.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *vector = unsafe { part(dot, *line, index) };
        }
    }
    all
}

/// Writes `total · row scale + row offset · weight sums + start + residual`.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn finish<D: Dot, const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
    dot: D,
    block: &Block<PANELS>,
    mut totals: Each<Floats<D>, ROWS, PANELS, VECTORS>,
) {
    let simd = dot.simd();
    let lanes = PANEL / VECTORS;
    // SAFETY: the caller's promise.
    unsafe {
        let weight_sums: [[_; VECTORS]; PANELS] = vectors(dot, block.weight_sums.map(std::ptr::from_ref));
        let bias = match block.bias {
            Some(bias) => vectors(dot, bias.map(std::ptr::from_ref)),
            None => [[simd.splat_f32s(0.0); VECTORS]; PANELS],
        };
        each(
            &mut totals,
            #[inline(always)]
            |row, column, total| {
                let (panel, vector) = (column / PANEL, column % PANEL / lanes);
                let code = *block.codes.add(row);
                let offset = simd.splat_f32s(code.offset + D::SHIFT * code.scale);
                let start = simd.mul_add_f32s(offset, weight_sums[panel][vector], bias[panel][vector]);
                *total = simd.mul_add_f32s(*total, simd.splat_f32s(code.scale), start);
            },
        );
        if let Some(passed) = block.passed {
            each(
                &mut totals,
                #[inline(always)]
                |row, column, total| {
                    let (code, at) = (*passed.codes.add(row), row * block.result_stride + column);
                    let (bytes, rests) = (passed.bytes.wrapping_add(at), passed.rests.wrapping_add(at));
                    let places = places::<D>(bytes, rests, block.columns.saturating_sub(column));
                    let start = simd.add_f32s(*total, simd.splat_f32s(code.offset));
                    *total = simd.mul_add_f32s(places, simd.splat_f32s(code.scale), start);
                },
            );
        }
        match block.coded {
            Some(coded) => write_coded(dot, totals, block, coded),
            None => write(simd, totals, &block.place()),
        }
    }
}
