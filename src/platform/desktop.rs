//! The window's side of the system: what it has handed over so far, so that only changes are handed over again.

use super::asked::{self, Asked};
use super::badge::Badge;
use super::menu::State;
use super::system::{self, Activity, MenuBar};
use super::work::Work;

/// Until it is [connected](Self::connect), nothing reaches the system, and nothing comes from it: a window in a test has no
/// Dock.
#[derive(Default)]
pub struct Desktop {
    is_connected: bool,
    menu_bar: Option<(MenuBar, State)>,
    badge: Badge,
    activity: Option<Activity>,
}

impl Desktop {
    /// Makes the menu bar and prepares the window; returns a sentence for each thing that could not be made, which the
    /// window does without. `wake` is called, by any thread, when something waits. On the window's thread, once it is there.
    pub fn connect(&mut self, wake: impl Fn() + Send + 'static) -> Vec<String> {
        self.is_connected = true;
        asked::wake_with(wake);
        let prepared = system::prepare_window();
        let state = State::default();
        let made = MenuBar::install();
        let problems = [prepared.err(), made.as_ref().err().cloned()];
        self.menu_bar = made.ok().flatten().map(|bar| {
            bar.follow(&state);
            (bar, state)
        });
        problems.into_iter().flatten().collect()
    }

    /// True when the system has the window's shortcuts, and takes their keys before the window sees them.
    pub fn has_menu_bar(&self) -> bool {
        self.menu_bar.is_some()
    }

    /// What waits for the window.
    pub fn asked(&self) -> Vec<Asked> {
        if self.is_connected { asked::take() } else { Vec::new() }
    }

    /// Shows in the menus what can be done.
    pub fn show_state(&mut self, state: State) {
        if let Some((bar, shown)) = self.menu_bar.as_mut().filter(|(_, shown)| *shown != state) {
            bar.follow(&state);
            *shown = state;
        }
    }

    /// Shows how far the work is, and keeps the computer awake for it.
    pub fn show_work(&mut self, works: &[Work]) {
        if !self.is_connected {
            return;
        }
        super::quit::set_working(!works.is_empty());
        if let Some(text) = self.badge.change(works) {
            system::set_badge(text);
        }
        match works.first() {
            None => self.activity = None,
            Some(work) if self.activity.is_none() => self.activity = Some(Activity::begin(work.kind.reason())),
            Some(_) => {}
        }
    }

    /// Tells a person who looks elsewhere; false when the system cannot.
    pub fn notify(&self, title: &str, text: &str) -> bool {
        self.is_connected && system::notify(title, text)
    }
}
