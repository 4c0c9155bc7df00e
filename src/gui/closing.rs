//! The window is closed while something goes on: it asks, and a run writes a snapshot before it ends.

use egui::{Context, Frame, Id, Margin, Modal, RichText, ViewportCommand};
use lucide_icons::Icon;

use super::theme::{self, STEP};
use super::widgets::{self, Weight};
use super::{App, drops};
use crate::platform::Kind;

/// How far the window is with closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Closing {
    #[default]
    No,
    /// It asks whether what goes on shall be stopped.
    Asks(Kind),
    /// It goes once the run has written its snapshot. Who closes it again does not want to wait.
    Leaves,
}

impl Closing {
    pub fn asks(self) -> bool {
        matches!(self, Self::Asks(_))
    }
}

impl App {
    /// Takes the wish to close. `is_asked_by_system`: not by the window's own button.
    pub(super) fn follow_closing(&mut self, ctx: &Context, is_asked_by_system: bool) {
        let is_asked = is_asked_by_system || ctx.input(|input| input.viewport().close_requested());
        let work = self.works().first().map(|work| work.kind);
        match self.closing {
            Closing::No | Closing::Asks(_) if is_asked => {
                if let Some(kind) = work {
                    ctx.send_viewport_cmd(ViewportCommand::CancelClose);
                    // A question has to be seen.
                    ctx.send_viewport_cmd(ViewportCommand::Minimized(false));
                    ctx.send_viewport_cmd(ViewportCommand::Focus);
                    self.closing = Closing::Asks(kind);
                } else if self.train.is_training() {
                    // A run that is paused loses nothing but has to end.
                    ctx.send_viewport_cmd(ViewportCommand::CancelClose);
                    self.leave();
                } else if is_asked_by_system {
                    ctx.send_viewport_cmd(ViewportCommand::Close);
                }
            }
            // What was asked about has ended meanwhile, and what it made is worth a look.
            Closing::Asks(kind) if work != Some(kind) => self.closing = work.map_or(Closing::No, Closing::Asks),
            // Not to be waited for: the system asks again, as the window's own button closes at once.
            Closing::Leaves if is_asked_by_system => ctx.send_viewport_cmd(ViewportCommand::Close),
            Closing::No | Closing::Asks(_) | Closing::Leaves => {}
        }
        if self.closing == Closing::Leaves && !self.train.is_training() {
            ctx.send_viewport_cmd(ViewportCommand::Close);
        }
    }

    /// Stops everything; the window closes as soon as the run has ended.
    fn leave(&mut self) {
        self.closing = Closing::Leaves;
        self.train.stop();
        self.classify.cancel();
    }

    /// Draws the question, or what is waited for.
    pub(super) fn closing_ui(&mut self, ctx: &Context) {
        match self.closing {
            Closing::No => {}
            Closing::Asks(kind) => match question_ui(ctx, kind) {
                Some(true) => {
                    self.leave();
                    ctx.request_repaint();
                }
                Some(false) => self.closing = Closing::No,
                None => {}
            },
            Closing::Leaves => {
                let text = "Galley closes as soon as the step under way is over. Close again not to wait";
                drops::cover(ctx, Icon::Save, "Saving the run…", Some(text));
            }
        }
    }
}

/// True to stop and quit, false to go on.
fn question_ui(ctx: &Context, kind: Kind) -> Option<bool> {
    let frame = Frame::popup(&ctx.global_style()).inner_margin(Margin::same(20));
    let modal = Modal::new(Id::unique("closing")).frame(frame).show(ctx, |ui| {
        ui.set_width(380.0);
        let (head, text) = question(kind);
        ui.label(RichText::new(head).font(theme::strong(15.0)));
        widgets::note(ui, text);
        ui.add_space(STEP * 2.0);
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            let goes_on = widgets::button(ui, Weight::Primary, Icon::Play, "Keep working").clicked();
            let stops = widgets::button(ui, Weight::Plain, Icon::Square, "Stop and quit").clicked();
            if goes_on || stops { Some(stops) } else { None }
        })
        .inner
    });
    if modal.should_close() { Some(false) } else { modal.inner }
}

/// What goes on, and what becomes of it.
fn question(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Training => (
            "Training goes on",
            "When it is stopped, a snapshot is written first: the run can be continued under Train, History",
        ),
        Kind::Trying => ("Settings are being tried", "What was measured so far is lost when they are stopped"),
        Kind::Compressing => ("A model is being made smaller", "Nothing of it is kept when it is stopped"),
        Kind::Evaluating => ("A model is being evaluated", "What was judged so far is lost when it is stopped"),
        Kind::Classifying => (
            "Photos are being classified",
            "Those that are done are kept: the same photos go on from there when they are started again",
        ),
        Kind::Downloading => ("A model is being downloaded", "What has come is kept: the download goes on from there"),
    }
}
