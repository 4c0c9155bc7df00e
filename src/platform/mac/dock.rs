//! The badge on the program's icon in the Dock.

use objc2::MainThreadMarker;
use objc2_app_kit::NSApplication;
use objc2_foundation::NSString;

/// Shows a text on the icon, or nothing.
pub fn set_badge(text: Option<&str>) {
    let Some(main_thread) = MainThreadMarker::new() else { return };
    let label = text.map(NSString::from_str);
    NSApplication::sharedApplication(main_thread).dockTile().setBadgeLabel(label.as_deref());
}
