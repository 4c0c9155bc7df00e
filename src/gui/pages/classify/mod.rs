//! The Classify page: what to classify, how it goes, and the photos with their labels.

mod detail;
mod filters;
mod grid;
mod header;
mod histogram;
mod options;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use egui::{Align2, Context, Ui};
use lucide_icons::Icon;

use crate::format;
use crate::gui::dialogs::Ask;
use crate::gui::library::Library;
use crate::gui::run::{Run, RunState};
use crate::gui::textures::Textures;
use crate::gui::theme::{Palette, STEP};
use crate::gui::view::{Query, View};
use crate::gui::widgets::{self, Weight};
use crate::gui::{Action, CompressAction};
use crate::jobs::Places;
use crate::jobs::admission::MemoryChoice;
use crate::jobs::brought::Brought;
use crate::jobs::classify::ClassifyConfig;
use crate::settings::Settings;

const SIDE_WIDTH: f32 = 272.0;

/// The page's state.
pub struct Classify {
    /// Folders and photos of the next run.
    pub inputs: Vec<PathBuf>,
    pub config: ClassifyConfig,
    pub run: Option<Run>,
    sample: Option<PathBuf>,
    query: Query,
    view: View,
    grid: grid::Grid,
    pub textures: Textures,
    /// The photo shown large, by its number in the run.
    selected: Option<u32>,
    /// The inputs grew during the run: go on with all of them when it ends.
    restart: bool,
    /// The next start goes on with the run before it, so the photos that are done stay done.
    goes_on: bool,
}

impl Classify {
    pub fn new(settings: &Settings, sample: Option<PathBuf>) -> Self {
        let config = ClassifyConfig {
            top_k: settings.top_k,
            batch_size: settings.batch_size,
            device: settings.device,
            ..ClassifyConfig::default()
        };
        let thumbnail_bytes = usize::try_from(settings.thumbnail_megabytes).unwrap_or(64) * 1_000_000;
        Self {
            inputs: Vec::new(),
            config,
            run: None,
            sample,
            query: Query::default(),
            view: View::default(),
            grid: grid::Grid::default(),
            textures: Textures::new(thumbnail_bytes),
            selected: None,
            restart: false,
            goes_on: false,
        }
    }

    /// Takes the run's news and keeps the shown order up to date.
    pub fn poll(&mut self, ctx: &Context) -> Option<Action> {
        let run = self.run.as_mut()?;
        run.drain();
        run.results.set_threshold(self.config.threshold);
        let wake = ctx.clone();
        if self.view.update(&run.results, &self.query, move || crate::gui::wake(&wake)) {
            ctx.request_repaint_after(Duration::from_millis(100));
        }
        self.goes_on = !run.is_active() && std::mem::take(&mut self.restart);
        self.goes_on.then_some(Action::Start)
    }

    pub fn is_running(&self) -> bool {
        self.run.as_ref().is_some_and(Run::is_active)
    }

    /// Whether the run that goes on waits; none goes on otherwise.
    pub fn is_paused(&self) -> Option<bool> {
        match self.run.as_ref()?.state {
            RunState::Running => Some(false),
            RunState::Paused => Some(true),
            _ => None,
        }
    }

    /// The photo that is shown large.
    pub fn photo(&self) -> Option<&std::path::Path> {
        let entry = self.run.as_ref()?.results.get(self.selected? as usize)?;
        Some(&entry.path)
    }

    /// True when this is the photo that is shown large, in the grid.
    pub fn has_keyboard(&self, focused: Option<egui::Id>) -> bool {
        self.selected.is_some_and(|photo| focused == Some(grid::cell_id(photo)))
    }

    pub fn can_start(&self) -> bool {
        !self.is_running() && !self.inputs.is_empty()
    }

    /// True when nothing on the page is still on its way, except thumbnails.
    pub fn is_settled(&self) -> bool {
        !self.is_running() && self.run.as_ref().is_none_or(|run| self.view.is_current(&run.results, &self.query))
    }

    pub fn add_inputs(&mut self, paths: Vec<PathBuf>) {
        for path in paths {
            if !self.inputs.contains(&path) {
                self.inputs.push(path);
            }
        }
    }

    /// New photos replace the old ones; during a run they join them.
    pub fn replace_inputs(&mut self, paths: Vec<PathBuf>) {
        if !self.is_running() {
            self.inputs.clear();
        }
        self.add_inputs(paths);
    }

    /// Starts what was refused because it is predicted not to fit.
    pub fn run_anyway(&mut self, places: Places, ctx: &Context) {
        let Some(run) = self.run.as_ref().filter(|run| run.is_refused) else { return };
        let memory = MemoryChoice { anyway: true, ..run.config.memory };
        let config = ClassifyConfig { memory, ..run.config.clone() };
        self.show(Run::start(config, places, ctx));
    }

    pub fn start(&mut self, places: Places, ctx: &Context) {
        let mut config = ClassifyConfig { inputs: self.inputs.clone(), ..self.config.clone() };
        let goes_on = std::mem::take(&mut self.goes_on);
        // The journal holds the rows of the run before, but those of another model may be old ones.
        config.fresh &= !(goes_on && self.run.as_ref().is_some_and(|run| same_model(&run.config, &config)));
        self.show(Run::start(config, places, ctx));
    }

    /// Shows a run from its beginning.
    pub fn show(&mut self, run: Run) {
        self.view.clear();
        self.grid = grid::Grid::default();
        self.textures.clear();
        self.selected = None;
        self.query.clear();
        self.run = Some(run);
    }

    pub fn restart_when_done(&mut self) {
        self.restart = true;
    }

    pub fn set_paused(&mut self, paused: bool) {
        if let Some(run) = &mut self.run {
            run.set_paused(paused);
        }
    }

    pub fn cancel(&mut self) {
        self.restart = false;
        if let Some(run) = &mut self.run {
            run.cancel();
        }
    }

    /// Cancels the run, and lets go of it when it has not ended by the deadline.
    pub fn abandon(&mut self, deadline: Instant) {
        self.cancel();
        if let Some(run) = &mut self.run {
            run.abandon(deadline);
        }
    }

    /// Closes the large photo; false when there was none.
    pub fn close_detail(&mut self) -> bool {
        self.selected.take().is_some()
    }
}

/// Whether two runs read photos and name classes alike.
fn same_model(a: &ClassifyConfig, b: &ClassifyConfig) -> bool {
    a.model == b.model
        && a.labels == b.labels
        && a.transform == b.transform
        && a.strictness == b.strictness
        && a.precision == b.precision
}

pub fn page_ui(ui: &mut Ui, page: &mut Classify, library: &Library, actions: &mut Vec<Action>) {
    header::header_ui(ui, page, library, actions);
    ui.add_space(STEP);
    let rest = ui.available_rect_before_wrap();
    let (main, side) = rest.split_left_right_at_x(rest.right() - SIDE_WIDTH);
    let main = main.with_max_x(main.right() - STEP * 3.0);
    page.textures.begin_frame(ui.ctx());
    ui.scope_builder(egui::UiBuilder::new().id_salt("main").max_rect(main), |ui| main_ui(ui, page, actions));
    ui.scope_builder(egui::UiBuilder::new().id_salt("side").max_rect(side), |ui| side_ui(ui, page, actions));
    page.textures.end_frame(ui.ctx());
    ui.advance_cursor_after_rect(rest);
}

fn main_ui(ui: &mut Ui, page: &mut Classify, actions: &mut Vec<Action>) {
    let Some(run) = &page.run else { return nothing_yet_ui(ui, page, actions) };
    if let RunState::Failed(reason) = &run.state
        && run.results.is_empty()
    {
        return failed_ui(ui, reason, run, actions);
    }
    filters::filters_ui(ui, run, &mut page.query, page.view.order().len(), actions);
    ui.add_space(4.0);
    if run.results.is_empty() {
        return no_rows_ui(ui, run);
    }
    if page.view.order().is_empty() && page.view.is_current(&run.results, &page.query) {
        return nothing_matches_ui(ui, &mut page.query);
    }
    if let RunState::Failed(reason) = &run.state {
        widgets::alert(ui, Icon::CircleAlert, Palette::of(ui).error, reason);
    }
    let chosen =
        grid::grid_ui(ui, &run.results, page.view.order(), &mut page.textures, &mut page.grid, page.selected, actions);
    page.selected = chosen.or(page.selected);
}

fn side_ui(ui: &mut Ui, page: &mut Classify, actions: &mut Vec<Action>) {
    egui::ScrollArea::vertical().id_salt("side").auto_shrink(false).show(ui, |ui| {
        let chosen = page.run.as_ref().and_then(|run| Some((run, run.results.get(page.selected? as usize)?)));
        if let Some((run, entry)) = chosen {
            let close = detail::detail_ui(ui, &run.results, entry, &mut page.textures, actions);
            if close {
                page.selected = None;
            }
            return;
        }
        if let Some(run) = page.run.as_ref().filter(|run| !run.results.is_empty()) {
            histogram::histogram_ui(ui, &run.results, &mut page.query.group);
            ui.add_space(STEP * 2.0);
        }
        options::options_ui(ui, &mut page.config);
    });
}

fn nothing_yet_ui(ui: &mut Ui, page: &Classify, actions: &mut Vec<Action>) {
    if !page.inputs.is_empty() {
        let text = "Start begins with the photos above. Drop more onto the window to add them";
        return widgets::empty_state(ui, Icon::Images, "Ready to classify", text, |_| ());
    }
    let text = "Drop folders or photos anywhere on this window. Originals are never changed";
    widgets::empty_state(ui, Icon::Images, "No photos yet", text, |ui| {
        widgets::centered_row(ui, "choose", |ui| {
            if widgets::button(ui, Weight::Plain, Icon::FolderPlus, "Choose folders…").clicked() {
                actions.push(Action::Ask(Ask::Folders));
            }
            if widgets::button(ui, Weight::Plain, Icon::ImagePlus, "Choose photos…").clicked() {
                actions.push(Action::Ask(Ask::Photos));
            }
        });
        let Some(sample) = &page.sample else { return };
        if widgets::button(ui, Weight::Primary, Icon::Sparkles, "Try the sample photos").clicked() {
            actions.push(Action::Open(Brought { folders: vec![sample.clone()], ..Brought::default() }));
        }
    });
}

fn no_rows_ui(ui: &mut Ui, run: &Run) {
    match &run.state {
        RunState::Canceled => {
            widgets::empty_state(
                ui,
                Icon::Images,
                "Canceled",
                "Nothing was classified yet. Start begins again",
                |_| (),
            );
        }
        _ => {
            let text = "The first photos appear here as soon as their batch is done";
            widgets::empty_state(ui, Icon::Images, &run.status(), text, |_| ());
        }
    }
}

fn failed_ui(ui: &mut Ui, reason: &str, run: &Run, actions: &mut Vec<Action>) {
    widgets::empty_state(ui, Icon::CircleAlert, "Nothing could be classified", reason, |ui| {
        if run.is_too_large {
            too_large_ui(ui, actions);
        }
        widgets::centered_row(ui, "failed", |ui| {
            if run.is_refused && widgets::button(ui, Weight::Plain, Icon::Play, "Run anyway").clicked() {
                actions.push(Action::RunAnyway);
            }
            if widgets::button(ui, Weight::Plain, Icon::FolderPlus, "Choose other photos…").clicked() {
                actions.push(Action::Ask(Ask::Folders));
            }
            if widgets::button(ui, Weight::Plain, Icon::Boxes, "Choose another model").clicked() {
                actions.push(Action::Show(crate::gui::Page::Models));
            }
        });
    });
}

/// What makes a model fit.
fn too_large_ui(ui: &mut Ui, actions: &mut Vec<Action>) {
    widgets::centered_row(ui, "too large", |ui| {
        let text = "Quantize it to 8 bits";
        if widgets::button(ui, Weight::Primary, Icon::Shrink, text)
            .on_hover_text("Writes a copy of a quarter of the size beside the model, and classifies with that")
            .clicked()
        {
            actions.push(Action::Compress(CompressAction::QuantizeAndClassify));
        }
        if widgets::button(ui, Weight::Plain, Icon::Settings, "Raise the limit").clicked() {
            actions.push(Action::Show(crate::gui::Page::Settings));
        }
    });
}

fn nothing_matches_ui(ui: &mut Ui, query: &mut Query) {
    let text = "The filters above hide every photo of this run";
    widgets::empty_state(ui, Icon::Search, "Nothing matches", text, |ui| {
        if widgets::button(ui, Weight::Plain, Icon::X, "Show all photos").clicked() {
            query.clear();
        }
    });
}

/// `3 folders and 12 photos` would need the file system; the names are there without it.
fn input_name(path: &std::path::Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// A count for a narrow place: `12`, `1,234`.
fn painted_count(ui: &Ui, at: egui::Pos2, count: u64, color: egui::Color32) {
    ui.painter().text(at, Align2::RIGHT_CENTER, format::count(count), egui::FontId::proportional(11.0), color);
}
