//! The top of the page: what is judged, with which model, and the few numbers that come first.

use egui::{Align, CollapsingHeader, Label, Layout, Ui};
use lucide_icons::Icon;

use super::{Evaluate, Judged, Subject, percent};
use crate::format;
use crate::gui::Page;
use crate::gui::actions::{Action, EvaluateAction};
use crate::gui::dialogs::Ask;
use crate::gui::library::Library;
use crate::gui::theme::Palette;
use crate::gui::widgets::{self, Weight};
use crate::jobs::evaluate::EvaluateSummary;
use crate::jobs::runs;

/// Photos that could not be read, that are listed.
const LISTED: usize = 100;

pub fn header_ui(ui: &mut Ui, page: &Evaluate, library: &Library, obstacle: Option<&str>, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        widgets::title(ui, "Evaluate");
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            main_button_ui(ui, page, obstacle, actions);
            if !matches!(page.subject, Some(Subject::Run(_))) {
                let name = format!("Model: {}", library.used().name());
                if widgets::button(ui, Weight::Quiet, Icon::Boxes, &name).clicked() {
                    actions.push(Action::Show(Page::Models));
                }
            }
        });
    });
    if let Some(subject) = &page.subject {
        ui.horizontal_wrapped(|ui| subject_ui(ui, subject, page.judged.as_ref(), page.job.is_some(), actions));
    }
}

fn main_button_ui(ui: &mut Ui, page: &Evaluate, obstacle: Option<&str>, actions: &mut Vec<Action>) {
    if page.job.is_some() {
        if widgets::button(ui, Weight::Plain, Icon::X, "Cancel").clicked() {
            actions.push(Action::Evaluate(EvaluateAction::Stop));
        }
        return;
    }
    if page.subject.is_none() {
        return;
    }
    ui.add_enabled_ui(obstacle.is_none(), |ui| {
        let (weight, text) = match page.judged {
            Some(_) => (Weight::Plain, "Evaluate again"),
            None => (Weight::Primary, "Start evaluating"),
        };
        if widgets::button(ui, weight, Icon::Play, text).clicked() {
            actions.push(Action::Evaluate(EvaluateAction::Start));
        }
    });
    if let Some(obstacle) = obstacle {
        widgets::note(ui, obstacle);
    }
}

fn subject_ui(ui: &mut Ui, subject: &Subject, judged: Option<&Judged>, is_running: bool, actions: &mut Vec<Action>) {
    match subject {
        Subject::Photos(data) => {
            widgets::chip(ui, &widgets::last_two(data)).on_hover_text(data.display().to_string());
        }
        Subject::Run(folder) => {
            let text = format!("Best weights of {} on its validation photos", runs::name(folder));
            widgets::chip(ui, &text).on_hover_text(folder.display().to_string());
        }
    }
    if is_running {
        return;
    }
    if widgets::button(ui, Weight::Quiet, Icon::FolderOpen, "Choose other photos…").clicked() {
        actions.push(Action::Ask(Ask::EvaluatePhotos));
    }
    let Some(judged) = judged else { return };
    if let Some(report) = &judged.report
        && widgets::button(ui, Weight::Quiet, Icon::ExternalLink, "Open report").clicked()
    {
        actions.push(Action::Evaluate(EvaluateAction::OpenReport(report.clone())));
    }
    if widgets::button(ui, Weight::Quiet, Icon::Save, "Save report…").clicked() {
        actions.push(Action::Ask(Ask::Report));
    }
}

/// What the evaluation comes to, and what was left out of it.
pub fn figures_ui(ui: &mut Ui, summary: &EvaluateSummary) {
    let evaluation = &summary.evaluation;
    widgets::figures(
        ui,
        &[
            ("right", percent(evaluation.top1)),
            ("among first five", percent(evaluation.top5)),
            ("photos", format::count(evaluation.photos as u64)),
            ("mean loss", format!("{:.3}", evaluation.loss)),
            ("calibration error", percent(evaluation.calibration_error)),
        ],
    );
    let warning = Palette::of(ui).warning;
    summary.notices.iter().for_each(|notice| widgets::alert(ui, Icon::Info, warning, notice));
    if !summary.unknown.is_empty() {
        let photos = format::counted(summary.unknown.values().sum::<usize>() as u64, "photo");
        let names = widgets::first_few(summary.unknown.keys().map(String::as_str), 6);
        let text = format!("{photos} left out, because the model does not know their class: {names}");
        widgets::alert(ui, Icon::TriangleAlert, warning, &text);
    }
    if !summary.skipped.is_empty() {
        let count = format::counted(summary.skipped.len() as u64, "photo");
        let title = format!("{count} skipped, because they could not be read");
        CollapsingHeader::new(title).id_salt("skipped").show(ui, |ui| {
            for (path, reason) in summary.skipped.iter().take(LISTED) {
                ui.add(Label::new(format!("{}: {reason}", path.display())).wrap().selectable(true));
            }
            if summary.skipped.len() > LISTED {
                let more = (summary.skipped.len() - LISTED) as u64;
                widgets::note(ui, format!("and {} more", format::count(more)));
            }
        });
    }
}
