//! The settings of a run that seldom need a change.

use egui::Ui;

use super::fields::{Scale, choice, number, optional, slider};
use crate::data::Augment;
use crate::device::DeviceChoice;
use crate::gui::theme::STEP;
use crate::gui::widgets;
use crate::train::{CacheFeatures, ClassWeights, Course, Method, TrainConfig};

pub fn more_ui(ui: &mut Ui, config: &mut TrainConfig) {
    widgets::section(ui, "Random changes");
    augment_ui(ui, &mut config.augment);
    ui.add_space(STEP);
    widgets::section(ui, "Data");
    data_ui(ui, config);
    ui.add_space(STEP);
    widgets::section(ui, "Steps");
    steps_ui(ui, config);
    ui.add_space(STEP);
    widgets::section(ui, "Against learning by heart");
    regular_ui(ui, config);
    ui.add_space(STEP);
    widgets::section(ui, "Run");
    run_ui(ui, config);
}

fn data_ui(ui: &mut Ui, config: &mut TrainConfig) {
    let what = "Share of each class kept for validation, where the data has no such part";
    slider(ui, "Kept for validation", what, &mut config.validation_fraction, 0.0..=0.9, Scale::Linear);
    let what = "More of them hide slow disks, and take memory";
    number(ui, "Batches decoded ahead", what, &mut config.batches_ahead, 1..=64);
    let what = "Where blocks are frozen and photos are not changed at random";
    let choices = [
        (CacheFeatures::Auto, "Once, if they fit", "What frozen blocks make of a photo is kept: epochs take seconds"),
        (CacheFeatures::Never, "In every epoch", "Frozen blocks compute each photo anew"),
    ];
    choice(ui, "Frozen blocks compute", what, &mut config.cache_features, &choices);
    let choices = [
        (false, "Stay as they are", "A run that does not fit is refused, with what would"),
        (true, "May become smaller", "The largest that fit, when nothing else helps"),
    ];
    let what = "When the memory is not enough";
    choice(ui, "Photos", what, &mut config.may_shrink_images, &choices);
}

fn steps_ui(ui: &mut Ui, config: &mut TrainConfig) {
    let choices = [
        (Method::AdamW, "AdamW", "Adapts to each weight; weight decay apart from the gradient"),
        (Method::Sgd, "SGD", "Plain steps with momentum"),
    ];
    choice(ui, "Optimizer", "How gradients become steps", &mut config.optimizer, &choices);
    slider(ui, "Weight decay", "Pulls weights towards 0", &mut config.weight_decay, 0.0..=1.0, Scale::Logarithmic);
    if config.optimizer == Method::Sgd {
        let what = "Share of the last step that goes on";
        slider(ui, "Momentum", what, &mut config.momentum, 0.0..=0.999, Scale::Linear);
    }
    let what = "Gradients together are scaled down to this length";
    optional(ui, "Clip gradients", (what, "As they are"), &mut config.clip_norm, 1.0, 0.01..=100.0);
    course_ui(ui, config);
    let what = "Each block's rate as a share of that of the block behind it: early layers move less";
    slider(ui, "Rate from block to block", what, &mut config.layer_decay, 0.0..=1.0, Scale::Linear);
}

fn course_ui(ui: &mut Ui, config: &mut TrainConfig) {
    let choices = [
        (Course::Cosine, "Cosine", "Falls slowly, then fast, then slowly"),
        (Course::Step, "Steps", "Multiplied every so many epochs"),
        (Course::Constant, "Constant", "Stays as it is"),
    ];
    choice(ui, "Course of the rate", "After it has warmed up", &mut config.schedule, &choices);
    number(ui, "Warm-up epochs", "In which the rate grows to its height", &mut config.warmup_epochs, 0.0..=100.0);
    match config.schedule {
        Course::Cosine => {
            slider(ui, "Rate at the end", "As a share of the height", &mut config.min_lr, 0.0..=1.0, Scale::Linear);
        }
        Course::Step => {
            let what = "The rate is multiplied after so many";
            number(ui, "Epochs between steps", what, &mut config.step_epochs, 0.01..=1000.0);
            let what = "By which the rate is multiplied";
            slider(ui, "Factor of a step", what, &mut config.step_factor, 0.0..=1.0, Scale::Linear);
        }
        Course::Constant => {}
    }
}

fn regular_ui(ui: &mut Ui, config: &mut TrainConfig) {
    let what = "Share of the target that is spread over all classes";
    slider(ui, "Label smoothing", what, &mut config.label_smoothing, 0.0..=0.5, Scale::Linear);
    let what = "Chance that a photo skips the last residual block; those before it in proportion";
    slider(ui, "Blocks skipped", what, &mut config.drop_path, 0.0..=0.9, Scale::Linear);
    let choices = [
        (ClassWeights::None, "By their photos", "Every photo counts the same"),
        (ClassWeights::Balanced, "All the same", "Photos of rare classes count more"),
    ];
    choice(ui, "Classes count", "What a photo of a rare class is worth", &mut config.class_weights, &choices);
    let what = "Evaluates and saves a moving average of the weights; the number is the share of the old";
    optional(ui, "Average the weights", (what, "The weights themselves"), &mut config.ema, 0.999, 0.5..=0.9999);
    let what = "Ends the run after so many epochs without a better validation";
    optional(ui, "Stop early", (what, "All epochs are trained"), &mut config.patience, 5, 1..=100);
}

fn run_ui(ui: &mut Ui, config: &mut TrainConfig) {
    let what = "Minutes between snapshots within an epoch; 0: only at its end";
    number(ui, "Minutes between snapshots", what, &mut config.snapshot_minutes, 0.0..=1440.0);
    number(ui, "Seed", "What every random choice follows from", &mut config.seed, 0..=u64::MAX);
    let choices = [
        (DeviceChoice::Auto, "Best there is", "The graphics chip of a Mac, else the processor"),
        (DeviceChoice::Cpu, "Processor", "Always possible"),
        (DeviceChoice::Metal, "Metal", "The graphics chip of a Mac"),
    ];
    choice(ui, "Device", "Where to compute", &mut config.device, &choices);
}

fn augment_ui(ui: &mut Ui, augment: &mut Augment) {
    let Augment {
        flip,
        random_crop,
        crop_scale: [least, most],
        crop_ratio: [narrowest, widest],
        brightness,
        contrast,
        saturation,
        erase,
        mixup,
        cutmix,
    } = augment;
    slider(ui, "Mirrored", "How often a photo is mirrored left to right", flip, 0.0..=1.0, Scale::Linear);
    ui.checkbox(random_crop, "Random parts").on_hover_text("Cuts out a random part instead of the middle");
    if *random_crop {
        slider(ui, "Smallest part", "Share of the photo's area", least, 0.01..=*most, Scale::Linear);
        slider(ui, "Largest part", "Share of the photo's area", most, *least..=1.0, Scale::Linear);
        slider(ui, "Narrowest part", "Width divided by height", narrowest, 0.05..=*widest, Scale::Logarithmic);
        slider(ui, "Widest part", "Width divided by height", widest, *narrowest..=20.0, Scale::Logarithmic);
    }
    for (name, value) in [("Brightness", brightness), ("Contrast", contrast), ("Saturation", saturation)] {
        slider(ui, name, "How far it may change either way", value, 0.0..=1.0, Scale::Linear);
    }
    slider(ui, "Painted over", "How often a box is painted over", erase, 0.0..=1.0, Scale::Linear);
    let what = "Blends pairs of photos: 0 is off, 0.2 is usual";
    slider(ui, "Mixup", what, mixup, 0.0..=5.0, Scale::Logarithmic);
    let what = "Puts a box of one photo into another: 0 is off, 1 is usual";
    slider(ui, "Cutmix", what, cutmix, 0.0..=5.0, Scale::Logarithmic);
}
