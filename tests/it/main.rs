//! One test binary: real files, real jobs, independent oracles.

mod checkpoint;
mod export;
mod journal;
mod layers;
mod sample_data;
mod support;
