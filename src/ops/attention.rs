//! Multi-head self-attention in tiles of queries: the score matrix is never larger than one tile.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::activation::{softmax_row, softmax_row_backward};
use super::backward::{gradient, read};
use super::gemm::{Matrix, accumulate, multiply};
use super::{composed, elements, has_kernel, output, scratch, work};

/// Queries that share one pass over keys and values.
pub const TILE: usize = 64;

/// `softmax(q · kᵀ / sqrt(head length)) · v` for each head.
///
/// `qkv` has shape `(n, tokens, 3 · heads · head length)`, queries first; the result `(n, tokens, heads · head length)`.
pub fn attention(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, tokens, width) = qkv.dims3()?;
    // Queries with keys, and scores with values, over all heads.
    work::product(2 * batch * tokens, tokens, width / 3);
    if !has_kernel("attention", qkv) {
        return composed(qkv, heads);
    }
    qkv.contiguous()?.apply_op1(Attention { heads })
}

/// The same composed of candle operations.
pub(crate) fn composed(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, tokens, width) = qkv.dims3()?;
    let length = head_length(width, heads)?;
    let parts = qkv.contiguous()?.reshape((batch, tokens, 3, heads, length))?.permute((2, 0, 3, 1, 4))?;
    let part = |index: usize| parts.narrow(0, index, 1)?.squeeze(0)?.contiguous(); // (n, heads, tokens, length)
    let scores = (part(0)?.matmul(&part(1)?.t()?.contiguous()?)? / (length as f64).sqrt())?;
    let result = composed::softmax(&scores)?.matmul(&part(2)?)?;
    result.transpose(1, 2)?.reshape((batch, tokens, heads * length))
}

/// The values of one head among `width` of queries, keys and values.
fn head_length(width: usize, heads: usize) -> Result<usize> {
    if heads == 0 || !width.is_multiple_of(3 * heads) {
        candle_core::bail!("{width} values per token do not split into {heads} heads");
    }
    Ok(width / (3 * heads))
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
        let width = head_length(width, self.heads)? * self.heads;
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

    fn bwd(&self, qkv: &Tensor, _: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        self.backward(qkv, upstream).map(Some)
    }
}

/// The gradient of queries, keys and values on the CPU, given that of the result of [`attention`].
pub fn attention_backward(qkv: &Tensor, heads: usize, upstream: &Tensor) -> Result<Tensor> {
    head_length(qkv.dim(2)?, heads)?;
    Attention { heads }.backward(qkv, upstream)
}

impl Attention {
    fn backward(&self, qkv: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        let (_, tokens, width) = qkv.dims3()?;
        let (width, length) = (width / 3, width / 3 / self.heads);
        read([qkv, &upstream.contiguous()?], |[values, upstream]| {
            let mut result = vec![0.0; values.len()];
            let images = result.par_chunks_mut((tokens * width * 3).max(1));
            let images = images.zip(values.par_chunks((tokens * width * 3).max(1)));
            images.zip(upstream.par_chunks((tokens * width).max(1))).for_each(|((image, qkv), upstream)| {
                let heads = (0..self.heads).into_par_iter();
                let heads: Vec<_> = heads.map(|head| self.head_backward(qkv, upstream, width, head)).collect();
                image.par_chunks_mut(length).enumerate().for_each(|(index, values)| {
                    // Tokens, then queries, keys and values, then heads.
                    let (token, part, head) = (index / (3 * self.heads), index / self.heads % 3, index % self.heads);
                    values.copy_from_slice(&heads[head][(part * tokens + token) * length..][..length]);
                });
            });
            gradient(result, qkv)
        })
    }

    /// One head for the queries of one tile, which begin at token `first`.
    fn head(&self, qkv: &[f32], width: usize, first: usize, head: usize, scores: &mut [f32], tile: &mut [f32]) {
        let (tokens, queries) = (qkv.len() / (3 * width), tile.len() / width);
        let length = width / self.heads;
        let part = Parts { qkv, width, length, head };
        let scores = &mut scores[..queries * tokens];
        part.weigh(scores, first, queries);
        let scores = Matrix::row_major(scores, queries, tokens);
        multiply(&mut tile[head * length..], width, scores, part.of(2, 0, tokens), 1.0);
    }

    /// The gradients of one head's queries, then keys, then values, each `(tokens, length)`.
    ///
    /// What the scores were is computed anew, a tile of queries at a time.
    fn head_backward(&self, qkv: &[f32], upstream: &[f32], width: usize, head: usize) -> Vec<f32> {
        let (tokens, length) = (qkv.len() / (3 * width), width / self.heads);
        let part = Parts { qkv, width, length, head };
        let mut result = vec![0.0; 3 * tokens * length];
        let (of_queries, rest) = result.split_at_mut(tokens * length);
        let (of_keys, of_values) = rest.split_at_mut(tokens * length);
        let scale = part.scale();
        for first in (0..tokens).step_by(TILE) {
            let queries = TILE.min(tokens - first);
            scratch::with(2 * queries * tokens, |space| {
                let (scores, gradients) = space.split_at_mut(queries * tokens);
                part.weigh(scores, first, queries);
                let upstream = Matrix {
                    elements: &upstream[first * width + head * length..],
                    rows: queries,
                    columns: length,
                    row_stride: width,
                    column_stride: 1,
                };
                let weights = Matrix::row_major(scores, queries, tokens);
                accumulate(of_values, length, weights.transposed(), upstream);
                multiply(gradients, tokens, upstream, part.of(2, 0, tokens).transposed(), scale);
                let rows = gradients.chunks_exact_mut(tokens).zip(scores.chunks_exact(tokens));
                rows.for_each(|(gradients, scores)| softmax_row_backward(gradients, scores));
                let gradients = Matrix::row_major(gradients, queries, tokens);
                multiply(&mut of_queries[first * length..], length, gradients, part.of(1, 0, tokens), 1.0);
                accumulate(of_keys, length, gradients.transposed(), part.of(0, first, queries));
            });
        }
        result
    }
}

/// Queries, keys and values of one head of one image.
struct Parts<'a> {
    qkv: &'a [f32],
    width: usize,
    length: usize,
    head: usize,
}

impl<'a> Parts<'a> {
    /// Queries (0), keys (1) or values (2) of `rows` tokens from `first` on.
    fn of(&self, part: usize, first: usize, rows: usize) -> Matrix<'a> {
        Matrix {
            elements: &self.qkv[first * 3 * self.width + part * self.width + self.head * self.length..],
            rows,
            columns: self.length,
            row_stride: 3 * self.width,
            column_stride: 1,
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.length as f32).sqrt()
    }

    /// How much each of `queries` from `first` on takes of every token's value: `(queries, tokens)`.
    fn weigh(&self, scores: &mut [f32], first: usize, queries: usize) {
        let tokens = self.qkv.len() / (3 * self.width);
        multiply(scores, tokens, self.of(0, first, queries), self.of(1, 0, tokens).transposed(), self.scale());
        scores.chunks_exact_mut(tokens).for_each(softmax_row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, assert_gradients, views};

    #[test]
    fn equals_its_composed_form() -> Result<()> {
        for (tokens, heads, length) in [(1, 1, 3), (5, 2, 7), (70, 3, 8), (130, 1, 16)] {
            for qkv in views(&[2, tokens, 3 * heads * length])? {
                assert_close(&attention(&qkv, heads)?, &composed(&qkv, heads)?, 1e-5)?;
            }
        }
        Ok(())
    }

    #[test]
    fn gradients_are_right() -> Result<()> {
        for (tokens, heads, length) in [(1, 1, 3), (5, 2, 7), (70, 3, 4)] {
            assert_gradients(&[&[2, tokens, 3 * heads * length]], |args| attention(&(&args[0] * 2.0)?, heads))?;
        }
        Ok(())
    }
}
