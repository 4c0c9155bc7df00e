//! Files shown in Finder.

use std::path::Path;

use objc2::MainThreadMarker;
use objc2_app_kit::NSWorkspace;
use objc2_foundation::{NSArray, NSURL};

/// Opens the file's folder in Finder with the file selected; false when the path is none of a file.
pub fn reveal(path: &Path) -> bool {
    let url = NSURL::from_file_path(path).filter(|_| MainThreadMarker::new().is_some());
    let Some(url) = url else { return false };
    NSWorkspace::sharedWorkspace().activateFileViewerSelectingURLs(&NSArray::from_retained_slice(&[url]));
    true
}
