//! Material for operation tests: comparison, and the chain that proves gradients.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};

use super::samples::View;
use super::window::{Padding, Window};

pub use super::samples::random;

/// Tensors of one shape: contiguous, offset in a larger one, and with its first and last axes stored swapped.
pub fn views(shape: &[usize]) -> Result<[Tensor; 3]> {
    let [whole, offset, swapped] = View::ALL;
    let view = |view: View, seed| view.of(&random(&view.stored(shape), seed)?);
    Ok([view(whole, 10)?, view(offset, 11)?, view(swapped, 12)?])
}

/// Largest absolute difference is at most `tolerance`, and shapes are equal.
pub fn assert_close(ours: &Tensor, oracle: &Tensor, tolerance: f32) -> Result<()> {
    assert_eq!(ours.dims(), oracle.dims());
    assert!(ours.is_contiguous(), "results are contiguous");
    let ours = ours.flatten_all()?.to_vec1::<f32>()?;
    let oracle = oracle.flatten_all()?.to_vec1::<f32>()?;
    for (index, (a, b)) in ours.iter().zip(&oracle).enumerate() {
        assert!((a - b).abs() <= tolerance, "element {index}: {a} instead of {b}");
    }
    Ok(())
}

/// An operation on arguments of the shapes it is tested with.
pub trait Operation: Fn(&[Tensor]) -> Result<Tensor> {}
impl<F: Fn(&[Tensor]) -> Result<Tensor>> Operation for F {}

/// Proves the gradients of `operation` for arguments of `shapes`.
///
/// In f64 operations run composed: those gradients are compared with central differences. In f32 kernels run: their
/// results and gradients are compared with the composed ones, for views of every kind, with each argument tracked alone
/// and all together; nothing else may get a gradient, and a second run must repeat every bit.
pub fn assert_gradients(shapes: &[&[usize]], operation: impl Operation) -> Result<()> {
    for view in View::ALL {
        let seeds = 20..;
        let stored = shapes.iter().zip(seeds).map(|(shape, seed)| random(&view.stored(shape), seed));
        let stored = stored.collect::<Result<Vec<_>>>()?;
        let exact = stored.iter().map(|values| values.to_dtype(DType::F64)).collect::<Result<Vec<_>>>()?;
        let all = vec![true; shapes.len()];
        let oracle = Run::new(&exact, &all, view, &operation)?;
        if view == View::Whole {
            assert_equal_differences(&exact, &oracle, &operation)?;
        }
        let untracked = Run::new(&stored, &vec![false; shapes.len()], view, &operation)?;
        assert_near("untracked result", &untracked.result, &oracle.result)?;
        let each = (0..shapes.len()).map(|one| (0..shapes.len()).map(|index| index == one).collect());
        for tracked in each.chain([all]) {
            let tracked: Vec<bool> = tracked;
            let [run, again] = [(); 2].map(|()| Run::new(&stored, &tracked, view, &operation));
            let (run, again) = (run?, again?);
            assert!(run.result.is_contiguous(), "results are contiguous");
            assert_near("result", &run.result, &oracle.result)?;
            // One more for the numbers the result is multiplied with.
            let wanted = tracked.iter().filter(|tracked| **tracked).count() + 1;
            assert_eq!(run.gradients.get_ids().count(), wanted, "{view:?}: gradients for {tracked:?} alone");
            for index in (0..shapes.len()).filter(|index| tracked[*index]) {
                let name = format!("{view:?}, gradient {index} of {tracked:?}");
                let ours = run.gradient(index);
                assert_near(&name, ours, oracle.gradient(index))?;
                let bits = |x: &Tensor| x.flatten_all()?.to_vec1::<f32>();
                let (one, other) = (bits(ours)?, bits(again.gradient(index))?);
                assert!(one.iter().zip(&other).all(|(a, b)| a.to_bits() == b.to_bits()), "{name} repeats");
            }
        }
    }
    Ok(())
}

/// One forward and backward pass.
struct Run {
    stored: Vec<Tensor>,
    result: Tensor,
    gradients: GradStore,
}

impl Run {
    fn new(values: &[Tensor], tracked: &[bool], view: View, operation: &impl Operation) -> Result<Self> {
        let track = |(values, tracked): (&Tensor, &bool)| {
            if *tracked { Ok(Var::from_tensor(values)?.into_inner()) } else { Ok(values.clone()) }
        };
        let stored = values.iter().zip(tracked).map(track).collect::<Result<Vec<_>>>()?;
        let arguments = stored.iter().map(|stored| view.of(stored)).collect::<Result<Vec<_>>>()?;
        let result = operation(&arguments)?;
        let gradients = loss(&result, view)?.backward()?;
        Ok(Self { stored, result: result.detach(), gradients })
    }

    fn gradient(&self, index: usize) -> &Tensor {
        self.gradients.get(&self.stored[index]).expect("a tracked argument has a gradient")
    }
}

/// A number that depends on every element of `result`; `view` tells how the gradient will lie.
fn loss(result: &Tensor, view: View) -> Result<Tensor> {
    let result = if view == View::Swapped { view.of(result)? } else { result.clone() };
    (&result * random(result.dims(), 99)?.to_dtype(result.dtype())?)?.sum_all()
}

/// Compares with `(loss(x + h) - loss(x - h)) / 2h` for some elements of every argument.
fn assert_equal_differences(arguments: &[Tensor], run: &Run, operation: &impl Operation) -> Result<()> {
    const STEP: f64 = 1e-5;
    for (index, argument) in arguments.iter().enumerate() {
        let values = argument.flatten_all()?.to_vec1::<f64>()?;
        let gradient = run.gradient(index).flatten_all()?.to_vec1::<f64>()?;
        // A step without common factors with the shapes visits every channel and edge.
        for element in (0..values.len()).step_by(values.len() / 29 + 1) {
            let moved = |by: f64| {
                let mut values = values.clone();
                values[element] += by;
                let mut arguments = arguments.to_vec();
                arguments[index] = Tensor::from_vec(values, argument.shape(), &Device::Cpu)?;
                loss(&operation(&arguments)?, View::Whole)?.to_scalar::<f64>()
            };
            let difference = (moved(STEP)? - moved(-STEP)?) / (2.0 * STEP);
            let ours = gradient[element];
            let error = (ours - difference).abs();
            assert!(error < 1e-7 * difference.abs().max(1.0), "argument {index}, {element}: {ours}, not {difference}");
        }
    }
    Ok(())
}

/// Single precision's distance at most, measured by the largest element.
fn assert_near(name: &str, ours: &Tensor, oracle: &Tensor) -> Result<()> {
    assert_eq!(ours.dims(), oracle.dims(), "{name}");
    let ours = ours.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let oracle = oracle.flatten_all()?.to_vec1::<f64>()?;
    let scale = oracle.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
    for (index, (a, b)) in ours.iter().zip(&oracle).enumerate() {
        assert!((a - b).abs() <= 1e-5 * scale, "{name}, element {index}: {a} instead of {b}");
    }
    Ok(())
}

/// NHWC to candle's NCHW.
pub fn to_nchw(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 3, 1, 2))?.contiguous()
}

/// candle's NCHW to NHWC.
pub fn to_nhwc(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 2, 3, 1))?.contiguous()
}

/// candle's own convolution. `groups` counts channel groups (depthwise: one per channel).
pub fn candle_conv(x: &Tensor, weight: &Tensor, bias: &Tensor, window: Window, groups: usize) -> Result<Tensor> {
    let geometry = window.over(x.dims())?;
    // candle pads all sides alike: pad by hand.
    let after = |before: usize, length: usize, outputs: usize| {
        ((outputs - 1) * window.stride + window.kernel).saturating_sub(length + before)
    };
    let bottom = after(geometry.top, geometry.height, geometry.out_height);
    let right = after(geometry.left, geometry.width, geometry.out_width);
    let x = to_nchw(x)?.pad_with_zeros(2, geometry.top, bottom)?.pad_with_zeros(3, geometry.left, right)?;
    let weight = weight.permute((3, 2, 0, 1))?.contiguous()?; // (outputs, inputs, kernel, kernel)
    to_nhwc(&x.conv2d(&weight, 0, window.stride, 1, groups)?)?.broadcast_add(bias)
}

/// Windows of every kind that networks' dense convolutions have.
pub fn conv_windows() -> impl Iterator<Item = Window> {
    let each = |(kernel, stride, padding)| Window { kernel, stride, padding: Padding::Each(padding) };
    let same = |(kernel, stride)| Window { kernel, stride, padding: Padding::Same };
    let padded = [(1, 1, 0), (1, 2, 0), (2, 2, 0), (4, 4, 0), (3, 1, 1), (3, 2, 1), (7, 2, 3), (7, 2, 0)];
    padded.into_iter().map(each).chain([(3, 2), (5, 2), (3, 1)].into_iter().map(same))
}
