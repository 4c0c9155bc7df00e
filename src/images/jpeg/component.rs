//! One colour channel of a JPEG while it is decoded: where its blocks go and how they become pixels.

use super::header::{Component, Frame};
use super::idct;

/// Zigzag order to place in a block of 8 × 8.
pub const NATURAL: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// The sizes of a channel at one scale, all known from the frame header.
#[derive(Debug, Clone, Copy)]
pub struct Geometry {
    /// Blocks kept, whole interleaved units.
    pub blocks_across: usize,
    pub blocks_down: usize,
    /// Blocks of a scan of this channel alone: without the padding of interleaved units.
    pub own_across: usize,
    pub own_down: usize,
    /// Pixels that one block becomes.
    pub block_width: usize,
    pub block_height: usize,
    /// Pixels that belong to the picture.
    pub width: usize,
    pub height: usize,
    /// How many pixels of the picture one pixel stands for, as a fraction: more than one for channels that cannot be
    /// decoded any finer.
    pub pixels_across: (usize, usize),
    pub pixels_down: (usize, usize),
}

impl Geometry {
    /// `scale` is how many pixels (1, 2, 4, 8) the blocks of the finest channel become each way. Coarser channels are
    /// reduced less, so that they need no enlarging afterwards.
    pub fn new(frame: &Frame, component: &Component, scale: usize) -> Self {
        let (most_across, most_down) = (frame.max_horizontal(), frame.max_vertical());
        let (mcus_across, mcus_down) = frame.mcus();
        let block = |most: usize, own: usize| previous_power_of_two((scale * most / own).min(8));
        let (block_width, block_height) =
            (block(most_across, component.horizontal), block(most_down, component.vertical));
        let samples_across = (frame.width as usize * component.horizontal).div_ceil(most_across);
        let samples_down = (frame.height as usize * component.vertical).div_ceil(most_down);
        Self {
            blocks_across: mcus_across * component.horizontal,
            blocks_down: mcus_down * component.vertical,
            own_across: samples_across.div_ceil(8),
            own_down: samples_down.div_ceil(8),
            block_width,
            block_height,
            width: (samples_across * block_width).div_ceil(8),
            height: (samples_down * block_height).div_ceil(8),
            pixels_across: (scale * most_across, block_width * component.horizontal),
            pixels_down: (scale * most_down, block_height * component.vertical),
        }
    }

    pub fn stride(&self) -> usize {
        self.blocks_across * self.block_width
    }

    /// Whether the coefficient at this place of a block has a part in its pixels.
    fn needs(&self, place: u8) -> bool {
        usize::from(place % 8) < self.block_width && usize::from(place / 8) < self.block_height
    }

    pub fn blocks(&self) -> usize {
        self.blocks_across * self.blocks_down
    }

    pub fn plane_bytes(&self) -> usize {
        self.blocks() * self.block_width * self.block_height
    }

    /// What a progressive picture keeps of this channel until its last scan.
    pub fn coefficient_bytes(&self) -> usize {
        self.blocks() * (2 * self.block_width * self.block_height + 8)
    }
}

fn previous_power_of_two(value: usize) -> usize {
    1 << value.max(1).ilog2()
}

/// A channel with its pixels.
pub struct Channel {
    pub component: Component,
    pub geometry: Geometry,
    pub plane: Vec<u8>,
    /// The last coefficient, in zigzag order, that a block's pixels depend on.
    pub last_needed: usize,
    /// In zigzag order, as they stood at the channel's first scan.
    pub quantization: Option<[i32; 64]>,
}

impl Channel {
    pub fn new(frame: &Frame, component: Component, scale: usize) -> Self {
        let geometry = Geometry::new(frame, &component, scale);
        Self {
            component,
            geometry,
            plane: vec![0; geometry.plane_bytes()],
            last_needed: NATURAL.iter().rposition(|place| geometry.needs(*place)).unwrap_or(63),
            quantization: None,
        }
    }

    /// Turns the block's coefficients (dequantized, rows of 8) into its pixels.
    #[inline(always)]
    pub fn write_block(&mut self, block_x: usize, block_y: usize, coefficients: &[i32; 64]) {
        let (stride, size) = (self.geometry.stride(), (self.geometry.block_width, self.geometry.block_height));
        let start = block_y * size.1 * stride + block_x * size.0;
        idct::inverse(size, coefficients, &mut self.plane[start..], stride);
    }
}

/// The coefficients of a progressive channel: only those the scale needs, and for every other one whether it has been
/// set, because later scans are read differently for those that have.
pub struct Coefficients {
    kept: Vec<i16>,
    pub is_set: Vec<u64>,
    per_block: usize,
    /// Zigzag order to place among the kept ones; none when the scale does not need it.
    slots: [Option<u8>; 64],
}

impl Coefficients {
    pub fn new(geometry: &Geometry) -> Self {
        let (width, height) = (geometry.block_width, geometry.block_height);
        let slots = NATURAL.map(|place| {
            let (x, y) = (usize::from(place) % 8, usize::from(place) / 8);
            geometry.needs(place).then_some((y * width + x) as u8)
        });
        let per_block = width * height;
        Self { kept: vec![0; geometry.blocks() * per_block], is_set: vec![0; geometry.blocks()], per_block, slots }
    }

    /// Sets coefficient `at` (zigzag) for the first time.
    #[inline]
    pub fn set(&mut self, block: usize, at: usize, value: i32) {
        self.is_set[block] |= 1 << at;
        if let Some(slot) = self.slots[at] {
            self.kept[block * self.per_block + usize::from(slot)] = value as i16;
        }
    }

    /// Moves a coefficient that has been set away from zero by `bit`.
    #[inline]
    pub fn refine(&mut self, block: usize, at: usize, bit: i32) {
        if let Some(slot) = self.slots[at] {
            let kept = &mut self.kept[block * self.per_block + usize::from(slot)];
            *kept = if *kept < 0 { kept.wrapping_sub(bit as i16) } else { kept.wrapping_add(bit as i16) };
        }
    }

    /// Adds a bit to the constant coefficient, which has no sign to follow.
    pub fn refine_constant(&mut self, block: usize, bit: i32) {
        self.kept[block * self.per_block] |= bit as i16;
    }

    /// Turns every block into pixels of the channel.
    pub fn write(&self, channel: &mut Channel) {
        let Some(quantization) = channel.quantization else { return };
        for block_y in 0..channel.geometry.blocks_down {
            for block_x in 0..channel.geometry.blocks_across {
                let block = block_y * channel.geometry.blocks_across + block_x;
                let kept = &self.kept[block * self.per_block..][..self.per_block];
                let mut coefficients = [0; 64];
                for ((slot, place), step) in self.slots.iter().zip(NATURAL).zip(quantization) {
                    if let Some(slot) = slot {
                        coefficients[usize::from(place)] = i32::from(kept[usize::from(*slot)]) * step;
                    }
                }
                channel.write_block(block_x, block_y, &coefficients);
            }
        }
    }
}
