//! Published weights by name: what they are, where they lie, and what is put beside them so that they classify as
//! published. `tests/reference/catalog.py` makes the list.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::verify::Checksum;
use super::{Companion, DownloadConfig};

const LIST: &str = include_str!("../../../resources/catalog.json");

/// The names of ImageNet's classes in torchvision's words, under its licence beside the file.
const IMAGENET_LABELS: &str = include_str!("../../../resources/labels/imagenet-1k.txt");

/// Weights that somebody published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// As `galley download` takes it: `convnext_tiny.fb_in1k`.
    pub name: String,
    /// The network for people: `ConvNeXt Tiny`.
    pub title: String,
    pub architecture: String,
    /// `timm` or `torchvision`.
    pub published_by: String,
    pub address: String,
    /// The first digits or all of them, where they are published beside the file.
    pub sha256: Option<String>,
    /// Of the file; from the number of parameters, or rounded by who published it.
    pub approximate_bytes: u64,
    pub parameters: u64,
    pub licence: String,
    /// Photos of ImageNet's validation part it gets right, in percent, as published.
    pub top1: Option<f64>,
    /// The side of the images `top1` was measured with, in pixels.
    pub top1_side: Option<u32>,
    /// How it wants its photos, as in timm's `config.json`.
    pub input: Value,
}

/// All of them, small ones of a family first.
pub fn catalog() -> &'static [Published] {
    static ALL: LazyLock<Vec<Published>> =
        LazyLock::new(|| serde_json::from_str(LIST).expect("the embedded list is read by a test"));
    &ALL
}

pub fn find(name: &str) -> Option<&'static Published> {
    catalog().iter().find(|published| published.name == name)
}

impl Published {
    /// Where it lies in the folder of models: in a folder of its own, with its input and its labels.
    pub fn path(&self, models: &Path) -> PathBuf {
        models.join(&self.name).join(self.file_name())
    }

    fn file_name(&self) -> String {
        let ending = self.address.rsplit_once('.').map_or("pth", |(_, ending)| ending);
        format!("{}.{ending}", self.name)
    }

    pub fn download_to(&self, models: &Path) -> DownloadConfig {
        let config = json!({"architecture": self.architecture, "pretrained_cfg": self.input});
        let companion = |name: &str, text: String| Companion { name: name.to_owned(), text };
        DownloadConfig {
            name: Some(self.file_name()),
            checksum: self.sha256.as_ref().and_then(|digits| Checksum::parse(digits).ok()),
            companions: vec![
                companion("config.json", config.to_string()),
                companion("labels.txt", IMAGENET_LABELS.to_owned()),
            ],
            ..DownloadConfig::new(&self.address, models.join(&self.name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::download::address::Address;
    use crate::models;

    #[test]
    fn every_entry_is_a_network_galley_knows_at_an_encrypted_address() {
        for published in catalog() {
            let name = &published.name;
            let architecture = models::named(&published.architecture, 1000).unwrap();
            assert_eq!(published.title, architecture.title.split(',').next().unwrap(), "{name}");
            let address = Address::parse(&published.address).unwrap();
            assert_eq!(address.url().scheme(), "https", "{name}");
            // 16-bit weights would be half of it.
            let per_parameter = published.approximate_bytes as f64 / published.parameters as f64;
            assert!((3.9..4.2).contains(&per_parameter), "{name}: {per_parameter}");
            assert_eq!(published.top1.is_some(), published.top1_side.is_some(), "{name}");
            let known = published.sha256.as_deref();
            assert_eq!(address.checksum_in_name().as_ref().map(Checksum::digits), known, "{name}");
        }
        let mut names: Vec<_> = catalog().iter().map(|published| &published.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), catalog().len());
        assert_eq!(IMAGENET_LABELS.lines().count(), 1000);
    }
}
