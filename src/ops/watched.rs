//! A layer's weight that keeps account of what it is multiplied with: means of inputs, which tell what rounding it costs, and
//! their range.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{D, DType, Result, Tensor};

use super::composed::Windows;
use super::{Activation, Weight, Window};

/// Sums over all the rows that a weight was multiplied with. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct LayerInputs {
    sums: Arc<Mutex<Sums>>,
}

#[derive(Debug, Default)]
struct Sums {
    rows: usize,
    values: Vec<f64>,
    squares: Vec<f64>,
    /// The least and the most of all.
    range: [f64; 2],
}

/// Per input of a layer, over positions of its window and then inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct InputMeans {
    pub values: Vec<f32>,
    pub squares: Vec<f32>,
    /// The least and the most of all inputs, and of zero.
    pub range: [f32; 2],
}

impl LayerInputs {
    /// None before the first row.
    pub fn means(&self) -> Option<InputMeans> {
        let sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let mean = |values: &[f64]| values.iter().map(|sum| (sum / sums.rows as f64) as f32).collect();
        let range = sums.range.map(|end| end as f32);
        (sums.rows > 0).then(|| InputMeans { values: mean(&sums.values), squares: mean(&sums.squares), range })
    }

    /// Adds the rows of `places` tensors of shape `(…, inputs)`, which lie one after the other in a row of the weight.
    fn add(&self, places: &[Tensor]) -> Result<()> {
        let mut rows = 0;
        let (mut values, mut squares) = (Vec::new(), Vec::new());
        let [mut least, mut most] = [0.0, 0.0];
        for place in places {
            let place = place.flatten_to(D::Minus2)?.to_dtype(DType::F64)?;
            rows = place.dim(0)?;
            values.extend(place.sum(0)?.to_vec1::<f64>()?);
            squares.extend(place.sqr()?.sum(0)?.to_vec1::<f64>()?);
            let [low, high] = [place.min_all()?, place.max_all()?].map(|end| end.to_scalar::<f64>());
            (least, most) = (low?.min(least), high?.max(most));
        }
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        sums.values.resize(values.len(), 0.0);
        sums.squares.resize(values.len(), 0.0);
        sums.rows += rows;
        sums.range = [least.min(sums.range[0]), most.max(sums.range[1])];
        sums.values.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        sums.squares.iter_mut().zip(squares).for_each(|(sum, square)| *sum += square);
        Ok(())
    }
}

/// For inference alone.
#[derive(Debug)]
pub struct WatchedWeight {
    pub weight: Box<Weight>,
    pub inputs: LayerInputs,
}

impl WatchedWeight {
    pub(super) fn linear(
        &self,
        x: &Tensor,
        bias: &Tensor,
        activation: Activation,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        self.inputs.add(std::slice::from_ref(x))?;
        self.weight.linear(x, bias, activation, residual)
    }

    pub(super) fn conv(
        &self,
        x: &Tensor,
        bias: &Tensor,
        window: Window,
        activation: Activation,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let windows = Windows::new(x, window, 0.0)?;
        let places: Vec<Tensor> =
            windows.places().map(|(row, column)| windows.at(row, column)).collect::<Result<_>>()?;
        self.inputs.add(&places)?;
        self.weight.conv(x, bias, window, activation, residual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::random;

    /// What a product gives on average is the product with the average input, which holds for no other order of inputs.
    #[test]
    fn the_mean_of_inputs_gives_the_mean_of_outputs() -> Result<()> {
        let bias = random(&[7], 3)?;
        for window in [Window::centered(1, 1), Window::centered(3, 2)] {
            let dims = [window.kernel, window.kernel, 5, 7];
            let weight = random(&dims, 2)?;
            let inputs = LayerInputs::default();
            let watched = WatchedWeight { weight: Box::new(Weight::Plain(weight.clone())), inputs: inputs.clone() };
            assert_eq!(inputs.means(), None);
            let mut outputs = Vec::new();
            for seed in [1, 4] {
                let x = random(&[2, 6, 9, 5], seed)?;
                outputs.push(watched.conv(&x, &bias, window, Activation::None, None)?.flatten_to(2)?);
            }
            let outputs = Tensor::cat(&outputs, 0)?;
            let means = inputs.means().unwrap();
            let mean = Tensor::new(means.values.as_slice(), bias.device())?.unsqueeze(0)?;
            let expected = mean.matmul(&weight.flatten_to(2)?)?.broadcast_add(&bias)?.squeeze(0)?.to_vec1::<f32>()?;
            let ours = outputs.mean(0)?.to_vec1::<f32>()?;
            assert!(ours.iter().zip(&expected).all(|(one, other)| (one - other).abs() < 1e-4), "{ours:?} {expected:?}");
            let all = Tensor::cat(&[random(&[2, 6, 9, 5], 1)?, random(&[2, 6, 9, 5], 4)?], 0)?;
            let ends = [all.min_all()?.to_scalar::<f32>()?, all.max_all()?.to_scalar::<f32>()?];
            // Of windows two pixels apart only some are seen.
            assert!(window.stride > 1 || means.range == ends, "{:?} {ends:?}", means.range);
            assert!(means.squares.iter().zip(&means.values).all(|(square, mean)| *square > mean * mean));
        }
        Ok(())
    }
}
