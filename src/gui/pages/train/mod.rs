//! The Train page: photos and their classes, how to train on them, the run that goes on, and the runs before.

mod charts;
mod fields;
mod history;
mod memory;
mod more;
mod photos;
mod preview;
mod rate;
mod run;
mod settings;
mod sweep;

use std::path::{Path, PathBuf};
use std::time::Instant;

use egui::{Align, Context, Layout, Ui};
use lucide_icons::Icon;

use crate::gui::actions::{Action, TrainAction};
use crate::gui::library::Library;
use crate::gui::textures::Textures;
use crate::gui::theme::STEP;
use crate::gui::training::{TrainState, Training};
use crate::gui::widgets::{self, Weight};
use crate::jobs::Places;
use crate::jobs::runs::RunList;
use crate::jobs::sweep::SweepRow;
use crate::jobs::train::TrainTask;
use crate::memory::{Plan, Reading};
use crate::train::{RatesTried, TrainConfig};

const SIDE_WIDTH: f32 = 288.0;

/// What all thumbnails of the page may take together.
const THUMBNAIL_BYTES: usize = 32_000_000;

/// What the main part of the page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tab {
    Photos,
    Preview,
    Sweep,
    Run,
    History,
}

impl Tab {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Photos, "Photos"),
        (Self::Preview, "Preview"),
        (Self::Sweep, "Batch sizes"),
        (Self::Run, "Run"),
        (Self::History, "History"),
    ];
}

/// The page's state.
pub struct Train {
    /// Of the next run.
    pub config: TrainConfig,
    pub tab: Tab,
    pub history: history::History,
    training: Option<Training>,
    /// A folder is being found for the run.
    is_starting: bool,
    photos: photos::Photos,
    preview: preview::Preview,
    sweep: sweep::Sweep,
    rates: rate::Rates,
    memory: memory::Memory,
    /// The memory now.
    reading: Reading,
    pub textures: Textures,
    axis: charts::Axis,
    sample: Option<PathBuf>,
}

impl Train {
    /// `config` is that of the last time.
    pub fn new(config: TrainConfig, sample: Option<PathBuf>) -> Self {
        Self {
            config,
            tab: Tab::Photos,
            history: history::History::default(),
            training: None,
            is_starting: false,
            photos: photos::Photos::default(),
            preview: preview::Preview::default(),
            sweep: sweep::Sweep::default(),
            rates: rate::Rates::default(),
            memory: memory::Memory::default(),
            reading: Reading::default(),
            textures: Textures::new(THUMBNAIL_BYTES),
            axis: charts::Axis::default(),
            sample,
        }
    }

    /// Takes the news of the page's jobs.
    pub fn poll(&mut self, places: &Places, ctx: &Context) -> Option<Action> {
        self.photos.poll(&self.config, places, ctx);
        if self.tab == Tab::Preview || self.preview.is_working() {
            self.preview.poll(&self.config, &self.photos, ctx);
        }
        self.sweep.poll();
        self.rates.poll();
        // Decoding would be counted as the network's.
        self.memory.poll(self.holds_device() || self.photos.is_looking(), ctx);
        let training = self.training.as_mut().filter(|training| training.is_active())?;
        training.drain().then_some(Action::Train(TrainAction::ReadRuns))
    }

    /// True while a run holds the device or may take it again.
    pub fn is_training(&self) -> bool {
        self.training.as_ref().is_some_and(Training::is_active)
    }

    /// Whether the run that goes on waits, or is about to; none goes on otherwise.
    pub fn is_paused(&self) -> Option<bool> {
        match self.training.as_ref()?.state {
            TrainState::Running => Some(false),
            TrainState::Pausing | TrainState::Paused => Some(true),
            _ => None,
        }
    }

    /// How much of the run that computes is done, where that is known; none computes otherwise.
    pub fn share(&self) -> Option<Option<f32>> {
        let training = self.training.as_ref().filter(|training| training.is_active())?;
        (training.state != TrainState::Paused).then(|| training.share_of_run())
    }

    /// True while batch sizes or learning rates are tried.
    pub fn is_trying(&self) -> bool {
        self.sweep.is_running() || self.rates.is_running()
    }

    /// The folder of the run that goes on or went last.
    pub fn folder(&self) -> Option<&Path> {
        self.training.as_ref().map(|training| training.folder.as_path())
    }

    /// The run that goes on or went last.
    pub fn training(&self) -> Option<&Training> {
        self.training.as_ref()
    }

    /// True while a run or a trial computes.
    pub fn holds_device(&self) -> bool {
        let is_paused = self.training.as_ref().is_some_and(|training| training.state == TrainState::Paused);
        (self.is_training() && !is_paused) || self.is_starting || self.sweep.is_running() || self.rates.is_running()
    }

    /// What the run that holds the device is expected to take at its most.
    pub fn plan(&self) -> Option<Plan> {
        let training = self.training.as_ref().filter(|training| training.is_active())?;
        // A paused run holds nothing.
        let start = training.start.as_ref().filter(|_| training.state != TrainState::Paused)?;
        Some(start.plan)
    }

    /// The run that is going on, as few words.
    pub fn phase(&self) -> Option<String> {
        self.training.as_ref()?.phase()
    }

    /// True when nothing on the page is still on its way, except thumbnails.
    pub fn is_settled(&self) -> bool {
        let is_waiting = self.training.as_ref().is_some_and(|training| training.state == TrainState::Paused);
        (!self.is_training() || is_waiting)
            && !self.is_starting
            && !self.photos.is_looking()
            && !self.preview.is_working()
            && !self.sweep.is_running()
            && !self.rates.is_running()
            && !self.memory.is_working()
    }

    /// Why no run can start now, in words; `None` when one can.
    pub fn obstacle(&self) -> Option<String> {
        if self.is_training() || self.is_starting {
            return Some("A run is going on".to_owned());
        }
        if self.sweep.is_running() {
            return Some("Batch sizes are being tried".to_owned());
        }
        if self.rates.is_running() {
            return Some("A learning rate is being looked for".to_owned());
        }
        if self.config.data.as_os_str().is_empty() {
            return Some("Choose photos first".to_owned());
        }
        // Both keep resized photos in the same place, which one at a time can write to.
        if self.photos.is_looking() {
            return Some("Galley looks at the photos first".to_owned());
        }
        if !self.photos.are_usable() {
            return Some("These photos cannot be trained on".to_owned());
        }
        self.config.check().err().map(|error| error.to_string())
    }

    /// New photos, and nothing of the old ones.
    pub fn set_photos(&mut self, data: PathBuf, val: Option<PathBuf>) {
        (self.config.data, self.config.val) = (data, val);
        self.look_again();
    }

    pub fn look_again(&mut self) {
        self.textures.clear();
        self.photos.look_again();
        self.tab = Tab::Photos;
    }

    /// Marks that a folder is looked for; [`begin`](Self::begin) follows.
    pub fn prepare(&mut self) {
        self.is_starting = true;
    }

    pub fn begin(&mut self, folder: PathBuf, places: Places, ctx: &Context) {
        let config = Box::new(self.config.clone());
        self.run(TrainTask::Begin { config, folder }, places, ctx);
    }

    pub fn resume(&mut self, folder: PathBuf, places: Places, ctx: &Context) {
        if !self.is_training() {
            self.run(TrainTask::Resume { folder, memory: None }, places, ctx);
        }
    }

    /// Starts the run that was refused, in spite of its prediction.
    pub fn run_anyway(&mut self, places: Places, ctx: &Context) {
        let task = self.training.as_ref().filter(|training| training.is_refused).and_then(Training::task_anyway);
        if let Some(task) = task {
            self.run(task, places, ctx);
        }
    }

    fn run(&mut self, task: TrainTask, places: Places, ctx: &Context) {
        let folder = task.folder();
        let before = self.training.take().filter(|training| training.folder == folder);
        let known = || self.history.get(folder).map(|run| run.curves.clone());
        let curves = before.map(|training| training.curves).or_else(known).unwrap_or_default();
        self.training = Some(Training::start(task, curves, places, ctx));
        self.is_starting = false;
        self.tab = Tab::Run;
    }

    pub fn set_paused(&mut self, paused: bool) {
        if let Some(training) = &mut self.training {
            training.set_paused(paused);
        }
    }

    pub fn stop(&mut self) {
        if let Some(training) = &mut self.training {
            training.stop();
        }
    }

    pub fn start_sweep(&mut self, places: Places, ctx: &Context) {
        if self.obstacle().is_none() {
            self.sweep.start(&self.config, places, ctx);
            self.tab = Tab::Sweep;
        }
    }

    pub fn stop_sweep(&mut self) {
        self.sweep.cancel();
    }

    pub fn find_rate(&mut self, places: Places, ctx: &Context) {
        if self.obstacle().is_none() {
            self.rates.start(&self.config, places, ctx);
        }
    }

    pub fn stop_find_rate(&mut self) {
        self.rates.cancel();
    }

    /// Shows rates as a search would have left them.
    pub fn show_rates(&mut self, tried: RatesTried) {
        self.rates.show(tried);
    }

    pub fn show_sweep(&mut self, rows: Vec<SweepRow>) {
        self.sweep.show(rows);
        self.tab = Tab::Sweep;
    }

    pub fn set_runs(&mut self, list: RunList) {
        self.history.set(list);
    }

    /// Cancels everything, and lets go of the run when it has not ended by the deadline.
    pub fn abandon(&mut self, deadline: Instant) {
        self.photos.cancel();
        self.sweep.cancel();
        self.rates.cancel();
        self.memory.cancel();
        if let Some(training) = &mut self.training {
            training.abandon(deadline);
        }
    }

    fn active_folder(&self) -> Option<&Path> {
        self.training.as_ref().filter(|training| training.is_active()).map(|training| training.folder.as_path())
    }
}

/// `reading` is the memory now.
pub fn page_ui(ui: &mut Ui, page: &mut Train, library: &Library, reading: Option<Reading>, actions: &mut Vec<Action>) {
    page.reading = reading.unwrap_or_default();
    page.memory.want(&page.config, page.photos.classes());
    ui.horizontal(|ui| {
        widgets::title(ui, "Train");
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| buttons_ui(ui, page, actions));
    });
    photos::source_ui(ui, &page.config, !page.sweep.is_running(), actions);
    ui.add_space(STEP);
    let rest = ui.available_rect_before_wrap();
    let (main, side) = rest.split_left_right_at_x(rest.right() - SIDE_WIDTH);
    let main = main.with_max_x(main.right() - STEP * 3.0);
    page.textures.begin_frame(ui.ctx());
    ui.scope_builder(egui::UiBuilder::new().id_salt("main").max_rect(main), |ui| main_ui(ui, page, actions));
    ui.scope_builder(egui::UiBuilder::new().id_salt("side").max_rect(side), |ui| side_ui(ui, page, library, actions));
    page.textures.end_frame(ui.ctx());
    ui.advance_cursor_after_rect(rest);
}

/// Right to left: the main button stays in the corner, whatever the run does.
fn buttons_ui(ui: &mut Ui, page: &Train, actions: &mut Vec<Action>) {
    let state = page.training.as_ref().map(|training| &training.state);
    match state {
        Some(TrainState::Running) => {
            if widgets::button(ui, Weight::Plain, Icon::Pause, "Pause").clicked() {
                actions.push(Action::Train(TrainAction::SetPaused(true)));
            }
        }
        Some(TrainState::Pausing | TrainState::Paused) => {
            if widgets::button(ui, Weight::Primary, Icon::Play, "Continue").clicked() {
                actions.push(Action::Train(TrainAction::SetPaused(false)));
            }
        }
        Some(TrainState::Stopping) => {}
        _ => train_button_ui(ui, page, actions),
    }
    let going_on = matches!(state, Some(TrainState::Running | TrainState::Pausing | TrainState::Paused));
    if going_on
        && widgets::button(ui, Weight::Plain, Icon::Square, "Stop")
            .on_hover_text("Writes a snapshot first: the run can be continued")
            .clicked()
    {
        actions.push(Action::Train(TrainAction::Stop));
    }
}

fn train_button_ui(ui: &mut Ui, page: &Train, actions: &mut Vec<Action>) {
    let obstacle = page.obstacle();
    ui.add_enabled_ui(obstacle.is_none(), |ui| {
        if widgets::button(ui, Weight::Primary, Icon::Play, "Start training").clicked() {
            actions.push(Action::Train(TrainAction::Start));
        }
    });
    if let Some(obstacle) = obstacle {
        widgets::note(ui, obstacle);
    }
}

fn main_ui(ui: &mut Ui, page: &mut Train, actions: &mut Vec<Action>) {
    tabs_ui(ui, page, actions);
    ui.add_space(4.0);
    match page.tab {
        Tab::Photos => {
            let Train { photos, config, textures, sample, history, training, .. } = page;
            let unfinished = history.unfinished().filter(|_| training.is_none());
            photos::photos_ui(ui, photos, config, textures, sample.as_deref(), unfinished, actions);
        }
        Tab::Preview => preview::preview_ui(ui, &page.preview, &page.photos),
        Tab::Sweep => {
            let blocked = page.obstacle();
            let current = page.config.batch_size;
            sweep::sweep_ui(ui, &mut page.sweep, blocked.as_deref(), current, actions);
        }
        Tab::Run => run::run_ui(ui, page.training.as_ref(), &mut page.axis, actions),
        Tab::History => {
            let active = page.active_folder().map(Path::to_owned);
            history::history_ui(ui, &mut page.history, active.as_deref(), &mut page.axis, actions);
        }
    }
}

fn tabs_ui(ui: &mut Ui, page: &mut Train, actions: &mut Vec<Action>) {
    let tab = widgets::tabs(ui, page.tab, &Tab::ALL);
    if tab == Tab::History && tab != page.tab {
        actions.push(Action::Train(TrainAction::ReadRuns));
    }
    page.tab = tab;
}

fn side_ui(ui: &mut Ui, page: &mut Train, library: &Library, actions: &mut Vec<Action>) {
    egui::ScrollArea::vertical().id_salt("side").auto_shrink(false).show(ui, |ui| {
        ui.set_max_width(ui.available_width() - STEP);
        if page.is_training() {
            widgets::note(ui, "For the next run: the one that goes on keeps its own settings");
        }
        settings::settings_ui(ui, page, library, actions);
    });
}
