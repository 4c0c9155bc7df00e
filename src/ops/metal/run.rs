//! Programs on tensors. Where there is no Metal no tensor can be there either, and every call is an error.

use candle_core::{Layout, MetalStorage, Result, Shape, Tensor};

use super::program::Program;

/// The program's results as new tensors. Inputs may be views; nothing is tracked.
pub fn run(program: &Program, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    let inputs = inputs.iter().map(|input| input.contiguous()).collect::<Result<Vec<_>>>()?;
    let guards: Vec<_> = inputs.iter().map(Tensor::storage_and_layout).collect();
    let arguments = guards.iter().map(|(storage, layout)| match &**storage {
        candle_core::Storage::Metal(storage) => Ok((storage, *layout)),
        _ => candle_core::bail!("a Metal kernel was given a tensor of another device"),
    });
    let results = execute(program, &arguments.collect::<Result<Vec<_>>>()?)?.into_iter().zip(&program.outputs);
    let untracked = || candle_core::op::BackpropOp::none();
    let tensor = |(storage, shape): (MetalStorage, &Vec<usize>)| {
        Tensor::from_storage(candle_core::Storage::Metal(storage), shape.as_slice(), untracked(), false)
    };
    Ok(results.map(tensor).collect())
}

/// The only result of a program, for `metal_fwd` of a custom operation: `inputs` are its arguments, `carried` follow.
pub fn forward(
    program: &Program,
    inputs: &[(&MetalStorage, &Layout)],
    carried: &[&Tensor],
    shape: impl Into<Shape>,
) -> Result<(MetalStorage, Shape)> {
    let guards: Vec<_> = carried.iter().map(|tensor| tensor.storage_and_layout()).collect();
    let mut arguments = inputs.to_vec();
    for (storage, layout) in &guards {
        match &**storage {
            candle_core::Storage::Metal(storage) => arguments.push((storage, layout)),
            _ => candle_core::bail!("a Metal kernel was given a tensor of another device"),
        }
    }
    match execute(program, &arguments)?.pop() {
        Some(result) => Ok((result, shape.into())),
        None => candle_core::bail!("the program has no result"),
    }
}

#[cfg(target_os = "macos")]
fn execute(program: &Program, inputs: &[(&MetalStorage, &Layout)]) -> Result<Vec<MetalStorage>> {
    use candle_core::backend::BackendStorage;
    match inputs.first() {
        Some((first, _)) => super::execute::execute(first.device(), program, inputs),
        None => candle_core::bail!("a program has an input"),
    }
}

#[cfg(not(target_os = "macos"))]
fn execute(_: &Program, _: &[(&MetalStorage, &Layout)]) -> Result<Vec<MetalStorage>> {
    candle_core::bail!("this system has no Metal")
}
