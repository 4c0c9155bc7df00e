//! Messages in the Notification Center. Its object may be used on any thread, and answers on one of its own.

use block2::RcBlock;
use objc2::runtime::Bool;
use objc2_foundation::{NSBundle, NSError, NSString};
use objc2_user_notifications::{
    UNAuthorizationOptions, UNMutableNotificationContent, UNNotificationRequest, UNUserNotificationCenter,
};

/// Shows a message when a person allows messages, asking them the first time; false for a program outside a bundle, which
/// has no place in the Notification Center.
pub fn notify(title: &str, text: &str) -> bool {
    // Without an identifier the center raises an exception that nothing catches.
    if NSBundle::mainBundle().bundleIdentifier().is_none() {
        return false;
    }
    let (title, text) = (title.to_owned(), text.to_owned());
    // Called on a thread of the center's: it holds nothing but its own texts.
    let answered = RcBlock::new(move |is_allowed: Bool, _: *mut NSError| {
        if is_allowed.as_bool() {
            show(&title, &text);
        }
    });
    let center = UNUserNotificationCenter::currentNotificationCenter();
    center.requestAuthorizationWithOptions_completionHandler(UNAuthorizationOptions::Alert, &answered);
    true
}

/// On any thread.
fn show(title: &str, text: &str) {
    let content = UNMutableNotificationContent::new();
    content.setTitle(&NSString::from_str(title));
    content.setBody(&NSString::from_str(text));
    // One name for all: a new message takes the place of the one before.
    let name = NSString::from_str("job");
    let request = UNNotificationRequest::requestWithIdentifier_content_trigger(&name, &content, None);
    UNUserNotificationCenter::currentNotificationCenter().addNotificationRequest_withCompletionHandler(&request, None);
}
