//! The highest the memory has been, each figure by its name, and a button to begin anew.

use egui::Ui;
use lucide_icons::Icon;

use super::Now;
use crate::format;
use crate::gui::theme::STEP;
use crate::gui::widgets::{self, Weight};
use crate::gui::{Action, MemoryAction};

/// What the system means by the peak of a process.
const SYSTEMS: &str = if cfg!(target_os = "linux") {
    "Its highest resident size since the start, files in memory included. Linux keeps it, and it stays"
} else {
    "Its highest footprint since the start. The system keeps it, and it stays"
};

pub fn peaks_ui(ui: &mut Ui, now: &Now<'_>, actions: &mut Vec<Action>) {
    widgets::section(ui, "Peaks");
    let Some(reading) = now.strip.latest() else { return };
    ui.label(format!("Peak of the process: {}", format::bytes_or_unknown(reading.peak)));
    widgets::note(ui, SYSTEMS);
    ui.add_space(STEP / 2.0);
    ui.label(format!("Peak of the heap: {}", format::bytes(reading.heap_peak)));
    let since = "Allocated by Galley at its most since the start, the beginning of the last job or a reset";
    widgets::note(ui, format!("{since}; {} now", format::bytes(reading.heap_live)));
    ui.horizontal(|ui| {
        ui.add_enabled_ui(!now.is_computing, |ui| {
            let button = widgets::button(ui, Weight::Plain, Icon::RotateCcw, "Reset heap peak");
            if button.on_disabled_hover_text("A job goes on, whose own peak is being measured").clicked() {
                actions.push(Action::Memory(MemoryAction::ResetPeak));
            }
        });
    });
}
