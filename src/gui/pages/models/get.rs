//! Get a model: published weights by name, any checkpoint by its address, and the one on its way.

use egui::{Align, Key, Layout, RichText, TextEdit, Ui, vec2};
use lucide_icons::Icon;

use crate::format;
use crate::gui::downloads::{Downloads, FetchState, Fetching};
use crate::gui::theme::{self, Palette, STEP};
use crate::gui::widgets::{self, Weight};
use crate::gui::{Action, DownloadAction};
use crate::jobs::download::{Published, catalog};

const SIZE_WIDTH: f32 = 76.0;
const TOP1_WIDTH: f32 = 64.0;
const LICENCE_WIDTH: f32 = 104.0;

pub fn get_ui(ui: &mut Ui, downloads: &mut Downloads, actions: &mut Vec<Action>) {
    ui.label(RichText::new("Get a model").font(theme::strong(17.0)));
    ui.add_space(STEP);
    if let Some(fetching) = &downloads.current {
        widgets::card(ui, |ui| fetching_ui(ui, fetching, actions));
        ui.add_space(STEP);
    }
    let is_free = !downloads.is_active();
    widgets::card(ui, |ui| address_ui(ui, &mut downloads.address, is_free, actions));
    ui.add_space(STEP);
    widgets::card(ui, |ui| {
        widgets::section(ui, "Published weights");
        let about = "Trained on ImageNet's 1,000 classes by timm's and torchvision's authors. A good start for training on \
                     photos of your own. Top-1 is the share of ImageNet's validation photos they get right, as published";
        widgets::note(ui, about);
        ui.add_space(STEP);
        ui.spacing_mut().item_spacing.y = 2.0;
        catalog().iter().for_each(|published| {
            let is_here = downloads.here.contains(&published.name.as_str());
            published_ui(ui, published, is_here, is_free, actions);
        });
    });
}

fn fetching_ui(ui: &mut Ui, fetching: &Fetching, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let asked = match &fetching.state {
                FetchState::Running | FetchState::Stopping => {
                    let is_running = fetching.state == FetchState::Running;
                    let button = |ui: &mut Ui| widgets::button(ui, Weight::Plain, Icon::X, "Cancel download");
                    let clicked = ui.add_enabled_ui(is_running, button).inner.clicked();
                    clicked.then_some(DownloadAction::Cancel)
                }
                FetchState::Stopped | FetchState::Failed(_) => {
                    let dismissed = widgets::icon_button(ui, Icon::X, "Dismiss").clicked();
                    let goes_on = widgets::button(ui, Weight::Primary, Icon::RotateCw, "Go on").clicked();
                    let dismiss = dismissed.then_some(DownloadAction::Dismiss);
                    goes_on.then_some(DownloadAction::GoOn).or(dismiss)
                }
            };
            actions.extend(asked.map(Action::Download));
            ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                ui.add(egui::Label::new(RichText::new(&fetching.what).font(theme::strong(13.0))).truncate());
            });
        });
    });
    widgets::note(ui, fetching.status());
    if let Some(share) = fetching.share() {
        widgets::progress_bar(ui, share);
    }
    let palette = Palette::of(ui);
    if let FetchState::Failed(reason) = &fetching.state {
        widgets::alert(ui, Icon::CircleAlert, palette.error, reason);
    } else if let Some(notice) = &fetching.notice {
        widgets::alert(ui, Icon::TriangleAlert, palette.warning, notice);
    }
}

fn address_ui(ui: &mut Ui, address: &mut String, is_free: bool, actions: &mut Vec<Action>) {
    widgets::section(ui, "From an address");
    ui.horizontal(|ui| {
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let can_start = is_free && !address.trim().is_empty();
            let button = |ui: &mut Ui| widgets::button(ui, Weight::Primary, Icon::Download, "Download");
            let clicked = ui.add_enabled_ui(can_start, button).inner.clicked();
            let field = TextEdit::singleline(address).hint_text("https://… of a .pth, .safetensors or .gguf file");
            let field = field.desired_width(ui.available_width()).min_size(vec2(0.0, theme::CONTROL));
            let field = ui.add(field.align(egui::Align2::LEFT_CENTER));
            let entered = field.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
            if can_start && (clicked || entered) {
                actions.push(Action::Download(DownloadAction::Start(address.trim().to_owned())));
            }
        });
    });
}

fn published_ui(ui: &mut Ui, published: &'static Published, is_here: bool, is_free: bool, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        ui.set_min_height(theme::CONTROL);
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let name = format!("{} {}", if is_here { "Use" } else { "Download" }, published.name);
            let symbol = if is_here { Icon::Check } else { Icon::Download };
            if ui.add_enabled_ui(is_free || is_here, |ui| widgets::icon_button(ui, symbol, &name)).inner.clicked() {
                let asked = match is_here {
                    true => DownloadAction::Open(published),
                    false => DownloadAction::Start(published.name.clone()),
                };
                actions.push(Action::Download(asked));
            }
            let top1 = published.top1.map(|top1| format!("{top1:.1} %")).unwrap_or_default();
            let measured =
                published.top1_side.map(|side| format!("Top-1 at {side} px, published by {}", published.published_by));
            let cell = |ui: &mut Ui, text: &str, width: f32| {
                let size = vec2(width, theme::CONTROL);
                let text = RichText::new(text).size(12.0).color(Palette::of(ui).secondary);
                ui.allocate_ui_with_layout(size, Layout::right_to_left(Align::Center), |ui| {
                    ui.set_min_width(width);
                    ui.label(text)
                })
                .inner
            };
            cell(ui, &published.licence, LICENCE_WIDTH);
            let top1 = cell(ui, &top1, TOP1_WIDTH);
            if let Some(measured) = measured {
                top1.on_hover_text(measured);
            }
            cell(ui, &format!("≈ {}", format::bytes(published.approximate_bytes)), SIZE_WIDTH);
            ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                ui.label(&published.title);
                let name = RichText::new(&published.name).size(11.0).color(Palette::of(ui).secondary);
                ui.add(egui::Label::new(name).truncate());
            });
        });
    });
}
