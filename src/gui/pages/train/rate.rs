//! Looks for a learning rate: the loss while the rate grows, and the rate at which it falls fastest.

use egui::{Context, Ui, vec2};
use egui_plot::{GridMark, Line, PlotPoints, VLine};
use lucide_icons::Icon;

use crate::format;
use crate::gui::actions::{Action, TrainAction};
use crate::gui::tasks::Leaving;
use crate::gui::theme::Palette;
use crate::gui::widgets::{self, Weight};
use crate::jobs::Places;
use crate::jobs::find_rate::{self, FindRateConfig, FindRateJob, FindRateSummary};
use crate::train::{RatePoint, RatesTried, TrainConfig};
use crate::worker::{Outcome, Progress};

const HEIGHT: f32 = 120.0;

/// The rates that were tried last.
#[derive(Default)]
pub struct Rates {
    points: Vec<RatePoint>,
    found: Option<RatesTried>,
    problem: Option<String>,
    progress: Progress,
    job: Option<FindRateJob>,
    leaving: Leaving<FindRateSummary, RatePoint>,
}

impl Rates {
    pub fn start(&mut self, config: &TrainConfig, places: Places, ctx: &Context) {
        self.cancel();
        (self.points, self.found, self.problem) = (Vec::new(), None, None);
        self.progress = Progress::default();
        let (wake, config) = (ctx.clone(), FindRateConfig { config: config.clone(), steps: None });
        match find_rate::start(config, places, move || crate::gui::wake(&wake)) {
            Ok(job) => self.job = Some(job),
            Err(error) => self.problem = Some(error.to_string()),
        }
    }

    pub fn poll(&mut self) {
        self.leaving.poll();
        let Some(job) = &mut self.job else { return };
        self.progress = job.context().progress();
        let is_done = job.is_done();
        self.points.extend(std::iter::from_fn(|| job.poll()));
        let outcome = if is_done { job.take_outcome() } else { None };
        let Some(outcome) = outcome else { return };
        self.job = None;
        match outcome {
            Outcome::Finished(summary) => self.show(summary.tried),
            Outcome::Canceled => {}
            Outcome::Failed(error) => self.problem = Some(format::error_chain(&*error)),
        }
    }

    /// Shows rates as a search would have left them.
    pub fn show(&mut self, tried: RatesTried) {
        self.points.clone_from(&tried.points);
        self.found = Some(tried);
    }

    pub fn is_running(&self) -> bool {
        self.job.is_some() || !self.leaving.is_empty()
    }

    pub fn cancel(&mut self) {
        self.leaving.add(self.job.take());
    }

    fn close(&mut self) {
        (self.points, self.found, self.problem) = (Vec::new(), None, None);
    }
}

/// `can_start`: no other job would be in the way.
pub fn rates_ui(ui: &mut Ui, rates: &mut Rates, lr: &mut f64, can_start: bool, actions: &mut Vec<Action>) {
    if rates.job.is_some() {
        super::photos::progress_ui(ui, &rates.progress);
        plot_ui(ui, rates);
        if widgets::button(ui, Weight::Plain, Icon::X, "Stop looking").clicked() {
            actions.push(Action::Train(TrainAction::StopFindRate));
        }
        return;
    }
    if let Some(problem) = &rates.problem {
        widgets::alert(ui, Icon::CircleAlert, Palette::of(ui).error, problem);
    }
    if !rates.points.is_empty() {
        plot_ui(ui, rates);
    }
    let mut close = false;
    ui.horizontal_wrapped(|ui| {
        if let Some(found) = &rates.found {
            close = found_ui(ui, found, lr);
        }
        ui.add_enabled_ui(can_start, |ui| {
            let text = if rates.found.is_some() { "Look again" } else { "Find a rate" };
            let what = "Up to 100 batches with growing rates on a copy of the network; the weights stay as they are";
            if widgets::button(ui, Weight::Quiet, Icon::Search, text).on_hover_text(what).clicked() {
                actions.push(Action::Train(TrainAction::FindRate));
            }
        });
    });
    if close {
        rates.close();
    }
}

/// What was found. True when it is to be closed.
fn found_ui(ui: &mut Ui, found: &RatesTried, lr: &mut f64) -> bool {
    match found.suggested {
        None => drop(widgets::note(ui, "No rate lowered the loss, so none is suggested")),
        // The slider's own digits: the rate in use is then the rate that is shown.
        Some(suggested) => {
            let rate = rounded(suggested);
            ui.add_enabled_ui(*lr != rate, |ui| {
                let text = format!("Use {rate:.1e}");
                let what = "Where the smoothed loss falls fastest";
                if widgets::button(ui, Weight::Plain, Icon::Check, &text).on_hover_text(what).clicked() {
                    *lr = rate;
                }
            });
        }
    }
    widgets::icon_button(ui, Icon::X, "Close the search").clicked()
}

/// With two digits, which is more than is known.
fn rounded(rate: f64) -> f64 {
    format!("{rate:.1e}").parse().unwrap_or(rate)
}

fn plot_ui(ui: &mut Ui, rates: &Rates) {
    let palette = Palette::of(ui);
    let at = |point: &RatePoint, loss: f64| [point.lr.log10(), loss];
    let raw: Vec<[f64; 2]> = rates.points.iter().map(|point| at(point, point.loss)).collect();
    let smoothed: Vec<[f64; 2]> = rates
        .found
        .iter()
        .flat_map(|found| {
            found.points.iter().zip(&found.smoothed).map(|(point, loss)| at(point, *loss)).collect::<Vec<_>>()
        })
        .collect();
    let (low, high) = range(if smoothed.is_empty() { &raw } else { &smoothed });
    let suggested = rates.found.as_ref().and_then(|found| found.suggested);
    let response = widgets::chart(ui, "learning rates", vec2(ui.available_width(), HEIGHT))
        .y_axis_min_width(32.0)
        .x_grid_spacer(|_| [-6, -4, -2, 0].map(|power| GridMark { value: f64::from(power), step_size: 2.0 }).to_vec())
        .x_axis_formatter(|mark, _| format!("1e{:.0}", mark.value))
        .y_grid_spacer(|input| widgets::round_marks(input.bounds, 0.0))
        .show(ui, |plot| {
            plot.set_plot_bounds_x(-7.1..=0.1);
            plot.set_plot_bounds_y(low..=high);
            let line =
                |name: &str, points, color| Line::new(name, PlotPoints::from(points)).color(color).allow_hover(false);
            plot.line(line("each batch", raw, palette.series[0].gamma_multiply(0.45)).width(1.0));
            plot.line(line("smoothed", smoothed, palette.series[0]).width(2.0));
            if let Some(rate) = suggested {
                plot.vline(VLine::new("suggested", rate.log10()).color(palette.series[1]).width(1.5));
            }
        });
    let what = "Loss by learning rate: pale each batch, strong their mean, upright the rate that is suggested";
    response.response.on_hover_text(what);
}

/// The losses to show: what is out of hand would flatten all else.
fn range(points: &[[f64; 2]]) -> (f64, f64) {
    let losses = || points.iter().map(|point| point[1]).filter(|loss| loss.is_finite());
    let low = losses().fold(f64::INFINITY, f64::min);
    let high = losses().fold(f64::NEG_INFINITY, f64::max);
    let first = losses().next().unwrap_or(1.0);
    if low < high { (0.9 * low, (1.1 * high).min(1.6 * first).max(low)) } else { (0.0, (1.6 * first).max(0.1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_blew_up_does_not_flatten_the_rest() {
        let points = [2.0, 1.5, 1.0, 90.0].map(|loss| [0.0, loss]);
        assert_eq!(range(&points), (0.9, 3.2));
        assert_eq!(range(&[]), (0.0, 1.6));
        assert_eq!(rounded(3.162e-4), 3.2e-4);
    }
}
