//! Admits a job to the memory there is, or refuses it with numbers: what it would take, what it may, and what would fit.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::peaks::{self, Predicted};
use crate::device::{self, Chosen};
use crate::format::{bytes, chain};
use crate::journal::PeakKind;
use crate::memory::{self, Allowance, Budget, Plan, heap};
use crate::train::TrainConfig;
use crate::worker::{BoxError, Outcome};

/// What a person says about the memory of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryChoice {
    /// The most the process may take, in bytes; none is what the system has.
    pub limit: Option<u64>,
    /// Run also what is predicted not to fit.
    pub anyway: bool,
}

impl MemoryChoice {
    pub fn of(config: &TrainConfig) -> Self {
        Self { limit: config.memory_limit, anyway: config.anyway }
    }

    pub fn allowance(&self) -> Allowance {
        Allowance { limit: self.limit }
    }
}

/// Settings with which a job would fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// As an option of the command line, or in words.
    pub change: String,
    /// The predicted peak with it.
    pub bytes: u64,
}

/// A job's predicted peak is above the budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoesNotFit {
    /// Of the process, with the leanest way to do what was asked for.
    pub predicted: u64,
    pub budget: Budget,
    /// What would fit, the smallest change first.
    pub remedies: Vec<Remedy>,
}

impl DoesNotFit {
    /// For people, without what only the command line has.
    pub fn reason(&self) -> String {
        let Self { predicted, budget, remedies } = self;
        let mut text = format!(
            "This would take about {} at its peak, and the memory budget is {}, {}",
            bytes(*predicted),
            bytes(budget.bytes),
            budget.bound.text()
        );
        match remedies.as_slice() {
            [] => text += ". No near setting would fit",
            some => {
                let list: Vec<String> =
                    some.iter().map(|remedy| format!("{} ({})", remedy.change, bytes(remedy.bytes))).collect();
                text += &format!(". What would fit: {}", list.join("; "));
            }
        }
        text
    }
}

impl std::fmt::Display for DoesNotFit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reason = self.reason();
        let (first, rest) = reason.split_at(1);
        write!(f, "{}{rest}. To try it all the same: --anyway", first.to_lowercase())
    }
}

impl std::error::Error for DoesNotFit {}

/// A job that asks to begin.
pub struct Asked {
    /// What it takes beside what the process has.
    pub plan: Plan,
    pub kind: PeakKind,
    /// Its settings, for the journal.
    pub config: String,
}

/// The predicted peak of a plan of so many bytes, if that fits.
pub type Fits<'a> = dyn Fn(u64) -> Option<u64> + 'a;

impl Asked {
    /// Fails with [`DoesNotFit`] when the prediction is above the budget, unless it is to run anyway: then the second is
    /// a sentence about that.
    pub fn admit(
        self,
        choice: MemoryChoice,
        chosen: &Chosen,
        journal: &Path,
        remedies: &dyn Fn(&Fits<'_>) -> Vec<Remedy>,
    ) -> Result<(Predicted, Option<String>), BoxError> {
        heap::release();
        heap::reset_peak();
        let Self { plan, kind, config } = self;
        let before = memory::read_often();
        let calibration = peaks::calibration(&kind, journal);
        let device = device::memory(&chosen.device);
        let device_free = device.map(|memory| memory.recommended.saturating_sub(memory.allocated));
        let peak = |bytes: u64| {
            let corrected = calibration.map_or(bytes, |calibration| calibration.corrected(bytes));
            before.footprint.unwrap_or(0) + corrected
        };
        let items = plan.process_items();
        let predicted = Predicted { kind, config, items, anyway: choice.anyway, before, left: u64::MAX };
        let Some(budget) = choice.allowance().budget(&before, device_free) else { return Ok((predicted, None)) };
        if let Some(left) = budget.bytes.checked_sub(peak(plan.process_bytes())) {
            return Ok((Predicted { left, ..predicted }, None));
        }
        let remedies = remedies(&|bytes: u64| Some(peak(bytes)).filter(|bytes| *bytes <= budget.bytes));
        let refused = DoesNotFit { predicted: peak(plan.process_bytes()), budget, remedies };
        match choice.anyway {
            true => Ok((predicted, Some(format!("{}. It runs anyway, as you chose", refused.reason())))),
            false => Err(refused.into()),
        }
    }
}

/// Why a job was refused, for people, if that is how it ended.
pub fn refusal_of<T>(outcome: &Outcome<T>) -> Option<String> {
    let Outcome::Failed(error) = outcome else { return None };
    chain(&**error).find_map(|error| error.downcast_ref()).map(DoesNotFit::reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Bound;

    #[test]
    fn a_refusal_says_peak_budget_and_what_would_fit() {
        let budget = Budget { bytes: 400_000_000, bound: Bound::Chosen };
        let remedies = vec![
            Remedy { change: "--batch-size 4".to_owned(), bytes: 380_000_000 },
            Remedy { change: "--image-size 160".to_owned(), bytes: 391_000_000 },
        ];
        let refused = DoesNotFit { predicted: 812_000_000, budget, remedies };
        assert_eq!(
            refused.to_string(),
            "this would take about 812 MB at its peak, and the memory budget is 400 MB, your own limit. What would fit: \
             --batch-size 4 (380 MB); --image-size 160 (391 MB). To try it all the same: --anyway"
        );
        let nothing = DoesNotFit { remedies: Vec::new(), ..refused };
        assert!(nothing.reason().ends_with("your own limit. No near setting would fit"));
        assert_eq!(refusal_of(&Outcome::<()>::Failed(Box::new(nothing.clone()))), Some(nothing.reason()));
        assert_eq!(refusal_of(&Outcome::<()>::Failed("something else".into())), None);
    }
}
