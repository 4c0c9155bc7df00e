//! Layers with weights in 8 or 4 bits: the rows they are multiplied with are rounded to bytes on the way, each by its own
//! range, so that products are sums of integers.
//!
//! A row's result depends on nothing but the row (of a convolution: its image), whichever rows it is computed with. The
//! integer sums are exact, so that they are the same on every machine; what follows them is f32, as in [`super::packed`],
//! in whose manner tiles are computed.

mod activate;
mod activations;
pub mod composed;
mod conv;
mod instructions;
mod kernel;
mod linear;
mod matrix;
mod mlp;
mod product;
#[cfg(test)]
mod testing;

pub use activations::Code;
pub use conv::conv;
pub use linear::linear;
pub use matrix::{BLOCK, BlockType, QuantizedMatrix};
pub use mlp::{WIDE, mlp};
pub use product::SLACK;
