//! How a network's weights are held and multiplied.

use serde::{Deserialize, Serialize};

/// What convolutions and linear layers hold their weights in. Norms, biases and convolutions with a group per channel are
/// small and stay f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As the file does: floats as f32, blocks of 8 and 4 bits as they are.
    #[default]
    Stored,
    F32,
    /// Rounded to 8 bits with a scale per output.
    Int8,
    /// Rounded to 4 bits with a scale for every 32 values.
    Int4,
}

impl Precision {
    pub fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::F32 => "f32",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }
}
