//! Batch sizes tried in turn: which fit, how fast they train, and what memory they take.

use egui::{Context, Grid, RichText, ScrollArea, Ui, vec2};
use egui_plot::{Bar, BarChart};
use lucide_icons::Icon;

use crate::format;
use crate::gui::actions::{Action, TrainAction};
use crate::gui::tasks::Leaving;
use crate::gui::theme::{Palette, STEP};
use crate::gui::widgets::{self, Weight};
use crate::jobs::Places;
use crate::jobs::sweep::{self, SweepConfig, SweepJob, SweepRow};
use crate::train::TrainConfig;
use crate::worker::{Outcome, Progress};

/// Batch sizes that can be tried, and those that are unless told otherwise.
const SIZES: [usize; 10] = [1, 2, 4, 8, 16, 24, 32, 64, 128, 256];
const FIRST: [usize; 5] = [4, 8, 16, 24, 32];

/// Steps that are measured for each.
const STEPS: usize = 3;

pub struct Sweep {
    sizes: [bool; SIZES.len()],
    rows: Vec<SweepRow>,
    problem: Option<String>,
    progress: Progress,
    job: Option<SweepJob>,
    leaving: Leaving<(), SweepRow>,
}

impl Default for Sweep {
    fn default() -> Self {
        let sizes = SIZES.map(|size| FIRST.contains(&size));
        let (rows, leaving) = (Vec::new(), Leaving::default());
        Self { sizes, rows, problem: None, progress: Progress::default(), job: None, leaving }
    }
}

impl Sweep {
    pub fn start(&mut self, config: &TrainConfig, places: Places, ctx: &Context) {
        let sizes = SIZES.iter().zip(self.sizes).filter(|(_, is_chosen)| *is_chosen).map(|(size, _)| *size);
        let config = SweepConfig { config: config.clone(), batch_sizes: sizes.collect(), steps: STEPS };
        let wake = ctx.clone();
        self.cancel();
        (self.rows, self.problem) = (Vec::new(), None);
        match sweep::start(config, places, move || crate::gui::wake(&wake)) {
            Ok(job) => self.job = Some(job),
            Err(error) => self.problem = Some(error.to_string()),
        }
    }

    pub fn poll(&mut self) {
        self.leaving.poll();
        let Some(job) = &mut self.job else { return };
        self.progress = job.context().progress();
        let is_done = job.is_done();
        self.rows.extend(std::iter::from_fn(|| job.poll()));
        let outcome = if is_done { job.take_outcome() } else { None };
        let Some(outcome) = outcome else { return };
        self.job = None;
        if let Outcome::Failed(error) = outcome {
            self.problem = Some(format::error_chain(&*error));
        }
    }

    pub fn is_running(&self) -> bool {
        self.job.is_some() || !self.leaving.is_empty()
    }

    pub fn cancel(&mut self) {
        self.leaving.add(self.job.take());
    }

    /// Shows rows as a sweep would have left them.
    pub fn show(&mut self, rows: Vec<SweepRow>) {
        self.rows = rows;
    }
}

/// `blocked` says why no sweep can start now.
pub fn sweep_ui(ui: &mut Ui, sweep: &mut Sweep, blocked: Option<&str>, current: usize, actions: &mut Vec<Action>) {
    ScrollArea::vertical().id_salt("sweep").auto_shrink(false).show(ui, |ui| {
        ui.set_max_width(ui.available_width() - STEP);
        let text = "A few steps of training with each batch size, in a process of its own that cannot hurt this one. \
                    The other settings are those on the right";
        widgets::note(ui, text);
        sizes_ui(ui, sweep, blocked, actions);
        if sweep.job.is_some() {
            super::photos::progress_ui(ui, &sweep.progress);
        }
        if let Some(problem) = &sweep.problem {
            widgets::alert(ui, Icon::CircleAlert, Palette::of(ui).error, problem);
        }
        if !sweep.rows.is_empty() {
            ui.add_space(STEP);
            ScrollArea::horizontal().show(ui, |ui| table_ui(ui, &sweep.rows, current, actions));
            problems_ui(ui, &sweep.rows);
            ui.add_space(STEP);
            plots_ui(ui, &sweep.rows);
        }
    });
}

fn sizes_ui(ui: &mut Ui, sweep: &mut Sweep, blocked: Option<&str>, actions: &mut Vec<Action>) {
    let is_running = sweep.job.is_some();
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = 4.0;
        for (size, chosen) in SIZES.iter().zip(&mut sweep.sizes) {
            let response = widgets::toggle(ui, *chosen, &size.to_string());
            if !is_running && response.on_hover_text(format!("Try batches of {size}")).clicked() {
                *chosen = !*chosen;
            }
        }
    });
    ui.horizontal(|ui| {
        if is_running {
            if widgets::button(ui, Weight::Plain, Icon::X, "Stop trying").clicked() {
                actions.push(Action::Train(TrainAction::StopSweep));
            }
            return;
        }
        let can_start = blocked.is_none() && sweep.sizes.contains(&true);
        ui.add_enabled_ui(can_start, |ui| {
            if widgets::button(ui, Weight::Plain, Icon::Gauge, "Try batch sizes").clicked() {
                actions.push(Action::Train(TrainAction::StartSweep));
            }
        });
        if let Some(blocked) = blocked {
            widgets::note(ui, blocked);
        }
    });
}

fn table_ui(ui: &mut Ui, rows: &[SweepRow], current: usize, actions: &mut Vec<Action>) {
    let palette = Palette::of(ui);
    let grid = Grid::new("batch sizes").striped(false).spacing(vec2(20.0, 6.0)).min_col_width(40.0);
    grid.show(ui, |ui| {
        for heading in ["batch", "", "fits", "photos/s", "an epoch", "predicted", "peak", "computed twice"] {
            ui.label(RichText::new(heading).small().color(palette.secondary));
        }
        ui.end_row();
        for row in rows {
            let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
            ui.label(row.batch_size.to_string());
            if row.batch_size == current {
                ui.label(RichText::new("chosen").color(palette.secondary));
            } else if row.fits {
                let choose = format!("Train with batches of {}", row.batch_size);
                if widgets::icon_button(ui, Icon::Check, &choose).clicked() {
                    actions.push(Action::Train(TrainAction::SetBatchSize(row.batch_size)));
                }
            } else {
                ui.label("");
            }
            ui.label(if row.fits { RichText::new("yes") } else { RichText::new("no").color(palette.warning) });
            ui.label(or_unknown(row.photos_per_second.map(|rate| format!("{rate:.1}"))));
            let time = |seconds| format::duration(std::time::Duration::from_secs_f64(seconds));
            ui.label(or_unknown(row.seconds_per_epoch.map(time)));
            ui.label(or_unknown(row.predicted_bytes.map(format::bytes)));
            ui.label(or_unknown(row.peak_bytes.map(format::bytes)));
            ui.label(or_unknown(row.recomputed_blocks.map(|blocks| format::counted(blocks as u64, "block"))));
            ui.end_row();
        }
    });
}

fn problems_ui(ui: &mut Ui, rows: &[SweepRow]) {
    let warning = Palette::of(ui).warning;
    for row in rows {
        if let Some(problem) = &row.problem {
            widgets::alert(ui, Icon::TriangleAlert, warning, &format!("Batches of {}: {problem}", row.batch_size));
        }
    }
}

fn plots_ui(ui: &mut Ui, rows: &[SweepRow]) {
    let palette = Palette::of(ui);
    let width = (ui.available_width() - 16.0) / 2.0;
    ui.horizontal_top(|ui| {
        let speed: Vec<Option<f64>> = rows.iter().map(|row| row.photos_per_second).collect();
        bars_ui(ui, "Photos per second", rows, &speed, palette.series[0], width, |value| format!("{value:.0}"));
        let peak: Vec<Option<f64>> = rows.iter().map(|row| row.peak_bytes.map(|bytes| bytes as f64)).collect();
        bars_ui(ui, "Peak of the whole process", rows, &peak, palette.series[2], width, |value| {
            format::bytes(value as u64)
        });
    });
}

/// A bar for each batch size, in their order: they grow too unevenly for a scale.
fn bars_ui(
    ui: &mut Ui,
    title: &str,
    rows: &[SweepRow],
    values: &[Option<f64>],
    color: egui::Color32,
    width: f32,
    text: impl Fn(f64) -> String + 'static,
) {
    let palette = Palette::of(ui);
    let bar = |(place, (row, value)): (usize, (&SweepRow, &Option<f64>))| {
        let fill = if row.fits { color } else { palette.warning };
        Some(Bar::new(place as f64, (*value)?).fill(fill).width(0.6))
    };
    let bars: Vec<Bar> = rows.iter().zip(values).enumerate().filter_map(bar).collect();
    let count = rows.len();
    ui.vertical(|ui| {
        ui.set_width(width);
        widgets::section(ui, title);
        let last = count as f64 - 0.5;
        widgets::chart(ui, title, vec2(width, 150.0))
            .show_grid([false, true])
            .y_axis_min_width(48.0)
            .y_axis_formatter(move |mark, _| text(mark.value))
            .x_grid_spacer(move |_| marks(count))
            .x_axis_formatter({
                let names: Vec<String> = rows.iter().map(|row| row.batch_size.to_string()).collect();
                move |mark, _| names.get(mark.value.round() as usize).cloned().unwrap_or_default()
            })
            .include_x(-0.5)
            .include_x(last)
            .include_y(0.0)
            .show(ui, |plot| plot.bar_chart(BarChart::new(title, bars).allow_hover(false)));
    });
}

fn marks(count: usize) -> Vec<egui_plot::GridMark> {
    (0..count).map(|place| egui_plot::GridMark { value: place as f64, step_size: 1.0 }).collect()
}
