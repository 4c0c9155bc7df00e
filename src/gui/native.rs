//! Opens the window: its place and size, the loop it runs in, and what it is made of at first.

use std::path::{Path, PathBuf};

use egui::{Pos2, Rect, Vec2, pos2, vec2};
use winit::dpi::{PhysicalPosition, PhysicalSize};
use winit::window::Window;

use super::{App, Places, theme, title_bar};
use crate::format;
use crate::jobs;
use crate::settings::Settings;

/// Opens the window and runs until it is closed. `paths` are opened as if they were dropped.
///
/// Fails when there is no display, or no way to draw on it.
pub fn run(paths: Vec<PathBuf>) -> Result<(), String> {
    let settings_path = crate::settings::default_path();
    let (settings, mut warnings) =
        settings_path.as_ref().map_or_else(|_| Default::default(), |path| Settings::load(path));
    warnings.extend(settings.memory.with_environment().err().map(|error| error.to_string()));
    let options = options(settings_path.as_deref().ok());
    let runs = jobs::runs::default_root();
    let places = Places { jobs: jobs::Places::default(), runs, settings: settings_path.ok() };
    let create = move |cc: &eframe::CreationContext<'_>| {
        let mut app = App::new(&cc.egui_ctx, settings, places, paths);
        warnings.into_iter().for_each(|warning| app.toasts.error(warning));
        app.connect(&cc.egui_ctx);
        if let Some(window) = cc.winit_window() {
            if cfg!(target_os = "macos") {
                app.system.window = Some(window.clone());
            } else {
                keep_in_sight(window);
            }
        }
        Ok(Box::new(app) as Box<dyn eframe::App>)
    };
    run_loop(options, Box::new(create))
}

/// The window comes up where it was left; that is kept beside the settings.
fn options(settings: Option<&Path>) -> eframe::NativeOptions {
    let viewport = egui::ViewportBuilder::default()
        .with_title("Galley")
        .with_app_id("galley")
        .with_icon(theme::icon())
        .with_inner_size([1280.0, 800.0])
        .with_min_inner_size([980.0, 600.0])
        .with_fullsize_content_view(title_bar::IS_OWN)
        .with_titlebar_shown(!title_bar::IS_OWN)
        .with_title_shown(!title_bar::IS_OWN);
    let persistence_path = settings.map(|path| path.with_file_name("window.ron"));
    let persist_window = persistence_path.is_some();
    eframe::NativeOptions { viewport, persistence_path, persist_window, ..Default::default() }
}

/// Brings a window back whose screen is gone. eframe does so itself on a Mac.
fn keep_in_sight(window: &Window) {
    // Where windows do not know their place, they cannot be in a wrong one.
    let Ok(position) = window.outer_position() else { return };
    let rect = |position: PhysicalPosition<i32>, size: PhysicalSize<u32>| {
        Rect::from_min_size(pos2(position.x as f32, position.y as f32), vec2(size.width as f32, size.height as f32))
    };
    let screens: Vec<Rect> = window.available_monitors().map(|screen| rect(screen.position(), screen.size())).collect();
    if let Some(place) = place_in_sight(rect(position, window.outer_size()), &screens) {
        window.set_outer_position(PhysicalPosition::new(place.x, place.y));
    }
}

/// Where a window goes whose upper edge, by which it is moved, lies on no screen; `None` when it may stay. All in pixels of
/// one plane.
fn place_in_sight(window: Rect, screens: &[Rect]) -> Option<Pos2> {
    /// So much of the edge has to be in sight.
    const GRIP: Vec2 = vec2(120.0, 16.0);
    let edge = window.with_max_y(window.top() + GRIP.y);
    let is_seen = |screen: &Rect| {
        let seen = screen.intersect(edge).size();
        seen.x >= GRIP.x.min(window.width()) && seen.y >= GRIP.y
    };
    if screens.iter().any(is_seen) {
        return None;
    }
    let first = screens.first()?;
    let free = (first.size() - window.size()).max(Vec2::ZERO);
    Some(first.min + free / 2.0)
}

#[cfg(not(target_os = "macos"))]
fn run_loop(options: eframe::NativeOptions, create: eframe::AppCreator<'_>) -> Result<(), String> {
    eframe::run_native("Galley", options, create).map_err(|error| format::error_chain(&error))
}

/// The loop is made here, because what the program was opened with comes before its first turn.
#[cfg(target_os = "macos")]
fn run_loop(options: eframe::NativeOptions, create: eframe::AppCreator<'_>) -> Result<(), String> {
    use winit::event_loop::EventLoop;
    use winit::platform::macos::EventLoopBuilderExtMacOS;

    // Ours would take the place of winit's menu a moment later.
    let event_loop = EventLoop::<eframe::UserEvent>::with_user_event().with_default_menu(false).build();
    let event_loop = event_loop.map_err(|error| format::error_chain(&error))?;
    crate::platform::before_the_loop_runs();
    let was_made = std::cell::Cell::new(false);
    let create: eframe::AppCreator<'_> = Box::new(|cc| create(cc).inspect(|_| was_made.set(true)));
    let mut app = eframe::create_native("Galley", options, create, &event_loop);
    let ended = event_loop.run_app(&mut app);
    drop(app);
    ended.map_err(|error| format::error_chain(&error))?;
    // eframe tells the reason to the log alone.
    if was_made.get() { Ok(()) } else { Err("there is no way to draw on this display".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rect(x: f32, y: f32, width: f32, height: f32) -> Rect {
        Rect::from_min_size(pos2(x, y), vec2(width, height))
    }

    #[test]
    fn a_window_whose_screen_is_gone_comes_back_to_the_first() {
        let (built_in, beside) = (rect(0.0, 0.0, 1440.0, 900.0), rect(1440.0, -200.0, 2560.0, 1440.0));
        let on_the_second = rect(2000.0, 100.0, 1280.0, 800.0);
        assert_eq!(place_in_sight(on_the_second, &[built_in, beside]), None);
        assert_eq!(place_in_sight(on_the_second, &[built_in]), Some(pos2(80.0, 50.0)));
        let half_outside = rect(-1000.0, 300.0, 1280.0, 800.0);
        assert_eq!(place_in_sight(half_outside, &[built_in]), None, "280 pixels of its edge are in reach");
        let above = rect(100.0, -400.0, 1280.0, 800.0);
        assert_eq!(place_in_sight(above, &[built_in]), Some(pos2(80.0, 50.0)), "its edge is out of reach");
        let too_large = rect(5000.0, 0.0, 2000.0, 1200.0);
        assert_eq!(place_in_sight(too_large, &[built_in]), Some(pos2(0.0, 0.0)), "its upper left corner is in sight");
        assert_eq!(place_in_sight(on_the_second, &[]), None, "nothing is known of screens");
    }
}
