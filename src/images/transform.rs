//! From an upright picture to network input: resize, center crop, scale to 0–1, normalize. The resize is Pillow's
//! (antialiased, two passes, 8 bits between), because checkpoints were trained with it.

use serde::{Deserialize, Serialize};

use super::Picture;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    Bilinear,
    Bicubic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// The shorter side becomes this long, the aspect ratio stays (torchvision's `Resize(256)`).
    ShortSide(u32),
    /// Exactly this size, the aspect ratio is given up (torchvision's `Resize((h, w))`).
    Exact { height: u32, width: u32 },
}

/// Everything between an upright picture and network input.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Transform {
    pub resize: Resize,
    /// Side of the square cut from the middle after resizing; none keeps the resized picture.
    pub crop: Option<u32>,
    pub interpolation: Interpolation,
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

impl Default for Transform {
    fn default() -> Self {
        Self {
            resize: Resize::ShortSide(256),
            crop: Some(224),
            interpolation: Interpolation::Bilinear,
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
        }
    }
}

impl Transform {
    /// Height and width of the network input, when every photo gives the same; `None` for `ShortSide` without a crop.
    pub fn output_size(&self) -> Option<(usize, usize)> {
        match (self.crop, self.resize) {
            (Some(side), _) => Some((side as usize, side as usize)),
            (None, Resize::Exact { height, width }) => Some((height as usize, width as usize)),
            (None, Resize::ShortSide(_)) => None,
        }
    }

    /// The shorter side the resize asks for: what decoding may reduce a photo towards.
    pub fn short_side(&self) -> u32 {
        match self.resize {
            Resize::ShortSide(side) => side,
            Resize::Exact { height, width } => height.max(width),
        }
    }

    /// Pixels of shape `(height, width, 3)`, normalized.
    pub fn apply(&self, _picture: &Picture) -> Vec<f32> {
        todo!()
    }
}
