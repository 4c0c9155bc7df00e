//! Vision transformers with 16×16 patches and a class token, under timm's and torchvision's names.

mod learn;
mod outline;

use candle_core::Tensor;

use super::layers::{Conv, Head, HeadStep, Layer, LayerNorm, Linear};
use super::learn::Learn;
use super::outline::LearnOutline;
use super::source::Source;
use super::{Block, ModelError, Naming, Phase};
use crate::memory::Outline;
use crate::ops::outline as told;
use crate::ops::{self, Activation, Mlp, Padding, Window};

/// timm's and torchvision's for every norm.
const EPSILON: f32 = 1e-6;
const PATCH: usize = 16;
/// Values per attention head, in all sizes.
const HEAD_LENGTH: usize = 64;

#[derive(Debug, Clone, PartialEq)]
pub struct Vit {
    pub width: usize,
    pub depth: usize,
    /// Side of the only image size the position embedding is made for.
    pub image: usize,
}

impl Vit {
    pub fn features(&self) -> usize {
        self.width
    }

    pub fn blocks(&self, naming: Naming, head: &[HeadStep], source: &mut Source) -> Result<Vec<Block>, ModelError> {
        let [token, position, patch, norm] = match naming {
            Naming::Torchvision => ["class_token", "encoder.pos_embedding", "conv_proj", "encoder.ln"],
            _ => ["cls_token", "pos_embed", "patch_embed.proj", "norm"],
        };
        let tokens = (self.image / PATCH).pow(2) + 1;
        let window = Window { kernel: PATCH, stride: PATCH, padding: Padding::Each(0) };
        let token = source.plain(token, &[1, 1, self.width])?;
        let position = source.plain(position, &[1, tokens, self.width])?;
        let (weighted, no_norm) = source.conv(patch, None, window, 3, self.width)?;
        let patch = Conv { weighted, norm: no_norm, window, activation: Activation::None };
        let embed = Embed { token, position, patch, image: self.image };
        let mut blocks = vec![source.block("stem", embed)];
        for index in 0..self.depth {
            let layer = self.encoder(naming, index, source)?;
            blocks.push(source.block(format!("blocks.{index}"), layer));
        }
        let norm = LayerNorm::load(source, norm, self.width, EPSILON)?;
        let head = Head::load(source, head)?;
        blocks.push(source.block("head", TokenHead { norm, head }));
        Ok(blocks)
    }

    fn encoder(&self, naming: Naming, index: usize, source: &mut Source) -> Result<Encoder, ModelError> {
        let (prefix, [first, qkv_weight, qkv_bias, merge, second, expand, project]) = match naming {
            Naming::Torchvision => (
                format!("encoder.layers.encoder_layer_{index}"),
                [
                    "ln_1",
                    "self_attention.in_proj_weight",
                    "self_attention.in_proj_bias",
                    "self_attention.out_proj",
                    "ln_2",
                    "mlp.0",
                    "mlp.3",
                ],
            ),
            _ => (
                format!("blocks.{index}"),
                ["norm1", "attn.qkv.weight", "attn.qkv.bias", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"],
            ),
        };
        let width = self.width;
        let name = |part: &str| format!("{prefix}.{part}");
        let norm = |source: &mut Source, part| LayerNorm::load(source, &name(part), width, EPSILON);
        let first = norm(source, first)?;
        let (qkv, _) = source.linear_named(&name(qkv_weight), Some(&name(qkv_bias)), &[3 * width, width], None)?;
        let merge = source.linear(&name(merge), width, width, true)?;
        let second = norm(source, second)?;
        let hidden = source.inner(&name(expand), 4 * width);
        let expand = source.linear(&name(expand), width, hidden, true)?;
        let project = source.linear(&name(project), hidden, width, true)?;
        Ok(Encoder {
            first,
            qkv: Linear { weighted: qkv, activation: Activation::None },
            heads: width / HEAD_LENGTH,
            merge: Linear { weighted: merge, activation: Activation::None },
            mlp: Mlp { norm: second.affine, epsilon: EPSILON, expand, activation: Activation::Gelu, project },
        })
    }
}

/// Patches as tokens, the class token before them, positions added.
struct Embed {
    token: Tensor,
    position: Tensor,
    patch: Conv,
    image: usize,
}

impl Layer for Embed {
    fn forward(&self, xs: Tensor, phase: Phase) -> candle_core::Result<Tensor> {
        let (batch, height, width, _) = xs.dims4()?;
        if (height, width) != (self.image, self.image) {
            let side = self.image;
            candle_core::bail!("this network takes {side}×{side} images, not {height}×{width}; crop to {side}");
        }
        let patches = self.patch.forward(&xs, phase)?.flatten(1, 2)?; // (n, patches, width)
        let token = self.token.broadcast_as((batch, 1, patches.dim(2)?))?;
        Tensor::cat(&[token, patches], 1)?.broadcast_add(&self.position)
    }

    fn outline(&self, xs: Outline) -> candle_core::Result<Outline> {
        let patches = self.patch.forward_outline(&xs)?;
        let &[batch, height, width, channels] = patches.dims() else {
            candle_core::bail!("an image batch has four axes")
        };
        Ok(told::add(&told::joined(&patches, &[batch, height * width + 1, channels])))
    }
}

struct Encoder {
    first: LayerNorm,
    qkv: Linear,
    heads: usize,
    merge: Linear,
    mlp: Mlp,
}

impl Layer for Encoder {
    fn is_residual(&self) -> bool {
        true
    }

    fn learn(&self, xs: &Tensor) -> Option<&dyn Learn> {
        (self.can_learn() && ops::has_backward(xs)).then_some(self)
    }

    fn forward(&self, xs: Tensor, _: Phase) -> candle_core::Result<Tensor> {
        let attended = ops::attention(&self.qkv.forward(&self.first.forward(&xs)?)?, self.heads)?;
        let xs = self.merge.forward_with(&attended, Some(&xs))?;
        ops::mlp(&xs, &self.mlp, &xs)
    }

    fn outline(&self, xs: Outline) -> candle_core::Result<Outline> {
        let attended = told::attention(&self.qkv.outline(&told::same(&xs)));
        let hidden = self.merge.outline(&attended);
        drop(xs);
        Ok(told::mlp(&hidden, &self.mlp))
    }

    fn learn_outline(&self) -> Option<&dyn LearnOutline> {
        self.can_learn().then_some(self)
    }
}

/// The class token alone is normed and classified.
struct TokenHead {
    norm: LayerNorm,
    head: Head,
}

impl Layer for TokenHead {
    fn forward(&self, xs: Tensor, phase: Phase) -> candle_core::Result<Tensor> {
        let token = xs.narrow(1, 0, 1)?.squeeze(1)?;
        self.head.forward(self.norm.forward(&token)?, phase)
    }

    fn outline(&self, xs: Outline) -> candle_core::Result<Outline> {
        let token = told::token(&xs);
        Ok(self.head.outline(told::same(&token)))
    }
}
