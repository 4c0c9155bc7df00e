//! What classifying takes of the memory, and whether it may begin.

use std::path::Path;

use super::Places;
use super::admission::{Asked, DoesNotFit, Fits, MemoryChoice, Remedy};
use super::classify::look_ahead;
use super::doctor::{self, Prepared};
use super::models::{ModelLoan, Wanted};
use super::peaks::{self, Predicted};
use crate::checkpoint::TensorInfo;
use crate::device::{Chosen, DeviceChoice};
use crate::format::count;
use crate::images::ImageBudget;
use crate::memory::{F32, Place, Plan};
use crate::models::{self, Architecture, Precision};
use crate::predict::{self, Loading, ModelSource, TransformOverrides};
use crate::worker::{BoxError, JobContext};

/// A job that takes photos through a network.
#[derive(Clone, Copy)]
pub struct Inference<'a> {
    pub architecture: &'a Architecture,
    /// The tensors of its file; none of a network without one.
    pub stored: &'a [TensorInfo],
    pub precision: Precision,
    pub batch_size: usize,
    /// Of the photos as network input, in pixels.
    pub side: usize,
    /// Whether photos are decoded for it, which then wait for their batch.
    pub decodes: bool,
    /// That compute.
    pub threads: usize,
    /// Whether the weights are in memory already.
    pub is_loaded: bool,
}

impl Inference<'_> {
    /// What it takes beside what the process has. Nothing is counted of a network that cannot take such photos: the job will
    /// say why it cannot.
    pub fn plan(&self, chosen: &Chosen) -> Plan {
        let device = &chosen.device;
        let Self { architecture, stored, precision, batch_size, side, decodes, threads, is_loaded } = *self;
        let Ok(network) = architecture.outline(stored, None, precision, device) else { return Plan::default() };
        let place = Place { is_metal: device.is_metal(), ..Place::cpu(threads) };
        let pixels = [batch_size, side, side, 3];
        let Ok(peak) = network.inference(pixels, is_loaded, place) else { return Plan::default() };
        let weights = if is_loaded { 0 } else { network.bytes() };
        // Those of the next batch, and those of the one that is computed.
        let waiting = look_ahead(batch_size, Some((side, side)), threads) + batch_size;
        let waiting = (waiting * side * side * 3) as u64 * F32;
        let photos = if decodes { waiting + ImageBudget::LEAST_BYTES } else { 0 };
        let plan = Plan { weights, ..Plan::default() }.with_peak(peak, 0, 0);
        Plan { photos, heap: plan.heap + photos, ..plan }
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
        let asked = Asked { plan: self.plan(chosen), kind: peaks::kind(&self.architecture.name, mode, chosen), config };
        asked.admit(choice, chosen, journal, &|fits| self.remedies(chosen, fits))
    }

    /// What would fit, the smallest change first.
    fn remedies(&self, chosen: &Chosen, fits: &Fits<'_>) -> Vec<Remedy> {
        let with = |batch_size: usize, precision: Precision, change: String| {
            let fewer = Inference { batch_size, precision, ..*self };
            let bytes = fits(fewer.plan(chosen).process_bytes())?;
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
            let other = Inference { architecture, stored: &[], is_loaded: false, ..*self };
            let bytes = fits(other.plan(chosen).process_bytes())?;
            Some(Remedy { change: format!("{} ({} weights)", one.name, count(one.weights)), bytes })
        });
        [same, int8, int4, lighter].into_iter().flatten().collect()
    }
}

/// A model to be loaded for a job.
pub struct ToLoad<'a> {
    pub model: &'a ModelSource,
    pub labels: Option<&'a Path>,
    pub transform: &'a TransformOverrides,
    pub loading: Loading,
    pub batch_size: usize,
    /// 0: one per core.
    pub threads: usize,
    pub mode: &'a str,
    pub choice: MemoryChoice,
}

impl ToLoad<'_> {
    pub fn wanted(&self) -> Wanted<'_> {
        Wanted { source: self.model, labels: self.labels, transform: self.transform, loading: self.loading }
    }

    /// The same model once more, on the device as it is now: it may have been made anew since.
    pub fn lend_again(&self, device: DeviceChoice, places: &Places, ctx: &JobContext) -> Result<ModelLoan, BoxError> {
        let Prepared { chosen, .. } = doctor::prepare(device, &places.verdicts, ctx)?;
        places.models.lend_exactly(&self.wanted(), &chosen, ctx)
    }

    /// The same for a model that is still to be loaded. One that cannot be opened is admitted: loading it says why.
    pub fn admit(
        &self,
        config: String,
        chosen: &Chosen,
        places: &Places,
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
        let inference = || Inference {
            architecture: &architecture,
            stored: checkpoint.tensors(),
            precision: self.loading.precision,
            batch_size: self.batch_size,
            side,
            decodes: true,
            threads,
            is_loaded: places.models.holds(&self.wanted(), chosen),
        };
        let admit = || inference().admit(self.mode, config.clone(), self.choice, chosen, &places.journal);
        let (predicted, notice) = match admit() {
            Err(error) if error.is::<DoesNotFit>() && places.models.make_room() => admit()?,
            admitted => admitted?,
        };
        Ok((Some(predicted), notice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device;

    #[test]
    fn a_plan_grows_with_batch_and_side_and_shrinks_with_bits() {
        let architecture = &models::named("convnext_tiny", 101).unwrap();
        let asked = Inference {
            architecture,
            stored: &[],
            precision: Precision::Stored,
            batch_size: 8,
            side: 224,
            decodes: true,
            threads: 2,
            is_loaded: false,
        };
        let chosen = device::choose(DeviceChoice::Cpu).unwrap();
        let bytes = |inference: Inference| inference.plan(&chosen).heap;
        // Weights of 27.9 million parameters; peaks of the process were 164 MB and 78 MB with its own 12 MB.
        let f32 = bytes(asked);
        assert!((125_000_000..164_000_000).contains(&f32), "{f32}");
        let int8 = bytes(Inference { precision: Precision::Int8, ..asked });
        assert!((40_000_000..78_000_000).contains(&int8), "{int8}");
        assert!(bytes(Inference { precision: Precision::Int4, ..asked }) < int8);
        assert!(bytes(Inference { batch_size: 32, ..asked }) > f32 && bytes(Inference { side: 320, ..asked }) > f32);
        assert!(bytes(Inference { is_loaded: true, ..asked }) < f32 - 100_000_000);
    }
}
