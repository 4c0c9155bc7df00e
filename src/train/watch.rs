//! Watches over a run's memory from micro-batch to micro-batch, or where steps of a GPU are read together, and does what the
//! guard decides. A run in which it decides nothing is, to the last bit, the run without it.

use std::time::{Duration, Instant};

use candle_core::Device;

use super::run::GuardRecord;
use super::trainer::Pace;
use crate::format::{bytes, counted};
use crate::memory::guard::{Act, Cause, Decision, Guard, Levers, Sample};
use crate::memory::{self, Allowance, Bound, Budget, Pressure, Strain, heap};
use crate::{device, ops};

/// A reading takes a fifth of a millisecond.
const BETWEEN_READINGS: Duration = Duration::from_millis(100);

/// Tells the memory part of a sample. Fails when the device did at what it was given before.
pub type Source = Box<dyn FnMut() -> candle_core::Result<Sample> + Send>;

pub struct Watch {
    guard: Guard,
    /// None watches over nothing, but for failures of the device.
    source: Option<Source>,
    between_readings: Duration,
    started: Instant,
    last: Option<Instant>,
    /// Whether each micro-batch may be waited for; if not, only [`Self::look`] reads.
    waits: bool,
    /// Whether the readings are of this process.
    is_real: bool,
    batches: u64,
    photos: u64,
    most_at_once: usize,
    /// The step under way, and its epoch.
    step: u64,
    epoch: u64,
    device: Device,
    batches_ahead: usize,
    /// What was done and is not in the run's metrics yet.
    done: Vec<GuardRecord>,
    highest: Option<u64>,
}

impl Watch {
    /// `at_once` photos are computed at a time; of fewer than `fewest` a network may learn nothing.
    pub fn new(at_once: usize, fewest: usize, batches_ahead: usize, device: &Device) -> Self {
        let levers = Levers { at_once, fewest, decodes_ahead: batches_ahead > 0, can_pause: true };
        Self {
            guard: Guard::new(levers),
            source: None,
            between_readings: BETWEEN_READINGS,
            started: Instant::now(),
            last: None,
            waits: true,
            is_real: false,
            batches: 0,
            photos: 0,
            most_at_once: 0,
            step: 0,
            epoch: 0,
            device: device.clone(),
            batches_ahead,
            done: Vec::new(),
            highest: None,
        }
    }

    /// The same with the readings of this process and its device. Without an allowance, as when a person runs in spite of
    /// a prediction, no budget is kept: what the device and the system say still counts.
    pub fn over(self, allowance: Option<Allowance>) -> Self {
        let device = self.device.clone();
        let watch = self.with_source(Box::new(move || sense(allowance, &device)), BETWEEN_READINGS);
        Self { is_real: true, ..watch }
    }

    /// The same with other readings, taken at most so often.
    pub fn with_source(self, source: Source, between_readings: Duration) -> Self {
        Self { source: Some(source), between_readings, ..self }
    }

    /// The same for a job that cannot leave off in the middle.
    pub fn without_pause(self) -> Self {
        let levers = Levers { can_pause: false, ..self.guard.levers() };
        Self { guard: Guard::new(levers), ..self }
    }

    /// How many batches went through the network.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// Photos that went through it together at most.
    pub fn most_at_once(&self) -> usize {
        self.most_at_once
    }

    pub fn batches_ahead(&self) -> usize {
        self.batches_ahead
    }

    /// The highest reading of what the process had.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Says which step comes, and whether the device may be waited for in it: a reading does.
    pub(super) fn begin(&mut self, step: u64, epoch: u64, waits: bool) {
        (self.step, self.epoch, self.waits) = (step, epoch, waits);
    }

    /// Whether the system is short of memory, as far as it says without a wait for the device.
    pub(super) fn is_strained(&self) -> bool {
        self.is_real && memory::strain().pressure.is_some_and(|pressure| pressure != Pressure::Calm)
    }

    /// What was done since the last call.
    pub fn take_done(&mut self) -> Vec<GuardRecord> {
        std::mem::take(&mut self.done)
    }

    /// Makes the next try of what failed on the device smaller. False when nothing is left to do without.
    pub fn failed(&mut self) -> bool {
        let decision = self.guard.failed();
        decision.map(|decision| self.act(decision)).is_some()
    }

    /// Takes a reading, unless the last is young, and does what the guard decides. Waits for the device.
    pub(super) fn look(&mut self) -> candle_core::Result<()> {
        let Some(source) = &mut self.source else { return Ok(()) };
        if self.last.is_some_and(|last| last.elapsed() < self.between_readings) {
            return Ok(());
        }
        let sample = source()?;
        // After it: a reading waits for the device.
        let sample = Sample { time: self.started.elapsed(), batches: self.batches, photos: self.photos, ..sample };
        self.last = Some(Instant::now());
        self.highest = self.highest.max(sample.used);
        if let Some(decision) = self.guard.look(sample) {
            self.act(decision);
        }
        Ok(())
    }

    fn act(&mut self, Decision { act, cause }: Decision) {
        // What fails here each job learns of where it waits itself.
        drop(ops::release(&self.device));
        heap::release();
        heap::take_recent_peak();
        if act == Act::DropAhead {
            self.batches_ahead = 0;
        }
        let (at_once, batches_ahead) = (self.at_once(), self.batches_ahead);
        self.done.push(GuardRecord { step: self.step, epoch: self.epoch, act, cause, at_once, batches_ahead });
    }
}

impl Pace for Watch {
    fn at_once(&self) -> usize {
        self.guard.levers().at_once
    }

    fn computed(&mut self, photos: usize) -> candle_core::Result<()> {
        self.batches += 1;
        self.photos += photos as u64;
        self.most_at_once = self.most_at_once.max(photos);
        if self.waits { self.look() } else { Ok(()) }
    }
}

/// The memory of this process and its device now.
fn sense(allowance: Option<Allowance>, device: &Device) -> candle_core::Result<Sample> {
    // Else the reading would be of work that is only queued.
    device::wait(device)?;
    let (reading, strain) = (memory::read_often(), memory::strain());
    let of_device = device::memory(device);
    // What was freed since the last reading was needed, and will be again. Where the allocator keeps freed memory until it
    // is told to give it back, as glibc's is set to, the footprint holds it anyway.
    let needed = heap::take_recent_peak();
    let device_free = of_device.map(|memory| memory.recommended.saturating_sub(memory.allocated));
    Ok(Sample {
        used: reading.footprint.map(|footprint| footprint.max(needed)),
        budget: allowance
            .and_then(|allowance| allowance.budget(&reading, device_free))
            .filter(|budget| !(cfg!(target_os = "macos") && is_only_low(budget, &strain)))
            .map(|budget| budget.bytes),
        device_used: of_device.map(|memory| memory.allocated),
        device_budget: of_device.map(|memory| memory.recommended),
        pressure: strain.pressure,
        swapped_out: strain.swapped_out,
        ..Sample::default()
    })
}

/// macOS compresses memory long before it is short of it: while its own level is calm, little that is free says nothing.
fn is_only_low(budget: &Budget, strain: &Strain) -> bool {
    budget.bound == Bound::System && strain.pressure == Some(Pressure::Calm)
}

impl GuardRecord {
    /// Why something was done, as part of a sentence.
    pub fn reason(&self) -> String {
        match self.cause {
            Cause::Budget { used, budget } => format!("this run took {} of its {}", bytes(used), bytes(budget)),
            Cause::Device { used, budget } => format!("the GPU held {} of {}", bytes(used), bytes(budget)),
            Cause::Pressure => "this computer is short of memory".to_owned(),
            Cause::Swap { speed } => {
                format!("this computer swaps memory out and the run fell to {:.0} % of its speed", 100.0 * speed)
            }
            Cause::DeviceError => "the device failed, and the same is tried once more".to_owned(),
        }
    }

    /// What was done in training and why, as a sentence for people.
    pub fn sentence(&self, batch_size: usize, has_batch_norms: bool) -> String {
        let (cause, at_once, step) = (self.reason(), counted(self.at_once as u64, "photo"), self.step + 1);
        match self.act {
            Act::Flush => format!("Step {step}: caches were emptied, because {cause}"),
            Act::Halve => {
                let norms = if has_batch_norms { "; its batch norms see no more than these together" } else { "" };
                format!("Step {step}: {at_once} at once from now on, still {batch_size} a step{norms}, because {cause}")
            }
            Act::DropAhead => format!("Step {step}: no photos are decoded ahead from now on, because {cause}"),
            Act::Pause => format!(
                "Step {step}: the run is paused and saved, because {cause} and there is nothing left to do without. Close \
                 other programs or raise the limit, then continue"
            ),
        }
    }
}
