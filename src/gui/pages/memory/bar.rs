//! Where the memory is now, as two bars: the machine's, and what Galley has of it by who has it.

use egui::{Align, Color32, CornerRadius, Layout, Rect, RichText, Sense, Ui, vec2};

use super::Now;
use crate::format::bytes;
use crate::gui::theme::{Palette, STEP};
use crate::gui::widgets;
use crate::memory::Reading;

const HEIGHT: f32 = 18.0;

/// What may be told apart in the footprint.
const NAMES: [&str; 11] = [
    "Loaded models",
    "Thumbnails",
    "Weights",
    "Gradients",
    "Optimizer",
    "Activations",
    "Workspace",
    "Photos",
    "Features",
    "Answers",
    "Teacher",
];

/// One segment of a bar.
#[derive(Debug, Clone, PartialEq)]
struct Part {
    name: &'static str,
    bytes: u64,
    /// What of it is drawn.
    shown: u64,
    is_predicted: bool,
}

impl Part {
    fn measured(name: &'static str, bytes: u64) -> Self {
        Self { name, bytes, shown: bytes, is_predicted: false }
    }
}

pub fn bars_ui(ui: &mut Ui, now: &Now<'_>) {
    widgets::section(ui, "Where it is now");
    let Some(reading) = now.strip.latest() else { return };
    let Some(footprint) = reading.footprint else {
        return drop(widgets::note(ui, "This system does not tell what a process takes, so it cannot be shared out"));
    };
    let palette = Palette::of(ui);
    match Machine::of(reading, footprint) {
        Some(Machine { name, parts }) => {
            let total: u64 = parts.iter().map(|part| part.bytes).sum();
            heading_ui(ui, name, total);
            bar_ui(ui, &parts, &[palette.series[0], palette.edge, palette.surface_hovered], total);
        }
        None => drop(widgets::note(ui, "What this computer has in all is unknown here")),
    }
    ui.add_space(STEP);
    let shared = Shared::of(footprint, now);
    heading_ui(ui, "Galley's footprint", footprint);
    bar_ui(ui, &shared.parts, &colors(&shared.parts, &palette), footprint);
    if let Some(sentence) = shared.excess_sentence() {
        widgets::note(ui, sentence);
    }
}

fn heading_ui(ui: &mut Ui, name: &str, total: u64) {
    ui.label(RichText::new(format!("{name}: {}", bytes(total))));
}

/// What a computer or container has, and who has it: always the whole of it.
struct Machine {
    name: &'static str,
    parts: [Part; 3],
}

impl Machine {
    fn of(reading: &Reading, footprint: u64) -> Option<Self> {
        let (name, total, free) = match (reading.limit, reading.group_free) {
            (Some(limit), Some(free)) => ("This container", limit, free),
            _ => ("This computer", reading.system_total?, reading.system_available?),
        };
        let galley = footprint.min(total);
        // The system counts pages of files as free that may be Galley's too.
        let free = free.min(total - galley);
        let parts = [
            Part::measured("Galley", galley),
            Part::measured("Other programs and the system", total - galley - free),
            Part::measured("Free", free),
        ];
        Some(Self { name, parts })
    }
}

/// The footprint, shared out.
struct Shared {
    parts: Vec<Part>,
    /// By how much the parts together are more than the footprint.
    excess: u64,
}

impl Shared {
    fn of(footprint: u64, now: &Now<'_>) -> Self {
        let is_loading = now.shelved.iter().any(|shelved| shelved.is_loading);
        let models = Part { is_predicted: is_loading, ..Part::measured("Loaded models", now.model_bytes) };
        Self::share(footprint, vec![models, Part::measured("Thumbnails", now.thumbnail_bytes)], &now.predicted)
    }

    /// What is measured comes first. A job is seldom at its peak, so what is predicted is drawn smaller where it has no room.
    fn share(footprint: u64, measured: Vec<Part>, predicted: &[(&'static str, u64)]) -> Self {
        let mut parts: Vec<Part> = measured.into_iter().filter(|part| part.bytes > 0).collect();
        let mut room = footprint;
        for part in &mut parts {
            part.shown = part.bytes.min(room);
            room -= part.shown;
        }
        let expected: u64 = predicted.iter().map(|(_, bytes)| bytes).sum();
        let share = if expected > room { room as f64 / expected as f64 } else { 1.0 };
        parts.extend(predicted.iter().map(|&(name, bytes)| {
            let shown = (bytes as f64 * share) as u64;
            Part { name: capitalised(name), bytes, shown, is_predicted: true }
        }));
        let known: u64 = parts.iter().map(|part| part.bytes).sum();
        if let Some(rest) = footprint.checked_sub(known) {
            parts.push(Part::measured("Window, code and the rest", rest));
        }
        Self { parts, excess: known.saturating_sub(footprint) }
    }

    fn excess_sentence(&self) -> Option<String> {
        let excess = (self.excess > 0).then(|| bytes(self.excess))?;
        Some(match self.parts.iter().any(|part| part.is_predicted) {
            true => format!(
                "Together these are {excess} more than the footprint: what is predicted is for the job's peak, and drawn \
                 smaller here"
            ),
            false => format!(
                "Together these are {excess} more than the footprint: some of it lies outside of this process's memory"
            ),
        })
    }
}

/// The item of a plan as it begins a line.
fn capitalised(item: &'static str) -> &'static str {
    NAMES.into_iter().find(|name| name.eq_ignore_ascii_case(item)).unwrap_or(item)
}

/// Each part has its own color, whichever others there are; those after the last begin anew, paler.
fn colors(parts: &[Part], palette: &Palette) -> Vec<Color32> {
    let series = palette.series;
    let one = |part: &Part| match NAMES.iter().position(|name| *name == part.name) {
        Some(place) if place < series.len() => series[place],
        Some(place) => series[place % series.len()].gamma_multiply(0.6),
        None => palette.edge,
    };
    parts.iter().map(one).collect()
}

/// The segments side by side, and under them what each is.
fn bar_ui(ui: &mut Ui, parts: &[Part], colors: &[Color32], total: u64) {
    let (whole, _) = ui.allocate_exact_size(vec2(ui.available_width(), HEIGHT), Sense::empty());
    ui.painter().rect_filled(whole, CornerRadius::same(3), Palette::of(ui).surface_hovered);
    let mut left = whole.left();
    for (place, (part, color)) in parts.iter().zip(colors).enumerate() {
        let width = whole.width() * (part.shown as f64 / total.max(1) as f64) as f32;
        let rect = Rect::from_min_size(egui::pos2(left, whole.top()), vec2(width, HEIGHT));
        left += width;
        ui.painter().rect_filled(rect, CornerRadius::ZERO, *color);
        let id = ui.scope_id().with(("part", parts[0].name, place));
        ui.interact(rect, id, Sense::hover()).on_hover_text(text(part));
    }
    ui.spacing_mut().item_spacing.y = 2.0;
    for (part, color) in parts.iter().zip(colors) {
        let size = vec2(ui.available_width(), 18.0);
        ui.allocate_ui_with_layout(size, Layout::left_to_right(Align::Center), |ui| {
            let (rect, _) = ui.allocate_exact_size(vec2(10.0, 10.0), Sense::empty());
            ui.painter().rect_filled(rect, CornerRadius::same(2), *color);
            ui.label(text(part));
        });
    }
}

fn text(part: &Part) -> String {
    let predicted = if part.is_predicted { " (predicted)" } else { "" };
    format!("{}: {}{predicted}", part.name, bytes(part.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(shared: &Shared) -> Vec<(&'static str, u64)> {
        shared.parts.iter().map(|part| (part.name, part.shown)).collect()
    }

    #[test]
    fn the_footprint_is_shared_out_to_the_last_byte() {
        let models = || vec![Part::measured("Loaded models", 20), Part::measured("Thumbnails", 0)];
        let shared = Shared::share(100, models(), &[("weights", 30), ("photos", 10)]);
        let rest = "Window, code and the rest";
        assert_eq!(shown(&shared), [("Loaded models", 20), ("Weights", 30), ("Photos", 10), (rest, 40)]);
        assert_eq!(shared.excess_sentence(), None);
        assert_eq!(shown(&Shared::share(100, models(), &[])), [("Loaded models", 20), (rest, 80)]);
    }

    #[test]
    fn every_item_of_a_plan_has_a_name_and_a_color_of_its_own() {
        let items = crate::memory::Plan::default().items().map(|(name, _)| (name, 1));
        let shared =
            Shared::share(100, vec![Part::measured("Loaded models", 1), Part::measured("Thumbnails", 1)], &items);
        let mut colors: Vec<[u8; 4]> =
            colors(&shared.parts, &Palette::for_theme(false)).into_iter().map(|color| color.to_array()).collect();
        assert!(shared.parts.iter().all(|part| part.name.starts_with(char::is_uppercase)));
        colors.sort_unstable();
        colors.dedup();
        assert_eq!(colors.len(), shared.parts.len());
    }

    #[test]
    fn parts_that_are_more_than_the_footprint_say_so_and_still_fit_the_bar() {
        let models = vec![Part::measured("Loaded models", 20)];
        let shared = Shared::share(100, models, &[("weights", 120), ("photos", 40)]);
        assert_eq!(shown(&shared), [("Loaded models", 20), ("Weights", 60), ("Photos", 20)]);
        assert!(shared.excess_sentence().unwrap().contains("80 B more than the footprint"));
        let outside = Shared::share(10, vec![Part::measured("Thumbnails", 25)], &[]);
        assert_eq!((shown(&outside), outside.excess), (vec![("Thumbnails", 10)], 15));
        assert!(!outside.excess_sentence().unwrap().contains("predicted"));
    }

    #[test]
    fn the_bar_of_the_machine_is_always_whole_and_a_container_is_the_machine() {
        let reading = Reading { system_total: Some(1000), system_available: Some(600), ..Reading::default() };
        let of = |reading, footprint| {
            let machine = Machine::of(&reading, footprint)?;
            Some((machine.name, machine.parts.map(|part| part.bytes)))
        };
        assert_eq!(of(reading, 100), Some(("This computer", [100, 300, 600])));
        assert_eq!(of(reading, 700), Some(("This computer", [700, 0, 300])));
        let inside = Reading { limit: Some(400), group_free: Some(250), ..reading };
        assert_eq!(of(inside, 100), Some(("This container", [100, 50, 250])));
        assert_eq!(of(Reading::default(), 100), None, "unknown is no bar");
    }
}
