//! The window's own title bar, where the system draws none: a strip to move the window by, with the system's buttons in it.

use egui::{Context, Id, PointerButton, Rangef, Sense, Ui, ViewportCommand};

/// How high the strip is, in points.
pub const HEIGHT: f32 = 40.0;

/// Where the first of the system's buttons begins, in points from the left.
pub const BUTTONS_LEFT: f32 = 20.0;

/// True where the window's content reaches to its upper edge.
pub const IS_OWN: bool = cfg!(target_os = "macos");

/// Where the system's buttons stand in the middle of.
pub const RANGE: Rangef = Rangef { min: 0.0, max: HEIGHT };

/// The height to leave free for the system's buttons: none when they are away.
pub fn height(ctx: &Context) -> f32 {
    let is_full_screen = ctx.input(|input| input.viewport().fullscreen == Some(true));
    if IS_OWN && !is_full_screen { HEIGHT } else { 0.0 }
}

/// Lets a drag move the window and a double click zoom it. Call it before anything is drawn: what is drawn later lies above
/// it and takes its own clicks.
pub fn title_bar_ui(ui: &Ui) {
    let strip = ui.max_rect().with_max_y(ui.max_rect().top() + HEIGHT);
    let id = Id::unique("title bar");
    // Not for the keyboard, so no Tab stop. Were it to sense drags, one that begins on a button above it would be its own.
    let response = ui.interact(strip, id, Sense::CLICK);
    let is_held = match ui.input(|input| input.pointer.primary_pressed()) {
        true => response.is_pointer_button_down_on(),
        false => ui.data(|data| data.get_temp(id)).unwrap_or(false),
    };
    let moves = is_held && ui.input(|input| input.pointer.primary_down() && input.pointer.is_decidedly_dragging());
    ui.data_mut(|data| data.insert_temp(id, is_held && !moves));
    if moves {
        ui.ctx().send_viewport_cmd(ViewportCommand::StartDrag);
    } else if response.double_clicked_by(PointerButton::Primary) {
        let is_maximized = ui.input(|input| input.viewport().maximized == Some(true));
        ui.ctx().send_viewport_cmd(ViewportCommand::Maximized(!is_maximized));
    }
}

#[cfg(test)]
mod tests {
    use egui::{Event, Modifiers, Pos2, RawInput, Rect, ViewportId, pos2, vec2};

    use super::*;

    /// A frame with these events; what the window is told to do.
    fn frame(ctx: &Context, time: f64, events: Vec<Event>) -> Vec<ViewportCommand> {
        let screen_rect = Some(Rect::from_min_size(Pos2::ZERO, vec2(800.0, 600.0)));
        let input = RawInput { screen_rect, events, time: Some(time), ..RawInput::default() };
        let mut output = ctx.run_ui(input, |ui| {
            title_bar_ui(ui);
            let button = Rect::from_min_size(pos2(700.0, 8.0), vec2(60.0, 24.0));
            ui.put(button, egui::Button::new("Start"));
        });
        // Nothing is drawn.
        output.textures_delta.clear();
        output.viewport_output[&ViewportId::ROOT].commands.clone()
    }

    fn button(pos: Pos2, pressed: bool) -> Event {
        Event::PointerButton { pos, button: PointerButton::Primary, pressed, modifiers: Modifiers::NONE }
    }

    fn dragged_from(pos: Pos2) -> Vec<ViewportCommand> {
        let ctx = Context::default();
        let mut told = frame(&ctx, 0.0, vec![Event::PointerMoved(pos)]);
        told.extend(frame(&ctx, 0.1, vec![button(pos, true)]));
        told.extend(frame(&ctx, 0.2, vec![Event::PointerMoved(pos + vec2(30.0, 5.0))]));
        told.extend(frame(&ctx, 0.3, vec![]));
        told
    }

    #[test]
    fn the_strip_moves_the_window_and_what_lies_on_it_does_not() {
        assert!(dragged_from(pos2(300.0, 10.0)).contains(&ViewportCommand::StartDrag));
        assert!(!dragged_from(pos2(720.0, 20.0)).contains(&ViewportCommand::StartDrag), "a button is no handle");
        assert!(!dragged_from(pos2(300.0, 60.0)).contains(&ViewportCommand::StartDrag), "below the strip");
    }

    #[test]
    fn a_double_click_zooms() {
        let (ctx, pos) = (Context::default(), pos2(300.0, 10.0));
        let mut told = frame(&ctx, 0.0, vec![Event::PointerMoved(pos)]);
        for (time, pressed) in [(0.1, true), (0.15, false), (0.2, true), (0.25, false)] {
            told.extend(frame(&ctx, time, vec![button(pos, pressed)]));
        }
        told.extend(frame(&ctx, 0.3, vec![]));
        assert!(told.contains(&ViewportCommand::Maximized(true)), "{told:?}");
    }
}
