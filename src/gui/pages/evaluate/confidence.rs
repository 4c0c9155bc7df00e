//! Whether the model is as sure as it is right, and from which confidence on its answers are good enough.

use egui::{Color32, RichText, ScrollArea, Slider, Ui, vec2};
use egui_plot::{Bar, BarChart, GridMark, Line, LineStyle, PlotPoints, Points, VLine};
use lucide_icons::Icon;

use super::{Judged, percent};
use crate::format;
use crate::gui::actions::{Action, EvaluateAction};
use crate::gui::theme::{self, Palette, STEP};
use crate::gui::widgets::{self, Weight};
use crate::predict::Evaluation;

/// Accuracies that a person may want to have.
const WANTED: [f64; 5] = [0.8, 0.9, 0.95, 0.98, 0.99];

const PLOT_HEIGHT: f32 = 220.0;

pub fn confidence_ui(ui: &mut Ui, judged: &mut Judged, actions: &mut Vec<Action>) {
    let summary = judged.summary.clone();
    let evaluation = &summary.evaluation;
    ScrollArea::vertical().id_salt("confidence").auto_shrink(false).show(ui, |ui| {
        ui.set_max_width(ui.available_width() - STEP);
        let width = (ui.available_width() - STEP * 3.0) / 2.0;
        ui.horizontal_top(|ui| {
            ui.spacing_mut().item_spacing.x = STEP * 3.0;
            ui.vertical(|ui| {
                ui.set_width(width);
                ui.spacing_mut().item_spacing.x = STEP;
                calibration_ui(ui, evaluation);
            });
            ui.vertical(|ui| {
                ui.set_width(width);
                ui.spacing_mut().item_spacing.x = STEP;
                threshold_ui(ui, evaluation, &mut judged.threshold, actions);
            });
        });
    });
}

fn calibration_ui(ui: &mut Ui, evaluation: &Evaluation) {
    let palette = Palette::of(ui);
    widgets::section(ui, "Is it as sure as it is right?");
    let bins = evaluation.calibration.len().max(1) as f64;
    let filled = || evaluation.calibration.iter().enumerate().filter(|(_, bin)| bin.photos > 0);
    let bar = |index: usize, accuracy: f64| Bar::new((index as f64 + 0.5) / bins, accuracy).width(0.94 / bins);
    let bars = filled().map(|(index, bin)| bar(index, bin.accuracy).fill(palette.accent_soft)).collect();
    let means: Vec<[f64; 2]> = filled().map(|(_, bin)| [bin.confidence, bin.accuracy]).collect();
    share_plot(ui, "calibration", |plot| {
        plot.bar_chart(BarChart::new("right", bars).allow_hover(false));
        plot.line(
            line("as sure as right", vec![[0.0, 0.0], [1.0, 1.0]], palette.edge).style(LineStyle::dashed_dense()),
        );
        let points = Points::new("right", PlotPoints::from(means)).radius(3.5).color(palette.series[1]);
        plot.points(points.allow_hover(false));
    });
    let text = format!(
        "Across: how sure the answers are, in tenths. Up: how many of them are right, a dot at the mean of each tenth. On the \
         dashed line both are the same; the photos lie {} from it in the mean",
        percent(evaluation.calibration_error)
    );
    widgets::note(ui, text);
}

fn threshold_ui(ui: &mut Ui, evaluation: &Evaluation, threshold: &mut f64, actions: &mut Vec<Action>) {
    let palette = Palette::of(ui);
    widgets::section(ui, "When shall it answer?");
    let points = &evaluation.thresholds;
    let answered = points.iter().map(|point| [point.threshold, point.answered]).collect();
    let accuracy = points.iter().filter_map(|point| Some([point.threshold, point.accuracy?])).collect();
    let at = *threshold;
    share_plot(ui, "thresholds", |plot| {
        plot.line(line("answered", answered, palette.series[0]).width(2.0));
        plot.line(line("right", accuracy, palette.series[1]).width(2.0));
        plot.vline(VLine::new("threshold", at).color(palette.text).width(1.0));
    });
    let legend = [("Photos answered", palette.series[0]), ("Right among them", palette.series[1])];
    ui.horizontal(|ui| widgets::legend(ui, &legend));
    let label = ui.label("Answer from a confidence of");
    ui.scope(|ui| {
        let width = (ui.available_width() - 64.0).min(280.0);
        let spacing = ui.spacing_mut();
        (spacing.slider_width, spacing.interact_size.y) = (width, theme::HANDLE);
        let percents = |value: f64, _: std::ops::RangeInclusive<usize>| format!("{:.0} %", value * 100.0);
        let parse = |text: &str| Some(text.trim_end_matches(['%', ' ']).parse::<f64>().ok()? / 100.0);
        let slider = Slider::new(threshold, 0.0..=0.99).step_by(0.01).custom_formatter(percents).custom_parser(parse);
        ui.add(slider).labelled_by(label.id);
    });
    outcome_ui(ui, evaluation, *threshold);
    wanted_ui(ui, evaluation, threshold);
    let use_it = widgets::button(ui, Weight::Plain, Icon::Check, "Classify with this threshold");
    if use_it.on_hover_text("Photos below it count as unsure on the Classify page").clicked() {
        actions.push(Action::Evaluate(EvaluateAction::UseThreshold(*threshold)));
    }
}

/// What the threshold means for these photos.
fn outcome_ui(ui: &mut Ui, evaluation: &Evaluation, threshold: f64) {
    let nearest = |point: &&crate::predict::ThresholdPoint| (point.threshold - threshold).abs() < 0.005;
    let Some(point) = evaluation.thresholds.iter().find(nearest) else { return };
    let answered = (point.answered * evaluation.photos as f64).round() as u64;
    let unsure = format::counted(evaluation.photos as u64 - answered.min(evaluation.photos as u64), "photo");
    let right = point.accuracy.map_or_else(String::new, |_| format!(", {} of them right", percent(point.accuracy)));
    let text = format!("{} answered{right}; {unsure} unsure", percent(point.answered));
    ui.add(egui::Label::new(RichText::new(text).font(theme::strong(13.0))).wrap());
}

/// The lowest threshold for an accuracy, at a click.
fn wanted_ui(ui: &mut Ui, evaluation: &Evaluation, threshold: &mut f64) {
    let reachable = WANTED.iter().filter(|wanted| **wanted > evaluation.top1);
    let reachable: Vec<(f64, f64)> =
        reachable.filter_map(|wanted| Some((*wanted, evaluation.threshold_for(*wanted)?.threshold))).collect();
    if reachable.is_empty() {
        return;
    }
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = 4.0;
        widgets::note(ui, "To be right in");
        for (wanted, lowest) in reachable {
            let text = format!("{:.0} %", 100.0 * wanted);
            if widgets::toggle(ui, (*threshold - lowest).abs() < 1e-9, &text).clicked() {
                *threshold = lowest;
            }
        }
    });
}

fn line<'a>(name: &str, points: Vec<[f64; 2]>, color: Color32) -> Line<'a> {
    Line::new(name, PlotPoints::from(points)).color(color).allow_hover(false)
}

fn quarters(_: egui_plot::GridInput) -> Vec<GridMark> {
    (0..=4).map(|quarter| GridMark { value: f64::from(quarter) / 4.0, step_size: 0.25 }).collect()
}

/// A plot whose both axes are shares of all.
fn share_plot<'a>(ui: &mut Ui, name: &str, draw: impl FnOnce(&mut egui_plot::PlotUi<'a>) + 'a) {
    let percents = |mark: GridMark, _: &std::ops::RangeInclusive<f64>| format!("{:.0} %", 100.0 * mark.value);
    widgets::chart(ui, name, vec2(ui.available_width(), PLOT_HEIGHT))
        .y_axis_min_width(40.0)
        .set_margin_fraction(vec2(0.02, 0.04))
        .x_grid_spacer(quarters)
        .y_grid_spacer(quarters)
        .x_axis_formatter(percents)
        .y_axis_formatter(percents)
        .include_x(0.0)
        .include_x(1.0)
        .include_y(0.0)
        .include_y(1.0)
        .show(ui, draw);
}
