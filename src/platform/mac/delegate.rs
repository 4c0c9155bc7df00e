//! What AppKit asks of the application itself: open these files, may you be ended.
//!
//! winit's delegate has no methods for that, and no other delegate may take its place, so the methods are added to its class.
//! Both are called on the main thread, outside of frames.

use std::path::PathBuf;

use objc2::rc::Retained;
use objc2::runtime::{AnyClass, AnyObject, Imp, NSObjectProtocol, Sel};
use objc2::{MainThreadMarker, msg_send, sel};
use objc2_app_kit::{NSApplication, NSApplicationTerminateReply};
use objc2_foundation::{
    NSAppleEventDescriptor, NSAppleEventManager, NSArray, NSDictionary, NSString, NSURL, NSUserDefaults,
};

use super::add_method;
use crate::platform::asked::{self, Asked};
use crate::platform::quit::{self, Answer};

type OpenUrls = extern "C-unwind" fn(&AnyObject, Sel, &NSApplication, &NSArray<NSURL>);
type ShouldTerminate = extern "C-unwind" fn(&AnyObject, Sel, &NSApplication) -> NSApplicationTerminateReply;

/// Lets the application open files and ask before it quits. Between the making of winit's event loop, which registers the
/// class, and its running: what the program was opened with comes before the first turn of the loop. Whether it worked is seen
/// by [`check`].
pub fn before_the_loop_runs() {
    let Some(main_thread) = MainThreadMarker::new() else { return };
    let Some(class) = AnyClass::get(c"WinitApplicationDelegate") else { return };
    // SAFETY: a function pointer becomes the runtime's type for one of any signature, and is called by this one alone.
    let open_urls: Imp = unsafe { std::mem::transmute(open_urls as OpenUrls) };
    // SAFETY: as above.
    let should_terminate: Imp = unsafe { std::mem::transmute(should_terminate as ShouldTerminate) };
    // SAFETY: no result, and two objects: NSApplicationDelegate's `- (void)application:openURLs:`. It does not unwind.
    unsafe { add_method(class, sel!(application:openURLs:), open_urls, c"v@:@@") };
    // SAFETY: an unsigned number for one object: NSApplicationDelegate's `- (NSApplicationTerminateReply)
    // applicationShouldTerminate:`. It does not unwind.
    unsafe { add_method(class, sel!(applicationShouldTerminate:), should_terminate, c"Q@:@") };
    // The program reads its arguments itself, and AppKit would open them a second time.
    let (key, no) = (NSString::from_str("NSTreatUnknownArgumentsAsOpen"), NSString::from_str("NO"));
    // SAFETY: what is registered is text, which a default may be.
    unsafe {
        let defaults = NSDictionary::from_slices::<NSString>(&[&*key], &[&*no as &AnyObject]);
        NSUserDefaults::standardUserDefaults().registerDefaults(&defaults);
    }
    // AppKit asks a delegate once what it responds to: when it is set.
    let app = NSApplication::sharedApplication(main_thread);
    app.setDelegate(app.delegate().as_deref());
}

/// What does not work of it, in a sentence.
pub fn check(app: &NSApplication) -> Result<(), String> {
    let responds = |method| app.delegate().is_some_and(|delegate| delegate.respondsToSelector(method));
    if !responds(sel!(application:openURLs:)) {
        return Err("Files that are opened with Galley do not arrive: drop them onto the window".to_owned());
    }
    if !responds(sel!(applicationShouldTerminate:)) {
        return Err("Quitting from the Dock stops what goes on without asking".to_owned());
    }
    Ok(())
}

extern "C-unwind" fn open_urls(_: &AnyObject, _: Sel, _: &NSApplication, urls: &NSArray<NSURL>) {
    let files = urls.iter().filter(|url| url.isFileURL());
    let paths: Vec<PathBuf> = files.filter_map(|url| url.to_file_path()).collect();
    if !paths.is_empty() {
        asked::ask(Asked::Open(paths));
    }
}

extern "C-unwind" fn should_terminate(_: &AnyObject, _: Sel, _: &NSApplication) -> NSApplicationTerminateReply {
    match quit::answer(quit::is_working(), reason_to_quit()) {
        Answer::Now => NSApplicationTerminateReply::TerminateNow,
        Answer::Ask => {
            asked::ask(Asked::Quit);
            NSApplicationTerminateReply::TerminateCancel
        }
    }
}

/// Why the system wants the program to end, when an event of it says so.
fn reason_to_quit() -> Option<u32> {
    /// kAEQuitReason of Apple's `AERegistry.h`.
    const QUIT_REASON: u32 = u32::from_be_bytes(*b"why?");
    let event = NSAppleEventManager::sharedAppleEventManager().currentAppleEvent()?;
    // SAFETY: `- (NSAppleEventDescriptor *)attributeDescriptorForKeyword:(AEKeyword)`, and a keyword is a four-byte number.
    let reason: Option<Retained<NSAppleEventDescriptor>> =
        unsafe { msg_send![&event, attributeDescriptorForKeyword: QUIT_REASON] };
    let reason = reason?;
    // Systems have sent it as a type and as an enumeration; what it is not reads as zero.
    Some([reason.typeCodeValue(), reason.enumCodeValue()].into_iter().find(|code| *code != 0).unwrap_or_default())
}
