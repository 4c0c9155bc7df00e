//! The window's part in what the system shows and asks: progress in the Dock, messages, files that are opened with it.

use std::sync::Arc;
use std::time::Instant;

use egui::{Context, UserAttentionType, ViewportCommand};
use winit::window::Window;

use super::run::RunState;
use super::training::TrainState;
use super::{Action, App};
use crate::platform::files::Preview;
use crate::platform::notice::Notices;
use crate::platform::{Asked, Desktop, Kind, Work};

/// What the window keeps of the system.
#[derive(Default)]
pub struct System {
    pub desktop: Desktop,
    pub preview: Preview,
    /// Whose sheets dialogs are, where dialogs are sheets.
    pub window: Option<Arc<Window>>,
    /// The menu bar has the shortcuts: it takes their keys before the window sees them.
    pub menu_bar_has_keys: bool,
    notices: Notices,
    asked: Vec<Asked>,
}

/// Said when something hovers that is not there yet, as it is with a drag from Photos.
const PROMISED: &str = "These photos are not files yet, so Galley cannot read them. Drag them from Finder, or export them from Photos \
                        first: File, Export";

impl App {
    /// Asks as the system would; done by the next [`tick`](Self::tick).
    pub fn ask_as_system(&mut self, asked: Asked) {
        self.system.asked.push(asked);
    }

    /// Connects the window with the system.
    pub(super) fn connect(&mut self, ctx: &Context) {
        let wake = ctx.clone();
        let problems = self.system.desktop.connect(move || wake.request_repaint());
        problems.into_iter().for_each(|problem| self.toasts.error(problem));
        if self.system.desktop.has_menu_bar() {
            self.leave_keys_to_the_menu_bar();
        }
    }

    /// What is typed with the command key is no longer looked at here.
    pub fn leave_keys_to_the_menu_bar(&mut self) {
        self.system.menu_bar_has_keys = true;
    }

    /// Takes what the system asks of the window; true when it wants the window to close.
    pub(super) fn take_asked(&mut self, ctx: &Context) -> bool {
        let mut asked = self.system.desktop.asked();
        asked.append(&mut self.system.asked);
        let mut is_to_close = false;
        for asked in asked {
            match asked {
                Asked::Open(paths) => self.actions.push(Action::LookAt(paths)),
                Asked::Quit => is_to_close = true,
                Asked::Promise => self.toasts.error(PROMISED),
                // As long as the window asks a question, it takes no other orders.
                Asked::Do(_) if self.closing.asks() => {}
                Asked::Do(command) => self.command(ctx, command),
            }
        }
        is_to_close
    }

    /// Hands the system what it shows of the window.
    pub(super) fn follow_system(&mut self, ctx: &Context) {
        let works = self.works();
        self.system.desktop.show_work(&works);
        if self.system.desktop.has_menu_bar() {
            self.system.desktop.show_state(self.menu_state());
        }
        let ended = self.system.notices.ended(Instant::now(), &works);
        // A hidden window knows this of itself, and nothing else of its input.
        let looks_elsewhere = ctx.input(|input| input.viewport().focused == Some(false));
        for (title, text) in ended.into_iter().filter(|_| looks_elsewhere).filter_map(|kind| self.outcome(kind)) {
            if !self.system.desktop.notify(title, &text) {
                ctx.send_viewport_cmd(ViewportCommand::RequestUserAttention(UserAttentionType::Informational));
            }
        }
    }

    /// What computes now, the most important first.
    pub(super) fn works(&self) -> Vec<Work> {
        let training = self.train.share().map(|share| (Kind::Training, share));
        let trying = self.train.is_trying().then_some((Kind::Trying, None));
        let compressing = self.compress.is_running().then(|| (Kind::Compressing, self.compress.share()));
        let evaluating = self.evaluate.is_running().then(|| (Kind::Evaluating, self.evaluate.share()));
        let run = self.classify.run.as_ref().filter(|run| run.is_active() && run.state != RunState::Paused);
        let classifying = run.map(|run| (Kind::Classifying, run.share()));
        let fetching = self.downloads.current.as_ref().filter(|_| self.downloads.is_active());
        let downloading = fetching.map(|fetching| (Kind::Downloading, fetching.share()));
        let all = [training, trying, compressing, evaluating, classifying, downloading];
        all.into_iter().flatten().map(|(kind, share)| Work { kind, share }).collect()
    }

    /// How work that has ended came out, in a head and a line. Nothing when a person has paused or stopped it.
    fn outcome(&self, kind: Kind) -> Option<(&'static str, String)> {
        match kind {
            Kind::Training => {
                let training = self.train.training()?;
                match &training.state {
                    TrainState::Finished(_) => Some(("Training has finished", training.status())),
                    TrainState::Failed(reason) => Some(("Training was stopped by a problem", reason.clone())),
                    _ => None,
                }
            }
            Kind::Classifying => {
                let run = self.classify.run.as_ref()?;
                match &run.state {
                    RunState::Finished(_) => Some(("Photos are classified", run.status())),
                    RunState::Failed(reason) => Some(("Classifying was stopped by a problem", reason.clone())),
                    _ => None,
                }
            }
            Kind::Evaluating => self.evaluate.ended().map(|text| ("Evaluating has ended", text)),
            Kind::Compressing => self.compress.ended.clone().map(|text| ("Making a model smaller has ended", text)),
            Kind::Trying => Some(("Trying settings has ended", "What came out is on the Train page".to_owned())),
            Kind::Downloading => Some(("The download has ended", self.downloads.ended()?)),
        }
    }
}
