//! What winit leaves out of a window: colours that are right on wide-gamut screens, and a word about promised files.

use std::sync::atomic::{AtomicIsize, Ordering};

use objc2::runtime::{AnyClass, AnyObject, Imp, ProtocolObject, Sel};
use objc2::{MainThreadMarker, Message as _, sel};
use objc2_app_kit::{
    NSApplication, NSColorSpace, NSDragOperation, NSDraggingInfo, NSFilePromiseReceiver, NSPasteboardType, NSWindow,
};
use objc2_foundation::NSArray;

use super::{add_method, delegate};
use crate::platform::asked::{self, Asked};

type DraggingUpdated = extern "C-unwind" fn(&AnyObject, Sel, &ProtocolObject<dyn NSDraggingInfo>) -> NSDragOperation;

/// Prepares the window once it is there; what does not work comes back in a sentence.
pub fn prepare_window() -> Result<(), String> {
    let main_thread = MainThreadMarker::new().ok_or("The window was not opened on the main thread")?;
    let app = NSApplication::sharedApplication(main_thread);
    explain_promises();
    // Before it is shown, the program's one window is the only one.
    for window in app.windows() {
        // wgpu names no colour space, and the screen's own would show photos oversaturated.
        window.setColorSpace(Some(&NSColorSpace::sRGBColorSpace()));
        accept_promises(&window);
    }
    delegate::check(&app)
}

fn explain_promises() {
    let Some(class) = AnyClass::get(c"WinitWindowDelegate") else { return };
    // SAFETY: a function pointer becomes the runtime's type for one of any signature, and is called by this one alone.
    let updated: Imp = unsafe { std::mem::transmute(dragging_updated as DraggingUpdated) };
    // SAFETY: an unsigned number for one object: NSDraggingDestination's `- (NSDragOperation)draggingUpdated:`. It does not
    // unwind.
    unsafe { add_method(class, sel!(draggingUpdated:), updated, c"Q@:@") };
}

/// Lets drags of files that are only promised, as those from Photos, come over the window: else it would not know of them.
fn accept_promises(window: &NSWindow) {
    let promised = NSFilePromiseReceiver::readableDraggedTypes();
    let types: Vec<_> = promised.iter().chain([file_names().retain()]).collect();
    window.registerForDraggedTypes(&NSArray::from_retained_slice(&types));
    // As for the application: a delegate is asked what it responds to when it is set.
    window.setDelegate(window.delegate().as_deref());
}

/// Called again and again while something hovers. Files are taken as winit takes them; it refuses the rest.
extern "C-unwind" fn dragging_updated(
    _: &AnyObject,
    _: Sel,
    drag: &ProtocolObject<dyn NSDraggingInfo>,
) -> NSDragOperation {
    static EXPLAINED: AtomicIsize = AtomicIsize::new(isize::MIN);
    let names = NSArray::from_slice(&[file_names()]);
    if drag.draggingPasteboard().availableTypeFromArray(&names).is_some() {
        return NSDragOperation::Copy;
    }
    let drag = drag.draggingSequenceNumber();
    if EXPLAINED.swap(drag, Ordering::Relaxed) != drag {
        asked::ask(Asked::Promise);
    }
    NSDragOperation::None
}

/// The type winit takes: a list of paths.
#[expect(deprecated, reason = "winit reads this type and no other")]
fn file_names() -> &'static NSPasteboardType {
    // SAFETY: a constant of AppKit, which is loaded before any code of the program runs.
    unsafe { objc2_app_kit::NSFilenamesPboardType }
}
