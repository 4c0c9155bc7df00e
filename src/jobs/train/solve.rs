//! Lays a run out in the memory there is: the fastest way to take the same steps that fits.
//!
//! Three things give memory for time: fewer photos computed at once, blocks computed twice, and fewer photos decoded ahead.
//! The effective batch always stays.

use crate::format::{bytes, counted};
use crate::train::{Recompute, TrainConfig};

/// What a step of one photo at a time costs beside its photo, as a share of that: each operation has its fixed part. An
/// estimate, as those below: they only rank layouts that all fit.
const COST_OF_A_PART: f64 = 0.25;

/// Forward is a third of forward and backward, and is done once more for a block that is computed twice.
const COST_OF_RECOMPUTING: f64 = 1.0 / 3.0;

/// What it costs to decode one batch ahead only, and none: then computing and decoding wait for each other.
const COST_OF_ONE_AHEAD: f64 = 0.02;
const COST_OF_NONE_AHEAD: f64 = 0.15;

/// Batch norms that see fewer photos learn worse: that is no matter of time, and the last thing to choose.
const COST_OF_SPLIT_NORMS: f64 = 100.0;

/// How the memory of a run is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Photos computed at once.
    pub at_once: usize,
    /// By block: whether it is computed twice.
    pub recompute: Vec<bool>,
    pub batches_ahead: usize,
}

impl Layout {
    pub fn recomputed_blocks(&self) -> usize {
        self.recompute.iter().filter(|twice| **twice).count()
    }
}

/// What layouts are chosen from.
pub struct Layouts<'a> {
    pub config: &'a TrainConfig,
    /// By block, the bytes it keeps of a batch; those of frozen blocks are 0.
    pub kept: &'a [u64],
    /// The first block that learns.
    pub first: usize,
    pub has_batch_norms: bool,
    /// What a run takes in a layout, beside what the process has.
    pub bytes: &'a dyn Fn(&Layout) -> u64,
}

impl Layouts<'_> {
    /// The fastest that takes at most `room` bytes; none when even the leanest does not.
    pub fn fastest(&self, room: u64) -> Option<Layout> {
        let mut best: Option<(f64, Layout)> = None;
        for batches_ahead in self.queues() {
            for at_once in self.parts() {
                // Computing blocks twice only adds to that.
                let least = self.cost(&Layout { at_once, recompute: self.recomputing(0), batches_ahead });
                if best.as_ref().is_some_and(|(cost, _)| *cost <= least) {
                    continue;
                }
                let Some(layout) = self.keeping_most(at_once, batches_ahead, room) else { continue };
                let cost = self.cost(&layout);
                // Of equals the first, which is nearest to what was asked for.
                if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                    best = Some((cost, layout));
                }
            }
        }
        best.map(|(_, layout)| layout)
    }

    /// The one that takes least.
    pub fn leanest(&self) -> Layout {
        let at_once = self.parts().last().copied().unwrap_or(1);
        let batches_ahead = self.queues().last().copied().unwrap_or(0);
        Layout { at_once, recompute: self.recomputing(usize::MAX), batches_ahead }
    }

    /// With no block computed twice that need not be.
    fn keeping_most(&self, at_once: usize, batches_ahead: usize, room: u64) -> Option<Layout> {
        let blocks = self.kept.len() - self.first;
        let layout = |count: usize| Layout { at_once, recompute: self.recomputing(count), batches_ahead };
        let fits = |count: usize| (self.bytes)(&layout(count)) <= room;
        let (mut fewest, mut most) = match self.config.recompute {
            Recompute::None => (0, 0),
            Recompute::Auto => (0, blocks),
            Recompute::All => (blocks, blocks),
        };
        if !fits(most) {
            return None;
        }
        // Each further block takes less.
        while fewest < most {
            let middle = (fewest + most) / 2;
            (fewest, most) = if fits(middle) { (fewest, middle) } else { (middle + 1, most) };
        }
        Some(layout(most))
    }

    /// So many blocks computed twice, if a person lets them: those that keep most.
    fn recomputing(&self, count: usize) -> Vec<bool> {
        let mut recompute = vec![false; self.kept.len()];
        if self.config.recompute == Recompute::None {
            return recompute;
        }
        let mut by_size: Vec<usize> = (self.first..self.kept.len()).collect();
        by_size.sort_by_key(|block| std::cmp::Reverse(self.kept[*block]));
        by_size.into_iter().take(count).for_each(|block| recompute[block] = true);
        recompute
    }

    /// How many photos may be computed at once: what a person chose, or the whole batch and its halves.
    fn parts(&self) -> Vec<usize> {
        let batch = self.config.batch_size;
        if let Some(chosen) = self.config.micro_batch {
            return vec![chosen.min(batch)];
        }
        let fewest = fewest_at_once(batch, self.has_batch_norms);
        let halves = std::iter::successors(Some(batch), |count| Some(count.div_ceil(2)).filter(|half| half < count));
        halves.take_while(|count| *count >= fewest).collect()
    }

    fn queues(&self) -> Vec<usize> {
        let most = self.config.batches_ahead;
        [most, 1, 0].into_iter().filter(|ahead| *ahead <= most).collect()
    }

    /// In units of the time of a step as fast as can be.
    fn cost(&self, layout: &Layout) -> f64 {
        let is_split = layout.at_once < self.config.batch_size && self.config.micro_batch.is_none();
        let parts = if is_split { COST_OF_A_PART / layout.at_once as f64 } else { 0.0 };
        let norms = if is_split && self.has_batch_norms { COST_OF_SPLIT_NORMS / layout.at_once as f64 } else { 0.0 };
        let all: u64 = self.kept.iter().sum();
        let twice: u64 =
            self.kept.iter().zip(&layout.recompute).filter(|(_, twice)| **twice).map(|(kept, _)| kept).sum();
        let queue = match layout.batches_ahead {
            ahead if ahead == self.config.batches_ahead => 0.0,
            0 => COST_OF_NONE_AHEAD,
            _ => COST_OF_ONE_AHEAD,
        };
        1.0 + parts + norms + COST_OF_RECOMPUTING * twice as f64 / all.max(1) as f64 + queue
    }

    /// What was chosen and why, as a sentence; none when it is what was asked for.
    pub fn sentence(&self, layout: &Layout, budget: u64) -> Option<String> {
        let TrainConfig { batch_size, recompute, batches_ahead, .. } = *self.config;
        let mut parts = Vec::new();
        if layout.at_once < batch_size && self.config.micro_batch.is_none() {
            let steps = batch_size.div_ceil(layout.at_once);
            parts.push(format!("micro-batch {} × {steps} keeps the effective batch of {batch_size}", layout.at_once));
        }
        let twice = layout.recomputed_blocks();
        if twice > 0 && recompute == Recompute::Auto {
            let blocks = counted((self.kept.len() - self.first) as u64, "block");
            parts.push(format!("{twice} of {blocks} computed twice"));
        }
        if layout.batches_ahead < batches_ahead {
            parts.push(match layout.batches_ahead {
                0 => "no photos are decoded ahead".to_owned(),
                ahead => format!("{} decoded ahead", counted_batches(ahead)),
            });
        }
        if parts.is_empty() {
            return None;
        }
        let is_split = layout.at_once < batch_size;
        let norms = match (self.has_batch_norms && is_split, self.config.micro_batch) {
            (true, None) => {
                format!(". Batch norms then see {} photos at a time; nothing else would fit", layout.at_once)
            }
            _ => String::new(),
        };
        Some(format!("To stay within {}: {}{norms}", bytes(budget), parts.join("; ")))
    }
}

fn counted_batches(count: usize) -> String {
    format!("{count} {}", if count == 1 { "batch is" } else { "batches are" })
}

/// Of fewer photos at once a batch norm would learn nothing.
pub fn fewest_at_once(batch_size: usize, has_batch_norms: bool) -> usize {
    if has_batch_norms { batch_size.min(2) } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: [u64; 5] = [0, 400, 300, 200, 100];

    /// 1,000 bytes fixed, 100 a block and photo more or less, 50 for each photo that waits.
    fn bytes(config: &TrainConfig) -> impl Fn(&Layout) -> u64 {
        let batch = config.batch_size as u64;
        move |layout| {
            let kept: u64 =
                KEPT.iter().zip(&layout.recompute).filter(|(_, twice)| !**twice).map(|(kept, _)| *kept).sum();
            1000 + (kept + 100) * layout.at_once as u64 + 50 * batch * (layout.batches_ahead as u64 + 1)
        }
    }

    fn fastest(config: &TrainConfig, has_batch_norms: bool, room: u64) -> Option<(Layout, Option<String>)> {
        let bytes = bytes(config);
        let layouts = Layouts { config, kept: &KEPT, first: 1, has_batch_norms, bytes: &bytes };
        let layout = layouts.fastest(room)?;
        assert!(bytes(&layout) <= room, "{layout:?}");
        let sentence = layouts.sentence(&layout, room);
        Some((layout, sentence))
    }

    fn config() -> TrainConfig {
        TrainConfig { batch_size: 32, batches_ahead: 3, recompute: Recompute::Auto, ..TrainConfig::default() }
    }

    #[test]
    fn what_fits_is_left_as_it_was_asked_for() {
        let (layout, sentence) = fastest(&config(), false, u64::MAX).unwrap();
        assert_eq!(layout, Layout { at_once: 32, recompute: vec![false; 5], batches_ahead: 3 });
        assert_eq!(sentence, None);
    }

    #[test]
    fn without_batch_norms_a_split_comes_first_and_with_them_last() {
        // 42,600 as asked for; half the photos at once, or two blocks twice, are enough.
        let room = 26_500;
        let (layout, sentence) = fastest(&config(), false, room).unwrap();
        assert_eq!((layout.at_once, layout.recomputed_blocks(), layout.batches_ahead), (16, 0, 3));
        assert_eq!(sentence.unwrap(), "To stay within 26.5 kB: micro-batch 16 × 2 keeps the effective batch of 32");
        let (layout, sentence) = fastest(&config(), true, room).unwrap();
        assert_eq!((layout.at_once, layout.recompute.as_slice()), (32, [false, true, true, false, false].as_slice()));
        assert_eq!(sentence.unwrap(), "To stay within 26.5 kB: 2 of 4 blocks computed twice");
        // Too little for the whole batch even with all blocks twice and no queue.
        let (layout, sentence) = fastest(&config(), true, 5000).unwrap();
        assert!(layout.at_once < 32 && layout.at_once >= 2);
        assert!(sentence.unwrap().contains("Batch norms then see"));
    }

    #[test]
    fn the_effective_batch_and_a_persons_choices_stay() {
        let chosen = TrainConfig { micro_batch: Some(16), recompute: Recompute::None, ..config() };
        let (layout, sentence) = fastest(&chosen, false, 24_000).unwrap();
        assert_eq!((layout.at_once, layout.recomputed_blocks(), layout.batches_ahead), (16, 0, 1));
        assert_eq!(sentence.unwrap(), "To stay within 24.0 kB: 1 batch is decoded ahead");
        assert_eq!(fastest(&chosen, false, 18_000), None, "which would fit with fewer at once");
        let twice = TrainConfig { recompute: Recompute::All, ..config() };
        assert_eq!(fastest(&twice, false, u64::MAX).unwrap().0.recomputed_blocks(), 4);
    }

    #[test]
    fn the_leanest_takes_the_least_of_all() {
        for has_batch_norms in [false, true] {
            let config = config();
            let bytes = bytes(&config);
            let layouts = Layouts { config: &config, kept: &KEPT, first: 1, has_batch_norms, bytes: &bytes };
            let least = bytes(&layouts.leanest());
            assert!(layouts.fastest(least).is_some());
            assert_eq!(layouts.fastest(least - 1), None);
        }
    }
}
