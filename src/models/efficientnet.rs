//! The tables of EfficientNet B0 to B7.

use super::Naming;
use super::inverted::{Inverted, Stage, Style, Unit, round_channels};
use crate::ops::Activation::{Sigmoid, Silu};

/// Kernel, expansion, channels, blocks, stride of the first: table 1 of the EfficientNet paper.
const B0: [(usize, usize, f64, f64, usize); 7] = [
    (3, 1, 16.0, 1.0, 1),
    (3, 6, 24.0, 2.0, 2),
    (5, 6, 40.0, 2.0, 2),
    (3, 6, 80.0, 3.0, 2),
    (5, 6, 112.0, 3.0, 1),
    (5, 6, 192.0, 4.0, 2),
    (3, 6, 320.0, 1.0, 1),
];

/// How much wider and deeper than B0 each is (the reference code).
const SCALES: [(f64, f64); 8] =
    [(1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8), (1.6, 2.2), (1.8, 2.6), (2.0, 3.1)];

/// EfficientNet B`number`, 0 to 7.
pub fn efficientnet(number: usize, naming: Naming) -> Inverted {
    let (width, depth) = SCALES[number];
    let stem = round_channels(32.0 * width);
    let mut inputs = stem;
    let stages = B0.map(|(kernel, expansion, channels, blocks, first_stride)| {
        let outputs = round_channels(channels * width);
        let unit = |index: usize| {
            let stride = if index == 0 { first_stride } else { 1 };
            let (expanded, squeezed) = (inputs * expansion, Some((inputs / 4).max(1)));
            let unit = Unit { kernel, stride, inputs, expanded, outputs, squeezed, activation: Silu };
            inputs = outputs;
            unit
        };
        Stage { blocks: (0..(blocks * depth).ceil() as usize).map(unit).collect() }
    });
    Inverted {
        style: Style::EfficientNet,
        stem,
        stages: stages.into(),
        last: round_channels(1280.0 * width),
        hidden: None,
        activation: Silu,
        gate: [Silu, Sigmoid],
        // torchvision's larger ones were converted from TensorFlow.
        epsilon: if naming == Naming::Torchvision && number >= 5 { 1e-3 } else { 1e-5 },
        tensorflow: false,
    }
}
