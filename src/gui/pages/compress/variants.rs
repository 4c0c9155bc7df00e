//! The smaller models that there are: a table, and size against accuracy.

use std::path::Path;

use egui::{FontId, Grid, RichText, ScrollArea, Sense, Ui, Vec2, WidgetInfo, accesskit::Role, pos2, vec2};
use egui_plot::{MarkerShape, PlotPoint, Points, Text};
use lucide_icons::Icon;

use crate::compress::{ChangedPhoto, Figures, Proof, Report};
use crate::format;
use crate::gui::actions::{Action, CompressAction};
use crate::gui::pictures;
use crate::gui::textures::Textures;
use crate::gui::theme::{Palette, STEP};
use crate::gui::widgets;
use crate::jobs::compress::reports_of;

const PLOT_HEIGHT: f32 = 220.0;

/// The size of a changed photo's place, and of the picture in it.
const CELL: Vec2 = vec2(132.0, 128.0);
const PICTURE_HEIGHT: f32 = 90.0;

/// Pixels of a thumbnail's longer side: enough for a cell on a screen with two pixels per point.
const SIDE: u32 = 256;

/// Photos whose answer changed that are shown.
const MOST_CHANGED: usize = 48;

pub fn variants_ui(ui: &mut Ui, variants: &[&Report], textures: &mut Textures, actions: &mut Vec<Action>) {
    ScrollArea::vertical().id_salt("variants").auto_shrink(false).show(ui, |ui| {
        ScrollArea::horizontal().id_salt("table").show(ui, |ui| table_ui(ui, variants, actions));
        let latest = variants.last().copied();
        let warning = Palette::of(ui).warning;
        for notice in latest.iter().flat_map(|report| &report.notices) {
            widgets::alert(ui, Icon::Info, warning, notice);
        }
        if let Some(report) = latest.filter(|report| report.training_state_bytes > 0) {
            let state = format::bytes(report.training_state_bytes);
            let text = format!("{state} of the original are what training alone needs: leaving that out costs nothing");
            widgets::note(ui, text);
        }
        plot_ui(ui, variants);
        if let Some(proof) = latest.and_then(|report| report.proof.as_ref()) {
            classes_ui(ui, proof);
            changed_ui(ui, proof, textures);
        }
    });
}

fn table_ui(ui: &mut Ui, variants: &[&Report], actions: &mut Vec<Action>) {
    let palette = Palette::of(ui);
    let grid = Grid::new("smaller models").striped(false).spacing(vec2(20.0, 6.0)).min_col_width(40.0);
    grid.show(ui, |ui| {
        for heading in ["model", "file", "in memory", "right", "same answer", "photos/s", ""] {
            ui.label(RichText::new(heading).small().color(palette.secondary));
        }
        ui.end_row();
        if let Some(report) = variants.last() {
            let right = report.proof.as_ref().and_then(|proof| share(proof, 0));
            row_ui(ui, "original", &report.before, right, None);
            ui.end_row();
        }
        for report in variants {
            let right = report.proof.as_ref().and_then(|proof| share(proof, 1));
            row_ui(ui, &file_name(&report.output), &report.after, right, report.proof.as_ref().map(Proof::agreement));
            ui.horizontal(|ui| {
                if widgets::icon_button(ui, Icon::Check, "Use it").clicked() {
                    actions.push(Action::Compress(CompressAction::Use(report.output.clone())));
                }
                let [_, page] = reports_of(&report.output);
                if widgets::icon_button(ui, Icon::ExternalLink, "Open report").clicked() {
                    actions.push(Action::Compress(CompressAction::OpenReport(page)));
                }
            });
            ui.end_row();
        }
    });
}

fn row_ui(ui: &mut Ui, name: &str, figures: &Figures, right: Option<f64>, same: Option<f64>) {
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    ui.label(name);
    ui.label(format::bytes(figures.file_bytes));
    ui.label(format::bytes(figures.resident_bytes));
    ui.label(or_unknown(right.map(format::percent)));
    ui.label(or_unknown(same.map(format::percent)));
    ui.label(or_unknown(figures.photos_per_second.map(|speed| format!("{speed:.1}"))));
}

/// The share of photos judged right, before (0) or after (1).
fn share(proof: &Proof, side: usize) -> Option<f64> {
    Some(proof.right?[side] as f64 / proof.photos.max(1) as f64)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Each model's file against how often it is right, or answers as the original does.
fn plot_ui(ui: &mut Ui, variants: &[&Report]) {
    let has_labels = variants.iter().all(|report| report.proof.as_ref().is_none_or(|proof| proof.right.is_some()));
    let of = |report: &Report| {
        let proof = report.proof.as_ref()?;
        let accuracy = if has_labels { share(proof, 1)? } else { proof.agreement() };
        Some((file_name(&report.output), report.after.file_bytes, accuracy))
    };
    let original = variants.last().and_then(|report| {
        let accuracy = if has_labels { share(report.proof.as_ref()?, 0)? } else { 1.0 };
        Some(("original".to_owned(), report.before.file_bytes, accuracy))
    });
    let points: Vec<(String, u64, f64)> = variants.iter().copied().filter_map(of).chain(original).collect();
    if points.len() < 2 {
        return;
    }
    let palette = Palette::of(ui);
    let title = if has_labels { "Photos judged right, by size" } else { "Photos with the same answer, by size" };
    ui.add_space(STEP);
    widgets::section(ui, title);
    widgets::chart(ui, title, vec2(ui.available_width(), PLOT_HEIGHT))
        .y_axis_min_width(48.0)
        .y_axis_formatter(|mark, _| format!("{:.1} %", mark.value))
        .x_axis_formatter(|mark, _| format!("{} MB", (mark.value * 10.0).round() / 10.0))
        .include_x(0.0)
        .set_margin_fraction(vec2(0.1, 0.2))
        .show(ui, |plot| {
            for (name, bytes, accuracy) in &points {
                let at = [*bytes as f64 / 1e6, 100.0 * accuracy];
                let color = if name == "original" { palette.secondary } else { palette.series[0] };
                plot.points(Points::new(name.clone(), vec![at]).radius(5.0).shape(MarkerShape::Circle).color(color));
                let text = RichText::new(format!("  {name}")).small();
                let text = Text::new(name.clone(), PlotPoint::new(at[0], at[1]), text);
                plot.text(text.anchor(egui::Align2::LEFT_BOTTOM).color(palette.secondary));
            }
        });
}

/// The photos whose answer is another one in the newest model.
fn changed_ui(ui: &mut Ui, proof: &Proof, textures: &mut Textures) {
    if proof.changed.is_empty() {
        return;
    }
    ui.add_space(STEP);
    widgets::section(ui, "Photos whose answer changed in the newest");
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing = vec2(10.0, 10.0);
        proof.changed.iter().take(MOST_CHANGED).for_each(|photo| photo_ui(ui, photo, textures));
    });
}

fn photo_ui(ui: &mut Ui, photo: &ChangedPhoto, textures: &mut Textures) {
    let palette = Palette::of(ui);
    let (rect, response) = ui.allocate_exact_size(CELL, Sense::hover());
    let [(before, _), (after, _)] = &photo.answers;
    let spoken = format!("{}, {before} before, {after} now", file_name(&photo.path));
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, &spoken));
    let picture = rect.with_max_y(rect.top() + PICTURE_HEIGHT);
    pictures::filling_ui(ui, picture, &photo.path, SIDE, textures);
    for (text, color, y) in
        [(format!("now {after}"), palette.text, 6.0), (format!("was {before}"), palette.secondary, 22.0)]
    {
        let galley = widgets::one_line(ui, &text, FontId::proportional(11.0), color, rect.width());
        ui.painter().galley(pos2(rect.left(), picture.bottom() + y), galley, color);
    }
    let truth = photo.class.as_ref().map_or_else(String::new, |class| format!("\ntruly {class}"));
    response.on_hover_text(format!("{}{truth}", photo.path.display()));
}

/// The classes that fare otherwise in the newest model.
fn classes_ui(ui: &mut Ui, proof: &Proof) {
    let changed: Vec<_> = proof.classes.iter().filter(|class| class.right[0] != class.right[1]).collect();
    if changed.is_empty() {
        return;
    }
    ui.add_space(STEP);
    widgets::section(ui, "Classes that fare otherwise in the newest");
    for class in changed {
        let [before, after] = class.right;
        let text = format!("{before} of {} right before, {after} now", class.photos);
        widgets::fact(ui, &class.name, &text);
    }
}
