//! Global response norm of ConvNeXt V2: channels compete by their norm over the image.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::backward::{self, read, sum_in_order};
use super::{elements, has_kernel, output};

/// From the ConvNeXt V2 reference code.
const EPSILON: f32 = 1e-6;

/// `x + weight · x · norm / (mean of norms + ε) + bias`, where `norm` is a channel's L2 norm over height and width.
///
/// `x` has shape `(n, h, w, channels)`, `weight` and `bias` `(channels)`.
pub fn global_response_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if !has_kernel("global-response-norm", x) {
        return composed(x, weight, bias);
    }
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, GlobalResponseNorm)
}

/// The same composed of candle operations.
pub(crate) fn composed(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    // So small that it changes no norm, and the root of a channel of zeros still has a slope.
    const TINY: f64 = 1e-30;
    let norms = (x.sqr()?.sum_keepdim((1, 2))? + TINY)?.sqrt()?;
    let ratios = norms.broadcast_div(&(norms.mean_keepdim(3)? + f64::from(EPSILON))?)?;
    x + x.broadcast_mul(&ratios)?.broadcast_mul(weight)?.broadcast_add(bias)?
}

struct GlobalResponseNorm;

impl CustomOp3 for GlobalResponseNorm {
    fn name(&self) -> &'static str {
        "global-response-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, height, width, channels) = x_layout.shape().dims4()?;
        let (weight, bias) = (elements(weight, weight_layout)?, elements(bias, bias_layout)?);
        if weight.len() != channels || bias.len() != channels {
            candle_core::bail!("global response norm of {} channels was given {channels}", weight.len());
        }
        let mut result = elements(x, x_layout)?.to_vec();
        result.par_chunks_mut((height * width * channels).max(1)).for_each(|image| {
            let Norms { ratios, .. } = Norms::of(image, width * channels, channels);
            let scales: Vec<f32> = ratios.iter().zip(weight).map(|(ratio, weight)| 1.0 + weight * ratio).collect();
            image.par_chunks_mut(width * channels).for_each(|row| {
                vectorized!(|| {
                    for pixel in row.chunks_exact_mut(channels) {
                        for ((value, scale), bias) in pixel.iter_mut().zip(&scales).zip(bias) {
                            *value = *value * scale + bias;
                        }
                    }
                });
            });
        });
        Ok(output(result, x_layout.shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (_, height, width, channels) = x.dims4()?;
        read([x, weight, &upstream.contiguous()?], |[inputs, weights, upstream]| {
            let image = (height * width * channels).max(1);
            let mut result = upstream.to_vec();
            let parts = result.par_chunks_mut(image).zip(inputs.par_chunks(image));
            let parts = parts.map(|(gradients, image)| backward_image(gradients, image, width * channels, weights));
            let (of_weight, of_bias): (Vec<_>, Vec<_>) = parts.unzip();
            let of_x = x.track_op().then(|| backward::gradient(result, x)).transpose()?;
            let sums = |parts, argument: &Tensor| {
                argument.track_op().then(|| backward::gradient(sum_in_order(parts, channels), argument)).transpose()
            };
            Ok((of_x, sums(of_weight, weight)?, sums(of_bias, bias)?))
        })
    }
}

/// The norms of one image's channels.
struct Norms {
    norms: Vec<f32>,
    /// Their mean, and ε.
    mean: f32,
    /// `norm / mean`.
    ratios: Vec<f32>,
}

impl Norms {
    fn of(image: &[f32], row_length: usize, channels: usize) -> Self {
        let squares = sum_products(image, image, row_length, channels);
        let norms: Vec<f32> = squares.into_iter().map(f32::sqrt).collect();
        let mean = norms.iter().sum::<f32>() / channels as f32 + EPSILON;
        let ratios = norms.iter().map(|norm| norm / mean).collect();
        Self { norms, mean, ratios }
    }
}

/// The sum of products of each channel. Rows are summed in parallel, then in their order.
fn sum_products(one: &[f32], other: &[f32], row_length: usize, channels: usize) -> Vec<f32> {
    let rows = one.par_chunks(row_length.max(1)).zip(other.par_chunks(row_length.max(1)));
    let parts = rows.map(|(one, other)| {
        let mut sums = vec![0.0; channels];
        vectorized!(|| {
            for (one, other) in one.chunks_exact(channels).zip(other.chunks_exact(channels)) {
                sums.iter_mut().zip(one).zip(other).for_each(|((sum, one), other)| *sum += one * other);
            }
        });
        sums
    });
    sum_in_order(parts.collect(), channels)
}

/// Turns the gradient of one image's result into that of the image; returns those of weight and bias.
fn backward_image(gradients: &mut [f32], image: &[f32], row_length: usize, weight: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let channels = weight.len();
    let Norms { norms, mean, ratios } = Norms::of(image, row_length, channels);
    let products = sum_products(gradients, image, row_length, channels);
    let of_bias = backward::column_sums(gradients, channels);
    // Every norm is divided by the mean, which all norms raise.
    let pull = products.iter().zip(weight).zip(&norms).map(|((product, weight), norm)| product * weight * norm);
    let pull = pull.sum::<f32>() / (channels as f32 * mean * mean);
    let mut of_inputs = vec![0.0; channels];
    for (channel, factor) in of_inputs.iter_mut().enumerate() {
        let of_norm = products[channel] * weight[channel] / mean - pull;
        // A channel of zeros has no direction to grow in.
        *factor = if norms[channel] > 0.0 { of_norm / norms[channel] } else { 0.0 };
    }
    let scales: Vec<f32> = ratios.iter().zip(weight).map(|(ratio, weight)| 1.0 + weight * ratio).collect();
    gradients.par_chunks_mut(row_length).zip(image.par_chunks(row_length)).for_each(|(gradients, image)| {
        vectorized!(|| {
            for (gradients, image) in gradients.chunks_exact_mut(channels).zip(image.chunks_exact(channels)) {
                for channel in 0..channels {
                    gradients[channel] = gradients[channel] * scales[channel] + image[channel] * of_inputs[channel];
                }
            }
        });
    });
    let of_weight = products.iter().zip(&ratios).map(|(product, ratio)| product * ratio).collect();
    (of_weight, of_bias)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::ops::testing::{assert_close, assert_gradients, random, views};

    #[test]
    fn equals_its_composed_form() -> Result<()> {
        for x in views(&[3, 5, 7, 21])? {
            let (weight, bias) = (random(&[21], 1)?, random(&[21], 2)?);
            assert_close(&global_response_norm(&x, &weight, &bias)?, &composed(&x, &weight, &bias)?, 1e-5)?;
        }
        Ok(())
    }

    #[test]
    fn gradients_are_right() -> Result<()> {
        let shapes: [&[usize]; 3] = [&[3, 5, 4, 21], &[21], &[21]];
        assert_gradients(&shapes, |args| global_response_norm(&args[0], &args[1], &args[2]))
    }

    #[test]
    fn a_channel_of_zeros_has_finite_gradients() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let mask = Tensor::new(&[[[[1f32, 0.0, 1.0]]]], &Device::Cpu)?;
            let x = Var::from_tensor(&random(&[1, 2, 2, 3], 1)?.broadcast_mul(&mask)?.to_dtype(dtype)?)?;
            let (weight, bias) = (random(&[3], 2)?.to_dtype(dtype)?, random(&[3], 3)?.to_dtype(dtype)?);
            let gradients = global_response_norm(&x, &weight, &bias)?.sum_all()?.backward()?;
            let gradient = gradients.get(&x).expect("it is tracked").to_dtype(DType::F32)?;
            assert!(gradient.flatten_all()?.to_vec1::<f32>()?.iter().all(|value| value.is_finite()));
        }
        Ok(())
    }
}
