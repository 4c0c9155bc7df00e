//! The cross entropy of a batch, with its gradient in closed form: no graph is kept for it.

use candle_core::{D, DType, Result, Tensor};

use crate::ops;

/// How answers are weighed.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    /// The share of the target that is spread over all classes (Szegedy et al., 2016), from 0 to 1.
    pub label_smoothing: f64,
    /// One per class; none weighs all the same.
    pub class_weights: Option<Vec<f32>>,
}

/// What the loss asks for from each photo of a batch.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// `(n, classes)`: target, smoothed and weighted.
    rows: Vec<f32>,
    classes: usize,
    /// What the sum over the batch is divided by.
    divisor: f64,
}

/// The loss of some photos.
pub struct Judged {
    /// Their share of the batch's loss, a scalar.
    pub loss: Tensor,
    /// Photos whose most likely class is the wanted one, a scalar.
    pub correct: Tensor,
    /// Of the batch's loss by the logits, `(n, classes)`.
    pub gradient: Tensor,
}

impl Loss {
    /// `targets` are the wanted probabilities `(n, classes)`, row-major.
    ///
    /// As in PyTorch, class weights multiply the logarithms, smoothing included, and the sum is divided by the weights of
    /// the targets: `cross_entropy(…, weight, label_smoothing)` for targets that are one class each.
    pub fn wanted(&self, targets: &[f32], classes: usize) -> Wanted {
        let spread = (self.label_smoothing / classes as f64) as f32;
        let kept = (1.0 - self.label_smoothing) as f32;
        let weight = |index: usize| self.class_weights.as_ref().map_or(1.0, |weights| weights[index % classes]);
        let rows = targets.iter().enumerate().map(|(index, target)| (kept * target + spread) * weight(index)).collect();
        let weights = targets.iter().enumerate().map(|(index, target)| f64::from(target * weight(index)));
        Wanted { rows, classes, divisor: weights.sum::<f64>().max(f64::MIN_POSITIVE) }
    }
}

impl Wanted {
    /// Judges the photos from number `first` on by their `logits`, `(n, classes)`.
    pub fn judge(&self, logits: &Tensor, first: usize, labels: &[u32]) -> Result<Judged> {
        let logits = logits.detach();
        let (count, classes) = logits.dims2()?;
        let range = first * classes..(first + count) * classes;
        if classes != self.classes || range.end > self.rows.len() || labels.len() != count {
            candle_core::bail!("{count} rows of {classes} logits do not fit targets of {} classes", self.classes);
        }
        let device = logits.device();
        let wanted = Tensor::from_slice(&self.rows[range], (count, classes), device)?;
        let labels = Tensor::from_slice(labels, count, device)?;
        let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?)?;
        let normalizer = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
        let logarithms = shifted.broadcast_sub(&normalizer)?;
        let loss = ((&wanted * logarithms)?.sum_all()? * (-1.0 / self.divisor))?;
        let mass = wanted.sum_keepdim(D::Minus1)?;
        let gradient = ((ops::softmax(&logits)?.broadcast_mul(&mass)? - wanted)? * (1.0 / self.divisor))?;
        let correct = logits.argmax(D::Minus1)?.eq(&labels)?.to_dtype(DType::F32)?.sum_all()?;
        Ok(Judged { loss, correct, gradient })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    const LOGITS: [[f32; 3]; 2] = [[1.0, 2.0, 3.0], [0.5, -1.0, 4.0]];

    fn judged(loss: &Loss, logits: &[[f32; 3]; 2], targets: &[f32]) -> Result<(f64, f64, Vec<Vec<f32>>)> {
        let logits = Tensor::new(logits, &Device::Cpu)?;
        let judged = loss.wanted(targets, 3).judge(&logits, 0, &[0, 2])?;
        let scalar = |tensor: Tensor| Ok::<_, candle_core::Error>(f64::from(tensor.to_scalar::<f32>()?));
        Ok((scalar(judged.loss)?, scalar(judged.correct)?, judged.gradient.to_vec2()?))
    }

    #[test]
    fn loss_is_that_of_pytorch() -> Result<()> {
        // torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2]), weight=[1, 2, .5], label_smoothing=.1), and without.
        let hard = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        let plain = Loss { label_smoothing: 0.0, class_weights: None };
        let weighed = Loss { label_smoothing: 0.1, class_weights: Some(vec![1.0, 2.0, 0.5]) };
        let (loss, correct, _) = judged(&plain, &LOGITS, &hard)?;
        assert!((loss - 1.221_937_8).abs() < 1e-6, "{loss}");
        assert_eq!(correct, 1.0);
        let (loss, ..) = judged(&weighed, &LOGITS, &hard)?;
        assert!((loss - 1.878_857).abs() < 1e-6, "{loss}");
        Ok(())
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences_for_soft_targets_too() -> Result<()> {
        let loss = Loss { label_smoothing: 0.2, class_weights: Some(vec![1.0, 2.0, 0.5]) };
        let soft = [0.7, 0.3, 0.0, 0.0, 0.25, 0.75];
        let (_, _, gradient) = judged(&loss, &LOGITS, &soft)?;
        for (row, column) in (0..6).map(|index| (index / 3, index % 3)) {
            let moved = |by: f32| {
                let mut logits = LOGITS;
                logits[row][column] += by;
                judged(&loss, &logits, &soft).map(|(loss, ..)| loss)
            };
            let difference = (moved(1e-2)? - moved(-1e-2)?) / 2e-2;
            let ours = f64::from(gradient[row][column]);
            assert!((ours - difference).abs() < 1e-4, "{ours} instead of {difference}");
        }
        Ok(())
    }

    #[test]
    fn huge_logits_have_a_finite_loss() -> Result<()> {
        let plain = Loss { label_smoothing: 0.0, class_weights: None };
        let (loss, _, gradient) = judged(&plain, &[[-1e30, 1e30, 0.0], [0.0; 3]], &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0])?;
        assert!(loss.is_finite() && gradient.iter().flatten().all(|value| value.is_finite()));
        Ok(())
    }
}
