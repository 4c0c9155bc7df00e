//! Squeeze-and-excite: each channel of an image is scaled by a gate computed from the means of all its channels.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, Var};
use rayon::prelude::*;

use super::backward::{add, gradient, read};
use super::{
    Activation, Weight, Window, elements, global_average_pool, gradients_of, has_kernel, output, packed, space, written,
};

/// The two linear layers of a gate, `(channels → squeezed → channels)`, and what follows each.
#[derive(Debug)]
pub struct Gate {
    /// `channels` inputs, `squeezed` outputs.
    pub reduce: (Weight, Tensor),
    /// `squeezed` inputs, `channels` outputs.
    pub expand: (Weight, Tensor),
    pub inner: Activation,
    pub outer: Activation,
}

/// `x · gate(mean of x over height and width)`; `x` has shape `(n, h, w, channels)`.
pub fn squeeze_excite(x: &Tensor, gate: &Gate) -> Result<Tensor> {
    scale_channels(x, &gate.scales(x)?)
}

/// `(x · gate(mean of x over height and width)) · weight + bias + residual`: the 1×1 convolution after the gate with it.
///
/// `x` has shape `(n, h, w, channels)`, the result and `residual` `(n, h, w, outputs)`. With a packed or quantized weight the
/// scaled image is never there at once.
pub fn project_gated(
    x: &Tensor,
    gate: &Gate,
    weight: &Weight,
    bias: &Tensor,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let scales = gate.scales(x)?;
    match weight.in_tiles(x, bias) {
        Some(weight) => packed::linear_scaled(x, &scales, weight, bias, residual),
        None => weight.conv(&scale_channels(x, &scales)?, bias, Window::centered(1, 1), Activation::None, residual),
    }
}

impl Gate {
    /// One factor per image and channel, `(n, channels)`.
    fn scales(&self, x: &Tensor) -> Result<Tensor> {
        self.scales_of(&global_average_pool(x)?)
    }

    /// The same from the means of each image's channels, `(n, channels)`.
    fn scales_of(&self, means: &Tensor) -> Result<Tensor> {
        let squeezed = self.reduce.0.linear(means, &self.reduce.1, self.inner, None)?;
        self.expand.0.linear(&squeezed, &self.expand.1, self.outer, None)
    }
}

/// What a gate leaves for backward, on the CPU.
pub struct KeptGate {
    x: Tensor,
    /// What the gate is computed from, as what gradients are taken of.
    means: Var,
    /// With their graph.
    scales: Tensor,
}

impl KeptGate {
    /// [`squeeze_excite`] without a graph of the image.
    pub fn forward(x: &Tensor, gate: &Gate) -> Result<(Tensor, Self)> {
        let means = Var::from_tensor(&global_average_pool(&x.detach())?)?;
        let scales = gate.scales_of(&means)?;
        let kept = Self { x: x.detach(), means, scales };
        Ok((scale_channels(&kept.x, &kept.scales.detach())?, kept))
    }

    /// The gradients of `x`, and of the gate's own tensors, given that of the result.
    pub fn backward(&self, upstream: &Tensor) -> Result<(Tensor, GradStore)> {
        let (_, height, width, channels) = self.x.dims4()?;
        let (upstream, scales) = (upstream.contiguous()?, self.scales.detach());
        let of_scales = read([&self.x, &upstream], |[inputs, upstream]| {
            gradient(scale_gradients(inputs, upstream, [height, width, channels]), &scales)
        })?;
        let mut gradients = gradients_of(&self.scales, &of_scales)?;
        let Some(of_means) = gradients.remove(&self.means) else {
            candle_core::bail!("a gate is computed from means");
        };
        let of_values = (of_means / (height * width) as f64)?;
        let of_x = read([&upstream, &scales, &of_values], |[upstream, scales, of_values]| {
            let mut result = space(upstream.len());
            let row = (width * channels).max(1);
            result.par_chunks_mut(row).zip(upstream.par_chunks(row)).enumerate().for_each(|(index, (result, rows))| {
                let image = index / height * channels..(index / height + 1) * channels;
                let (scales, of_values) = (&scales[image.clone()], &of_values[image]);
                vectorized!(|| {
                    for (result, upstream) in result.chunks_exact_mut(channels).zip(rows.chunks_exact(channels)) {
                        for (((result, upstream), scale), mean) in
                            result.iter_mut().zip(upstream).zip(scales).zip(of_values)
                        {
                            result.write(upstream * scale + mean);
                        }
                    }
                });
            });
            // SAFETY: every row of every image is written.
            gradient(unsafe { written(result) }, &self.x)
        })?;
        Ok((of_x, gradients))
    }
}

/// Multiplies each image's channels: `x` has shape `(n, h, w, channels)`, `scales` `(n, channels)`.
fn scale_channels(x: &Tensor, scales: &Tensor) -> Result<Tensor> {
    if !has_kernel("squeeze-excite", x) {
        return x.broadcast_mul(&scales.unsqueeze(1)?.unsqueeze(1)?);
    }
    x.contiguous()?.apply_op2(&scales.contiguous()?, ScaleChannels)
}

/// The sums over each image of `inputs · upstream`, by channel.
fn scale_gradients(inputs: &[f32], upstream: &[f32], [height, width, channels]: [usize; 3]) -> Vec<f32> {
    let image = (height * width * channels).max(1);
    let mut result = vec![0.0; inputs.len() / image * channels];
    let images = inputs.par_chunks(image).zip(upstream.par_chunks(image));
    result.par_chunks_mut(channels.max(1)).zip(images).for_each(|(sums, (inputs, upstream))| {
        sum_products(sums, inputs, upstream, width);
    });
    result
}

struct ScaleChannels;

impl CustomOp2 for ScaleChannels {
    fn name(&self) -> &'static str {
        "scale-channels"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        scales: &CpuStorage,
        scales_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, height, width, channels) = x_layout.shape().dims4()?;
        if scales_layout.dims() != [batch, channels] {
            candle_core::bail!("scales {:?} do not fit {:?}", scales_layout.dims(), x_layout.dims());
        }
        let scales = elements(scales, scales_layout)?;
        let mut result = elements(x, x_layout)?.to_vec();
        scale(&mut result, scales, height, width * channels);
        Ok(output(result, x_layout.shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        scales: &Tensor,
        _: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (_, height, width, channels) = x.dims4()?;
        read([x, scales, &upstream.contiguous()?], |[inputs, factors, upstream]| {
            let of_x = x.track_op().then(|| {
                let mut result = upstream.to_vec();
                scale(&mut result, factors, height, width * channels);
                gradient(result, x)
            });
            let of_scales = scales
                .track_op()
                .then(|| gradient(scale_gradients(inputs, upstream, [height, width, channels]), scales));
            Ok((of_x.transpose()?, of_scales.transpose()?))
        })
    }
}

/// Multiplies the channels of images of `height` rows by the image's `scales`.
fn scale(images: &mut [f32], scales: &[f32], height: usize, row_length: usize) {
    let channels = scales.len() * height * row_length / images.len().max(1);
    images.par_chunks_mut(row_length.max(1)).enumerate().for_each(|(index, row)| {
        let scales = &scales[index / height * channels..][..channels];
        vectorized!(|| {
            for pixel in row.chunks_exact_mut(channels) {
                pixel.iter_mut().zip(scales).for_each(|(value, scale)| *value *= scale);
            }
        });
    });
}

/// The sum of `inputs · upstream` of each channel of an image: row by row, then over the rows.
fn sum_products(sums: &mut [f32], inputs: &[f32], upstream: &[f32], width: usize) {
    let channels = sums.len();
    let mut row_sums = vec![0.0; channels];
    vectorized!(|| {
        for (inputs, upstream) in inputs.chunks_exact(width * channels).zip(upstream.chunks_exact(width * channels)) {
            row_sums.fill(0.0);
            for (inputs, upstream) in inputs.chunks_exact(channels).zip(upstream.chunks_exact(channels)) {
                for ((sum, input), upstream) in row_sums.iter_mut().zip(inputs).zip(upstream) {
                    *sum += input * upstream;
                }
            }
            add(sums, &row_sums);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, assert_gradients, random, views};
    use crate::ops::{PackedMatrix, QuantizedMatrix};

    #[test]
    fn equals_its_composed_form() -> Result<()> {
        let (reduce, expand) = (random(&[13, 4], 1)?, random(&[4, 13], 3)?);
        let gate = Gate {
            reduce: (Weight::Plain(reduce.clone()), random(&[4], 2)?),
            expand: (Weight::Plain(expand.clone()), random(&[13], 4)?),
            inner: Activation::Relu,
            outer: Activation::HardSigmoid,
        };
        for x in views(&[3, 5, 7, 13])? {
            let means = x.mean((1, 2))?;
            let squeezed = means.matmul(&reduce)?.broadcast_add(&gate.reduce.1)?.relu()?;
            let scales = squeezed.matmul(&expand)?.broadcast_add(&gate.expand.1)?;
            let scales = Activation::HardSigmoid.composed(&scales)?.reshape((3, 1, 1, 13))?;
            assert_close(&squeeze_excite(&x, &gate)?, &x.broadcast_mul(&scales)?, 1e-5)?;
        }
        Ok(())
    }

    #[test]
    fn a_gated_projection_equals_one_layer_after_the_other() -> Result<()> {
        let pair = |inputs, outputs, seed| -> Result<(Weight, Tensor)> {
            Ok((Weight::Plain(random(&[inputs, outputs], seed)?), random(&[outputs], seed + 1)?))
        };
        let (inner, outer) = (Activation::Silu, Activation::Sigmoid);
        let gate = Gate { reduce: pair(13, 4, 1)?, expand: pair(4, 13, 3)?, inner, outer };
        let bias = random(&[21], 6)?;
        let plain = random(&[1, 1, 13, 21], 5)?;
        let packed = Weight::Packed(PackedMatrix::from_tensor(&plain)?);
        let elements = plain.flatten_all()?.to_vec1::<f32>()?;
        let rounded = Weight::Quantized(QuantizedMatrix::new([1, 13], 21, |row, column| elements[row * 21 + column]));
        // Fewer rows than a tile, one tile over several images, and several.
        for shape in [[2, 3, 5, 13], [3, 9, 11, 13], [2, 23, 17, 13]] {
            for x in views(&shape)? {
                let [batch, height, width, _] = shape;
                for residual in [None, Some(random(&[batch, height, width, 21], 7)?)] {
                    let gated = squeeze_excite(&x, &gate)?;
                    let project = |weight| project_gated(&x, &gate, weight, &bias, residual.as_ref());
                    for weight in [&packed, &rounded] {
                        let window = Window::centered(1, 1);
                        let oracle = weight.conv(&gated, &bias, window, Activation::None, residual.as_ref())?;
                        assert_close(&project(weight)?, &oracle, 0.0)?;
                    }
                    assert_close(&project(&packed)?, &project(&Weight::Plain(plain.clone()))?, 1e-5)?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn gradients_are_right() -> Result<()> {
        assert_gradients(&[&[3, 5, 7, 13], &[3, 13]], |args| scale_channels(&args[0], &args[1]))?;
        let shapes: [&[usize]; 5] = [&[3, 5, 7, 13], &[13, 4], &[4], &[4, 13], &[13]];
        assert_gradients(&shapes, |args| {
            let gate = Gate {
                reduce: (Weight::Plain(args[1].clone()), args[2].clone()),
                expand: (Weight::Plain(args[3].clone()), args[4].clone()),
                inner: Activation::Silu,
                outer: Activation::Sigmoid,
            };
            squeeze_excite(&args[0], &gate)
        })
    }
}
