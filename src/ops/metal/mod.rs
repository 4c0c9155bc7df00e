//! Operations on Metal: the kernels' source, what is run for each operation, and (on macOS) the running.
//!
//! What an operation runs is a [`Program`], plain data that is made the same way on every system. Where there is no
//! Metal, tests run the programs on the kernels compiled as C++.

#[cfg(target_os = "macos")]
mod buffers;
#[cfg(target_os = "macos")]
mod encode;
mod norm;
mod operation;
mod operations;
mod parameters;
mod program;
mod rows;
mod run;
mod update;
mod windows;

use run::{execute, run};

#[cfg(target_os = "macos")]
pub(super) use buffers::{forget, kept_bytes, release};
pub(super) use operations::{activate, conv, depthwise, global_average_pool, layer_norm, linear, max_pool, mlp};
pub(super) use run::execute_in_place;
pub(super) use update::squares;

pub use operation::{Gradient, Operation, Read};
pub use operations::{
    activation_operation, conv_operation, depthwise_operation, global_average_pool_operation, layer_norm_operation,
    linear_operation, max_pool_operation,
};
pub use parameters::{Layout, Rows, Update, Windows};
pub use program::{Factor, Launch, Place, Product, Program, Slot, Step};

/// The programs, by operation.
pub mod programs {
    pub use super::norm::*;
    pub use super::rows::*;
    pub use super::update::{blend, descend, follow_moments, square_sums};
    pub use super::windows::*;
}

/// The kernels, in the Metal Shading Language.
pub const SOURCE: &str = include_str!("../kernels.metal");

/// The most memory a program may take for rows that exist only between its steps.
pub const MAX_BYTES: usize = 64 << 20;
