//! From the planes of a JPEG's channels to interleaved pixels: coarser channels are enlarged, YCbCr becomes RGB.

use super::component::Channel;
use super::header::Colors;

/// Interleaves the channels as gray, RGB or ink (255 is full ink), `width` × `height` pixels.
pub fn interleave(channels: &[Channel], colors: Colors, width: usize, height: usize) -> Vec<u8> {
    let mut pixels = vec![0; width * height * channels.len()];
    let mut rows = vec![vec![0; width]; channels.len()];
    for (y, line) in pixels.chunks_exact_mut(width * channels.len()).enumerate() {
        for (channel, row) in channels.iter().zip(&mut rows) {
            channel_row(channel, y, row);
        }
        match rows.as_slice() {
            [gray] => line.copy_from_slice(gray),
            [a, b, c] => {
                for (x, pixel) in line.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                    *pixel = [a[x], b[x], c[x]];
                }
            }
            [a, b, c, d] => {
                for (x, pixel) in line.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    *pixel = [a[x], b[x], c[x], d[x]];
                }
            }
            _ => {}
        }
        convert(colors, line);
    }
    pixels
}

/// Row `y` of the picture from one channel.
fn channel_row(channel: &Channel, y: usize, row: &mut [u8]) {
    let geometry = &channel.geometry;
    let line = |y: usize| &channel.plane[y * geometry.stride()..][..geometry.width];
    let (above, below, down) = neighbors(y, geometry.pixels_down, geometry.height);
    if is_whole(geometry.pixels_across) && is_whole(geometry.pixels_down) {
        row.copy_from_slice(&line(above)[..row.len()]);
        return;
    }
    let (above, below) = (line(above), line(below));
    for (x, pixel) in row.iter_mut().enumerate() {
        let (left, right, across) = neighbors(x, geometry.pixels_across, geometry.width);
        let blend = |line: &[u8]| u32::from(line[left]) * (WHOLE - across) + u32::from(line[right]) * across;
        let sum = blend(above) * (WHOLE - down) + blend(below) * down;
        *pixel = ((sum + WHOLE * WHOLE / 2) / (WHOLE * WHOLE)) as u8;
    }
}

fn is_whole((pixels, samples): (usize, usize)) -> bool {
    pixels == samples
}

/// Weights are in parts of this.
const WHOLE: u32 = 16;

/// The two of `count` samples on either side of pixel `at` when a sample stands for so many pixels, and the weight of
/// the second. Samples lie in the middle of the pixels they stand for.
fn neighbors(at: usize, (pixels, samples): (usize, usize), count: usize) -> (usize, usize, u32) {
    let center = ((2 * at + 1) * samples) as isize - pixels as isize;
    let first = center.div_euclid(2 * pixels as isize);
    let weight = center.rem_euclid(2 * pixels as isize) as u32 * WHOLE / (2 * pixels as u32);
    let clamp = |index: isize| index.clamp(0, count as isize - 1) as usize;
    (clamp(first), clamp(first + 1), weight)
}

fn convert(colors: Colors, line: &mut [u8]) {
    match colors {
        Colors::Gray | Colors::Rgb | Colors::Cmyk { inverted: false } => {}
        Colors::YCbCr => line.as_chunks_mut::<3>().0.iter_mut().for_each(|pixel| *pixel = rgb(*pixel)),
        Colors::Cmyk { inverted: true } => line.iter_mut().for_each(|ink| *ink = 255 - *ink),
        Colors::Ycck { inverted } => line.as_chunks_mut::<4>().0.iter_mut().for_each(|pixel| {
            // What YCCK holds as red, green and blue is the light that the (inverted) inks leave.
            let [r, g, b] = rgb([pixel[0], pixel[1], pixel[2]]);
            *pixel = if inverted { [r, g, b, 255 - pixel[3]] } else { [255 - r, 255 - g, 255 - b, pixel[3]] };
        }),
    }
}

/// BT.601 at full range in 16-bit fixed point, rounded as libjpeg does.
#[inline]
fn rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((91_881 * cr + HALF) >> 16);
    let green = y + ((-22_554 * cb - 46_802 * cr + HALF) >> 16);
    let blue = y + ((116_130 * cb + HALF) >> 16);
    [red, green, blue].map(|light| light.clamp(0, 255) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubling_weighs_the_nearer_sample_three_to_one() {
        let double = (16, 8);
        assert_eq!(neighbors(0, double, 4), (0, 0, 12));
        assert_eq!(neighbors(1, double, 4), (0, 1, 4));
        assert_eq!(neighbors(2, double, 4), (0, 1, 12));
        assert_eq!(neighbors(7, double, 4), (3, 3, 4));
        assert_eq!(neighbors(5, (8, 8), 8), (5, 6, 0));
    }

    #[test]
    fn primaries_convert_as_in_jfif() {
        assert_eq!(rgb([76, 85, 255]), [254, 0, 0]);
        assert_eq!(rgb([255, 128, 128]), [255, 255, 255]);
        assert_eq!(rgb([29, 255, 107]), [0, 0, 254]);
    }
}
