//! Operations on Metal: the kernels' source, what is run for each operation, and (on macOS) the running.
//!
//! What an operation runs is a [`Program`], plain data that is made the same way on every system. Where there is no
//! Metal, tests run the programs on the kernels compiled as C++.

#[cfg(target_os = "macos")]
mod buffers;
#[cfg(target_os = "macos")]
mod execute;
mod norm;
mod parameters;
mod program;
mod rows;
mod run;
mod windows;

pub use norm::{layer_norm, layer_norm_input_gradient, layer_norm_weight_gradient, mlp};
pub use parameters::{Layout, Rows, Windows};
pub use program::{Factor, Launch, Place, Product, Program, Slot, Step};
pub use rows::{activation, activation_gradient, bias_gradient, linear, linear_input_gradient, linear_weight_gradient};
pub use run::{forward, run};
pub use windows::{
    conv, conv_input_gradient, conv_weight_gradient, depthwise, depthwise_input_gradient, depthwise_weight_gradient,
    global_average_pool, global_average_pool_gradient, max_pool, max_pool_gradient,
};

/// The kernels, in the Metal Shading Language.
pub const SOURCE: &str = include_str!("../kernels.metal");

/// The most memory a program may take for rows that exist only between its steps.
pub const MAX_BYTES: usize = 64 << 20;
