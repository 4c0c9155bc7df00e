//! Models that are named rather than chosen: by an address or a name of the catalog on the command line, or by the
//! environment on machines that nobody sits at.

use std::path::{Path, PathBuf};

use super::address::Address;
use super::catalog;
use super::error::DownloadError;
use super::{DownloadConfig, Patience};
use crate::settings::Settings;

/// The address of the model that is used where none is named, or a name of the catalog.
pub const MODEL_URL: &str = "GALLEY_MODEL_URL";

/// The same in fewer bits: tried first.
const MODEL_URL_QUANTIZED: &str = "GALLEY_MODEL_URL_QUANTIZED";

/// With a model that is there already, an unreachable server holds nobody up for long.
const TRIES_AT_START: u32 = 3;

/// The download of an address, or of a name of the catalog, into the folder of models.
pub fn named(text: &str, models: &Path) -> Result<DownloadConfig, DownloadError> {
    match catalog::find(text.trim()) {
        Some(published) => Ok(published.download_to(models)),
        None => Address::parse(text).map(|_| DownloadConfig::new(text.trim(), models)),
    }
}

/// The download that the environment asks for, if it does.
pub fn from_environment(models: &Path) -> Result<Option<DownloadConfig>, DownloadError> {
    let text = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    wanted(text(MODEL_URL), text(MODEL_URL_QUANTIZED), models)
}

fn wanted(
    plain: Option<String>,
    quantized: Option<String>,
    models: &Path,
) -> Result<Option<DownloadConfig>, DownloadError> {
    let (address, quantized) = match (plain, quantized) {
        (Some(plain), quantized) => (plain, quantized),
        (None, Some(quantized)) => (quantized, None),
        (None, None) => return Ok(None),
    };
    let patience = Patience { tries: TRIES_AT_START, ..Patience::default() };
    Ok(Some(DownloadConfig { quantized, patience, ..named(&address, models)? }))
}

/// The folder that `GALLEY_MODELS` names, else one among the user's data.
pub fn default_folder() -> PathBuf {
    Settings::default().models_folder()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_a_name_and_the_environment_ask_for_the_same_things() {
        let models = Path::new("/models");
        let by_name = named(" resnet18.a1_in1k ", models).unwrap();
        assert_eq!(by_name.folder, Path::new("/models/resnet18.a1_in1k"));
        assert_eq!(by_name.name.as_deref(), Some("resnet18.a1_in1k.safetensors"));
        assert_eq!(named("https://a.org/x.gguf", models).unwrap().folder, models);
        assert!(matches!(named("resnet19", models), Err(DownloadError::NoAddress(_))));
        let address = |text: &str| Some(text.to_owned());
        assert_eq!(wanted(None, None, models).unwrap(), None);
        let both = wanted(address("https://a.org/x.pth"), address("https://a.org/x.gguf"), models).unwrap().unwrap();
        assert_eq!(
            (both.address.as_str(), both.quantized.as_deref()),
            ("https://a.org/x.pth", Some("https://a.org/x.gguf"))
        );
        let small = wanted(None, address("https://a.org/x.gguf"), models).unwrap().unwrap();
        assert_eq!((small.address.as_str(), small.quantized), ("https://a.org/x.gguf", None));
    }
}
