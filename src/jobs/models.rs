//! The models that jobs share: each is loaded at its first use and stays for the next job, as far as memory allows.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::device::{self, Chosen};
use crate::format::{bytes, chain, duration};
use crate::memory::shelf::{Loan, Shelf, ShelfError, ShelfLimits};
use crate::memory::{self, heap};
use crate::predict::{self, Classifier, FileState, Loading, ModelSource, Precision, TransformOverrides, Unloaded};
use crate::settings::{MemorySetting, MemorySettings};
use crate::worker::{BoxError, Canceled, JobContext, Outcome};

/// What makes one loaded model different from another: a file that was written anew is a new model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelKey {
    pub source: ModelSource,
    labels: Option<PathBuf>,
    files: Vec<(PathBuf, Option<FileState>)>,
    transform: TransformOverrides,
    loading: Loading,
    device: &'static str,
    /// See [`Chosen::renewals`].
    renewals: u64,
}

/// A model that a job uses; it stays until the job is done with it.
pub type ModelLoan = Loan<ModelKey, Classifier>;

/// Which model a job wants, and how.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub source: &'a ModelSource,
    pub labels: Option<&'a Path>,
    pub transform: &'a TransformOverrides,
    pub loading: Loading,
}

/// What a job was lent.
pub struct Lent {
    pub classifier: ModelLoan,
    /// The light model, where the wanted one did not fit, and a sentence that says so.
    pub instead: Option<(ModelSource, String)>,
}

/// Why a model is not lent, where a person can help.
#[derive(Debug, thiserror::Error)]
pub enum LendError {
    #[error("the model {model} does not fit: {why}. {remedies}")]
    DoesNotFit { model: String, why: ShelfError, remedies: String },
    #[error(
        "reading the model {model} takes longer than {}; it goes on: try again later, or allow more time with {} or the \
         setting memory.{}", duration(*.timeout), MemorySetting::LoadTimeout.variable(), MemorySetting::LoadTimeout.key()
    )]
    TimedOut { model: String, timeout: Duration },
    #[error("the light model {model} cannot be used in place of the one that does not fit")]
    Light { model: String, source: BoxError },
}

/// Why a job ended whose model is larger than may be loaded, for people, without what only the command line has.
pub fn too_large<T>(outcome: &Outcome<T>) -> Option<String> {
    let Outcome::Failed(error) = outcome else { return None };
    let of_shelf = chain(&**error).find_map(|error| match error.downcast_ref()? {
        LendError::DoesNotFit { model, why, .. } => Some((model, why)),
        _ => None,
    });
    of_shelf.map(|(model, why)| format!("The model {model} does not fit: {why}"))
}

/// A handle: clones share the same models.
#[derive(Debug, Clone)]
pub struct Models {
    pub shelf: Shelf<ModelKey, Classifier>,
    light: Arc<Mutex<Option<PathBuf>>>,
}

/// Without limits.
impl Default for Models {
    fn default() -> Self {
        Self { shelf: Shelf::new(ShelfLimits::NONE), light: Arc::default() }
    }
}

/// That the light model stands in for another.
pub fn in_place_of(model: &str, why: &str, light: &ModelSource) -> String {
    format!("The model {model} does not fit: {why}. The light model {} is used instead", light.name())
}

impl Models {
    pub fn new(settings: &MemorySettings) -> Self {
        let models = Self::default();
        models.follow(settings);
        models
    }

    /// Keeps to other settings from now on.
    pub fn follow(&self, settings: &MemorySettings) {
        self.light.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&settings.light_model);
        self.shelf.set_limits(settings.shelf_limits());
        memory::set_limit(settings.limit);
    }

    fn light(&self) -> Option<PathBuf> {
        self.light.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lends a model, which is read before when it has to be; the light model where the wanted one does not fit.
    pub fn lend(&self, wanted: &Wanted<'_>, chosen: &Chosen, ctx: &JobContext) -> Result<Lent, BoxError> {
        let error = match self.lend_exactly(wanted, chosen, ctx) {
            Ok(classifier) => return Ok(Lent { classifier, instead: None }),
            Err(error) => error,
        };
        let light = self.instead_of(wanted.source);
        let (Some(LendError::DoesNotFit { model, why, .. }), Some(light)) = (error.downcast_ref::<LendError>(), light)
        else {
            return Err(error);
        };
        // Labels and transform were chosen for the other one.
        let (labels, transform) = (None, &TransformOverrides::default());
        let in_place = Wanted { source: &light, labels, transform, loading: wanted.loading };
        match self.lend_exactly(&in_place, chosen, ctx) {
            Ok(classifier) => {
                let notice = in_place_of(model, &why.to_string(), &light);
                Ok(Lent { classifier, instead: Some((light, notice)) })
            }
            Err(source) if source.is::<Canceled>() => Err(source),
            Err(source) => Err(LendError::Light { model: light.name(), source }.into()),
        }
    }

    /// The light model, if there is one and it is another.
    pub fn instead_of(&self, source: &ModelSource) -> Option<ModelSource> {
        self.light().map(ModelSource::File).filter(|light| light != source)
    }

    /// Unloads what is neither pinned nor in use. True if there was such.
    pub fn make_room(&self) -> bool {
        let has_unloaded = self.shelf.unload_idle() > 0;
        if has_unloaded {
            heap::release();
        }
        has_unloaded
    }

    /// Whether lending it now needs no reading.
    pub fn holds(&self, wanted: &Wanted<'_>, chosen: &Chosen) -> bool {
        self.shelf.find(&ModelKey::of(wanted, chosen)).is_some_and(|loan| loan.changed_file().is_none())
    }

    /// The same, and never another model.
    pub fn lend_exactly(&self, wanted: &Wanted<'_>, chosen: &Chosen, ctx: &JobContext) -> Result<ModelLoan, BoxError> {
        let Wanted { source, labels, transform, loading } = *wanted;
        let key = ModelKey::of(wanted, chosen);
        // What the same names meant before they were written anew is of no use any more.
        self.shelf.unload(|other| other.is_outdated_by(&key));
        if let Some(loan) = self.shelf.find(&key) {
            match loan.changed_file() {
                None => return Ok(loan),
                Some(_) => self.shelf.unload(|other| *other == key),
            }
        }
        let unloaded = Unloaded::open(source, labels, transform)?;
        let needed = unloaded.bytes_needed(loading.precision, &chosen.device)?;
        let in_8_bits = unloaded.bytes_needed(Precision::Int8, &chosen.device)?;
        let device = chosen.device.clone();
        let load = move || {
            let classifier = device::scoped(|| unloaded.load(loading, &device))?;
            // What reading left behind would count beside what is computed next.
            heap::release();
            let bytes = classifier.network.bytes;
            Ok((classifier, bytes))
        };
        self.shelf.get(&key, needed, load, &|| ctx.is_canceled()).map_err(|error| match error {
            ShelfError::GivenUp => Canceled.into(),
            ShelfError::TimedOut(timeout) => LendError::TimedOut { model: source.name(), timeout }.into(),
            why @ (ShelfError::TooLarge { .. } | ShelfError::NoRoom { .. }) => {
                let remedies = remedies(&why, (loading.precision, in_8_bits));
                LendError::DoesNotFit { model: source.name(), why, remedies }.into()
            }
            error => error.into(),
        })
    }
}

impl ModelKey {
    fn of(wanted: &Wanted<'_>, chosen: &Chosen) -> Self {
        let Wanted { source, labels, transform, loading } = *wanted;
        Self {
            source: source.clone(),
            labels: labels.map(Path::to_owned),
            files: predict::states(source, labels),
            transform: *transform,
            loading,
            device: chosen.name,
            renewals: chosen.renewals,
        }
    }

    /// Whether it is the same model, on a device that may have been made anew since.
    pub fn is_same_model(&self, other: &Self) -> bool {
        *self == Self { renewals: self.renewals, ..other.clone() }
    }

    /// The same but for files that were written since, or a device that was made anew since.
    fn is_outdated_by(&self, other: &Self) -> bool {
        let was_written = self.files != other.files && self.source == other.source && self.labels == other.labels;
        was_written || self.device == other.device && self.renewals != other.renewals
    }
}

/// What a person can do about a model that does not fit.
fn remedies(why: &ShelfError, (precision, in_8_bits): (Precision, u64)) -> String {
    let room = match why {
        ShelfError::TooLarge { limit, .. } => *limit,
        ShelfError::NoRoom { capacity, taken, .. } => capacity.saturating_sub(*taken),
        _ => 0,
    };
    let mut ways = Vec::new();
    if matches!(precision, Precision::Stored | Precision::F32) && in_8_bits <= room {
        let held = bytes(in_8_bits);
        ways.push(format!("hold it in 8 bits (--precision int8, or for good: galley quantize), which takes {held}"));
    }
    let raised = match why {
        ShelfError::TooLarge { .. } => MemorySetting::LargestModel,
        _ => MemorySetting::Shelf,
    };
    let light = MemorySetting::LightModel;
    ways.push(format!(
        "choose a lighter model, or name one to fall back to (--light-model, {}, or memory.{} in the settings)",
        light.variable(),
        light.key()
    ));
    if raised == MemorySetting::Shelf {
        ways.push("unload or unpin other models".to_owned());
    }
    ways.push(match raised {
        MemorySetting::LargestModel => format!(
            "raise the limit (--largest-model, {}, or memory.{} in the settings)",
            raised.variable(),
            raised.key()
        ),
        raised => format!("raise the limit ({}, or memory.{} in the settings)", raised.variable(), raised.key()),
    });
    let last = ways.pop().unwrap_or_default();
    let text = format!("{}, or {last}", ways.join(", "));
    text[..1].to_uppercase() + &text[1..]
}
