//! Multi-head self-attention in tiles of queries: the score matrix is never larger than one tile.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::activation::softmax_row;
use super::gemm::{Matrix, multiply};
use super::{elements, output, scratch};

/// Queries that share one pass over keys and values.
const TILE: usize = 64;

/// `softmax(q · kᵀ / sqrt(head length)) · v` for each head.
///
/// `qkv` has shape `(n, tokens, 3 · heads · head length)`, queries first; the result `(n, tokens, heads · head length)`.
pub fn attention(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    qkv.contiguous()?.apply_op1_no_bwd(&Attention { heads })
}

struct Attention {
    heads: usize,
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, tokens, width) = layout.shape().dims3()?;
        if self.heads == 0 || width % (3 * self.heads) != 0 {
            candle_core::bail!("{width} values per token do not split into {} heads", self.heads);
        }
        let width = width / 3;
        let qkv = elements(qkv, layout)?;
        let mut result = vec![0.0; batch * tokens * width];
        result.par_chunks_mut((tokens * width).max(1)).zip(qkv.par_chunks((tokens * width * 3).max(1))).for_each(
            |(image, qkv)| {
                image.par_chunks_mut(TILE * width).enumerate().for_each(|(index, tile)| {
                    scratch::with(TILE * tokens, |scores| {
                        for head in 0..self.heads {
                            self.head(qkv, width, index * TILE, head, scores, tile);
                        }
                    });
                });
            },
        );
        Ok(output(result, (batch, tokens, width)))
    }
}

impl Attention {
    /// One head for the queries of one tile, which begin at token `first`.
    fn head(&self, qkv: &[f32], width: usize, first: usize, head: usize, scores: &mut [f32], tile: &mut [f32]) {
        let (tokens, queries) = (qkv.len() / (3 * width), tile.len() / width);
        let length = width / self.heads;
        let part = |first_token: usize, part: usize, rows: usize| Matrix {
            elements: &qkv[first_token * 3 * width + part * width + head * length..],
            rows,
            columns: length,
            row_stride: 3 * width,
            column_stride: 1,
        };
        let scale = 1.0 / (length as f32).sqrt();
        let scores = &mut scores[..queries * tokens];
        multiply(scores, tokens, part(first, 0, queries), part(0, 1, tokens).transposed(), scale);
        scores.chunks_exact_mut(tokens).for_each(softmax_row);
        let scores = Matrix::row_major(scores, queries, tokens);
        multiply(&mut tile[head * length..], width, scores, part(0, 2, tokens), 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, views};

    #[test]
    fn equals_its_composed_form() -> Result<()> {
        for (tokens, heads, length) in [(1, 1, 3), (5, 2, 7), (70, 3, 8), (130, 1, 16)] {
            for qkv in views(&[2, tokens, 3 * heads * length])? {
                let parts = qkv.contiguous()?.reshape((2, tokens, 3, heads, length))?.permute((2, 0, 3, 1, 4))?;
                let part = |index: usize| parts.get(index)?.contiguous(); // (n, heads, tokens, length)
                let scores = (part(0)?.matmul(&part(1)?.t()?.contiguous()?)? / (length as f64).sqrt())?;
                let exp = scores.broadcast_sub(&scores.max_keepdim(3)?)?.exp()?;
                let weights = exp.broadcast_div(&exp.sum_keepdim(3)?)?;
                let oracle = weights.matmul(&part(2)?)?.transpose(1, 2)?.reshape((2, tokens, heads * length))?;
                assert_close(&attention(&qkv, heads)?, &oracle, 1e-5)?;
            }
        }
        Ok(())
    }
}
