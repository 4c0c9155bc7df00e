//! The weights that take most of a network: what compressing makes smaller.

/// Weights with so many elements at most are not rounded: that would save little and cost accuracy (the first layer's rows
/// are the image itself, the last layer's the answer).
pub const TINY: usize = 8 << 10;

/// Whether a layer's weight is held in few bits where that is wanted. Its axes are as in [`LayerWeight`].
pub fn rounds(axes: [usize; 3]) -> bool {
    axes.iter().product::<usize>() > TINY
}

/// The weight of a convolution or linear layer: what compressing a network makes smaller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerWeight {
    /// As in the file.
    pub name: String,
    /// Outputs, inputs, and positions of the window: the file's order.
    pub axes: [usize; 3],
    /// The block it belongs to, by position.
    pub block: usize,
    pub shift: Shift,
}

/// The tensor of the file that moves a layer's outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shift {
    /// Is added to them.
    Bias(String),
    /// Is taken from them by the batch norm after the layer.
    Mean(String),
    None,
}
