//! The tables of MobileNetV2 and of MobileNetV3 small and large, each of any width.

use super::Naming;
use super::inverted::{Inverted, Stage, Style, Unit, round_channels};
use crate::ops::Activation::{HardSigmoid, HardSwish, Relu, Relu6};

/// Expansion, channels, blocks, stride of the first: table 2 of the MobileNetV2 paper.
const V2: [(usize, f64, usize, usize); 7] = [
    (1, 16.0, 1, 1),
    (6, 24.0, 2, 2),
    (6, 32.0, 3, 2),
    (6, 64.0, 4, 2),
    (6, 96.0, 3, 1),
    (6, 160.0, 3, 2),
    (6, 320.0, 1, 1),
];

pub fn v2(width: f64) -> Inverted {
    let stem = round_channels(32.0 * width);
    let mut inputs = stem;
    let stages = V2.map(|(expansion, channels, blocks, first_stride)| {
        let outputs = round_channels(channels * width);
        let unit = |index: usize| {
            let stride = if index == 0 { first_stride } else { 1 };
            let expanded = inputs * expansion;
            let unit = Unit { kernel: 3, stride, inputs, expanded, outputs, squeezed: None, activation: Relu6 };
            inputs = outputs;
            unit
        };
        Stage { blocks: (0..blocks).map(unit).collect() }
    });
    Inverted {
        style: Style::MobileNetV2,
        stem,
        stages: stages.into(),
        last: if width > 1.0 { round_channels(1280.0 * width) } else { 1280 },
        hidden: None,
        activation: Relu6,
        gate: [Relu6, HardSigmoid],
        epsilon: 1e-5,
        tensorflow: false,
    }
}

/// Kernel, expanded and output channels, squeeze-and-excite, hard-swish, stride.
type Row = (usize, usize, usize, bool, bool, usize);

/// Tables 1 and 2 of the MobileNetV3 paper, grouped as timm does.
const SMALL: [&[Row]; 5] = [
    &[(3, 16, 16, true, false, 2)],
    &[(3, 72, 24, false, false, 2), (3, 88, 24, false, false, 1)],
    &[(5, 96, 40, true, true, 2), (5, 240, 40, true, true, 1), (5, 240, 40, true, true, 1)],
    &[(5, 120, 48, true, true, 1), (5, 144, 48, true, true, 1)],
    &[(5, 288, 96, true, true, 2), (5, 576, 96, true, true, 1), (5, 576, 96, true, true, 1)],
];
const LARGE: [&[Row]; 6] = [
    &[(3, 16, 16, false, false, 1)],
    &[(3, 64, 24, false, false, 2), (3, 72, 24, false, false, 1)],
    &[(5, 72, 40, true, false, 2), (5, 120, 40, true, false, 1), (5, 120, 40, true, false, 1)],
    &[
        (3, 240, 80, false, true, 2),
        (3, 200, 80, false, true, 1),
        (3, 184, 80, false, true, 1),
        (3, 184, 80, false, true, 1),
    ],
    &[(3, 480, 112, true, true, 1), (3, 672, 112, true, true, 1)],
    &[(5, 672, 160, true, true, 2), (5, 960, 160, true, true, 1), (5, 960, 160, true, true, 1)],
];

/// Of `width` times the channels, as timm widens: expansions are shares of a block's rounded inputs, the stem never becomes
/// narrower (its 12 channels would be rounded to 16 again), and the head's hidden layer stays.
pub fn v3(large: bool, width: f64, naming: Naming) -> Inverted {
    let rows: &[&[Row]] = if large { &LARGE } else { &SMALL };
    let stem = 16;
    // Of the table, and of this network.
    let (mut table_inputs, mut inputs) = (stem, stem);
    let mut unit = |&(kernel, expanded, outputs, squeezes, hard_swish, stride): &Row| {
        let expanded = round_channels(inputs as f64 * (expanded as f64 / table_inputs as f64));
        let squeezed = squeezes.then(|| round_channels(expanded as f64 / 4.0));
        let activation = if hard_swish { HardSwish } else { Relu };
        let narrowed = round_channels(outputs as f64 * width);
        let unit = Unit { kernel, stride, inputs, expanded, outputs: narrowed, squeezed, activation };
        (table_inputs, inputs) = (outputs, narrowed);
        unit
    };
    Inverted {
        style: Style::MobileNetV3,
        stem,
        stages: rows.iter().map(|rows| Stage { blocks: rows.iter().map(&mut unit).collect() }).collect(),
        last: round_channels(if large { 960.0 } else { 576.0 } * width),
        hidden: Some(if large { 1280 } else { 1024 }),
        activation: HardSwish,
        gate: [Relu, HardSigmoid],
        // torchvision keeps TensorFlow's epsilon, timm's own weights have PyTorch's.
        epsilon: if naming == Naming::Torchvision { 1e-3 } else { 1e-5 },
        tensorflow: false,
    }
}
