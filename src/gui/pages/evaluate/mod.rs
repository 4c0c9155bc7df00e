//! The Evaluate page: how good a model is on labelled photos, and which photos it gets wrong.

mod classes;
mod confidence;
mod confusion;
mod grid;
mod header;
mod matrix;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use egui::{Context, Ui};
use lucide_icons::Icon;

use crate::device::DeviceChoice;
use crate::format;
use crate::gui::actions::{Action, EvaluateAction};
use crate::gui::dialogs::Ask;
use crate::gui::library::Library;
use crate::gui::tasks::{self, Leaving};
use crate::gui::textures::Textures;
use crate::gui::theme::STEP;
use crate::gui::widgets::{self, Weight};
use crate::jobs::Places;
use crate::jobs::evaluate::{self, EvaluateJob, EvaluateSummary, EvaluateTask, Evaluated};
use crate::worker::{Outcome, Progress};

const SIDE_WIDTH: f32 = 272.0;

/// What all thumbnails of the page may take together.
const THUMBNAIL_BYTES: usize = 32_000_000;

/// What is shown of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Tab {
    #[default]
    Confusion,
    Classes,
    Suspects,
    Confidence,
}

impl Tab {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Confusion, "Confusion"),
        (Self::Classes, "Classes"),
        (Self::Suspects, "Likely labelled wrongly"),
        (Self::Confidence, "Confidence"),
    ];
}

/// What is judged.
#[derive(Debug, Clone, PartialEq)]
enum Subject {
    /// The model in use, on the photos of this folder or table.
    Photos(PathBuf),
    /// The best weights of a run, on its validation photos.
    Run(PathBuf),
}

/// An evaluation and what of it is looked at.
pub struct Judged {
    task: EvaluateTask,
    pub summary: Arc<EvaluateSummary>,
    /// Where it lies as a page.
    pub report: Option<PathBuf>,
    tab: Tab,
    /// A true and a called class, and the places of their photos among the judged.
    cell: Option<((usize, usize), Vec<usize>)>,
    /// The photo that is shown large, by its place.
    photo: Option<usize>,
    order: classes::Order,
    threshold: f64,
}

impl Judged {
    fn new(task: EvaluateTask, Evaluated { summary, report }: Evaluated) -> Self {
        Self {
            task,
            summary: summary.into(),
            report,
            tab: Tab::default(),
            cell: None,
            photo: None,
            order: classes::Order::default(),
            threshold: 0.0,
        }
    }

    fn choose_cell(&mut self, (class, called): (usize, usize)) {
        self.cell = Some(((class, called), self.summary.evaluation.photos(class, called)));
        self.photo = None;
    }
}

/// The page's state.
pub struct Evaluate {
    subject: Option<Subject>,
    pub judged: Option<Judged>,
    problem: Option<String>,
    progress: Progress,
    job: Option<(EvaluateJob, EvaluateTask)>,
    leaving: Leaving<Evaluated, ()>,
    pub textures: Textures,
    sample: Option<PathBuf>,
}

impl Evaluate {
    pub fn new(sample: Option<PathBuf>) -> Self {
        Self {
            subject: None,
            judged: None,
            problem: None,
            progress: Progress::default(),
            job: None,
            leaving: Leaving::default(),
            textures: Textures::new(THUMBNAIL_BYTES),
            sample,
        }
    }

    /// Takes the job's news.
    pub fn poll(&mut self) {
        self.leaving.poll();
        let Some((job, _)) = &mut self.job else { return };
        self.progress = job.context().progress();
        let Some(outcome) = job.take_outcome() else { return };
        let Some((_, task)) = self.job.take() else { return };
        match outcome {
            Outcome::Finished(evaluated) => self.judged = Some(Judged::new(task, evaluated)),
            Outcome::Canceled => {}
            Outcome::Failed(error) => self.problem = Some(format::error_chain(&*error)),
        }
    }

    /// What the job is expected to take at its most, by what takes it, in bytes.
    pub fn expected(&self) -> Vec<(&'static str, u64)> {
        self.job.as_ref().map(|(job, _)| job.context().expected()).unwrap_or_default()
    }

    pub fn is_running(&self) -> bool {
        self.job.is_some() || !self.leaving.is_empty()
    }

    pub fn can_start(&self) -> bool {
        self.subject.is_some() && !self.is_running()
    }

    /// The share that is done, once the number of photos is known.
    pub fn share(&self) -> Option<f32> {
        self.job.as_ref().and(self.progress.share())
    }

    /// How the last one came out.
    pub fn ended(&self) -> Option<String> {
        let judged = self.judged.as_ref();
        let right = judged.map(|judged| format!("{} right", percent(judged.summary.evaluation.top1)));
        right.or_else(|| self.problem.clone())
    }

    /// The photo that is shown large.
    pub fn photo(&self) -> Option<&Path> {
        let judged = self.judged.as_ref()?;
        Some(&judged.summary.evaluation.judged.get(judged.photo?)?.path)
    }

    pub fn set_photos(&mut self, data: PathBuf) {
        self.subject = Some(Subject::Photos(data));
    }

    pub fn set_run(&mut self, folder: PathBuf) {
        self.subject = Some(Subject::Run(folder));
    }

    /// Judges what was chosen; what was shown before goes.
    pub fn start(&mut self, library: &Library, device: DeviceChoice, places: Places, ctx: &Context) {
        let task = match &self.subject {
            None => return,
            Some(Subject::Run(folder)) => EvaluateTask::Run(folder.clone()),
            Some(Subject::Photos(data)) => EvaluateTask::Photos(Box::new(library.evaluation(data.clone(), device))),
        };
        self.cancel();
        (self.judged, self.problem, self.progress) = (None, None, Progress::default());
        self.textures.clear();
        let wake = ctx.clone();
        match evaluate::start(task.clone(), places, move || crate::gui::wake(&wake)) {
            Ok(job) => self.job = Some((job, task)),
            Err(error) => self.problem = Some(error.to_string()),
        }
    }

    pub fn cancel(&mut self) {
        self.leaving.add(self.job.take().map(|(job, _)| job));
    }

    /// Cancels, and lets go of the job when it has not ended by the deadline.
    pub fn abandon(&mut self, deadline: Instant) {
        if let Some((job, _)) = self.job.take() {
            job.context().cancel();
            tasks::let_go(job, deadline);
        }
    }

    /// Closes the large photo, or else the photos of a cell; false when there were none.
    pub fn close_detail(&mut self) -> bool {
        self.judged.as_mut().is_some_and(|judged| judged.photo.take().is_some() || judged.cell.take().is_some())
    }

    /// What a report is written from.
    pub fn to_save(&self) -> Option<(EvaluateTask, Arc<EvaluateSummary>)> {
        self.judged.as_ref().map(|judged| (judged.task.clone(), judged.summary.clone()))
    }
}

pub fn page_ui(ui: &mut Ui, page: &mut Evaluate, library: &Library, obstacle: Option<&str>, actions: &mut Vec<Action>) {
    header::header_ui(ui, page, library, obstacle, actions);
    ui.add_space(STEP);
    if page.job.is_some() {
        return working_ui(ui, &page.progress);
    }
    if let Some(problem) = &page.problem {
        return problem_ui(ui, problem, actions);
    }
    let Some(judged) = &mut page.judged else {
        return nothing_yet_ui(ui, page.subject.as_ref(), page.sample.as_deref(), actions);
    };
    header::figures_ui(ui, &judged.summary);
    page.textures.begin_frame(ui.ctx());
    judged_ui(ui, judged, &mut page.textures, actions);
    page.textures.end_frame(ui.ctx());
}

fn judged_ui(ui: &mut Ui, judged: &mut Judged, textures: &mut Textures, actions: &mut Vec<Action>) {
    let tab = widgets::tabs(ui, judged.tab, &Tab::ALL);
    if tab != judged.tab {
        (judged.tab, judged.photo) = (tab, None);
    }
    ui.add_space(STEP);
    match tab {
        Tab::Classes => return classes::classes_ui(ui, judged),
        Tab::Confidence => return confidence::confidence_ui(ui, judged, actions),
        Tab::Confusion | Tab::Suspects => {}
    }
    let rest = ui.available_rect_before_wrap();
    let (main, side) = rest.split_left_right_at_x(rest.right() - SIDE_WIDTH);
    let main = main.with_max_x(main.right() - STEP * 3.0);
    ui.scope_builder(egui::UiBuilder::new().id_salt("main").max_rect(main), |ui| match tab {
        Tab::Confusion => confusion::confusion_ui(ui, judged),
        _ => confusion::suspects_ui(ui, judged, textures, actions),
    });
    ui.scope_builder(egui::UiBuilder::new().id_salt("side").max_rect(side), |ui| match tab {
        Tab::Confusion => confusion::cell_ui(ui, judged, textures, actions),
        _ => confusion::suspect_ui(ui, judged, textures, actions),
    });
    ui.advance_cursor_after_rect(rest);
}

fn nothing_yet_ui(ui: &mut Ui, subject: Option<&Subject>, sample: Option<&Path>, actions: &mut Vec<Action>) {
    if subject.is_some() {
        let text = "Start evaluating judges the model on the photos above";
        return widgets::empty_state(ui, Icon::Target, "Ready to evaluate", text, |_| ());
    }
    let text = "Drop a folder here that holds a subfolder of photos for each class. Galley compares the model's answers \
                with the folders' names. A run's own validation photos are judged by Evaluate under Train, History";
    widgets::empty_state(ui, Icon::Target, "How good is a model?", text, |ui| {
        widgets::centered_row(ui, "choose", |ui| {
            if widgets::button(ui, Weight::Plain, Icon::FolderPlus, "Choose a folder…").clicked() {
                actions.push(Action::Ask(Ask::EvaluatePhotos));
            }
            if widgets::button(ui, Weight::Plain, Icon::FileSpreadsheet, "Choose a table…").clicked() {
                actions.push(Action::Ask(Ask::EvaluateTable));
            }
        });
        if let Some(sample) = sample
            && widgets::button(ui, Weight::Primary, Icon::Sparkles, "Try the sample photos").clicked()
        {
            actions.push(Action::Evaluate(EvaluateAction::SetPhotos(sample.join("test"))));
        }
    });
}

fn working_ui(ui: &mut Ui, progress: &Progress) {
    let share = progress.share().unwrap_or_default();
    widgets::progress_bar(ui, share);
    let phase = if progress.phase.is_empty() { "Starting" } else { &progress.phase };
    let of = progress.total.map_or("…".to_owned(), |total| {
        format!(" · {} of {}", format::count(progress.done), format::counted(total, "photo"))
    });
    widgets::note(ui, format!("{phase}{of}"));
}

fn problem_ui(ui: &mut Ui, problem: &str, actions: &mut Vec<Action>) {
    let title = "This could not be evaluated";
    widgets::empty_state(ui, Icon::CircleAlert, title, problem, |ui| {
        widgets::centered_row(ui, "other", |ui| {
            if widgets::button(ui, Weight::Plain, Icon::FolderPlus, "Choose other photos…").clicked() {
                actions.push(Action::Ask(Ask::EvaluatePhotos));
            }
            if widgets::button(ui, Weight::Plain, Icon::Boxes, "Choose another model").clicked() {
                actions.push(Action::Show(crate::gui::Page::Models));
            }
        });
    });
}

/// A share of all with a digit behind the point, or a dash where there is none.
fn percent(share: impl Into<Option<f64>>) -> String {
    share.into().map_or_else(|| "–".to_owned(), format::percent)
}
