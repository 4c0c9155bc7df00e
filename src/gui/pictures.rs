//! Photos as they are drawn on every page: small ones that fill a frame, and one that is shown as a whole.

use std::path::Path;

use egui::{Align2, CornerRadius, Rect, Sense, Ui, Vec2, pos2, vec2};
use lucide_icons::Icon;

use super::textures::{Sight, Textures};
use super::theme::{self, Palette, RADIUS};
use crate::jobs::thumbnails::Wish;

/// Longest side of the picture that is shown as a whole, in pixels.
const WHOLE: u32 = 544;

/// The middle part of a photo that fills `rect`. `side` is the picture's longest side in pixels.
pub fn filling_ui(ui: &Ui, rect: Rect, path: &Path, side: u32, textures: &mut Textures) {
    let palette = Palette::of(ui);
    match textures.sight(Wish { path: path.to_owned(), side }) {
        Sight::Picture(texture) => {
            let uv = covering(texture.size_vec2(), rect.size());
            egui::Image::new(texture).uv(uv).corner_radius(RADIUS).paint_at(ui, rect);
        }
        Sight::Waiting => drop(ui.painter().rect_filled(rect, CornerRadius::same(RADIUS), palette.surface)),
        Sight::Failed(_) => {
            ui.painter().rect_filled(rect, CornerRadius::same(RADIUS), palette.surface);
            let glyph = char::from(Icon::ImageOff);
            ui.painter().text(rect.center(), Align2::CENTER_CENTER, glyph, theme::icons(20.0), palette.secondary);
        }
    }
}

/// A whole photo across the width of `ui`, as large as that allows.
pub fn whole_ui(ui: &mut Ui, path: &Path, textures: &mut Textures) {
    let palette = Palette::of(ui);
    let side = ui.available_width();
    let (rect, _) = ui.allocate_exact_size(vec2(side, side * 0.75), Sense::empty());
    ui.painter().rect_filled(rect, CornerRadius::same(8), palette.surface);
    match textures.sight(Wish { path: path.to_owned(), side: WHOLE }) {
        Sight::Picture(texture) => {
            let scale = (rect.size() / texture.size_vec2()).min_elem();
            let fitted = Rect::from_center_size(rect.center(), texture.size_vec2() * scale);
            egui::Image::new(texture).corner_radius(RADIUS).paint_at(ui, fitted);
        }
        Sight::Waiting => {}
        Sight::Failed(reason) => {
            let glyph = char::from(Icon::ImageOff);
            ui.painter().text(rect.center(), Align2::CENTER_CENTER, glyph, theme::icons(28.0), palette.secondary);
            ui.interact(rect, ui.scope_id().with("no picture"), Sense::hover()).on_hover_text(reason);
        }
    }
}

/// The middle part of a picture that fills a frame of another shape.
fn covering(picture: Vec2, frame: Vec2) -> Rect {
    let scale = (frame / picture).max_elem();
    Rect::from_center_size(pos2(0.5, 0.5), frame / (picture * scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_covers_its_frame_from_the_middle() {
        assert_eq!(
            covering(vec2(200.0, 100.0), vec2(100.0, 100.0)),
            Rect::from_min_max(pos2(0.25, 0.0), pos2(0.75, 1.0))
        );
        assert_eq!(
            covering(vec2(50.0, 100.0), vec2(100.0, 100.0)),
            Rect::from_min_max(pos2(0.0, 0.25), pos2(1.0, 0.75))
        );
    }
}
