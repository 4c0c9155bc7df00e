//! Layers whose weights were brought once into the order the product kernel reads them in: what inference on the CPU runs.
//!
//! A product is computed tile by tile of rows; what surrounds it (layer norm before, bias, residual and activation after,
//! the second layer of an [`mlp`]) happens while the tile is in the cache. The composed operations of the parent module
//! compute the same, and are the oracle.
//!
//! Large products take the matrix unit where the processor has one: `tiles` on Intel's servers, `library` on a Mac. Which
//! unit multiplies is decided by a weight and by an image's own rows, never by what else is in the batch: a row's result is the
//! same in any company. Where there is no such unit, windows of 3×3 take less than half as many products (`winograd`).

mod conv;
mod depthwise;
#[cfg(any(target_arch = "x86_64", all(target_os = "macos", target_arch = "aarch64"), test))]
mod factors;
mod kernel;
#[cfg(any(all(target_os = "macos", target_arch = "aarch64"), test))]
mod library;
mod linear;
mod matrix;
mod mlp;
mod operands;
mod product;
mod scaled;
mod tile;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod transpose;
mod turned;
mod winograd;

pub use conv::{ConvWeight, Tile as ImageTile, conv, passing, tiles_of, tiles_within};
pub use depthwise::{Layer, expand_depthwise, ring};
pub use kernel::{Place, each, write};
pub use linear::{FEW_ROWS, linear, linear_rows, tile_rows, tile_rows_of};
pub use matrix::{BLOCK, Line, PANEL, PackedMatrix, apart, lines};
pub use mlp::{Mlp, WIDE, mlp};
pub use operands::{Rows, Start, Target};
pub use product::{Product, Unit};
pub use scaled::linear_scaled;
pub use tile::{Tile, TileWeight};
pub use turned::multiply_turned;
pub use winograd::{PLACES, Part as WinogradPart, WinogradWeight, filtered, suits};
