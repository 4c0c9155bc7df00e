//! The pages: each draws its state and returns what it wants done.

pub mod classify;
pub mod compress;
pub mod evaluate;
pub mod memory;
pub mod models;
pub mod settings;
pub mod train;
