//! The runs there are: how each went, their curves over each other, and what to do with them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use egui::{Align, Color32, CornerRadius, Layout, RichText, ScrollArea, Sense, Ui, vec2};
use lucide_icons::Icon;

use super::charts::{self, Axis, Measure};
use crate::format;
use crate::gui::actions::{Action, EvaluateAction, TrainAction};
use crate::gui::theme::{self, Palette, STEP};
use crate::gui::widgets::{self, Weight};
use crate::jobs::runs::{self, RunList, RunSummary};

/// The list as it was last read, and the runs whose curves are shown.
#[derive(Debug, Default)]
pub struct History {
    pub list: Option<RunList>,
    shown: BTreeSet<PathBuf>,
}

impl History {
    pub fn get(&self, folder: &Path) -> Option<&RunSummary> {
        self.list.as_ref()?.runs.iter().find(|run| run.folder == folder)
    }

    /// The newest run, if it has epochs left.
    pub fn unfinished(&self) -> Option<&RunSummary> {
        self.list.as_ref()?.runs.first().filter(|run| !run.is_complete())
    }

    pub fn set(&mut self, list: RunList) {
        // A run that is new is looked at.
        let newest = list.runs.first().map(|run| run.folder.clone());
        self.shown.extend(newest.filter(|folder| self.get(folder).is_none()));
        self.shown.retain(|folder| list.runs.iter().any(|run| run.folder == *folder));
        self.list = Some(list);
    }
}

/// `active` is the folder of a run that is going on.
pub fn history_ui(
    ui: &mut Ui,
    history: &mut History,
    active: Option<&Path>,
    axis: &mut Axis,
    actions: &mut Vec<Action>,
) {
    let Some(list) = &history.list else {
        return widgets::empty_state(ui, Icon::History, "Reading runs…", "", |_| ());
    };
    if list.runs.is_empty() && list.broken.is_empty() {
        let text = "Every run is kept here with its settings, curves and weights, and can be continued";
        return widgets::empty_state(ui, Icon::History, "No runs yet", text, |_| ());
    }
    let palette = Palette::of(ui);
    let chosen: Vec<(&RunSummary, Color32)> = list
        .runs
        .iter()
        .filter(|run| history.shown.contains(&run.folder))
        .zip(palette.series.into_iter().cycle())
        .collect();
    ScrollArea::vertical().id_salt("history").auto_shrink(false).show(ui, |ui| {
        ui.set_max_width(ui.available_width() - STEP);
        if !chosen.is_empty() {
            compare_ui(ui, &chosen, axis);
        }
        list.broken.iter().for_each(|reason| widgets::alert(ui, Icon::CircleAlert, palette.error, reason));
        let mut shown = history.shown.clone();
        for (place, run) in list.runs.iter().enumerate() {
            if place > 0 {
                ui.separator();
            }
            let color = chosen.iter().find(|(one, _)| one.folder == run.folder).map(|(_, color)| *color);
            item_ui(ui, run, color, active == Some(&run.folder), active.is_none(), &mut shown, actions);
        }
        history.shown = shown;
    });
}

fn compare_ui(ui: &mut Ui, chosen: &[(&RunSummary, Color32)], axis: &mut Axis) {
    let palette = Palette::of(ui);
    ui.horizontal(|ui| {
        widgets::note(ui, "Strong: validation · pale: training batches");
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| charts::axis_ui(ui, axis));
    });
    // Epochs cannot be counted before one is over.
    let has_epochs = chosen.iter().any(|(run, _)| run.curves.steps_per_epoch().is_some());
    let axis = if has_epochs { *axis } else { Axis::Steps };
    charts::side_by_side(ui, [Measure::Loss, Measure::Accuracy], 180.0, |ui, measure, size| {
        let of_run = |(run, color): &(&RunSummary, Color32)| {
            let name = run.name();
            let series = charts::series(&run.curves, None, measure, axis, &palette, Some((&name, *color)));
            // Three lines a run would be too many to tell apart, where there is a validation.
            let validated = run.curves.epochs.iter().any(|epoch| epoch.loss.is_some());
            series.into_iter().filter(move |one| !validated || one.faint || one.marked)
        };
        let series = chosen.iter().flat_map(of_run).collect();
        charts::chart_ui(ui, &format!("runs {measure:?}"), measure, axis, series, size);
    });
    ui.add_space(STEP);
}

fn item_ui(
    ui: &mut Ui,
    run: &RunSummary,
    color: Option<Color32>,
    is_active: bool,
    can_start: bool,
    shown: &mut BTreeSet<PathBuf>,
    actions: &mut Vec<Action>,
) {
    let palette = Palette::of(ui);
    ui.horizontal(|ui| {
        let mut is_shown = color.is_some();
        let name = run.name();
        let response = ui.checkbox(&mut is_shown, "");
        response.widget_info(|| {
            egui::WidgetInfo::selected(
                egui::accesskit::Role::CheckBox,
                true,
                is_shown,
                format!("Show curves of {name}"),
            )
        });
        if response.changed() {
            if is_shown {
                shown.insert(run.folder.clone())
            } else {
                shown.remove(&run.folder)
            };
        }
        let (dot, _) = ui.allocate_exact_size(vec2(10.0, 10.0), Sense::empty());
        ui.painter().rect_filled(dot, CornerRadius::same(5), color.unwrap_or(palette.surface_hovered));
        let room = 226.0;
        let width = (ui.available_width() - room).max(120.0);
        ui.allocate_ui_with_layout(vec2(width, 34.0), Layout::top_down(Align::Min), |ui| {
            ui.set_width(width);
            ui.spacing_mut().item_spacing.y = 2.0;
            ui.add(egui::Label::new(RichText::new(&name).font(theme::strong(13.0))).truncate());
            let about = RichText::new(about(run, is_active)).small().color(palette.secondary);
            ui.add(egui::Label::new(about).truncate()).on_hover_text(details(run));
        });
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            if widgets::icon_button(ui, Icon::FolderOpen, &format!("Show the folder of {name}")).clicked() {
                actions.push(Action::Train(TrainAction::ShowFolder(run.folder.clone())));
            }
            let use_it = format!("Use the model of {name}");
            if run.best.is_some() && widgets::icon_button(ui, Icon::Check, &use_it).clicked() {
                actions.push(Action::Train(TrainAction::UseBest(run.folder.clone())));
            }
            let evaluate = format!("Evaluate {name}");
            if run.best.is_some() && widgets::icon_button(ui, Icon::Target, &evaluate).clicked() {
                actions.push(Action::Evaluate(EvaluateAction::Run(run.folder.clone())));
            }
            let same = format!("Take over the settings of {name}");
            if widgets::icon_button(ui, Icon::SlidersHorizontal, &same).clicked() {
                actions.push(Action::Train(TrainAction::TakeSettings(Box::new(run.record.config.clone()))));
            }
            if !run.is_complete()
                && can_start
                && widgets::button(ui, Weight::Plain, Icon::Play, "Continue").on_hover_text(&name).clicked()
            {
                actions.push(Action::Train(TrainAction::Resume(run.folder.clone())));
            }
        });
    });
}

/// How far it came and how well.
fn about(run: &RunSummary, is_active: bool) -> String {
    let config = &run.record.config;
    let mut parts = Vec::new();
    if is_active {
        parts.push("going on".to_owned());
    } else if let Some(ago) = run.begun.and_then(|begun| begun.elapsed().ok()) {
        parts.push(format!("{} ago", roughly(ago)));
    }
    parts.push(format!("{} of {}", run.curves.epochs.len(), format::counted(config.epochs as u64, "epoch")));
    let best = run.curves.best();
    parts.extend(best.and_then(|best| best.top1).map(|top1| format!("best {:.1} % right", top1 * 100.0)));
    parts.push(format!("batches of {}", config.batch_size));
    parts.push(format!("rate {}", config.lr));
    parts.join(" · ")
}

fn details(run: &RunSummary) -> String {
    let config = &run.record.config;
    let model = config.model.as_deref().map_or_else(|| "the starter model".to_owned(), runs::name);
    format!(
        "{} classes from {}, beginning from {model}\n{}",
        format::count(run.record.classes.len() as u64),
        config.data.display(),
        run.folder.display()
    )
}

/// The largest unit alone: for how long ago something was.
fn roughly(time: std::time::Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => "moments".to_owned(),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format::counted(seconds / 86_400, "day"),
    }
}
