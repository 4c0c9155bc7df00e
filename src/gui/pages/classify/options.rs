//! How the next run classifies. The threshold also sorts the photos that are there already.

use egui::{ComboBox, DragValue, Slider, Ui};

use crate::gui::theme;
use crate::gui::widgets;
use crate::jobs::classify::ClassifyConfig;
use crate::predict::Precision;

/// Leaves room for the number beside it.
const SLIDER_WIDTH: f32 = 200.0;

pub fn options_ui(ui: &mut Ui, config: &mut ClassifyConfig) {
    widgets::section(ui, "Options");
    ui.horizontal(|ui| {
        let label = ui.label("Classes kept per photo");
        ui.add(DragValue::new(&mut config.top_k).range(1..=1000)).labelled_by(label.id);
    });
    slider_ui(ui, "Batch size", "Photos computed together. Larger is faster, and takes more memory", |ui, id| {
        ui.add(Slider::new(&mut config.batch_size, 1..=1024).logarithmic(true)).labelled_by(id)
    });
    slider_ui(ui, "Unsure below", "Photos whose best class is less likely than this count as unsure", |ui, id| {
        let percent = |value: f64, _: std::ops::RangeInclusive<usize>| format!("{:.0} %", value * 100.0);
        let parse = |text: &str| Some(text.trim_end_matches(['%', ' ']).parse::<f64>().ok()? / 100.0);
        let slider = Slider::new(&mut config.threshold, 0.0..=1.0).step_by(0.01);
        ui.add(slider.custom_formatter(percent).custom_parser(parse)).labelled_by(id)
    });
    precision_ui(ui, config);
    ui.checkbox(&mut config.fresh, "Predict everything anew")
        .on_hover_text("Otherwise photos that were classified before with this model are taken from the journal");
}

/// What the model's weights are held in.
fn precision_ui(ui: &mut Ui, config: &mut ClassifyConfig) {
    const CHOICES: [(Precision, &str); 4] = [
        (Precision::Stored, "As the file has them"),
        (Precision::F32, "32 bits"),
        (Precision::Int8, "8 bits"),
        (Precision::Int4, "4 bits"),
    ];
    let chosen = CHOICES.iter().find(|(precision, _)| *precision == config.precision).map_or("", |(_, name)| name);
    ui.horizontal(|ui| {
        let what = "Fewer bits take less memory and are faster, for a little less accuracy. The file stays as it is";
        ui.label("Weights held in").on_hover_text(what);
        let combo = ComboBox::from_id_salt("precision").selected_text(chosen).show_ui(ui, |ui| {
            for (precision, name) in CHOICES {
                ui.selectable_value(&mut config.precision, precision, name);
            }
        });
        widgets::name_combo(&combo.response, "Weights held in", chosen);
    });
}

fn slider_ui(ui: &mut Ui, name: &str, what: &str, add_slider: impl FnOnce(&mut Ui, egui::Id) -> egui::Response) {
    let label = ui.label(name).on_hover_text(what);
    ui.scope(|ui| {
        let spacing = ui.spacing_mut();
        // The handle takes its size from the height of a control: a full one is clumsy.
        (spacing.slider_width, spacing.interact_size.y) = (SLIDER_WIDTH, theme::HANDLE);
        add_slider(ui, label.id);
    });
}
