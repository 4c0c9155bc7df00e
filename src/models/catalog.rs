//! Every network Galley knows, with its names and the transform its published weights were evaluated with.

use super::convnext::{ConvNext, Stem};
use super::inverted::{Inverted, round_channels};
use super::layers::HeadStep;
use super::resnet::ResNet;
use super::source::Source;
use super::squeezenet::SqueezeNet;
use super::vit::Vit;
use super::{Block, ModelError, Naming, efficientnet, mobilenet};
use crate::images::transform::{IMAGENET_MEAN, IMAGENET_STD, Interpolation, Resize, Transform};

/// What a network is built from.
#[derive(Debug, Clone, PartialEq)]
pub enum Family {
    ConvNext(ConvNext),
    Inverted(Inverted),
    ResNet(ResNet),
    SqueezeNet(SqueezeNet),
    Vit(Vit),
}

impl Family {
    /// Builds the network, or asks for its tensors.
    pub fn blocks(&self, naming: Naming, head: &[HeadStep], source: &mut Source) -> Result<Vec<Block>, ModelError> {
        match self {
            Self::ConvNext(net) => net.blocks(naming, head, source),
            Self::Inverted(net) => net.blocks(naming, head, source),
            Self::ResNet(net) => net.blocks(head, source),
            Self::SqueezeNet(net) => net.blocks(head, source),
            Self::Vit(net) => net.blocks(naming, head, source),
        }
    }

    /// Inputs of the classifier.
    pub fn features(&self, naming: Naming) -> usize {
        match self {
            Self::ConvNext(net) => net.features(),
            Self::Inverted(net) => net.features(naming),
            Self::ResNet(net) => net.features(),
            Self::SqueezeNet(net) => net.features(),
            Self::Vit(net) => net.features(),
        }
    }

    /// What the names of the classifier's tensors begin with.
    pub fn head_root(&self, naming: Naming) -> &'static str {
        match (self, naming) {
            (Self::ConvNext(_), Naming::Timm) => "head.fc",
            (Self::ConvNext(_), Naming::Original) | (Self::Vit(_), Naming::Timm) => "head",
            (Self::Vit(_), _) => "heads",
            (Self::ResNet(_), _) => "fc",
            _ => "classifier",
        }
    }
}

/// A network under one naming.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub name: String,
    pub title: String,
    pub naming: Naming,
    pub family: Family,
}

/// For the message about a network that is not known.
pub const KNOWN: &str = "ConvNeXt V1 and V2 (atto to xlarge and huge), MobileNetV2, MobileNetV3 (small, large), \
     EfficientNet (B0 to B7), ResNet (18 to 152, wide), SqueezeNet (1.0, 1.1) and ViT (tiny, small, base; 16×16 patches)";

/// Every network under every naming it is published in.
pub fn candidates() -> Vec<Candidate> {
    [convnexts(), mobilenets(), efficientnets(), resnets(), squeezenets(), vits()].concat()
}

fn candidate(name: &str, title: &str, naming: Naming, family: Family) -> Candidate {
    Candidate { name: name.to_owned(), title: title.to_owned(), naming, family }
}

fn convnexts() -> Vec<Candidate> {
    // Name, depth of the third stage (the others: 3, or 2 below tiny), first channels, in V1, in V2.
    const SIZES: [(&str, usize, usize, bool, bool); 10] = [
        ("Atto", 6, 40, true, true),
        ("Femto", 6, 48, true, true),
        ("Pico", 6, 64, true, true),
        ("Nano", 8, 80, true, true),
        ("Tiny", 9, 96, true, true),
        ("Small", 27, 96, true, true),
        ("Base", 27, 128, true, true),
        ("Large", 27, 192, true, true),
        ("XLarge", 27, 256, true, false),
        ("Huge", 27, 352, false, true),
    ];
    let mut all = Vec::new();
    for (size, third, first, in_v1, in_v2) in SIZES {
        let other = if third < 9 { 2 } else { 3 };
        let depths = [other, other, third, other];
        let channels = [first, 2 * first, 4 * first, 8 * first];
        let plain = ConvNext { depths, channels, stem: Stem::Patch, v2: false, head_norm_first: false };
        let lower = size.to_lowercase();
        let mut add = |name: String, title: String, naming, net: ConvNext| {
            all.push(candidate(&name, &title, naming, Family::ConvNext(net)));
        };
        for naming in [Naming::Timm, Naming::Torchvision, Naming::Original] {
            let published = naming != Naming::Torchvision || (9..=27).contains(&third) && first <= 192;
            if in_v1 && published {
                add(format!("convnext_{lower}"), format!("ConvNeXt {size}"), naming, plain.clone());
            }
            if in_v2 && naming != Naming::Torchvision {
                let net = ConvNext { v2: true, ..plain.clone() };
                add(format!("convnextv2_{lower}"), format!("ConvNeXt V2 {size}"), naming, net);
            }
        }
        if third < 9 {
            // timm's overlapping stems: Nano's has no narrower middle.
            let middle = if size == "Nano" { first } else { round_channels(first as f64 / 2.0) };
            let net = ConvNext { stem: Stem::Overlap { middle }, ..plain.clone() };
            let title = format!("ConvNeXt {size} with overlapping stem");
            add(format!("convnext_{lower}_ols"), title, Naming::Timm, net);
        }
        if size == "Tiny" {
            let net = ConvNext { head_norm_first: true, ..plain };
            let title = "ConvNeXt Tiny with the norm before pooling".to_owned();
            add("convnext_tiny_hnf".to_owned(), title, Naming::Timm, net);
        }
    }
    all
}

fn mobilenets() -> Vec<Candidate> {
    let mut all = Vec::new();
    for naming in [Naming::Timm, Naming::Torchvision] {
        for percent in [100, 140, 75, 50, 35] {
            let name = match naming {
                Naming::Timm => format!("mobilenetv2_{percent:03}"),
                _ if percent == 100 => "mobilenet_v2".to_owned(),
                _ => format!("mobilenet_v2_{percent:03}"),
            };
            let width = f64::from(percent) / 100.0;
            let title = if percent == 100 { "MobileNetV2".to_owned() } else { format!("MobileNetV2 {width}×") };
            all.push(candidate(&name, &title, naming, Family::Inverted(mobilenet::v2(width))));
        }
        // timm alone publishes others than of full width.
        const WIDTHS: [(bool, &str, u32); 5] = [
            (false, "Small", 100),
            (true, "Large", 100),
            (false, "Small", 50),
            (false, "Small", 75),
            (true, "Large", 75),
        ];
        for (large, size, percent) in WIDTHS.into_iter().filter(|width| naming == Naming::Timm || width.2 == 100) {
            let lower = size.to_lowercase();
            let name = match naming {
                Naming::Timm => format!("mobilenetv3_{lower}_{percent:03}"),
                _ => format!("mobilenet_v3_{lower}"),
            };
            let width = f64::from(percent) / 100.0;
            let title = format!("MobileNetV3 {size}");
            let title = if percent == 100 { title } else { format!("{title} {width}×") };
            all.push(candidate(&name, &title, naming, Family::Inverted(mobilenet::v3(large, width, naming))));
        }
    }
    all
}

fn efficientnets() -> Vec<Candidate> {
    let one = |number: usize, naming| {
        let family = Family::Inverted(efficientnet::efficientnet(number, naming));
        candidate(&format!("efficientnet_b{number}"), &format!("EfficientNet B{number}"), naming, family)
    };
    [Naming::Timm, Naming::Torchvision].into_iter().flat_map(|naming| (0..8).map(move |n| one(n, naming))).collect()
}

fn resnets() -> Vec<Candidate> {
    const ALL: [(&str, &str, [usize; 4], bool, usize); 7] = [
        ("resnet18", "ResNet-18", [2, 2, 2, 2], false, 64),
        ("resnet34", "ResNet-34", [3, 4, 6, 3], false, 64),
        ("resnet50", "ResNet-50", [3, 4, 6, 3], true, 64),
        ("resnet101", "ResNet-101", [3, 4, 23, 3], true, 64),
        ("resnet152", "ResNet-152", [3, 8, 36, 3], true, 64),
        ("wide_resnet50_2", "Wide ResNet-50", [3, 4, 6, 3], true, 128),
        ("wide_resnet101_2", "Wide ResNet-101", [3, 4, 23, 3], true, 128),
    ];
    let family = |depths, bottleneck, width| Family::ResNet(ResNet { depths, bottleneck, width });
    let all = ALL.into_iter();
    all.map(|(name, title, depths, bottleneck, width)| {
        candidate(name, title, Naming::Torchvision, family(depths, bottleneck, width))
    })
    .collect()
}

fn squeezenets() -> Vec<Candidate> {
    let one = |name, title, version_1_1| {
        candidate(name, title, Naming::Torchvision, Family::SqueezeNet(SqueezeNet { version_1_1 }))
    };
    vec![one("squeezenet1_0", "SqueezeNet 1.0", false), one("squeezenet1_1", "SqueezeNet 1.1", true)]
}

fn vits() -> Vec<Candidate> {
    let mut all = Vec::new();
    for (size, width) in [("Tiny", 192), ("Small", 384), ("Base", 768)] {
        for image in [224, 384] {
            let family = Family::Vit(Vit { width, depth: 12, image });
            let name = format!("vit_{}_patch16_{image}", size.to_lowercase());
            let title = format!("ViT {size}, {image} px");
            all.push(candidate(&name, &title, Naming::Timm, family.clone()));
            if size == "Base" {
                let name = if image == 224 { "vit_b_16" } else { "vit_b_16_384" };
                all.push(candidate(name, &title, Naming::Torchvision, family));
            }
        }
    }
    all
}

/// The transform of the published weights: timm's `default_cfg` of the default tag, torchvision's first set of weights,
/// 224 px at 0.875 in the original repository.
pub fn transform(name: &str, naming: Naming) -> Transform {
    let plain = |resize: u32, crop: u32, interpolation| Transform {
        resize: Resize::ShortSide(resize),
        crop: Some(crop),
        interpolation,
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
    };
    match naming {
        Naming::Torchvision => {
            let (resize, crop, interpolation) = torchvision(name);
            plain(resize, crop, interpolation)
        }
        Naming::Timm => timm(name),
        Naming::Original if name == "convnextv2_huge" => plain(384, 384, Interpolation::Bicubic),
        Naming::Original => plain(256, 224, Interpolation::Bicubic),
    }
}

fn torchvision(name: &str) -> (u32, u32, Interpolation) {
    use Interpolation::{Bicubic, Bilinear};
    match name {
        "convnext_tiny" => (236, 224, Bilinear),
        "convnext_small" => (230, 224, Bilinear),
        "convnext_base" | "convnext_large" => (232, 224, Bilinear),
        "vit_b_16_384" => (384, 384, Bicubic),
        "efficientnet_b0" => (256, 224, Bicubic),
        "efficientnet_b1" => (256, 240, Bicubic),
        "efficientnet_b2" => (288, 288, Bicubic),
        "efficientnet_b3" => (320, 300, Bicubic),
        "efficientnet_b4" => (384, 380, Bicubic),
        "efficientnet_b5" => (456, 456, Bicubic),
        "efficientnet_b6" => (528, 528, Bicubic),
        "efficientnet_b7" => (600, 600, Bicubic),
        _ => (256, 224, Bilinear),
    }
}

fn timm(name: &str) -> Transform {
    let (side, crop_ratio): (u32, f64) = match name {
        "convnext_nano" | "convnext_nano_ols" | "convnext_pico_ols" | "convnext_tiny" | "convnext_tiny_hnf" => {
            (224, 0.95)
        }
        "convnext_small" => (224, 0.95),
        "convnextv2_huge" => (384, 1.0),
        "efficientnet_b1" => (240, 0.9),
        "efficientnet_b2" => (256, 0.875),
        "efficientnet_b3" => (288, 0.875),
        "efficientnet_b4" => (320, 0.875),
        "efficientnet_b5" => (448, 1.0),
        "efficientnet_b6" | "tf_efficientnet_b6" => (528, 0.942),
        "efficientnet_b7" | "tf_efficientnet_b7" => (600, 0.949),
        "tf_efficientnet_b1" => (240, 0.882),
        "tf_efficientnet_b2" => (260, 0.89),
        "tf_efficientnet_b3" => (300, 0.904),
        "tf_efficientnet_b4" => (380, 0.922),
        "tf_efficientnet_b5" => (456, 0.934),
        _ if name.ends_with("patch16_384") => (384, 1.0),
        _ if name.starts_with("vit_") => (224, 0.9),
        _ => (224, 0.875),
    };
    // timm: Inception's mean and deviation for these.
    let from_tensorflow = name.starts_with("tf_mobilenetv3");
    // Without published weights its settings are the bare ones.
    let is_bilinear = from_tensorflow || name == "mobilenetv3_large_075";
    let inception = from_tensorflow || name.starts_with("vit_") || name == "efficientnet_b1";
    Transform {
        resize: Resize::ShortSide((f64::from(side) / crop_ratio).floor() as u32),
        crop: Some(side),
        interpolation: if is_bilinear { Interpolation::Bilinear } else { Interpolation::Bicubic },
        mean: if inception { [0.5; 3] } else { IMAGENET_MEAN },
        std: if inception { [0.5; 3] } else { IMAGENET_STD },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_transforms_are_the_published_ones() {
        let cases = [
            ("convnext_tiny", Naming::Timm, 235, 224, Interpolation::Bicubic, 0.485),
            ("convnext_atto", Naming::Timm, 256, 224, Interpolation::Bicubic, 0.485),
            ("convnext_tiny", Naming::Torchvision, 236, 224, Interpolation::Bilinear, 0.485),
            ("mobilenet_v3_small", Naming::Torchvision, 256, 224, Interpolation::Bilinear, 0.485),
            ("efficientnet_b3", Naming::Timm, 329, 288, Interpolation::Bicubic, 0.485),
            ("tf_efficientnet_b7", Naming::Timm, 632, 600, Interpolation::Bicubic, 0.485),
            ("vit_tiny_patch16_224", Naming::Timm, 248, 224, Interpolation::Bicubic, 0.5),
            ("vit_b_16", Naming::Torchvision, 256, 224, Interpolation::Bilinear, 0.485),
        ];
        for (name, naming, resize, crop, interpolation, mean) in cases {
            let transform = transform(name, naming);
            assert_eq!(transform.resize, Resize::ShortSide(resize), "{name}");
            assert_eq!((transform.crop, transform.interpolation), (Some(crop), interpolation), "{name}");
            assert_eq!(transform.mean[0], mean, "{name}");
        }
    }
}
