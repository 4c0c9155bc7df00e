//! How Galley looks: one palette for light and one for dark, one accent, an 8-point grid, and the type sizes.

use egui::style::{Selection, WidgetVisuals};
use egui::{Color32, Context, CornerRadius, FontData, FontDefinitions, FontFamily, FontId, Stroke, TextStyle, Theme};
use egui::{IconData, Margin, ThemePreference, Ui, Vec2, Visuals};

use crate::settings::Look;

/// One step of the grid; spacings are its halves and multiples.
pub const STEP: f32 = 8.0;
/// Corners of buttons, cards and pictures.
pub const RADIUS: u8 = 6;
/// Height of every button and field.
pub const CONTROL: f32 = 28.0;

/// Height of a slider, from which its handle takes its size.
pub const HANDLE: f32 = 20.0;

const ICONS: &str = "icons";
const STRONG: &str = "strong";

/// The colors of one theme.
#[derive(Debug, Clone, Copy)]
pub struct Palette {
    pub page: Color32,
    pub sidebar: Color32,
    /// Cards, fields and pictures that are still coming.
    pub surface: Color32,
    pub surface_hovered: Color32,
    pub hairline: Color32,
    /// Outlines of fields and boxes.
    pub edge: Color32,
    pub text: Color32,
    pub secondary: Color32,
    /// Fills of the primary button, bars and selections; white text is readable on it.
    pub accent: Color32,
    /// The accent as text or line on the page.
    pub accent_line: Color32,
    pub accent_soft: Color32,
    pub warning: Color32,
    pub error: Color32,
    /// Lines of charts, told apart also by those who see few colors.
    pub series: [Color32; 6],
}

const LIGHT: Palette = Palette {
    page: Color32::from_rgb(0xff, 0xff, 0xff),
    sidebar: Color32::from_rgb(0xf6, 0xf6, 0xf4),
    surface: Color32::from_rgb(0xf4, 0xf4, 0xf2),
    surface_hovered: Color32::from_rgb(0xea, 0xea, 0xe7),
    hairline: Color32::from_rgb(0xe2, 0xe2, 0xde),
    edge: Color32::from_rgb(0xc4, 0xc4, 0xbf),
    text: Color32::from_rgb(0x1d, 0x1d, 0x1f),
    secondary: Color32::from_rgb(0x66, 0x66, 0x6b),
    accent: Color32::from_rgb(0x0f, 0x76, 0x6e),
    accent_line: Color32::from_rgb(0x0f, 0x76, 0x6e),
    accent_soft: Color32::from_rgb(0xdc, 0xef, 0xec),
    warning: Color32::from_rgb(0x9a, 0x5b, 0x00),
    error: Color32::from_rgb(0xb4, 0x23, 0x18),
    series: [
        Color32::from_rgb(0x0f, 0x76, 0x6e),
        Color32::from_rgb(0xd9, 0x6b, 0x0b),
        Color32::from_rgb(0x3b, 0x5b, 0xdb),
        Color32::from_rgb(0xb8, 0x2e, 0x7a),
        Color32::from_rgb(0x5c, 0x94, 0x0d),
        Color32::from_rgb(0x6b, 0x55, 0x44),
    ],
};

const DARK: Palette = Palette {
    page: Color32::from_rgb(0x1c, 0x1c, 0x1e),
    sidebar: Color32::from_rgb(0x23, 0x23, 0x25),
    surface: Color32::from_rgb(0x2a, 0x2a, 0x2d),
    surface_hovered: Color32::from_rgb(0x36, 0x36, 0x3a),
    hairline: Color32::from_rgb(0x3a, 0x3a, 0x3e),
    edge: Color32::from_rgb(0x5c, 0x5c, 0x62),
    text: Color32::from_rgb(0xf2, 0xf2, 0xf4),
    secondary: Color32::from_rgb(0xa4, 0xa4, 0xac),
    accent: Color32::from_rgb(0x12, 0x7d, 0x74),
    accent_line: Color32::from_rgb(0x4f, 0xc9, 0xbb),
    accent_soft: Color32::from_rgb(0x1d, 0x3d, 0x3a),
    warning: Color32::from_rgb(0xf0, 0xb4, 0x5a),
    error: Color32::from_rgb(0xff, 0x8a, 0x80),
    series: [
        Color32::from_rgb(0x4f, 0xc9, 0xbb),
        Color32::from_rgb(0xff, 0xa5, 0x4c),
        Color32::from_rgb(0x8a, 0xa4, 0xff),
        Color32::from_rgb(0xf0, 0x7f, 0xb8),
        Color32::from_rgb(0xa9, 0xd6, 0x58),
        Color32::from_rgb(0xd0, 0xb8, 0xa0),
    ],
};

impl Palette {
    /// The palette of the theme that `ui` is drawn in.
    pub fn of(ui: &Ui) -> Self {
        Self::for_theme(ui.visuals().dark_mode)
    }

    pub fn for_theme(dark: bool) -> Self {
        if dark { DARK } else { LIGHT }
    }
}

/// Sets fonts, sizes and colors.
pub fn install(ctx: &Context, look: Look) {
    ctx.set_fonts(fonts());
    follow(ctx, look);
    ctx.set_visuals_of(Theme::Light, visuals(&LIGHT, Visuals::light()));
    ctx.set_visuals_of(Theme::Dark, visuals(&DARK, Visuals::dark()));
    ctx.all_styles_mut(|style| {
        style.text_styles = [
            (TextStyle::Heading, FontId::new(20.0, FontFamily::Name(STRONG.into()))),
            (TextStyle::Body, FontId::proportional(13.0)),
            (TextStyle::Button, FontId::proportional(13.0)),
            (TextStyle::Small, FontId::proportional(11.0)),
            (TextStyle::Monospace, FontId::monospace(12.0)),
        ]
        .into();
        let spacing = &mut style.spacing;
        spacing.item_spacing = Vec2::splat(STEP);
        spacing.button_padding = Vec2::new(10.0, 4.0);
        spacing.interact_size = Vec2::new(CONTROL, CONTROL);
        spacing.menu_margin = Margin::same(6);
        spacing.combo_width = 96.0;
        spacing.slider_rail_height = 4.0;
        spacing.icon_width = 16.0;
        spacing.scroll.floating = true;
        style.interaction.selectable_labels = false;
        style.animation_time = 0.08;
    });
}

/// Light or dark as a person wants it.
pub fn follow(ctx: &Context, look: Look) {
    ctx.set_theme(match look {
        Look::System => ThemePreference::System,
        Look::Light => ThemePreference::Light,
        Look::Dark => ThemePreference::Dark,
    });
}

/// The bold face, for titles and figures.
pub fn strong(size: f32) -> FontId {
    FontId::new(size, FontFamily::Name(STRONG.into()))
}

/// The icon face.
pub fn icons(size: f32) -> FontId {
    FontId::new(size, FontFamily::Name(ICONS.into()))
}

/// What a desktop shows for the window. A Mac has it from the bundle, in more sizes.
pub fn icon() -> IconData {
    if cfg!(target_os = "macos") {
        // Left to itself, eframe would show its own.
        return IconData::default();
    }
    eframe::icon_data::from_png_bytes(include_bytes!("../../resources/icon.png")).expect("tests read it")
}

fn fonts() -> FontDefinitions {
    let mut fonts = FontDefinitions::default();
    let mut add = |name: &str, bytes: &'static [u8], family: FontFamily| {
        fonts.font_data.insert(name.to_owned(), FontData::from_static(bytes).into());
        // What a face lacks comes from the bundled fonts behind it.
        let mut faces = fonts.families.get(&FontFamily::Proportional).cloned().unwrap_or_default();
        faces.insert(0, name.to_owned());
        fonts.families.insert(family, faces);
    };
    add(STRONG, include_bytes!("../../resources/fonts/Inter-SemiBold.otf"), FontFamily::Name(STRONG.into()));
    add(ICONS, lucide_icons::LUCIDE_FONT_BYTES, FontFamily::Name(ICONS.into()));
    add("text", include_bytes!("../../resources/fonts/Inter-Regular.otf"), FontFamily::Proportional);
    fonts
}

fn visuals(palette: &Palette, base: Visuals) -> Visuals {
    let mut visuals = base;
    let radius = CornerRadius::same(RADIUS);
    let state = |fill: Color32, edge: Color32, text: Color32| WidgetVisuals {
        bg_fill: fill,
        weak_bg_fill: fill,
        bg_stroke: Stroke::new(1.0, edge),
        corner_radius: radius,
        fg_stroke: Stroke::new(1.0, text),
        expansion: 0.0,
    };
    let (surface, hovered, hairline, edge) = (palette.surface, palette.surface_hovered, palette.hairline, palette.edge);
    visuals.widgets.noninteractive = state(palette.page, hairline, palette.text);
    visuals.widgets.inactive = state(surface, edge, palette.text);
    visuals.widgets.hovered = state(hovered, edge, palette.text);
    visuals.widgets.active = state(hovered, palette.accent_line, palette.text);
    visuals.widgets.open = state(hovered, edge, palette.text);
    visuals.selection = Selection { bg_fill: palette.accent, stroke: Stroke::new(1.0, Color32::WHITE) };
    visuals.hyperlink_color = palette.accent_line;
    visuals.weak_text_color = Some(palette.secondary);
    visuals.faint_bg_color = surface;
    visuals.extreme_bg_color = surface;
    visuals.panel_fill = palette.page;
    visuals.window_fill = palette.page;
    visuals.window_stroke = Stroke::new(1.0, hairline);
    visuals.window_corner_radius = CornerRadius::same(10);
    visuals.menu_corner_radius = CornerRadius::same(8);
    visuals.warn_fg_color = palette.warning;
    visuals.error_fg_color = palette.error;
    visuals.slider_trailing_fill = true;
    visuals.handle_shape = egui::style::HandleShape::Circle;
    visuals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_icon_has_the_colors_of_the_window() {
        let drawing = include_str!("../../resources/icon.svg");
        for color in [LIGHT.accent, DARK.accent_line, DARK.series[1]] {
            let [red, green, blue, _] = color.to_array();
            assert!(drawing.contains(&format!("#{red:02x}{green:02x}{blue:02x}")), "{color:?}");
        }
        assert_eq!(icon() == IconData::default(), cfg!(target_os = "macos"));
    }
}
