//! Runs programs on a Metal device: kernels compiled once per device, matrix products by candle, buffers of our own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::metal_backend::DeviceId;
use candle_core::{DType, Error, Layout, MetalDevice, MetalStorage, Result};
use candle_metal_kernels::metal::{Buffer, ComputePipeline, Library};
use candle_metal_kernels::utils::{Input, set_param};
use candle_metal_kernels::{GemmDType, Output, call_mlx_gemm};
use objc2_metal::{MTLCompileOptions, MTLMathFloatingPointFunctions, MTLMathMode, MTLSize};

use super::buffers;
use super::program::{Factor, Launch, Place, Product, Program, Slot, Step};

/// Threads of a group. They share nothing, so this decides only how well a grid's remainder fits.
const GROUP: usize = 256;

/// The program's result.
pub fn encode(device: &MetalDevice, program: &Program, inputs: &[(&MetalStorage, &Layout)]) -> Result<MetalStorage> {
    let length = program.output.iter().product();
    let output = buffers::take(device, length)?;
    steps(device, program, inputs, &output)?;
    Ok(MetalStorage::new(output, device.clone(), length, DType::F32))
}

/// Runs a program whose output is `target`, which it reads and writes. What comes next on the device reads what is
/// written here, as candle orders it: nothing waits.
pub fn encode_in_place(
    program: &Program,
    (target, layout): (&mut MetalStorage, &Layout),
    inputs: &[(&MetalStorage, &Layout)],
) -> Result<()> {
    let length: usize = program.output.iter().product();
    // A part of a buffer would be another tensor's view, whose owner does not know of the writing.
    if target.dtype() != DType::F32 || layout.contiguous_offsets() != Some((0, length)) {
        candle_core::bail!("only a whole f32 variable of {length} elements can be updated, not {:?}", layout.dims());
    }
    steps(target.device(), program, inputs, target.buffer())
}

fn steps(device: &MetalDevice, program: &Program, inputs: &[(&MetalStorage, &Layout)], output: &Buffer) -> Result<()> {
    if inputs.len() != program.inputs.len() {
        candle_core::bail!("a program for {} tensors was given {}", program.inputs.len(), inputs.len());
    }
    let inputs = inputs.iter().zip(&program.inputs).map(|((storage, layout), length)| input(storage, layout, *length));
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    // All memory before the first encoder: allocating while one is held would wait for itself.
    let scratch = program.scratch.iter().map(|length| buffers::take(device, *length)).collect::<Result<Vec<_>>>()?;
    let bound = Bound { device, inputs, output, scratch };
    for step in &program.steps {
        match step {
            Step::Launch(launch) => bound.launch(launch)?,
            Step::Product(product) => bound.product(product)?,
        }
    }
    Ok(())
}

/// A contiguous f32 argument's buffer and its offset in bytes.
fn input<'a>(storage: &'a MetalStorage, layout: &Layout, length: usize) -> Result<(&'a Buffer, usize)> {
    if storage.dtype() != DType::F32 {
        candle_core::bail!("a Metal kernel computes in f32 and was given {:?}", storage.dtype());
    }
    match layout.contiguous_offsets() {
        Some((start, end)) if end - start == length => Ok((storage.buffer(), start * size_of::<f32>())),
        Some(_) => candle_core::bail!("a Metal kernel for {length} elements was given {:?}", layout.dims()),
        None => candle_core::bail!("a Metal kernel was given a view that is not contiguous"),
    }
}

/// A program's buffers.
struct Bound<'a> {
    device: &'a MetalDevice,
    inputs: Vec<(&'a Buffer, usize)>,
    output: &'a Buffer,
    scratch: Vec<Arc<Buffer>>,
}

impl Bound<'_> {
    /// A place's buffer and its offset in bytes.
    fn place(&self, place: Place) -> (&Buffer, usize) {
        let offset = place.offset * size_of::<f32>();
        match place.slot {
            Slot::Input(index) => (self.inputs[index].0, self.inputs[index].1 + offset),
            Slot::Output => (self.output, offset),
            Slot::Scratch(index) => (&self.scratch[index], offset),
        }
    }

    fn launch(&self, launch: &Launch) -> Result<()> {
        let pipeline = pipeline(self.device, launch.kernel)?;
        let guard = self.device.command_encoder()?;
        let encoder = guard.as_ref();
        encoder.set_compute_pipeline_state(&pipeline);
        set_param(encoder, 0, launch.parameters.as_slice());
        // candle orders launches by what is marked as read and written, and by nothing else.
        for (index, place) in launch.reads.iter().enumerate() {
            let (buffer, offset) = self.place(*place);
            set_param(encoder, 1 + index, Input::with_offset(buffer, offset));
        }
        for (index, place) in launch.writes.iter().enumerate() {
            let (buffer, offset) = self.place(*place);
            set_param(encoder, 1 + launch.reads.len() + index, Output::with_offset(buffer, offset));
        }
        let [width, height, depth] = launch.grid;
        let group = group(launch.grid, GROUP.min(pipeline.max_total_threads_per_threadgroup()));
        encoder.dispatch_threads(MTLSize { width, height, depth }, group);
        Ok(())
    }

    fn product(&self, product: &Product) -> Result<()> {
        let Product { parts, rows, columns, depth, left, right, result } = *product;
        let (left_buffer, left_offset) = self.place(left.place);
        let (right_buffer, right_offset) = self.place(right.place);
        let (result, _) = self.place(result.into());
        let guard = self.device.command_encoder()?;
        call_mlx_gemm(
            self.device.metal_device(),
            &guard,
            self.device.kernels(),
            GemmDType::F32,
            (parts, rows, columns, depth),
            &strides(&left, rows, depth),
            left_offset,
            left_buffer,
            &strides(&right, depth, columns),
            right_offset,
            right_buffer,
            result,
        )
        .map_err(Error::wrap)
    }
}

/// Elements from part to part, row to row and column to column.
fn strides(factor: &Factor, rows: usize, columns: usize) -> [usize; 3] {
    if factor.transposed { [factor.part_stride, 1, rows] } else { [factor.part_stride, columns, 1] }
}

/// Groups that fill the first sides of the grid first, where neighbouring threads read neighbouring elements.
fn group([width, height, depth]: [usize; 3], threads: usize) -> MTLSize {
    let width = width.min(threads);
    let height = height.min(threads / width);
    let depth = depth.min(threads / width / height);
    MTLSize { width, height, depth }
}

/// The kernel, compiled for this device at its first use.
fn pipeline(device: &MetalDevice, kernel: &'static str) -> Result<ComputePipeline> {
    type Compiled = (Library, HashMap<&'static str, ComputePipeline>);
    static DEVICES: OnceLock<Mutex<HashMap<DeviceId, Compiled>>> = OnceLock::new();
    let mut devices = DEVICES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let (library, pipelines) = match devices.entry(device.id()) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert((library(device)?, HashMap::new())),
    };
    if let Some(pipeline) = pipelines.get(kernel) {
        return Ok(pipeline.clone());
    }
    let function = library.get_function(kernel, None).map_err(Error::wrap)?;
    let pipeline = device.metal_device().new_compute_pipeline_state_with_function(&function).map_err(Error::wrap)?;
    pipelines.insert(kernel, pipeline.clone());
    Ok(pipeline)
}

fn library(device: &MetalDevice) -> Result<Library> {
    let options = MTLCompileOptions::new();
    // Fast math may lose NaN and infinity, which must stay visible; nearly all kernels wait for memory anyway.
    options.setMathMode(MTLMathMode::Safe);
    options.setMathFloatingPointFunctions(MTLMathFloatingPointFunctions::Precise);
    device.metal_device().new_library_with_source(super::SOURCE, Some(&options)).map_err(Error::wrap)
}
