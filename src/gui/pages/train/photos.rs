//! The photos of the next run: their classes, and what is wrong with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use egui::{Align, CollapsingHeader, Context, Layout, RichText, ScrollArea, Sense, Ui, vec2};
use lucide_icons::Icon;

use super::fields::choice;
use crate::data::{Dataset, Duplicates, Group, Photo, Split, Survey};
use crate::format;
use crate::gui::actions::{Action, TrainAction};
use crate::gui::dialogs::Ask;
use crate::gui::pictures;
use crate::gui::tasks::Leaving;
use crate::gui::textures::Textures;
use crate::gui::theme::{self, Palette, STEP};
use crate::gui::widgets::{self, Weight};
use crate::jobs::Places;
use crate::jobs::runs::RunSummary;
use crate::jobs::train::{self, LookJob};
use crate::train::TrainConfig;
use crate::worker::{Outcome, Progress};

/// Side of a thumbnail in points, and of its picture in pixels.
const THUMB: f32 = 56.0;
const PIXELS: u32 = 160;

/// Photos of a class that may be shown.
const SAMPLES: usize = 12;

/// Damaged photos and groups of copies that are listed.
const LISTED: usize = 50;

const CHOICES: [(Duplicates, &str, &str); 3] = [
    (Duplicates::Keep, "Keep all", "Every photo is used, wherever it lies"),
    (Duplicates::WithoutExact, "Leave out same files", "One of each stays, and none in training that another part has"),
    (
        Duplicates::WithoutNear,
        "And lookalikes",
        "As before, and none is trained on that looks like one of another part",
    ),
];

/// What was looked at: another of these is another look.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    data: PathBuf,
    val: Option<PathBuf>,
    validation_fraction: f64,
    seed: u64,
}

impl Key {
    fn of(config: &TrainConfig) -> Self {
        let TrainConfig { data, val, validation_fraction, seed, .. } = config.clone();
        Self { data, val, validation_fraction, seed }
    }
}

/// The photos as far as they are known.
#[derive(Default)]
pub struct Photos {
    key: Option<Key>,
    known: Option<Known>,
    found: Option<Found>,
    /// Why they cannot be trained on.
    problem: Option<String>,
    progress: Progress,
    job: Option<LookJob>,
    leaving: Leaving<Survey, Arc<Dataset>>,
}

struct Known {
    dataset: Arc<Dataset>,
    train_counts: Vec<usize>,
    validation_counts: Vec<usize>,
    test: usize,
    /// The first photos of each class.
    samples: Vec<Vec<usize>>,
    /// What a person should know, besides what the survey finds.
    notes: Vec<String>,
}

struct Found {
    survey: Survey,
    /// Photos left out, for each of [`CHOICES`].
    left_out: [usize; 3],
}

impl Photos {
    /// Takes the look's news, and looks again when other photos are wanted.
    pub fn poll(&mut self, config: &TrainConfig, places: &Places, ctx: &Context) {
        self.leaving.poll();
        let key = Key::of(config);
        let is_dragging = ctx.input(|input| input.pointer.any_down());
        if self.key.as_ref() != Some(&key) && !is_dragging {
            self.look(key, config, places, ctx);
        }
        let Some(job) = &mut self.job else { return };
        self.progress = job.context().progress();
        let is_done = job.is_done();
        while let Some(dataset) = job.poll() {
            self.known = Some(Known::of(dataset));
        }
        let outcome = if is_done { job.take_outcome() } else { None };
        let Some(outcome) = outcome else { return };
        self.job = None;
        match outcome {
            Outcome::Finished(survey) => {
                let photos = self.known.as_ref().map_or(&[][..], |known| &known.dataset.photos);
                let left_out = CHOICES.map(|(choice, ..)| survey.left_out(photos, choice).len());
                self.found = Some(Found { survey, left_out });
            }
            Outcome::Canceled => {}
            Outcome::Failed(error) => self.problem = Some(format::error_chain(&*error)),
        }
    }

    fn look(&mut self, key: Key, config: &TrainConfig, places: &Places, ctx: &Context) {
        self.leaving.add(self.job.take());
        (self.known, self.found, self.problem) = (None, None, None);
        if !key.data.as_os_str().is_empty() {
            let wake = ctx.clone();
            match train::start_look(config.clone(), places.clone(), move || crate::gui::wake(&wake)) {
                Ok(job) => self.job = Some(job),
                Err(error) => self.problem = Some(error.to_string()),
            }
        }
        self.key = Some(key);
    }

    /// Looks again: photos may have come or gone.
    pub fn look_again(&mut self) {
        self.key = None;
    }

    pub fn is_looking(&self) -> bool {
        self.job.is_some() || !self.leaving.is_empty() || self.key.is_none()
    }

    /// True when nothing is known that would keep a run from starting.
    pub fn are_usable(&self) -> bool {
        self.known.is_some() && self.problem.is_none()
    }

    /// How many classes there are, once known.
    pub fn classes(&self) -> Option<usize> {
        Some(self.known.as_ref()?.dataset.classes.len())
    }

    /// How many photos a run with these caps would train and validate with.
    pub fn count(&self, config: &TrainConfig) -> usize {
        let Some(known) = &self.known else { return 0 };
        let of_class = |count: &usize| config.per_class.map_or(*count, |most| (*count).min(most));
        let training: usize = known.train_counts.iter().map(of_class).sum();
        training.min(config.max_photos.unwrap_or(usize::MAX)) + known.validation_counts.iter().sum::<usize>()
    }

    /// Some training photos of different classes, with their places among the training photos.
    pub fn examples(&self, count: usize) -> Vec<(usize, PathBuf)> {
        let Some(known) = &self.known else { return Vec::new() };
        let training = || known.dataset.part(Split::Train).enumerate();
        let first_of = |class: usize| training().find(|(_, photo)| photo.class == class);
        let classes = 0..known.dataset.classes.len().min(count);
        classes.filter_map(first_of).map(|(index, photo)| (index, photo.path.clone())).collect()
    }

    pub fn cancel(&mut self) {
        self.leaving.add(self.job.take());
    }
}

impl Known {
    fn of(dataset: Arc<Dataset>) -> Self {
        let mut samples = vec![Vec::new(); dataset.classes.len()];
        for (index, photo) in dataset.photos.iter().enumerate().filter(|(_, photo)| photo.split == Split::Train) {
            if samples[photo.class].len() < SAMPLES {
                samples[photo.class].push(index);
            }
        }
        let mut notes = dataset.notes.clone();
        notes.extend(dataset.skipped.iter().map(|one| format!("{}: {}", one.path.display(), one.reason)));
        notes.extend(dataset.imbalance_warning());
        let counts = |split| dataset.class_counts(split);
        let test = dataset.part(Split::Test).count();
        let (train_counts, validation_counts) = (counts(Split::Train), counts(Split::Validation));
        Self { train_counts, validation_counts, test, samples, notes, dataset }
    }

    fn summary(&self) -> String {
        let sum = |counts: &[usize]| counts.iter().sum::<usize>() as u64;
        let (train, validation) = (sum(&self.train_counts), sum(&self.validation_counts));
        let classes = format::count(self.dataset.classes.len() as u64);
        let mut text = format!(
            "{} of {classes} classes · {} to train on · {} to validate with",
            format::counted(self.dataset.photos.len() as u64, "photo"),
            format::count(train),
            format::count(validation)
        );
        if self.test > 0 {
            text += &format!(" · {} to test with, never trained on", format::count(self.test as u64));
        }
        text
    }

    fn name(&self, index: usize) -> String {
        name_of(&self.dataset, &self.dataset.photos[index])
    }
}

/// A photo's path inside its folder.
fn name_of(dataset: &Dataset, photo: &Photo) -> String {
    photo.path.strip_prefix(&dataset.root).unwrap_or(&photo.path).display().to_string()
}

/// What is chosen to train on, as one line with its buttons.
pub fn source_ui(ui: &mut Ui, config: &TrainConfig, can_change: bool, actions: &mut Vec<Action>) {
    if config.data.as_os_str().is_empty() {
        return;
    }
    ui.horizontal_wrapped(|ui| {
        widgets::chip(ui, &widgets::last_two(&config.data)).on_hover_text(config.data.display().to_string());
        if let Some(val) = &config.val {
            let text = format!("validated with {}", widgets::last_two(val));
            widgets::chip(ui, &text).on_hover_text(val.display().to_string());
            if can_change && widgets::icon_button(ui, Icon::X, "Validate with a part of the photos").clicked() {
                actions.push(Action::Train(TrainAction::SetValidation(None)));
            }
        }
        if can_change {
            if widgets::button(ui, Weight::Quiet, Icon::FolderOpen, "Choose other photos…").clicked() {
                actions.push(Action::Ask(Ask::TrainPhotos));
            }
            if config.val.is_none()
                && widgets::button(ui, Weight::Quiet, Icon::FolderPlus, "Choose validation photos…").clicked()
            {
                actions.push(Action::Ask(Ask::ValidationPhotos));
            }
            if widgets::icon_button(ui, Icon::RotateCcw, "Look at the photos again").clicked() {
                actions.push(Action::Train(TrainAction::LookAgain));
            }
        }
    });
}

pub fn photos_ui(
    ui: &mut Ui,
    photos: &Photos,
    config: &mut TrainConfig,
    textures: &mut Textures,
    sample: Option<&Path>,
    unfinished: Option<&RunSummary>,
    actions: &mut Vec<Action>,
) {
    if config.data.as_os_str().is_empty() {
        return nothing_yet_ui(ui, sample, unfinished, actions);
    }
    if let Some(problem) = &photos.problem {
        return problem_ui(ui, problem, actions);
    }
    let Some(known) = &photos.known else {
        let text = "Galley lists the folders, then looks at every photo once";
        return widgets::empty_state(ui, Icon::Images, "Reading folders…", text, |_| ());
    };
    ui.label(known.summary());
    if photos.job.is_some() {
        progress_ui(ui, &photos.progress);
    }
    ui.add_space(4.0);
    ScrollArea::vertical().id_salt("classes").auto_shrink(false).show(ui, |ui| {
        ui.set_max_width(ui.available_width() - STEP);
        findings_ui(ui, known, photos.found.as_ref(), config, textures);
        classes_ui(ui, known, textures);
    });
}

fn nothing_yet_ui(ui: &mut Ui, sample: Option<&Path>, unfinished: Option<&RunSummary>, actions: &mut Vec<Action>) {
    let text = "Drop a folder here that holds a subfolder of photos for each class, such as pizza, soup and salad. \
                Originals are never changed";
    widgets::empty_state(ui, Icon::GraduationCap, "Teach a model your own classes", text, |ui| {
        widgets::centered_row(ui, "choose", |ui| {
            if widgets::button(ui, Weight::Plain, Icon::FolderPlus, "Choose a folder…").clicked() {
                actions.push(Action::Ask(Ask::TrainPhotos));
            }
            if widgets::button(ui, Weight::Plain, Icon::FileSpreadsheet, "Choose a table…").clicked() {
                actions.push(Action::Ask(Ask::TrainTable));
            }
        });
        if let Some(sample) = sample
            && widgets::button(ui, Weight::Primary, Icon::Sparkles, "Try the sample photos").clicked()
        {
            actions.push(Action::Train(TrainAction::SetPhotos(sample.to_owned())));
        }
        if let Some(run) = unfinished {
            let (done, all) = (run.curves.epochs.len(), run.record.config.epochs);
            let text = format!("Continue {}, {done} of {all} epochs done", run.name());
            if widgets::button(ui, Weight::Quiet, Icon::Play, &text).clicked() {
                actions.push(Action::Train(TrainAction::Resume(run.folder.clone())));
            }
        }
    });
}

fn problem_ui(ui: &mut Ui, problem: &str, actions: &mut Vec<Action>) {
    widgets::empty_state(ui, Icon::CircleAlert, "These photos cannot be trained on", problem, |ui| {
        if widgets::button(ui, Weight::Plain, Icon::FolderPlus, "Choose a folder…").clicked() {
            actions.push(Action::Ask(Ask::TrainPhotos));
        }
    });
}

/// A thin bar and what goes on.
pub fn progress_ui(ui: &mut Ui, progress: &Progress) {
    let share = progress.share().unwrap_or_default();
    widgets::progress_bar(ui, share);
    let of = progress
        .total
        .map_or(String::new(), |total| format!(" · {} of {}", format::count(progress.done), format::count(total)));
    widgets::note(ui, format!("{}{of}", progress.phase));
}

/// What is wrong, and what becomes of it.
fn findings_ui(ui: &mut Ui, known: &Known, found: Option<&Found>, config: &mut TrainConfig, textures: &mut Textures) {
    let warning = Palette::of(ui).warning;
    known.notes.iter().for_each(|note| widgets::alert(ui, Icon::Info, warning, note));
    let Some(Found { survey, left_out }) = found else { return };
    if survey.corrupt.is_empty() && survey.exact.is_empty() && survey.near.is_empty() {
        let accent = Palette::of(ui).accent_line;
        widgets::alert(ui, Icon::CircleCheck, accent, "Every photo can be read, and there are no copies among them");
        ui.add_space(STEP);
        return;
    }
    widgets::card(ui, |ui| {
        corrupt_ui(ui, known, survey);
        groups_ui(ui, known, &survey.exact, "the same file", textures);
        groups_ui(ui, known, &survey.near, "that look the same", textures);
        if survey.exact.is_empty() && survey.near.is_empty() {
            return;
        }
        let what = "Photos on both sides of the split make the result look better than it is";
        choice(ui, "What becomes of copies", what, &mut config.duplicates, &CHOICES);
        let chosen = CHOICES.iter().position(|(choice, ..)| *choice == config.duplicates).unwrap_or(0);
        let copies = left_out[chosen].saturating_sub(survey.corrupt.len()) as u64;
        widgets::note(
            ui,
            match copies {
                0 => "No copy is left out of training".to_owned(),
                copies => {
                    format!("{} left out as copies; the files stay where they are", format::counted(copies, "photo"))
                }
            },
        );
    });
    ui.add_space(STEP);
}

fn corrupt_ui(ui: &mut Ui, known: &Known, survey: &Survey) {
    let count = survey.corrupt.len() as u64;
    if count == 0 {
        return;
    }
    let (these, are) = (format::counted(count, "photo"), if count == 1 { "is" } else { "are" });
    let title = format!("{these} cannot be read and {are} left out");
    CollapsingHeader::new(title).id_salt("corrupt").show(ui, |ui| {
        for (index, reason) in survey.corrupt.iter().take(LISTED) {
            ui.add(egui::Label::new(format!("{}: {reason}", known.name(*index))).wrap().selectable(true));
        }
        and_more(ui, survey.corrupt.len());
    });
}

fn groups_ui(ui: &mut Ui, known: &Known, groups: &[Group], what: &str, textures: &mut Textures) {
    if groups.is_empty() {
        return;
    }
    let count = |is: fn(&Group) -> bool| groups.iter().filter(|group| is(group)).count() as u64;
    let (leaks, differ) = (count(|group| group.leaks), count(|group| group.labels_differ));
    let mut title = format!("{} of photos {what}", format::counted(groups.len() as u64, "group"));
    if leaks > 0 {
        title += &format!(" · {} on both sides of the split", format::count(leaks));
    }
    if differ > 0 {
        title += &format!(" · {} in different classes", format::count(differ));
    }
    CollapsingHeader::new(title).id_salt(what).show(ui, |ui| {
        for group in groups.iter().take(LISTED) {
            group_ui(ui, known, group, textures);
        }
        and_more(ui, groups.len());
    });
}

fn group_ui(ui: &mut Ui, known: &Known, group: &Group, textures: &mut Textures) {
    const SHOWN: usize = 4;
    ui.horizontal_top(|ui| {
        for index in group.photos.iter().take(SHOWN) {
            thumb_ui(ui, known, *index, textures);
        }
        ui.vertical(|ui| {
            ui.spacing_mut().item_spacing.y = 2.0;
            for index in group.photos.iter().take(SHOWN) {
                let part = match known.dataset.photos[*index].split {
                    Split::Train => "training",
                    Split::Validation => "validation",
                    Split::Test => "test",
                };
                widgets::note(ui, format!("{} ({part})", known.name(*index)));
            }
            let more = group.photos.len().saturating_sub(SHOWN);
            if more > 0 {
                widgets::note(ui, format!("and {} more", format::count(more as u64)));
            }
        });
    });
}

fn and_more(ui: &mut Ui, count: usize) {
    if count > LISTED {
        widgets::note(ui, format!("and {} more", format::count((count - LISTED) as u64)));
    }
}

fn classes_ui(ui: &mut Ui, known: &Known, textures: &mut Textures) {
    const ROW: f32 = THUMB + 12.0;
    let most = known.train_counts.iter().copied().max().unwrap_or(1).max(1);
    for (class, name) in known.dataset.classes.iter().enumerate() {
        let (row, _) = ui.allocate_exact_size(vec2(ui.available_width(), ROW), Sense::empty());
        // With a thousand classes, those out of sight cost nothing but their place.
        if ui.is_rect_visible(row) {
            let builder = egui::UiBuilder::new()
                .id_salt(("class", class))
                .max_rect(row)
                .layout(Layout::left_to_right(Align::Center));
            ui.scope_builder(builder, |ui| class_ui(ui, known, class, name, most, textures));
        }
    }
}

fn class_ui(ui: &mut Ui, known: &Known, class: usize, name: &str, most: usize, textures: &mut Textures) {
    const NAME: f32 = 168.0;
    let palette = Palette::of(ui);
    let (train, validation) = (known.train_counts[class], known.validation_counts[class]);
    ui.allocate_ui_with_layout(vec2(NAME, THUMB), Layout::top_down(Align::Min), |ui| {
        ui.set_width(NAME);
        ui.spacing_mut().item_spacing.y = 4.0;
        ui.add(egui::Label::new(RichText::new(name).font(theme::strong(13.0))).truncate());
        let counts =
            format!("{} to train · {} to validate", format::count(train as u64), format::count(validation as u64));
        ui.add(egui::Label::new(RichText::new(counts).small().color(palette.secondary)).truncate());
        let (rect, _) = ui.allocate_exact_size(vec2(NAME, 4.0), Sense::empty());
        widgets::bar(ui, rect, train as f32 / most as f32, palette.accent);
    });
    ui.add_space(STEP);
    ui.spacing_mut().item_spacing.x = 4.0;
    for index in &known.samples[class] {
        if ui.available_width() < THUMB {
            break;
        }
        thumb_ui(ui, known, *index, textures);
    }
}

fn thumb_ui(ui: &mut Ui, known: &Known, index: usize, textures: &mut Textures) {
    let (rect, response) = ui.allocate_exact_size(vec2(THUMB, THUMB), Sense::hover());
    pictures::filling_ui(ui, rect, &known.dataset.photos[index].path, PIXELS, textures);
    response.on_hover_text(known.name(index));
}
