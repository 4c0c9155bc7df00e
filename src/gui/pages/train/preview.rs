//! Photos as training will see them: unchanged, and as each epoch changes them.

use std::path::PathBuf;

use egui::{ColorImage, Context, CornerRadius, RichText, ScrollArea, TextureHandle, TextureOptions, Ui, vec2};
use lucide_icons::Icon;

use super::photos::Photos;
use crate::gui::theme::{Palette, RADIUS, STEP};
use crate::gui::widgets;
use crate::images::Picture;
use crate::jobs::train::{self, Previewed};
use crate::train::TrainConfig;
use crate::worker::{Job, Outcome};

/// Photos shown, and epochs of each.
const PHOTOS: usize = 5;
const EPOCHS: u64 = 5;

type Work = Job<Vec<Previewed>, ()>;

/// The pictures as last asked for.
#[derive(Default)]
pub struct Preview {
    asked: Option<(TrainConfig, Vec<(usize, PathBuf)>)>,
    shown: Vec<(PathBuf, Result<Vec<TextureHandle>, String>)>,
    problem: Option<String>,
    job: Option<Work>,
}

impl Preview {
    /// Takes finished pictures, and asks for those of other settings. Only while they are looked at or under way.
    pub fn poll(&mut self, config: &TrainConfig, photos: &Photos, ctx: &Context) {
        if let Some(outcome) = self.job.as_mut().and_then(Job::take_outcome) {
            self.job = None;
            self.take(outcome, ctx);
        }
        let examples = photos.examples(PHOTOS);
        // The newest wish waits until the one before is done: these are a few pictures.
        if self.job.is_some() || examples.is_empty() {
            return;
        }
        let asked = (only_what_shows(config), examples);
        if self.asked.as_ref() == Some(&asked) {
            return;
        }
        self.asked = Some(asked.clone());
        let wake = ctx.clone();
        let work = move |job: &_, _: &_| train::preview(&asked.0, &asked.1, EPOCHS, job);
        match Job::start("preview", move || crate::gui::wake(&wake), work) {
            Ok(job) => self.job = Some(job),
            Err(error) => self.problem = Some(error.to_string()),
        }
    }

    fn take(&mut self, outcome: Outcome<Vec<Previewed>>, ctx: &Context) {
        match outcome {
            Outcome::Finished(previewed) => {
                let upload = |picture: &Picture| {
                    let size = [picture.width as usize, picture.height as usize];
                    ctx.load_texture("preview", ColorImage::from_rgb(size, &picture.rgb), TextureOptions::LINEAR)
                };
                let one = |one: Previewed| (one.path, one.pictures.map(|all| all.iter().map(upload).collect()));
                self.shown = previewed.into_iter().map(one).collect();
                self.problem = None;
            }
            Outcome::Canceled => {}
            Outcome::Failed(error) => self.problem = Some(crate::format::error_chain(&*error)),
        }
    }

    pub fn is_working(&self) -> bool {
        self.job.is_some()
    }
}

/// The settings that change pictures: another batch size must not ask for the same ones again.
fn only_what_shows(config: &TrainConfig) -> TrainConfig {
    let TrainConfig { augment, seed, image_size, model, .. } = config.clone();
    TrainConfig { augment, seed, image_size, model, ..TrainConfig::default() }
}

pub fn preview_ui(ui: &mut Ui, preview: &Preview, photos: &Photos) {
    if !photos.are_usable() {
        let text = "Choose photos first: some of them are shown here as training will see them";
        return widgets::empty_state(ui, Icon::Shuffle, "Nothing to show yet", text, |_| ());
    }
    let palette = Palette::of(ui);
    widgets::note(
        ui,
        "The photo as it is, then as the first epochs see it. Random changes are set under More on the right; \
                       mixing of photos is not shown",
    );
    if let Some(problem) = &preview.problem {
        widgets::alert(ui, Icon::CircleAlert, palette.error, problem);
    }
    ScrollArea::vertical().id_salt("preview").auto_shrink(false).show(ui, |ui| {
        const GAP: f32 = 6.0;
        let columns = EPOCHS as f32 + 1.0;
        let side = ((ui.available_width() - STEP - GAP * (columns - 1.0)) / columns).clamp(40.0, 160.0);
        ui.spacing_mut().item_spacing = vec2(GAP, GAP);
        headings_ui(ui, side);
        for (path, pictures) in &preview.shown {
            ui.horizontal(|ui| match pictures {
                Err(reason) => drop(widgets::note(ui, format!("{}: {reason}", path.display()))),
                Ok(pictures) => {
                    for texture in pictures {
                        let image = egui::Image::new(texture).fit_to_exact_size(vec2(side, side));
                        ui.add(image.corner_radius(CornerRadius::same(RADIUS)))
                            .on_hover_text(path.display().to_string());
                    }
                }
            });
        }
    });
}

fn headings_ui(ui: &mut Ui, side: f32) {
    let secondary = Palette::of(ui).secondary;
    ui.horizontal(|ui| {
        for column in 0..=EPOCHS {
            let text = if column == 0 { "As it is".to_owned() } else { format!("Epoch {column}") };
            ui.allocate_ui(vec2(side, 16.0), |ui| {
                ui.set_width(side);
                ui.label(RichText::new(text).small().color(secondary));
            });
        }
    });
}
