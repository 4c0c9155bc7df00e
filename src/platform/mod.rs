//! What the window is to the system it runs on: menu bar, Dock, notifications, and files shown by other programs.
//!
//! What is decided is decided here in plain Rust, the same on each system: what a menu holds, whether quitting is allowed,
//! what a badge says, when a notification is due. `mac` only hands it to AppKit; `elsewhere` is what other systems do with
//! it: nothing. Nothing of it is needed to compute.

pub mod asked;
pub mod badge;
mod desktop;
pub mod files;
pub mod menu;
pub mod notice;
pub mod quit;
pub mod work;

#[cfg(not(all(target_os = "macos", feature = "window")))]
mod elsewhere;
#[cfg(all(target_os = "macos", feature = "window"))]
mod mac;

#[cfg(not(all(target_os = "macos", feature = "window")))]
use elsewhere as system;
#[cfg(all(target_os = "macos", feature = "window"))]
use mac as system;

pub use asked::Asked;
pub use desktop::Desktop;
pub use system::{Activity, before_the_loop_runs};
pub use work::{Kind, Work};
