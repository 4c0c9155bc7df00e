//! Makes a network smaller, and says what that cost.

pub mod calibrate;
pub mod choice;
pub mod distill;
pub mod prune;
pub mod quantize;
pub mod report;
mod rounding;

pub use quantize::CompressError;
pub use report::{ChangedPhoto, ClassChange, Figures, Judged, Proof, Report};
