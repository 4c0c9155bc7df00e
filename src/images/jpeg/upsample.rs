//! From the planes of a JPEG's channels to interleaved pixels: coarser channels are enlarged as libjpeg enlarges them
//! ("fancy upsampling"), YCbCr becomes RGB.

use super::component::{Channel, Geometry};
use super::header::Colors;
use crate::images::vectorized;

/// Interleaves the channels as gray, RGB or ink (255 is full ink), `width` × `height` pixels.
pub fn interleave(channels: &[Channel], colors: Colors, width: usize, height: usize) -> Vec<u8> {
    let mut pixels = vec![0; width * height * channels.len()];
    let mut enlarge: Vec<Enlarge> = channels.iter().map(|channel| Enlarge::new(channel, width)).collect();
    for (y, line) in pixels.chunks_exact_mut(width * channels.len()).enumerate() {
        vectorized(
            #[inline(always)]
            || interleave_row(&mut enlarge, colors, y, line),
        );
    }
    pixels
}

#[inline(always)]
fn interleave_row(channels: &mut [Enlarge], colors: Colors, y: usize, line: &mut [u8]) {
    match channels {
        [gray] => line.copy_from_slice(gray.row(y)),
        [a, b, c] => {
            let channels = a.row(y).iter().zip(b.row(y)).zip(c.row(y));
            let pixels = line.as_chunks_mut::<3>().0.iter_mut().zip(channels);
            if colors == Colors::YCbCr {
                pixels.for_each(|(pixel, ((y, cb), cr))| *pixel = rgb([*y, *cb, *cr]));
            } else {
                pixels.for_each(|(pixel, ((r, g), b))| *pixel = [*r, *g, *b]);
            }
        }
        [a, b, c, d] => {
            let channels = a.row(y).iter().zip(b.row(y)).zip(c.row(y)).zip(d.row(y));
            for (pixel, (((a, b), c), d)) in line.as_chunks_mut::<4>().0.iter_mut().zip(channels) {
                *pixel = ink(colors, [*a, *b, *c, *d]);
            }
        }
        _ => {}
    }
}

/// Weights are in parts of this.
const WHOLE: u16 = 16;

/// Gives the rows of one channel at the picture's width.
struct Enlarge<'a> {
    channel: &'a Channel,
    width: usize,
    /// For each pixel of a row the nearest sample; empty where samples are doubled.
    across: Vec<u16>,
    /// One row of samples, blended from two, with the first and the last repeated at its ends.
    blended: Vec<u16>,
    row: Vec<u8>,
}

impl<'a> Enlarge<'a> {
    fn new(channel: &'a Channel, width: usize) -> Self {
        let geometry = &channel.geometry;
        let (pixels, samples) = geometry.pixels_across;
        let nearest = |x: usize| (x * samples / pixels).min(geometry.width - 1) as u16;
        Self {
            channel,
            width,
            across: if is_doubled(geometry.pixels_across) { Vec::new() } else { (0..width).map(nearest).collect() },
            blended: vec![0; geometry.width + 2],
            row: vec![0; width.max(2 * geometry.width)],
        }
    }

    #[inline(always)]
    fn row(&mut self, y: usize) -> &[u8] {
        let geometry = &self.channel.geometry;
        let line = |y: usize| &self.channel.plane[y * geometry.stride()..][..geometry.width];
        let (above, below, weight) = neighbors(y, geometry.pixels_down, geometry.height);
        let is_whole = |(pixels, samples): (usize, usize)| pixels == samples;
        if is_whole(geometry.pixels_across) && is_whole(geometry.pixels_down) {
            return &line(above)[..self.width];
        }
        for ((blended, above), below) in self.blended[1..].iter_mut().zip(line(above)).zip(line(below)) {
            *blended = u16::from(*above) * (WHOLE - weight) + u16::from(*below) * weight;
        }
        let rounding = rounding(geometry, y);
        if is_doubled(geometry.pixels_across) {
            self.blended[0] = self.blended[1];
            self.blended[geometry.width + 1] = self.blended[geometry.width];
            double(&self.blended, rounding, &mut self.row);
        } else {
            for (pixel, nearest) in self.row.iter_mut().zip(&self.across) {
                *pixel = ((self.blended[usize::from(*nearest) + 1] * WHOLE + rounding[0]) / 256) as u8;
            }
        }
        &self.row[..self.width]
    }
}

/// Twice as many pixels as there are samples between the first and the last: each is three parts of the nearest sample
/// and one of the next nearest.
#[inline(always)]
fn double(samples: &[u16], rounding: [u16; 2], pixels: &mut [u8]) {
    let neighbors = samples.iter().zip(&samples[1..]).zip(&samples[2..]);
    for (pair, ((left, sample), right)) in pixels.as_chunks_mut::<2>().0.iter_mut().zip(neighbors) {
        let sums = [left * 4 + sample * 12 + rounding[0], sample * 12 + right * 4 + rounding[1]];
        *pair = sums.map(|sum| (sum / 256) as u8);
    }
}

fn is_doubled((pixels, samples): (usize, usize)) -> bool {
    pixels == 2 * samples
}

/// What libjpeg adds to even and odd pixels of row `y` before it cuts off, in parts of 256: it alternates, lest the
/// picture grow lighter.
fn rounding(geometry: &Geometry, y: usize) -> [u16; 2] {
    match (is_doubled(geometry.pixels_across), is_doubled(geometry.pixels_down)) {
        (true, true) => [128, 112],
        (true, false) => [64, 128],
        (false, true) => [[64; 2], [128; 2]][y % 2],
        (false, false) => [0; 2],
    }
}

/// The two of `count` samples on either side of pixel `at` when so many pixels stand for so many samples, and the weight
/// of the second. Samples lie in the middle of the two pixels they stand for; where they stand for more, libjpeg
/// repeats them.
fn neighbors(at: usize, (pixels, samples): (usize, usize), count: usize) -> (usize, usize, u16) {
    let last = count - 1;
    let nearest = (at * samples / pixels).min(last);
    match (is_doubled((pixels, samples)), at % 2) {
        (false, _) => (nearest, nearest, 0),
        (true, 0) => (nearest.saturating_sub(1), nearest, 12),
        (true, _) => (nearest, (nearest + 1).min(last), 4),
    }
}

/// Four channels as ink, 255 being full ink.
fn ink(colors: Colors, pixel: [u8; 4]) -> [u8; 4] {
    match colors {
        Colors::Cmyk { inverted: true } => pixel.map(|ink| 255 - ink),
        Colors::Ycck { inverted } => {
            // What YCCK holds as red, green and blue is the light that the (inverted) inks leave.
            let [r, g, b] = rgb([pixel[0], pixel[1], pixel[2]]);
            if inverted { [r, g, b, 255 - pixel[3]] } else { [255 - r, 255 - g, 255 - b, pixel[3]] }
        }
        _ => pixel,
    }
}

/// BT.601 at full range in 16-bit fixed point, rounded as libjpeg does.
#[inline(always)]
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
        assert_eq!(neighbors(5, (8, 8), 8), (5, 5, 0));
        assert_eq!(neighbors(5, (32, 8), 8), (1, 1, 0));
    }

    #[test]
    fn primaries_convert_as_in_jfif() {
        assert_eq!(rgb([76, 85, 255]), [254, 0, 0]);
        assert_eq!(rgb([255, 128, 128]), [255, 255, 255]);
        assert_eq!(rgb([29, 255, 107]), [0, 0, 254]);
    }
}
