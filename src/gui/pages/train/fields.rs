//! Controls for the fields of a config: each with its name above it, and what it is for when the pointer rests on it.

use egui::{DragValue, RichText, Slider, Ui, emath::Numeric};

use crate::gui::theme::{self, Palette};
use crate::gui::widgets;

/// Leaves room for the number beside it.
const SLIDER_WIDTH: f32 = 188.0;

/// The scale of a slider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    Linear,
    /// Small numbers matter as much as large ones. Zero is its left end.
    Logarithmic,
}

pub fn slider<N: Numeric>(
    ui: &mut Ui,
    name: &str,
    what: &str,
    value: &mut N,
    range: std::ops::RangeInclusive<N>,
    scale: Scale,
) {
    let label = ui.label(name).on_hover_text(what);
    bare_slider(ui, label.id, value, range, scale);
}

fn bare_slider<N: Numeric>(
    ui: &mut Ui,
    label: egui::Id,
    value: &mut N,
    range: std::ops::RangeInclusive<N>,
    scale: Scale,
) {
    ui.scope(|ui| {
        let spacing = ui.spacing_mut();
        // The handle takes its size from the height of a control: a full one is clumsy.
        (spacing.slider_width, spacing.interact_size.y) = (SLIDER_WIDTH, theme::HANDLE);
        let mut slider = Slider::new(value, range).logarithmic(scale == Scale::Logarithmic);
        if !N::INTEGRAL {
            slider = slider.smallest_positive(1e-6).custom_formatter(|value, _| short(value));
        }
        ui.add(slider).labelled_by(label);
    });
}

/// A number with three significant digits.
fn short(value: f64) -> String {
    if value == 0.0 || value.abs() >= 1e-3 {
        let text = format!("{:.*}", if value.abs() < 0.1 { 4 } else { 2 }, value);
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    format!("{value:.1e}")
}

/// A value that may be left to Galley: `otherwise` says what then holds, and `first` is where a choice begins.
pub fn optional<N: Numeric>(
    ui: &mut Ui,
    name: &str,
    (what, otherwise): (&str, &str),
    value: &mut Option<N>,
    first: N,
    range: std::ops::RangeInclusive<N>,
) {
    let mut chosen = value.is_some();
    let check = ui.horizontal(|ui| {
        ui.spacing_mut().interact_size.y = theme::HANDLE;
        let check = ui.checkbox(&mut chosen, name).on_hover_text(what);
        if !chosen {
            let text = RichText::new(otherwise).small().color(Palette::of(ui).secondary);
            ui.add(egui::Label::new(text).truncate());
        }
        check
    });
    if check.inner.changed() {
        *value = chosen.then_some(first);
    }
    if let Some(value) = value {
        bare_slider(ui, check.inner.id, value, range, Scale::Logarithmic);
    }
}

/// A number that is typed or dragged, for what has no natural end.
pub fn number<N: Numeric>(ui: &mut Ui, name: &str, what: &str, value: &mut N, range: std::ops::RangeInclusive<N>) {
    ui.horizontal(|ui| {
        let label = ui.label(name).on_hover_text(what);
        let speed = if N::INTEGRAL { 0.2 } else { 0.01 };
        ui.add(DragValue::new(value).range(range).speed(speed)).labelled_by(label.id);
    });
}

/// One of a few choices, side by side.
pub fn choice<T: PartialEq + Copy>(ui: &mut Ui, name: &str, what: &str, value: &mut T, choices: &[(T, &str, &str)]) {
    ui.label(name).on_hover_text(what);
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = 4.0;
        for (choice, text, meaning) in choices {
            if widgets::toggle(ui, *value == *choice, text).on_hover_text(*meaning).clicked() {
                *value = *choice;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn numbers_are_short_whatever_their_size() {
        let texts = [0.0, 0.0003, 1e-6, 0.05, 0.0125, 0.35, 1.0, 12.5].map(short);
        assert_eq!(texts, ["0", "3.0e-4", "1.0e-6", "0.05", "0.0125", "0.35", "1", "12.5"]);
    }
}
