//! Convolution with windows of 3×3 a pixel apart by Winograd's minimal filtering: a tile of 2×2 results is sixteen products
//! instead of 36, of sums of the tile's 4×4 pixels with sums of the weights. F(2×2, 3×3) in Lavin and Gray, "Fast Algorithms
//! for Convolutional Neural Networks" (2016), whose sums have no factor but ½. With 256 channels rounding costs
//! less than in the windows' own products, whose sums are nine times as long. A pixel that is no number, or infinite, reaches
//! the results that read it, and may reach their neighbours in the tile.

mod pass;

use candle_core::Device;
use rayon::prelude::*;

pub use pass::Part;

use super::conv::ConvWeight;
use super::matrix::{Form, Line, PANEL, PackedMatrix, has_matrix_unit, lines};
use crate::ops::window::Geometry;
use crate::ops::{Activation, Window, uses_kernel};
use pass::Pass;

/// Pixels along a side of what a tile of 2×2 results reads.
const REACH: usize = 4;
/// Places of a tile, a product for each.
pub const PLACES: usize = REACH * REACH;
/// Weights of a window for one input and output.
const WINDOW: usize = 9;
/// What each of the sums along a side of a filter takes of its three weights.
const FILTER: [[f32; 3]; REACH] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
/// What each place takes of the weights of a window, rows first.
const SHARES: [[f32; WINDOW]; PLACES] = {
    let mut shares = [[0.0; WINDOW]; PLACES];
    let mut index = 0;
    while index < PLACES * WINDOW {
        let (place, position) = (index / WINDOW, index % WINDOW);
        shares[place][position] = FILTER[place / REACH][position / 3] * FILTER[place % REACH][position % 3];
        index += 1;
    }
    shares
};

/// The weight of windows as sums of it: for each place of a tile a matrix of inputs and outputs, one below the other.
#[derive(Debug)]
pub struct WinogradWeight(PackedMatrix);

impl WinogradWeight {
    /// Of a matrix of [`PLACES`] · inputs rows, each [`filtered`].
    pub fn new(places: PackedMatrix) -> Self {
        Self(places)
    }

    /// Of a weight of shape `(3, 3, inputs, outputs)`.
    pub fn from_values(weight: &[f32], outputs: usize) -> Self {
        let plane = weight.len() / WINDOW;
        let inputs = plane / outputs.max(1);
        let places = PackedMatrix::filled(
            Form::Lines,
            PLACES * inputs,
            outputs,
            #[inline(always)]
            |first, first_row, block| {
                let width = PANEL.min(outputs - first);
                for (index, line) in block.iter_mut().enumerate() {
                    let (place, input) = ((first_row + index) / inputs, (first_row + index) % inputs);
                    *line = Line([0.0; PANEL]);
                    for (weights, share) in weight.chunks_exact(plane).zip(SHARES[place]) {
                        if share != 0.0 {
                            let weights = &weights[input * outputs + first..][..width];
                            line.0.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += share * weight);
                        }
                    }
                }
            },
        );
        Self(places)
    }

    /// Of the windows over a result's gradient that give the input's: the same weight with its places in reverse, and inputs and
    /// outputs exchanged.
    pub fn of_gradient(weight: &[f32], outputs: usize) -> Self {
        let plane = weight.len() / WINDOW;
        let inputs = plane / outputs;
        let mut turned = vec![0.0; weight.len()];
        turned.par_chunks_exact_mut(plane).zip(weight.par_chunks_exact(plane).rev()).for_each(|(turned, weight)| {
            for (output, row) in turned.chunks_exact_mut(inputs).enumerate() {
                row.iter_mut().zip(weight.chunks_exact(outputs)).for_each(|(value, weights)| *value = weights[output]);
            }
        });
        Self::from_values(&turned, inputs)
    }

    /// One without values, of which nothing but its shape and size is asked.
    pub fn outline(inputs: usize, outputs: usize) -> Self {
        Self(PackedMatrix::outline(PLACES * inputs, outputs))
    }

    fn inputs(&self) -> usize {
        self.0.depth() / PLACES
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

/// Whether windows with a weight of so many inputs and outputs are faster this way, on this machine. A weight takes 16 places of
/// nine: those of a ResNet's last stage, over 7×7 pixels, would gain least and take most. It was not measured with fewer
/// channels, nor beside a matrix unit.
pub fn suits(window: Window, inputs: usize, outputs: usize) -> bool {
    const LEAST: usize = 16;
    const MOST: usize = 256 * 256;
    let fits = inputs.min(outputs) >= LEAST && inputs * outputs <= MOST;
    window.kernel == 3 && window.stride == 1 && fits && !has_matrix_unit() && uses_kernel("winograd", &Device::Cpu)
}

/// The sum of a window's weights, rows first, that is multiplied at a place.
pub fn filtered(window: &[f32], place: usize) -> f32 {
    window.iter().zip(SHARES[place]).fold(0.0, |sum, (weight, share)| sum + share * weight)
}

impl ConvWeight for WinogradWeight {
    fn shape(&self) -> [usize; 2] {
        [self.inputs() * WINDOW, self.0.columns()]
    }

    fn conv_values(
        &self,
        x: &[f32],
        geometry: &Geometry,
        bias: &[f32],
        activation: Activation,
        residual: Option<&[f32]>,
    ) -> Vec<f32> {
        let Window { kernel, stride, .. } = geometry.window;
        assert_eq!([kernel, stride, geometry.channels], [3, 1, self.inputs()], "windows of 3×3 a pixel apart");
        let outputs = self.0.columns();
        assert_eq!(bias.len(), outputs, "a bias per output");
        Pass::over(x, geometry, self, &lines(bias), activation, residual).values()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Result, Tensor, Var};

    use super::*;
    use crate::ops::packed::conv;
    use crate::ops::testing::{assert_close, random, views};
    use crate::ops::{self, Padding, Weight, with_elements};

    fn window(padding: usize) -> Window {
        Window { kernel: 3, stride: 1, padding: Padding::Each(padding) }
    }

    fn packed(weight: &Tensor) -> Result<WinogradWeight> {
        with_elements([weight], |elements| Ok(WinogradWeight::from_values(elements[0], weight.dims()[3])))
    }

    #[test]
    fn equals_its_composed_form() -> Result<()> {
        let same = Window { kernel: 3, stride: 1, padding: Padding::Same };
        for window in [window(1), window(0), window(2), same] {
            // Sides of an odd number of results, fewer than a tile, more tiles than are computed together; channels and outputs
            // that fill registers and panels, and that do not.
            for (shape, outputs) in
                [([2, 8, 6, 32], 64), ([3, 9, 7, 5], 18), ([1, 3, 3, 70], 97), ([2, 62, 41, 19], 70)]
            {
                for x in views(&shape)? {
                    let (weight, bias) = (random(&[3, 3, shape[3], outputs], 2)?, random(&[outputs], 3)?);
                    let packed = packed(&weight)?;
                    let oracle = ops::conv::composed(&x, &weight, &bias, window, Activation::None, None)?;
                    assert_close(&conv(&x, &packed, &bias, window, Activation::None, None)?, &oracle, 2e-5)?;
                    let residual = random(oracle.dims(), 4)?;
                    let sum = (oracle + residual.clone())?;
                    let ours = conv(&x, &packed, &bias, window, Activation::Relu, Some(&residual))?;
                    assert_close(&ours, &sum.relu()?, 2e-5)?;
                    let ours = conv(&x, &packed, &bias, window, Activation::Silu, Some(&residual))?;
                    assert_close(&ours, &sum.silu()?, 2e-5)?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn gives_the_gradient_of_the_input() -> Result<()> {
        for padding in [0, 1, 2] {
            let (window, back) = (window(padding), window(2 - padding));
            let x = Var::from_tensor(&random(&[2, 7, 6, 37], 1)?)?;
            let weight = random(&[3, 3, 37, 70], 2)?;
            let y = ops::conv::composed(&x, &weight, &random(&[70], 3)?, window, Activation::None, None)?;
            let upstream = random(y.dims(), 4)?;
            let gradients = (&y * &upstream)?.sum_all()?.backward()?;
            let of_gradient = with_elements([&weight], |elements| Ok(WinogradWeight::of_gradient(elements[0], 70)))?;
            let zeros = Tensor::zeros(37, DType::F32, &Device::Cpu)?;
            let ours = conv(&upstream, &of_gradient, &zeros, back, Activation::None, None)?;
            assert_close(&ours, gradients.get(&x).unwrap(), 5e-5)?;
        }
        Ok(())
    }

    #[test]
    fn sums_of_a_file_are_those_of_a_tensor() -> Result<()> {
        let (inputs, outputs) = (6, 19);
        let weight = random(&[3, 3, inputs, outputs], 2)?;
        let of_file = weight.permute((3, 2, 0, 1))?.flatten_all()?.to_vec1::<f32>()?;
        let places = PackedMatrix::new(PLACES * inputs, outputs, |row, output| {
            filtered(&of_file[(output * inputs + row % inputs) * WINDOW..][..WINDOW], row / inputs)
        });
        let of_tensor = packed(&weight)?;
        for panel in 0..places.panels() {
            let lines = places.panel(panel).iter().zip(of_tensor.0.panel(panel));
            lines.for_each(|(one, other)| assert_eq!(one.0, other.0));
        }
        Ok(())
    }

    #[test]
    fn an_image_has_the_same_result_in_any_company() -> Result<()> {
        let (x, bias) = (random(&[5, 13, 14, 33], 1)?, random(&[70], 3)?);
        let weight = packed(&random(&[3, 3, 33, 70], 2)?)?;
        let together = conv(&x, &weight, &bias, window(1), Activation::Gelu, None)?;
        for threads in [1, 4, 16] {
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(candle_core::Error::wrap)?;
            for (first, count) in [(0, 1), (1, 3), (4, 1)] {
                let some = x.narrow(0, first, count)?;
                let alone = pool.install(|| conv(&some, &weight, &bias, window(1), Activation::Gelu, None))?;
                let part = together.narrow(0, first, count)?.flatten_all()?.to_vec1::<f32>()?;
                assert_eq!(alone.flatten_all()?.to_vec1::<f32>()?, part);
            }
        }
        Ok(())
    }

    /// Pixels of one sign, as after a ReLU, whose sums cancel: as near to sums in f64 as the windows' own products.
    #[test]
    fn is_as_exact_as_windows() -> Result<()> {
        let (x, bias) = (random(&[1, 14, 14, 256], 1)?.abs()?, random(&[64], 3)?);
        let weight = random(&[3, 3, 256, 64], 2)?;
        let exact = [&x, &weight, &bias].map(|tensor| tensor.to_dtype(DType::F64));
        let [exact_x, exact_weight, exact_bias] = exact;
        let exact = ops::conv::composed(&exact_x?, &exact_weight?, &exact_bias?, window(1), Activation::None, None)?;
        let error = |ours: Tensor| (ours.to_dtype(DType::F64)? - &exact)?.sqr()?.mean_all()?.sqrt()?.to_scalar::<f64>();
        let windows = PackedMatrix::from_tensor(&weight)?;
        let theirs = error(conv(&x, &windows, &bias, window(1), Activation::None, None)?)?;
        let ours = error(conv(&x, &packed(&weight)?, &bias, window(1), Activation::None, None)?)?;
        assert!(ours < theirs && ours > 0.0, "{ours} {theirs}");
        Ok(())
    }

    #[test]
    fn what_is_not_a_number_reaches_all_that_read_it() -> Result<()> {
        let mut values = random(&[1, 6, 6, 32], 1)?.flatten_all()?.to_vec1::<f32>()?;
        values[(2 * 6 + 3) * 32 + 5] = f32::NAN;
        let x = Tensor::from_vec(values, (1, 6, 6, 32), &Device::Cpu)?;
        let weight = packed(&random(&[3, 3, 32, 32], 2)?)?;
        let result = conv(&x, &weight, &random(&[32], 3)?, window(1), Activation::Relu, None)?;
        let result = result.squeeze(0)?.to_vec3::<f32>()?;
        assert!(result[1..4].iter().all(|row| row[2..5].iter().flatten().all(|value| value.is_nan())));
        assert!(result[5].iter().flatten().all(|value| value.is_finite()));
        Ok(())
    }

    #[test]
    fn a_weight_of_other_channels_or_windows_is_an_error() -> Result<()> {
        let (x, bias) = (random(&[1, 6, 6, 5], 1)?, random(&[7], 3)?);
        let weight = packed(&random(&[3, 3, 6, 7], 2)?)?;
        assert!(conv(&x, &weight, &bias, window(1), Activation::None, None).is_err());
        let (weight, x) = (Weight::Winograd(weight), random(&[1, 6, 6, 6], 1)?);
        let of = |window| weight.conv(&x, &bias, window, Activation::None, None);
        assert!(of(window(1)).is_ok() && of(Window::centered(3, 2)).is_err());
        let x = random(&[1, 6, 6, 54], 1)?;
        assert!(weight.conv(&x, &bias, Window::centered(1, 1), Activation::None, None).is_err());
        Ok(())
    }
}
