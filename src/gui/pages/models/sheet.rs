//! What is known of the selected model: what it is, where its bytes go, its labels, and what to do with it.

use egui::{Align, Layout, RichText, Ui, vec2};
use lucide_icons::Icon;

use super::transform;
use crate::format;
use crate::gui::dialogs::Ask;
use crate::gui::library::{Library, Model, Sheet};
use crate::gui::theme::{self, Palette, STEP};
use crate::gui::widgets::{self, Weight};
use crate::gui::{Action, Page};
use crate::jobs::inspect::{Inspection, Share};
use crate::predict::{ModelSource, Strictness};

pub fn sheet_ui(ui: &mut Ui, library: &mut Library, actions: &mut Vec<Action>) {
    let used = library.is_used(&library.selected().source);
    let model = library.selected_mut();
    head_ui(ui, model, used, actions);
    ui.add_space(STEP);
    match &model.sheet {
        Sheet::Failed(reason) => return failed_ui(ui, reason, actions),
        Sheet::Reading => drop(widgets::note(ui, "Reading the list of tensors…")),
        Sheet::Unread => {}
        Sheet::Read(inspection) => {
            if model.source == ModelSource::Starter {
                starter_ui(ui);
                ui.add_space(STEP);
            }
            read_ui(ui, inspection);
        }
    }
    if let Some(own) = model.inspection().and_then(|inspection| inspection.transform) {
        ui.add_space(STEP);
        widgets::card(ui, |ui| transform::transform_ui(ui, &mut model.transform, &own));
        ui.add_space(STEP);
        widgets::card(ui, |ui| labels_ui(ui, model, actions));
    }
}

fn head_ui(ui: &mut Ui, model: &Model, used: bool, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        let title = match (&model.source, model.inspection()) {
            (ModelSource::File(_), Some(Inspection { title: Some(title), .. })) => title.clone(),
            _ => model.name(),
        };
        ui.label(RichText::new(title).font(theme::strong(17.0)));
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            if used {
                widgets::note(ui, "In use");
            } else if model.is_usable() && widgets::button(ui, Weight::Primary, Icon::Check, "Use this model").clicked()
            {
                actions.push(Action::UseModel(model.source.clone()));
            }
            if model.is_usable() && widgets::button(ui, Weight::Quiet, Icon::Target, "Evaluate…").clicked() {
                actions.push(Action::UseModel(model.source.clone()));
                actions.push(Action::Show(Page::Evaluate));
            }
            if model.source != ModelSource::Starter && widgets::icon_button(ui, Icon::X, "Remove from list").clicked() {
                actions.push(Action::ForgetModel(model.source.clone()));
            }
        });
    });
    if let ModelSource::File(path) = &model.source {
        widgets::note(ui, path.display().to_string());
        widgets::reveal_ui(ui, path, actions);
    }
}

fn failed_ui(ui: &mut Ui, reason: &str, actions: &mut Vec<Action>) {
    let error = Palette::of(ui).error;
    widgets::card(ui, |ui| {
        widgets::alert(ui, Icon::CircleAlert, error, "This checkpoint cannot be read");
        ui.add(egui::Label::new(reason).wrap().selectable(true));
        widgets::note(ui, "Fetch the file again if its download broke off, or open another one");
        if widgets::button(ui, Weight::Plain, Icon::FolderOpen, "Open another checkpoint…").clicked() {
            actions.push(Action::Ask(Ask::Checkpoint));
        }
    });
}

fn starter_ui(ui: &mut Ui) {
    widgets::card(ui, |ui| {
        ui.label("A small network that comes with Galley, so that everything can be tried at once");
        let limits = "It knows the eight kinds of drawn dishes in the sample photos, and no real food. \
                      For your own photos, open a checkpoint that was trained on photos like them";
        widgets::note(ui, limits);
    });
}

fn read_ui(ui: &mut Ui, read: &Inspection) {
    if read.architecture.is_none() {
        let warning = Palette::of(ui).warning;
        widgets::card(ui, |ui| {
            widgets::alert(
                ui,
                Icon::TriangleAlert,
                warning,
                "Galley does not know this network, so it cannot classify with it",
            );
            let reason = read.unknown_because.as_deref().unwrap_or("its tensors match no known architecture");
            ui.add(egui::Label::new(reason).wrap().selectable(true));
        });
        ui.add_space(STEP);
    }
    let warning = Palette::of(ui).warning;
    read.notices.iter().for_each(|notice| widgets::alert(ui, Icon::TriangleAlert, warning, notice));
    widgets::card(ui, |ui| facts_ui(ui, read));
    ui.add_space(STEP);
    widgets::card(ui, |ui| {
        shares_ui(ui, "Bytes by kind", &read.by_kind);
        ui.add_space(STEP);
        shares_ui(ui, "Bytes by element type", &read.by_element);
    });
}

fn facts_ui(ui: &mut Ui, read: &Inspection) {
    ui.spacing_mut().item_spacing.y = 6.0;
    let unknown = || "unknown".to_owned();
    let optional = |text: &Option<String>| text.clone().unwrap_or_else(unknown);
    widgets::fact(ui, "Architecture", &optional(&read.architecture));
    widgets::fact(ui, "Parameters", &format::count(read.parameters));
    widgets::fact(ui, "Classes", &read.classes.map_or_else(unknown, |classes| format::count(classes as u64)));
    if let Some(how) = &read.recognised_by {
        widgets::fact(ui, "Recognised by", how);
    }
    widgets::fact(ui, "File", &format!("{}, {}", read.container, format::bytes(read.file_bytes)));
    widgets::fact(ui, "Tensors found", &read.found_as);
    widgets::fact(ui, "Input", &read.transform.as_ref().map_or_else(unknown, transform::summary));
    widgets::fact(ui, "Input from", &optional(&read.transform_from));
}

fn shares_ui(ui: &mut Ui, heading: &str, shares: &[Share]) {
    let accent = Palette::of(ui).accent;
    widgets::section(ui, heading);
    let total: u64 = shares.iter().map(|share| share.bytes).sum();
    for share in shares {
        let value = format!("{} in {}", format::bytes(share.bytes), format::counted(share.tensors, "tensor"));
        widgets::fact(ui, &share.name, &value);
        let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), 4.0), egui::Sense::empty());
        widgets::bar(ui, rect, share.bytes as f32 / total.max(1) as f32, accent);
    }
}

fn labels_ui(ui: &mut Ui, model: &mut Model, actions: &mut Vec<Action>) {
    widgets::section(ui, "Labels");
    let (names, from) = match (&model.labels, model.inspection()) {
        (Some(path), _) => (String::new(), format!("From {}", path.display())),
        (None, Some(read)) if !read.labels.is_empty() => (
            widgets::first_few(read.labels.iter().map(String::as_str), 12),
            format!("From {}", read.labels_from.as_deref().unwrap_or("the checkpoint")),
        ),
        (None, Some(_)) => (String::new(), "The checkpoint names no classes: they are shown by number".to_owned()),
        (None, None) => (String::new(), "From the model".to_owned()),
    };
    if !names.is_empty() {
        ui.add(egui::Label::new(names).wrap());
    }
    widgets::note(ui, from);
    ui.horizontal(|ui| {
        if widgets::button(ui, Weight::Plain, Icon::Tag, "Choose labels file…").clicked() {
            actions.push(Action::Ask(Ask::Labels(model.source.clone())));
        }
        if model.labels.is_some() && widgets::button(ui, Weight::Quiet, Icon::RotateCcw, "Use its own labels").clicked()
        {
            actions.push(Action::SetLabels(model.source.clone(), None));
        }
    });
    ui.add_space(STEP);
    let mut lenient = model.strictness != Strictness::Strict;
    if ui.checkbox(&mut lenient, "Load what fits when tensors are missing or have another shape").changed() {
        model.strictness = if lenient { Strictness::Lenient } else { Strictness::Strict };
    }
}
