//! The window: pages draw their state and return actions; jobs do the work.

/// Opens the window and runs until it is closed. `paths` (folders, photos, checkpoints) are opened as if dropped on it.
pub fn run(_paths: Vec<std::path::PathBuf>) -> Result<(), String> {
    Ok(())
}
