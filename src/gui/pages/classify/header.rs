//! The top of the page: what goes in, which model, and how the run stands.

use egui::{Align, Layout, Ui};
use lucide_icons::Icon;

use super::{Classify, input_name};
use crate::format;
use crate::gui::dialogs::Ask;
use crate::gui::library::Library;
use crate::gui::run::{Run, RunState};
use crate::gui::theme::Palette;
use crate::gui::widgets::{self, Weight};
use crate::gui::{Action, Page};

pub fn header_ui(ui: &mut Ui, page: &Classify, library: &Library, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        widgets::title(ui, "Classify");
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            buttons_ui(ui, page, actions);
            model_ui(ui, library, actions);
        });
    });
    inputs_ui(ui, page, actions);
    if let Some(run) = &page.run {
        run_ui(ui, run);
    }
}

/// Right to left: the main button stays in the corner, whatever the run does.
fn buttons_ui(ui: &mut Ui, page: &Classify, actions: &mut Vec<Action>) {
    match page.run.as_ref().map(|run| &run.state) {
        Some(RunState::Running) => {
            if widgets::button(ui, Weight::Plain, Icon::Pause, "Pause").clicked() {
                actions.push(Action::SetPaused(true));
            }
        }
        Some(RunState::Paused) => {
            if widgets::button(ui, Weight::Primary, Icon::Play, "Resume").clicked() {
                actions.push(Action::SetPaused(false));
            }
        }
        Some(RunState::Stopping) => {}
        _ => {
            let start = |ui: &mut Ui| widgets::button(ui, Weight::Primary, Icon::Play, "Start");
            if !page.inputs.is_empty() && start(ui).clicked() {
                actions.push(Action::Start);
            }
        }
    }
    let going_on = matches!(page.run.as_ref().map(|run| &run.state), Some(RunState::Running | RunState::Paused));
    if going_on && widgets::button(ui, Weight::Plain, Icon::X, "Cancel").clicked() {
        actions.push(Action::Cancel);
    }
}

fn model_ui(ui: &mut Ui, library: &Library, actions: &mut Vec<Action>) {
    let name = format!("Model: {}", library.used().name());
    if widgets::button(ui, Weight::Quiet, Icon::Boxes, &name).clicked() {
        actions.push(Action::Show(Page::Models));
    }
}

fn inputs_ui(ui: &mut Ui, page: &Classify, actions: &mut Vec<Action>) {
    const SHOWN: usize = 5;
    if page.inputs.is_empty() {
        return;
    }
    ui.horizontal_wrapped(|ui| {
        for path in page.inputs.iter().take(SHOWN) {
            let name = input_name(path);
            widgets::chip(ui, &name).on_hover_text(path.display().to_string());
            let remove = format!("Remove {name}");
            if !page.is_running() && widgets::icon_button(ui, Icon::X, &remove).clicked() {
                actions.push(Action::RemoveInput(path.clone()));
            }
        }
        if page.inputs.len() > SHOWN {
            widgets::note(ui, format!("and {} more", format::count((page.inputs.len() - SHOWN) as u64)));
        }
        if !page.is_running() {
            if widgets::button(ui, Weight::Quiet, Icon::FolderPlus, "Add folders…").clicked() {
                actions.push(Action::Ask(Ask::Folders));
            }
            if widgets::button(ui, Weight::Quiet, Icon::ImagePlus, "Add photos…").clicked() {
                actions.push(Action::Ask(Ask::Photos));
            }
        }
    });
}

fn run_ui(ui: &mut Ui, run: &Run) {
    let palette = Palette::of(ui);
    if run.is_active() {
        widgets::progress_bar(ui, run.share().unwrap_or(0.0));
    }
    ui.horizontal_wrapped(|ui| {
        ui.label(run.status());
        if run.resumed > 0 {
            let total = run.progress.total.unwrap_or(run.results.len() as u64);
            let done = format::count(run.resumed);
            widgets::note(ui, format!("{done} of {} already done before", format::counted(total, "photo")));
        }
    });
    for notice in &run.notices {
        widgets::alert(ui, Icon::Info, palette.warning, notice);
    }
}
