//! How well peaks were predicted: a point for each of the last jobs, the last few in words, and what is learned from them.

use egui::{RichText, Ui, vec2};
use egui_plot::{GridInput, GridMark, HoverPosition, Line, LineStyle, MarkerShape, PlotPoints, Points};
use lucide_icons::Icon;

use super::Peaks;
use crate::format::{bytes, counted};
use crate::gui::theme::{Palette, STEP};
use crate::gui::widgets::{self, Weight};
use crate::gui::{Action, MemoryAction};
use crate::jobs::peaks::{History, Track};
use crate::journal::{Peak, PeakKind};

/// So many of the last jobs are described.
const DESCRIBED: usize = 6;

const SIDE: f32 = 300.0;

pub fn history_ui(ui: &mut Ui, peaks: &Peaks, actions: &mut Vec<Action>) {
    widgets::section(ui, "Predicted and measured");
    let history = match peaks {
        Peaks::Unread => return drop(widgets::note(ui, "Reading the journal…")),
        Peaks::Failed(reason) => {
            widgets::alert(ui, Icon::CircleAlert, Palette::of(ui).error, reason);
            if widgets::button(ui, Weight::Plain, Icon::RotateCcw, "Read again").clicked() {
                actions.push(Action::Memory(MemoryAction::ReadPeaks));
            }
            return;
        }
        Peaks::Read(history) => history,
    };
    if history.peaks.is_empty() {
        let text =
            "No job was noted yet. Each run is predicted before it begins, and what it really took is noted here";
        return drop(widgets::note(ui, text));
    }
    ui.horizontal_top(|ui| {
        ui.spacing_mut().item_spacing.x = STEP * 2.0;
        ui.vertical(|ui| {
            ui.set_width(SIDE);
            scatter_ui(ui, history);
        });
        ui.vertical(|ui| {
            history.tracks.iter().for_each(|track| drop(ui.add(egui::Label::new(track_text(track)).wrap())));
            ui.add_space(STEP);
            widgets::section(ui, "The last jobs");
            history.peaks.iter().take(DESCRIBED).for_each(|peak| job_ui(ui, history, peak));
        });
    });
}

fn job_ui(ui: &mut Ui, history: &History, peak: &Peak) {
    ui.scope(|ui| {
        ui.spacing_mut().item_spacing.y = 2.0;
        ui.add(egui::Label::new(job_text(history, peak)).wrap()).on_hover_text(&peak.config);
        let items = peak.items.iter().filter(|(_, bytes)| *bytes > 0);
        let items: Vec<String> = items.map(|(name, size)| format!("{name} {}", bytes(*size))).collect();
        let color = Palette::of(ui).secondary;
        let text = RichText::new(format!("Predicted: {}", items.join(" · "))).small().color(color);
        ui.add(egui::Label::new(text).wrap());
    });
}

/// `ConvNeXt Tiny, training, CPU: 212 MB predicted, 219 MB measured, ran anyway`
fn job_text(history: &History, peak: &Peak) -> String {
    let measured = match peak.footprint {
        Some(footprint) => bytes(footprint),
        None => format!("{} of heap", bytes(peak.heap)),
    };
    let anyway = if peak.anyway { ", ran anyway" } else { "" };
    let of = of(history.network(&peak.kind), &peak.kind);
    format!("{of}: {} predicted, {measured} measured{anyway}", bytes(peak.predicted))
}

fn of(network: &str, kind: &PeakKind) -> String {
    format!("{network}, {}, {}", mode(&kind.mode), kind.device)
}

fn mode(mode: &str) -> &str {
    match mode {
        "train" => "training",
        "classify" => "classifying",
        "evaluate" => "evaluating",
        other => other,
    }
}

/// `ConvNeXt Tiny, training, CPU: predictions are 3 % low, ± 4 %, from 6 jobs`
fn track_text(track: &Track) -> String {
    let of = of(&track.network, &track.kind);
    let jobs = counted(track.jobs as u64, "job");
    let Some(calibration) = &track.calibration else {
        return format!("{of}: too few to judge by, {jobs}");
    };
    let percent = (100.0 * (calibration.factor - 1.0)).round();
    let bias = match percent {
        0.0 => "predictions are right".to_owned(),
        low if low > 0.0 => format!("predictions are {low:.0} % low"),
        high => format!("predictions are {:.0} % high", -high),
    };
    let jobs = counted(calibration.jobs as u64, "job");
    format!("{of}: {bias}, ± {:.0} %, from {jobs}", 100.0 * calibration.band)
}

/// Powers of ten of what was predicted and measured. None of a job without one of them.
fn point(peak: &Peak) -> Option<[f64; 2]> {
    let power = |bytes: u64| (bytes > 0).then(|| (bytes as f64).log10());
    Some([power(peak.predicted)?, power(peak.measured())?])
}

/// The same for both axes, with the diagonal from corner to corner.
fn bounds(points: impl Iterator<Item = [f64; 2]>) -> Option<[f64; 2]> {
    const MARGIN: f64 = 0.15;
    /// Wide enough for two lines of the grid.
    const LEAST: f64 = 0.4;
    let ends = points.flatten().fold(None, |ends: Option<[f64; 2]>, value| {
        Some(ends.map_or([value, value], |[low, high]| [low.min(value), high.max(value)]))
    })?;
    let (middle, half) = ((ends[0] + ends[1]) / 2.0, (ends[1] - ends[0]) / 2.0);
    let half = (half + MARGIN).max(LEAST);
    Some([middle - half, middle + half])
}

fn scatter_ui(ui: &mut Ui, history: &History) {
    let palette = Palette::of(ui);
    let Some([low, high]) = bounds(history.peaks.iter().filter_map(point)) else {
        return drop(widgets::note(ui, "None of these jobs has both figures"));
    };
    let near = |position: &HoverPosition<'_>| match position {
        HoverPosition::NearDataPoint { plot_name, .. } if !plot_name.is_empty() => Some((*plot_name).to_owned()),
        _ => None,
    };
    let text = |mark: GridMark, _: &std::ops::RangeInclusive<f64>| bytes(10_f64.powf(mark.value).round() as u64);
    ui.label(RichText::new("Measured").small().color(palette.secondary));
    let plot = widgets::chart(ui, "predicted and measured", vec2(SIDE, SIDE * 0.8))
        .y_axis_min_width(52.0)
        .set_margin_fraction(vec2(0.0, 0.0))
        .x_grid_spacer(marks)
        .y_grid_spacer(marks)
        .x_axis_formatter(text)
        .y_axis_formatter(text)
        .label_formatter(near);
    plot.show(ui, |plot| {
        plot.set_plot_bounds_x(low..=high);
        plot.set_plot_bounds_y(low..=high);
        let diagonal = Line::new("", PlotPoints::from(vec![[low, low], [high, high]]));
        plot.line(diagonal.color(palette.secondary).width(1.0).style(LineStyle::dashed_dense()).allow_hover(false));
        for peak in &history.peaks {
            let Some(point) = point(peak) else { continue };
            let shape = if peak.anyway { MarkerShape::Diamond } else { MarkerShape::Circle };
            let color = color(&peak.kind.mode, &palette);
            let points = Points::new(job_text(history, peak), PlotPoints::from(vec![point]));
            plot.points(points.color(color).shape(shape).filled(!peak.anyway).radius(4.0));
        }
    });
    ui.label(RichText::new("Predicted. On the dashed line both are the same").small().color(palette.secondary));
    ui.horizontal_wrapped(|ui| {
        let mut modes: Vec<&str> = history.peaks.iter().map(|peak| peak.kind.mode.as_str()).collect();
        modes.sort_unstable();
        modes.dedup();
        let entries: Vec<_> = modes.into_iter().map(|one| (mode(one), color(one, &palette))).collect();
        widgets::legend(ui, &entries);
        if history.peaks.iter().any(|peak| peak.anyway) {
            ui.label(RichText::new("hollow: ran anyway").small().color(palette.secondary));
        }
    });
}

fn color(mode: &str, palette: &Palette) -> egui::Color32 {
    palette.series[match mode {
        "train" => 0,
        "classify" => 1,
        "evaluate" => 2,
        _ => 3,
    }]
}

/// At 1, 2 and 5 of each power of ten where there are few powers, else at these alone.
fn marks(input: GridInput) -> Vec<GridMark> {
    let (low, high) = input.bounds;
    let steps: &[f64] = if high - low < 2.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let powers = low.floor() as i32..=high.ceil() as i32;
    let values = powers.flat_map(|power| steps.iter().map(move |step| f64::from(power) + step.log10()));
    values.filter(|value| (low..=high).contains(value)).map(|value| GridMark { value, step_size: 1.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Calibration;

    fn peak(predicted: u64, footprint: Option<u64>) -> Peak {
        let kind = PeakKind { network: "x".to_owned(), mode: "train".to_owned(), device: "CPU".to_owned() };
        let (config, items) = (String::new(), Vec::new());
        Peak { kind, config, items, predicted, heap: 50_000_000, footprint, anyway: footprint.is_none(), at: 0 }
    }

    #[test]
    fn a_job_is_a_point_only_with_both_figures_and_both_axes_are_alike() {
        assert_eq!(point(&peak(100_000_000, Some(1_000_000_000))), Some([8.0, 9.0]));
        assert_eq!(point(&peak(0, Some(1))), None);
        let [low, high] = bounds([[8.0, 9.0], [7.5, 8.0]].into_iter()).unwrap();
        assert!(low < 7.5 && high > 9.0 && (low + high - 16.5).abs() < 1e-9);
        assert_eq!(bounds(std::iter::empty()), None);
    }

    #[test]
    fn a_job_says_which_figure_was_measured_and_that_it_ran_anyway() {
        let history = History::default();
        let text = |footprint| job_text(&history, &peak(100_000_000, footprint));
        assert_eq!(text(Some(120_000_000)), "x, training, CPU: 100 MB predicted, 120 MB measured");
        assert_eq!(text(None), "x, training, CPU: 100 MB predicted, 50.0 MB of heap measured, ran anyway");
    }

    #[test]
    fn a_track_says_which_way_predictions_err() {
        let track = |factor: f64| Track {
            kind: peak(1, None).kind,
            network: "ConvNeXt Tiny".to_owned(),
            calibration: (factor > 0.0).then_some(Calibration { factor, band: 0.04, jobs: 6 }),
            jobs: 2,
        };
        assert_eq!(
            track_text(&track(1.03)),
            "ConvNeXt Tiny, training, CPU: predictions are 3 % low, ± 4 %, from 6 jobs"
        );
        assert!(track_text(&track(0.9)).contains("predictions are 10 % high"));
        assert!(track_text(&track(1.001)).contains("predictions are right"));
        assert_eq!(track_text(&track(0.0)), "ConvNeXt Tiny, training, CPU: too few to judge by, 2 jobs");
    }
}
