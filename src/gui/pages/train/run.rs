//! The run that is going on, or the last one: where it stands, its curves, and what to do with what came out.

use egui::{Ui, vec2};
use lucide_icons::Icon;

use super::charts::{self, Axis, Measure};
use crate::format;
use crate::gui::actions::{Action, EvaluateAction, TrainAction};
use crate::gui::theme::{Palette, STEP};
use crate::gui::training::{TrainState, Training};
use crate::gui::widgets::{self, Weight};
use crate::jobs::train::TrainStart;

pub fn run_ui(ui: &mut Ui, training: Option<&Training>, axis: &mut Axis, actions: &mut Vec<Action>) {
    let Some(training) = training else {
        let text = "Choose photos and a checkpoint, then press Start training. Earlier runs are under History";
        return widgets::empty_state(ui, Icon::ChartLine, "No run yet", text, |_| ());
    };
    egui::ScrollArea::vertical().id_salt("run").auto_shrink(false).show(ui, |ui| {
        ui.set_max_width(ui.available_width() - STEP);
        status_ui(ui, training, actions);
        ui.add_space(STEP);
        curves_ui(ui, training, axis);
        about_ui(ui, training);
    });
}

fn status_ui(ui: &mut Ui, training: &Training, actions: &mut Vec<Action>) {
    let palette = Palette::of(ui);
    if training.is_active() {
        widgets::progress_bar(ui, training.share().unwrap_or(0.0));
    }
    ui.label(training.status());
    if let Some(bytes) = training.start.as_ref().and_then(|start| start.feature_bytes) {
        let kept = format::bytes(bytes);
        widgets::note(ui, format!("The frozen blocks compute each photo once; what they make of it is kept: {kept}"));
    }
    if let TrainState::Failed(reason) = &training.state {
        widgets::alert(ui, Icon::CircleAlert, palette.error, reason);
    }
    ui.horizontal_wrapped(|ui| {
        let is_done = matches!(training.state, TrainState::Finished(_)) && training.curves.best().is_some();
        if is_done && widgets::button(ui, Weight::Primary, Icon::Check, "Use this model").clicked() {
            actions.push(Action::Train(TrainAction::UseBest(training.folder.clone())));
        }
        if is_done && widgets::button(ui, Weight::Plain, Icon::Target, "Evaluate this model").clicked() {
            actions.push(Action::Evaluate(EvaluateAction::Run(training.folder.clone())));
        }
        if training.is_refused && widgets::button(ui, Weight::Plain, Icon::Play, "Run anyway").clicked() {
            actions.push(Action::Train(TrainAction::RunAnyway));
        }
        let can_go_on = matches!(training.state, TrainState::Stopped | TrainState::Failed(_)) && !training.is_refused;
        if can_go_on && widgets::button(ui, Weight::Plain, Icon::Play, "Continue this run").clicked() {
            actions.push(Action::Train(TrainAction::Resume(training.folder.clone())));
        }
        if training.start.is_some() && widgets::button(ui, Weight::Quiet, Icon::FolderOpen, "Show its folder").clicked()
        {
            actions.push(Action::Train(TrainAction::ShowFolder(training.folder.clone())));
        }
    });
}

fn curves_ui(ui: &mut Ui, training: &Training, axis: &mut Axis) {
    if training.curves.last.is_none() {
        return;
    }
    let palette = Palette::of(ui);
    let steps = training.start.as_ref().map(|start| start.steps_per_epoch as f64).filter(|steps| *steps > 0.0);
    charts::figures_ui(ui, &training.curves);
    ui.horizontal(|ui| {
        widgets::legend(ui, &[("Training", palette.series[0]), ("Validation", palette.series[1])]);
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| charts::axis_ui(ui, axis));
    });
    let chart = |ui: &mut Ui, measure: Measure, size: egui::Vec2| {
        let series = charts::series(&training.curves, steps, measure, *axis, &palette, None);
        charts::chart_ui(ui, &format!("run {measure:?}"), measure, *axis, series, size);
    };
    charts::side_by_side(ui, [Measure::Loss, Measure::Accuracy], 200.0, chart);
    chart(ui, Measure::Rate, vec2(ui.available_width(), 88.0));
}

/// What the run is made of, and what a person should know of it.
fn about_ui(ui: &mut Ui, training: &Training) {
    ui.add_space(STEP);
    let warning = Palette::of(ui).warning;
    training.notices.iter().for_each(|notice| widgets::alert(ui, Icon::Info, warning, notice));
    if training.skipped_count > 0 {
        let count = training.skipped_count;
        let title = format!("{} skipped, because they could not be read", format::counted(count, "photo"));
        egui::CollapsingHeader::new(title).show(ui, |ui| {
            for (path, reason) in &training.skipped {
                ui.add(egui::Label::new(format!("{}: {reason}", path.display())).wrap().selectable(true));
            }
        });
    }
    if let Some(start) = &training.start {
        widgets::card(ui, |ui| start_ui(ui, start, &training.folder));
    }
}

fn start_ui(ui: &mut Ui, start: &TrainStart, folder: &std::path::Path) {
    ui.spacing_mut().item_spacing.y = 6.0;
    let sum = |counts: &[usize]| format::count(counts.iter().sum::<usize>() as u64);
    widgets::fact(ui, "Model", &format!("{}, {} pixels", start.model, start.image_size));
    let (train, validation) = (sum(&start.train_counts), sum(&start.validation_counts));
    let classes = format::count(start.classes.len() as u64);
    widgets::fact(ui, "Photos", &format!("{train} to train on, {validation} to validate with, {classes} classes"));
    let config = &start.config;
    let at_once = Some(start.at_once).filter(|at_once| *at_once < config.batch_size);
    let at_once = at_once.map_or(String::new(), |at_once| format!(", {at_once} at once"));
    widgets::fact(ui, "Batches", &format!("of {}{at_once}, {} an epoch", config.batch_size, start.steps_per_epoch));
    let (trained, blocks) = (start.trained_blocks, start.blocks);
    let learns = format!("{trained} of {blocks} blocks, {} parameters", format::count(start.parameters));
    widgets::fact(ui, "Learns", &learns);
    widgets::fact(ui, "Computed twice", &format::counted(start.recomputed_blocks as u64, "block"));
    let what = format!("{} besides the window", format::bytes(start.plan.bytes()));
    widgets::fact(ui, "Memory, predicted", &what);
    widgets::fact(ui, "Folder", &folder.display().to_string());
}
