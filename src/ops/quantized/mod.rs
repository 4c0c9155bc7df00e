//! Layers with weights in 8 or 4 bits: the rows they are multiplied with are rounded to bytes on the way, each by its own
//! range, so that products are sums of integers.
//!
//! A row's result depends on nothing but the row (of a convolution: its image), whichever rows it is computed with. The
//! integer sums are exact, so that they are the same on every machine that rounds to as many bits: eight, or seven where
//! the byte product of AVX2 would not be exact with eight. What follows them is f32, as in [`super::packed`], in whose
//! manner tiles are computed.

mod activate;
mod activations;
mod bottleneck;
pub mod composed;
mod conv;
mod images;
mod instructions;
mod kernel;
mod linear;
mod matrix;
mod mlp;
mod narrow;
mod product;
mod row_bytes;
mod stem;
#[cfg(test)]
mod testing;

pub use activations::Code;
pub use bottleneck::{Bottleneck, CodedLayer, Narrow, bottleneck, linear_coded};
pub use conv::conv;
pub use images::CodedImages;
pub use linear::linear;
pub use matrix::{BLOCK, BlockType, QuantizedMatrix};
pub use mlp::{WIDE, mlp};
pub use row_bytes::SLACK;
pub use stem::conv_max_pool;
