//! The window: pages draw their state and return actions; jobs do the work.

/// Opens the window and runs until it is closed.
pub fn run() -> Result<(), String> {
    Ok(())
}
