//! Short messages that come up in the corner and leave by themselves. Errors stay until they are closed. Each is a
//! label, so a screen reader reads it, and nothing repaints while a message just stands there.

use std::time::{Duration, Instant};

use egui::{Align, Align2, Area, Context, CornerRadius, Frame, Id, Layout, Margin, Order, RichText, Stroke, Ui, vec2};
use lucide_icons::Icon;

use super::theme::{Palette, STEP};
use super::widgets;

const SHOWN_FOR: Duration = Duration::from_secs(6);
const WIDTH: f32 = 360.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Done,
    Error,
}

struct Toast {
    kind: Kind,
    text: String,
    /// When it was first drawn: in a window out of sight it waits.
    since: Option<Instant>,
}

impl Toast {
    fn age(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

#[derive(Default)]
pub struct Toasts {
    toasts: Vec<Toast>,
}

impl Toasts {
    pub fn done(&mut self, text: impl Into<String>) {
        self.add(Kind::Done, text.into());
    }

    pub fn error(&mut self, text: impl Into<String>) {
        self.add(Kind::Error, sentence(&text.into()));
    }

    fn add(&mut self, kind: Kind, text: String) {
        // The same message again is the same message, not a second one.
        self.toasts.retain(|toast| toast.text != text);
        self.toasts.push(Toast { kind, text, since: None });
    }

    /// Draws the messages above everything else, the newest lowest, `above` points over the bottom edge.
    pub fn show(&mut self, ctx: &Context, above: f32) {
        let now = Instant::now();
        self.toasts.iter_mut().for_each(|toast| _ = toast.since.get_or_insert(now));
        self.toasts.retain(|toast| toast.kind == Kind::Error || toast.age() < SHOWN_FOR);
        if self.toasts.is_empty() {
            return;
        }
        let area = Area::new(Id::unique("toasts")).order(Order::Foreground);
        area.anchor(Align2::RIGHT_BOTTOM, vec2(-STEP * 2.0, -above - STEP * 2.0)).show(ctx, |ui| {
            self.toasts.retain(|toast| !toast_ui(ui, toast));
        });
        let soonest = self.toasts.iter().filter(|toast| toast.kind == Kind::Done).map(Toast::age).max();
        if let Some(age) = soonest {
            ctx.request_repaint_after(SHOWN_FOR.saturating_sub(age));
        }
    }
}

/// Causes begin in lower case; a message for people does not.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Returns true once the message was closed.
fn toast_ui(ui: &mut Ui, toast: &Toast) -> bool {
    let palette = Palette::of(ui);
    let (symbol, color) = match toast.kind {
        Kind::Done => (Icon::CircleCheck, palette.accent_line),
        Kind::Error => (Icon::CircleAlert, palette.error),
    };
    let frame = Frame::new()
        .fill(palette.page)
        .stroke(Stroke::new(1.0, palette.hairline))
        .corner_radius(CornerRadius::same(8))
        .shadow(ui.visuals().popup_shadow)
        .inner_margin(Margin::symmetric(12, 8));
    let shown = frame.show(ui, |ui| {
        ui.set_width(WIDTH);
        ui.horizontal_top(|ui| {
            widgets::icon(ui, symbol, 16.0, color);
            let layout = Layout::top_down(Align::Min);
            ui.allocate_ui_with_layout(vec2(WIDTH - 60.0, 0.0), layout, |ui| {
                ui.set_min_width(WIDTH - 60.0);
                ui.add(egui::Label::new(RichText::new(&toast.text)).wrap());
            });
            widgets::icon_button(ui, Icon::X, "Dismiss message").clicked()
        })
        .inner
    });
    shown.inner
}
