//! Layers with weights in 8-bit or 4-bit blocks in a device's memory, multiplied by candle's kernels for them: the blocks
//! of a file as they are, and rows that are not rounded. For Metal; on the CPU, where only tests come here, candle rounds
//! the rows too.

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Result, Tensor};

use super::composed::Windows;
use super::quantized::BLOCK;
use super::{Activation, BlockType, Face, Window, activate_sum, face, is_tracked, work};

/// A matrix of `(depth, columns)`: each column lies in whole blocks, with anything after its last value.
#[derive(Debug)]
pub struct BlockMatrix {
    /// `(columns, depth)`, the depth up to whole blocks.
    blocks: Box<QTensor>,
    depth: usize,
    /// `(columns)`: what products are multiplied by.
    factor: Option<Tensor>,
}

impl BlockMatrix {
    /// Takes over the blocks of a file; products of column `c` are multiplied by `factor[c]`.
    ///
    /// `None` when `stored` is not as long as that.
    pub fn from_blocks(
        kind: BlockType,
        stored: &[u8],
        [depth, columns]: [usize; 2],
        factor: Option<&[f32]>,
        device: &Device,
    ) -> Result<Option<Self>> {
        let per_column = depth.div_ceil(BLOCK);
        if depth == 0 || stored.len() != per_column * kind.bytes() * columns {
            return Ok(None);
        }
        let storage = QStorage::from_data(Cow::Borrowed(stored), device, ggml(kind))?;
        let blocks = Box::new(QTensor::new(storage, (columns, per_column * BLOCK))?);
        let factor = factor.map(|factor| Tensor::new(factor, device)).transpose()?;
        Ok(Some(Self { blocks, depth, factor }))
    }

    /// Rounds a matrix whose element `(row, column)` is `element(row, column)`.
    pub fn new(
        kind: BlockType,
        [depth, columns]: [usize; 2],
        element: impl Fn(usize, usize) -> f32,
        device: &Device,
    ) -> Result<Self> {
        let padded = depth.next_multiple_of(BLOCK);
        let value = |index: usize| match (index % padded, index / padded) {
            (row, column) if row < depth => element(row, column),
            _ => 0.0,
        };
        let values: Vec<f32> = (0..columns * padded).map(value).collect();
        let rounded = QTensor::quantize(&Tensor::from_vec(values, (columns, padded), &Device::Cpu)?, ggml(kind))?;
        let matrix = Self::from_blocks(kind, &rounded.data()?, [depth, columns], None, device)?;
        Ok(matrix.expect("candle's blocks are as long as those of a file"))
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        let factor = self.factor.as_ref().map_or(0, |factor| 4 * factor.elem_count());
        (self.blocks.storage_size_in_bytes() + factor) as u64
    }

    /// Bytes that a matrix without a factor will hold.
    pub fn bytes_of(kind: BlockType, [depth, columns]: [usize; 2]) -> u64 {
        (depth.div_ceil(BLOCK) * kind.bytes() * columns) as u64
    }

    /// Depth and columns.
    pub fn shape(&self) -> [usize; 2] {
        [self.depth, self.columns()]
    }

    fn columns(&self) -> usize {
        self.blocks.shape().dims()[0]
    }

    /// `x · self` for `x` of shape `(rows, depth)`, by candle's kernel.
    fn product(&self, x: &Tensor) -> Result<Tensor> {
        let missing = self.depth.next_multiple_of(BLOCK) - self.depth;
        let x = if missing > 0 { x.pad_with_zeros(1, 0, missing)? } else { x.clone() };
        // The kernel reads from the start of the buffer, wherever the tensor lies in it.
        x.force_contiguous()?.apply_op1_no_bwd(&*self.blocks)
    }

    /// The same by plain values.
    fn composed(&self, x: &Tensor) -> Result<Tensor> {
        let values = self.blocks.dequantize(x.device())?.narrow(1, 0, self.depth)?.t()?.contiguous()?;
        x.matmul(&values.to_dtype(x.dtype())?)
    }
}

fn ggml(kind: BlockType) -> GgmlDType {
    match kind {
        BlockType::Q8_0 => GgmlDType::Q8_0,
        BlockType::Q5_0 => GgmlDType::Q5_0,
        BlockType::Q4_0 => GgmlDType::Q4_0,
    }
}

/// `activation(x · weight + bias + residual)`, shapes as in [`super::linear`].
pub fn linear(
    x: &Tensor,
    weight: &BlockMatrix,
    bias: &Tensor,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (inputs, outputs) = (weight.depth, weight.columns());
    let mut shape = x.dims().to_vec();
    if shape.pop() != Some(inputs) {
        candle_core::bail!("linear of {inputs} inputs was given shape {:?}", x.dims());
    }
    shape.push(outputs);
    let rows = x.elem_count() / inputs;
    work::product(rows, inputs, outputs);
    let rows = x.reshape((rows, inputs))?;
    let has_kernel = face("blocks", x) != Face::Composed && !is_tracked(&[x]);
    let product = if has_kernel { weight.product(&rows)? } else { weight.composed(&rows)? };
    let product = match &weight.factor {
        Some(factor) => product.broadcast_mul(&factor.to_dtype(x.dtype())?)?,
        None => product,
    };
    activate_sum(product.broadcast_add(bias)?.reshape(shape)?, residual, activation)
}

/// The same for windows of one pixel, shapes as in [`super::conv`].
pub fn conv(
    x: &Tensor,
    weight: &BlockMatrix,
    bias: &Tensor,
    window: Window,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    match window {
        Window { kernel: 1, stride: 1, .. } => linear(x, weight, bias, activation, residual),
        Window { kernel: 1, .. } => {
            linear(&Windows::new(x, window, 0.0)?.at(0, 0)?, weight, bias, activation, residual)
        }
        _ => candle_core::bail!("a convolution in blocks was given windows of more than one pixel"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, random, views};

    const KINDS: [BlockType; 2] = [BlockType::Q8_0, BlockType::Q4_0];

    fn matrix(kind: BlockType, shape: [usize; 2], factor: Option<&[f32]>) -> Result<BlockMatrix> {
        let values = random(&shape, 5)?.to_vec2::<f32>()?;
        let rounded = BlockMatrix::new(kind, shape, |row, column| values[row][column], &Device::Cpu)?;
        let stored = rounded.blocks.data()?.into_owned();
        Ok(BlockMatrix::from_blocks(kind, &stored, shape, factor, &Device::Cpu)?.expect("its length is right"))
    }

    fn dequantized(matrix: &BlockMatrix) -> Result<Tensor> {
        matrix.blocks.dequantize(&Device::Cpu)?.narrow(1, 0, matrix.depth)?.t()?.contiguous()
    }

    #[test]
    fn both_forms_are_the_layer_of_the_blocks_values() -> Result<()> {
        for (kind, inputs) in KINDS.into_iter().flat_map(|kind| [(kind, 64), (kind, 70), (kind, 5)]) {
            let factor = [0.5, 0.9, -1.0, 1.0, 0.25, 0.7, -0.3];
            let weight = matrix(kind, [inputs, 7], Some(&factor))?;
            let (bias, residual) = (random(&[7], 3)?, random(&[2, 9, 7], 4)?);
            let plain = dequantized(&weight)?.broadcast_mul(&Tensor::new(&factor, &Device::Cpu)?)?;
            for x in views(&[2, 9, inputs])? {
                let oracle = crate::ops::linear(&x, &plain, &bias, Activation::Gelu, Some(&residual))?;
                // On the CPU candle rounds rows to 8 bits: for 70 of them a standard deviation of 0.006.
                let ours = linear(&x, &weight, &bias, Activation::Gelu, Some(&residual))?;
                assert_close(&ours, &oracle, 0.05)?;
                let tracked = candle_core::Var::from_tensor(&x)?;
                let composed = linear(&tracked, &weight, &bias, Activation::Gelu, Some(&residual))?;
                assert_close(&composed, &oracle, 1e-5)?;
                assert!(composed.sum_all()?.backward()?.get(&tracked).is_some());
            }
        }
        Ok(())
    }

    #[test]
    fn windows_of_one_pixel_step_over_the_others() -> Result<()> {
        let (x, bias) = (random(&[2, 5, 6, 32], 1)?, random(&[7], 3)?);
        for (kind, stride) in KINDS.into_iter().flat_map(|kind| [(kind, 1), (kind, 2)]) {
            let (weight, window) = (matrix(kind, [32, 7], None)?, Window::centered(1, stride));
            let plain = dequantized(&weight)?.reshape((1, 1, 32, 7))?;
            let oracle = crate::ops::conv(&x, &plain, &bias, window, Activation::Relu, None)?;
            assert_close(&conv(&x, &weight, &bias, window, Activation::Relu, None)?, &oracle, 0.05)?;
            assert!(conv(&x, &weight, &bias, Window::centered(3, 1), Activation::Relu, None).is_err());
        }
        Ok(())
    }

    #[test]
    fn blocks_of_another_length_are_none_and_what_follows_the_last_value_is_ignored() -> Result<()> {
        let weight = matrix(BlockType::Q8_0, [5, 3], None)?;
        let mut stored = weight.blocks.data()?.into_owned();
        for column in stored.chunks_exact_mut(BlockType::Q8_0.bytes()) {
            column[2 + 5..].fill(77);
        }
        let from = |stored: &[u8]| BlockMatrix::from_blocks(BlockType::Q8_0, stored, [5, 3], None, &Device::Cpu);
        assert!(from(&stored[1..])?.is_none());
        let filled = from(&stored)?.expect("its length is right");
        let (x, bias) = (random(&[4, 5], 1)?, random(&[3], 3)?);
        let [ours, theirs] = [&filled, &weight].map(|weight| linear(&x, weight, &bias, Activation::None, None));
        assert_eq!(ours?.to_vec2::<f32>()?, theirs?.to_vec2::<f32>()?);
        Ok(())
    }
}
