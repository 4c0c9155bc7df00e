//! From an upright picture to network input: resize, center crop, scale to 0–1, normalize. The resize is Pillow's
//! (antialiased, two passes, 8 bits between), because checkpoints were trained with it.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::resize::{self, Target};
use super::{ImageError, Picture};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    Bilinear,
    Bicubic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// The shorter side becomes this long, the aspect ratio stays (torchvision's `Resize(256)`).
    ShortSide(u32),
    /// Exactly this size, the aspect ratio is given up (torchvision's `Resize((h, w))`).
    Exact { height: u32, width: u32 },
}

/// Everything between an upright picture and network input.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Transform {
    pub resize: Resize,
    /// Side of the square cut from the middle after resizing; none keeps the resized picture.
    pub crop: Option<u32>,
    pub interpolation: Interpolation,
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Longest side that a transform may ask for.
const MAX_SIDE: u32 = 4096;

/// How many times as long as the longer of resize and crop a [`Transform::resized`] picture may be.
const MAX_RESIZED_ASPECT: u64 = 4;

/// Most pixels of network input, where the transform alone does not bound them.
const MAX_INPUT_PIXELS: u64 = 1 << 24;

impl Default for Transform {
    fn default() -> Self {
        Self {
            resize: Resize::ShortSide(256),
            crop: Some(224),
            interpolation: Interpolation::Bilinear,
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
        }
    }
}

/// A transform that cannot be applied to any picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransformError {
    #[error("{what} must be from 1 to {MAX_SIDE} pixels, not {pixels}")]
    Side { what: &'static str, pixels: u32 },
    #[error("the means must be numbers, and the standard deviations positive ones")]
    Normalization,
}

impl Transform {
    /// Height and width of the network input, when every photo gives the same; `None` for `ShortSide` without a crop.
    pub fn output_size(&self) -> Option<(usize, usize)> {
        match (self.crop, self.resize) {
            (Some(side), _) => Some((side as usize, side as usize)),
            (None, Resize::Exact { height, width }) => Some((height as usize, width as usize)),
            (None, Resize::ShortSide(_)) => None,
        }
    }

    /// The shorter side the resize asks for: what decoding may reduce a photo towards.
    pub fn short_side(&self) -> u32 {
        match self.resize {
            Resize::ShortSide(side) => side,
            Resize::Exact { height, width } => height.max(width),
        }
    }

    /// Checks the parts that a person may have set. [`apply`](Self::apply) expects a transform that passes.
    pub fn check(&self) -> Result<(), TransformError> {
        let (height, width) = match self.resize {
            Resize::ShortSide(side) => (side, side),
            Resize::Exact { height, width } => (height, width),
        };
        for (what, pixels) in [("the resize", height), ("the resize", width), ("the crop", self.crop.unwrap_or(1))] {
            if !(1..=MAX_SIDE).contains(&pixels) {
                return Err(TransformError::Side { what, pixels });
            }
        }
        let usable = self.mean.iter().all(|mean| mean.is_finite())
            && self.std.iter().all(|deviation| deviation.is_finite() && *deviation > 0.0);
        if usable { Ok(()) } else { Err(TransformError::Normalization) }
    }

    /// Height and width of the network input for this picture.
    pub fn size_for(&self, picture: &Picture) -> (usize, usize) {
        let (width, height) = self.resized_size(picture);
        self.output_size().unwrap_or((height as usize, width as usize))
    }

    /// Pixels of shape `(height, width, 3)`, normalized.
    pub fn apply(&self, picture: &Picture) -> Vec<f32> {
        let levels = self.levels(picture);
        let mut pixels = vec![0.0; levels.len()];
        self.normalize(&levels, &mut pixels);
        pixels
    }

    /// Samples of 8 bits as network input; both slices are of one length, a multiple of 3.
    pub fn normalize(&self, levels: &[u8], pixels: &mut [f32]) {
        // ToTensor and Normalize in torchvision's order of operations, for each of the 256 levels once.
        let mut tables = [[0.0; 3]; 256];
        for (level, normalized) in tables.iter_mut().enumerate() {
            for ((value, mean), deviation) in normalized.iter_mut().zip(self.mean).zip(self.std) {
                *value = (level as f32 / 255.0 - mean) / deviation;
            }
        }
        for (pixel, levels) in pixels.as_chunks_mut::<3>().0.iter_mut().zip(levels.as_chunks::<3>().0) {
            *pixel = std::array::from_fn(|channel| tables[usize::from(levels[channel])][channel]);
        }
    }

    /// The resized picture without the crop, for whoever crops it in more than one way: [`crop`](Self::crop) and
    /// [`normalize`](Self::normalize) make of it what [`apply`](Self::apply) makes of the picture.
    ///
    /// Of a picture that is very long when there is a crop, only the middle, [`longest_side`](Self::longest_side)
    /// pixels or a few less.
    pub fn resized(&self, picture: &Picture) -> Picture {
        let (width, height) = self.resized_size(picture);
        let middle = |side: u64| {
            // Where a centered crop begins is rounded to even: taking off twice an even number keeps it in place.
            let taken = side.saturating_sub(self.longest_side()).next_multiple_of(4);
            usize_range(&(taken / 2..side - taken / 2))
        };
        let target =
            Target { width: width as usize, height: height as usize, columns: middle(width), rows: middle(height) };
        let (from_width, from_height) = (picture.width as usize, picture.height as usize);
        let rgb = resize::resize(&picture.rgb, from_width, from_height, &target, self.interpolation);
        Picture { width: target.columns.len() as u32, height: target.rows.len() as u32, rgb, ..*picture }
    }

    /// The longest side of a [`resized`](Self::resized) picture.
    pub fn longest_side(&self) -> u64 {
        self.crop.map_or(u64::MAX, |crop| MAX_RESIZED_ASPECT * u64::from(self.short_side().max(crop)))
    }

    /// The middle of a [`resized`](Self::resized) picture, 8 bits per channel.
    pub fn crop(&self, resized: &Picture) -> Vec<u8> {
        let Some(side) = self.crop else { return resized.rgb.clone() };
        let (across, down) = (window(u64::from(resized.width), side), window(u64::from(resized.height), side));
        let (stride, from) = (across.length as usize * 3, resized.width as usize * 3);
        let columns = across.range.start as usize * 3..across.range.end as usize * 3;
        let mut cropped = vec![0; stride * down.length as usize];
        let rows = cropped.chunks_exact_mut(stride).skip(down.skip as usize);
        for (row, source) in rows.zip(resized.rgb.chunks_exact(from.max(1)).skip(down.range.start as usize)) {
            row[across.skip as usize * 3..][..columns.len()].copy_from_slice(&source[columns.clone()]);
        }
        cropped
    }

    /// The resized and cropped picture, 8 bits per channel.
    pub(super) fn levels(&self, picture: &Picture) -> Vec<u8> {
        let (width, height) = self.resized_size(picture);
        let crop =
            |side: u64| self.crop.map_or(Window { skip: 0, range: 0..side, length: side }, |crop| window(side, crop));
        let (across, down) = (crop(width), crop(height));
        let target = Target {
            width: width as usize,
            height: height as usize,
            columns: usize_range(&across.range),
            rows: usize_range(&down.range),
        };
        let resized =
            resize::resize(&picture.rgb, picture.width as usize, picture.height as usize, &target, self.interpolation);
        if target.columns.len() as u64 == across.length && target.rows.len() as u64 == down.length {
            return resized;
        }
        pad(&resized, &target, &across, &down)
    }

    /// Fails for pictures whose network input would be too large, which only a transform without a crop allows.
    pub(super) fn check_output(&self, picture: &Picture) -> Result<(), ImageError> {
        let (width, height) = self.resized_size(picture);
        if self.output_size().is_none() && width * height > MAX_INPUT_PIXELS {
            return Err(ImageError::TooLargeResized { width: picture.full_width, height: picture.full_height });
        }
        Ok(())
    }

    /// Width and height after the resize. The longer side is cut off to whole pixels, as torchvision does, and follows
    /// from the photo's own size, whatever scale it was decoded at.
    fn resized_size(&self, picture: &Picture) -> (u64, u64) {
        let (width, height) = (u64::from(picture.full_width), u64::from(picture.full_height));
        match self.resize {
            Resize::Exact { height, width } => (u64::from(width), u64::from(height)),
            Resize::ShortSide(side) if width <= height => (u64::from(side), u64::from(side) * height / width.max(1)),
            Resize::ShortSide(side) => (u64::from(side) * width / height.max(1), u64::from(side)),
        }
    }
}

/// What a crop takes of one side, and how much black comes before it when the side is too short.
struct Window {
    skip: u64,
    range: Range<u64>,
    length: u64,
}

/// torchvision's center crop: padding of `(crop - side) / 2` in front when the side is too short, else from
/// `round((side - crop) / 2)`, halves to even.
fn window(side: u64, crop: u32) -> Window {
    let crop = u64::from(crop);
    if side <= crop {
        return Window { skip: (crop - side) / 2, range: 0..side, length: crop };
    }
    let spare = side - crop;
    let start = if spare % 4 == 3 { spare.div_ceil(2) } else { spare / 2 };
    Window { skip: 0, range: start..start + crop, length: crop }
}

fn usize_range(range: &Range<u64>) -> Range<usize> {
    range.start as usize..range.end as usize
}

/// Lays the window on black.
fn pad(resized: &[u8], target: &Target, across: &Window, down: &Window) -> Vec<u8> {
    let stride = across.length as usize * 3;
    let mut padded = vec![0; stride * down.length as usize];
    let rows = padded.chunks_exact_mut(stride).skip(down.skip as usize);
    for (row, source) in rows.zip(resized.chunks_exact(target.columns.len() * 3)) {
        row[across.skip as usize * 3..][..source.len()].copy_from_slice(source);
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(spares: Range<u64>) -> Vec<u64> {
        spares.map(|spare| window(224 + spare, 224).range.start).collect()
    }

    #[test]
    fn crops_start_where_torchvision_rounds_to() {
        // int(round(spare / 2.0)) in Python: 0.5 → 0, 1.5 → 2, 2.5 → 2, 3.5 → 4.
        assert_eq!(starts(0..9), [0, 0, 1, 2, 2, 2, 3, 4, 4]);
    }

    #[test]
    fn a_resize_that_changes_nothing_keeps_every_pixel() {
        let rgb: Vec<u8> = (0..7 * 5 * 3).map(|at| (at * 29 % 256) as u8).collect();
        let picture = Picture { width: 7, height: 5, rgb: rgb.clone(), full_width: 7, full_height: 5 };
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
            let transform =
                Transform { resize: Resize::ShortSide(5), crop: None, interpolation, ..Transform::default() };
            assert_eq!(transform.levels(&picture), rgb);
        }
    }

    #[test]
    fn a_picture_smaller_than_the_crop_lies_on_black() {
        let picture = Picture { width: 2, height: 1, rgb: vec![255; 6], full_width: 2, full_height: 1 };
        let transform = Transform { resize: Resize::ShortSide(1), crop: Some(4), ..Transform::default() };
        let levels = transform.levels(&picture);
        let lit: Vec<usize> = (0..16).filter(|at| levels[at * 3] == 255).collect();
        // torchvision pads (4-2)/2 left and (4-1)/2 above, cut off.
        assert_eq!(lit, [5, 6]);
    }

    #[test]
    fn extreme_shapes_cost_no_more_than_their_crop() {
        let picture = Picture { width: 1, height: 20_000, rgb: vec![9; 60_000], full_width: 1, full_height: 20_000 };
        let levels = Transform::default().levels(&picture);
        assert_eq!(levels, vec![9; 224 * 224 * 3]);
        let whole = Transform { crop: None, ..Transform::default() };
        assert!(whole.check_output(&picture).is_err());
    }

    #[test]
    fn a_resized_picture_is_cropped_to_the_same_pixels_whatever_its_shape() {
        let transform = Transform { resize: Resize::ShortSide(8), crop: Some(7), ..Transform::default() };
        let padded = Transform { resize: Resize::ShortSide(5), crop: Some(8), ..transform };
        let squashed = Transform { resize: Resize::Exact { height: 9, width: 12 }, ..transform };
        for transform in [transform, padded, squashed] {
            for (width, height) in (1..160).map(|long| (long, 9)).chain((1..160).map(|long| (13, long))) {
                let rgb = (0..width * height * 3).map(|at| (at * 89 % 251) as u8).collect();
                let picture = Picture { width, height, rgb, full_width: width, full_height: height };
                let resized = transform.resized(&picture);
                assert!(u64::from(resized.width.max(resized.height)) <= transform.longest_side());
                assert_eq!(transform.crop(&resized), transform.levels(&picture), "{width} × {height}");
            }
        }
    }

    #[test]
    fn what_a_person_sets_is_checked() {
        let fine = Transform::default();
        assert_eq!(fine.check(), Ok(()));
        assert!(Transform { crop: Some(0), ..fine }.check().is_err());
        assert!(Transform { resize: Resize::Exact { height: 10, width: 1 << 20 }, ..fine }.check().is_err());
        assert!(Transform { std: [0.0, 1.0, 1.0], ..fine }.check().is_err());
        assert!(Transform { mean: [f32::NAN, 0.0, 0.0], ..fine }.check().is_err());
    }
}
