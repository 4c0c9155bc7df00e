//! What the Memory page asks for, and what is then done: one call per action.

use egui::Context;

use super::pages::memory::{Flushed, Now, Peaks};
use super::run::Run;
use super::{Action, App, Page};
use crate::format;
use crate::jobs::flush;
use crate::jobs::peaks::{self, History};
use crate::memory::{Pressure, heap};

/// So many of the last jobs are shown.
const SHOWN: usize = 100;

/// What of the prediction of a job that lends a model is no tensor of it: the weights lie on the shelf and are counted there, the rest is
/// the process's.
const OUTSIDE_A_RUN: [&str; 3] = ["weights", "unused", "program"];

/// Something about memory that is wanted done.
#[derive(Debug)]
pub enum MemoryAction {
    /// Whether a flush also unloads models.
    SetUnloads(bool),
    /// Gives back what nobody uses.
    Flush,
    /// The same because the system is short of memory.
    Relieve(Pressure),
    /// It is given back; so many models were unloaded for it.
    Flushed(usize),
    ResetPeak,
    ReadPeaks,
    PeaksRead(Result<History, String>),
}

impl App {
    pub(super) fn apply_to_memory(&mut self, ctx: &Context, action: MemoryAction) {
        match action {
            MemoryAction::SetUnloads(unloads) => self.memory_page.unloads_models = unloads,
            MemoryAction::Flush => self.flush(ctx, self.memory_page.unloads_models),
            MemoryAction::Relieve(pressure) => {
                self.toasts.done("The system is short of memory, so Galley gives back what it keeps for later");
                self.flush(ctx, pressure == Pressure::Critical || self.memory_page.unloads_models);
            }
            MemoryAction::Flushed(unloaded) => self.flushed(unloaded),
            MemoryAction::ResetPeak => self.reset_peak(),
            MemoryAction::ReadPeaks => self.read_peaks(ctx),
            MemoryAction::PeaksRead(read) => self.memory_page.peaks = read.map_or_else(Peaks::Failed, Peaks::Read),
        }
    }

    fn flush(&mut self, ctx: &Context, unload: bool) {
        if self.memory_page.before_flush.is_some() {
            return;
        }
        self.memory_page.before_flush = Some(self.read_memory());
        // Those in sight would be decoded again at once, others when they are wanted again.
        let thumbnails = [
            (Page::Classify, &mut self.classify.textures),
            (Page::Train, &mut self.train.textures),
            (Page::Evaluate, &mut self.evaluate.textures),
            (Page::Compress, &mut self.compress.textures),
        ];
        thumbnails.into_iter().filter(|(page, _)| *page != self.page).for_each(|(_, textures)| textures.clear());
        let (models, choice) = (self.places.jobs.models.clone(), self.settings.device);
        self.spawn(ctx, "flush", move |_| {
            Ok(Some(Action::Memory(MemoryAction::Flushed(flush::flush(&models, choice, unload)?))))
        });
    }

    fn flushed(&mut self, unloaded: usize) {
        let after = self.read_memory();
        let before = self.memory_page.before_flush.take().flatten();
        self.memory_page.flushed = Some(Flushed { before, after, unloaded });
    }

    /// Gives memory back once whenever the system becomes shorter of it.
    pub(super) fn answer_pressure(&mut self) {
        let now = self.strip.latest_moment().and_then(|moment| moment.pressure).unwrap_or(Pressure::Calm);
        let relief = self.memory_page.shortage(now).map(MemoryAction::Relieve);
        self.actions.extend(relief.map(Action::Memory));
    }

    /// A job that goes on has its own peak measured by the same counter.
    fn reset_peak(&mut self) {
        if !self.is_computing() {
            heap::reset_peak();
            self.read_memory();
        }
    }

    /// The footprint now.
    fn read_memory(&mut self) -> Option<u64> {
        self.strip.read(self.device.as_ref().map(|device| &device.chosen)).footprint
    }

    pub(super) fn read_peaks(&mut self, ctx: &Context) {
        let journal = self.places.jobs.journal.clone();
        self.spawn(ctx, "read peaks", move |_| {
            let read = peaks::history(&journal, SHOWN).map_err(|error| format::error_chain(&error));
            Ok(Some(Action::Memory(MemoryAction::PeaksRead(read))))
        });
    }

    /// Reads what was noted when a job has ended in sight of the page.
    pub(super) fn follow_peaks(&mut self, ctx: &Context) {
        let is_computing = self.is_computing();
        let has_ended = std::mem::replace(&mut self.memory_page.was_computing, is_computing) && !is_computing;
        if has_ended && self.page == Page::Memory {
            self.read_peaks(ctx);
        }
    }

    fn is_computing(&self) -> bool {
        self.classify.is_running()
            || self.train.holds_device()
            || self.evaluate.is_running()
            || self.compress.is_running()
    }

    pub(super) fn memory_now(&self) -> Now<'_> {
        let of_run = self.classify.run.as_ref().map(Run::expected).unwrap_or_default();
        let of_others = [of_run, self.evaluate.expected(), self.compress.expected()].concat();
        let of_training = self.train.plan().map(|plan| plan.items().to_vec());
        Now {
            strip: &self.strip,
            shelved: self.places.jobs.models.shelf.contents(),
            model_bytes: self.places.jobs.models.shelf.bytes(),
            thumbnail_bytes: [
                &self.classify.textures,
                &self.train.textures,
                &self.evaluate.textures,
                &self.compress.textures,
            ]
            .into_iter()
            .map(super::textures::Textures::bytes)
            .sum(),
            predicted: of_training
                .unwrap_or_default()
                .into_iter()
                .chain(of_others.into_iter().filter(|(name, _)| !OUTSIDE_A_RUN.contains(name)))
                .filter(|(_, bytes)| *bytes > 0)
                .collect(),
            is_computing: self.is_computing(),
        }
    }
}
