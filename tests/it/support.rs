//! Where tests find their material.

use std::path::PathBuf;

/// The folder of real photos and checkpoints, named by `GALLEY_TEST_DATA`; without it the test says that it skips.
pub fn test_data() -> Option<PathBuf> {
    let folder = std::env::var_os("GALLEY_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: GALLEY_TEST_DATA is not set");
    }
    folder
}
