//! The memory strip: what this process uses, once a second, as figures and as a plot of the last two minutes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use egui::{Align, Align2, Color32, FontId, Layout, RichText, Ui, pos2};
use egui_plot::{HLine, Line, LineStyle, PlotPoints, VLine};

use super::theme::{self, Palette, STEP};
use super::widgets;
use crate::device::Chosen;
use crate::format;
use crate::jobs::flush::{self, DeviceUse};
use crate::memory::{self, Allowance, Budget, Pressure, Reading};

const INTERVAL: Duration = Duration::from_secs(1);
pub const SECONDS: usize = 120;

/// A phase of training that ends sooner has no line of its own.
const SHORTEST_PHASE: Duration = Duration::from_secs(4);

/// Height of the strip's contents.
pub const HEIGHT: f32 = 64.0;

/// What was read at one time.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    at: Instant,
    pub reading: Reading,
    pub pressure: Option<Pressure>,
    pub device: Option<DeviceUse>,
}

impl Moment {
    /// What a job that begins may take.
    pub fn budget(&self) -> Option<Budget> {
        Allowance::default().budget(&self.reading, self.device.map(|device| device.free))
    }
}

/// The readings of the last two minutes.
#[derive(Default)]
pub struct Strip {
    moments: VecDeque<Moment>,
    /// What training did, each from its beginning on; `None` when it ended.
    phases: VecDeque<(Instant, Option<String>)>,
}

impl Strip {
    /// Notes what training does, and takes a reading when the last one is a second old. `chosen` is the device that
    /// computes, once it is known.
    pub fn sample(&mut self, phase: Option<String>, chosen: Option<&Chosen>) {
        self.enter(Instant::now(), phase);
        // A wake-up that comes a little early must not cost a whole further second.
        let due = INTERVAL.saturating_sub(Duration::from_millis(20));
        if self.moments.back().is_none_or(|moment| moment.at.elapsed() >= due) {
            self.read(chosen);
        }
    }

    /// Takes a reading now.
    pub fn read(&mut self, chosen: Option<&Chosen>) -> Reading {
        let reading = memory::read();
        let (pressure, device) = (memory::strain().pressure, chosen.and_then(flush::device_use));
        self.push(Moment { at: Instant::now(), reading, pressure, device });
        reading
    }

    fn enter(&mut self, now: Instant, phase: Option<String>) {
        let before = self.phases.back().and_then(|(_, before)| before.as_ref());
        if before != phase.as_ref() {
            // Lines nearer than that would be a wall.
            let is_brief = |(since, _): &(Instant, Option<String>)| now.duration_since(*since) < SHORTEST_PHASE;
            match self.phases.back_mut().filter(|last| is_brief(last)) {
                Some(last) => last.1 = phase,
                None => self.phases.push_back((now, phase)),
            }
        }
        let window = Duration::from_secs(SECONDS as u64);
        // The one that began before the window still holds at its left edge.
        while self.phases.get(1).is_some_and(|(since, _)| now.duration_since(*since) > window) {
            self.phases.pop_front();
        }
    }

    fn push(&mut self, moment: Moment) {
        self.moments.push_back(moment);
        let window = Duration::from_secs(SECONDS as u64);
        while self.moments.front().is_some_and(|first| moment.at.duration_since(first.at) > window) {
            self.moments.pop_front();
        }
    }

    /// The latest reading.
    pub fn latest(&self) -> Option<&Reading> {
        self.latest_moment().map(|moment| &moment.reading)
    }

    pub fn latest_moment(&self) -> Option<&Moment> {
        self.moments.back()
    }

    /// Draws the strip across the width of `ui`, and asks for the next frame in a second.
    pub fn ui(&self, ui: &mut Ui) {
        ui.request_repaint_after(INTERVAL);
        let Some(latest) = self.latest_moment() else { return };
        ui.horizontal_centered(|ui| {
            ui.spacing_mut().item_spacing.x = STEP * 3.0;
            if let Some((_, Some(phase))) = self.phases.back() {
                figure_ui(ui, "training", phase, "What the run is doing; the lines in the plot are where it began");
            }
            for (name, value, what) in figures(&latest.reading) {
                figure_ui(ui, name, &value, what);
            }
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| self.plot_ui(ui, latest));
        });
    }

    fn plot_ui(&self, ui: &mut Ui, latest: &Moment) {
        let palette = Palette::of(ui);
        let footprint = self.series(|moment| moment.reading.footprint);
        let heap = self.series(|moment| Some(moment.reading.heap_live));
        let budget = latest.budget().map(|budget| budget.bytes);
        let scale = Scale::new(footprint.iter().chain(&heap).map(|point| point[1]), budget);
        let plot = widgets::still_plot("memory of the last two minutes")
            .height(HEIGHT - 8.0)
            .width(ui.available_width().min(360.0))
            .default_x_bounds(-(SECONDS as f64), 0.0)
            .default_y_bounds(0.0, scale.top);
        let response = plot.show(ui, |plot| {
            plot.set_plot_bounds_x(-(SECONDS as f64)..=0.0);
            plot.set_plot_bounds_y(0.0..=scale.top);
            let line = |name: &str, points, color| Line::new(name, PlotPoints::from(points)).color(color).width(1.5);
            plot.line(line("heap live", heap, palette.secondary));
            plot.line(line("footprint", footprint, palette.accent_line).fill(0.0));
            for (at, _) in self.phase_starts() {
                plot.vline(VLine::new("phase", at).color(palette.edge).width(1.0));
            }
            if let Some(at) = scale.budget_at {
                plot.hline(HLine::new("budget", at).color(palette.warning).style(LineStyle::dashed_dense()));
            }
        });
        let rect = response.response.rect;
        caption_ui(ui, rect, &scale.caption, palette.secondary);
        self.phases_ui(ui, rect, palette.secondary);
    }

    /// Seconds before the latest reading, and what began then; nothing began where training ended.
    fn phase_starts(&self) -> impl Iterator<Item = (f64, &str)> {
        let now = self.moments.back().map(|latest| latest.at);
        self.phases.iter().filter_map(move |(since, phase)| {
            let ago = now?.saturating_duration_since(*since).as_secs_f64();
            Some((-ago.min(SECONDS as f64), phase.as_deref().unwrap_or_default()))
        })
    }

    /// The names of the phases under their lines, where they have room.
    fn phases_ui(&self, ui: &Ui, rect: egui::Rect, color: Color32) {
        let starts: Vec<(f64, &str)> = self.phase_starts().collect();
        let x = |at: f64| rect.left() + rect.width() * (1.0 + at / SECONDS as f64) as f32;
        for (place, (at, name)) in starts.iter().enumerate() {
            let end = starts.get(place + 1).map_or(rect.right(), |(next, _)| x(*next));
            let text = widgets::one_line(ui, name, FontId::proportional(9.0), color, f32::INFINITY);
            if text.size().x + 6.0 <= end - x(*at) {
                ui.painter().galley(pos2(x(*at) + 3.0, rect.bottom() - text.size().y - 1.0), text, color);
            }
        }
    }

    /// Seconds before the latest reading, and a figure that was had then.
    pub fn series(&self, figure: impl Fn(&Moment) -> Option<u64>) -> Vec<[f64; 2]> {
        let Some(now) = self.moments.back().map(|latest| latest.at) else { return Vec::new() };
        let ago = |moment: &Moment| -now.duration_since(moment.at).as_secs_f64();
        self.moments.iter().filter_map(|moment| Some([ago(moment), figure(moment)? as f64])).collect()
    }
}

/// The plot's height in bytes, and where the budget line goes.
struct Scale {
    top: f64,
    budget_at: Option<f64>,
    caption: String,
}

impl Scale {
    fn new(values: impl Iterator<Item = f64>, budget: Option<u64>) -> Self {
        let highest = values.fold(1e6, f64::max);
        let Some(budget) = budget else {
            return Self { top: highest * 1.25, budget_at: None, caption: "budget unknown".to_owned() };
        };
        let caption = format!("budget {}", format::bytes(budget));
        // A budget far above the use would flatten the curve: its line then lies at the top edge, and says so.
        if budget as f64 <= highest * 4.0 {
            let top = (budget as f64).max(highest) * 1.15;
            Self { top, budget_at: Some(budget as f64), caption }
        } else {
            let top = highest * 1.6;
            Self { top, budget_at: Some(top * 0.985), caption: format!("{caption}, above this scale") }
        }
    }
}

fn caption_ui(ui: &Ui, rect: egui::Rect, caption: &str, color: Color32) {
    let font = FontId::proportional(10.0);
    ui.painter().text(pos2(rect.right() - 4.0, rect.top() + 4.0), Align2::RIGHT_TOP, caption, font.clone(), color);
    ui.painter().text(pos2(rect.left() + 4.0, rect.top() + 4.0), Align2::LEFT_TOP, "2 min", font, color);
}

fn figure_ui(ui: &mut Ui, name: &str, value: &str, what: &str) {
    let secondary = Palette::of(ui).secondary;
    let text = format!("{name}: {value}");
    let response = ui.vertical(|ui| {
        ui.spacing_mut().item_spacing.y = 2.0;
        ui.add_space((HEIGHT - 34.0) / 2.0);
        ui.label(RichText::new(value).font(theme::strong(13.0)));
        ui.label(RichText::new(name).small().color(secondary));
    });
    response.response.on_hover_text(format!("{text}. {what}"));
}

/// Name, value and meaning of each figure, in the order of the strip.
fn figures(reading: &Reading) -> Vec<(&'static str, String, &'static str)> {
    let known = format::bytes_or_unknown;
    let mut figures = vec![
        ("footprint", known(reading.footprint), "What the system charges this process"),
        ("peak", known(reading.peak), "The highest since the start"),
        ("heap live", format::bytes(reading.heap_live), "Allocated by Galley and not freed yet"),
        ("heap peak", format::bytes(reading.heap_peak), "The most the heap has held"),
        ("available", known(reading.system_available), "What the system could give without swapping"),
    ];
    if reading.limit.is_some() {
        figures.push(("limit", known(reading.limit), "What the container allows this process"));
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(at: Instant, reading: Reading) -> Moment {
        Moment { at, reading, pressure: None, device: None }
    }

    #[test]
    fn readings_older_than_two_minutes_leave() {
        let mut strip = Strip::default();
        let start = Instant::now();
        for second in 0..300 {
            let reading = Reading { heap_live: second, ..Reading::default() };
            strip.push(moment(start + Duration::from_secs(second), reading));
        }
        let series = strip.series(|moment| Some(moment.reading.heap_live));
        assert_eq!((series.len(), series[0], series[120]), (121, [-120.0, 179.0], [0.0, 299.0]));
        assert!(strip.series(|moment| moment.reading.footprint).is_empty(), "unknown is no point, not 0");
    }

    #[test]
    fn phases_last_until_the_next_and_brief_ones_give_way() {
        let (mut strip, start) = (Strip::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        strip.push(moment(at(200), Reading::default()));
        for (second, phase) in [(1, "Reading"), (10, "Epoch 1"), (100, "Validating"), (102, "Epoch 2"), (150, "Saving")]
        {
            strip.enter(at(second), Some(phase.to_owned()));
        }
        strip.enter(at(190), None);
        strip.enter(at(195), None);
        let starts: Vec<_> = strip.phase_starts().collect();
        assert_eq!(starts, [(-120.0, "Epoch 1"), (-100.0, "Epoch 2"), (-50.0, "Saving"), (-10.0, "")]);
    }

    #[test]
    fn a_near_budget_is_drawn_to_scale_and_a_far_one_says_that_it_is_not() {
        let near = Scale::new([100e6, 50e6].into_iter(), Some(200_000_000));
        assert_eq!(near.budget_at, Some(200e6));
        assert!(near.top > 200e6);
        let far = Scale::new([100e6].into_iter(), Some(60_000_000_000));
        assert!(far.top < 200e6 && far.budget_at.unwrap() < far.top);
        assert!(far.caption.contains("above"), "{}", far.caption);
        assert_eq!(Scale::new([].into_iter(), None).caption, "budget unknown");
    }

    #[test]
    fn a_figure_that_cannot_be_had_is_unknown() {
        let figures = figures(&Reading::default());
        assert_eq!(figures[0].1, "unknown");
        assert!(figures.iter().all(|(name, ..)| *name != "limit"));
    }
}
