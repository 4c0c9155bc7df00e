//! Programs on tensors. Where there is no Metal no tensor can be there either, and every call is an error.

use candle_core::op::BackpropOp;
use candle_core::{Layout, MetalStorage, Result, Storage, Tensor};

use super::program::Program;

/// The program's result as a new tensor of `shape`. Inputs may be views; nothing is tracked.
pub fn run(program: &Program, inputs: &[&Tensor], shape: &[usize]) -> Result<Tensor> {
    let inputs = inputs.iter().map(|input| input.contiguous()).collect::<Result<Vec<_>>>()?;
    let guards: Vec<_> = inputs.iter().map(Tensor::storage_and_layout).collect();
    let arguments = guards.iter().map(|(storage, layout)| match &**storage {
        Storage::Metal(storage) => Ok((storage, *layout)),
        _ => candle_core::bail!("a Metal kernel was given a tensor of another device"),
    });
    let result = execute(program, &arguments.collect::<Result<Vec<_>>>()?)?;
    if shape.iter().product::<usize>() != program.output.iter().product::<usize>() {
        candle_core::bail!("a program's result of shape {:?} is no {shape:?}", program.output);
    }
    Ok(Tensor::from_storage(Storage::Metal(result), shape, BackpropOp::none(), false))
}

/// The program's result on the device of its inputs.
#[cfg(target_os = "macos")]
pub fn execute(program: &Program, inputs: &[(&MetalStorage, &Layout)]) -> Result<MetalStorage> {
    use candle_core::backend::BackendStorage;
    match inputs.first() {
        Some((first, _)) => super::encode::encode(first.device(), program, inputs),
        None => candle_core::bail!("a program has an input"),
    }
}

/// Runs a program whose output is `target`, the whole of a variable: it is read and written in place.
#[cfg(target_os = "macos")]
pub fn execute_in_place(
    program: &Program,
    target: (&mut MetalStorage, &Layout),
    inputs: &[(&MetalStorage, &Layout)],
) -> Result<()> {
    super::encode::encode_in_place(program, target, inputs)
}

#[cfg(not(target_os = "macos"))]
pub fn execute(_: &Program, _: &[(&MetalStorage, &Layout)]) -> Result<MetalStorage> {
    candle_core::bail!("this system has no Metal")
}

#[cfg(not(target_os = "macos"))]
pub fn execute_in_place(_: &Program, _: (&mut MetalStorage, &Layout), _: &[(&MetalStorage, &Layout)]) -> Result<()> {
    candle_core::bail!("this system has no Metal")
}
