//! Byte products in the tile registers of Intel's servers (AMX), of weights with one scale per column: a panel's lines are
//! tiles as they lie, and so are sixteen rows of bytes.
//!
//! A tile has all of its rows or none. Where fewer are left, or the windows of a convolution are interrupted, what lies
//! before, between or behind them in memory is multiplied too, and its sums are dropped.

use std::arch::asm;
use std::mem::MaybeUninit;

use super::finish::finish;
use super::x86::Avx512Vnni;
use crate::ops::amx::{self, ROW_BYTES, SIDE};
use crate::ops::packed::{PANEL, Rows};
use crate::ops::quantized::kernel::Block;
use crate::ops::quantized::matrix::{Bytes, Form, TILE};

/// Rows whose sums are computed together: two tiles.
const MOST_ROWS: usize = 2 * SIDE;

/// Lines that are fetched ahead with each tile of the depth.
const FETCHED: usize = 5;

/// Sums of rows and two panels.
#[repr(align(64))]
struct Sums(#[expect(dead_code, reason = "tiles are stored here, and its rows read")] [[[i32; PANEL]; 2]; MOST_ROWS]);

#[derive(Debug, Clone, Copy)]
pub struct TileProduct(Avx512Vnni);

impl TileProduct {
    pub fn new() -> Option<Self> {
        if amx::is_available() { Avx512Vnni::new().map(Self) } else { None }
    }

    /// What multiplies where tiles do not fit.
    pub fn without_tiles(self) -> Avx512Vnni {
        self.0
    }

    /// All rows times the panels, with one scale per column.
    ///
    /// # Safety
    /// As for [`kernel::multiply`](crate::ops::quantized::kernel::multiply), with these rows, the first of which the block
    /// begins with; the tiles must be configured on this thread.
    pub unsafe fn multiply<const PANELS: usize>(self, block: &Block<PANELS>, rows: &Rows<u8>) {
        let (groups, whole) = runs(rows);
        let last = block.bytes[PANELS - 1];
        let mut ahead = match PANELS {
            1 => last.wrapping_add(block.segments * block.segment_lines),
            _ => last.wrapping_byte_add(last.addr() - block.bytes[0].addr()),
        };
        for image in 0..rows.images {
            for group in 0..groups {
                let first = image * rows.image_stride + group * rows.group_stride;
                let run = Run { first, row: (image * groups + group) * whole.rows(), ..whole };
                // SAFETY: the caller's promise.
                ahead = unsafe { self.multiply_run(block, rows, &run, ahead) };
            }
        }
    }

    /// The rows of a run. Returns how far `ahead`, what is multiplied next, has been fetched.
    ///
    /// # Safety
    /// As for [`TileProduct::multiply`].
    unsafe fn multiply_run<const PANELS: usize>(
        self,
        block: &Block<PANELS>,
        rows: &Rows<u8>,
        run: &Run,
        mut ahead: *const Bytes,
    ) -> *const Bytes {
        // What a row with nothing behind it reads of the elements.
        let depth = (rows.segments - 1) * rows.segment_stride + rows.segment_length.next_multiple_of(TILE);
        let readable = rows.elements.len();
        let mut sums = MaybeUninit::<Sums>::uninit();
        for place in (0..run.places).step_by(MOST_ROWS) {
            let left = (run.places - place).min(MOST_ROWS);
            let height = left.next_multiple_of(SIDE);
            // Where rows are missing behind, those before are read once more.
            let missing = height - left;
            let at = run.first + place * rows.row_stride;
            let above = if at + (height - 1) * rows.row_stride + depth <= readable { 0 } else { missing };
            let is_inside = above * rows.row_stride <= at;
            if is_inside {
                // SAFETY: all rows of the tiles lie inside the elements, as has just been found.
                unsafe {
                    let first = block.rows.add(at - above * rows.row_stride);
                    multiply_tiles(&Block { rows: first, ..*block }, height, ahead, sums.as_mut_ptr());
                }
                ahead = ahead.wrapping_add(FETCHED * block.segments * block.segment_length.div_ceil(TILE));
            }
            for (place, row, count) in run.pieces(place, left) {
                let skipped = place + above;
                // SAFETY: the caller promises the rows, of which these are some.
                unsafe {
                    let block = Block { rows: block.rows.add(at + place * rows.row_stride), ..block.below(row) };
                    if is_inside {
                        // The tiles have just been stored: these sums are among them.
                        let sums = sums.as_ptr().cast::<[[i32; PANEL]; 2]>().add(skipped);
                        finish(self.0, &block, std::slice::from_raw_parts(sums, count));
                    } else {
                        self.0.multiply(Form::Columns, &block, count);
                    }
                }
            }
        }
        ahead
    }
}

/// Places for rows, one row stride apart: of each `period` of them the first `kept` are rows.
#[derive(Clone, Copy)]
struct Run {
    /// The element that the first place begins with.
    first: usize,
    /// The number of its row.
    row: usize,
    places: usize,
    period: usize,
    kept: usize,
}

impl Run {
    fn rows(&self) -> usize {
        self.places.div_ceil(self.period) * self.kept
    }

    /// The rows among `count` places from `first` on: for each uninterrupted piece the place, counted from `first`, the
    /// number of the row there, and how many there are.
    fn pieces(&self, first: usize, count: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let Self { row, period, kept, .. } = *self;
        let end = first + count;
        // Divisions take their time, and most rows are uninterrupted: one period.
        let periods = if kept < period { first / period..end.div_ceil(period) } else { 0..1 };
        periods.filter_map(move |index| {
            let start = first.max(index * period);
            let end = end.min(index * period + kept);
            (start < end).then(|| (start - first, row + index * kept + (start - index * period), end - start))
        })
    }
}

/// Runs per image, and the first of the first image: the groups, or all of them with what lies between, if that takes no
/// more tiles.
fn runs(rows: &Rows<u8>) -> (usize, Run) {
    let Rows { groups, group_stride, count, row_stride, .. } = *rows;
    if groups > 1 && group_stride.is_multiple_of(row_stride) && group_stride >= count * row_stride {
        let period = group_stride / row_stride;
        let places = (groups - 1) * period + count;
        if places.div_ceil(SIDE) <= groups * count.div_ceil(SIDE) {
            let (period, kept) = if period > count { (period, count) } else { (places, places) };
            return (1, Run { first: 0, row: 0, places, period, kept });
        }
    }
    (groups, Run { first: 0, row: 0, places: count, period: count, kept: count })
}

/// The sums of `height` rows, one or two tiles of them, with the panels.
///
/// # Safety
/// So many rows must be readable, each of its segments in whole tiles, and the panels' bytes as long; the tiles must be
/// configured on this thread.
#[inline(always)]
unsafe fn multiply_tiles<const PANELS: usize>(
    block: &Block<PANELS>,
    height: usize,
    ahead: *const Bytes,
    sums: *mut Sums,
) {
    let addresses = Addresses {
        rows: block.rows,
        row_stride: block.row_stride,
        segments: block.segments,
        tiles: block.segment_length.div_ceil(TILE),
        segment_stride: block.segment_stride,
        panels: [block.bytes[0], block.bytes[PANELS - 1]],
        ahead,
        sums,
    };
    // SAFETY: the caller's promise.
    unsafe {
        match (height > SIDE, PANELS > 1) {
            (true, true) => addresses.multiply_2_2(),
            (true, false) => addresses.multiply_2_1(),
            (false, true) => addresses.multiply_1_2(),
            (false, false) => addresses.multiply_1_1(),
        }
    }
}

/// What is multiplied, and where the sums go.
struct Addresses {
    rows: *const u8,
    row_stride: usize,
    segments: usize,
    /// Tiles that a row's segment consists of, not none.
    tiles: usize,
    segment_stride: usize,
    panels: [*const Bytes; 2],
    /// What is multiplied after these panels: some of it is fetched with each tile, as the second-level cache would have to
    /// be waited for otherwise, and all the more what lies behind it.
    ahead: *const Bytes,
    sums: *mut Sums,
}

/// A function that multiplies one or two tiles of rows with as many panels: what it begins with, does for each tile of the
/// depth, and ends with.
macro_rules! multiplication {
    ($name:ident, [$($begin:literal)*], [$($step:literal)*], [$($end:literal)*]) => {
        /// # Safety
        /// Rows, panels and sums must be there, and the tiles configured on this thread.
        unsafe fn $name(self) {
            // SAFETY: the caller's promise; the compiler uses no tiles.
            unsafe {
                asm!(
                    $($begin,)*
                    "2:",
                    "mov {left}, {tiles}",
                    "3:",
                    $($step,)*
                    "add {upper}, 64",
                    "add {lower}, 64",
                    "add {first}, 1024",
                    "add {second}, 1024",
                    "add {ahead}, {fetched}",
                    "dec {left}",
                    "jnz 3b",
                    "add {upper}, {jump}",
                    "add {lower}, {jump}",
                    "dec {segments}",
                    "jnz 2b",
                    "mov {left}, {sums_stride}",
                    $($end,)*
                    upper = inout(reg) self.rows => _,
                    lower = inout(reg) self.rows.wrapping_add(SIDE * self.row_stride) => _,
                    row_stride = in(reg) self.row_stride,
                    first = inout(reg) self.panels[0] => _,
                    second = inout(reg) self.panels[1] => _,
                    line = in(reg) ROW_BYTES,
                    left = out(reg) _,
                    tiles = in(reg) self.tiles,
                    segments = inout(reg) self.segments => _,
                    jump = in(reg) self.segment_stride.wrapping_sub(self.tiles * TILE),
                    sums = in(reg) self.sums,
                    ahead = inout(reg) self.ahead => _,
                    fetched = const FETCHED * ROW_BYTES,
                    sums_stride = const 2 * ROW_BYTES,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

impl Addresses {
    multiplication!(
        multiply_2_2,
        ["tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3"],
        [
            "tileloadd tmm4, [{upper} + {row_stride}*1]"
            "tileloadd tmm6, [{first} + {line}*1]"
            "tdpbusd tmm0, tmm4, tmm6"
            "tileloadd tmm7, [{second} + {line}*1]"
            "tdpbusd tmm1, tmm4, tmm7"
            "prefetcht0 [{ahead}]"
            "prefetcht0 [{ahead} + 64]"
            "tileloadd tmm5, [{lower} + {row_stride}*1]"
            "tdpbusd tmm2, tmm5, tmm6"
            "prefetcht0 [{ahead} + 128]"
            "prefetcht0 [{ahead} + 192]"
            "prefetcht0 [{ahead} + 256]"
            "tdpbusd tmm3, tmm5, tmm7"
        ],
        [
            "tilestored [{sums} + {left}*1], tmm0"
            "tilestored [{sums} + {left}*1 + 64], tmm1"
            "tilestored [{sums} + {left}*1 + 2048], tmm2"
            "tilestored [{sums} + {left}*1 + 2112], tmm3"
        ]
    );
    multiplication!(
        multiply_2_1,
        ["tilezero tmm0" "tilezero tmm2"],
        [
            "tileloadd tmm4, [{upper} + {row_stride}*1]"
            "tileloadd tmm6, [{first} + {line}*1]"
            "tileloadd tmm5, [{lower} + {row_stride}*1]"
            "tdpbusd tmm0, tmm4, tmm6"
            "tdpbusd tmm2, tmm5, tmm6"
        ],
        [
            "tilestored [{sums} + {left}*1], tmm0"
            "tilestored [{sums} + {left}*1 + 2048], tmm2"
        ]
    );
    multiplication!(
        multiply_1_2,
        ["tilezero tmm0" "tilezero tmm1"],
        [
            "tileloadd tmm4, [{upper} + {row_stride}*1]"
            "tileloadd tmm6, [{first} + {line}*1]"
            "tileloadd tmm7, [{second} + {line}*1]"
            "tdpbusd tmm0, tmm4, tmm6"
            "tdpbusd tmm1, tmm4, tmm7"
        ],
        [
            "tilestored [{sums} + {left}*1], tmm0"
            "tilestored [{sums} + {left}*1 + 64], tmm1"
        ]
    );
    multiplication!(
        multiply_1_1,
        ["tilezero tmm0"],
        [
            "tileloadd tmm4, [{upper} + {row_stride}*1]"
            "tileloadd tmm6, [{first} + {line}*1]"
            "tdpbusd tmm0, tmm4, tmm6"
        ],
        ["tilestored [{sums} + {left}*1], tmm0"]
    );
}
