//! The Compress page: smaller models of the one in use, and what each of them loses.

mod options;
mod variants;

use std::path::PathBuf;
use std::time::Instant;

use egui::{Context, Layout, Ui};
use lucide_icons::Icon;

use crate::compress::Report;
use crate::compress::quantize::Bits;
use crate::device::DeviceChoice;
use crate::format;
use crate::gui::Page;
use crate::gui::actions::{Action, CompressAction};
use crate::gui::library::{Library, Model};
use crate::gui::tasks::{self, Leaving};
use crate::gui::textures::Textures;
use crate::gui::theme::{Palette, STEP};
use crate::gui::widgets::{self, Weight};
use crate::jobs::Places;
use crate::jobs::admission::MemoryChoice;
use crate::jobs::compress::{self, CompressConfig, CompressJob, CompressJobError, Pruning, Size, output_for};
use crate::jobs::prune::{Ranking, Repair};
use crate::predict::ModelSource;
use crate::worker::{BoxError, Outcome, Progress};

const SIDE_WIDTH: f32 = 272.0;

/// What all thumbnails of the page may take together.
const THUMBNAIL_BYTES: usize = 16_000_000;

/// How small a model shall become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Bits(Bits),
    Mixed,
    Fit,
    Smallest,
}

/// Why there is no smaller model.
struct Problem {
    text: String,
    /// It was made and lost too much: it can be saved all the same.
    loses_too_much: bool,
}

/// The page's state.
pub struct Compress {
    choice: Choice,
    /// Whether channels go first, how many of them in percent, and what the rest learns from.
    prunes: bool,
    pruned_percent: f64,
    pub repair_photos: Option<PathBuf>,
    repair_epochs: usize,
    /// In MB.
    fit: f64,
    /// In percent, and whether more is not saved.
    loss: f64,
    keeps_to_loss: bool,
    /// What models are compared on.
    pub photos: Option<PathBuf>,
    /// The photos that come with the program.
    sample: Option<PathBuf>,
    /// Once it is made, the smaller model is used on the Classify page.
    pub then_classify: bool,
    /// The smaller models of this one that were found, the oldest first; none before they were looked for.
    found: Option<Variants>,
    /// The model for which that was asked.
    asked: Option<ModelSource>,
    /// Those that were made since the window is open.
    made: Vec<(ModelSource, Report)>,
    problem: Option<Problem>,
    /// How the last one came out, unless a person stopped it.
    pub ended: Option<String>,
    progress: Progress,
    job: Option<(CompressJob, ModelSource)>,
    pub textures: Textures,
    leaving: Leaving<Report, ()>,
}

impl Compress {
    pub fn new(sample: Option<PathBuf>) -> Self {
        Self {
            choice: Choice::Bits(Bits::Q8_0),
            prunes: false,
            pruned_percent: 30.0,
            repair_photos: None,
            repair_epochs: 1,
            fit: 90.0,
            loss: 1.0,
            keeps_to_loss: true,
            photos: None,
            sample,
            then_classify: false,
            found: None,
            asked: None,
            made: Vec::new(),
            problem: None,
            ended: None,
            progress: Progress::default(),
            job: None,
            textures: Textures::new(THUMBNAIL_BYTES),
            leaving: Leaving::default(),
        }
    }

    pub fn choose(&mut self, size: Size) {
        self.choice = match size {
            Size::Bits(bits) => Choice::Bits(bits),
            Size::Mixed => Choice::Mixed,
            Size::Smallest => Choice::Smallest,
            Size::Fit(bytes) => {
                self.fit = bytes as f64 / 1e6;
                Choice::Fit
            }
        };
    }

    /// Without pruning and without a comparison.
    pub fn begin_plainly(&mut self) {
        (self.prunes, self.photos) = (false, None);
    }

    fn size(&self) -> Size {
        match self.choice {
            Choice::Bits(bits) => Size::Bits(bits),
            Choice::Mixed => Size::Mixed,
            Choice::Fit => Size::Fit((self.fit * 1e6) as u64),
            Choice::Smallest => Size::Smallest,
        }
    }

    /// What is done before weights are rounded.
    fn pruning(&self) -> Option<Pruning> {
        let repair = self.repair_photos.clone().map(|data| Repair { data, epochs: self.repair_epochs });
        let pruning = Pruning { ratio: self.pruned_percent / 100.0, ranking: Ranking::L1, repair };
        self.prunes.then_some(pruning)
    }

    /// The share that a result may lose; without photos nothing is known of that.
    fn max_loss(&self) -> Option<f64> {
        let keeps = self.photos.is_some() && (self.keeps_to_loss || self.choice == Choice::Smallest);
        keeps.then_some(self.loss / 100.0)
    }

    /// Why nothing can be started, if so.
    fn obstacle(&self) -> Option<&'static str> {
        let wants_photos = self.choice == Choice::Smallest && self.photos.is_none();
        wants_photos.then_some("Choose photos first: the loss is measured on them")
    }

    /// Takes the job's news; returns what it made.
    pub fn poll(&mut self) -> Option<Report> {
        self.leaving.poll();
        let (job, _) = self.job.as_mut()?;
        self.progress = job.context().progress();
        let outcome = job.take_outcome()?;
        let (_, source) = self.job.take()?;
        match outcome {
            Outcome::Finished(report) => {
                self.ended = Some(format!("It was saved as {}", report.output.display()));
                self.made.push((source, report.clone()));
                Some(report)
            }
            Outcome::Canceled => None,
            Outcome::Failed(error) => {
                let problem = problem(&error);
                self.ended = Some(problem.text.clone());
                self.problem = Some(problem);
                None
            }
        }
    }

    /// What the job is expected to take at its most, by what takes it, in bytes.
    pub fn expected(&self) -> Vec<(&'static str, u64)> {
        self.job.as_ref().map(|(job, _)| job.context().expected()).unwrap_or_default()
    }

    pub fn is_running(&self) -> bool {
        self.job.is_some() || !self.leaving.is_empty()
    }

    /// The share that is done of what is done now.
    pub fn share(&self) -> Option<f32> {
        self.job.as_ref().and(self.progress.share())
    }

    pub fn start(&mut self, (model, device, save_anyway): (&Model, DeviceChoice, bool), places: Places, ctx: &Context) {
        if self.obstacle().is_some() {
            return;
        }
        self.leaving.add(self.job.take().map(|(job, _)| job));
        (self.problem, self.ended, self.progress) = (None, None, Progress::default());
        let size = self.size();
        let config = CompressConfig {
            model: model.source.clone(),
            labels: model.labels.clone(),
            transform: model.transform,
            output: output_for(&model.source, size, &places.models_folder),
            prune: self.pruning(),
            size,
            max_loss: self.max_loss(),
            check: self.photos.clone(),
            calibrate: None,
            device,
            memory: MemoryChoice::default(),
            overwrite: false,
            save_anyway,
        };
        let wake = ctx.clone();
        match compress::start(config, places, move || crate::gui::wake(&wake)) {
            Ok(job) => self.job = Some((job, model.source.clone())),
            Err(error) => self.problem = Some(Problem { text: error.to_string(), loses_too_much: false }),
        }
    }

    pub fn cancel(&mut self) {
        self.then_classify = false;
        self.leaving.add(self.job.take().map(|(job, _)| job));
    }

    /// Cancels, and lets go of the job when it has not ended by the deadline.
    pub fn abandon(&mut self, deadline: Instant) {
        if let Some((job, _)) = self.job.take() {
            job.context().cancel();
            tasks::let_go(job, deadline);
        }
    }

    /// Whether the smaller models of this one are to be looked for; true once, until another one's are.
    pub fn asks_for_variants(&mut self, source: &ModelSource) -> bool {
        let is_new = self.asked.as_ref() != Some(source);
        self.asked = Some(source.clone());
        is_new
    }

    pub fn show_variants(&mut self, source: ModelSource, variants: Vec<Report>) {
        self.found = Some((source, variants));
    }
}

/// Smaller models, with the model they are of.
type Variants = (ModelSource, Vec<Report>);

/// Those of this model, the oldest first: found, and made since.
fn variants_of<'a>(
    found: &'a Option<Variants>,
    made: &'a [(ModelSource, Report)],
    source: &ModelSource,
) -> Vec<&'a Report> {
    let found = found.iter().filter(|(of, _)| of == source).flat_map(|(_, variants)| variants);
    let made_now = made.iter().filter(|(of, _)| of == source).map(|(_, report)| report);
    let is_older = |report: &&Report| made.iter().all(|(_, made)| made.output != report.output);
    found.filter(is_older).chain(made_now).collect()
}

fn problem(error: &BoxError) -> Problem {
    match error.downcast_ref() {
        Some(CompressJobError::LosesTooMuch { allowed, proof }) => {
            let text = format!("The smaller model was not saved: {}", compress::too_much(proof, *allowed));
            Problem { text, loses_too_much: true }
        }
        _ => Problem { text: format::error_chain(&**error), loses_too_much: false },
    }
}

pub fn page_ui(ui: &mut Ui, page: &mut Compress, library: &Library, blocked: Option<&str>, actions: &mut Vec<Action>) {
    header_ui(ui, page, library, blocked, actions);
    ui.add_space(STEP);
    let rest = ui.available_rect_before_wrap();
    let (main, side) = rest.split_left_right_at_x(rest.right() - SIDE_WIDTH);
    let main = main.with_max_x(main.right() - STEP * 3.0);
    ui.scope_builder(egui::UiBuilder::new().id_salt("main").max_rect(main), |ui| main_ui(ui, page, library, actions));
    ui.scope_builder(egui::UiBuilder::new().id_salt("side").max_rect(side), |ui| {
        ui.add_enabled_ui(page.job.is_none(), |ui| options::options_ui(ui, page, actions));
    });
    ui.advance_cursor_after_rect(rest);
}

fn header_ui(ui: &mut Ui, page: &Compress, library: &Library, blocked: Option<&str>, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        widgets::title(ui, "Compress");
        ui.with_layout(Layout::right_to_left(egui::Align::Center), |ui| {
            if page.job.is_some() {
                if widgets::button(ui, Weight::Plain, Icon::X, "Cancel").clicked() {
                    actions.push(Action::Compress(CompressAction::Stop));
                }
            } else {
                let obstacle = blocked.or(page.obstacle());
                ui.add_enabled_ui(obstacle.is_none(), |ui| {
                    if widgets::button(ui, Weight::Primary, Icon::Shrink, "Make it smaller").clicked() {
                        actions.push(Action::Compress(CompressAction::Start));
                    }
                });
                if let Some(obstacle) = obstacle {
                    widgets::note(ui, obstacle);
                }
            }
            let name = format!("Model: {}", library.used().name());
            if widgets::button(ui, Weight::Quiet, Icon::Boxes, &name).clicked() {
                actions.push(Action::Show(Page::Models));
            }
        });
    });
}

fn working_ui(ui: &mut Ui, progress: &Progress) {
    let share = progress.share().unwrap_or_default();
    widgets::progress_bar(ui, share);
    widgets::note(ui, if progress.phase.is_empty() { "Reading the model" } else { &progress.phase });
    ui.add_space(STEP);
}

fn main_ui(ui: &mut Ui, page: &mut Compress, library: &Library, actions: &mut Vec<Action>) {
    if page.job.is_some() {
        working_ui(ui, &page.progress);
    }
    if let Some(Problem { text, loses_too_much }) = &page.problem {
        widgets::alert(ui, Icon::CircleAlert, Palette::of(ui).error, text);
        if *loses_too_much && widgets::button(ui, Weight::Plain, Icon::Save, "Save it all the same").clicked() {
            actions.push(Action::Compress(CompressAction::SaveAnyway));
        }
        ui.add_space(STEP);
    }
    let variants = variants_of(&page.found, &page.made, &library.used().source);
    if !variants.is_empty() {
        page.textures.begin_frame(ui.ctx());
        variants::variants_ui(ui, &variants, &mut page.textures, actions);
        page.textures.end_frame(ui.ctx());
        return;
    }
    if page.job.is_none() {
        let text = "Fewer bits per weight make a model a quarter of its size or less. With photos to compare on, Galley shows \
                    what that costs before anything relies on it";
        widgets::empty_state(ui, Icon::Shrink, "No smaller models of this one yet", text, |_| ());
    }
}
