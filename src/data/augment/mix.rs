//! Mixup (Zhang et al., 2018) and cutmix (Yun et al., 2019) of a batch, as torchvision's references do them: each row
//! with the one before it, by one share for the whole batch.

use super::{Augment, Rectangle, Turn};
use crate::data::Batch;
use crate::data::random::Random;

/// Mixes the rows of a batch and their targets.
pub fn mix(augment: &Augment, batch: &mut Batch, turn: Turn) {
    let mut random = turn.random(b"mix     ");
    let takes_mixup = match (augment.mixup > 0.0, augment.cutmix > 0.0) {
        (false, false) => return,
        (true, true) => random.unit() < 0.5,
        (mixup, _) => mixup,
    };
    let rows = batch.indices.len();
    if rows < 2 {
        return;
    }
    let kept = if takes_mixup {
        let kept = beta(augment.mixup, &mut random);
        blend_rows(&mut batch.pixels, rows, kept as f32);
        kept
    } else {
        let (part, kept) = cut(batch.size, beta(augment.cutmix, &mut random), &mut random);
        paste_rows(&mut batch.pixels, rows, batch.size, part);
        kept
    };
    blend_rows(&mut batch.targets, rows, kept as f32);
    batch.kept = Some(kept as f32);
}

/// The box that is pasted, and the share of the picture that is kept.
fn cut(size: usize, kept: f64, random: &mut Random) -> (Rectangle, f64) {
    let (center_x, center_y) = (random.below(size) as i64, random.below(size) as i64);
    let half = (0.5 * (1.0 - kept).sqrt() * size as f64) as i64;
    let range = |center: i64| ((center - half).max(0) as u32, (center + half).min(size as i64) as u32);
    let ((left, right), (top, bottom)) = (range(center_x), range(center_y));
    let part = Rectangle { left, top, width: right - left, height: bottom - top };
    (part, 1.0 - f64::from(part.width * part.height) / (size * size) as f64)
}

/// Each row becomes `kept` of itself and the rest of the row before it, the last coming before the first.
pub fn blend_rows(values: &mut [f32], rows: usize, kept: f32) {
    with_row_before(values, rows, |row, before| {
        row.iter_mut().zip(before).for_each(|(value, other)| *value = *value * kept + other * (1.0 - kept));
    });
}

fn paste_rows(pixels: &mut [f32], rows: usize, size: usize, part: Rectangle) {
    with_row_before(pixels, rows, |row, before| {
        for pixels in part.rows(size) {
            let samples = pixels.start * 3..pixels.end * 3;
            row[samples.clone()].copy_from_slice(&before[samples]);
        }
    });
}

/// Calls `change` with each row and the row before it as it was.
fn with_row_before(values: &mut [f32], rows: usize, change: impl Fn(&mut [f32], &[f32])) {
    let length = values.len() / rows;
    let last = values[length * (rows - 1)..].to_vec();
    // From the end, so that the row before is not changed yet.
    for row in (1..rows).rev() {
        let (before, from_row) = values.split_at_mut(row * length);
        change(&mut from_row[..length], &before[(row - 1) * length..]);
    }
    change(&mut values[..length], &last);
}

/// Beta(α, α), from two Gamma draws kept as logarithms, which do not vanish for a small α.
fn beta(alpha: f64, random: &mut Random) -> f64 {
    let (a, b) = (ln_gamma_draw(alpha, random), ln_gamma_draw(alpha, random));
    1.0 / (1.0 + (b - a).exp())
}

/// The logarithm of a Gamma(α, 1) draw: Marsaglia and Tsang, "A simple method for generating gamma variables" (2000),
/// for α + 1, times U^(1/α).
fn ln_gamma_draw(alpha: f64, random: &mut Random) -> f64 {
    let d = alpha + 1.0 - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(random);
        let v = (1.0 + c * x).powi(3);
        let ln_u = (1.0 - random.unit()).ln();
        if v > 0.0 && ln_u < 0.5 * x * x + d - d * v + d * v.ln() {
            return (d * v).ln() + (1.0 - random.unit()).ln() / alpha;
        }
    }
}

/// Box and Muller's.
fn normal(random: &mut Random) -> f64 {
    (-2.0 * (1.0 - random.unit()).ln()).sqrt() * (std::f64::consts::TAU * random.unit()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_drawn_from_the_beta_distribution() {
        for alpha in [0.2, 1.0, 4.0] {
            let mut random = Random::of(&[9]);
            let draws: Vec<f64> = (0..100_000).map(|_| beta(alpha, &mut random)).collect();
            let mean = draws.iter().sum::<f64>() / 1e5;
            let variance = draws.iter().map(|draw| (draw - 0.5).powi(2)).sum::<f64>() / 1e5;
            // Mean 1/2, variance 1 / (4 (2α + 1)); the mean strays by √(variance / 100000).
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!((mean - 0.5).abs() < 5.0 * (expected / 1e5_f64).sqrt(), "{alpha}: {mean}");
            assert!((variance / expected - 1.0).abs() < 0.02, "{alpha}: {variance}");
            assert!(draws.iter().all(|draw| (0.0..=1.0).contains(draw)));
        }
    }

    /// Three rows of 8 × 8 whose samples say which row they are of.
    fn batch() -> Batch {
        let pixels = (0..3).flat_map(|row| [row as f32; 8 * 8 * 3]).collect();
        let targets = vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        Batch { indices: vec![4, 5, 6], pixels, size: 8, targets, labels: vec![0, 1, 2], ..Batch::default() }
    }

    #[test]
    fn targets_say_how_much_of_each_photo_is_there() {
        let mixup = Augment { mixup: 0.8, ..Augment::NONE };
        let cutmix = Augment { cutmix: 1.0, ..Augment::NONE };
        let both = Augment { mixup: 0.8, cutmix: 1.0, ..Augment::NONE };
        let mut changed = 0;
        for (augment, index) in [mixup, cutmix, both].into_iter().flat_map(|kind| (0..50).map(move |at| (kind, at))) {
            let mut mixed = batch();
            mix(&augment, &mut mixed, Turn { seed: 1, epoch: 0, index });
            for row in 0..3 {
                let before = (row + 2) % 3;
                let targets = &mixed.targets[row * 3..][..3];
                assert!((targets.iter().sum::<f32>() - 1.0).abs() < 1e-6);
                let mean = mixed.pixels[row * 192..][..192].iter().sum::<f32>() / 192.0;
                let expected = targets[row] * row as f32 + targets[before] * before as f32;
                assert!((mean - expected).abs() < 1e-4, "{mean} {expected}");
            }
            changed += usize::from(mixed != batch());
            // Whatever else there is of each photo is mixed as its target.
            let mut others = batch().targets;
            mixed.mix_too(&mut others);
            assert_eq!(others, mixed.targets);
        }
        assert!(changed > 130, "{changed}");
        let mut single = batch();
        single.indices.truncate(1);
        mix(&both, &mut single, Turn { seed: 1, epoch: 0, index: 0 });
        assert_eq!(single.pixels, batch().pixels);
    }
}
