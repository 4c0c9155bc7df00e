//! A network by its name alone, and weights for it that no training made: what a benchmark needs that has no checkpoint.

use std::ops::Range;

use super::catalog::{self, Candidate, Family};
use super::inner::Widths;
use super::inverted::Style;
use super::layers::HeadStep;
use super::source::Weights;
use super::{Architecture, ModelError, Naming};
use crate::checkpoint::{CheckpointError, ElementType, TensorInfo, TensorKind};

/// How many names an error about an unknown one offers.
const NEAR_NAMES: usize = 4;

/// The network that timm or torchvision call `name`, with a classifier of `classes`.
///
/// Where both have the name, it is timm's.
pub fn named(name: &str, classes: usize) -> Result<Architecture, ModelError> {
    let candidates = catalog::candidates();
    let Some(found) = candidates.iter().find(|candidate| candidate.name == name) else {
        return Err(ModelError::NoSuchName { name: name.to_owned(), near: near(name, &candidates).join(", ") });
    };
    let Candidate { name, title, naming, family } = found.clone();
    Ok(Architecture {
        classes,
        naming: naming.name(),
        recognised_by: "its name".to_owned(),
        assumptions: Vec::new(),
        head: head(&family, naming, classes),
        widths: Widths::new(),
        scheme: naming,
        name,
        title,
        family,
    })
}

/// A network of a family, by its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lighter {
    pub name: String,
    pub title: String,
    /// Elements of all its weights.
    pub weights: u64,
}

/// The networks of the same family with fewer weights, the heaviest first. A family shares the beginning of its names.
pub fn lighter(architecture: &Architecture) -> Vec<Lighter> {
    let kin = |name: &str| name.trim_start_matches("wide_").split(['_', '-']).next().unwrap_or_default().to_owned();
    let letters = |name: &str| kin(name).trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
    let weights = |architecture: &Architecture| -> Option<u64> {
        let tensors = architecture.tensors().ok()?;
        Some(tensors.iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum())
    };
    let Some(own) = weights(architecture) else { return Vec::new() };
    let is_kin = |candidate: &Candidate| {
        std::mem::discriminant(&candidate.family) == std::mem::discriminant(&architecture.family)
            && letters(&candidate.name) == letters(&architecture.name)
    };
    let mut found: Vec<Lighter> = Vec::new();
    for candidate in catalog::candidates().iter().filter(|candidate| is_kin(candidate)) {
        let Ok(known) = named(&candidate.name, architecture.classes) else { continue };
        let Some(weights) = weights(&known).filter(|weights| *weights < own) else { continue };
        if found.iter().all(|one| one.name != known.name) {
            found.push(Lighter { name: known.name, title: known.title, weights });
        }
    }
    found.sort_by_key(|one| std::cmp::Reverse(one.weights));
    found
}

/// The classifier as the network is published, its dropout left out.
fn head(family: &Family, naming: Naming, classes: usize) -> Vec<HeadStep> {
    let root = family.head_root(naming);
    let linear = |name: String, inputs: usize, outputs: usize| HeadStep::Linear { name, inputs, outputs, bias: true };
    let features = family.features(naming);
    let place = match (family, naming) {
        (Family::Inverted(net), Naming::Torchvision) if net.style == Style::MobileNetV3 => {
            let hidden = net.hidden.unwrap_or(features);
            let first = linear(format!("{root}.0"), features, hidden);
            return vec![first, HeadStep::Activation(net.activation), linear(format!("{root}.3"), hidden, classes)];
        }
        (Family::SqueezeNet(_), _) | (Family::Inverted(_), Naming::Torchvision) => ".1",
        (Family::ConvNext(_), Naming::Torchvision) => ".2",
        (Family::Vit(_), Naming::Torchvision) => ".head",
        _ => "",
    };
    vec![linear(format!("{root}{place}"), features, classes)]
}

/// The known names that differ from `name` by the fewest letters.
fn near(name: &str, candidates: &[Candidate]) -> Vec<String> {
    let mut names: Vec<&str> = candidates.iter().map(|candidate| candidate.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.sort_by_key(|known| distance(&name.to_lowercase(), known));
    names.into_iter().take(NEAR_NAMES).map(str::to_owned).collect()
}

/// Letters to add, take away or change (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, other) in other.bytes().enumerate() {
            let changed = diagonal + usize::from(letter != other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

/// Weights whose every element is a function of its tensor's name and its index, of a size that keeps what goes through
/// the network in range. The formula is that of `tests/reference/networks.py`.
pub struct RandomWeights(pub Vec<TensorInfo>);

impl RandomWeights {
    pub fn of(architecture: &Architecture) -> Result<Self, ModelError> {
        Ok(Self::named(architecture.tensors()?))
    }

    /// Of tensors of these names and shapes.
    pub fn named(tensors: Vec<(String, Vec<usize>)>) -> Self {
        let info = |(name, shape): (String, Vec<usize>)| {
            let bytes = 4 * shape.iter().product::<usize>() as u64;
            TensorInfo { name, element: ElementType::F32, shape, kind: TensorKind::Weight, bytes }
        };
        Self(tensors.into_iter().map(info).collect())
    }
}

impl Weights for RandomWeights {
    fn tensors(&self) -> &[TensorInfo] {
        &self.0
    }

    fn read_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        Ok(self.values(name, 0..self.info(name).elements()))
    }

    fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Option<Vec<f32>>, CheckpointError> {
        let row = self.info(name).shape[1..].iter().product::<usize>();
        Ok(Some(self.values(name, rows.start * row..rows.end * row)))
    }
}

impl RandomWeights {
    fn info(&self, name: &str) -> &TensorInfo {
        self.0.iter().find(|info| info.name == name).expect("only tensors of the table are asked for")
    }

    /// Some of a tensor's elements, row-major.
    fn values(&self, name: &str, elements: Range<usize>) -> Vec<f32> {
        let (offset, scale) = range(name, &self.info(name).shape);
        let hash = fnv1a(name);
        elements.map(|index| offset + scale * uniform(hash, index as u64)).collect()
    }
}

/// Middle and half width of a tensor's values.
fn range(name: &str, shape: &[usize]) -> (f32, f32) {
    if name.ends_with("running_var") {
        (1.0, 0.5)
    } else if name.ends_with("running_mean") || name.ends_with("bias") && !name.contains("grn") {
        (0.0, 0.1)
    } else if name.contains("grn") || name.contains("token") || name.contains("pos_embed") {
        (0.0, 0.5)
    } else if name.ends_with("gamma") || name.ends_with("layer_scale") {
        (0.5, 0.2)
    } else if shape.len() == 1 && name.ends_with("weight") {
        (1.0, 0.2)
    } else {
        // Keeps the variance of what goes through.
        let fan_in: usize = shape.iter().skip(1).product();
        (0.0, (3.0 / fan_in as f64).sqrt() as f32)
    }
}

/// 64-bit FNV-1a.
pub(super) fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

/// The splitmix64 generator's number `index` from `seed`, from −1 to 1.
pub(super) fn uniform(seed: u64, index: u64) -> f32 {
    let z = seed.wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as f32 / 8_388_608.0 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_is_answered_with_near_ones() {
        let text = named("ConvNext-Tiny", 10).unwrap_err().to_string();
        assert!(text.contains("ConvNext-Tiny") && text.contains("convnext_tiny,"), "{text}");
        let text = named("resnet-50", 10).unwrap_err().to_string();
        assert!(text.contains("resnet50"), "{text}");
    }

    #[test]
    fn lighter_networks_are_of_the_family_and_the_heaviest_comes_first() {
        let names = |name: &str| -> Vec<String> {
            lighter(&named(name, 10).unwrap()).into_iter().map(|one| one.name).collect()
        };
        let tiny = names("convnext_tiny");
        assert_eq!(tiny.first().map(String::as_str), Some("convnext_nano_ols"), "{tiny:?}");
        assert!(tiny.contains(&"convnext_atto".to_owned()) && !tiny.iter().any(|name| name.starts_with("convnextv2")));
        assert_eq!(names("resnet34"), ["resnet18"]);
        assert!(names("resnet18").is_empty());
    }

    #[test]
    fn distance_counts_letters() {
        let cases = [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("vit", "", 3)];
        for (one, other, letters) in cases {
            assert_eq!(distance(one, other), letters, "{one} {other}");
        }
    }
}
