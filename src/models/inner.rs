//! The channels inside blocks, which nothing outside of their block sees: a pruned file has fewer of them than the network was
//! published with, and is the same network in all else.

use std::collections::{BTreeMap, HashMap};

use super::catalog::Family;
use super::source::{Asked, Source};
use super::{Architecture, ModelError, Naming};

/// How many channels a layer makes, by its name; those of a layer that is not named are as published.
pub type Widths = BTreeMap<String, usize>;

/// The output channels of a layer that only its own block sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InnerLayer {
    /// The number of its block, from 0.
    pub block: usize,
    /// The layer that makes the channels: its weight has an output for each.
    pub layer: String,
    pub channels: usize,
    pub published: usize,
}

/// Inner channels with every tensor that has an axis of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inner {
    /// As [`super::Block::name`].
    pub block: String,
    pub layer: String,
    pub channels: usize,
    /// In the order of use.
    pub members: Vec<Member>,
}

/// A tensor with an axis of inner channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub tensor: String,
    pub axis: usize,
    pub part: Part,
}

/// What a tensor does with the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Makes them: one output for each.
    Makes,
    /// Looks at each alone: a depthwise convolution.
    Filters,
    /// Is the size of each from here on, whatever it was before: the scale of a batch norm.
    Normalizes,
    /// Weighs each by its size against the mean of all (the scale of a global response norm).
    Compares,
    /// Makes what follows in the block of them: one input for each.
    Takes,
    /// Anything else: biases, running means, squeeze-and-excite.
    Passes,
}

impl Architecture {
    /// The inner channels of all blocks, from stem to head; none for a network that has no such.
    pub fn inner(&self) -> Result<Vec<Inner>, ModelError> {
        let names = self.block_names()?;
        let asked = ask(&self.family, self.scheme, &self.head, &self.widths)?;
        let inner = |layer: &InnerLayer| {
            // What has another shape when there is one channel fewer has an axis of them.
            let mut widths = self.widths.clone();
            widths.insert(layer.layer.clone(), layer.channels - 1);
            let fewer = ask(&self.family, self.scheme, &self.head, &widths)?;
            let pairs = asked.tensors.iter().zip(&fewer.tensors);
            let differing = pairs.filter_map(|((name, shape), (_, fewer))| {
                let axis = shape.iter().zip(fewer).position(|(length, fewer)| length != fewer)?;
                Some((name, axis, shape))
            });
            let part = |(name, axis, shape): (&String, usize, &Vec<usize>)| Member {
                tensor: name.clone(),
                axis,
                part: part(name, axis, shape, &layer.layer),
            };
            let mut members: Vec<Member> = differing.map(part).collect();
            // Squeeze-and-excite has inputs for them too; what follows in the block comes last.
            let last = members.iter().rposition(|member| member.part == Part::Takes);
            for (place, member) in members.iter_mut().enumerate() {
                if member.part == Part::Takes && Some(place) != last {
                    member.part = Part::Passes;
                }
            }
            let (block, layer, channels) = (names[layer.block].clone(), layer.layer.clone(), layer.channels);
            Ok(Inner { block, layer, channels, members })
        };
        asked.inner.iter().filter(|layer| layer.channels > 1).map(inner).collect()
    }
}

/// What a tensor of this shape does with the channels along `axis` that `layer` makes.
fn part(name: &str, axis: usize, shape: &[usize], layer: &str) -> Part {
    let is = |ending: &str| name.ends_with(ending);
    if name.strip_prefix(layer) == Some(".weight") {
        Part::Makes
    } else if axis == 1 {
        Part::Takes
    } else if name.contains(".grn.") {
        if is("weight") || is("gamma") { Part::Compares } else { Part::Passes }
    } else if is("weight") && shape.len() == 1 {
        Part::Normalizes
    } else if is("weight") && shape.len() == 4 && shape[1] == 1 {
        Part::Filters
    } else {
        Part::Passes
    }
}

/// All that a network asks for.
pub(super) fn ask(
    family: &Family,
    naming: Naming,
    head: &[super::layers::HeadStep],
    widths: &Widths,
) -> Result<Asked, ModelError> {
    let mut source = Source::asking()?.with_widths(widths);
    family.blocks(naming, head, &mut source)?;
    Ok(source.asked())
}

/// The widths in which a file's inner layers are narrower than published.
pub(super) fn narrower(layers: &[InnerLayer], held: &HashMap<&str, &[usize]>) -> Widths {
    let width = |layer: &InnerLayer| {
        let shape = held.get(format!("{}.weight", layer.layer).as_str())?;
        shape.first().copied().filter(|width| (1..layer.published).contains(width))
    };
    layers.iter().filter_map(|layer| Some((layer.layer.clone(), width(layer)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::named;

    fn parts(architecture: &str, layer: &str) -> Vec<(String, usize, Part)> {
        let inner = named(architecture, 3).unwrap().inner().unwrap();
        let one = inner.into_iter().find(|one| one.layer == layer).unwrap();
        one.members.into_iter().map(|member| (member.tensor, member.axis, member.part)).collect()
    }

    #[test]
    fn every_tensor_with_an_axis_of_inner_channels_is_found() {
        let expected = |list: &[(&str, usize, Part)]| -> Vec<(String, usize, Part)> {
            list.iter().map(|(name, axis, part)| ((*name).to_owned(), *axis, *part)).collect()
        };
        let block = |prefix: &str, list: &[(&str, usize, Part)]| -> Vec<(String, usize, Part)> {
            expected(list).into_iter().map(|(name, axis, part)| (format!("{prefix}.{name}"), axis, part)).collect()
        };
        use Part::{Compares, Filters, Makes, Normalizes, Passes, Takes};
        assert_eq!(
            parts("convnextv2_atto", "stages.1.blocks.0.mlp.fc1"),
            block(
                "stages.1.blocks.0.mlp",
                &[
                    ("fc1.weight", 0, Makes),
                    ("fc1.bias", 0, Passes),
                    ("grn.weight", 0, Compares),
                    ("grn.bias", 0, Passes),
                    ("fc2.weight", 1, Takes),
                ]
            )
        );
        assert_eq!(
            parts("resnet50", "layer2.0.conv2"),
            block(
                "layer2.0",
                &[
                    ("conv2.weight", 0, Makes),
                    ("bn2.weight", 0, Normalizes),
                    ("bn2.bias", 0, Passes),
                    ("bn2.running_mean", 0, Passes),
                    ("bn2.running_var", 0, Passes),
                    ("conv3.weight", 1, Takes),
                ]
            )
        );
        let norm = |name: &str| {
            [
                (format!("{name}.weight"), 0, Normalizes),
                (format!("{name}.bias"), 0, Passes),
                (format!("{name}.running_mean"), 0, Passes),
                (format!("{name}.running_var"), 0, Passes),
            ]
        };
        let prefix = "features.4.block";
        let name = |part: &str| format!("{prefix}.{part}");
        let mut inverted = vec![(name("0.0.weight"), 0, Makes)];
        inverted.extend(norm(&name("0.1")));
        inverted.push((name("1.0.weight"), 0, Filters));
        inverted.extend(norm(&name("1.1")));
        inverted.push((name("2.fc1.weight"), 1, Passes));
        inverted.push((name("2.fc2.weight"), 0, Passes));
        inverted.push((name("2.fc2.bias"), 0, Passes));
        inverted.push((name("3.0.weight"), 1, Takes));
        assert_eq!(parts("mobilenet_v3_small", "features.4.block.0.0"), inverted);
    }

    #[test]
    fn networks_without_inner_channels_have_none() {
        assert!(named("squeezenet1_1", 3).unwrap().inner().unwrap().is_empty());
        for (name, layers) in [("convnext_atto", 12), ("vit_tiny_patch16_224", 12), ("resnet18", 8), ("resnet50", 32)] {
            assert_eq!(named(name, 3).unwrap().inner().unwrap().len(), layers, "{name}");
        }
    }
}
