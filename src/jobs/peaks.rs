//! What jobs were predicted to take and took: kept in the journal, and what the next prediction is corrected by.

use std::path::Path;

use serde::Serialize;

use crate::device::Chosen;
use crate::journal::{Journal, JournalError, Peak, PeakKind};
use crate::memory::{self, Calibration, Reading, heap};
use crate::models;

/// So many of the last jobs of a kind correct the next prediction.
const LAST: usize = 20;

pub fn kind(network: &str, mode: &str, chosen: &Chosen) -> PeakKind {
    PeakKind { network: network.to_owned(), mode: mode.to_owned(), device: chosen.name.to_owned() }
}

/// None where there were too few such jobs, or no journal can be read.
pub fn calibration(kind: &PeakKind, journal: &Path) -> Option<Calibration> {
    // Only to read what may be there: a job that needs no journal makes none.
    let journal = journal.exists().then(|| Journal::open(journal).ok()).flatten()?;
    let peaks = journal.peaks(Some(kind), LAST).ok()?;
    of_peaks(&peaks)
}

fn of_peaks(peaks: &[Peak]) -> Option<Calibration> {
    Calibration::of(&peaks.iter().map(|peak| (peak.predicted, peak.measured())).collect::<Vec<_>>())
}

/// How good the predictions for jobs of one kind were.
#[derive(Debug, Clone, PartialEq)]
pub struct Track {
    pub kind: PeakKind,
    /// The network as people call it.
    pub network: String,
    /// None with too few jobs.
    pub calibration: Option<Calibration>,
    /// Of those that are looked at.
    pub jobs: usize,
}

/// What the journal knows of peaks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// The newest first.
    pub peaks: Vec<Peak>,
    /// Of the kinds among these, in the same order.
    pub tracks: Vec<Track>,
}

impl History {
    /// What people call the network of a job.
    pub fn network<'a>(&'a self, kind: &'a PeakKind) -> &'a str {
        self.tracks.iter().find(|track| track.kind == *kind).map_or(&kind.network, |track| &track.network)
    }
}

/// The last `most` jobs, and how good the predictions for such jobs are. Empty where no job was noted yet.
pub fn history(journal: &Path, most: usize) -> Result<History, JournalError> {
    if !journal.exists() {
        return Ok(History::default());
    }
    let journal = Journal::open(journal)?;
    let peaks = journal.peaks(None, most)?;
    let mut tracks: Vec<Track> = Vec::new();
    for Peak { kind, .. } in &peaks {
        if tracks.iter().all(|track| track.kind != *kind) {
            let of_kind = journal.peaks(Some(kind), LAST)?;
            let network = models::named(&kind.network, 1).map_or_else(|_| kind.network.clone(), |known| known.title);
            tracks.push(Track { kind: kind.clone(), network, calibration: of_peaks(&of_kind), jobs: of_kind.len() });
        }
    }
    Ok(History { peaks, tracks })
}

/// A prediction that a job goes by.
pub struct Predicted {
    pub kind: PeakKind,
    /// The job's settings.
    pub config: String,
    /// By what takes it, in bytes, beside what the process had.
    pub items: Vec<(&'static str, u64)>,
    pub anyway: bool,
    /// The memory before the job took any.
    pub before: Reading,
    /// Bytes that the budget has beside it; all there are when nothing bounds the job, or nothing is to.
    pub left: u64,
}

impl Predicted {
    pub fn config_of(config: &impl Serialize) -> String {
        serde_json::to_string(config).unwrap_or_default()
    }

    /// Notes what the job took. `highest` is the highest footprint that was read meanwhile.
    pub fn record(self, highest: Option<u64>, journal: &Path) -> Result<(), JournalError> {
        let Self { kind, config, items, anyway, before, left: _ } = self;
        let footprint = highest.max(memory::read_often().footprint);
        let peak = Peak {
            kind,
            config,
            predicted: items.iter().map(|(_, bytes)| bytes).sum(),
            items: items.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect(),
            heap: heap::peak().saturating_sub(before.heap_live),
            footprint: footprint.zip(before.footprint).map(|(peak, before)| peak.saturating_sub(before)),
            anyway,
            at: 0,
        };
        Journal::open(journal)?.record_peak(&peak)
    }
}
