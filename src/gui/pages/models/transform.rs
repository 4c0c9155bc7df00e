//! The input transform, part by part: each comes from the checkpoint until a person sets it.

use egui::{ComboBox, DragValue, Ui};
use lucide_icons::Icon;

use crate::gui::widgets::{self, Weight};
use crate::images::transform::{Interpolation, Resize, Transform};
use crate::predict::{self, TransformOverrides};

/// One line: `shorter side 256 (bilinear), center crop 224`.
pub fn summary(transform: &Transform) -> String {
    let resize = match transform.resize {
        Resize::ShortSide(side) => format!("shorter side {side}"),
        Resize::Exact { height, width } => format!("exactly {width} × {height}"),
    };
    let crop = transform.crop.map_or_else(|| "no crop".to_owned(), |side| format!("center crop {side}"));
    format!("{resize} ({}), {crop}", interpolation_name(transform.interpolation).to_lowercase())
}

/// Draws the editor. `own` is what the checkpoint says, or its architecture's default.
pub fn transform_ui(ui: &mut Ui, overrides: &mut TransformOverrides, own: &Transform) {
    let shown = effective(own, overrides);
    let own_crop = crop_unless_set(own, overrides);
    let mut edited = shown;
    ui.horizontal(|ui| {
        widgets::section(ui, "Input transform");
        let changed = *overrides != TransformOverrides::default();
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            let reset = |ui: &mut Ui| widgets::button(ui, Weight::Quiet, Icon::RotateCcw, "Reset to the checkpoint's");
            if ui.add_enabled_ui(changed, reset).inner.clicked() {
                *overrides = TransformOverrides::default();
                edited = *own;
            }
        });
    });
    row(ui, "Resize", |ui| resize_ui(ui, &mut edited.resize));
    row(ui, "Center crop", |ui| crop_ui(ui, &mut edited.crop, own_crop));
    row(ui, "Interpolation", |ui| interpolation_ui(ui, &mut edited.interpolation));
    row(ui, "Mean", |ui| channels_ui(ui, "Mean", &mut edited.mean, 0.0));
    row(ui, "Standard deviation", |ui| channels_ui(ui, "Standard deviation", &mut edited.std, 0.001));
    take_changes(overrides, own, &shown, &edited);
}

/// The transform a run uses; the checkpoint's own where the overrides make none.
fn effective(own: &Transform, overrides: &TransformOverrides) -> Transform {
    predict::overridden(*own, overrides).map_or(*own, |(transform, _)| transform)
}

/// The crop while none is set: the checkpoint's own, as far as the resize leaves room for it.
fn crop_unless_set(own: &Transform, overrides: &TransformOverrides) -> Option<u32> {
    effective(own, &TransformOverrides { crop: None, ..*overrides }).crop
}

/// What differs from the checkpoint's own is an override; what is back at it is none. A crop that only followed the
/// resize is none either.
fn take_changes(overrides: &mut TransformOverrides, own: &Transform, shown: &Transform, edited: &Transform) {
    fn changed<T: PartialEq + Copy>(own: T, edited: T) -> Option<T> {
        (own != edited).then_some(edited)
    }
    overrides.resize = changed(own.resize, edited.resize);
    overrides.interpolation = changed(own.interpolation, edited.interpolation);
    overrides.mean = changed(own.mean, edited.mean);
    overrides.std = changed(own.std, edited.std);
    if edited.crop != shown.crop {
        overrides.crop = changed(crop_unless_set(own, overrides), edited.crop).flatten();
    } else if overrides.resize.is_none() {
        overrides.crop = overrides.crop.filter(|crop| Some(*crop) != own.crop);
    }
}

fn row(ui: &mut Ui, name: &str, add_fields: impl FnOnce(&mut Ui)) {
    ui.horizontal(|ui| {
        let (rect, _) = ui.allocate_exact_size(egui::vec2(128.0, 28.0), egui::Sense::empty());
        let color = ui.visuals().weak_text_color.unwrap_or(ui.visuals().text_color());
        let at = egui::pos2(rect.left(), rect.center().y);
        ui.painter().text(at, egui::Align2::LEFT_CENTER, name, egui::FontId::proportional(13.0), color);
        add_fields(ui);
    });
}

fn resize_ui(ui: &mut Ui, resize: &mut Resize) {
    let side = match *resize {
        Resize::ShortSide(side) => side,
        Resize::Exact { height, .. } => height,
    };
    let exact = matches!(resize, Resize::Exact { .. });
    let text = if exact { "Exact size" } else { "Shorter side" };
    let combo = ComboBox::from_id_salt("resize").selected_text(text).width(120.0).show_ui(ui, |ui| {
        if ui.selectable_label(!exact, "Shorter side").clicked() {
            *resize = Resize::ShortSide(side);
        }
        if ui.selectable_label(exact, "Exact size").clicked() {
            *resize = Resize::Exact { height: side, width: side };
        }
    });
    widgets::name_combo(&combo.response, "Resize", text);
    match resize {
        Resize::ShortSide(side) => drop(pixels(ui, "Shorter side", side)),
        Resize::Exact { height, width } => {
            pixels(ui, "Width", width);
            ui.label("×");
            pixels(ui, "Height", height);
        }
    }
}

fn crop_ui(ui: &mut Ui, crop: &mut Option<u32>, own: Option<u32>) {
    // A crop that the checkpoint asks for can be changed but not taken away.
    match (crop.as_mut(), own) {
        (Some(side), Some(_)) => drop(pixels(ui, "Center crop", side)),
        _ => {
            let mut on = crop.is_some();
            ui.checkbox(&mut on, "Crop the middle");
            *crop = on.then(|| crop.unwrap_or(224));
            if let Some(side) = crop {
                pixels(ui, "Center crop", side);
            }
        }
    }
}

fn interpolation_ui(ui: &mut Ui, interpolation: &mut Interpolation) {
    let text = interpolation_name(*interpolation);
    let combo = ComboBox::from_id_salt("interpolation").selected_text(text).width(120.0).show_ui(ui, |ui| {
        for choice in [Interpolation::Bilinear, Interpolation::Bicubic] {
            ui.selectable_value(interpolation, choice, interpolation_name(choice));
        }
    });
    widgets::name_combo(&combo.response, "Interpolation", text);
}

fn interpolation_name(interpolation: Interpolation) -> &'static str {
    match interpolation {
        Interpolation::Bilinear => "Bilinear",
        Interpolation::Bicubic => "Bicubic",
    }
}

fn channels_ui(ui: &mut Ui, name: &str, values: &mut [f32; 3], least: f32) {
    for (value, channel) in values.iter_mut().zip(["red", "green", "blue"]) {
        let field = DragValue::new(value).range(least..=10.0).speed(0.001).fixed_decimals(3);
        ui.add(field).on_hover_text(format!("{name}, {channel}"));
    }
}

fn pixels(ui: &mut Ui, name: &str, side: &mut u32) -> egui::Response {
    ui.add(DragValue::new(side).range(1..=4096).speed(1.0).suffix(" px")).on_hover_text(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_from_the_checkpoint_is_an_override() {
        let own = Transform::default();
        let mut overrides = TransformOverrides::default();
        let edited = Transform { crop: Some(200), mean: [0.5; 3], ..own };
        take_changes(&mut overrides, &own, &own, &edited);
        let expected = TransformOverrides { crop: Some(200), mean: Some([0.5; 3]), ..Default::default() };
        assert_eq!(overrides, expected);
        assert_eq!(effective(&own, &overrides), edited);
        take_changes(&mut overrides, &own, &edited, &own);
        assert_eq!(overrides, TransformOverrides::default());
    }

    #[test]
    fn a_crop_that_follows_the_resize_is_no_override() {
        let own = Transform::default();
        let mut overrides = TransformOverrides::default();
        take_changes(&mut overrides, &own, &own, &Transform { resize: Resize::ShortSide(128), ..own });
        let small = effective(&own, &overrides);
        assert_eq!((small.crop, overrides.crop), (Some(128), None));
        take_changes(&mut overrides, &own, &small, &small);
        assert_eq!(overrides, TransformOverrides { resize: Some(Resize::ShortSide(128)), ..Default::default() });
        take_changes(&mut overrides, &own, &small, &Transform { crop: Some(224), ..small });
        assert_eq!(overrides.crop, Some(224));
        let large = effective(&own, &overrides);
        take_changes(&mut overrides, &own, &large, &Transform { resize: own.resize, ..large });
        assert_eq!(overrides, TransformOverrides::default());
    }

    #[test]
    fn a_summary_is_one_readable_line() {
        assert_eq!(summary(&Transform::default()), "shorter side 256 (bilinear), center crop 224");
    }
}
