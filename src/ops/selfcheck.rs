//! Tries every operation, forward and backward, on a device and compares it with its composed form in f64 on the CPU;
//! some steps of training come last. A kernel that fails is switched off for this process: its operation runs composed,
//! and is tried in that form too.

use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::{DType, Device, Result, Tensor, Var};

use super::samples::{View, random};
use super::{
    Activation, AdamStep, BlockMatrix, BlockType, Gate, Mlp, Moments, PackedMatrix, Padding, QuantizedMatrix, Weight,
    Window, WinogradWeight, activate, add, add_scaled, attention, batch_norm, batch_norm_of_batch, blend, conv,
    depthwise, descend, follow_moments, global_average_pool, global_response_norm, layer_norm, linear, max_pool, mlp,
    set_kernel, softmax, squeeze_excite, sum_of_squares, uses_kernel,
};
use crate::device::scoped;

/// What came of one operation in one direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Check {
    pub op: &'static str,
    /// `forward` or `backward`.
    pub pass: &'static str,
    /// Relative to the largest element where that is above 1; infinite when nothing or no number was computed.
    pub worst_error: f32,
    /// The same of the composed form, which is tried when the kernel of either pass fails.
    pub composed_error: Option<f32>,
    pub tolerance: f32,
    pub ok: bool,
}

/// Single precision's error in sums of some hundred products, and what a GPU's quicker functions may add.
const TOLERANCE: f32 = 1e-4;

/// An operation on arguments of the shapes it is tried with.
struct Case {
    op: &'static str,
    shapes: &'static [&'static [usize]],
    compute: fn(&[Tensor]) -> Result<Tensor>,
    tolerance: f32,
    /// `forward`, and `backward` where there are gradients.
    passes: &'static [&'static str],
}

const IMAGES: &[usize] = &[2, 9, 11, 5];

const fn case(op: &'static str, shapes: &'static [&'static [usize]], compute: fn(&[Tensor]) -> Result<Tensor>) -> Case {
    Case { op, shapes, compute, tolerance: TOLERANCE, passes: &["forward", "backward"] }
}

/// Those that others are built on come first. Where an operation ends in an activation it is a smooth one: at a corner
/// the last digit of its argument decides on the gradient.
const CASES: &[Case] = &[
    case("activation", &[IMAGES], |args| activate(&args[0], Activation::Relu)),
    case("activation", &[IMAGES], |args| activate(&args[0], Activation::Gelu)),
    case("activation", &[IMAGES], |args| activate(&args[0], Activation::GeluTanh)),
    case("activation", &[IMAGES], |args| activate(&args[0], Activation::Silu)),
    case("activation", &[IMAGES], |args| activate(&(&args[0] * 8.0)?, Activation::Relu6)),
    case("activation", &[IMAGES], |args| activate(&(&args[0] * 8.0)?, Activation::HardSwish)),
    case("activation", &[IMAGES], |args| activate(&(&args[0] * 8.0)?, Activation::HardSigmoid)),
    case("activation", &[IMAGES], |args| activate(&args[0], Activation::Sigmoid)),
    case("add", &[IMAGES, IMAGES], |args| add(&args[0], &args[1])),
    case("add-scaled", &[IMAGES, IMAGES, &[5]], |args| add_scaled(&args[0], &args[1], &args[2])),
    case("linear", &[&[3, 70, 33], &[33, 17], &[17]], |args| {
        linear(&args[0], &args[1], &args[2], Activation::None, None)
    }),
    // So many rows that sums over them are cut into parts, with a residual.
    case("linear", &[&[2, 512, 3], &[3, 5], &[5], &[2, 512, 5]], |args| {
        linear(&args[0], &args[1], &args[2], Activation::Silu, Some(&args[3]))
    }),
    // A vector: candle's matrix product takes another way.
    case("linear", &[&[1, 40], &[40, 9], &[9]], |args| linear(&args[0], &args[1], &args[2], Activation::None, None)),
    // Large enough for a matrix unit, where there is one.
    case("linear", &[&[1, 130, 100], &[100, 97], &[97]], |args| {
        linear(&args[0], &args[1], &args[2], Activation::None, None)
    }),
    case("layer-norm", &[&[2, 7, 3, 37], &[37], &[37]], |args| layer_norm(&args[0], &args[1], &args[2], 1e-6)),
    case("softmax", &[&[3, 4, 21]], |args| softmax(&args[0])),
    case("max-pool", &[IMAGES], |args| max_pool(&args[0], Window { kernel: 3, stride: 2, padding: Padding::Each(1) })),
    case("max-pool", &[IMAGES], |args| max_pool(&args[0], Window { kernel: 3, stride: 2, padding: Padding::Ceil })),
    case("global-average-pool", &[IMAGES], |args| global_average_pool(&args[0])),
    case("depthwise", &[IMAGES, &[7, 7, 5], &[5]], |args| {
        depthwise(&args[0], &args[1], &args[2], Window::centered(7, 1), Activation::None)
    }),
    case("depthwise", &[IMAGES, &[3, 3, 5], &[5]], |args| {
        depthwise(&args[0], &args[1], &args[2], Window::centered(3, 2), Activation::Silu)
    }),
    case("depthwise", &[IMAGES, &[5, 5, 5], &[5]], |args| {
        let window = Window { kernel: 5, stride: 2, padding: Padding::Same };
        depthwise(&args[0], &args[1], &args[2], window, Activation::None)
    }),
    case("conv", &[IMAGES, &[3, 3, 5, 6], &[6]], |args| {
        conv(&args[0], &args[1], &args[2], Window::centered(3, 2), Activation::None, None)
    }),
    case("conv", &[IMAGES, &[1, 1, 5, 6], &[6], &[2, 9, 11, 6]], |args| {
        conv(&args[0], &args[1], &args[2], Window::centered(1, 1), Activation::Gelu, Some(&args[3]))
    }),
    case("conv", &[IMAGES, &[4, 4, 5, 3], &[3]], |args| {
        let window = Window { kernel: 4, stride: 4, padding: Padding::Each(0) };
        conv(&args[0], &args[1], &args[2], window, Activation::None, None)
    }),
    case("mlp", &[IMAGES, &[5], &[5], &[5, 13], &[13], &[13, 5], &[5], IMAGES], |args| {
        mlp(&args[0], &mlp_of(&args[1..7]), &args[7])
    }),
    case("packed", &[IMAGES, &[5, 21], &[21]], |args| {
        packed(&args[1])?.linear(&args[0], &args[2], Activation::Gelu, None)
    }),
    case("packed", &[&[1, 8, 9, 100], &[100, 97], &[97]], |args| {
        packed(&args[1])?.linear(&args[0], &args[2], Activation::Gelu, None)
    }),
    case("packed", &[IMAGES, &[3, 3, 5, 21], &[21]], |args| {
        packed(&args[1])?.conv(&args[0], &args[2], Window::centered(3, 2), Activation::Silu, None)
    }),
    // The same for the matrix unit.
    case("packed", &[&[1, 9, 11, 12], &[3, 3, 12, 97], &[97]], |args| {
        packed(&args[1])?.conv(&args[0], &args[2], Window::centered(3, 1), Activation::Silu, None)
    }),
    case("packed", &[IMAGES, &[5], &[5], &[5, 13], &[13], &[13, 5], &[5], IMAGES], |args| {
        let mut layers = mlp_of(&args[1..7]);
        (layers.expand.0, layers.project.0) = (packed(&args[3])?, packed(&args[5])?);
        mlp(&args[0], &layers, &args[7])
    }),
    case("winograd", &[IMAGES, &[3, 3, 5, 21], &[21]], |args| {
        winograd(&args[1])?.conv(&args[0], &args[2], Window::centered(3, 1), Activation::Silu, None)
    }),
    // Wide enough for it to be chosen, where a machine has no matrix unit.
    case("winograd", &[&[2, 5, 6, 32], &[3, 3, 32, 33], &[33]], |args| {
        conv(&args[0], &args[1], &args[2], Window::centered(3, 1), Activation::Silu, None)
    }),
    case("quantized", &[&[3, 70, 33], &[33, 17], &[17]], |args| {
        quantized(&args[1])?.linear(&args[0], &args[2], Activation::HardSwish, None)
    }),
    case("quantized", &[IMAGES, &[3, 3, 5, 21], &[21]], |args| {
        quantized(&args[1])?.conv(&args[0], &args[2], Window::centered(3, 2), Activation::None, None)
    }),
    Case {
        // candle's kernel holds the values of blocks in f16 on the way.
        tolerance: 1e-3,
        ..case("blocks", &[&[3, 70, 33], &[33, 17], &[17]], |args| {
            blocks(&args[1], BlockType::Q8_0)?.linear(&args[0], &args[2], Activation::HardSwish, None)
        })
    },
    Case {
        tolerance: 1e-3,
        ..case("blocks", &[IMAGES, &[1, 1, 5, 21], &[21]], |args| {
            blocks(&args[1], BlockType::Q4_0)?.conv(&args[0], &args[2], Window::centered(1, 2), Activation::None, None)
        })
    },
    case("attention", &[&[2, 19, 36]], |args| attention(&args[0], 3)),
    case("global-response-norm", &[IMAGES, &[5], &[5]], |args| global_response_norm(&args[0], &args[1], &args[2])),
    case("squeeze-excite", &[IMAGES, &[5, 3], &[3], &[3, 5], &[5]], |args| {
        let [reduce, expand] = [1, 3].map(|index| (Weight::Plain(args[index].clone()), args[index + 1].clone()));
        squeeze_excite(&args[0], &Gate { reduce, expand, inner: Activation::Silu, outer: Activation::Sigmoid })
    }),
    case("batch-norm", &[IMAGES, &[5], &[5], &[5], &[5]], |args| {
        let variance = (args[4].detach().sqr()? + 0.1)?;
        batch_norm(&args[0], &args[1], &args[2], &args[3], &variance, 1e-5)
    }),
    case("batch-norm", &[IMAGES, &[5], &[5]], |args| Ok(batch_norm_of_batch(&args[0], &args[1], &args[2], 1e-5)?.0)),
    update(&[&[70, 33], &[70, 33]], adam_steps),
    update(&[&[70, 33], &[70, 33]], momentum_steps),
    update(&[&[7, 5, 300], &[11]], |args| {
        sum_of_squares(&[&args[0].detach(), &args[1].detach()])?.to_dtype(args[0].dtype())?.reshape(1)
    }),
    case(
        "training-step",
        &[
            &[3, 16, 16, 3],
            &[4, 4, 3, 8],
            &[8],
            &[7, 7, 8],
            &[8],
            &[8],
            &[8],
            &[8, 32],
            &[32],
            &[32, 8],
            &[8],
            &[8, 5],
            &[5],
        ],
        training,
    ),
];

/// What a step does with gradients, of which it has none itself.
const fn update(shapes: &'static [&'static [usize]], compute: fn(&[Tensor]) -> Result<Tensor>) -> Case {
    Case { passes: &["forward"], ..case("update", shapes, compute) }
}

/// A weight and its moments after steps of AdamW along a gradient.
fn adam_steps(args: &[Tensor]) -> Result<Tensor> {
    let (weight, gradient) = (Var::from_tensor(&args[0].detach())?, args[1].detach());
    let moments = Var::zeros((2, weight.elem_count()), weight.dtype(), weight.device())?;
    let (betas, scale) = ([0.9, 0.999], Tensor::new(0.7_f32, weight.device())?);
    for step in 1..=STEPS {
        follow_moments(&moments, &gradient, &scale, Moments { betas })?;
        let corrections = betas.map(|beta: f64| 1.0 - beta.powi(step as i32));
        let step = AdamStep { learning_rate: LEARNING_RATE, weight_decay: 0.1, epsilon: 1e-8, corrections };
        descend(&weight, &moments, step)?;
    }
    let results = [weight.as_detached_tensor(), moments.as_detached_tensor()];
    Tensor::cat(&[results[0].flatten_all()?, results[1].flatten_all()?], 0)
}

/// A weight, its momentum and its average after steps of gradient descent.
fn momentum_steps(args: &[Tensor]) -> Result<Tensor> {
    let [weight, average] = [Var::from_tensor(&args[0].detach())?, Var::from_tensor(&args[0].detach())?];
    let momentum = Var::zeros(weight.shape(), weight.dtype(), weight.device())?;
    for _ in 0..STEPS {
        blend(&momentum, 0.9, &args[1].detach(), 0.7)?;
        blend(&weight, 1.0, &momentum.as_detached_tensor(), -LEARNING_RATE)?;
        blend(&average, 0.9, &weight.as_detached_tensor(), 0.1)?;
    }
    Tensor::cat(&[weight, momentum, average].map(|result| result.as_detached_tensor()), 0)
}

/// Norm, widening and narrowing layer.
fn mlp_of(args: &[Tensor]) -> Mlp {
    let [expand, project] = [2, 4].map(|index| (Weight::Plain(args[index].clone()), args[index + 1].clone()));
    let norm = (args[0].clone(), args[1].clone());
    Mlp { norm, epsilon: 1e-6, expand, activation: Activation::Gelu, project }
}

/// As inference on the CPU has it.
fn packed(weight: &Tensor) -> Result<Weight> {
    for_inference(weight, |values, outputs| {
        let element = |row: usize, column: usize| values[row * outputs + column];
        Weight::Packed(PackedMatrix::new(values.len() / outputs, outputs, element))
    })
}

/// The same of windows of 3×3 in the order of Winograd's filtering.
fn winograd(weight: &Tensor) -> Result<Weight> {
    for_inference(weight, |values, outputs| Weight::Winograd(WinogradWeight::from_values(values, outputs)))
}

/// Made of its values and outputs; plain where gradients or digits are wanted.
fn for_inference(weight: &Tensor, make: impl FnOnce(&[f32], usize) -> Weight) -> Result<Weight> {
    if weight.dtype() == DType::F32 && !weight.track_op() {
        let (outputs, values) = (weight.dim(weight.rank() - 1)?, weight.flatten_all()?.to_vec1::<f32>()?);
        return Ok(make(&values, outputs));
    }
    Ok(Weight::Plain(weight.clone()))
}

/// In 8 bits.
fn quantized(weight: &Tensor) -> Result<Weight> {
    let (outputs, weight) = (weight.dim(weight.rank() - 1)?, weight.detach().to_dtype(DType::F32)?);
    let segments = if weight.rank() == 4 { weight.dim(0)? } else { 1 };
    let values = weight.flatten_all()?.to_vec1::<f32>()?;
    let element = |row: usize, column: usize| values[row * outputs + column];
    let lengths = [segments, values.len() / outputs / segments];
    Ok(Weight::Quantized(QuantizedMatrix::new(lengths, outputs, element)))
}

/// In blocks on the weight's device.
fn blocks(weight: &Tensor, kind: BlockType) -> Result<Weight> {
    let columns = weight.dim(weight.rank() - 1)?;
    let values = weight.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let shape = [values.len() / columns, columns];
    let element = |row: usize, column: usize| values[row * columns + column];
    Ok(Weight::Blocks(BlockMatrix::new(kind, shape, element, weight.device())?))
}

/// A ConvNeXt of one block, up to the logarithms of its probabilities.
fn small_network(args: &[Tensor]) -> Result<Tensor> {
    let patches = Window { kernel: 4, stride: 4, padding: Padding::Each(0) };
    let xs = conv(&args[0], &args[1], &args[2], patches, Activation::None, None)?;
    let mixed = depthwise(&xs, &args[3], &args[4], Window::centered(7, 1), Activation::None)?;
    let xs = mlp(&mixed, &mlp_of(&args[5..11]), &xs)?;
    let logits = linear(&global_average_pool(&xs)?, &args[11], &args[12], Activation::None, None)?;
    softmax(&logits)?.log()
}

/// Steps of training, and how far each goes.
const STEPS: usize = 3;
const LEARNING_RATE: f64 = 0.05;

/// The network's answer, and all its weights after some steps of training.
fn training(args: &[Tensor]) -> Result<Tensor> {
    let images = args[0].detach();
    let mut weights = args[1..].iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
    for _ in 0..STEPS {
        weights = trained(&images, &weights)?;
    }
    let answer = small_network(args)?.flatten_all();
    let results = std::iter::once(answer).chain(weights.iter().map(|weight| weight.detach().flatten_all()));
    Tensor::cat(&results.collect::<Result<Vec<_>>>()?, 0)
}

/// One step down the cross entropy, where image n shows class n.
fn trained(images: &Tensor, weights: &[Var]) -> Result<Vec<Var>> {
    let arguments: Vec<Tensor> =
        std::iter::once(images.clone()).chain(weights.iter().map(|weight| weight.as_tensor().clone())).collect();
    let logarithms = small_network(&arguments)?;
    let (count, classes) = logarithms.dims2()?;
    let targets: Vec<f32> = (0..count * classes).map(|at| f32::from(at / classes == at % classes)).collect();
    let targets = Tensor::from_vec(targets, (count, classes), &Device::Cpu)?;
    let targets = targets.to_dtype(images.dtype())?.to_device(images.device())?;
    let loss = ((logarithms * targets)?.sum_all()? * (-1.0 / count as f64))?;
    let gradients = loss.backward()?;
    let step = |weight: &Var| match gradients.get(weight) {
        Some(gradient) => Var::from_tensor(&(weight.detach() - (gradient.detach() * LEARNING_RATE)?)?),
        None => candle_core::bail!("a weight got no gradient"),
    };
    weights.iter().map(step).collect()
}

/// What only inference on the CPU has.
const ON_CPU: [&str; 3] = ["packed", "quantized", "winograd"];

/// What only inference on Metal has.
const ON_METAL: [&str; 1] = ["blocks"];

/// Tries all operations, one at each step of the iterator, and switches off the kernels that fail.
pub fn run(device: &Device) -> impl Iterator<Item = Check> {
    let tried = CASES.chunk_by(|one, next| one.op == next.op);
    let elsewhere: &[&str] = if device.is_cpu() { &ON_METAL } else { &ON_CPU };
    tried.filter(|cases| !elsewhere.contains(&cases[0].op)).flat_map(|cases| check(cases, device))
}

/// The passes of one operation.
fn check(cases: &[Case], device: &Device) -> Vec<Check> {
    let Case { op, tolerance, passes, .. } = cases[0];
    let worst = || cases.iter().map(|case| errors(case, device)).reduce(worse).unwrap_or([0.0; 2]);
    let tried = worst();
    let composed = tried[..passes.len()].iter().any(|error| *error > tolerance).then(|| {
        let had_kernel = uses_kernel(op, device);
        set_kernel(op, device, false);
        if had_kernel { worst() } else { tried }
    });
    let check = |(index, pass): (usize, &&'static str)| Check {
        op,
        pass,
        worst_error: tried[index],
        composed_error: composed.map(|errors| errors[index]),
        tolerance,
        ok: tried[index] <= tolerance,
    };
    passes.iter().enumerate().map(check).collect()
}

/// Switches off the kernels of operations that failed at an earlier run.
pub fn switch_off<'a>(operations: impl IntoIterator<Item = &'a str>, device: &Device) {
    for operation in operations {
        if let Some(case) = CASES.iter().find(|case| case.op == operation) {
            set_kernel(case.op, device, false);
        }
    }
}

fn worse(one: [f32; 2], other: [f32; 2]) -> [f32; 2] {
    [one[0].max(other[0]), one[1].max(other[1])]
}

/// The worst errors forward and backward, with arguments that lie in memory in every way.
fn errors(case: &Case, device: &Device) -> [f32; 2] {
    let one = |view| {
        // A device's driver may panic; then this kernel does not work, and the next may.
        let tried = catch_unwind(AssertUnwindSafe(|| scoped(|| compare(case, device, view))));
        tried.ok().and_then(Result::ok).unwrap_or([f32::INFINITY; 2])
    };
    View::ALL.into_iter().map(one).reduce(worse).unwrap_or([f32::INFINITY; 2])
}

fn compare(case: &Case, device: &Device, view: View) -> Result<[f32; 2]> {
    let seeds = 30..;
    let stored = case.shapes.iter().zip(seeds).map(|(shape, seed)| random(&view.stored(shape), seed));
    let stored = stored.collect::<Result<Vec<_>>>()?;
    let exact = Pass::new(&stored, DType::F64, &Device::Cpu, case, view)?;
    let ours = Pass::new(&stored, DType::F32, device, case, view)?;
    // Not tracked, an operation may run as one kernel.
    let arguments = stored.iter().map(|stored| view.of(&stored.to_device(device)?));
    let fused = (case.compute)(&arguments.collect::<Result<Vec<_>>>()?)?;
    let forward = error(&ours.result, &exact.result)?.max(error(&fused, &exact.result)?);
    let mut backward = 0f32;
    for (ours, exact) in ours.gradients.iter().zip(&exact.gradients) {
        backward = backward.max(error(ours, exact)?);
    }
    Ok([forward, backward])
}

/// A result, and the gradients of all arguments.
struct Pass {
    result: Tensor,
    gradients: Vec<Tensor>,
}

impl Pass {
    fn new(stored: &[Tensor], kind: DType, device: &Device, case: &Case, view: View) -> Result<Self> {
        let stored = stored.iter().map(|stored| Var::from_tensor(&stored.to_dtype(kind)?.to_device(device)?));
        let stored = stored.collect::<Result<Vec<_>>>()?;
        let arguments = stored.iter().map(|stored| view.of(stored)).collect::<Result<Vec<_>>>()?;
        let result = (case.compute)(&arguments)?;
        let weights = random(result.dims(), 29)?.to_dtype(kind)?.to_device(device)?;
        let gradients = (&result * weights)?.sum_all()?.backward()?;
        let zeros =
            |stored: &Var| gradients.get(stored).map_or_else(|| stored.zeros_like(), |found| Ok(found.detach()));
        let gradients = stored.iter().map(zeros).collect::<Result<Vec<_>>>()?;
        Ok(Self { result: result.detach(), gradients })
    }
}

/// The largest difference, measured by the largest element where that is above 1.
fn error(ours: &Tensor, exact: &Tensor) -> Result<f32> {
    if ours.dims() != exact.dims() {
        return Ok(f32::INFINITY);
    }
    let ours = ours.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
    let exact = exact.flatten_all()?.to_vec1::<f64>()?;
    let scale = exact.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
    let differences = ours.iter().zip(&exact).map(|(a, b)| (f64::from(*a) - b).abs() / scale);
    // A NaN would lose every comparison.
    Ok(differences.fold(0.0, |worst: f64, next| if next.is_finite() { worst.max(next) } else { f64::INFINITY }) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_passes_on_the_cpu() {
        let checks: Vec<Check> = run(&Device::Cpu).collect();
        assert!(checks.iter().all(|check| check.ok && check.composed_error.is_none()), "{checks:#?}");
        assert!(checks.iter().all(|check| check.worst_error < TOLERANCE / 10.0), "{checks:#?}");
        assert_eq!(checks.iter().filter(|check| check.pass == "backward").count(), 19);
        assert_eq!(checks.iter().filter(|check| check.op == "update").count(), 1);
    }

    #[test]
    fn a_wrong_result_a_failure_and_a_panic_do_not_pass() {
        let wrong = case("wrong", &[&[4]], |args| match args[0].dtype() {
            DType::F64 => Ok(args[0].clone()),
            _ => &args[0] * 1.01,
        });
        let [forward, backward] = errors(&wrong, &Device::Cpu);
        assert!(forward > TOLERANCE && backward > TOLERANCE);
        let failing = case("failing", &[&[4]], |_| candle_core::bail!("not today"));
        assert_eq!(errors(&failing, &Device::Cpu), [f32::INFINITY; 2]);
        let panicking = case("panicking", &[&[4]], |_| panic!("on purpose"));
        assert_eq!(errors(&panicking, &Device::Cpu), [f32::INFINITY; 2]);
        let no_number = case("no number", &[&[4]], |args| args[0].affine(1.0, f64::NAN));
        assert_eq!(errors(&no_number, &Device::Cpu)[0], f32::INFINITY);
    }
}
