//! The last two minutes: footprint, what the GPU has of it, the budget, and how short of memory the system was.

use egui::{Align, Color32, Layout, RichText, Ui, vec2};
use egui_plot::{GridMark, HoverPosition, Line, LineStyle, PlotPoints, Span};

use crate::format::{bytes, duration};
use crate::gui::strip::{Moment, SECONDS, Strip};
use crate::gui::theme::{self, Palette};
use crate::gui::widgets;
use crate::memory::{Budget, Pressure};

const HEIGHT: f32 = 170.0;

/// A budget that is higher than so many times all else would flatten the curves.
const NEAR: f64 = 4.0;

/// A line of the plot.
struct Series {
    name: &'static str,
    color: Color32,
    points: Vec<[f64; 2]>,
}

pub fn plot_ui(ui: &mut Ui, strip: &Strip) {
    let Some(latest) = strip.latest_moment() else { return };
    let palette = Palette::of(ui);
    let mut series = curves(strip, &palette);
    let highest = highest(&series);
    let limit = latest.budget();
    let budgets = strip.series(|moment| moment.budget().map(|budget| budget.bytes));
    let is_near = limit.is_some_and(|limit| limit.bytes as f64 <= NEAR * highest);
    if is_near {
        series.push(Series { name: "Budget", color: palette.warning, points: budgets });
    }
    ui.horizontal(|ui| {
        widgets::section(ui, "The last two minutes");
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| pressure_ui(ui, latest.pressure));
    });
    if series.iter().all(|one| one.points.is_empty()) {
        widgets::note(ui, "This system does not tell what a process takes, so there is nothing to draw");
    } else {
        lines_ui(ui, &series, &shortages(strip), highest.max(if is_near { limit_bytes(limit) } else { 0.0 }));
    }
    ui.horizontal_wrapped(|ui| {
        let entries: Vec<(&str, Color32)> = series.iter().map(|one| (one.name, one.color)).collect();
        widgets::legend(ui, &entries);
        widgets::note(ui, budget_sentence(limit, is_near));
    });
    if let Some(device) = latest.device {
        widgets::note(ui, device.sentence());
    }
}

/// What is known has a line; what is not has none.
fn curves(strip: &Strip, palette: &Palette) -> Vec<Series> {
    let [footprint, _, active, cached, ..] = palette.series;
    let of_device = |figure: fn(&crate::jobs::flush::DeviceUse) -> u64| {
        strip.series(|moment: &Moment| moment.device.as_ref().map(figure))
    };
    let series = [
        Series { name: "Footprint", color: footprint, points: strip.series(|moment| moment.reading.footprint) },
        Series { name: "GPU in use", color: active, points: of_device(|device| device.active) },
        Series { name: "GPU kept for reuse", color: cached, points: of_device(|device| device.cached) },
    ];
    series.into_iter().filter(|one| !one.points.is_empty()).collect()
}

fn limit_bytes(limit: Option<Budget>) -> f64 {
    limit.map_or(0.0, |limit| limit.bytes as f64)
}

fn highest(series: &[Series]) -> f64 {
    series.iter().flat_map(|one| &one.points).map(|point| point[1]).fold(1e6, f64::max)
}

fn budget_sentence(limit: Option<Budget>, is_near: bool) -> String {
    match limit {
        None => "The budget is unknown: nothing tells what this process may take".to_owned(),
        Some(Budget { bytes: limit, bound }) => {
            let above = if is_near { "" } else { ", above this scale" };
            format!("The budget for jobs is {}, {}{above}", bytes(limit), bound.text())
        }
    }
}

/// When the system was short of memory: from, to, and whether it was critical.
fn shortages(strip: &Strip) -> Vec<(f64, f64, bool)> {
    let at = |level: Pressure| strip.series(move |moment| (moment.pressure == Some(level)).then_some(0));
    let spans = |level, is_critical| at(level).into_iter().map(move |[when, _]| (when - 1.0, when, is_critical));
    spans(Pressure::Warning, false).chain(spans(Pressure::Critical, true)).collect()
}

fn lines_ui(ui: &mut Ui, series: &[Series], shortages: &[(f64, f64, bool)], top: f64) {
    let palette = Palette::of(ui);
    let top = top * 1.1;
    let near = |position: &HoverPosition<'_>| match position {
        HoverPosition::NearDataPoint { plot_name, position, .. } => {
            let ago = std::time::Duration::from_secs_f64((-position.x).max(0.0));
            Some(format!("{plot_name}\n{} ago\n{}", duration(ago), bytes(position.y as u64)))
        }
        HoverPosition::Elsewhere { .. } => None,
    };
    let plot = widgets::chart(ui, "memory over time", vec2(ui.available_width(), HEIGHT))
        .y_axis_min_width(56.0)
        .set_margin_fraction(vec2(0.0, 0.0))
        .x_grid_spacer(|_| half_minutes())
        .y_grid_spacer(|input| widgets::round_marks(input.bounds, 0.0))
        .x_axis_formatter(|mark, _| format!("{:.0} s ago", -mark.value))
        .y_axis_formatter(|mark, _| bytes(mark.value.max(0.0) as u64))
        .label_formatter(near);
    plot.show(ui, |plot| {
        plot.set_plot_bounds_x(-(SECONDS as f64)..=0.0);
        plot.set_plot_bounds_y(0.0..=top);
        for (from, to, is_critical) in shortages {
            let color = if *is_critical { palette.error } else { palette.warning };
            plot.span(Span::new("", *from..=*to).fill(color.gamma_multiply(0.2)).border_width(0.0));
        }
        for one in series {
            let mut line = Line::new(one.name, PlotPoints::from(one.points.clone())).color(one.color).width(2.0);
            if one.name == "Budget" {
                line = line.style(LineStyle::dashed_dense());
            }
            plot.line(line);
        }
    });
}

/// Lines between the ends of the plot, which would be cut off.
fn half_minutes() -> Vec<GridMark> {
    const HALF: usize = 30;
    (1..SECONDS / HALF).map(|mark| GridMark { value: -((mark * HALF) as f64), step_size: HALF as f64 }).collect()
}

fn pressure_ui(ui: &mut Ui, pressure: Option<Pressure>) {
    let palette = Palette::of(ui);
    let (word, color, meaning) = match pressure {
        Some(Pressure::Calm) => ("calm", palette.accent_line, "The system has memory to give"),
        Some(Pressure::Warning) => {
            ("short", palette.warning, "The system begins to run short of memory: caches should go")
        }
        Some(Pressure::Critical) => {
            ("critical", palette.error, "The system is out of memory, and everything waits for it")
        }
        None => ("unknown", palette.secondary, "This system does not tell"),
    };
    ui.label(RichText::new(word).font(theme::strong(13.0)).color(color)).on_hover_text(meaning);
    ui.label(RichText::new("Memory pressure:").color(palette.secondary)).on_hover_text(meaning);
}
