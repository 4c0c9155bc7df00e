//! The cross entropy of a batch, and how far it is from what a teacher answers, with the gradient in closed form: no graph
//! is kept for it.

use candle_core::{D, DType, Result, Tensor};

use super::config::Distill;
use crate::ops;

/// How answers are weighed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loss {
    /// The share of the target that is spread over all classes (Szegedy et al., 2016), from 0 to 1.
    pub label_smoothing: f64,
    /// One per class; none weighs all the same.
    pub class_weights: Option<Vec<f32>>,
    /// What is learned from a teacher, if there is one.
    pub soft: Option<SoftLoss>,
}

/// How a teacher's answers are learned (Hinton et al., "Distilling the knowledge in a neural network", 2015): the loss is
/// `(1 - weight)` of the cross entropy and `weight · temperature²` of the divergence of the network's probabilities at this
/// temperature from the teacher's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SoftLoss {
    pub temperature: f64,
    pub weight: f64,
    /// What the difference of similarities counts, see [`super::similarity`]; none does not look at features.
    pub features: Option<f64>,
}

impl From<&Distill> for SoftLoss {
    fn from(distill: &Distill) -> Self {
        let Distill { temperature, weight, features, .. } = *distill;
        Self { temperature, weight, features }
    }
}

/// What the loss asks for from each photo of a batch.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// `(n, classes)`: target, smoothed and weighted.
    rows: Vec<f32>,
    classes: usize,
    /// What the sum over the batch is divided by.
    divisor: f64,
    soft: Option<Soft>,
}

/// What a teacher answers to each photo of a batch.
#[derive(Debug, Clone)]
struct Soft {
    /// Probabilities `(n, classes)` at the temperature.
    rows: Vec<f32>,
    /// By photo, the sum of `p ln p`.
    negentropy: Vec<f64>,
    classes: usize,
    loss: SoftLoss,
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
    /// `targets` are the wanted probabilities `(n, classes)`, row-major; `answers` are the teacher's at the loss's temperature.
    ///
    /// As in PyTorch, class weights multiply the logarithms, smoothing included, and the sum is divided by the weights of
    /// the targets: `cross_entropy(…, weight, label_smoothing)` for targets that are one class each.
    pub fn wanted(&self, targets: &[f32], answers: Option<&[f32]>, classes: usize) -> Wanted {
        let spread = (self.label_smoothing / classes as f64) as f32;
        let kept = (1.0 - self.label_smoothing) as f32;
        let weight = |index: usize| self.class_weights.as_ref().map_or(1.0, |weights| weights[index % classes]);
        let rows = targets.iter().enumerate().map(|(index, target)| (kept * target + spread) * weight(index)).collect();
        let weights = targets.iter().enumerate().map(|(index, target)| f64::from(target * weight(index)));
        let soft = self.soft.zip(answers).map(|(loss, answers)| Soft::new(loss, answers, classes));
        Wanted { rows, classes, divisor: weights.sum::<f64>().max(f64::MIN_POSITIVE), soft }
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
        let loss = ((&wanted * log_softmax(&logits)?)?.sum_all()? * (-1.0 / self.divisor))?;
        let mass = wanted.sum_keepdim(D::Minus1)?;
        let gradient = ((ops::softmax(&logits)?.broadcast_mul(&mass)? - wanted)? * (1.0 / self.divisor))?;
        let correct = logits.argmax(D::Minus1)?.eq(&labels)?.to_dtype(DType::F32)?.sum_all()?;
        let Some(soft) = &self.soft else { return Ok(Judged { loss, correct, gradient }) };
        let (divergence, of_divergence) = soft.judge(&logits, first)?;
        let share = 1.0 - soft.loss.weight;
        let (loss, gradient) = (((loss * share)? + divergence)?, ((gradient * share)? + of_divergence)?);
        Ok(Judged { loss, correct, gradient })
    }
}

impl Soft {
    fn new(loss: SoftLoss, answers: &[f32], classes: usize) -> Self {
        let term = |p: &f32| if *p > 0.0 { f64::from(*p) * f64::from(*p).ln() } else { 0.0 };
        let negentropy = answers.chunks_exact(classes).map(|row| row.iter().map(term).sum()).collect();
        Self { rows: answers.to_vec(), negentropy, classes, loss }
    }

    /// The weighted divergence of some photos as their share of the batch's mean, and its gradient by the `logits`.
    fn judge(&self, logits: &Tensor, first: usize) -> Result<(Tensor, Tensor)> {
        let SoftLoss { temperature, weight, .. } = self.loss;
        let count = logits.dim(0)?;
        let rows = &self.rows[first * self.classes..(first + count) * self.classes];
        let answers = Tensor::from_slice(rows, (count, self.classes), logits.device())?.to_dtype(logits.dtype())?;
        let logarithms = log_softmax(&(logits / temperature)?)?;
        let factor = weight * temperature * temperature / self.negentropy.len() as f64;
        let negentropy: f64 = self.negentropy[first..first + count].iter().sum();
        let loss = (&answers * &logarithms)?.sum_all()?.affine(-factor, factor * negentropy)?;
        let gradient = ((logarithms.exp()? - answers)? * (factor / temperature))?;
        Ok((loss, gradient))
    }
}

fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?)?;
    let normalizer = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    shifted.broadcast_sub(&normalizer)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    const LOGITS: [[f32; 3]; 2] = [[1.0, 2.0, 3.0], [0.5, -1.0, 4.0]];

    fn judged(loss: &Loss, logits: &[[f32; 3]; 2], targets: &[f32]) -> Result<(f64, f64, Vec<Vec<f32>>)> {
        let logits = Tensor::new(logits, &Device::Cpu)?;
        let judged = loss.wanted(targets, None, 3).judge(&logits, 0, &[0, 2])?;
        let scalar = |tensor: Tensor| Ok::<_, candle_core::Error>(f64::from(tensor.to_scalar::<f32>()?));
        Ok((scalar(judged.loss)?, scalar(judged.correct)?, judged.gradient.to_vec2()?))
    }

    #[test]
    fn loss_is_that_of_pytorch() -> Result<()> {
        // torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2]), weight=[1, 2, .5], label_smoothing=.1), and without.
        let hard = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        let plain = Loss::default();
        let weighed = Loss { label_smoothing: 0.1, class_weights: Some(vec![1.0, 2.0, 0.5]), soft: None };
        let (loss, correct, _) = judged(&plain, &LOGITS, &hard)?;
        assert!((loss - 1.221_937_8).abs() < 1e-6, "{loss}");
        assert_eq!(correct, 1.0);
        let (loss, ..) = judged(&weighed, &LOGITS, &hard)?;
        assert!((loss - 1.878_857).abs() < 1e-6, "{loss}");
        Ok(())
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences_for_soft_targets_too() -> Result<()> {
        let loss = Loss { label_smoothing: 0.2, class_weights: Some(vec![1.0, 2.0, 0.5]), soft: None };
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
        let plain = Loss::default();
        let (loss, _, gradient) = judged(&plain, &[[-1e30, 1e30, 0.0], [0.0; 3]], &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0])?;
        assert!(loss.is_finite() && gradient.iter().flatten().all(|value| value.is_finite()));
        Ok(())
    }

    const ANSWERS: [f32; 6] = [0.2, 0.5, 0.3, 0.0, 0.25, 0.75];

    fn soft(weight: f64) -> SoftLoss {
        SoftLoss { temperature: 3.0, weight, features: None }
    }

    /// `weight · T² · Σ p ln(p / q)` of both photos' mean, in plain numbers.
    fn divergence(logits: &[[f64; 3]; 2], SoftLoss { temperature, weight, .. }: SoftLoss) -> f64 {
        let of_row = |(row, answers): (&[f64; 3], &[f32])| -> f64 {
            let powers = row.map(|logit| (logit / temperature).exp());
            let sum: f64 = powers.iter().sum();
            let term = |(power, p): (&f64, &f32)| match f64::from(*p) {
                0.0 => 0.0,
                p => p * (p / (power / sum)).ln(),
            };
            powers.iter().zip(answers).map(term).sum()
        };
        weight * temperature * temperature * logits.iter().zip(ANSWERS.chunks(3)).map(of_row).sum::<f64>() / 2.0
    }

    #[test]
    fn the_divergence_from_a_teacher_is_that_of_the_formula_and_its_gradient_that_of_finite_differences() -> Result<()>
    {
        let logits = LOGITS.map(|row| row.map(f64::from));
        let loss = soft(0.7);
        let parts = Soft::new(loss, &ANSWERS, 3);
        let (mut sum, mut gradient) = (0.0, Vec::new());
        // Photo by photo, as micro-batches of one.
        for (row, logits) in logits.iter().enumerate() {
            let (one, of_one) = parts.judge(&Tensor::new(&[*logits], &Device::Cpu)?, row)?;
            sum += one.to_scalar::<f64>()?;
            gradient.extend(of_one.to_vec2::<f64>()?);
        }
        // Of the answers as f32 numbers, whose sum is 1 to seven digits.
        assert!((sum - divergence(&logits, loss)).abs() < 1e-7, "{sum}");
        for (row, column) in (0..6).map(|index| (index / 3, index % 3)) {
            let moved = |by: f64| {
                let mut logits = logits;
                logits[row][column] += by;
                divergence(&logits, loss)
            };
            let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let ours: f64 = gradient[row][column];
            assert!((ours - difference).abs() < 1e-7, "{ours} instead of {difference}");
        }
        Ok(())
    }

    #[test]
    fn labels_and_teacher_share_the_loss_and_the_gradient_is_that_of_its_graph() -> Result<()> {
        let hard = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        let plain = Loss { label_smoothing: 0.1, class_weights: Some(vec![1.0, 2.0, 0.5]), soft: None };
        let taught = Loss { soft: Some(soft(0.7)), ..plain.clone() };
        let logits = candle_core::Var::new(&LOGITS, &Device::Cpu)?;
        let judged = taught.wanted(&hard, Some(&ANSWERS), 3).judge(logits.as_tensor(), 0, &[0, 2])?;
        let alone = plain.wanted(&hard, None, 3);
        let labels = alone.judge(logits.as_tensor(), 0, &[0, 2])?.loss.to_scalar::<f32>()?;
        let expected = 0.3 * f64::from(labels) + divergence(&LOGITS.map(|row| row.map(f64::from)), soft(0.7));
        assert!((f64::from(judged.loss.to_scalar::<f32>()?) - expected).abs() < 1e-5);
        // The same composed of operations that candle differentiates.
        let log = |temperature: f64| {
            let cooled = (logits.as_tensor() / temperature)?;
            cooled.broadcast_sub(&cooled.exp()?.sum_keepdim(1)?.log()?)
        };
        let rows = Tensor::from_slice(&alone.rows, (2, 3), &Device::Cpu)?;
        let answers = Tensor::from_slice(&ANSWERS, (2, 3), &Device::Cpu)?;
        let of_labels = ((rows * log(1.0)?)?.sum_all()? * (-0.3 / alone.divisor))?;
        let composed = (of_labels + ((answers * log(3.0)?)?.sum_all()? * (-0.7 * 9.0 / 2.0))?)?;
        let gradients = composed.backward()?;
        let graph = gradients.get(logits.as_tensor()).unwrap().to_vec2::<f32>()?;
        for (ours, graph) in judged.gradient.to_vec2::<f32>()?.iter().flatten().zip(graph.iter().flatten()) {
            assert!((ours - graph).abs() < 1e-5, "{ours} instead of {graph}");
        }
        // What is not asked is not learned from.
        let none = taught.wanted(&hard, None, 3).judge(logits.as_tensor(), 0, &[0, 2])?;
        assert_eq!(none.loss.to_scalar::<f32>()?, labels);
        Ok(())
    }
}
