//! What classifying takes of the memory, and whether it may begin.

use std::path::Path;

use super::admission::{DoesNotFit, MemoryChoice, Remedy};
use super::peaks::{self, Predicted};
use crate::checkpoint::{ElementType, TensorInfo};
use crate::device::{self, Chosen};
use crate::format::count;
use crate::memory::{self, heap};
use crate::models::{self, Architecture, Precision};
use crate::predict::{self, ModelSource, TransformOverrides};
use crate::worker::BoxError;

/// Bytes of a number in f32.
const F32: u64 = 4;

/// What each photo of a batch takes, and what each thread that computes, in sizes of a photo as network input. Measured
/// with ResNet-50, which takes more than ConvNeXt Tiny, on 224 pixels in batches of 1, 8 and 32 on two cores.
const INPUTS_PER_PHOTO: f64 = 5.75;
const INPUTS_PER_THREAD: f64 = 28.0;

/// A job that takes photos through a network.
pub struct Inference<'a> {
    pub architecture: &'a Architecture,
    /// The tensors of its file; none of a network without one.
    pub stored: &'a [TensorInfo],
    pub precision: Precision,
    pub batch_size: usize,
    /// Of the photos as network input, in pixels.
    pub side: usize,
    /// That compute.
    pub threads: usize,
}

impl Inference<'_> {
    /// What it takes beside what the process has, in bytes, by what takes it.
    pub fn estimate(&self) -> Vec<(&'static str, u64)> {
        let input = (self.side * self.side * 3) as f64 * F32 as f64;
        vec![
            ("weights", self.weights()),
            ("batch", (INPUTS_PER_PHOTO * input * self.batch_size as f64) as u64),
            ("threads", (INPUTS_PER_THREAD * input * self.threads as f64) as u64),
        ]
    }

    fn bytes(&self) -> u64 {
        self.estimate().iter().map(|(_, bytes)| bytes).sum()
    }

    fn weights(&self) -> u64 {
        // Blocks of 32 values with a scale of 2 bytes.
        let rounded = |elements: u64, bits: u64| elements * bits / 8 + elements / 16;
        let of = |(name, shape): &(String, Vec<usize>)| {
            let elements = shape.iter().product::<usize>() as u64;
            let blocks = self.stored.iter().find(|info| info.name == *name);
            let blocks = blocks.filter(|info| matches!(info.element, ElementType::Quantized(_)));
            let is_small = shape.len() < 2 || (shape.len() == 4 && shape[1] == 1);
            match (self.precision, blocks) {
                (Precision::Stored, Some(info)) => info.bytes,
                (Precision::Int8, _) if !is_small => rounded(elements, 8),
                (Precision::Int4, _) if !is_small => rounded(elements, 4),
                _ => F32 * elements,
            }
        };
        self.architecture.tensors().map_or(0, |tensors| tensors.iter().map(of).sum())
    }

    /// Fails with [`DoesNotFit`] when the prediction is above the budget, unless it is to run anyway: then the second is
    /// a sentence about that. `config` are the job's settings, for the journal.
    pub fn admit(
        &self,
        mode: &str,
        config: String,
        choice: MemoryChoice,
        chosen: &Chosen,
        journal: &Path,
    ) -> Result<(Predicted, Option<String>), BoxError> {
        heap::release();
        heap::reset_peak();
        let (before, kind) = (memory::read_often(), peaks::kind(&self.architecture.name, mode, chosen));
        let calibration = peaks::calibration(&kind, journal);
        let device = device::memory(&chosen.device);
        let device_free = device.map(|memory| memory.recommended.saturating_sub(memory.allocated));
        let peak = |bytes: u64| {
            let corrected = calibration.map_or(bytes, |calibration| calibration.corrected(bytes));
            before.footprint.unwrap_or(0) + corrected
        };
        let predicted = Predicted { kind, config, items: self.estimate(), anyway: choice.anyway, before };
        let Some(budget) = choice.allowance().budget(&before, device_free) else { return Ok((predicted, None)) };
        if peak(self.bytes()) <= budget.bytes {
            return Ok((predicted, None));
        }
        let fits = |bytes: u64| Some(peak(bytes)).filter(|bytes| *bytes <= budget.bytes);
        let refused = DoesNotFit { predicted: peak(self.bytes()), budget, remedies: self.remedies(&fits) };
        match choice.anyway {
            true => Ok((predicted, Some(format!("{}. It runs anyway, as you chose", refused.reason())))),
            false => Err(refused.into()),
        }
    }

    /// What would fit, the smallest change first.
    fn remedies(&self, fits: &dyn Fn(u64) -> Option<u64>) -> Vec<Remedy> {
        let with = |batch_size: usize, precision: Precision, change: String| {
            let bytes = fits(Inference { batch_size, precision, ..*self }.bytes())?;
            Some(Remedy { change, bytes })
        };
        let halves = || std::iter::successors(Some(self.batch_size), |size| (*size > 1).then_some(size / 2));
        let smaller = |precision: Precision, option: &str| {
            halves().find_map(|size| {
                let batch = format!("--batch-size {size}");
                let options = if size < self.batch_size { [batch.as_str(), option] } else { ["", option] };
                with(size, precision, options.join(" ").trim().to_owned())
            })
        };
        let same = smaller(self.precision, "");
        let int8 = smaller(Precision::Int8, "--precision int8");
        let int4 = smaller(Precision::Int4, "--precision int4").filter(|_| int8.is_none());
        let lighter = models::lighter(self.architecture).into_iter().find_map(|one| {
            let architecture = &models::named(&one.name, self.architecture.classes).ok()?;
            let bytes = fits(Inference { architecture, stored: &[], ..*self }.bytes())?;
            Some(Remedy { change: format!("{} ({} weights)", one.name, count(one.weights)), bytes })
        });
        [same, int8, int4, lighter].into_iter().flatten().collect()
    }
}

/// A model to be loaded for a job.
pub struct ToLoad<'a> {
    pub model: &'a ModelSource,
    pub transform: &'a TransformOverrides,
    pub precision: Precision,
    pub batch_size: usize,
    /// 0: one per core.
    pub threads: usize,
    pub mode: &'a str,
    pub choice: MemoryChoice,
}

impl ToLoad<'_> {
    /// The same for a model that is still to be loaded. One that cannot be opened is admitted: loading it says why.
    pub fn admit(
        &self,
        config: String,
        chosen: &Chosen,
        journal: &Path,
    ) -> Result<(Option<Predicted>, Option<String>), BoxError> {
        let Ok(checkpoint) = predict::open(self.model) else { return Ok((None, None)) };
        let Ok(architecture) = predict::recognise(&checkpoint) else { return Ok((None, None)) };
        let Ok(described) = predict::describe(&checkpoint, &architecture, None, self.transform) else {
            return Ok((None, None));
        };
        let side = described.transform.output_size().map_or(0, |(height, width)| height.max(width));
        let threads = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let inference = Inference {
            architecture: &architecture,
            stored: checkpoint.tensors(),
            precision: self.precision,
            batch_size: self.batch_size,
            side,
            threads,
        };
        let (predicted, notice) = inference.admit(self.mode, config, self.choice, chosen, journal)?;
        Ok((Some(predicted), notice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_grows_with_batch_and_side_and_shrinks_with_bits() {
        let architecture = &models::named("convnext_tiny", 101).unwrap();
        let asked =
            Inference { architecture, stored: &[], precision: Precision::Stored, batch_size: 8, side: 224, threads: 2 };
        // Weights of 27.9 million parameters; peaks of the process were 164 MB and 78 MB with its own 12 MB.
        let f32 = asked.bytes();
        assert!((140_000_000..200_000_000).contains(&f32), "{f32}");
        let int8 = Inference { precision: Precision::Int8, ..asked }.bytes();
        assert!((60_000_000..110_000_000).contains(&int8), "{int8}");
        assert!(Inference { precision: Precision::Int4, ..asked }.bytes() < int8);
        assert!(Inference { batch_size: 32, ..asked }.bytes() > f32 && Inference { side: 320, ..asked }.bytes() > f32);
    }
}
