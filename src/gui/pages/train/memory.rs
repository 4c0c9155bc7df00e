//! What the next run will take of the memory, beside the settings that decide it.

use egui::{Context, Ui};
use lucide_icons::Icon;

use crate::format;
use crate::gui::tasks::Leaving;
use crate::gui::theme::Palette;
use crate::gui::widgets::{self, Weight};
use crate::jobs::admission::MemoryChoice;
use crate::jobs::train::{self, Forecast, ForecastJob, MemoryPlan};
use crate::memory::Reading;
use crate::train::{Distill, Recompute, TrainConfig, Unfreeze};
use crate::worker::Outcome;

/// What is measured: another of these is another measurement.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    model: Option<std::path::PathBuf>,
    arch: Option<String>,
    distill: Option<Distill>,
    flip: bool,
    unfreeze: Unfreeze,
    classes: Option<usize>,
}

/// The network as it was last measured.
#[derive(Default)]
pub struct Memory {
    key: Option<Key>,
    wanted: Option<(Key, TrainConfig)>,
    known: Option<Result<Forecast, String>>,
    job: Option<ForecastJob>,
    leaving: Leaving<Forecast, ()>,
}

impl Memory {
    /// Asks for the network of these settings to be measured, if it is another one. Does nothing by itself.
    pub fn want(&mut self, config: &TrainConfig, classes: Option<usize>) {
        let TrainConfig { model, arch, distill, unfreeze, .. } = config.clone();
        // Of how a teacher is learned from, no number matters.
        let distill = distill.map(|distill| Distill {
            features: distill.features.map(|_| Distill::FEATURES),
            teacher: distill.teacher,
            ..Distill::default()
        });
        let key = Key { model, arch, distill, flip: config.augment.flip > 0.0, unfreeze, classes };
        self.wanted = (self.key.as_ref() != Some(&key)).then(|| (key, config.clone()));
    }

    /// Takes what was measured, and measures what is wanted unless the device is `busy`: what else computes meanwhile would
    /// be counted too.
    pub fn poll(&mut self, busy: bool, ctx: &Context) {
        self.leaving.poll();
        if let Some(outcome) = self.job.as_mut().and_then(ForecastJob::take_outcome) {
            self.job = None;
            match outcome {
                Outcome::Finished(forecast) => self.known = Some(Ok(forecast)),
                Outcome::Canceled => {}
                Outcome::Failed(error) => self.known = Some(Err(format::error_chain(&*error))),
            }
        }
        if busy || !self.leaving.is_empty() {
            return;
        }
        let Some((key, config)) = self.wanted.take() else { return };
        self.leaving.add(self.job.take());
        let (wake, classes) = (ctx.clone(), key.classes);
        (self.key, self.known) = (Some(key), None);
        match train::start_forecast(config, classes, move || crate::gui::wake(&wake)) {
            Ok(job) => self.job = Some(job),
            Err(error) => self.known = Some(Err(error.to_string())),
        }
    }

    pub fn is_working(&self) -> bool {
        self.job.is_some() || !self.leaving.is_empty()
    }

    pub fn cancel(&mut self) {
        self.leaving.add(self.job.take());
    }
}

/// `photos` is how many the run has; `reading` the memory now, `is_busy` true while another run is part of that.
pub fn memory_ui(
    ui: &mut Ui,
    memory: &Memory,
    config: &mut TrainConfig,
    photos: usize,
    reading: &Reading,
    is_busy: bool,
) {
    let forecast = match &memory.known {
        Some(Ok(forecast)) => forecast,
        Some(Err(reason)) => return drop(widgets::note(ui, format!("What it will take is not known: {reason}"))),
        None if is_busy => return drop(widgets::note(ui, "What it will take is measured when the run is over")),
        None => return drop(widgets::note(ui, "Measuring what it will take…")),
    };
    let budget = MemoryChoice::of(config).allowance().budget(reading, None).map(|budget| budget.bytes);
    let free = budget.map(|budget| budget.saturating_sub(reading.footprint.unwrap_or(0)));
    let plan = forecast.plan(config, photos, free.unwrap_or(u64::MAX));
    if is_busy {
        let text = format!("Will take about {} besides the window", format::bytes(plan.bytes()));
        return drop(widgets::note(ui, text).on_hover_text(details(&plan)));
    }
    let peak = plan.bytes() + reading.footprint.unwrap_or(0);
    peak_ui(ui, &plan, peak, budget);
    let Some(free) = free.filter(|free| plan.bytes() > *free) else { return };
    widgets::alert(ui, Icon::TriangleAlert, Palette::of(ui).warning, &advice(forecast, config, photos, free));
    if let Some(fitting) = forecast.that_fits(config, photos, free)
        && widgets::button(ui, Weight::Plain, Icon::Check, "Make it fit").clicked()
    {
        *config = fitting;
    }
}

/// The peak against the budget, as a bar and in the words of the memory strip.
fn peak_ui(ui: &mut Ui, plan: &MemoryPlan, peak: u64, budget: Option<u64>) {
    let palette = Palette::of(ui);
    let text = match budget {
        Some(budget) => format!("Peak about {} of a budget of {}", format::bytes(peak), format::bytes(budget)),
        None => format!("Peak about {}, budget unknown", format::bytes(peak)),
    };
    ui.label(text).on_hover_text(details(plan));
    if let Some(budget) = budget {
        let (rect, _) = ui.allocate_exact_size(egui::vec2(ui.available_width(), 4.0), egui::Sense::hover());
        let fill = if peak > budget { palette.warning } else { palette.accent };
        widgets::bar(ui, rect, peak as f32 / budget.max(1) as f32, fill);
    }
    if plan.recomputed_blocks > 0 {
        widgets::note(ui, format!("{} computed twice", format::counted(plan.recomputed_blocks as u64, "block")));
    }
}

/// By what takes it, a line each.
fn details(plan: &MemoryPlan) -> String {
    let items = plan.memory.items().into_iter().filter(|(_, bytes)| *bytes > 0);
    let mut lines: Vec<String> = items.map(|(name, bytes)| format!("{} {name}", format::bytes(bytes))).collect();
    lines.push("The rest is the window's".to_owned());
    lines.join("\n")
}

/// That it does not fit, and which setting helps.
fn advice(forecast: &Forecast, config: &TrainConfig, photos: usize, free: u64) -> String {
    match forecast.that_fits(config, photos, free) {
        Some(fitting) => format!("This will not fit. What would: {}", changes(config, &fitting)),
        None => "This will not fit. Choose a smaller batch, fewer blocks that learn, or a smaller network".to_owned(),
    }
}

/// What is different, by the names of the settings.
fn changes(before: &TrainConfig, after: &TrainConfig) -> String {
    let mut changes = Vec::new();
    if before.recompute != after.recompute {
        let choice = if after.recompute == Recompute::All { "Always" } else { "As needed" };
        changes.push(format!("Compute twice: {choice}"));
    }
    if let (Some(count), true) = (after.micro_batch, before.micro_batch != after.micro_batch) {
        changes.push(format!("Photos computed at once: {count}"));
    }
    if let (Some(side), true) = (after.image_size, before.image_size != after.image_size) {
        changes.push(format!("Image size: {side}"));
    }
    changes.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_named_as_the_settings_are() {
        let before = TrainConfig { recompute: Recompute::None, ..TrainConfig::default() };
        let after = TrainConfig { recompute: Recompute::All, micro_batch: Some(4), ..before.clone() };
        assert_eq!(changes(&before, &after), "Compute twice: Always, Photos computed at once: 4");
        assert_eq!(changes(&after, &TrainConfig { image_size: Some(96), ..after.clone() }), "Image size: 96");
    }
}
