//! One test binary: real files, real jobs, independent oracles.

mod layers;
mod support;
