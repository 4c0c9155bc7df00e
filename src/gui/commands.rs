//! What can be asked for from anywhere: with the window's shortcuts, or in the system's menu bar, which then has the same ones.

use std::path::{Path, PathBuf};

use egui::{Context, Event, Key, KeyboardShortcut, Modifiers, ViewportCommand};

use super::dialogs::Ask;
use super::{Action, App, CompressAction, EvaluateAction, Page, TrainAction};
use crate::platform::files;
use crate::platform::menu::{Command, State};

/// A command's keys as egui knows them.
pub fn shortcut(command: Command) -> KeyboardShortcut {
    let wanted = command.shortcut();
    let modifiers = if wanted.shift { Modifiers::COMMAND | Modifiers::SHIFT } else { Modifiers::COMMAND };
    KeyboardShortcut::new(modifiers, Key::from_name(wanted.code).expect("every shortcut has a key; a test holds it"))
}

impl App {
    /// Does what the keys of this frame ask for.
    pub(super) fn shortcuts(&mut self, ctx: &Context) {
        if self.closing.asks() {
            return;
        }
        // A menu bar has taken the keys already. One whose item is grey leaves its keys to the window, where they do nothing.
        if !self.system.menu_bar_has_keys {
            self.command_shortcuts(ctx);
        }
        self.preview_key(ctx);
        let free = ctx.memory(|memory| memory.focused().is_none()) && !egui::Popup::is_any_open(ctx);
        if free
            && ctx.input_mut(|input| input.consume_key(Modifiers::NONE, Key::Escape))
            && !self.close_detail()
            // A run of hours is not stopped by a slip of the hand.
            && self.page != Page::Train
        {
            self.actions.push(Action::Cancel);
        }
    }

    fn command_shortcuts(&mut self, ctx: &Context) {
        let is_here = |command: &Command| match command {
            // Text fields take their keys themselves, and the system its own.
            Command::Quit => false,
            Command::Preview => files::CAN_PREVIEW,
            command => !command.edits_text(),
        };
        // Shift may be held with a shortcut that does not want it, so those that want it are looked for first.
        let (shifted, plain): (Vec<_>, Vec<_>) =
            Command::ALL.into_iter().filter(is_here).partition(|command| command.shortcut().shift);
        for command in shifted.into_iter().chain(plain) {
            if ctx.input_mut(|input| input.consume_shortcut(&shortcut(command))) {
                self.command(ctx, command);
            }
        }
    }

    /// The space bar shows the photo that has the keyboard, or that nothing else has it from.
    fn preview_key(&mut self, ctx: &Context) {
        let focused = ctx.memory(egui::Memory::focused);
        if !files::CAN_PREVIEW || !(focused.is_none() || self.classify.has_keyboard(focused)) {
            return;
        }
        if let Some(photo) = self.photo_in_sight()
            && ctx.input_mut(|input| input.consume_key(Modifiers::NONE, Key::Space))
        {
            self.actions.push(Action::Preview(photo));
        }
    }

    pub(super) fn command(&mut self, ctx: &Context, command: Command) {
        match command {
            Command::Settings => self.actions.push(Action::Show(Page::Settings)),
            Command::Models => self.actions.push(Action::Show(Page::Models)),
            Command::Classify => self.actions.push(Action::Show(Page::Classify)),
            Command::Train => self.actions.push(Action::Show(Page::Train)),
            Command::Evaluate => self.actions.push(Action::Show(Page::Evaluate)),
            Command::Compress => self.actions.push(Action::Show(Page::Compress)),
            Command::Memory => self.actions.push(Action::Show(Page::Memory)),
            Command::Quit => ctx.send_viewport_cmd(ViewportCommand::Close),
            Command::Open => self.actions.push(Action::Ask(self.opens())),
            Command::OpenModel => self.actions.push(Action::Ask(Ask::Checkpoint)),
            Command::Reveal => self.actions.extend(self.file_in_sight().map(Action::Reveal)),
            Command::Preview => self.actions.extend(self.photo_in_sight().map(Action::Preview)),
            Command::Start => self.actions.extend(self.starts()),
            Command::Pause => self.actions.extend(self.pauses()),
            Command::Stop => self.actions.push(Action::Cancel),
            Command::Cut => ctx.send_viewport_cmd(ViewportCommand::RequestCut),
            Command::Copy => ctx.send_viewport_cmd(ViewportCommand::RequestCopy),
            Command::Paste => ctx.send_viewport_cmd(ViewportCommand::RequestPaste),
            Command::Undo | Command::Redo | Command::SelectAll => press(ctx, command),
        }
    }

    fn opens(&self) -> Ask {
        match self.page {
            Page::Models | Page::Memory | Page::Settings => Ask::Checkpoint,
            Page::Classify => Ask::Folders,
            Page::Train => Ask::TrainPhotos,
            Page::Evaluate => Ask::EvaluatePhotos,
            Page::Compress => Ask::ComparisonPhotos,
        }
    }

    fn starts(&self) -> Option<Action> {
        Some(match self.page {
            Page::Train => Action::Train(TrainAction::Start),
            Page::Evaluate => Action::Evaluate(EvaluateAction::Start),
            Page::Compress => Action::Compress(CompressAction::Start),
            Page::Models | Page::Classify if self.classify.can_start() => Action::Start,
            Page::Models | Page::Classify | Page::Memory | Page::Settings => return None,
        })
    }

    /// Pauses what the page in sight does, or goes on with it.
    fn pauses(&self) -> Option<Action> {
        let is_paused = self.is_paused()?;
        Some(match self.page {
            Page::Train => Action::Train(TrainAction::SetPaused(!is_paused)),
            _ => Action::SetPaused(!is_paused),
        })
    }

    /// Whether what the page in sight does is paused; nothing when it does nothing that can be.
    fn is_paused(&self) -> Option<bool> {
        match self.page {
            Page::Train => self.train.is_paused(),
            Page::Evaluate | Page::Compress => None,
            Page::Models | Page::Classify | Page::Memory | Page::Settings => self.classify.is_paused(),
        }
    }

    /// What of the menus can be asked for now.
    pub(super) fn menu_state(&self) -> State {
        State {
            can_start: match self.page {
                Page::Train => self.train.obstacle().is_none(),
                Page::Evaluate => self.evaluate.can_start() && !self.train.holds_device(),
                Page::Compress => !self.compress.is_running() && !self.train.holds_device(),
                _ => self.starts().is_some(),
            },
            can_stop: match self.page {
                Page::Train => self.train.is_training(),
                Page::Evaluate => self.evaluate.is_running(),
                Page::Compress => self.compress.is_running(),
                Page::Models if self.downloads.is_active() => true,
                _ => self.classify.is_running(),
            },
            pause: self.is_paused(),
            has_file: self.file_in_sight().is_some(),
            has_photo: self.photo_in_sight().is_some(),
        }
    }

    /// The photo that is shown large.
    fn photo_in_sight(&self) -> Option<PathBuf> {
        let photo = match self.page {
            Page::Classify => self.classify.photo(),
            Page::Evaluate => self.evaluate.photo(),
            _ => None,
        };
        photo.map(Path::to_owned)
    }

    /// The file that the page in sight is about: a photo, a model, or the folder of a run.
    fn file_in_sight(&self) -> Option<PathBuf> {
        match self.page {
            Page::Models => self.library.selected().path().map(Path::to_owned),
            Page::Train => self.train.folder().map(Path::to_owned),
            _ => self.photo_in_sight(),
        }
    }

    pub(super) fn reveal(&mut self, ctx: &Context, path: PathBuf) {
        if !files::reveal(&path) {
            self.open_elsewhere(ctx, files::folder_of(&path).to_owned());
        }
    }

    /// Shows a folder in the file manager or a page in the browser.
    pub(super) fn open_elsewhere(&mut self, ctx: &Context, path: PathBuf) {
        self.spawn(ctx, "show elsewhere", move |_| {
            files::open(&path)?;
            Ok(None)
        });
    }

    pub(super) fn preview(&mut self, photo: &Path) {
        if let Err(error) = self.system.preview.toggle(photo) {
            self.toasts.error(crate::format::error_chain(&error));
        }
    }
}

/// Gives the text field that has the keyboard the keys of a command, as if they had been pressed.
fn press(ctx: &Context, command: Command) {
    let KeyboardShortcut { modifiers, logical_key } = shortcut(command);
    let modifiers = Modifiers { mac_cmd: cfg!(target_os = "macos"), ..modifiers };
    let pressed = Event::Key { key: logical_key, physical_key: None, pressed: true, repeat: false, modifiers };
    ctx.input_mut(|input| input.events.push(pressed));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_keys_that_egui_knows() {
        for command in Command::ALL {
            let wanted = command.shortcut();
            assert!(Key::from_name(wanted.code).is_some(), "{command:?}: {}", wanted.code);
        }
    }
}
