//! What the system asks of the window, and the window's answers: closing while something goes on, files that are opened
//! with it, and the menu bar's commands. Jobs are the real ones.

use std::path::PathBuf;

use egui::accesskit::Role;
use egui::{Key, Modifiers, ViewportCommand, ViewportEvent, ViewportId};
use egui_kittest::kittest::Queryable as _;
use galley::platform::Asked;
use galley::platform::menu::Command;

use super::train_page::{drop_photos, open_page, press_start, set_slider};
use super::window::{Window, with_results};

/// Closes the window as its own button does, for one frame.
pub fn close(window: &mut Window<'_>) {
    let events = |window: &mut Window<'_>| {
        let viewports = &mut window.harness.input_mut().viewports;
        std::mem::take(&mut viewports.entry(ViewportId::ROOT).or_default().events)
    };
    events(window);
    let viewports = &mut window.harness.input_mut().viewports;
    viewports.entry(ViewportId::ROOT).or_default().events.push(ViewportEvent::Close);
    window.harness.step();
    events(window);
}

/// What the window was told to do in the last frame.
fn told(window: &Window<'_>, command: &ViewportCommand) -> bool {
    window.harness.output().viewport_output[&ViewportId::ROOT].commands.contains(command)
}

fn press_button(window: &mut Window<'_>, name: &str) {
    window.harness.get_by_role_and_label(Role::Button, name).click();
    // It is pressed in one frame and let go in the next.
    window.harness.run_steps(2);
}

fn asked(window: &mut Window<'_>, asked: Asked) {
    window.harness.state_mut().ask_as_system(asked);
    window.harness.step();
}

/// More photos than are classified while a person looks.
fn many_photos(window: &Window<'_>) -> PathBuf {
    let photos = window.folder.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    let sample = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/photos/test/pizza/001.jpg");
    std::fs::copy(&sample, photos.join("0.jpg")).unwrap();
    (1..5000).for_each(|n| std::fs::hard_link(photos.join("0.jpg"), photos.join(format!("{n}.jpg"))).unwrap());
    photos
}

fn classify_many(window: &mut Window<'_>) {
    let photos = many_photos(window);
    window.drop(&[&photos]);
    window.step_until("classifying", |window| window.says(" of 5,000 photos"));
}

#[test]
fn a_window_in_which_nothing_goes_on_closes_without_a_question() {
    let mut window = Window::open();
    close(&mut window);
    assert!(!told(&window, &ViewportCommand::CancelClose) && !window.says("Stop and quit"));
    asked(&mut window, Asked::Quit);
    assert!(told(&window, &ViewportCommand::Close), "who asked was told to wait for the window");
}

#[test]
fn closing_while_photos_are_classified_asks_and_both_answers_hold() {
    let mut window = Window::open();
    classify_many(&mut window);
    close(&mut window);
    assert!(told(&window, &ViewportCommand::CancelClose));
    window.harness.step();
    assert!(window.says("Photos are being classified") && window.says("Those that are done are kept"));
    window.harness.check_accessibility();
    close(&mut window);
    assert!(told(&window, &ViewportCommand::CancelClose), "an impatient second press is no answer");
    window.press_only(Key::Escape);
    assert!(!window.says("Stop and quit"), "Escape keeps working");
    assert!(window.says(" of 5,000 photos") && !window.says("Stopping"), "and does not stop the run");

    asked(&mut window, Asked::Quit);
    window.harness.step();
    press_button(&mut window, "Keep working");
    assert!(!window.says("Stop and quit") && window.says(" of 5,000 photos"));

    asked(&mut window, Asked::Do(Command::Quit));
    assert!(told(&window, &ViewportCommand::Close), "the menu closes the window, which then asks");
    close(&mut window);
    window.harness.step();
    press_button(&mut window, "Stop and quit");
    window.harness.step();
    assert!(told(&window, &ViewportCommand::Close));
    close(&mut window);
    assert!(!told(&window, &ViewportCommand::CancelClose), "the question is asked once");
}

#[test]
fn a_question_goes_away_with_what_it_is_about() {
    let mut window = Window::open();
    classify_many(&mut window);
    close(&mut window);
    window.harness.step();
    assert!(window.says("Stop and quit"));
    window.request(galley::gui::Action::Cancel);
    window.step_until("over", |window| !window.says("Stop and quit"));
    assert!(!told(&window, &ViewportCommand::Close), "what there is may be looked at");
}

#[test]
fn a_paused_run_is_saved_and_closed_upon_without_a_question() {
    let mut window = open_page();
    drop_photos(&mut window);
    set_slider(&mut window, "Epochs", 3.0);
    press_start(&mut window);
    window.step_until("training", |window| window.says("Epoch 1 of 3"));
    press_button(&mut window, "Pause");
    window.step_until("paused", |window| window.says("the device is free meanwhile"));
    close(&mut window);
    assert!(!window.says("Stop and quit"));
    window.step_until("closed", |window| told(window, &ViewportCommand::Close));
}

#[test]
fn what_is_opened_with_the_program_is_handled_like_a_drop() {
    let mut window = Window::open();
    let notes = window.folder.path().join("notes.txt");
    std::fs::write(&notes, "hello").unwrap();
    asked(&mut window, Asked::Open(vec![notes]));
    window.step_until("refused", |window| window.says("Galley cannot open notes.txt"));
    asked(&mut window, Asked::Promise);
    window.harness.step();
    assert!(window.says("export them from Photos first"));
}

#[test]
fn a_drop_of_what_is_not_there_says_so() {
    let mut window = Window::open();
    let gone = window.folder.path().join("IMG_0001.jpg");
    window.drop(&[&gone]);
    window.step_until("explained", |window| window.says("IMG_0001.jpg is not there"));
    assert!(window.says("have to be exported from it first"));
}

#[test]
fn commands_of_the_menu_bar_reach_text_fields_and_pages() {
    let mut window = with_results();
    asked(&mut window, Asked::Do(Command::Models));
    window.settle();
    assert!(window.says("Open checkpoint…"));
    asked(&mut window, Asked::Do(Command::Classify));
    window.settle();

    window.harness.get_by_role(Role::TextInput).focus();
    window.harness.step();
    window.harness.get_by_role(Role::TextInput).type_text("soup");
    window.settle();
    assert!(window.says("1 of 4 photos shown"));
    asked(&mut window, Asked::Do(Command::SelectAll));
    window.harness.get_by_role(Role::TextInput).type_text("pizza");
    window.settle();
    assert!(window.says("2 of 4 photos shown"), "what was typed took the place of what was selected");
    for (command, told_to) in [
        (Command::Cut, ViewportCommand::RequestCut),
        (Command::Copy, ViewportCommand::RequestCopy),
        (Command::Paste, ViewportCommand::RequestPaste),
    ] {
        asked(&mut window, Asked::Do(command));
        assert!(told(&window, &told_to), "{command:?}");
    }
}

#[test]
fn keys_that_the_menu_bar_has_taken_do_nothing_in_the_window() {
    let mut window = Window::open();
    window.harness.state_mut().leave_keys_to_the_menu_bar();
    window.press(Modifiers::COMMAND, Key::Num1);
    assert!(window.says("No photos yet"));
    asked(&mut window, Asked::Do(Command::Models));
    window.settle();
    assert!(window.says("Open checkpoint…"));
}

#[test]
fn a_photo_can_be_shown_where_it_lies() {
    let mut window = with_results();
    window.click("d.jpg, pizza, 62 %");
    let name = galley::platform::files::REVEAL;
    assert!(window.harness.query_by_role_and_label(Role::Button, name).is_some());
    window.harness.get_by_label("a.jpg, pizza, 97 %").click_secondary();
    window.harness.run_steps(2);
    assert_eq!(window.harness.query_all_by_role_and_label(Role::Button, name).count(), 2, "and from its menu");
    window.harness.check_accessibility();
}
