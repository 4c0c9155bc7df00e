//! What lens, lamp and sensor do to a picture: falling light, colour cast, blur, noise.

use image::RgbImage;
use image::imageops::{FilterType, blur, resize};
use tiny_skia::Pixmap;

use super::random::Random;

/// Halves the drawing and makes a photo of it.
pub fn photo(drawing: &Pixmap, random: &mut Random) -> RgbImage {
    let opaque: Vec<u8> =
        drawing.pixels().iter().flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue()]).collect();
    let drawn = RgbImage::from_raw(drawing.width(), drawing.height(), opaque).expect("three bytes for every pixel");
    let mut photo = resize(&drawn, drawing.width() / 2, drawing.height() / 2, FilterType::Triangle);
    if random.chance(0.3) {
        photo = blur(&photo, random.range(0.4, 0.9));
    }
    develop(&mut photo, random);
    photo
}

struct Look {
    gains: [f32; 3],
    contrast: f32,
    saturation: f32,
    slope: (f32, f32),
    vignette: f32,
    /// Stripes of shade from a window: direction, pitch, depth.
    blinds: Option<(f32, f32, f32)>,
    noise: f32,
}

impl Look {
    fn draw(random: &mut Random) -> Self {
        let warmth = random.near(0.0, 0.3);
        let exposure = random.near(1.03, 0.28);
        let tint = random.near(0.0, 0.1);
        let (sin, cos) = random.angle().sin_cos();
        let fall = random.range(0.0, 0.45);
        Self {
            gains: [exposure * (1.0 + warmth), exposure * (1.0 + tint), exposure * (1.0 - warmth)],
            contrast: random.near(1.0, 0.25),
            saturation: random.near(0.9, 0.5),
            slope: (fall * cos, fall * sin),
            vignette: random.range(0.0, 0.45),
            blinds: random.chance(0.2).then(|| (random.angle(), random.range(6.0, 16.0), random.range(0.1, 0.35))),
            noise: random.range(1.0, 7.0),
        }
    }
}

fn develop(photo: &mut RgbImage, random: &mut Random) {
    let look = Look::draw(random);
    let (width, height) = (photo.width() as f32, photo.height() as f32);
    for (column, row, pixel) in photo.enumerate_pixels_mut() {
        let (x, y) = (column as f32 / width * 2.0 - 1.0, row as f32 / height * 2.0 - 1.0);
        let mut light = 1.0 + look.slope.0 * x + look.slope.1 * y - look.vignette * 0.5 * (x * x + y * y);
        if let Some((direction, pitch, depth)) = look.blinds {
            let across = x * direction.cos() + y * direction.sin();
            light *= 1.0 - depth * (0.5 + 0.5 * (across * pitch).sin()).powi(2);
        }
        let channels: [f32; 3] = std::array::from_fn(|channel| pixel.0[channel] as f32 * look.gains[channel] * light);
        let grey = channels.iter().sum::<f32>() / 3.0;
        let grain = random.near(0.0, look.noise);
        pixel.0 = channels.map(|value| {
            let vivid = grey + (value - grey) * look.saturation;
            let toned = 118.0 + (vivid - 118.0) * look.contrast;
            (toned + grain + random.near(0.0, look.noise * 0.7)).round().clamp(0.0, 255.0) as u8
        });
    }
}
