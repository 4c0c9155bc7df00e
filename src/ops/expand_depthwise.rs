//! A widening 1×1 convolution and the depthwise one after it: the first half of an inverted residual block.

use candle_core::{Result, Tensor};

use super::packed::{self, Layer};
use super::{Face, Padding, Weight, Window, depthwise, face, is_tracked};

/// `depthwise(activation(x · weight + bias))`, each layer as its weight, bias and activation.
///
/// `x` has shape `(n, h, w, inputs)`, the first weight `(inputs, channels)`, the second `(kernel, kernel, channels)`; the
/// result has shape `(n, h', w', channels)`. With a packed or quantized weight, a large image between the
/// two is never there at once.
pub fn expand_depthwise(x: &Tensor, expand: Layer<Weight>, second: Layer<Tensor>, window: Window) -> Result<Tensor> {
    let (weight, bias, activation) = expand;
    if let Some(weight) = weight.in_tiles(x, bias)
        && face("depthwise", x) == Face::Cpu
        && window.padding != Padding::Ceil
        && !is_tracked(&[x, bias, second.0, second.1])
        && let Some(result) = packed::expand_depthwise(x, (weight, bias, activation), second, window)?
    {
        return Ok(result);
    }
    let wide = weight.conv(x, bias, Window::centered(1, 1), activation, None)?;
    depthwise(&wide, second.0, second.1, window, second.2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, random, views};
    use crate::ops::{Activation, PackedMatrix, QuantizedMatrix};

    #[test]
    fn one_pass_equals_one_layer_after_the_other() -> Result<()> {
        let (channels, weight, biases) = (100, random(&[9, 100], 1)?, random(&[100], 2)?);
        let packed = PackedMatrix::from_tensor(&weight)?;
        let elements = weight.to_vec2::<f32>()?;
        let rounded = QuantizedMatrix::new([1, 9], channels, |row, column| elements[row][column]);
        let weights = [Weight::Packed(packed), Weight::Quantized(rounded)];
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (7, 2)] {
            for padding in [Padding::Each(kernel / 2), Padding::Same, Padding::Each(0)] {
                let window = Window { kernel, stride, padding };
                let weight = random(&[kernel, kernel, channels], 3)?;
                let layer = (&weight, &biases, Activation::Silu);
                // Few images are computed in parts; wide rows one at a time, narrow ones several.
                for shape in [[1, 43, 37, 9], [3, 12, 120, 9]] {
                    for x in views(&shape)? {
                        for wide in &weights {
                            let inner = Activation::Relu6;
                            let tiles = wide.in_tiles(&x, &biases).expect("inference on the CPU");
                            let pass = packed::expand_depthwise(&x, (tiles, &biases, inner), layer, window)?;
                            let image = wide.conv(&x, &biases, Window::centered(1, 1), inner, None)?;
                            let oracle = depthwise(&image, &weight, &biases, window, layer.2)?;
                            assert_close(&pass.expect("a large image"), &oracle, 0.0)?;
                            let ours = expand_depthwise(&x, (wide, &biases, inner), layer, window)?;
                            assert_close(&ours, &oracle, 0.0)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
