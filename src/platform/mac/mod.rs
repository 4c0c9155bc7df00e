//! AppKit and Foundation behind the platform layer, one file per thing. Every call here is made on the main thread, where
//! winit runs the window, except where its file says otherwise.

mod awake;
mod delegate;
mod dock;
mod finder;
mod menu_bar;
mod notify;
mod window;

use std::ffi::CStr;

use objc2::ffi;
use objc2::runtime::{AnyClass, Imp, Sel};

pub use awake::Activity;
pub use delegate::before_the_loop_runs;
pub use dock::set_badge;
pub use finder::reveal;
pub use menu_bar::MenuBar;
pub use notify::notify;
pub use window::prepare_window;

/// Adds a method to a class that lacks it.
///
/// # Safety
///
/// `method` must be a function whose parameters (receiver, selector, arguments) and result are what `types` says, in
/// Objective-C's type encoding, and what callers of `name` pass and expect. It must not unwind.
unsafe fn add_method(class: &'static AnyClass, name: Sel, method: Imp, types: &CStr) {
    let class: *const AnyClass = class;
    // SAFETY: the class is registered and lives for ever, the runtime locks itself while it changes it, and the caller
    // promises that function and encoding fit.
    unsafe { ffi::class_addMethod(class.cast_mut(), name, method, types.as_ptr()) };
}
