//! The product of two pairs of tile rows in the matrix unit.

use std::arch::asm;

use super::planes::TILE_BYTES;
use crate::ops::amx::{ROW_BYTES, SIDE, Tiles};
use crate::ops::packed::matrix::Line;

/// Rows, and columns, of the sums that [`multiply`] computes.
pub const SPAN: usize = 2 * SIDE;

/// `sums = left · right`, [`SPAN`] rows of as many values, over `blocks` blocks of the depth. An operand is the planes of twice
/// sixteen rows, or columns.
///
/// A tile is loaded while those before it are multiplied, as early as nothing needs what its register held.
///
/// Six of the nine products of the planes are computed, the small ones first. What is left out is at most 2⁻²³ of a product
/// of two values: one unit in the last place of f32.
///
/// # Safety
/// Both operands must have three tiles of [`TILE_BYTES`] for each block, of which there is at least one.
pub unsafe fn multiply(
    _: &Tiles,
    left: [*const Line; 2],
    right: [*const Line; 2],
    blocks: usize,
    sums: &mut [[f32; SPAN]; SPAN],
) {
    debug_assert!(blocks > 0);
    // SAFETY: reads what the caller promises, writes the sums, and the tile registers are configured while there is a `Tiles`.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            // The low plane of the left times the high one of the right.
            "tileloadd tmm4, [{left0} + {stride} + 2*{tile}]",
            "tileloadd tmm6, [{right0} + {stride}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{right1} + {stride}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{left1} + {stride} + 2*{tile}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm4, [{left0} + {stride} + {tile}]",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // Middle times high.
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{left1} + {stride} + {tile}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm6, [{right0} + {stride} + {tile}]",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // Middle times middle.
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{right1} + {stride} + {tile}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm4, [{left0} + {stride}]",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // High times middle.
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{left1} + {stride}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm6, [{right0} + {stride} + 2*{tile}]",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // High times low.
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{right1} + {stride} + 2*{tile}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm6, [{right0} + {stride}]",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // High times high.
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{right1} + {stride}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {left0}, 3*{tile}",
            "add {left1}, 3*{tile}",
            "add {right0}, 3*{tile}",
            "add {right1}, 3*{tile}",
            "dec {blocks}",
            "jnz 2b",
            "tilestored [{sums} + {span}], tmm0",
            "tilestored [{sums} + {span} + {row}], tmm1",
            "tilestored [{lower} + {span}], tmm2",
            "tilestored [{lower} + {span} + {row}], tmm3",
            tile = const TILE_BYTES,
            row = const ROW_BYTES,
            left0 = inout(reg) left[0] => _,
            left1 = inout(reg) left[1] => _,
            right0 = inout(reg) right[0] => _,
            right1 = inout(reg) right[1] => _,
            blocks = inout(reg) blocks => _,
            sums = in(reg) sums.as_mut_ptr(),
            lower = in(reg) sums.as_mut_ptr().add(SIDE),
            stride = in(reg) ROW_BYTES,
            span = in(reg) 2 * ROW_BYTES,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack)
        );
    }
}
