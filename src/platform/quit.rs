//! Whether the program may be ended now.

use std::sync::atomic::{AtomicBool, Ordering};

/// What is answered when the system wants the program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It ends now; what a run has is saved on the way.
    Now,
    /// The window asks first.
    Ask,
}

/// Kept for the system's question: it is asked where nothing of the window can be reached.
static IS_WORKING: AtomicBool = AtomicBool::new(false);

/// Notes whether work would be lost or cut short now.
pub fn set_working(is_working: bool) {
    IS_WORKING.store(is_working, Ordering::Release);
}

pub fn is_working() -> bool {
    IS_WORKING.load(Ordering::Acquire)
}

/// The answer while work goes on or not. `reason` is the four letters that came with a quit event, if any.
pub fn answer(is_working: bool, reason: Option<u32>) -> Answer {
    let ends_session = reason.is_some_and(|reason| SESSION_ENDS.contains(&reason.to_be_bytes()));
    if is_working && !ends_session { Answer::Ask } else { Answer::Now }
}

/// The reasons of a logout, restart or shutdown, asked for with and without a dialog: kAELogOut, kAEReallyLogOut,
/// kAEShowRestartDialog, kAEShowShutdownDialog, kAERestart and kAEShutDown of Apple's `AERegistry.h`. Holding those up would
/// keep a whole computer waiting for an answer nobody may be there to give.
const SESSION_ENDS: [[u8; 4]; 6] = [*b"logo", *b"rlgo", *b"rrst", *b"rsdn", *b"rest", *b"shut"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_asked_about_unless_the_session_ends() {
        assert_eq!(answer(false, None), Answer::Now);
        assert_eq!(answer(true, None), Answer::Ask);
        // kAEReallyLogOut as the header's number.
        assert_eq!(answer(true, Some(0x726C_676F)), Answer::Now);
        assert_eq!(answer(true, Some(u32::from_be_bytes(*b"shut"))), Answer::Now);
        assert_eq!(answer(true, Some(u32::from_be_bytes(*b"quit"))), Answer::Ask, "no reason of a session");
    }
}
