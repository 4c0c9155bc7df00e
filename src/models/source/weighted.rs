//! The weight of a convolution or linear layer in the form that its device multiplies it from: read, rounded, taken over as the
//! file has it, or outlined.

use std::ops::Range;

use candle_core::Tensor;

use super::{Fold, Source, Weighted, scale_of};
use crate::checkpoint::ElementType;
use crate::models::layer_weight::{TINY, rounds};
use crate::models::{ModelError, Precision};
use crate::ops::{self, BlockMatrix, BlockType, PackedMatrix, QuantizedMatrix, Weight, Window, WinogradWeight};

impl Source<'_> {
    /// The weight `name`, in the file of shape `[outputs, inputs, positions]`, its outputs scaled; its depth goes over
    /// positions, then inputs. Packed or quantized where there are kernels for that, else a tensor of `shape`.
    pub(super) fn weighted(
        &self,
        (name, file_shape): (&str, &[usize]),
        fold: Option<Fold>,
        axes: [usize; 3],
        shape: &[usize],
        window: Window,
    ) -> Result<Weighted, ModelError> {
        let form = self.form(axes, window);
        let Some((scale, shift)) = fold else {
            return Ok((self.outlined(name, file_shape, axes, shape, form)?, self.tensor(None, &[axes[0]])?));
        };
        let shift = self.tensor(Some(shift), &[axes[0]])?;
        let weight = match self.stored_blocks(name, file_shape, axes, &scale)? {
            Some(weight) => weight,
            None => self.converted((name, file_shape), &scale, axes, shape, form)?,
        };
        self.count(weight.bytes(), 0);
        Ok((weight, shift))
    }

    /// The same weight from its values.
    fn converted(
        &self,
        (name, file_shape): (&str, &[usize]),
        scale: &Option<Vec<f32>>,
        axes: [usize; 3],
        shape: &[usize],
        form: Form,
    ) -> Result<Weight, ModelError> {
        let [outputs, inputs, positions] = axes;
        if let Form::Packed | Form::Winograd = form
            && let Some(matrix) = self.packed_by_panels(name, file_shape, scale, axes, form)?
        {
            return Ok(form.holding(matrix));
        }
        let weight = self.read(name, file_shape, 0.0)?.unwrap_or_default();
        let scaled = |step: usize, output: usize| {
            let window = &weight[(output * inputs + step % inputs) * positions..][..positions];
            form.value(window, step / inputs) * scale_of(scale, output)
        };
        let depth = inputs * form.positions(positions);
        let segments = segments(axes);
        Ok(match form {
            Form::Blocks(kind) => Weight::Blocks(BlockMatrix::new(kind, [depth, outputs], scaled, &self.device)?),
            Form::Quantized(BlockType::Q4_0) => {
                Weight::Quantized(QuantizedMatrix::in_4_bits(segments, outputs, scaled))
            }
            Form::Quantized(_) => Weight::Quantized(QuantizedMatrix::new(segments, outputs, scaled)),
            Form::Packed | Form::Winograd => form.holding(PackedMatrix::new(depth, outputs, scaled)),
            Form::Plain => {
                let values: Vec<f32> =
                    (0..depth * outputs).map(|index| scaled(index / outputs, index % outputs)).collect();
                Weight::Plain(Tensor::from_vec(values, shape, &self.device)?)
            }
        })
    }

    /// The same read panel by panel, so that a large weight is never there twice; `None` where it has to be read whole.
    fn packed_by_panels(
        &self,
        name: &str,
        file_shape: &[usize],
        scale: &Option<Vec<f32>>,
        [outputs, inputs, positions]: [usize; 3],
        form: Form,
    ) -> Result<Option<PackedMatrix>, ModelError> {
        let depth = inputs * form.positions(positions);
        let Some(weights) = self.weights.filter(|_| depth * outputs > TINY && self.holds(name, file_shape)) else {
            return Ok(None);
        };
        let read = |columns: Range<usize>| weights.read_rows(name, columns);
        Ok(PackedMatrix::from_panels(depth, outputs, read, |values, step, column, first| {
            let window = &values[((column - first) * inputs + step % inputs) * positions..][..positions];
            form.value(window, step / inputs) * scale_of(scale, column)
        })?)
    }

    /// What values become where the file does not have blocks that are wanted as they are.
    fn form(&self, [outputs, inputs, positions]: [usize; 3], window: Window) -> Form {
        let rounded = match self.precision {
            _ if !rounds([outputs, inputs, positions]) => None,
            Precision::Int8 => Some(BlockType::Q8_0),
            Precision::Int4 => Some(BlockType::Q4_0),
            Precision::Stored | Precision::F32 => None,
        };
        match rounded {
            Some(kind) if self.multiplies_blocks(positions) => Form::Blocks(kind),
            Some(kind) if ops::uses_kernel("quantized", &self.device) => Form::Quantized(kind),
            _ if !ops::uses_kernel("packed", &self.device) => Form::Plain,
            _ if ops::suits_winograd(window, inputs, outputs) => Form::Winograd,
            _ => Form::Packed,
        }
    }

    /// A weight without values in the form that [`Self::weighted`] gives it.
    fn outlined(
        &self,
        name: &str,
        file_shape: &[usize],
        axes: [usize; 3],
        shape: &[usize],
        form: Form,
    ) -> Result<Weight, ModelError> {
        let [outputs, inputs, positions] = axes;
        let in_blocks = self.stored_kind(name, file_shape, positions);
        let form = match in_blocks {
            Some(kind) if self.multiplies_blocks(positions) => Form::Blocks(kind),
            Some(kind) => Form::Quantized(kind),
            None => form,
        };
        let depth = inputs * form.positions(positions);
        let by_panels = matches!(form, Form::Packed | Form::Winograd) && depth * outputs > TINY;
        let read = inputs * positions * if by_panels { ops::PANEL } else { outputs };
        let weight = match form {
            Form::Blocks(kind) => {
                self.count(BlockMatrix::bytes_of(kind, [depth, outputs]), read);
                return Ok(Weight::Plain(self.placeholder.broadcast_as(shape)?));
            }
            Form::Quantized(kind) => {
                Weight::Quantized(QuantizedMatrix::outline(kind, segments(axes), outputs, in_blocks.is_some()))
            }
            Form::Packed | Form::Winograd => form.holding(PackedMatrix::outline(depth, outputs)),
            Form::Plain => Weight::Plain(self.placeholder.broadcast_as(shape)?),
        };
        self.count(weight.bytes(), read);
        Ok(weight)
    }

    /// The blocks of a file that are wanted as they are.
    fn stored_kind(&self, name: &str, file_shape: &[usize], positions: usize) -> Option<BlockType> {
        let on_metal = self.multiplies_blocks(positions);
        if !self.holds(name, file_shape) || !(on_metal || ops::uses_kernel("quantized", &self.device)) {
            return None;
        }
        let stored = match self.held.get(name)?.element {
            ElementType::Quantized("Q8_0") => BlockType::Q8_0,
            ElementType::Quantized("Q5_0") => BlockType::Q5_0,
            ElementType::Quantized("Q4_0") => BlockType::Q4_0,
            _ => return None,
        };
        let is_wanted = match self.precision {
            Precision::F32 => false,
            Precision::Stored => true,
            Precision::Int8 => stored == BlockType::Q8_0,
            Precision::Int4 => stored == BlockType::Q4_0,
        };
        is_wanted.then_some(stored)
    }

    /// Whether the device has a kernel for weights in blocks, which are of one position.
    fn multiplies_blocks(&self, positions: usize) -> bool {
        positions == 1 && self.device.is_metal() && ops::uses_kernel("blocks", &self.device)
    }

    /// The same weight as the file quantized it, when that is how it is wanted.
    fn stored_blocks(
        &self,
        name: &str,
        file_shape: &[usize],
        [outputs, inputs, positions]: [usize; 3],
        scale: &Option<Vec<f32>>,
    ) -> Result<Option<Weight>, ModelError> {
        let (Some(weights), Some(kind)) = (self.weights, self.stored_kind(name, file_shape, positions)) else {
            return Ok(None);
        };
        let Some(blocks) = weights.read_blocks(name)? else { return Ok(None) };
        if self.multiplies_blocks(positions) {
            let matrix =
                BlockMatrix::from_blocks(kind, &blocks.bytes, [inputs, outputs], scale.as_deref(), &self.device)?;
            return Ok(matrix.map(Weight::Blocks));
        }
        let segments = segments([outputs, inputs, positions]);
        let factor = |output| scale_of(scale, output);
        let matrix = QuantizedMatrix::from_blocks(kind, &blocks.bytes, segments, outputs, factor);
        Ok(matrix.map(Weight::Quantized))
    }
}

/// What a weight's values become.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Plain,
    Packed,
    Winograd,
    Quantized(BlockType),
    Blocks(BlockType),
}

impl Form {
    /// Of so many positions of a window, how many there are in this form.
    fn positions(self, positions: usize) -> usize {
        if self == Self::Winograd { ops::PLACES } else { positions }
    }

    /// What is made at one of these of a window's weights.
    fn value(self, window: &[f32], position: usize) -> f32 {
        if self == Self::Winograd { ops::winograd_filtered(window, position) } else { window[position] }
    }

    /// The weight in a packed form.
    fn holding(self, matrix: PackedMatrix) -> Weight {
        match self {
            Self::Winograd => Weight::Winograd(WinogradWeight::new(matrix)),
            _ => Weight::Packed(matrix),
        }
    }
}

/// How a quantized weight of these outputs, inputs and positions lies: a segment for each row of a window.
fn segments([_, inputs, positions]: [usize; 3]) -> [usize; 2] {
    [positions.isqrt(), positions.isqrt() * inputs]
}
