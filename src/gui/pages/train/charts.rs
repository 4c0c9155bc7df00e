//! Curves over steps or epochs: one chart for each measure, the same look wherever runs are shown.

use egui::{Color32, Ui, vec2};
use egui_plot::{GridMark, HoverPosition, Line, LineStyle, PlotPoints, Points};

use crate::gui::theme::Palette;
use crate::gui::widgets;
use crate::jobs::curves::Curves;

/// What the horizontal axis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Axis {
    #[default]
    Epochs,
    Steps,
}

impl Axis {
    pub const ALL: [(Self, &'static str, &'static str); 2] =
        [(Self::Epochs, "Epochs", "The horizontal axis counts epochs"), (Self::Steps, "Steps", "It counts steps")];
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    Loss,
    Accuracy,
    Rate,
}

impl Measure {
    fn title(self) -> &'static str {
        match self {
            Self::Loss => "Loss",
            Self::Accuracy => "Right answers",
            Self::Rate => "Learning rate",
        }
    }

    fn text(self, value: f64) -> String {
        match self {
            Self::Loss => format!("{value:.3}"),
            Self::Accuracy => format!("{:.1} %", value * 100.0),
            Self::Rate => format!("{value:.2e}"),
        }
    }

    /// At a line of the grid, as short as can be.
    fn mark(self, mark: GridMark) -> String {
        match self {
            Self::Accuracy => format!("{:.0} %", mark.value * 100.0),
            Self::Rate if mark.value != 0.0 => format!("{:.1e}", mark.value).replace(".0e", "e"),
            Self::Loss if mark.step_size < 0.1 => format!("{:.2}", mark.value),
            Self::Loss if mark.step_size < 1.0 => format!("{:.1}", mark.value),
            _ => format!("{:.0}", mark.value),
        }
    }
}

/// One line of a chart.
pub struct Series {
    pub name: String,
    pub color: Color32,
    /// Thin and pale, for what is less certain.
    pub faint: bool,
    /// Its points are marked, being few.
    pub marked: bool,
    pub points: Vec<[f64; 2]>,
}

/// The lines of one run: training by step, training and validation by epoch. With `one_color` all are of it and the run's
/// name tells them apart from those of others; else the parts have a color each.
pub fn series(
    curves: &Curves,
    steps_per_epoch: Option<f64>,
    measure: Measure,
    axis: Axis,
    palette: &Palette,
    one_color: Option<(&str, Color32)>,
) -> Vec<Series> {
    let per_epoch = steps_per_epoch.or(curves.steps_per_epoch());
    let of_step = |step: f64| match axis {
        Axis::Steps => Some(step),
        Axis::Epochs => per_epoch.map(|steps| step / steps),
    };
    let by_step = |curve: &crate::jobs::curves::Curve| -> Vec<[f64; 2]> {
        curve.points().iter().filter_map(|[step, value]| Some([of_step(step + 1.0)?, *value])).collect()
    };
    let by_epoch = |value: &dyn Fn(&crate::train::EpochRecord) -> Option<f64>| -> Vec<[f64; 2]> {
        let point = |epoch: &crate::train::EpochRecord| {
            let x = if axis == Axis::Epochs { (epoch.epoch + 1) as f64 } else { epoch.step as f64 };
            Some([x, value(epoch)?])
        };
        curves.epochs.iter().filter_map(point).collect()
    };
    let line = |part: &str, color: Color32, faint: bool, marked: bool, points: Vec<[f64; 2]>| {
        let (name, color) = one_color.map_or_else(
            || (part.to_owned(), color),
            |(run, color)| (format!("{run}, {}", part.to_lowercase()), color),
        );
        Series { name, color, faint, marked, points }
    };
    let [train, validation] = [palette.series[0], palette.series[1]];
    match measure {
        Measure::Rate => vec![line("Learning rate", train, false, false, by_step(&curves.rate))],
        Measure::Loss => vec![
            line("Batches", train, true, false, by_step(&curves.loss)),
            line("Training", train, false, one_color.is_none(), by_epoch(&|epoch| Some(epoch.train_loss))),
            line("Validation", validation, false, true, by_epoch(&|epoch| epoch.loss)),
        ],
        Measure::Accuracy => vec![
            line("Batches", train, true, false, by_step(&curves.accuracy)),
            line("Training", train, false, one_color.is_none(), by_epoch(&|epoch| Some(epoch.train_accuracy))),
            line("Validation", validation, false, true, by_epoch(&|epoch| epoch.top1)),
        ],
    }
}

/// A chart with its title. Stays as it is drawn: a wheel over it scrolls the page.
pub fn chart_ui(ui: &mut Ui, id: &str, measure: Measure, axis: Axis, series: Vec<Series>, size: egui::Vec2) {
    ui.vertical(|ui| {
        ui.set_width(size.x);
        widgets::section(ui, measure.title());
        let name = if axis == Axis::Epochs { "epoch" } else { "step" };
        let near = move |position: &HoverPosition<'_>| match position {
            HoverPosition::NearDataPoint { plot_name, position, .. } => {
                Some(format!("{plot_name}\n{name} {:.1}\n{}", position.x, measure.text(position.y)))
            }
            HoverPosition::Elsewhere { .. } => None,
        };
        let mut plot = widgets::chart(ui, id, size)
            .y_axis_min_width(36.0)
            .set_margin_fraction(vec2(0.02, 0.06))
            .x_grid_spacer(|input| widgets::round_marks(input.bounds, 1.0))
            .y_grid_spacer(|input| widgets::round_marks(input.bounds, 0.0))
            .y_axis_formatter(move |mark, _| measure.mark(mark))
            .x_axis_formatter(
                |mark, _| if mark.value.fract() == 0.0 { format!("{:.0}", mark.value) } else { String::new() },
            )
            .label_formatter(near)
            .include_x(0.0)
            .include_x(1.0);
        // A loss seldom comes near 0: its own range shows more.
        match measure {
            Measure::Accuracy => plot = plot.include_y(0.0).include_y(1.0),
            Measure::Rate => plot = plot.include_y(0.0),
            Measure::Loss => {}
        }
        plot.show(ui, |plot| {
            for one in series {
                let color = if one.faint { one.color.gamma_multiply(0.45) } else { one.color };
                if one.marked {
                    let points = PlotPoints::from(one.points.clone());
                    plot.points(Points::new(one.name.clone(), points).radius(2.5).color(color).allow_hover(false));
                }
                let width = if one.faint { 1.0 } else { 2.0 };
                let style = LineStyle::Solid;
                plot.line(Line::new(one.name, PlotPoints::from(one.points)).color(color).width(width).style(style));
            }
        });
    });
}

/// Two charts, side by side where there is room.
pub fn side_by_side(ui: &mut Ui, measures: [Measure; 2], height: f32, chart: impl Fn(&mut Ui, Measure, egui::Vec2)) {
    const LEAST_WIDTH: f32 = 240.0;
    const GAP: f32 = 16.0;
    let width = (ui.available_width() - GAP) / 2.0;
    if width < LEAST_WIDTH {
        return measures.into_iter().for_each(|measure| chart(ui, measure, vec2(ui.available_width(), height)));
    }
    ui.horizontal_top(|ui| {
        ui.spacing_mut().item_spacing.x = GAP;
        measures.into_iter().for_each(|measure| chart(ui, measure, vec2(width, height)));
    });
}

/// Right to left: what the horizontal axis counts.
pub fn axis_ui(ui: &mut Ui, axis: &mut Axis) {
    for (choice, text, meaning) in Axis::ALL.into_iter().rev() {
        if widgets::toggle(ui, *axis == choice, text).on_hover_text(meaning).clicked() {
            *axis = choice;
        }
    }
}

/// The last figures of a run in words, for those who do not see the curves.
pub fn figures_ui(ui: &mut Ui, curves: &Curves) {
    let Some(epoch) = curves.epochs.last() else { return };
    let mut figures = vec![
        ("loss", Measure::Loss.text(epoch.train_loss)),
        ("right in training", Measure::Accuracy.text(epoch.train_accuracy)),
    ];
    figures.extend(epoch.loss.map(|loss| ("validation loss", Measure::Loss.text(loss))));
    figures.extend(epoch.top1.map(|top1| ("right in validation", Measure::Accuracy.text(top1))));
    figures.extend(epoch.top5.map(|top5| ("among first five", Measure::Accuracy.text(top5))));
    figures.push(("photos/s", format!("{:.1}", epoch.photos_per_second)));
    figures.push(("peak", crate::format::bytes_or_unknown(epoch.peak_bytes)));
    widgets::figures(ui, &figures);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_grid_are_few_and_round() {
        let marks =
            |bounds, least| -> Vec<f64> { widgets::round_marks(bounds, least).iter().map(|mark| mark.value).collect() };
        assert_eq!(marks((-0.2, 10.3), 1.0), [0.0, 5.0, 10.0]);
        assert_eq!(marks((0.0, 2.0), 1.0), [0.0, 1.0, 2.0]);
        assert_eq!(marks((0.0, 1.0), 0.0).len(), 6);
        let texts: Vec<String> =
            widgets::round_marks((0.0, 3e-4), 0.0).into_iter().map(|mark| Measure::Rate.mark(mark)).collect();
        assert_eq!(texts, ["0", "1e-4", "2e-4", "3e-4"]);
    }
}
