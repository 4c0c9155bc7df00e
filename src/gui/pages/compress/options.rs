//! How the next smaller model is made.

use std::path::PathBuf;

use egui::{DragValue, Ui};
use lucide_icons::Icon;

use super::{Choice, Compress};
use crate::compress::quantize::Bits;
use crate::gui::actions::{Action, CompressAction};
use crate::gui::dialogs::Ask;
use crate::gui::theme::STEP;
use crate::gui::widgets::{self, Weight};

const CHOICES: [(Choice, &str, &str); 7] = [
    (Choice::Bits(Bits::Q8_0), "8 bits", "A quarter of the size, faster, and hardly another answer"),
    (Choice::Mixed, "Mixed", "A fifth of the size: 4 bits and more, with more where they matter"),
    (Choice::Bits(Bits::Q5_0), "5 bits", "5 bits in the file, 8 in memory"),
    (Choice::Bits(Bits::Q4_0), "4 bits", "A seventh of the size, in the file and in memory"),
    (Choice::Bits(Bits::F16), "16 bits", "Half the file; as large as before in memory"),
    (Choice::Fit, "Fit in a size", "Mixed, the best that fits"),
    (Choice::Smallest, "Keep to a loss", "Mixed, the smallest that loses no more than this"),
];

/// The chain of steps, in their order.
pub fn options_ui(ui: &mut Ui, page: &mut Compress, actions: &mut Vec<Action>) {
    egui::ScrollArea::vertical().id_salt("options").auto_shrink(false).show(ui, |ui| chain_ui(ui, page, actions));
}

fn chain_ui(ui: &mut Ui, page: &mut Compress, actions: &mut Vec<Action>) {
    prune_ui(ui, page, actions);
    widgets::section(ui, "2. Round the weights");
    for (choice, name, what) in CHOICES {
        ui.radio_value(&mut page.choice, choice, name).on_hover_text(what);
        if page.choice != choice {
            continue;
        }
        widgets::note(ui, what);
        if choice == Choice::Fit {
            number_ui(ui, "At most", &mut page.fit, 0.1..=100_000.0, " MB");
        }
    }
    ui.add_space(STEP * 2.0);
    widgets::section(ui, "3. Prove it");
    comparison_ui(ui, page, actions);
    if page.photos.is_none() {
        return;
    }
    if page.choice == Choice::Smallest {
        number_ui(ui, "Lose at most", &mut page.loss, 0.0..=100.0, " %");
        return;
    }
    ui.checkbox(&mut page.keeps_to_loss, "Do not save what loses more");
    ui.add_enabled_ui(page.keeps_to_loss, |ui| number_ui(ui, "Loss", &mut page.loss, 0.0..=100.0, " %"));
}

/// The first step: fewer channels, and what is left learns a little.
fn prune_ui(ui: &mut Ui, page: &mut Compress, actions: &mut Vec<Action>) {
    widgets::section(ui, "1. Take out channels");
    ui.checkbox(&mut page.prunes, "Prune before rounding")
        .on_hover_text("Channels inside blocks that matter least go: the network becomes smaller and faster");
    if page.prunes {
        number_ui(ui, "Channels that go", &mut page.pruned_percent, 1.0..=90.0, " %");
        let set = |photos| Action::Compress(CompressAction::SetRepairPhotos(photos));
        let what = "Then it learns from photos, a folder for each of the model's classes, to make up for what is gone";
        let sample = page.sample.as_ref().map(|sample| sample.join("train"));
        photos_ui(ui, (&page.repair_photos, sample, what), Ask::RepairPhotos, &set, actions);
        if page.repair_photos.is_some() {
            ui.horizontal(|ui| {
                let label = ui.label("Passes over them");
                ui.add(DragValue::new(&mut page.repair_epochs).range(1..=100)).labelled_by(label.id);
            });
        }
    }
    ui.add_space(STEP * 2.0);
}

fn comparison_ui(ui: &mut Ui, page: &Compress, actions: &mut Vec<Action>) {
    let set = |photos| Action::Compress(CompressAction::SetPhotos(photos));
    let what = "Both models classify these photos: a folder per class tells which answers are right";
    let sample = page.sample.as_ref().map(|sample| sample.join("test"));
    photos_ui(ui, (&page.photos, sample, what), Ask::ComparisonPhotos, &set, actions);
}

/// The photos that are chosen, and ways to choose others. `sample` are those that come with the program.
fn photos_ui(
    ui: &mut Ui,
    (photos, sample, what): (&Option<PathBuf>, Option<PathBuf>, &str),
    ask: Ask,
    set: &dyn Fn(Option<PathBuf>) -> Action,
    actions: &mut Vec<Action>,
) {
    ui.push_id(what, |ui| {
        match photos {
            Some(photos) => {
                ui.horizontal(|ui| {
                    widgets::chip(ui, &widgets::last_two(photos)).on_hover_text(photos.display().to_string());
                    if widgets::icon_button(ui, Icon::X, "Without these photos").clicked() {
                        actions.push(set(None));
                    }
                });
            }
            None => {
                widgets::note(ui, what);
                if let Some(sample) = sample
                    && widgets::button(ui, Weight::Quiet, Icon::Sparkles, "Take the sample photos").clicked()
                {
                    actions.push(set(Some(sample)));
                }
            }
        }
        if widgets::button(ui, Weight::Plain, Icon::FolderOpen, "Choose photos…").clicked() {
            actions.push(Action::Ask(ask));
        }
    });
}

fn number_ui(ui: &mut Ui, name: &str, value: &mut f64, range: std::ops::RangeInclusive<f64>, unit: &str) {
    ui.horizontal(|ui| {
        let label = ui.label(name);
        ui.add(DragValue::new(value).range(range).speed(0.1).max_decimals(1).suffix(unit)).labelled_by(label.id);
    });
}
