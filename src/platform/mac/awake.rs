//! No sleep and no App Nap while work goes on. `NSProcessInfo` may be used on any thread.

use objc2::rc::Retained;
use objc2::runtime::{NSObjectProtocol, ProtocolObject};
use objc2_foundation::{NSActivityOptions, NSProcessInfo, NSString};

/// The computer stays awake until it is dropped; the screen may go dark.
#[derive(Debug)]
pub struct Activity(Retained<ProtocolObject<dyn NSObjectProtocol>>);

impl Activity {
    /// `reason` is shown by `pmset -g assertions`.
    pub fn begin(reason: &str) -> Self {
        let reason = NSString::from_str(reason);
        let options = NSActivityOptions::UserInitiated;
        Self(NSProcessInfo::processInfo().beginActivityWithOptions_reason(options, &reason))
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        // SAFETY: it is the object that began this activity, and it is ended once.
        unsafe { NSProcessInfo::processInfo().endActivity(&self.0) };
    }
}
