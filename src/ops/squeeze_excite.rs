//! Squeeze-and-excite: each channel of an image is scaled by a gate computed from the means of all its channels.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Activation, elements, global_average_pool, linear, output, vectorized};

/// The two linear layers of a gate, `(channels → squeezed → channels)`, and what follows each.
#[derive(Debug, Clone)]
pub struct Gate {
    /// `(channels, squeezed)` and `(squeezed)`.
    pub reduce: (Tensor, Tensor),
    /// `(squeezed, channels)` and `(channels)`.
    pub expand: (Tensor, Tensor),
    pub inner: Activation,
    pub outer: Activation,
}

/// `x · gate(mean of x over height and width)`; `x` has shape `(n, h, w, channels)`.
pub fn squeeze_excite(x: &Tensor, gate: &Gate) -> Result<Tensor> {
    let means = global_average_pool(x)?;
    let squeezed = linear(&means, &gate.reduce.0, &gate.reduce.1, gate.inner, None)?;
    let scales = linear(&squeezed, &gate.expand.0, &gate.expand.1, gate.outer, None)?;
    x.contiguous()?.apply_op2_no_bwd(&scales, &ScaleChannels)
}

/// Multiplies each image's channels `(n, h, w, channels)` by its scales `(n, channels)`.
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
        result.par_chunks_mut((width * channels).max(1)).enumerate().for_each(|(index, row)| {
            let scales = &scales[index / height * channels..][..channels];
            vectorized(|| {
                for pixel in row.chunks_exact_mut(channels) {
                    pixel.iter_mut().zip(scales).for_each(|(value, scale)| *value *= scale);
                }
            });
        });
        Ok(output(result, x_layout.shape()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, random, views};

    #[test]
    fn equals_its_composed_form() -> Result<()> {
        let gate = Gate {
            reduce: (random(&[13, 4], 1)?, random(&[4], 2)?),
            expand: (random(&[4, 13], 3)?, random(&[13], 4)?),
            inner: Activation::Relu,
            outer: Activation::HardSigmoid,
        };
        for x in views(&[3, 5, 7, 13])? {
            let means = x.mean((1, 2))?;
            let squeezed = means.matmul(&gate.reduce.0)?.broadcast_add(&gate.reduce.1)?.relu()?;
            let scales = squeezed.matmul(&gate.expand.0)?.broadcast_add(&gate.expand.1)?;
            let scales = Activation::HardSigmoid.composed(&scales)?.reshape((3, 1, 1, 13))?;
            assert_close(&squeeze_excite(&x, &gate)?, &x.broadcast_mul(&scales)?, 1e-5)?;
        }
        Ok(())
    }
}
