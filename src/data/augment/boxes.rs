//! Random boxes in a picture: which part is kept, and which is erased (`torchvision/transforms/transforms.py`,
//! `RandomResizedCrop.get_params` and `RandomErasing.get_params`).

use std::ops::Range;

use super::Augment;
use crate::data::random::Random;

/// How often torchvision draws before it gives up.
const TRIES: usize = 10;

/// Share of the area that is erased, and its height divided by its width: torchvision's defaults.
const ERASED_SCALE: [f64; 2] = [0.02, 0.33];
const ERASED_RATIO: [f64; 2] = [0.3, 3.3];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rectangle {
    pub left: u32,
    pub top: u32,
    pub width: u32,
    pub height: u32,
}

impl Rectangle {
    /// The places of its pixels in a picture of this width, row by row.
    pub fn rows(self, picture_width: usize) -> impl Iterator<Item = Range<usize>> {
        let rows = self.top as usize..(self.top + self.height) as usize;
        rows.map(move |row| {
            let start = row * picture_width + self.left as usize;
            start..start + self.width as usize
        })
    }
}

/// The part of the picture to keep; when ten draws do not fit, the middle with the nearest allowed ratio.
pub fn random_crop(width: u32, height: u32, augment: &Augment, random: &mut Random) -> Rectangle {
    for _ in 0..TRIES {
        let (drawn_width, drawn_height) = draw(width, height, augment.crop_scale, augment.crop_ratio, random);
        if let (1.., 1..) = (drawn_width, drawn_height)
            && drawn_width <= width
            && drawn_height <= height
        {
            return place(width, height, drawn_width, drawn_height, random);
        }
    }
    let (ratio, [narrowest, widest]) = (f64::from(width) / f64::from(height), augment.crop_ratio);
    let (kept_width, kept_height) = if ratio < narrowest {
        (width, round(f64::from(width) / narrowest).min(height))
    } else if ratio > widest {
        (round(f64::from(height) * widest).min(width), height)
    } else {
        (width, height)
    };
    let (left, top) = ((width - kept_width) / 2, (height - kept_height) / 2);
    Rectangle { left, top, width: kept_width, height: kept_height }
}

/// The box to erase in a square; `None` when ten draws do not fit.
pub fn random_erasing(side: u32, random: &mut Random) -> Option<Rectangle> {
    (0..TRIES).find_map(|_| {
        // torchvision's ratio is of width to height above and of height to width here.
        let (height, width) = draw(side, side, ERASED_SCALE, ERASED_RATIO, random);
        (width < side && height < side).then(|| place(side, side, width, height, random))
    })
}

/// Sides of a box with a share of the area, the first divided by the second being `ratio`, drawn evenly in its
/// logarithm.
fn draw(width: u32, height: u32, scale: [f64; 2], ratio: [f64; 2], random: &mut Random) -> (u32, u32) {
    let area = f64::from(width) * f64::from(height) * random.between(scale[0], scale[1]);
    let ratio = random.between(ratio[0].ln(), ratio[1].ln()).exp();
    (round((area * ratio).sqrt()), round((area / ratio).sqrt()))
}

fn place(width: u32, height: u32, box_width: u32, box_height: u32, random: &mut Random) -> Rectangle {
    let top = random.below((height - box_height + 1) as usize) as u32;
    let left = random.below((width - box_width + 1) as usize) as u32;
    Rectangle { left, top, width: box_width, height: box_height }
}

/// Python's `round`.
fn round(side: f64) -> u32 {
    side.round_ties_even() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Means and deviations of area, ratio, left and top.
    const CROPS: [(f64, f64); 4] = [(0.43474, 0.21727), (0.03076, 0.16415), (0.21734, 0.16113), (0.13953, 0.13601)];
    const LARGE_CROPS: [(f64, f64); 4] =
        [(0.62949, 0.07911), (0.00507, 0.05726), (0.15585, 0.09565), (0.04433, 0.04172)];
    const ERASED: [(f64, f64); 3] = [(0.1746, 0.08928), (-0.00561, 0.6895), (0.28748, 0.20154)];

    /// Mean and standard deviation.
    fn moments(values: &[f64]) -> (f64, f64) {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
        (mean, variance.sqrt())
    }

    /// Compares with moments that torchvision gave for 200,000 draws: both means stray by `deviation / √200000`, the
    /// difference by √2 of that, and five times this is allowed; for the deviation of any bounded value less.
    fn assert_moments(name: &str, values: &[f64], (mean, deviation): (f64, f64)) {
        let ours = moments(values);
        let allowed = 5.0 * deviation * (2.0 / 200_000.0_f64).sqrt() + 1e-5;
        assert!((ours.0 - mean).abs() < allowed, "{name}: mean {} instead of {mean}", ours.0);
        assert!((ours.1 - deviation).abs() < allowed, "{name}: deviation {} instead of {deviation}", ours.1);
    }

    fn crops(augment: &Augment) -> [Vec<f64>; 4] {
        let mut values: [Vec<f64>; 4] = Default::default();
        for index in 0..200_000 {
            let part = random_crop(341, 256, augment, &mut Random::of(&[index]));
            let (width, height) = (f64::from(part.width), f64::from(part.height));
            assert!(part.left + part.width <= 341 && part.top + part.height <= 256);
            values[0].push(width * height / (341.0 * 256.0));
            values[1].push((width / height).ln());
            values[2].push(f64::from(part.left) / 341.0);
            values[3].push(f64::from(part.top) / 256.0);
        }
        values
    }

    #[test]
    fn crops_are_drawn_as_torchvision_draws_them() {
        // RandomResizedCrop.get_params on 341 × 256, torch.manual_seed(0), 200,000 draws each.
        for (augment, expected) in [
            (Augment { random_crop: true, ..Augment::NONE }, CROPS),
            (Augment { crop_scale: [0.5, 1.0], crop_ratio: [0.9, 1.1], ..Augment::NONE }, LARGE_CROPS),
        ] {
            let values = crops(&augment);
            for ((name, values), expected) in ["area", "ratio", "left", "top"].iter().zip(&values).zip(expected) {
                assert_moments(name, values, expected);
            }
        }
    }

    #[test]
    fn boxes_are_erased_as_torchvision_erases_them() {
        // RandomErasing.get_params on 224 × 224, torch.manual_seed(0), 200,000 draws.
        let boxes = (0..200_000).filter_map(|index| random_erasing(224, &mut Random::of(&[index])));
        let boxes: Vec<Rectangle> = boxes.collect();
        assert!(boxes.len() > 199_990);
        let of = |value: fn(&Rectangle) -> f64| boxes.iter().map(value).collect::<Vec<f64>>();
        assert_moments("area", &of(|b| f64::from(b.width * b.height) / 224.0 / 224.0), ERASED[0]);
        assert_moments("ratio", &of(|b| (f64::from(b.height) / f64::from(b.width)).ln()), ERASED[1]);
        assert_moments("top", &of(|b| f64::from(b.top) / 224.0), ERASED[2]);
    }

    #[test]
    fn a_picture_that_no_box_fits_into_gives_its_middle() {
        let augment = Augment { crop_scale: [1.0, 1.0], ..Augment::NONE };
        let mut random = Random::of(&[1]);
        // torchvision's fallback: the whole of the shorter side, and 4/3 or 3/4 of it.
        let wide = random_crop(1000, 12, &augment, &mut random);
        assert_eq!(wide, Rectangle { left: 492, top: 0, width: 16, height: 12 });
        let tall = random_crop(12, 1000, &augment, &mut random);
        assert_eq!(tall, Rectangle { left: 0, top: 492, width: 12, height: 16 });
        let tiny = random_crop(1, 1, &augment, &mut random);
        assert_eq!(tiny, Rectangle { left: 0, top: 0, width: 1, height: 1 });
    }
}
