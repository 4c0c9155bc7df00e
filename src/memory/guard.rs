//! Decides, from one reading to the next, what a job must do about its memory. It acts on nothing itself, and asks nobody:
//! the same samples always lead to the same decisions.
//!
//! The order of acts: give caches back, compute fewer at once, decode nothing ahead, pause. After an act nothing follows
//! until it could show, and a cause that stays away for long is forgotten.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Pressure;

/// Above this share of the budget it is as good as used up: the next readings may lie higher. A job that has nothing left to do
/// without may go on up to the whole of it.
pub const NEAR: f64 = 0.95;

/// So many readings in a row must be near the budget. Above it, one is enough.
const READINGS_NEAR: u32 = 2;

/// The same of a swap that slows the job.
const READINGS_SWAPPING: u32 = 3;

/// Micro-batches after an act before its effect shows: one that was under way, and a whole one.
const BATCHES_TO_SETTLE: u64 = 2;

/// The system's pressure is a mean of the last ten seconds.
const TIME_TO_SETTLE: Duration = Duration::from_secs(10);

/// Mild pressure empties caches again only after this.
const BETWEEN_FLUSHES: Duration = Duration::from_secs(60);

/// After so many readings without a cause the next cause begins with caches again.
const CALM_READINGS: u32 = 40;

/// A throughput below this share of the usual one is slow.
const SLOW: f64 = 0.5;

/// A system that writes this much to swap in a second is swapping: 64 pages of 16 kB.
const SWAPPED_PER_SECOND: f64 = 1e6;

/// The usual throughput is the median of so many readings at least, and at most.
const READINGS_FOR_USUAL: [usize; 2] = [8, 256];

/// One reading while a job runs. What cannot be had is none, and causes nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// Since the job began.
    pub time: Duration,
    /// Micro-batches and photos since then.
    pub batches: u64,
    pub photos: u64,
    /// The most the process had since the last sample, in bytes, and what it may have.
    pub used: Option<u64>,
    pub budget: Option<u64>,
    /// The same of the GPU's memory.
    pub device_used: Option<u64>,
    pub device_budget: Option<u64>,
    pub pressure: Option<Pressure>,
    /// Bytes that the system has written to swap since it started.
    pub swapped_out: Option<u64>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Give caches back to the system.
    Flush,
    /// Compute half as many photos at once.
    Halve,
    /// Decode no photos ahead.
    DropAhead,
    /// Leave off, and say why.
    Pause,
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The process took so much of its budget, in bytes.
    Budget { used: u64, budget: u64 },
    /// The GPU had allocated so much of what it should work with.
    Device { used: u64, budget: u64 },
    /// The system as a whole is short of memory.
    Pressure,
    /// It writes to swap, and the job has become slow: shares of its usual speed.
    Swap { speed: f64 },
    /// A computation failed on the device.
    DeviceError,
}

impl Cause {
    /// Whether a budget is nearly used up and not exceeded.
    fn leaves_some(self) -> bool {
        matches!(self, Self::Budget { used, budget } | Self::Device { used, budget } if used <= budget)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    pub act: Act,
    pub cause: Cause,
}

/// What a job can still do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levers {
    /// Photos computed at once, and the fewest that make sense.
    pub at_once: usize,
    pub fewest: usize,
    /// Whether photos are decoded ahead.
    pub decodes_ahead: bool,
    pub can_pause: bool,
}

#[derive(Debug)]
pub struct Guard {
    levers: Levers,
    last: Option<Sample>,
    /// When the last act was, by its sample.
    acted: Option<Sample>,
    /// True from the first act until all was calm for long.
    has_flushed: bool,
    flushed: Option<Duration>,
    readings_near: u32,
    readings_swapping: u32,
    readings_calm: u32,
    /// Photos per second between samples.
    speeds: VecDeque<f64>,
}

/// How bad a cause is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Urgency {
    /// Caches may go.
    Mild,
    High,
}

impl Guard {
    pub fn new(levers: Levers) -> Self {
        Self {
            levers,
            last: None,
            acted: None,
            has_flushed: false,
            flushed: None,
            readings_near: 0,
            readings_swapping: 0,
            readings_calm: 0,
            speeds: VecDeque::new(),
        }
    }

    /// What the job has left to do without, after all that was decided.
    pub fn levers(&self) -> Levers {
        self.levers
    }

    /// What to do after this sample; none is the usual answer. The caller does it.
    pub fn look(&mut self, sample: Sample) -> Option<Decision> {
        let found = self.cause(&sample);
        self.last = Some(sample);
        let Some((cause, urgency)) = found else {
            // A reading that may be the first of several is not calm.
            self.readings_calm += u32::from(self.readings_near == 0 && self.readings_swapping == 0);
            self.has_flushed &= self.readings_calm < CALM_READINGS;
            return None;
        };
        self.readings_calm = 0;
        if !self.has_settled(&sample, cause) {
            return None;
        }
        let act = self.next_act(&sample, urgency).filter(|act| *act != Act::Pause || !cause.leaves_some())?;
        self.take(act, sample);
        Some(Decision { act, cause })
    }

    /// What to do after a failure on the device, before the same is tried once more; none when nothing is left that
    /// would make it smaller.
    pub fn failed(&mut self) -> Option<Decision> {
        let act = self.smaller().filter(|act| *act != Act::Pause)?;
        self.take(act, self.last.unwrap_or_default());
        Some(Decision { act, cause: Cause::DeviceError })
    }

    fn take(&mut self, act: Act, sample: Sample) {
        match act {
            Act::Halve => self.levers.at_once = (self.levers.at_once / 2).max(self.levers.fewest),
            Act::DropAhead => self.levers.decodes_ahead = false,
            Act::Pause => self.levers.can_pause = false,
            Act::Flush => {}
        }
        // Every act empties caches first.
        self.has_flushed = true;
        self.flushed = Some(sample.time);
        self.acted = Some(sample);
        (self.readings_near, self.readings_swapping) = (0, 0);
        // With other batches another speed is usual.
        self.speeds.clear();
    }

    fn next_act(&self, sample: &Sample, urgency: Urgency) -> Option<Act> {
        match urgency {
            Urgency::Mild => {
                let is_due = self.flushed.is_none_or(|then| sample.time.saturating_sub(then) >= BETWEEN_FLUSHES);
                is_due.then_some(Act::Flush)
            }
            Urgency::High if !self.has_flushed => Some(Act::Flush),
            Urgency::High => self.smaller(),
        }
    }

    fn smaller(&self) -> Option<Act> {
        let Levers { at_once, fewest, decodes_ahead, can_pause } = self.levers;
        match () {
            () if at_once > fewest => Some(Act::Halve),
            () if decodes_ahead => Some(Act::DropAhead),
            () if can_pause => Some(Act::Pause),
            () => None,
        }
    }

    /// Whether the last act has had the time to show.
    fn has_settled(&self, sample: &Sample, cause: Cause) -> bool {
        let Some(acted) = &self.acted else { return true };
        let batches = sample.batches >= acted.batches + BATCHES_TO_SETTLE;
        let time = !matches!(cause, Cause::Pressure) || sample.time.saturating_sub(acted.time) >= TIME_TO_SETTLE;
        batches && time
    }

    fn cause(&mut self, sample: &Sample) -> Option<(Cause, Urgency)> {
        let near = |used: Option<u64>, budget: Option<u64>| {
            let (used, budget) = used.zip(budget)?;
            (used as f64 > NEAR * budget as f64).then_some((used, budget))
        };
        let of_process = near(sample.used, sample.budget).map(|(used, budget)| Cause::Budget { used, budget });
        let of_device =
            near(sample.device_used, sample.device_budget).map(|(used, budget)| Cause::Device { used, budget });
        let full = of_process.or(of_device);
        self.readings_near = if full.is_some() { self.readings_near + 1 } else { 0 };
        let slow = self.slow_swap(sample);
        self.readings_swapping = if slow.is_some() { self.readings_swapping + 1 } else { 0 };
        let is_over = |cause: &Cause| matches!(cause, Cause::Budget { used, budget } | Cause::Device { used, budget } if used > budget);
        if let Some(cause) = full
            && (self.readings_near >= READINGS_NEAR || is_over(&cause))
        {
            return Some((cause, Urgency::High));
        }
        if let Some(speed) = slow
            && self.readings_swapping >= READINGS_SWAPPING
        {
            return Some((Cause::Swap { speed }, Urgency::High));
        }
        match sample.pressure {
            Some(Pressure::Critical) => Some((Cause::Pressure, Urgency::High)),
            Some(Pressure::Warning) => Some((Cause::Pressure, Urgency::Mild)),
            Some(Pressure::Calm) | None => None,
        }
    }

    /// The share of the usual speed that is left, when the system swaps and the job is slow.
    fn slow_swap(&mut self, sample: &Sample) -> Option<f64> {
        let last = self.last?;
        let seconds = sample.time.saturating_sub(last.time).as_secs_f64();
        if seconds <= 0.0 {
            return None;
        }
        let speed = sample.photos.saturating_sub(last.photos) as f64 / seconds;
        let usual = self.usual_speed();
        let swapped = sample.swapped_out.zip(last.swapped_out).map(|(now, before)| now.saturating_sub(before));
        let is_swapping = swapped.is_some_and(|bytes| bytes as f64 / seconds > SWAPPED_PER_SECOND);
        let slow = usual.map(|usual| speed / usual).filter(|share| is_swapping && *share < SLOW);
        // What is slowed by swapping must not become what is usual.
        if slow.is_none() {
            if self.speeds.len() == READINGS_FOR_USUAL[1] {
                self.speeds.pop_front();
            }
            self.speeds.push_back(speed);
        }
        slow
    }

    fn usual_speed(&self) -> Option<f64> {
        let mut speeds: Vec<f64> = self.speeds.iter().copied().collect();
        speeds.sort_by(f64::total_cmp);
        let median = speeds.get(speeds.len() / 2).copied();
        median.filter(|median| speeds.len() >= READINGS_FOR_USUAL[0] && *median > 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;
    const LEVERS: Levers = Levers { at_once: 8, fewest: 1, decodes_ahead: true, can_pause: true };

    /// A job of 4 photos per micro-batch, of which one takes 200 ms.
    struct Job {
        guard: Guard,
        sample: Sample,
    }

    impl Job {
        fn new(levers: Levers) -> Self {
            let sample = Sample { budget: Some(GB), swapped_out: Some(0), ..Sample::default() };
            Self { guard: Guard::new(levers), sample }
        }

        fn next(&mut self, change: impl FnOnce(&mut Sample)) -> Option<Decision> {
            self.sample.time += Duration::from_millis(200);
            self.sample.batches += 1;
            self.sample.photos += 4;
            change(&mut self.sample);
            self.guard.look(self.sample)
        }

        fn with(&mut self, share: f64) -> Option<Act> {
            self.next(|sample| sample.used = Some((share * GB as f64) as u64)).map(|decision| decision.act)
        }

        /// The acts of so many samples alike.
        fn acts(&mut self, readings: usize, share: f64) -> Vec<Act> {
            (0..readings).filter_map(|_| self.with(share)).collect()
        }
    }

    #[test]
    fn a_job_within_its_budget_is_left_alone_and_one_high_reading_is_noise() {
        let mut job = Job::new(LEVERS);
        assert_eq!(job.acts(500, 0.94), []);
        for _ in 0..50 {
            assert_eq!((job.with(0.99), job.with(0.5)), (None, None));
        }
        job.sample.budget = None;
        assert_eq!(job.acts(50, 9.0), [], "an unknown budget is not exceeded");
    }

    #[test]
    fn acts_come_in_their_order_and_none_before_the_last_could_show() {
        let mut job = Job::new(LEVERS);
        let expected = [
            Some(Act::Flush),
            None,
            Some(Act::Halve),
            None,
            Some(Act::Halve),
            None,
            Some(Act::Halve),
            None,
            Some(Act::DropAhead),
            None,
            Some(Act::Pause),
            None,
            None,
        ];
        assert_eq!(expected.map(|_| job.with(1.2)), expected);
        assert_eq!(job.guard.levers(), Levers { at_once: 1, fewest: 1, decodes_ahead: false, can_pause: false });
    }

    #[test]
    fn a_job_with_nothing_left_to_do_without_goes_on_up_to_the_whole_budget() {
        let mut job = Job::new(Levers { at_once: 2, decodes_ahead: false, ..LEVERS });
        assert_eq!(job.acts(40, 0.97), [Act::Flush, Act::Halve]);
        assert_eq!(job.acts(4, 1.01), [Act::Pause]);
    }

    #[test]
    fn an_act_that_helps_is_the_last_and_after_long_calm_caches_go_first_again() {
        let mut job = Job::new(LEVERS);
        assert_eq!(job.acts(4, 0.97), [Act::Flush, Act::Halve]);
        assert_eq!(job.acts(CALM_READINGS as usize - 1, 0.5), []);
        assert_eq!(job.acts(2, 0.97), [Act::Halve], "the calm was short");
        assert_eq!(job.acts(CALM_READINGS as usize, 0.5), []);
        assert_eq!(job.acts(2, 0.97), [Act::Flush]);
    }

    #[test]
    fn the_gpu_has_a_budget_of_its_own() {
        let mut job = Job::new(LEVERS);
        let full = |sample: &mut Sample| (sample.device_used, sample.device_budget) = (Some(3 * GB), Some(2 * GB));
        let cause = Cause::Device { used: 3 * GB, budget: 2 * GB };
        assert_eq!(job.next(full), Some(Decision { act: Act::Flush, cause }));
    }

    #[test]
    fn pressure_is_waited_for_as_long_as_its_mean_remembers() {
        let mut job = Job::new(LEVERS);
        let acts = |job: &mut Job, pressure, readings: u32| -> Vec<(u64, Act)> {
            let next = |_| {
                let decision = job.next(|sample| sample.pressure = Some(pressure))?;
                assert_eq!(decision.cause, Cause::Pressure);
                Some((job.sample.batches, decision.act))
            };
            (0..readings).filter_map(next).collect()
        };
        // Ten seconds are fifty samples.
        assert_eq!(acts(&mut job, Pressure::Critical, 102), [(1, Act::Flush), (51, Act::Halve), (101, Act::Halve)]);
        assert_eq!(acts(&mut job, Pressure::Warning, 200), [], "caches were emptied half a minute ago");
        assert_eq!(acts(&mut job, Pressure::Warning, 200).len(), 1);
        assert_eq!(job.guard.levers().at_once, 2, "a warning takes nothing from the job");
    }

    #[test]
    fn a_swap_cliff_is_a_slow_job_on_a_system_that_swaps() {
        let slow = |sample: &mut Sample| {
            sample.time += Duration::from_millis(400);
            sample.swapped_out = sample.swapped_out.map(|bytes| bytes + 10_000_000);
        };
        let mut job = Job::new(LEVERS);
        assert_eq!(job.acts(20, 0.5), []);
        // Slow without swapping, as when the disk is: and swapping by others without being slow.
        for _ in 0..9 {
            assert_eq!(job.next(|sample| sample.time += Duration::from_millis(400)), None);
        }
        for _ in 0..20 {
            assert_eq!(
                job.next(|sample| sample.swapped_out = sample.swapped_out.map(|bytes| bytes + 10_000_000)),
                None
            );
        }
        assert_eq!([job.next(slow), job.next(slow)], [None, None]);
        let Some(Decision { act: Act::Flush, cause: Cause::Swap { speed } }) = job.next(slow) else { panic!() };
        assert!((speed - 1.0 / 3.0).abs() < 1e-9, "{speed}");
    }

    #[test]
    fn a_failing_device_is_given_less_until_nothing_is_left() {
        let mut guard = Guard::new(LEVERS);
        let acts: Vec<Act> = std::iter::from_fn(|| guard.failed()).map(|decision| decision.act).take(9).collect();
        assert_eq!(acts, [Act::Halve, Act::Halve, Act::Halve, Act::DropAhead]);
        // A network with batch norms learns nothing from a single photo.
        let mut guard = Guard::new(Levers { fewest: 2, decodes_ahead: false, ..LEVERS });
        assert_eq!(std::iter::from_fn(|| guard.failed()).count(), 2);
        assert_eq!(guard.levers().at_once, 2);
    }
}
