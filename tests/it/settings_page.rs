//! The Settings page and the rows of loaded models: what is typed is kept when it can be used, and holds at once.

use std::path::Path;

use egui::Key;
use egui::Modifiers;
use egui::accesskit::Role;
use egui_kittest::kittest::Queryable as _;
use galley::device::DeviceChoice;
use galley::settings::{Look, MemorySetting, Settings};

use super::window::Window;

fn kept(window: &Window<'_>) -> Settings {
    let (settings, warnings) = Settings::load(&window.folder.path().join("settings.toml"));
    assert_eq!(warnings, [""; 0]);
    settings
}

/// Replaces what a field holds, and leaves it.
fn fill(window: &mut Window<'_>, name: &str, text: &str) {
    window.harness.get_by_role_and_label(Role::TextInput, name).focus();
    window.harness.step();
    window.press(Modifiers::COMMAND, Key::A);
    window.harness.get_by_role_and_label(Role::TextInput, name).type_text(text);
    window.harness.step();
    window.press(Modifiers::NONE, Key::Enter);
}

/// Clicks a button that may lie below what the window shows.
fn choose(window: &mut Window<'_>, name: &str) {
    window.harness.get_by_role_and_label(Role::Button, name).click_accesskit();
    window.settle();
}

#[test]
fn what_is_typed_is_kept_at_once_and_what_cannot_be_used_is_explained() {
    let mut window = Window::open();
    window.click("Settings");
    for section in ["Memory", "Models", "Device", "Look"] {
        assert!(window.says(section), "{section}");
    }
    fill(&mut window, "Memory limit", "1.5 GB");
    assert_eq!(kept(&window).memory.limit, Some(1_500_000_000));
    // Without a room of its own the shelf has that of the limit.
    assert!(window.says("of 1.50 GB"));
    fill(&mut window, "Memory limit", "a lot");
    assert!(window.says("Not kept: this must be a size such as 400MB"));
    assert_eq!(kept(&window).memory.limit, Some(1_500_000_000));
    fill(&mut window, "Unload after", "30 min");
    assert_eq!(kept(&window).memory.text(MemorySetting::Idle), "30 min");
    choose(&mut window, "Dark");
    choose(&mut window, "Processor");
    let settings = kept(&window);
    assert_eq!((settings.look, settings.device), (Look::Dark, DeviceChoice::Cpu));
    assert!(window.says("Computes on: CPU (chosen by you)"));
    assert!(window.says("it computes rightly"));
    choose(&mut window, "Check again");
    assert!(window.says("comparisons of CPU with slow and exact forms: it computes rightly"));
    if cfg!(target_os = "linux") {
        choose(&mut window, "Metal");
        assert!(window.says("This cannot be used: this system has no Metal device"));
    }
}

#[test]
fn a_model_that_is_loaded_can_be_pinned_and_unloaded_on_the_models_page() {
    let mut window = Window::open();
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/photos/test");
    window.drop(&[&photos]);
    window.settle();
    window.click("Models");
    assert!(window.says("Loaded · "));
    window.click("Pin: keep it loaded");
    assert!(window.says("Pinned · "));
    window.click("Unload");
    assert!(!window.says("Pinned · ") && !window.says("Loaded · "));
}
