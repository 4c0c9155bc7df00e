//! Brightness, contrast and saturation as Pillow's `ImageEnhance` changes them, in random order as torchvision's
//! `ColorJitter` does.

use super::Augment;
use crate::data::random::Random;

#[derive(Clone, Copy)]
enum Change {
    Brightness,
    Contrast,
    Saturation,
}

/// Changes RGB samples in place.
pub fn jitter(levels: &mut [u8], augment: &Augment, random: &mut Random) {
    let mut changes = [
        (Change::Brightness, augment.brightness),
        (Change::Contrast, augment.contrast),
        (Change::Saturation, augment.saturation),
    ];
    random.shuffle(&mut changes);
    for (change, strength) in changes {
        // Drawn also when it is off, so that the others stay as they are.
        let factor = random.between((1.0 - strength).max(0.0), 1.0 + strength);
        if strength > 0.0 {
            change.apply(levels, factor as f32);
        }
    }
}

impl Change {
    /// A blend with black, with the mean gray, or with each pixel's own gray; 1 changes nothing.
    fn apply(self, levels: &mut [u8], factor: f32) {
        let pixels = levels.as_chunks_mut::<3>().0;
        match self {
            Self::Brightness => pixels.iter_mut().for_each(|pixel| *pixel = pixel.map(|level| blend(0, level, factor))),
            Self::Contrast => {
                let sum: u64 = pixels.iter().map(|pixel| u64::from(gray(*pixel))).sum();
                let mean = (sum as f64 / pixels.len().max(1) as f64 + 0.5) as u8;
                pixels.iter_mut().for_each(|pixel| *pixel = pixel.map(|level| blend(mean, level, factor)));
            }
            Self::Saturation => {
                for pixel in pixels {
                    let gray = gray(*pixel);
                    *pixel = pixel.map(|level| blend(gray, level, factor));
                }
            }
        }
    }
}

/// `src/libImaging/Convert.c`: the weights of ITU-R 601 in 16 bits.
fn gray([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000) >> 16) as u8
}

/// `src/libImaging/Blend.c`: cut off, not rounded, and clipped when the factor goes beyond the second.
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    (f32::from(from) + factor * (f32::from(to) - f32::from(from))) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const PILLOW: [(Change, f32, [u8; 18]); 6] = [
        (Change::Brightness, 0.6, [7, 61, 114, 17, 70, 124, 27, 80, 133, 36, 90, 143, 46, 99, 2, 55, 109, 12]),
        (Change::Brightness, 1.37, [17, 139, 255, 39, 161, 255, 61, 183, 255, 83, 205, 255, 105, 227, 5, 127, 249, 27]),
        (Change::Contrast, 0.6, [54, 107, 161, 63, 117, 170, 73, 126, 180, 83, 136, 189, 92, 146, 48, 102, 155, 58]),
        (Change::Contrast, 1.37, [0, 96, 218, 0, 118, 240, 18, 140, 255, 40, 162, 255, 62, 184, 0, 84, 206, 0]),
        (Change::Saturation, 0.6, [42, 95, 149, 58, 111, 165, 74, 127, 181, 90, 143, 197, 94, 148, 50, 110, 164, 66]),
        (Change::Saturation, 1.37, [0, 107, 229, 1, 123, 245, 17, 139, 255, 33, 155, 255, 60, 182, 0, 76, 198, 0]),
    ];

    fn picture() -> Vec<u8> {
        (0..18).map(|at| ((at * 89 + 13) % 251) as u8).collect()
    }

    #[test]
    fn colors_change_as_pillow_changes_them() {
        // ImageEnhance of Pillow 13 on the same 3 × 2 picture.
        for (change, factor, expected) in PILLOW {
            let mut levels = picture();
            change.apply(&mut levels, factor);
            assert_eq!(levels, expected, "{factor}");
        }
    }

    #[test]
    fn factors_stay_between_their_bounds_and_orders_differ() {
        let bright = Augment { brightness: 0.4, ..Augment::NONE };
        let mut lightest: u8 = 0;
        let mut darkest: u8 = 255;
        for index in 0..2_000 {
            let mut levels = vec![100; 3];
            jitter(&mut levels, &bright, &mut Random::of(&[index]));
            (darkest, lightest) = (darkest.min(levels[0]), lightest.max(levels[0]));
        }
        assert!((60..=61).contains(&darkest) && (138..=139).contains(&lightest), "{darkest} {lightest}");
        let mut unchanged = picture();
        jitter(&mut unchanged, &Augment::NONE, &mut Random::of(&[1]));
        assert_eq!(unchanged, picture());
    }
}
