//! What passes between blocks at inference.

use candle_core::{Result, Tensor};

use crate::ops::CodedImages;

pub enum Features {
    Plain(Tensor),
    /// Between blocks that compute with weights in 8 or 4 bits: `(n, h, w, channels)`.
    Coded(CodedImages),
}

impl Features {
    pub fn into_tensor(self) -> Result<Tensor> {
        match self {
            Self::Plain(tensor) => Ok(tensor),
            Self::Coded(images) => images.tensor(),
        }
    }

    pub fn into_coded(self) -> Result<CodedImages> {
        match self {
            Self::Plain(tensor) => CodedImages::new(&tensor),
            Self::Coded(images) => Ok(images),
        }
    }

    pub fn elements(&self) -> usize {
        match self {
            Self::Plain(tensor) => tensor.elem_count(),
            Self::Coded(images) => images.shape().iter().product(),
        }
    }

    /// The features of all images, which are of one form.
    pub fn cat(parts: Vec<Self>) -> Result<Self> {
        let (mut plain, mut coded) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                Self::Plain(tensor) => plain.push(tensor),
                Self::Coded(images) => coded.push(images),
            }
        }
        match (plain.is_empty(), coded.is_empty()) {
            (false, true) => Ok(Self::Plain(Tensor::cat(&plain, 0)?)),
            (true, false) => Ok(Self::Coded(CodedImages::cat(&coded)?)),
            _ => candle_core::bail!("features of one form were expected"),
        }
    }
}
