//! Random changes to training photos, by torchvision's definitions: random resized crop, horizontal flip, colour jitter
//! and random erasing for each photo, mixup and cutmix for a batch.
//!
//! Each kind draws from a generator of its own for each photo and epoch: turning one off changes none of the others.

mod boxes;
mod color;
mod mix;

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Tiles;
use super::random::Random;
use crate::images::transform::Transform;
use crate::images::{ImageError, Picture};
pub(super) use boxes::Rectangle;
pub(super) use mix::{blend_rows, mix};

/// What is changed, and how much. The default is what helps photos of any kind: crops and flips.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Augment {
    /// How often a photo is mirrored left to right, from 0 to 1.
    pub flip: f64,
    /// Cuts a random part instead of the middle: its share of the area, and its width divided by its height.
    pub random_crop: bool,
    pub crop_scale: [f64; 2],
    pub crop_ratio: [f64; 2],
    /// Factors are drawn from `1 - x` to `1 + x`; 0 is off.
    pub brightness: f64,
    pub contrast: f64,
    pub saturation: f64,
    /// How often a box is painted over with the mean colour, from 0 to 1.
    pub erase: f64,
    /// Parameter of the Beta distribution by which two photos are blended, or a box of one is put into the other; 0 is
    /// off. Each batch gets one of the two when both are on.
    pub mixup: f64,
    pub cutmix: f64,
}

impl Default for Augment {
    fn default() -> Self {
        Self { flip: 0.5, random_crop: true, ..Self::NONE }
    }
}

/// Whose turn it is: the same draws always give the same picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub seed: u64,
    pub epoch: u64,
    /// Of the photo, or of the batch.
    pub index: usize,
}

impl Turn {
    fn random(self, stream: &[u8; 8]) -> Random {
        Random::of(&[self.seed, self.epoch, self.index as u64, u64::from_le_bytes(*stream)])
    }
}

/// A photo as it enters a batch: `(size, size, 3)` as 8-bit samples, and the box that is to be erased.
pub(super) struct Sample {
    pub levels: Vec<u8>,
    /// Whether it was turned left to right.
    pub mirrored: bool,
    pub erased: Option<Rectangle>,
}

impl Augment {
    /// Changes nothing.
    pub const NONE: Self = Self {
        flip: 0.0,
        random_crop: false,
        crop_scale: [0.08, 1.0],
        crop_ratio: [3.0 / 4.0, 4.0 / 3.0],
        brightness: 0.0,
        contrast: 0.0,
        saturation: 0.0,
        erase: 0.0,
        mixup: 0.0,
        cutmix: 0.0,
    };

    /// Whether a photo is another from epoch to epoch.
    pub fn changes_photos(&self) -> bool {
        let strengths = [self.brightness, self.contrast, self.saturation, self.erase, self.mixup, self.cutmix];
        self.random_crop || self.flip > 0.0 || strengths.iter().any(|strength| *strength > 0.0)
    }

    /// Why the figures make no sense, if they do not.
    pub fn check(&self) -> Result<(), AugmentError> {
        let [least, most] = self.crop_scale;
        let [narrowest, widest] = self.crop_ratio;
        for (what, is_fine) in [
            ("flip must be from 0 to 1", (0.0..=1.0).contains(&self.flip)),
            ("erase must be from 0 to 1", (0.0..=1.0).contains(&self.erase)),
            ("crop_scale must rise, from above 0 to 1 at most", 0.0 < least && least <= most && most <= 1.0),
            ("crop_ratio must rise, from 0.05 to 20", 0.05 <= narrowest && narrowest <= widest && widest <= 20.0),
            ("brightness, contrast and saturation must be from 0 to 1", self.jitters_are_fine()),
            (
                "mixup and cutmix must be from 0 to 100",
                [self.mixup, self.cutmix].iter().all(|x| (0.0..=100.0).contains(x)),
            ),
        ] {
            if !is_fine {
                return Err(AugmentError(what));
            }
        }
        Ok(())
    }

    fn jitters_are_fine(&self) -> bool {
        [self.brightness, self.contrast, self.saturation].iter().all(|strength| (0.0..=1.0).contains(strength))
    }

    /// The sample of a tile in its turn; `size` is the side that `transform` gives.
    pub(super) fn sample(&self, tile: &Picture, transform: &Transform, size: usize, turn: Turn) -> Sample {
        let mut levels = if self.random_crop {
            let part = boxes::random_crop(tile.width, tile.height, self, &mut turn.random(b"crop    "));
            let side = size as u32;
            tile.cut(part.left, part.top, part.width, part.height).resized_to(side, side, transform.interpolation).rgb
        } else {
            transform.crop(tile)
        };
        let mirrored = turn.random(b"flip    ").unit() < self.flip;
        if mirrored {
            levels.chunks_exact_mut(size * 3).for_each(mirror);
        }
        color::jitter(&mut levels, self, &mut turn.random(b"color   "));
        let mut random = turn.random(b"erase   ");
        let erases = random.unit() < self.erase;
        let erased = if erases { boxes::random_erasing(size as u32, &mut random) } else { None };
        Sample { levels, mirrored, erased }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AugmentError(&'static str);

/// Turns a row of pixels left to right.
pub fn mirror<T>(row: &mut [T]) {
    row.as_chunks_mut::<3>().0.reverse();
}

/// A photo as epochs 0 to `count` would see it, before it is mixed with others. `index` is its place among the
/// loader's photos.
pub fn preview(
    tiles: &Tiles,
    photo: &Path,
    index: usize,
    augment: &Augment,
    seed: u64,
    count: u64,
) -> Result<Vec<Picture>, ImageError> {
    let transform = tiles.transform();
    let tile = tiles.load(photo, Vec::new())?;
    let square = transform.output_size().filter(|(height, width)| height == width);
    let Some((side, _)) = square else { return Ok(Vec::new()) };
    let mean = transform.mean.map(|mean| (mean * 255.0).round() as u8);
    let picture = |epoch| {
        let Sample { levels: mut rgb, erased, .. } =
            augment.sample(&tile, transform, side, Turn { seed, epoch, index });
        for row in erased.iter().flat_map(|erased| erased.rows(side)) {
            rgb.as_chunks_mut::<3>().0[row].fill(mean);
        }
        Picture { width: side as u32, height: side as u32, rgb, ..tile }
    };
    Ok((0..count).map(picture).collect())
}
