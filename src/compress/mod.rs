//! Smaller networks from trained ones.

pub mod distill;
