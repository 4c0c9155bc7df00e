//! What a system without these things does with them: nothing.

use std::path::Path;

use super::menu::State;

/// There is none.
#[derive(Debug)]
pub struct MenuBar(std::convert::Infallible);

impl MenuBar {
    pub fn install() -> Result<Option<Self>, String> {
        Ok(None)
    }

    pub fn follow(&self, _: &State) {
        match self.0 {}
    }
}

/// Nothing is kept awake.
#[derive(Debug)]
pub struct Activity;

impl Activity {
    pub fn begin(_: &str) -> Self {
        Self
    }
}

/// Nothing has to be there before the loop runs.
pub fn before_the_loop_runs() {}

pub fn prepare_window() -> Result<(), String> {
    Ok(())
}

pub fn set_badge(_: Option<&str>) {}

pub fn notify(_: &str, _: &str) -> bool {
    false
}

pub fn reveal(_: &Path) -> bool {
    false
}
