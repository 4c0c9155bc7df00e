//! How much an inner channel can matter, from the weights alone.

use super::{PruneError, axis_in_file};
use crate::models::{Inner, Part, Weights};

/// For every layer and channel: its size, as far as weights tell it, times the L1 norm of the weights that take it.
///
/// Where the channel comes out of a batch norm, its size is the norm's scale and shift, without their signs: what goes in is
/// normalized, so that weights before it say nothing. Elsewhere it is the L1 norm of the weights that make it.
pub fn by_l1(weights: &dyn Weights, inner: &[Inner]) -> Result<Vec<Vec<f64>>, PruneError> {
    let of_layer = |inner: &Inner| {
        let mut scores = vec![1.0; inner.channels];
        for member in &inner.members {
            let norms = |tensor: &str| norms(weights, tensor, member.axis, inner.channels);
            match member.part {
                Part::Makes | Part::Filters | Part::Takes => multiply(&mut scores, &norms(&member.tensor)?),
                Part::Normalizes => {
                    scores = norms(&member.tensor)?;
                    let shifts = norms(&member.tensor.replace(".weight", ".bias"))?;
                    scores.iter_mut().zip(shifts).for_each(|(score, shift)| *score += shift);
                }
                Part::Compares | Part::Passes => {}
            }
        }
        Ok(scores)
    };
    inner.iter().map(of_layer).collect()
}

fn multiply(scores: &mut [f64], factors: &[f64]) {
    scores.iter_mut().zip(factors).for_each(|(score, factor)| *score *= factor);
}

/// The L1 norm of each channel's elements.
fn norms(weights: &dyn Weights, tensor: &str, axis: usize, channels: usize) -> Result<Vec<f64>, PruneError> {
    let held = weights.tensors().iter().find(|held| held.name == tensor);
    let held = held.ok_or_else(|| PruneError::Missing { tensor: tensor.to_owned() })?;
    let axis = axis_in_file(held, axis, channels)?;
    let inner: usize = held.shape[axis + 1..].iter().product();
    let mut norms = vec![0.0; channels];
    for (index, row) in weights.read_f32(tensor)?.chunks_exact(inner.max(1)).enumerate() {
        norms[index % channels] += row.iter().map(|value| f64::from(value.abs())).sum::<f64>();
    }
    Ok(norms)
}
