//! Linear layer with a packed weight: tiles of rows in parallel, or of columns when there are few rows.

use candle_core::{Result, Shape, Tensor};
use rayon::prelude::*;

use super::matrix::{PANEL, PackedMatrix, lines};
use super::operands::{Rows, Start, Target};
use super::product::{Product, Unit};
use crate::ops::{Activation, space, with_elements, work, written};

/// The most rows of a tile, and how many the kernel takes at once: with more rows, a tile would leave the second-level cache.
pub fn tile_limits() -> (usize, usize) {
    // More than the vector kernel: every tile brings the weight into the matrix unit's order anew.
    #[cfg(target_arch = "x86_64")]
    if crate::ops::amx::is_available() {
        return (448, 32);
    }
    #[cfg(all(target_os = "macos", target_arch = "aarch64"))]
    return (448, super::library::ROWS);
    #[cfg(not(all(target_os = "macos", target_arch = "aarch64")))]
    (252, 14)
}

/// With fewer rows, a thread takes columns instead: each weight is then read by one thread only.
pub const FEW_ROWS: usize = 64;

/// Rows per tile, at most `most`, so that each thread gets the same number of tiles.
pub fn tile_rows(rows: usize, most: usize) -> usize {
    tile_rows_of(rows, most, rayon::current_num_threads())
}

/// The same for so many threads.
pub fn tile_rows_of(rows: usize, most: usize, threads: usize) -> usize {
    let share = rows.div_ceil(threads).max(1);
    let (largest, step) = tile_limits();
    let most = most.clamp(1, largest);
    let tile = share.div_ceil(share.div_ceil(most));
    tile.next_multiple_of(step).min(most)
}

/// `activation(x · weight + bias + residual)`.
///
/// `x` has shape `(…, inputs)`, `bias` `(outputs)`; the result and `residual` have shape `(…, outputs)`.
pub fn linear(
    x: &Tensor,
    weight: &PackedMatrix,
    bias: &Tensor,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (inputs, outputs) = (weight.depth(), weight.columns());
    let mut shape = x.dims().to_vec();
    if shape.pop() != Some(inputs) || bias.elem_count() != outputs {
        candle_core::bail!("linear of {inputs} inputs was given shape {:?} and {:?} biases", x.dims(), bias.dims());
    }
    // Of a table of rows, each is an image's.
    let of_image = if shape.len() > 1 { shape[1..].iter().product() } else { 1 };
    shape.push(outputs);
    let shape = Shape::from(shape);
    if residual.is_some_and(|residual| residual.shape() != &shape) {
        candle_core::bail!("linear was given a residual of another shape than {shape:?}");
    }
    work::product(x.elem_count() / inputs.max(1), inputs, outputs);
    with_elements([x, bias].into_iter().chain(residual), |elements| {
        let residual = elements.get(2).copied();
        let values = linear_rows(elements[0], weight, elements[1], activation, residual, Unit::for_rows(of_image));
        Tensor::from_vec(values, shape, x.device())
    })
}

/// The same on slices, row-major.
pub fn linear_rows(
    x: &[f32],
    weight: &PackedMatrix,
    bias: &[f32],
    activation: Activation,
    residual: Option<&[f32]>,
    unit: Unit,
) -> Vec<f32> {
    let (inputs, outputs) = (weight.depth(), weight.columns());
    let rows = x.len() / inputs.max(1);
    let bias = lines(bias);
    let product = |first_row: usize, count: usize| Product {
        rows: Rows::dense(&x[first_row * inputs..][..count * inputs], count, inputs),
        weight,
        depth: 0..inputs,
        panels: 0..weight.panels(),
        start: Start::Bias(&bias),
        residual: residual.map(|residual| &residual[first_row * outputs..]),
        activation,
        unit,
    };
    let mut result = space(rows * outputs);
    if rows <= FEW_ROWS {
        by_columns(&product(0, rows), Target::new(&mut result, outputs));
    } else {
        let tile = tile_rows(rows, usize::MAX);
        result.par_chunks_mut((tile * outputs).max(1)).enumerate().for_each(|(index, space)| {
            product(index * tile, space.len() / outputs).write(Target::new(space, outputs));
        });
    }
    // SAFETY: the products fill their targets, which are all of the result.
    unsafe { written(result) }
}

/// The whole product, an equal share of panels per thread.
pub fn by_columns(whole: &Product, mut target: Target) {
    let panels = whole.panels.len();
    let share = panels.div_ceil(rayon::current_num_threads()).max(1);
    let mut parts = Vec::new();
    for first in (0..panels).step_by(share) {
        let (part, rest) = target.split_at_column(share * PANEL);
        target = rest;
        let residual = whole.residual.map(|residual| &residual[first * PANEL..]);
        parts.push((Product { panels: first..(first + share).min(panels), residual, ..whole.clone() }, part));
    }
    parts.into_par_iter().for_each(|(product, part)| product.write(part));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;
    use crate::ops::testing::{assert_close, random, views};

    /// In either form of the weight, on every unit: whole tiles and what is left of them.
    #[test]
    fn a_row_has_the_same_result_in_any_company() -> Result<()> {
        let bias = random(&[97], 3)?;
        let values = random(&[100, 97], 2)?;
        let elements = values.to_vec2::<f32>()?;
        let kept = PackedMatrix::new(100, 97, |row, column| elements[row][column]);
        for weight in [PackedMatrix::from_tensor(&values)?, kept] {
            for shape in [&[7, 9, 8, 100][..], &[7, 3, 3, 100], &[300, 100]] {
                let x = random(shape, 1)?;
                let together = linear(&x, &weight, &bias, Activation::Gelu, None)?;
                for (first, count) in [(0, 1), (2, 5), (6, 1)] {
                    let alone = linear(&x.narrow(0, first, count)?, &weight, &bias, Activation::Gelu, None)?;
                    let part = together.narrow(0, first, count)?.flatten_all()?;
                    assert_eq!(alone.flatten_all()?.to_vec1::<f32>()?, part.to_vec1::<f32>()?, "{shape:?}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn equals_its_composed_form() -> Result<()> {
        for (rows, inputs, outputs) in [(1, 1, 1), (7, 5, 3), (300, 33, 65), (49, 130, 17), (32, 8, 100)] {
            let weight = random(&[inputs, outputs], 2)?;
            let packed = PackedMatrix::from_tensor(&weight)?;
            for x in views(&[2, rows, inputs])? {
                let bias = random(&[outputs], 3)?;
                for residual in [None, Some(random(&[2, rows, outputs], 4)?)] {
                    let ours = linear(&x, &packed, &bias, Activation::Gelu, residual.as_ref())?;
                    let oracle = ops::linear::composed(&x, &weight, &bias, Activation::Gelu, residual.as_ref())?;
                    assert_close(&ours, &oracle, 2e-5)?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_not_a_number_passes_the_activation() -> Result<()> {
        // Whole panels, and a part of one.
        for outputs in [32, 37] {
            let weight = PackedMatrix::from_tensor(&random(&[4, outputs], 2)?)?;
            let x = Tensor::new(&[[1f32, -1.0, 0.5, 2.0], [1.0, f32::NAN, 0.0, 0.0]], &candle_core::Device::Cpu)?;
            let result = linear(&x, &weight, &random(&[outputs], 3)?, Activation::Relu, None)?.to_vec2::<f32>()?;
            assert!(result[0].iter().all(|value| *value >= 0.0) && result[1].iter().all(|value| value.is_nan()));
        }
        Ok(())
    }

    #[test]
    fn wrong_lengths_are_errors() -> Result<()> {
        let weight = PackedMatrix::from_tensor(&random(&[4, 3], 2)?)?;
        assert!(linear(&random(&[2, 5], 1)?, &weight, &random(&[3], 3)?, Activation::None, None).is_err());
        let (x, residual) = (random(&[2, 4], 1)?, random(&[1, 3], 4)?);
        assert!(linear(&x, &weight, &random(&[3], 3)?, Activation::None, Some(&residual)).is_err());
        Ok(())
    }
}
