//! Getting a model on the Models page, by what a person and a screen reader see. The server is the one of `downloads`.

use std::path::Path;

use egui::accesskit::Role;
use egui_kittest::kittest::Queryable as _;
use galley::gui::{Action, DownloadAction};
use galley::jobs::download::catalog;

use super::downloads::server::{Reply, Server};
use super::support::write_model;
use super::window::{Window, can_render};

fn open_page<'a>() -> Window<'a> {
    let mut window = Window::open();
    window.click("Models");
    window.click("Get a model");
    window
}

fn served_model(window: &Window<'_>) -> Vec<u8> {
    let path = window.folder.path().join("served");
    write_model(&path, 4, 1);
    std::fs::read(path).unwrap()
}

#[test]
fn an_address_is_fetched_and_its_model_offered() {
    let mut window = open_page();
    window.harness.check_accessibility();
    assert!(window.says(&catalog()[0].name) && window.says(&catalog()[0].licence));
    let file = served_model(&window);
    let server = Server::new(move |request| Reply::file(request, &file, "\"1\""));
    window.harness.get_by_role(Role::TextInput).focus();
    window.harness.step();
    window.harness.get_by_role(Role::TextInput).type_text(&server.at("/food.safetensors"));
    window.settle();
    window.click("Download");
    assert!(window.says("food.safetensors") && window.says("SqueezeNet 1.1"));
    assert!(window.folder.path().join("models/food.safetensors").exists());
    window.harness.get_by_role_and_label(Role::Button, "Use this model").click();
    window.settle();
    assert!(window.says("food.safetensors, in use"));
}

#[test]
fn a_download_is_canceled_and_goes_on() {
    let mut window = open_page();
    let file = served_model(&window);
    let length = file.len();
    let server = Server::new(move |request| {
        let reply = Reply::file(request, &file, "\"1\"");
        if request.number == 0 { reply.stall_after(length / 2) } else { reply }
    });
    window.request(Action::Download(DownloadAction::Start(server.at("/food.safetensors"))));
    window.step_until("half there", |window| window.says("Downloading, "));
    window.harness.check_accessibility();
    window.harness.get_by_role_and_label(Role::Button, "Cancel download").click();
    window.step_until("stopped", |window| window.says("go on whenever you like"));
    window.settle();
    assert!(window.folder.path().join("models/food.safetensors.part").exists());
    window.click("Go on");
    assert!(window.says("food.safetensors") && window.says("SqueezeNet 1.1"));
    assert_eq!(server.requests()[1].range_start(), Some(length as u64 / 2));
}

#[test]
fn what_cannot_be_fetched_says_why_and_what_is_here_is_opened() {
    let mut window = open_page();
    let server = Server::new(|_| Reply::page("<html><title>Sign in</title>"));
    window.request(Action::Download(DownloadAction::Start(server.at("/food.pth"))));
    window.settle();
    assert!(window.says("web page") && window.says("Sign in"));
    window.click("Dismiss");
    assert!(!window.says("web page"));

    let published = &catalog()[0];
    let here = published.path(&window.folder.path().join("models"));
    std::fs::create_dir_all(here.parent().unwrap()).unwrap();
    write_model(&here, 4, 1);
    window.request(Action::Download(DownloadAction::Show(true)));
    window.settle();
    window.click(&format!("Use {}", published.name));
    assert!(window.says("SqueezeNet 1.1"), "what the file holds counts");
}

#[test]
fn the_list_is_drawn() {
    if !can_render() {
        return;
    }
    let mut window = open_page();
    let server = Server::new(|request| Reply::file(request, &[1; 500_000], "\"1\"").stall_after(200_000));
    window.request(Action::Download(DownloadAction::Start(server.at("/food.safetensors"))));
    window.step_until("half there", |window| window.says("Downloading, "));
    let picture = window.harness.render().unwrap();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("Get a model.png");
    picture.save(&path).unwrap();
    let colors: std::collections::HashSet<[u8; 4]> = picture.pixels().map(|pixel| pixel.0).collect();
    assert!(colors.len() > 100, "{} colors in {}", colors.len(), path.display());
}
