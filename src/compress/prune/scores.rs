//! How much an inner channel can matter, from the weights alone.

use super::PruneError;
use crate::models::{Inner, Member, Part, Weights};

/// PyTorch's default for batch norms.
const EPSILON: f64 = 1e-5;

/// For every layer and channel: the product of the L1 norms of the weights that make it, scale it and take it, batch norms
/// folded in. What a channel adds to its block's output is at most that times the largest input, but for biases.
pub fn by_l1(weights: &dyn Weights, inner: &[Inner]) -> Result<Vec<Vec<f64>>, PruneError> {
    let of_layer = |inner: &Inner| {
        let mut scores = vec![1.0; inner.channels];
        for member in &inner.members {
            let factor: fn(f64) -> f64 = match member.part {
                Part::Makes | Part::Scales | Part::Takes => |norm| norm,
                Part::Divides => |variance| 1.0 / (variance + EPSILON).sqrt(),
                Part::Compares | Part::Passes => continue,
            };
            let norms = norms(weights, member, inner.channels)?;
            scores.iter_mut().zip(norms).for_each(|(score, norm)| *score *= factor(norm));
        }
        Ok(scores)
    };
    inner.iter().map(of_layer).collect()
}

/// The L1 norm of each channel's elements.
fn norms(weights: &dyn Weights, member: &Member, channels: usize) -> Result<Vec<f64>, PruneError> {
    let held = weights.tensors().iter().find(|tensor| tensor.name == member.tensor);
    let held = held.ok_or_else(|| PruneError::Missing { tensor: member.tensor.clone() })?;
    let axis = super::axis_in_file(member, channels, held)?;
    let inner: usize = held.shape[axis + 1..].iter().product();
    let mut norms = vec![0.0; channels];
    for (index, row) in weights.read_f32(&member.tensor)?.chunks_exact(inner.max(1)).enumerate() {
        norms[index % channels] += row.iter().map(|value| f64::from(value.abs())).sum::<f64>();
    }
    Ok(norms)
}
