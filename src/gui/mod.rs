//! The window: pages draw their state and return actions; jobs do the work.

mod actions;
mod closing;
mod commands;
mod compress_actions;
mod dialogs;
mod download_actions;
mod downloads;
mod drops;
mod evaluate_actions;
mod library;
mod memory_actions;
mod native;
mod pages;
mod pictures;
mod results;
mod run;
mod settings_actions;
mod strip;
mod system;
mod tasks;
mod textures;
mod theme;
mod title_bar;
mod toasts;
mod train_actions;
mod training;
mod view;
mod widgets;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use egui::{CentralPanel, Context, Frame, Margin, Panel, RichText, Ui, vec2};
use lucide_icons::Icon;

pub use actions::{Action, CompressAction, DownloadAction, EvaluateAction, MemoryAction, TrainAction};
use closing::Closing;
use downloads::Downloads;
use drops::Hover;
use library::Library;
pub use native::run;
use pages::classify::Classify;
use pages::compress::Compress;
use pages::evaluate::Evaluate;
use pages::memory::MemoryPage;
use pages::settings::SettingsPage;
use pages::train::Train;
use run::{Run, RunState};
use strip::Strip;
use system::System;
use tasks::Tasks;
use theme::{Palette, STEP};
use toasts::Toasts;

use crate::export::Row;
use crate::jobs;
use crate::jobs::brought::{self, Brought};
use crate::jobs::classify::{ClassifyEvent, ClassifySummary, ModelSummary};
use crate::jobs::doctor::Prepared;
use crate::jobs::sweep::SweepRow;
use crate::memory;
use crate::platform::menu::Command;
use crate::predict::ModelSource;
use crate::settings::Settings;
use crate::train::RatesTried;

/// How soon a job's news is drawn. Many calls within that time make one frame.
const WAKE: Duration = Duration::from_millis(33);

/// Asks for a frame soon; any thread may call it as often as it likes.
fn wake(ctx: &Context) {
    ctx.request_repaint_after(WAKE);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    Models,
    Classify,
    Train,
    Evaluate,
    Compress,
    Memory,
    Settings,
}

impl Page {
    const ALL: [(Self, Icon, &'static str, Command); 7] = [
        (Self::Models, Icon::Boxes, "Models", Command::Models),
        (Self::Classify, Icon::Images, "Classify", Command::Classify),
        (Self::Train, Icon::GraduationCap, "Train", Command::Train),
        (Self::Evaluate, Icon::Target, "Evaluate", Command::Evaluate),
        (Self::Compress, Icon::Shrink, "Compress", Command::Compress),
        (Self::Memory, Icon::MemoryStick, "Memory", Command::Memory),
        (Self::Settings, Icon::Settings, "Settings", Command::Settings),
    ];
}

/// Where the window keeps things.
#[derive(Debug, Clone)]
pub struct Places {
    pub jobs: jobs::Places,
    /// The folder of the runs that are begun here.
    pub runs: PathBuf,
    /// `None`: settings are not kept.
    pub settings: Option<PathBuf>,
}

/// Everything the window shows.
pub struct App {
    places: Places,
    settings: Settings,
    /// The settings as they were last written, or are being written.
    saved: Settings,
    is_saving: bool,
    page: Page,
    library: Library,
    downloads: Downloads,
    classify: Classify,
    train: Train,
    evaluate: Evaluate,
    compress: Compress,
    memory_page: MemoryPage,
    settings_page: SettingsPage,
    strip: Strip,
    tasks: Tasks,
    toasts: Toasts,
    hover: Hover,
    actions: Vec<Action>,
    /// The device that computes, and what a person should know about it; none before it is checked.
    device: Option<Prepared>,
    closing: Closing,
    system: System,
    /// The system says that memory became short since it was last looked at.
    is_short: Arc<AtomicBool>,
}

impl App {
    /// `paths` are what the program was started with: they are handled like a drop.
    pub fn new(ctx: &Context, settings: Settings, mut places: Places, paths: Vec<PathBuf>) -> Self {
        theme::install(ctx, settings.look);
        if settings.models_folder.is_some() {
            places.jobs.models_folder = settings.models_folder();
        }
        places.jobs.models.follow(&settings.memory_in_force());
        let actions = if paths.is_empty() { Vec::new() } else { vec![Action::LookAt(paths)] };
        let library = Library::new(&settings.recent_models);
        let mut config = settings.train.clone();
        // One that is off the list would be begun from unseen.
        config.model = config.model.filter(|path| library.get(&ModelSource::File(path.clone())).is_some());
        let mut app = Self {
            saved: settings.clone(),
            is_saving: false,
            library,
            downloads: Downloads::default(),
            classify: Classify::new(&settings, brought::sample_photos()),
            train: Train::new(config, brought::sample_photos()),
            evaluate: Evaluate::new(brought::sample_photos()),
            compress: Compress::new(brought::sample_photos()),
            memory_page: MemoryPage::default(),
            settings_page: SettingsPage::default(),
            places,
            settings,
            page: Page::Classify,
            strip: Strip::default(),
            tasks: Tasks::default(),
            toasts: Toasts::default(),
            hover: Hover::default(),
            actions,
            device: None,
            closing: Closing::No,
            system: System::default(),
            is_short: Arc::default(),
        };
        app.check_device(ctx);
        let (window, is_short) = (ctx.clone(), app.is_short.clone());
        memory::watch_pressure(move || {
            is_short.store(true, Relaxed);
            wake(&window);
        });
        app
    }

    /// Takes the news of every job and does what was asked for. Also runs while the window is hidden, so that no job
    /// ever waits for the window to be looked at.
    pub fn tick(&mut self, ctx: &Context) {
        if self.device.as_ref().is_some_and(|device| device.chosen.is_outdated()) {
            self.device = None;
            self.check_device(ctx);
        }
        let chosen = self.device.as_ref().map(|device| &device.chosen);
        self.strip.sample(self.train.phase(), chosen);
        if self.is_short.swap(false, Relaxed) {
            self.strip.read(chosen);
        }
        self.answer_pressure();
        let is_asked_to_close = self.take_asked(ctx);
        let mut actions = std::mem::take(&mut self.actions);
        actions.extend(self.tasks.finished());
        actions.extend(self.classify.poll(ctx));
        actions.extend(self.train.poll(&self.places.jobs, ctx));
        self.evaluate.poll();
        self.follow_compression(ctx);
        self.follow_variants(ctx);
        let arrived = self.downloads.poll();
        actions.extend(arrived.map(|path| Action::Download(DownloadAction::Arrived(path))));
        for action in actions {
            self.apply(ctx, action);
        }
        self.follow_peaks(ctx);
        self.tidy_models(ctx);
        self.keep_settings(ctx);
        self.follow_system(ctx);
        self.follow_closing(ctx, is_asked_to_close);
    }

    /// Writes settings that have changed, one writer at a time; those of a slider when it is let go.
    fn keep_settings(&mut self, ctx: &Context) {
        if !ctx.input(|input| input.pointer.any_down()) {
            self.settings.remember_training(&self.train.config);
        }
        let Some(path) = self.places.settings.clone() else { return };
        if self.is_saving || self.settings == self.saved {
            return;
        }
        self.is_saving = true;
        self.saved = self.settings.clone();
        let settings = self.settings.clone();
        self.spawn(ctx, "save settings", move |_| {
            let saved = settings.save(&path).map_err(|error| crate::format::error_chain(&error));
            Ok(Some(Action::SettingsSaved(saved)))
        });
    }

    /// Draws one frame. What the pages ask for is done by the next [`tick`](Self::tick).
    pub fn draw(&mut self, ui: &mut Ui) {
        let ctx = ui.ctx().clone();
        if title_bar::IS_OWN {
            title_bar::title_bar_ui(ui);
        }
        self.shortcuts(&ctx);
        self.take_drops(&ctx);
        self.strip_ui(ui);
        self.sidebar_ui(ui);
        let palette = Palette::of(ui);
        let frame = Frame::new().fill(palette.page).inner_margin(Margin::symmetric(24, 20));
        CentralPanel::default().frame(frame).show(ui, |ui| match self.page {
            Page::Models => {
                let shelved = self.places.jobs.models.shelf.contents();
                pages::models::page_ui(ui, &mut self.library, &shelved, &mut self.downloads, &mut self.actions);
            }
            Page::Classify => pages::classify::page_ui(ui, &mut self.classify, &self.library, &mut self.actions),
            Page::Train => {
                // A run that needs the memory of idle models gets it.
                let idle = self.places.jobs.models.shelf.idle_bytes();
                let reading = self.strip.latest().map(|reading| reading.without(idle));
                pages::train::page_ui(ui, &mut self.train, &self.library, reading, &mut self.actions);
            }
            Page::Evaluate => {
                let obstacle = self.train.holds_device().then_some(evaluate_actions::BUSY);
                pages::evaluate::page_ui(ui, &mut self.evaluate, &self.library, obstacle, &mut self.actions);
            }
            Page::Compress => {
                let blocked = self.train.holds_device().then_some(evaluate_actions::BUSY);
                pages::compress::page_ui(ui, &mut self.compress, &self.library, blocked, &mut self.actions);
            }
            Page::Memory => {
                let mut asked = Vec::new();
                pages::memory::page_ui(ui, &self.memory_page, &self.memory_now(), &mut asked);
                self.actions.extend(asked);
            }
            Page::Settings => {
                let known = pages::settings::Known {
                    models: &self.places.jobs.models,
                    reading: self.strip.latest(),
                    device: self.device.as_ref(),
                };
                pages::settings::page_ui(ui, &mut self.settings_page, &self.settings, &known, &mut self.actions);
            }
        });
        self.toasts.show(&ctx, strip::HEIGHT + STEP * 2.0);
        if !self.hover.paths.is_empty() {
            match self.page {
                Page::Train => drops::overlay(&ctx, &self.hover, drops::promise_to_train),
                Page::Evaluate => drops::overlay(&ctx, &self.hover, drops::promise_to_evaluate),
                Page::Compress => drops::overlay(&ctx, &self.hover, drops::promise_to_compress),
                Page::Models | Page::Classify | Page::Memory | Page::Settings => {
                    drops::overlay(&ctx, &self.hover, |brought| drops::promise(brought, self.classify.is_running()));
                }
            }
        }
        self.closing_ui(&ctx);
        if !self.actions.is_empty() {
            ctx.request_repaint();
        }
    }

    fn strip_ui(&self, ui: &mut Ui) {
        let palette = Palette::of(ui);
        let frame = Frame::new().fill(palette.sidebar).inner_margin(Margin::symmetric(16, 4));
        let panel = Panel::bottom("memory strip").frame(frame).exact_size(strip::HEIGHT + 8.0).resizable(false);
        panel.show(ui, |ui| self.strip.ui(ui));
    }

    fn sidebar_ui(&mut self, ui: &mut Ui) {
        let palette = Palette::of(ui);
        let frame = Frame::new().fill(palette.sidebar).inner_margin(Margin::symmetric(12, 20));
        let panel = Panel::left("pages").frame(frame).exact_size(220.0).resizable(false);
        panel.show(ui, |ui| {
            ui.add_space(title_bar::height(ui.ctx()) / 2.0);
            ui.horizontal(|ui| {
                ui.add_space(12.0);
                ui.label(RichText::new("Galley").font(theme::strong(16.0)));
            });
            ui.add_space(STEP);
            ui.spacing_mut().item_spacing = vec2(0.0, 4.0);
            for (page, icon, text, command) in Page::ALL {
                // egui spells this key out.
                let shortcut = ui.ctx().format_shortcut(&commands::shortcut(command)).replace("Comma", ",");
                if widgets::nav_item(ui, icon, text, &shortcut, self.page == page).clicked() {
                    self.actions.push(Action::Show(page));
                }
            }
            for notice in self.device.iter().flat_map(|device| &device.notices) {
                ui.add_space(STEP * 2.0);
                widgets::alert(ui, Icon::TriangleAlert, palette.warning, notice);
            }
        });
    }

    /// Closes what the page shows large; false when there was nothing.
    fn close_detail(&mut self) -> bool {
        match self.page {
            Page::Evaluate => self.evaluate.close_detail(),
            Page::Models | Page::Classify | Page::Train | Page::Compress | Page::Memory | Page::Settings => {
                self.classify.close_detail()
            }
        }
    }

    /// Looks at what hovers and at what was dropped. Only drawn frames have new input, so this is not part of `tick`.
    fn take_drops(&mut self, ctx: &Context) {
        let (hovered, dropped) = ctx.input(|input| {
            let hovered = input.raw.hovered_files.iter().filter_map(|file| file.path.clone());
            let dropped = input.raw.dropped_files.iter().map(|file| file.path().to_owned());
            (hovered.collect::<Vec<_>>(), dropped.collect::<Vec<_>>())
        });
        if !dropped.is_empty() {
            self.actions.push(Action::LookAt(dropped));
        }
        if hovered != self.hover.paths {
            self.hover = Hover { paths: hovered.clone(), sorted: None };
            let work = move |_: &_| Ok(Some(Action::Hovering(hovered.clone(), Brought::sort(hovered))));
            if let Err(error) = self.tasks.start(ctx, "look at hovering files", work) {
                self.toasts.error(error.to_string());
            }
        }
    }

    /// Shows rows as a finished run would have left them, for looking at results without classifying.
    pub fn show_results(&mut self, model: ModelSummary, rows: Vec<Row>) {
        let mut run = Run::without_job(self.classify.config.clone());
        run.receive(ClassifyEvent::Model(model));
        run.receive(ClassifyEvent::Rows { rows, resumed: false });
        let photos = run.results.len() as u64;
        let skipped = run.results.counts().skipped;
        run.state = RunState::Finished(ClassifySummary { photos, ok: photos - skipped, skipped, ..Default::default() });
        self.classify.show(run);
    }

    /// Shows rows as a sweep would have left them.
    pub fn show_sweep(&mut self, rows: Vec<SweepRow>) {
        self.page = Page::Train;
        self.train.show_sweep(rows);
    }

    /// Shows rates as a search would have left them.
    pub fn show_rates(&mut self, tried: RatesTried) {
        self.page = Page::Train;
        self.train.show_rates(tried);
    }

    /// Asks for something as a page or a dialog would; done by the next [`tick`](Self::tick).
    pub fn request(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// True while no job and no task is under way: what is drawn now stays.
    pub fn is_idle(&self) -> bool {
        let are_kept = self.places.settings.is_none() || self.settings == self.saved;
        are_kept
            && self.actions.is_empty()
            && self.tasks.is_idle()
            && self.classify.is_settled()
            && self.train.is_settled()
            && !self.evaluate.is_running()
            && !self.compress.is_running()
            && !self.downloads.is_active()
    }
}

impl eframe::App for App {
    fn logic(&mut self, ctx: &Context, _: &mut eframe::Frame) {
        self.tick(ctx);
    }

    fn ui(&mut self, ui: &mut Ui, frame: &mut eframe::Frame) {
        // Asked for again in each frame: the system puts its buttons back whenever it lays the window out.
        frame.set_traffic_lights_position(ui.ctx(), title_bar::RANGE, title_bar::BUTTONS_LEFT);
        self.draw(ui);
    }

    fn persist_egui_memory(&self) -> bool {
        false
    }

    fn clear_color(&self, visuals: &egui::Visuals) -> [f32; 4] {
        visuals.panel_fill.to_normalized_gamma_f32()
    }

    fn on_exit(&mut self) {
        // A snapshot is worth a longer wait, but not to someone who closed the window twice.
        let grace = if self.train.is_training() && self.closing != Closing::Leaves {
            tasks::SNAPSHOT_GRACE
        } else {
            tasks::GRACE
        };
        let deadline = Instant::now() + grace;
        self.settings.remember_training(&self.train.config);
        if let Some(path) = self.places.settings.as_ref().filter(|_| self.settings != self.saved) {
            // Nobody is there any more to tell.
            let _ = self.settings.save(path);
        }
        self.classify.cancel();
        self.train.stop();
        self.downloads.cancel();
        self.tasks.abandon(deadline);
        self.classify.abandon(deadline);
        self.train.abandon(deadline);
        self.evaluate.abandon(deadline);
        self.compress.abandon(deadline);
        self.downloads.abandon(deadline);
    }
}
