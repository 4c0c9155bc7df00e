//! One compression: what is read once, and the steps to a file with its proof.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::photos::{BATCH, Judgement, Photos, photos_per_second};
use super::pruned::PrunedModel;
use super::{CompressConfig, CompressJobError, reports_of};
use crate::checkpoint::{Checkpoint, ElementType, TensorKind, save_atomically};
use crate::compress::calibrate::calibrate;
use crate::compress::quantize::{self, Calibration, Plan, Written};
use crate::compress::{Figures, Proof, Report};
use crate::device::Chosen;
use crate::format::hex;
use crate::images::Input;
use crate::jobs::Places;
use crate::jobs::admission::{Asked, DoesNotFit};
use crate::jobs::doctor::{self, Prepared};
use crate::jobs::inference::ToLoad;
use crate::jobs::models::ModelLoan;
use crate::jobs::peaks;
use crate::journal::Journal;
use crate::memory::{self, F32, heap};
use crate::models::{self, Architecture, InputRanges, Precision};
use crate::ops;
use crate::predict::{self, Classifier, Description, Loading, ModelSource, PredictError, TransformOverrides};
use crate::report;
use crate::worker::{BoxError, JobContext};

/// A compression under way.
pub struct Work<'a> {
    pub config: &'a CompressConfig,
    pub ctx: &'a JobContext,
    pub chosen: Chosen,
    /// What is rounded: the original, or what pruning left of it.
    pub checkpoint: Checkpoint,
    pub architecture: Architecture,
    original: Original,
    places: &'a Places,
    description: Description,
    /// What both models are compared on.
    checked: Option<Rc<Photos>>,
    /// Why the original's answers are not known, if they are wanted and are not.
    not_measured: Option<String>,
    /// What was done to the original, in words.
    steps: Vec<String>,
    notices: Vec<String>,
}

/// What a compression begins from.
struct Original {
    figures: Figures,
    training_state_bytes: u64,
    sha256: String,
}

/// The original, ready to classify.
enum Loaded {
    Lent(ModelLoan),
    Own(Box<Classifier>),
}

impl Deref for Loaded {
    type Target = Classifier;

    fn deref(&self) -> &Classifier {
        match self {
            Self::Lent(loan) => loan,
            Self::Own(classifier) => classifier,
        }
    }
}

/// A smaller model that has no name yet.
pub struct Attempt {
    written: Written,
    /// How its size was chosen, in words.
    step: String,
    pub proof: Option<Proof>,
}

/// The smaller model's file says how it wants its photos.
const NO_OVERRIDES: TransformOverrides =
    TransformOverrides { resize: None, crop: None, interpolation: None, mean: None, std: None };

impl<'a> Work<'a> {
    pub fn prepare(config: &'a CompressConfig, places: &'a Places, ctx: &'a JobContext) -> Result<Self, BoxError> {
        let Prepared { chosen, notices } = doctor::prepare(config.device, &places.verdicts, ctx)?;
        let checkpoint = predict::open(&config.model)?;
        let unusable = |source| PredictError::Model { path: checkpoint.path().to_owned(), source };
        let architecture = predict::recognise(&checkpoint).map_err(unusable)?;
        let description = predict::describe(&checkpoint, &architecture, config.labels.as_deref(), &config.transform)?;
        let original = Original::of(&checkpoint, &architecture, config, places, &chosen)?;
        let mut work = Self {
            config,
            ctx,
            chosen,
            checkpoint,
            architecture,
            original,
            places,
            description,
            checked: None,
            not_measured: None,
            steps: Vec::new(),
            notices,
        };
        work.notices.extend(work.description.notices.iter().cloned());
        work.notices.extend(work.quantized_before());
        work.checked = work.photos(config.check.as_deref())?.map(Rc::new);
        work.notices.extend(work.checked.iter().flat_map(|photos| photos.notices.iter().cloned()));
        Ok(work)
    }

    fn photos(&self, folder: Option<&Path>) -> Result<Option<Photos>, BoxError> {
        let names: Vec<&str> = self.description.labels.iter().map(|label| &**label).collect();
        folder.map(|folder| Photos::find(folder, &names, self.ctx)).transpose()
    }

    /// Says so of a model that was rounded before.
    fn quantized_before(&self) -> Option<String> {
        let held = self.checkpoint.tensors().iter().find_map(|tensor| match tensor.element {
            ElementType::Quantized(name) => Some(name.to_lowercase()),
            _ => None,
        })?;
        Some(format!(
            "This model is quantized already ({held}): rounding it again loses more than rounding the original once"
        ))
    }

    pub fn run(mut self) -> Result<Report, BoxError> {
        self.prune()?;
        let calibrated = self.photos(self.config.calibrate.as_deref())?;
        let sample = match calibrated.as_ref().or(self.checked.as_deref()) {
            Some(photos) => photos.sample(self.description.transform, self.ctx)?,
            None => Vec::new(),
        };
        let calibration = match self.photos_fit(&sample)? {
            true => {
                let (device, ctx) = (&self.chosen.device, self.ctx);
                Some(calibrate(&self.checkpoint, &self.architecture, &sample, device, ctx)?)
            }
            false => None,
        };
        self.release()?;
        let before = self.judge_original()?;
        let measures = self.config.max_loss.is_some();
        if let (true, Some(reason)) = (measures, &self.not_measured) {
            return Err(CompressJobError::OriginalDoesNotFit(reason.clone()).into());
        }
        let attempt = self.attempt_size(calibration.as_ref(), &sample, before.as_ref())?;
        if let (Some(allowed), Some(proof), false) = (self.config.max_loss, &attempt.proof, self.config.save_anyway)
            && proof.loss() > allowed
        {
            return Err(CompressJobError::LosesTooMuch { allowed, proof: Box::new(proof.clone()) }.into());
        }
        self.save(attempt, if calibration.is_some() { sample.len() } else { 0 })
    }

    /// Goes on with what pruning leaves, where that is wanted.
    fn prune(&mut self) -> Result<(), BoxError> {
        let Some(pruning) = &self.config.prune else { return Ok(()) };
        // The file stays open, and is gone with that.
        let PrunedModel { checkpoint, step, notices } = PrunedModel::make(pruning, self.config, self.places, self.ctx)?;
        self.architecture = predict::recognise(&checkpoint)?;
        self.checkpoint = checkpoint;
        self.steps.push(step);
        notices.into_iter().for_each(|notice| self.note(notice));
        Ok(())
    }

    /// Whether photos can go through the network in f32, which memory may not allow.
    pub fn photos_fit(&mut self, sample: &[Input]) -> Result<bool, BoxError> {
        if sample.is_empty() {
            return Ok(false);
        }
        let Err(reason) = self.left_beside(&self.original(Precision::F32))? else { return Ok(true) };
        self.note(format!("Weights are rounded without looking at photos. {reason}"));
        Ok(false)
    }

    fn note(&mut self, notice: String) {
        if !self.notices.contains(&notice) {
            self.notices.push(notice);
        }
    }

    /// The memory that is left beside a model that classifies, or why it does not fit.
    fn left_beside(&mut self, model: &ToLoad<'_>) -> Result<Result<u64, String>, BoxError> {
        match model.admit(format!("{:?}", self.config), &self.chosen, self.places) {
            Ok((predicted, notice)) => {
                notice.into_iter().for_each(|notice| self.note(notice));
                predicted.iter().for_each(|predicted| self.ctx.expect(&predicted.items));
                Ok(Ok(predicted.map_or(u64::MAX, |predicted| predicted.left)))
            }
            Err(error) => error.downcast::<DoesNotFit>().map(|refused| Err(refused.reason())),
        }
    }

    fn original(&self, precision: Precision) -> ToLoad<'a> {
        ToLoad {
            model: &self.config.model,
            labels: self.config.labels.as_deref(),
            transform: &self.config.transform,
            loading: Loading { precision, ..Loading::default() },
            batch_size: BATCH,
            threads: 0,
            mode: "evaluate",
            choice: self.config.memory,
        }
    }

    pub fn release(&self) -> Result<(), BoxError> {
        ops::release(&self.chosen.device)?;
        heap::release();
        Ok(())
    }

    /// The original's answers, where there are photos and it fits in memory.
    fn judge_original(&mut self) -> Result<Option<Judgement>, BoxError> {
        let Some(photos) = self.checked.clone() else { return Ok(None) };
        let wanted = self.original(Precision::Stored);
        let left = match self.left_beside(&wanted)? {
            Ok(left) => left,
            Err(reason) => {
                self.note(format!("The two models were not compared. {reason}"));
                self.not_measured = Some(reason);
                return Ok(None);
            }
        };
        let original = self.load_original(&wanted)?;
        Ok(Some(photos.judge(&original, (self.config.memory, left), self.ctx)?))
    }

    /// From the shelf where it is there. It is not put there: how large models are that stay loaded is another question.
    fn load_original(&self, wanted: &ToLoad<'_>) -> Result<Loaded, BoxError> {
        let Self { places, chosen, ctx, .. } = self;
        Ok(match places.models.holds(&wanted.wanted(), chosen) {
            true => Loaded::Lent(places.models.lend_exactly(&wanted.wanted(), chosen, ctx)?),
            false => {
                let ToLoad { model, labels, transform, loading, .. } = *wanted;
                Loaded::Own(Box::new(predict::load(model, labels, transform, loading, &chosen.device)?))
            }
        })
    }

    /// Writes a smaller model, and compares its answers where there are those of the original.
    pub fn attempt(
        &mut self,
        plan: &Plan,
        step: String,
        calibration: Option<&Calibration>,
        before: Option<&Judgement>,
    ) -> Result<Attempt, BoxError> {
        let written = self.write(plan, &step, calibration)?;
        let Some((photos, before)) = self.checked.clone().zip(before) else {
            return Ok(Attempt { written, step, proof: None });
        };
        let (smaller, left) = self.load(&written)?;
        let after = photos.judge(&smaller, (self.config.memory, left), self.ctx)?;
        let folder = photos.folder.clone();
        let labels = &self.description.labels;
        let proof = Proof::new(folder, [&before.judged, &after.judged], labels, after.skipped);
        Ok(Attempt { written, step, proof: Some(proof) })
    }

    /// Writes the smaller model beside its name.
    pub fn write(&self, plan: &Plan, step: &str, calibration: Option<&Calibration>) -> Result<Written, BoxError> {
        // Once as f32 and once as stored, besides pieces of it.
        let workspace = 2 * plan.largest_elements() as u64 * F32;
        let asked = Asked {
            plan: memory::Plan { workspace, heap: workspace, ..memory::Plan::default() },
            kind: peaks::kind(&self.architecture.name, "quantize", &self.chosen),
            config: format!("{:?}", self.config),
        };
        let (predicted, _) = asked.admit(self.config.memory, &self.chosen, &self.places.journal, &|_| Vec::new())?;
        self.ctx.expect(&predicted.items);
        let metadata = self.metadata(step, calibration)?;
        let Self { checkpoint, config, ctx, .. } = self;
        let written = quantize::write(checkpoint, plan, &metadata, calibration, &config.output, ctx)?;
        predicted.record(None, &self.places.journal)?;
        heap::release();
        Ok(written)
    }

    /// The smaller model, and the memory left beside it.
    fn load(&mut self, written: &Written) -> Result<(Classifier, u64), BoxError> {
        let model = &ModelSource::File(written.file.path().to_owned());
        let smaller = ToLoad { model, labels: None, transform: &NO_OVERRIDES, ..self.original(Precision::Stored) };
        let left = self.left_beside(&smaller)?.map_err(CompressJobError::ResultDoesNotFit)?;
        Ok((predict::load(model, None, &NO_OVERRIDES, smaller.loading, &self.chosen.device)?, left))
    }

    /// What the file says of itself.
    pub fn metadata(&self, step: &str, calibration: Option<&Calibration>) -> Result<Map<String, Value>, BoxError> {
        let Self { architecture, description, .. } = self;
        let labels: Vec<&str> = description.labels.iter().map(|label| &**label).collect();
        let source = match &self.config.model {
            ModelSource::Starter => None,
            ModelSource::File(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
        };
        let values = [
            ("general.architecture", json!(architecture.name)),
            ("general.quantization_version", json!(2)),
            ("architecture", json!(architecture.name)),
            ("transform", json!(serde_json::to_string(&description.transform)?)),
            ("galley.source", json!(source.unwrap_or_else(|| self.config.model.name()))),
            ("galley.source.sha256", json!(self.original.sha256)),
            ("galley.compressed", json!(self.with_steps(step).join(", then "))),
            ("galley.calibrated", json!(calibration.is_some())),
        ];
        let named = description.has_names.then(|| ("labels", json!(labels)));
        let ranges =
            calibration.map(quantize::input_ranges).map(|ranges| serde_json::to_string(&ranges)).transpose()?;
        let ranges = ranges.map(|ranges| (InputRanges::KEY, json!(ranges)));
        Ok(values.into_iter().chain(named).chain(ranges).map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// All that was done, with the last step.
    fn with_steps(&self, last: &str) -> Vec<String> {
        self.steps.iter().cloned().chain([last.to_owned()]).collect()
    }

    /// Gives the file its name and puts the reports beside it.
    fn save(mut self, attempt: Attempt, calibration_photos: usize) -> Result<Report, BoxError> {
        let Attempt { written, step, proof } = attempt;
        let (before, after) = self.figures(&written, proof.is_some())?;
        let output = self.config.output.clone();
        let failed = |path: PathBuf| |source| CompressJobError::Save { path, source };
        written.file.name().map_err(failed(output.clone()))?;
        let report = Report {
            network: self.architecture.title.clone(),
            source: self.config.model.name(),
            source_sha256: self.original.sha256.clone(),
            output: output.clone(),
            steps: self.with_steps(&step),
            before,
            after,
            training_state_bytes: self.original.training_state_bytes,
            calibration_photos,
            blocks: written.blocks,
            proof,
            notices: std::mem::take(&mut self.notices),
        };
        let [as_json, as_page] = reports_of(&output);
        let text = serde_json::to_string_pretty(&report)?;
        save_atomically(&as_json, |writer| std::io::Write::write_all(writer, text.as_bytes()))
            .map_err(failed(as_json.clone()))?;
        report::compression_page(&report, self.ctx)?.save(&as_page).map_err(failed(as_page.clone()))?;
        Ok(report)
    }

    /// Both models' sizes; and their speeds, in turns where both fit in memory at once.
    fn figures(&mut self, written: &Written, measures: bool) -> Result<(Figures, Figures), BoxError> {
        let path = written.file.path();
        let smaller = Checkpoint::open_unfinished(path)?;
        let device = &self.chosen.device;
        let before = self.original.figures;
        let after = Figures {
            parameters: models::parameters(self.checkpoint.tensors()),
            file_bytes: path.metadata()?.len(),
            resident_bytes: models::weigh(smaller.tensors(), &self.architecture, Precision::Stored, device)?,
            photos_per_second: None,
        };
        if !measures {
            return Ok((before, after));
        }
        let (classifier, _) = self.load(written)?;
        let original = self.original(Precision::Stored);
        let loan = match self.left_beside(&original)? {
            Ok(_) => Some(self.load_original(&original)?),
            Err(_) => None,
        };
        let both: Vec<&Classifier> = std::iter::once(&classifier).chain(loan.as_deref()).collect();
        let speeds = photos_per_second(&both, self.ctx)?;
        let after = Figures { resident_bytes: classifier.network.bytes, ..after };
        let measured = |of: Figures, place: usize| Figures { photos_per_second: speeds.get(place).copied(), ..of };
        Ok((measured(before, 1), measured(after, 0)))
    }
}

impl Original {
    fn of(
        checkpoint: &Checkpoint,
        architecture: &Architecture,
        config: &CompressConfig,
        places: &Places,
        chosen: &Chosen,
    ) -> Result<Self, BoxError> {
        let bytes_of = |path: &&Path| path.metadata().map_or(0, |file| file.len());
        let (sha256, file_bytes) = match &config.model {
            ModelSource::Starter => (hex(&Sha256::digest(predict::STARTER)), predict::STARTER.len() as u64),
            ModelSource::File(path) => {
                let sha256 = hex(&Journal::open(&places.journal)?.file_sha256(path)?);
                (sha256, checkpoint.files().iter().map(bytes_of).sum())
            }
        };
        let state = checkpoint.tensors().iter().filter(|tensor| tensor.kind != TensorKind::Weight);
        let figures = Figures {
            parameters: models::parameters(checkpoint.tensors()),
            file_bytes,
            resident_bytes: models::weigh(checkpoint.tensors(), architecture, Precision::Stored, &chosen.device)?,
            photos_per_second: None,
        };
        Ok(Self { figures, training_state_bytes: state.map(|tensor| tensor.bytes).sum(), sha256 })
    }
}
