//! How differently two networks find the photos of a batch alike (Tung and Mori, "Similarity-preserving knowledge
//! distillation", 2019), with the gradient in closed form.
//!
//! Each photo's features are the means over its places. The products of photos' features, each photo's scaled to length 1,
//! say how alike a network finds them, whatever its number of channels. Compared are the photos computed at once.

use candle_core::{D, Result, Tensor};

/// `weight / n²` of the squared differences of both networks' similarities, and its gradient by `output`, that of a block:
/// `(n, …, channels)`. `taught` are the teacher's pooled features, `(n, other channels)`.
pub fn judge(output: &Tensor, taught: &Tensor, weight: f64) -> Result<(Tensor, Tensor)> {
    let features = pooled(output)?;
    let factor = weight / (features.dim(0)? as f64).powi(2);
    let own = Similarities::of(&features)?;
    let difference = (&own.scaled - Similarities::of(taught)?.scaled)?;
    let loss = (difference.sqr()?.sum_all()? * factor)?;
    let gradient = own.back(&(difference * (2.0 * factor))?, &features)?;
    Ok((loss, spread(&gradient, output)?))
}

/// The mean over all places of a photo: `(n, …, channels)` becomes `(n, channels)`.
pub fn pooled(output: &Tensor) -> Result<Tensor> {
    match output.rank() {
        2 => Ok(output.detach()),
        rank => output.detach().flatten(1, rank - 2)?.mean(1),
    }
}

/// The gradient by a block's output, given that by its pooled features.
fn spread(gradient: &Tensor, output: &Tensor) -> Result<Tensor> {
    let (photos, channels) = gradient.dims2()?;
    let places = output.elem_count() / (photos * channels).max(1);
    let mut shape = vec![1; output.rank()];
    (shape[0], shape[output.rank() - 1]) = (photos, channels);
    (gradient / places as f64)?.reshape(shape)?.broadcast_as(output.shape())?.contiguous()
}

struct Similarities {
    /// Products of each two photos' features, each row scaled to length 1: `(n, n)`.
    scaled: Tensor,
    /// What each row was multiplied by, `(n, 1)`; 0 for a photo without any features.
    scales: Tensor,
}

impl Similarities {
    fn of(features: &Tensor) -> Result<Self> {
        let products = features.matmul(&features.t()?)?;
        let lengths = products.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
        let is_there = lengths.gt(0.0)?.to_dtype(lengths.dtype())?;
        let scales = (&is_there / (&lengths + is_there.affine(-1.0, 1.0)?)?)?;
        Ok(Self { scaled: products.broadcast_mul(&scales)?, scales })
    }

    /// The gradient by the features, given that by the scaled similarities.
    fn back(&self, gradient: &Tensor, features: &Tensor) -> Result<Tensor> {
        let along = (gradient * &self.scaled)?.sum_keepdim(D::Minus1)?;
        let across = (gradient - self.scaled.broadcast_mul(&along)?)?.broadcast_mul(&self.scales)?;
        (&across + across.t()?)?.matmul(features)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    const PHOTOS: usize = 4;
    const CHANNELS: usize = 3;

    /// `(4, 2, 1, 3)`, the third photo without any features.
    fn output() -> Vec<f64> {
        let value = |index: usize| if index / 6 == 2 { 0.0 } else { (1.7 * index as f64).sin() + 0.2 };
        (0..PHOTOS * 2 * CHANNELS).map(value).collect()
    }

    /// `(4, 2)`
    const TAUGHT: [[f64; 2]; PHOTOS] = [[1.0, 0.5], [-0.3, 0.8], [0.1, 0.9], [0.7, -0.6]];

    /// The paper's formula in plain numbers.
    fn formula(output: &[f64], weight: f64) -> f64 {
        let means =
            output.chunks(2 * CHANNELS).map(|photo| (0..CHANNELS).map(|c| (photo[c] + photo[c + CHANNELS]) / 2.0));
        let means: Vec<Vec<f64>> = means.map(Iterator::collect).collect();
        let scaled = |features: &[Vec<f64>]| -> Vec<f64> {
            let row = |one: &Vec<f64>| {
                let row: Vec<f64> =
                    features.iter().map(|other| one.iter().zip(other).map(|(a, b)| a * b).sum()).collect();
                let length = row.iter().map(|value: &f64| value * value).sum::<f64>().sqrt();
                row.into_iter().map(move |value| if length > 0.0 { value / length } else { 0.0 })
            };
            features.iter().flat_map(row).collect()
        };
        let teacher: Vec<Vec<f64>> = TAUGHT.iter().map(|row| row.to_vec()).collect();
        let squares = scaled(&means).into_iter().zip(scaled(&teacher)).map(|(own, wanted)| (own - wanted).powi(2));
        weight * squares.sum::<f64>() / (PHOTOS * PHOTOS) as f64
    }

    #[test]
    fn loss_is_that_of_the_formula_and_its_gradient_that_of_finite_differences() -> Result<()> {
        let values = output();
        let tensor = Tensor::from_slice(&values, (PHOTOS, 2, 1, CHANNELS), &Device::Cpu)?;
        let (loss, gradient) = judge(&tensor, &Tensor::new(&TAUGHT, &Device::Cpu)?, 30.0)?;
        let loss = loss.to_scalar::<f64>()?;
        assert!((loss - formula(&values, 30.0)).abs() < 1e-12, "{loss}");
        assert_eq!(gradient.dims(), tensor.dims());
        for (index, ours) in gradient.flatten_all()?.to_vec1::<f64>()?.into_iter().enumerate() {
            if index / 6 == 2 {
                continue; // There the length has no slope.
            }
            let moved = |by: f64| {
                let mut values = values.clone();
                values[index] += by;
                formula(&values, 30.0)
            };
            let difference = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((ours - difference).abs() < 1e-7, "{index}: {ours} instead of {difference}");
        }
        Ok(())
    }

    #[test]
    fn photos_that_a_network_finds_alike_as_its_teacher_does_cost_nothing() -> Result<()> {
        let tensor = Tensor::new(&TAUGHT, &Device::Cpu)?;
        let (loss, gradient) = judge(&(&tensor * 7.0)?, &tensor, 3000.0)?;
        assert!(loss.to_scalar::<f64>()? < 1e-20);
        assert!(gradient.flatten_all()?.to_vec1::<f64>()?.iter().all(|value| value.abs() < 1e-9));
        Ok(())
    }
}
