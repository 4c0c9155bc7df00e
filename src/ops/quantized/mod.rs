//! Layers with weights in 8 or 4 bits: the rows they are multiplied with are rounded to bytes on the way, each by its own
//! range, so that products are sums of integers. Where ranges are known before the values are, products leave the kernel as
//! bytes ([`output`]), which the bottlenecks of calibrated networks do.
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
mod output;
mod product;
mod row_bytes;
mod stem;
#[cfg(test)]
mod testing;

pub use activations::Code;
pub use bottleneck::{Bottleneck, CodedLayer, FAR, KnownRanges, Narrow, bottleneck, is_near, narrow};
pub use conv::conv;
pub use images::CodedImages;
pub use linear::linear;
pub use matrix::{BLOCK, BlockType, QuantizedMatrix};
pub use mlp::{WIDE, mlp};
pub use row_bytes::SLACK;
pub use stem::conv_max_pool;

/// Whether rows are coded in eight bits on this machine, not in seven.
pub fn codes_in_8_bits() -> bool {
    instructions::Instructions::best().largest_byte() == u8::MAX
}
