//! What can be said about networks that Galley does not know.

use crate::checkpoint::{TensorInfo, TensorKind};

/// A kind of network that a person may bring, by one of its tensors: name, shape (none: any), what it is.
type Mark = (&'static str, Option<&'static [usize]>, &'static str);

const MARKS: [Mark; 13] = [
    ("conv1.weight", Some(&[16, 3, 3, 3]), "a CIFAR ResNet (16-channel stem, for 32×32 pictures)"),
    ("layer1.0.conv2.weight", Some(&[128, 4, 3, 3]), "a ResNeXt (grouped convolutions)"),
    ("layer1.0.conv2.weight", Some(&[256, 8, 3, 3]), "a ResNeXt (grouped convolutions)"),
    ("layer1.0.conv2.weight", Some(&[256, 4, 3, 3]), "a ResNeXt (grouped convolutions)"),
    ("distilbert.embeddings.word_embeddings.weight", None, "a DistilBERT text model"),
    ("bert.embeddings.word_embeddings.weight", None, "a BERT text model"),
    ("conv_block_1.0.weight", None, "a TinyVGG, the small network of a course"),
    ("features.denseblock1.denselayer1.norm1.weight", None, "a DenseNet"),
    ("Mixed_5b.branch1x1.conv.weight", None, "an Inception v3"),
    ("features.0.weight", Some(&[64, 3, 3, 3]), "a VGG"),
    ("features.0.weight", Some(&[64, 3, 11, 11]), "an AlexNet"),
    ("layers.0.blocks.0.attn.relative_position_bias_table", None, "a Swin transformer"),
    ("model.0.conv.weight", None, "a YOLO detector"),
];

/// What kind of network this is, where one tensor tells.
pub fn looks_like(tensors: &[TensorInfo]) -> Option<&'static str> {
    let has = |name: &str, shape: Option<&[usize]>| {
        tensors.iter().any(|tensor| tensor.name == name && shape.is_none_or(|shape| tensor.shape == shape))
    };
    MARKS.iter().find(|(name, shape, _)| has(name, *shape)).map(|(.., kind)| *kind)
}

/// True for a network that shares more than half of its tensors with a known one and computes something else.
pub fn is_refused(tensors: &[TensorInfo]) -> bool {
    looks_like(tensors).is_some_and(|kind| kind.starts_with("a ResNeXt"))
}

/// True for names of timm networks whose tensors are those of a known one, with other pooling between them.
pub fn is_lookalike(hint: Option<&str>) -> bool {
    hint.is_some_and(|hint| {
        ["resnetaa", "resnetblur", "efficientnet_blur"].iter().any(|prefix| hint.starts_with(prefix))
    })
}

/// The layers of a file, the first few by name: `conv_block_1.0, …, classifier.1 (10 tensors)`.
pub fn summary(tensors: &[TensorInfo]) -> String {
    let mut layers: Vec<&str> = Vec::new();
    let weights = tensors.iter().filter(|tensor| tensor.kind == TensorKind::Weight);
    for tensor in weights.clone() {
        let layer = tensor.name.rsplit_once('.').map_or(tensor.name.as_str(), |(layer, _)| layer);
        if layers.last() != Some(&layer) {
            layers.push(layer);
        }
    }
    let count = super::tensor_count(weights.count());
    match layers.as_slice() {
        [] => "none".to_owned(),
        [first @ .., last] if first.len() > 5 => format!("{}, …, {last} ({count})", first[..5].join(", ")),
        all => format!("{} ({count})", all.join(", ")),
    }
}
