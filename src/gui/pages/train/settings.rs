//! How the next run trains: presets, the checkpoint, and the settings that matter most. The others are behind "More".

use egui::{CollapsingHeader, ComboBox, Ui};
use lucide_icons::Icon;

use super::fields::{Scale, choice, number, optional, slider};
use super::{Train, memory, more, rate};
use crate::gui::actions::{Action, TrainAction};
use crate::gui::dialogs::Ask;
use crate::gui::library::Library;
use crate::gui::theme::STEP;
use crate::gui::widgets::{self, Weight};
use crate::predict::ModelSource;
use crate::train::{Distill, Preset, Recompute, TrainConfig, Unfreeze};

const PRESETS: [(Preset, &str, &str); 3] = [
    (Preset::Quick, "Quick trial", "500 photos, 10 epochs, batches of 16: see within minutes whether it learns"),
    (Preset::Full, "Full", "All photos, 50 epochs, batches of 24"),
    (Preset::Safe, "Ultra-safe", "Batches of 4 and everything computed twice: as little memory as can be"),
];

pub fn settings_ui(ui: &mut Ui, page: &mut Train, library: &Library, actions: &mut Vec<Action>) {
    presets_ui(ui, &mut page.config);
    ui.add_space(STEP);
    model_ui(ui, &page.config, library, actions);
    ui.add_space(STEP);
    widgets::section(ui, "Learning");
    learning_ui(ui, page, actions);
    ui.add_space(STEP);
    widgets::section(ui, "Memory");
    memory_ui(ui, page);
    ui.add_space(STEP);
    widgets::section(ui, "Photos");
    photos_ui(ui, &mut page.config);
    ui.add_space(STEP);
    teacher_ui(ui, &mut page.config, library, actions);
    ui.add_space(STEP);
    let more = CollapsingHeader::new("More").id_salt("more settings");
    more.show_unindented(ui, |ui| more::more_ui(ui, &mut page.config));
}

fn learning_ui(ui: &mut Ui, page: &mut Train, actions: &mut Vec<Action>) {
    let can_start = page.obstacle().is_none();
    let Train { config, rates, .. } = page;
    slider(ui, "Epochs", "How often each photo is seen", &mut config.epochs, 1..=200, Scale::Logarithmic);
    let what = "How far a step goes, at its height";
    slider(ui, "Learning rate", what, &mut config.lr, 1e-6..=1.0, Scale::Logarithmic);
    rate::rates_ui(ui, rates, &mut config.lr, can_start, actions);
    unfreeze_ui(ui, &mut config.unfreeze);
}

fn memory_ui(ui: &mut Ui, page: &mut Train) {
    let is_busy = page.holds_device();
    let Train { config, memory, photos, reading, .. } = page;
    let what = "Photos whose mistakes make one step together";
    slider(ui, "Batch size", what, &mut config.batch_size, 1..=256, Scale::Logarithmic);
    let count = photos.count(config);
    memory::memory_ui(ui, memory, config, count, reading, is_busy);
    let what = "Fewer photos at once need less memory, and the step stays the same but for batch norms";
    let first = (config.batch_size / 2).max(1);
    optional(ui, "Photos computed at once", (what, "The whole batch"), &mut config.micro_batch, first, 1..=256);
    let what = "Side of the network's input in pixels: memory and time grow with its square";
    optional(ui, "Image size", (what, "The checkpoint's own"), &mut config.image_size, 224, 32..=1024);
    let what = "Backward needs what each block was given. Kept, it takes memory; computed again, time";
    let choices = [
        (Recompute::None, "Never", "Fastest, and takes the most memory"),
        (Recompute::Auto, "As needed", "As many blocks as half of the free memory asks for"),
        (Recompute::All, "Always", "Least memory, and about a third more time"),
    ];
    choice(ui, "Compute twice", what, &mut config.recompute, &choices);
    let what = "Gives the device's cache back every so many batches; 0: only when memory asks. A GPU tells a step's loss then too, \
                at least every 10 batches";
    slider(ui, "Flush after training batches", what, &mut config.flush_train, 0..=100, Scale::Logarithmic);
    let what = "The same while validating";
    slider(ui, "Flush after validation batches", what, &mut config.flush_val, 0..=100, Scale::Logarithmic);
}

fn photos_ui(ui: &mut Ui, config: &mut TrainConfig) {
    let what = "For a quick trial: most training photos of each class";
    optional(ui, "At most per class", (what, "All of them"), &mut config.per_class, 50, 1..=10_000);
    let what = "Most training photos of all classes together, in their proportions";
    optional(ui, "At most in all", (what, "All of them"), &mut config.max_photos, 500, 2..=100_000);
}

fn presets_ui(ui: &mut Ui, config: &mut TrainConfig) {
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = 4.0;
        for (preset, text, meaning) in PRESETS {
            let with = preset.apply(config.clone());
            if widgets::toggle(ui, with == *config, text).on_hover_text(meaning).clicked() {
                *config = with;
            }
        }
    });
}

fn model_ui(ui: &mut Ui, config: &TrainConfig, library: &Library, actions: &mut Vec<Action>) {
    widgets::section(ui, "Checkpoint to begin from");
    let source = config.model.clone().map_or(ModelSource::Starter, ModelSource::File);
    let name = library.get(&source).map_or_else(|| "Starter".to_owned(), |model| model.name());
    let combo = ComboBox::from_id_salt("model to train").width(ui.available_width()).truncate();
    let shown = combo.selected_text(&name).show_ui(ui, |ui| {
        for model in library.models().iter().filter(|model| model.is_usable()) {
            let chosen = model.source == source;
            if ui.selectable_label(chosen, model.name()).on_hover_text(model.subtitle()).clicked() {
                actions.push(Action::Train(TrainAction::SetModel(model.source.clone())));
            }
        }
    });
    widgets::name_combo(&shown.response, "Checkpoint to begin from", &name);
    if let Some(model) = library.get(&source) {
        widgets::note(ui, model.subtitle());
    }
    if widgets::button(ui, Weight::Quiet, Icon::FolderOpen, "Open another checkpoint…").clicked() {
        actions.push(Action::Ask(Ask::TrainModel));
    }
}

/// The network whose answers are learned too, if there is one.
fn teacher_ui(ui: &mut Ui, config: &mut TrainConfig, library: &Library, actions: &mut Vec<Action>) {
    widgets::section(ui, "Teacher");
    let source = |distill: &Distill| distill.teacher.clone().map_or(ModelSource::Starter, ModelSource::File);
    let source = config.distill.as_ref().map(source);
    let name = match &source {
        None => "None: the labels alone".to_owned(),
        Some(source) => library.get(source).map_or_else(|| source.name(), |model| model.name()),
    };
    let combo = ComboBox::from_id_salt("teacher").width(ui.available_width()).truncate();
    let shown = combo.selected_text(&name).show_ui(ui, |ui| {
        if ui.selectable_label(source.is_none(), "None: the labels alone").clicked() {
            actions.push(Action::Train(TrainAction::SetTeacher(None)));
        }
        for model in library.models().iter().filter(|model| model.is_usable()) {
            let chosen = source.as_ref() == Some(&model.source);
            if ui.selectable_label(chosen, model.name()).on_hover_text(model.subtitle()).clicked() {
                actions.push(Action::Train(TrainAction::SetTeacher(Some(model.source.clone()))));
            }
        }
    });
    widgets::name_combo(&shown.response, "Teacher", &name);
    if widgets::button(ui, Weight::Quiet, Icon::GraduationCap, "Open another teacher…").clicked() {
        actions.push(Action::Ask(Ask::Teacher));
    }
    let Some(distill) = &mut config.distill else { return };
    let what = "The higher, the more the teacher's less likely classes tell";
    slider(ui, "Temperature", what, &mut distill.temperature, 1.0..=20.0, Scale::Linear);
    let what = "The teacher's share of what is learned; the rest is the labels'";
    slider(ui, "Teacher's share", what, &mut distill.weight, 0.0..=1.0, Scale::Linear);
    let what = "Also learns to find photos as alike as the teacher does, with this weight";
    let first = Distill::FEATURES;
    optional(ui, "Compare features", (what, "Answers alone"), &mut distill.features, first, 1.0..=100_000.0);
}

fn unfreeze_ui(ui: &mut Ui, unfreeze: &mut Unfreeze) {
    const FIRST: usize = 2;
    let last = if let Unfreeze::Last(_) = unfreeze { *unfreeze } else { Unfreeze::Last(FIRST) };
    let what = "The rest stays as it is, and needs neither memory nor backward";
    let choices = [
        (Unfreeze::Head, "Classifier", "The last block alone: fastest, and enough for photos like those it knows"),
        (last, "Last blocks", "So many blocks, counted from the end"),
        (Unfreeze::All, "Everything", "Best with some hundreds of photos and more"),
    ];
    choice(ui, "What learns", what, unfreeze, &choices);
    if let Unfreeze::Last(count) = unfreeze {
        number(ui, "Blocks that learn", "Counted from the end; the classifier is one", count, 1..=100);
    }
}

#[cfg(test)]
mod tests {
    use crate::train::TrainConfig;

    #[test]
    fn every_setting_of_a_run_has_its_place_on_the_page() {
        let pages = [include_str!("settings.rs"), include_str!("more.rs"), include_str!("photos.rs")].concat();
        let config = serde_json::to_value(TrainConfig::default()).unwrap();
        // A network without a checkpoint is for who makes checkpoints: the command line. The memory limit is a setting of the
        // whole program, and to run anyway is a button beside what is refused.
        let elsewhere = ["arch", "memory-limit", "anyway"];
        for name in config.as_object().unwrap().keys().filter(|name| !elsewhere.contains(&name.as_str())) {
            let field = format!("config.{}", name.replace('-', "_"));
            assert!(pages.contains(&field), "{field} is on no page");
        }
    }
}
