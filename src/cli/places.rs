//! Where a command keeps things and what it may load: its flags, then the environment, then the settings.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::arguments::ClassifyArguments;
use super::{INTERRUPTED, download, failed, say};
use crate::jobs::Places;
use crate::jobs::models::Models;
use crate::predict::ModelSource;
use crate::settings::{self, Settings};
use crate::worker::{BoxError, JobContext, Outcome};

/// What flags say about models.
#[derive(Default)]
pub struct Preferred {
    pub largest_model: Option<u64>,
    pub light_model: Option<PathBuf>,
    /// When nothing says how large a model may be.
    pub otherwise_largest: Option<u64>,
}

impl Preferred {
    pub fn of(arguments: &ClassifyArguments) -> Self {
        let models = &arguments.models;
        Self {
            largest_model: models.largest_model,
            light_model: models.light_model.clone(),
            otherwise_largest: arguments.stdin.then_some(settings::SERVER_LARGEST_MODEL),
        }
    }
}

/// The same for a command without such flags.
pub fn preferred_places() -> Result<Places, BoxError> {
    places(&Preferred::default())
}

/// Where a command keeps things, and the model it computes with: the one named, that of the environment, or the starter model.
/// When there is neither, the reason has been told and the code to end with is returned.
pub fn places_and_model(
    preferred: &Preferred,
    model: Option<&Path>,
    ctx: &JobContext,
) -> Result<(Places, ModelSource), ExitCode> {
    let places = places(preferred).map_err(|error| failed(&error))?;
    match download::model(model, &places, ctx) {
        Outcome::Finished(model) => Ok((places, model)),
        Outcome::Canceled => Err(ExitCode::from(INTERRUPTED)),
        Outcome::Failed(error) => Err(failed(&error)),
    }
}

/// Fails for a variable of the environment that cannot be used; what is wrong in the settings is told and left out.
pub fn places(preferred: &Preferred) -> Result<Places, BoxError> {
    let path = settings::default_path().ok();
    let (settings, warnings) = path.as_deref().map(Settings::load).unwrap_or_default();
    warnings.iter().for_each(|warning| say(&format!("note: {warning}")));
    let mut memory = settings.memory.with_environment()?;
    memory.largest_model = preferred.largest_model.or(memory.largest_model).or(preferred.otherwise_largest);
    memory.light_model = preferred.light_model.clone().or(memory.light_model);
    let models_folder = settings.models_folder();
    Ok(Places { models: Models::new(&memory), models_folder, ..Places::default() })
}
