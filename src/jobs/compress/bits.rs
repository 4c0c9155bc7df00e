//! Finds the bits of each block where they are not the same for all.

use super::photos::Judgement;
use super::work::{Attempt, Work};
use super::{CompressJobError, Size};
use crate::compress::calibrate::block_errors;
use crate::compress::choice::{Cost, choose};
use crate::compress::quantize::{Bits, Calibration, Plan};
use crate::format::{bytes, percent};
use crate::images::Input;
use crate::models::{self, Precision};
use crate::worker::BoxError;

/// From the fewest bytes to the most.
const LADDER: [Bits; 4] = [Bits::Q4_0, Bits::Q5_0, Bits::Q8_0, Bits::F16];

/// The part of its f32 size that a mixed model takes unless told.
const MIXED_SHARE: u64 = 5;

/// So many sizes are looked at for one that keeps to a loss.
const SIZES: u64 = 32;

/// A step by which a file that is a little too large is made smaller.
const FILLING: usize = 1024;

/// Bytes of f32.
const PLAIN_BYTES: u64 = 4;

impl Work<'_> {
    /// The smaller model of the wanted size, not named yet.
    pub(super) fn attempt_size(
        &mut self,
        calibration: Option<&Calibration>,
        sample: &[Input],
        before: Option<&Judgement>,
    ) -> Result<Attempt, BoxError> {
        let most = match self.config.size {
            Size::Bits(bits) => {
                let plan = self.plan(&|_| bits)?;
                return self.attempt(&plan, format!("all weights in {}", bits.name()), calibration, before);
            }
            Size::Smallest => return self.smallest(calibration, sample, before),
            Size::Fit(most) => most,
            Size::Mixed => models::parameters(self.checkpoint.tensors()) * PLAIN_BYTES / MIXED_SHARE,
        };
        let plan = self.fitting(most, calibration, sample)?;
        self.attempt(&plan, format!("mixed, to fit in {}", bytes(most)), calibration, before)
    }

    fn plan(&self, bits: &dyn Fn(usize) -> Bits) -> Result<Plan, BoxError> {
        Ok(Plan::new(&self.checkpoint, &self.architecture, bits)?)
    }

    /// The plan of the least error whose file takes so many bytes at most.
    fn fitting(&mut self, most: u64, calibration: Option<&Calibration>, sample: &[Input]) -> Result<Plan, BoxError> {
        let metadata = self.metadata("mixed", calibration)?;
        let least = self.plan(&|_| LADDER[0])?;
        let weights: u64 = (0..least.block_names.len()).map(|block| least.block_bytes(block)).sum();
        let besides = least.file_bytes(&metadata) - weights;
        let Some(limit) = most.checked_sub(besides).filter(|limit| *limit >= weights) else {
            let (title, least) = (self.architecture.title.clone(), besides + weights);
            return Err(CompressJobError::TooSmall { title, wanted: most, least }.into());
        };
        let costs = self.costs(sample)?;
        // Names of shapes and the filling between tensors differ by little with the types.
        for spared in (0..limit - weights).step_by(FILLING) {
            let Some(choice) = choose(&costs, limit - spared) else { break };
            let plan = self.plan(&|block| LADDER[choice[block]])?;
            if plan.file_bytes(&metadata) <= most {
                return Ok(plan);
            }
        }
        Ok(least)
    }

    /// The smallest model that stays within the loss, or the one that loses least.
    fn smallest(
        &mut self,
        calibration: Option<&Calibration>,
        sample: &[Input],
        before: Option<&Judgement>,
    ) -> Result<Attempt, BoxError> {
        let allowed = self.config.max_loss.unwrap_or_default();
        let costs = self.costs(sample)?;
        let step = format!("mixed, to lose {} at most", percent(allowed));
        let bytes =
            |of: fn(&Vec<Cost>) -> Option<&Cost>| costs.iter().filter_map(of).map(|cost| cost.bytes).sum::<u64>();
        let (fewest, most) = (bytes(|costs| costs.first()), bytes(|costs| costs.last()));
        let mut best = None;
        // The first size of which the loss is small enough lies before `end`; those before `begin` lose too much.
        let (mut begin, mut end) = (0, SIZES);
        while begin < end || best.is_none() {
            let size = if begin < end { begin.midpoint(end) } else { SIZES };
            let Some(choice) = choose(&costs, fewest + (most - fewest) * size / SIZES) else { break };
            let plan = self.plan(&|block| LADDER[choice[block]])?;
            let attempt = self.attempt(&plan, step.clone(), calibration, before)?;
            let is_within = attempt.proof.as_ref().is_some_and(|proof| proof.loss() <= allowed);
            if is_within || size == SIZES {
                best = Some(attempt);
            }
            if is_within {
                end = size;
            } else {
                begin = size + 1;
            }
        }
        best.ok_or_else(|| CompressJobError::NothingToMeasureOn.into())
    }

    /// What each block costs in each form of [`LADDER`]: measured on photos where there are some, else by how far its weights
    /// are off.
    fn costs(&mut self, sample: &[Input]) -> Result<Vec<Vec<Cost>>, BoxError> {
        let [in_4, in_8] = match self.photos_fit(sample)? {
            true => [self.measured(Precision::Int4, sample)?, self.measured(Precision::Int8, sample)?],
            false => [self.noise(Bits::Q4_0)?, self.noise(Bits::Q8_0)?],
        };
        let plans = LADDER.map(|bits| self.plan(&|_| bits));
        let plans: Vec<Plan> = plans.into_iter().collect::<Result<_, _>>()?;
        let cost = |block: usize| {
            let (in_4, in_8) = (in_4[block], in_8[block].min(in_4[block]));
            // A bit more halves what rounding is off by, and its square is what counts.
            let errors = [in_4, in_8.max(in_4 / 4.0), in_8, 0.0];
            plans.iter().zip(errors).map(|(plan, error)| Cost { bytes: plan.block_bytes(block), error }).collect()
        };
        Ok((0..in_4.len()).map(cost).collect())
    }

    fn measured(&self, bits: Precision, sample: &[Input]) -> Result<Vec<f64>, BoxError> {
        let errors = block_errors(&self.checkpoint, &self.architecture, bits, sample, &self.chosen.device, self.ctx)?;
        self.release()?;
        Ok(errors)
    }

    /// The square of what rounding takes from each block's weights, as a share of their own.
    fn noise(&self, bits: Bits) -> Result<Vec<f64>, BoxError> {
        let written = self.write(&self.plan(&|_| bits)?, "trial", None)?;
        let share = |decibels: f64| 10f64.powf(-decibels / 10.0);
        Ok(written.blocks.iter().map(|block| block.decibels.map_or(0.0, share)).collect())
    }
}
