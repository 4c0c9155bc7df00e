//! The Memory page: what the memory did in the last two minutes, who has it now, and how well peaks were predicted.

mod bar;
mod history;
mod peak;
mod plot;

use egui::{Align, Layout, RichText, ScrollArea, Ui};
use lucide_icons::Icon;

use crate::format::{bytes, counted};
use crate::gui::strip::Strip;
use crate::gui::theme::{Palette, STEP};
use crate::gui::widgets::{self, Weight};
use crate::gui::{Action, MemoryAction};
use crate::jobs::models::ModelKey;
use crate::jobs::peaks::History;
use crate::memory::Pressure;
use crate::memory::shelf::Shelved;
use crate::predict::ModelSource;

/// The page's state.
#[derive(Default)]
pub struct MemoryPage {
    /// A flush also unloads models.
    pub unloads_models: bool,
    /// The footprint before the flush that is under way.
    pub before_flush: Option<Option<u64>>,
    /// The last flush.
    pub flushed: Option<Flushed>,
    pub peaks: Peaks,
    /// How the system was off for memory when it was last looked.
    pub pressure: Pressure,
    /// A job went on when it was last looked.
    pub was_computing: bool,
}

impl MemoryPage {
    /// Takes in how the system is off for memory; what it is short of when that has become worse.
    pub fn shortage(&mut self, now: Pressure) -> Option<Pressure> {
        let before = std::mem::replace(&mut self.pressure, now);
        (now > before).then_some(now)
    }
}

/// What a flush did: the footprint before and after, and how many models went.
#[derive(Debug, Clone, Copy)]
pub struct Flushed {
    pub before: Option<u64>,
    pub after: Option<u64>,
    pub unloaded: usize,
}

/// What the journal says of peaks.
#[derive(Default)]
pub enum Peaks {
    #[default]
    Unread,
    Read(History),
    /// The reason.
    Failed(String),
}

/// What the page shows of the rest of the window.
pub struct Now<'a> {
    pub strip: &'a Strip,
    pub shelved: Vec<Shelved<ModelKey>>,
    /// Of all models that are loaded or being loaded.
    pub model_bytes: u64,
    pub thumbnail_bytes: u64,
    /// What the jobs that go on are expected to take at their most.
    pub predicted: Vec<(&'static str, u64)>,
    /// A job goes on.
    pub is_computing: bool,
}

pub fn page_ui(ui: &mut Ui, page: &MemoryPage, now: &Now<'_>, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        widgets::title(ui, "Memory");
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| flush_ui(ui, page, actions));
    });
    if let Some(flushed) = page.flushed.filter(|_| page.before_flush.is_none()) {
        widgets::note(ui, sentence(&flushed));
    }
    ui.add_space(STEP);
    ScrollArea::vertical().id_salt("memory").auto_shrink(false).show(ui, |ui| {
        ui.set_max_width(ui.available_width() - STEP);
        widgets::card(ui, |ui| plot::plot_ui(ui, now.strip));
        ui.add_space(STEP);
        ui.columns(2, |columns| {
            // Columns would stretch their text.
            let layout = Layout::top_down(Align::Min);
            columns[0].with_layout(layout, |ui| widgets::card(ui, |ui| bar::bars_ui(ui, now)));
            columns[1].with_layout(layout, |ui| {
                widgets::card(ui, |ui| peak::peaks_ui(ui, now, actions));
                ui.add_space(STEP);
                widgets::card(ui, |ui| models_ui(ui, now, actions));
            });
        });
        ui.add_space(STEP);
        widgets::card(ui, |ui| history::history_ui(ui, &page.peaks, actions));
    });
}

fn flush_ui(ui: &mut Ui, page: &MemoryPage, actions: &mut Vec<Action>) {
    ui.add_enabled_ui(page.before_flush.is_none(), |ui| {
        let what =
            "Gives back what is kept for reuse: thumbnails, freed memory, the GPU's buffers. It comes back when needed";
        if widgets::button(ui, Weight::Plain, Icon::BrushCleaning, "Flush caches").on_hover_text(what).clicked() {
            actions.push(Action::Memory(MemoryAction::Flush));
        }
    });
    let what = "Models that are neither in use nor pinned go too, and are read again when they are needed";
    let mut unloads = page.unloads_models;
    if ui.checkbox(&mut unloads, "And unload idle models").on_hover_text(what).changed() {
        actions.push(Action::Memory(MemoryAction::SetUnloads(unloads)));
    }
}

/// What was really given back.
fn sentence(flushed: &Flushed) -> String {
    let Flushed { before, after, unloaded } = *flushed;
    let models = match unloaded {
        0 => String::new(),
        some => format!(". {} unloaded", counted(some as u64, "model")),
    };
    let Some((before, after)) = before.zip(after) else {
        return format!("Flushed; how much that was cannot be told, for the footprint is not known here{models}");
    };
    match before.checked_sub(after) {
        Some(returned) if returned > 0 => {
            let (returned, before, after) = (bytes(returned), bytes(before), bytes(after));
            format!("Gave back {returned}: the footprint was {before} and is {after}{models}")
        }
        _ => format!("Nothing came back: the footprint was {} and is {}{models}", bytes(before), bytes(after)),
    }
}

fn models_ui(ui: &mut Ui, now: &Now<'_>, actions: &mut Vec<Action>) {
    widgets::section(ui, "Loaded models");
    if now.shelved.is_empty() {
        widgets::note(
            ui,
            "No model is loaded. One stays here after its first use, so that the next run begins at once",
        );
    }
    let color = Palette::of(ui).text;
    for shelved in &now.shelved {
        super::models::shelf::row_ui(ui, shelved, actions, |ui| {
            ui.label(RichText::new(name(&shelved.key.source)).color(color));
            ui.add_space(STEP);
        });
    }
}

fn name(source: &ModelSource) -> String {
    match source {
        ModelSource::Starter => source.name(),
        ModelSource::File(path) => widgets::last_two(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_answered_once_and_again_when_it_grows_or_comes_back() {
        let mut page = MemoryPage::default();
        let levels = [Pressure::Calm, Pressure::Warning, Pressure::Warning, Pressure::Critical, Pressure::Warning];
        let answered = levels.map(|level| page.shortage(level));
        assert_eq!(answered, [None, Some(Pressure::Warning), None, Some(Pressure::Critical), None]);
        page.shortage(Pressure::Calm);
        assert_eq!(page.shortage(Pressure::Warning), Some(Pressure::Warning));
    }

    #[test]
    fn a_flush_says_what_really_came_back() {
        let flushed = |before, after, unloaded| sentence(&Flushed { before, after, unloaded });
        let (most, least) = (Some(300_000_000), Some(180_000_000));
        assert_eq!(flushed(most, least, 0), "Gave back 120 MB: the footprint was 300 MB and is 180 MB");
        assert!(flushed(most, least, 2).ends_with("180 MB. 2 models unloaded"));
        assert!(flushed(least, most, 0).starts_with("Nothing came back: the footprint was 180 MB and is 300 MB"));
        assert!(flushed(None, None, 1).contains("cannot be told"), "unknown is not nothing");
    }
}
