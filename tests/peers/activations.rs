//! Activations and softmax on one thread: Galley beside the crate `rten-vecmath`, in nanoseconds per value, with the
//! greatest difference to f64 for inputs in [-10, 10].

mod alternate;

use candle_core::{DType, Device, Result, Tensor};
use galley::ops::{self, Activation};
use rten_simd::{SimdOp, SimdUnaryOp};
use rten_vecmath::{ApproxGelu, Gelu, Sigmoid, Silu, Softmax};

/// 16 KiB: these and their copy stay in the first-level cache.
const COUNT: usize = 4096;
/// The attention of a ViT at 224 pixels.
const SOFTMAX_LENGTH: usize = 197;

type Exact = fn(&Tensor) -> Result<Tensor>;

fn exact_sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

/// The greatest difference of what `apply` makes of `inputs` to what `exact` says in f64.
fn error(inputs: &[f32], apply: &mut dyn FnMut(&mut [f32]), exact: Exact) -> Result<f64> {
    let mut values = inputs.to_vec();
    apply(&mut values);
    let exact = exact(&Tensor::new(inputs, &Device::Cpu)?.to_dtype(DType::F64)?)?;
    let values = Tensor::new(values, &Device::Cpu)?.to_dtype(DType::F64)?;
    (values - exact)?.abs()?.max_all()?.to_scalar()
}

fn compare(name: &str, ours: &mut dyn FnMut(&mut [f32]), rten: &mut dyn FnMut(&mut [f32]), exact: Exact) -> Result<()> {
    let inputs: Vec<f32> = (0..COUNT).map(|index| index as f32 * (20.0 / COUNT as f32) - 10.0).collect();
    let errors = [error(&inputs, ours, exact)?, error(&inputs, rten, exact)?];
    let mut values = [inputs.clone(), inputs.clone()];
    let [ours_values, rten_values] = &mut values;
    let seconds = alternate::seconds([
        &mut || {
            ours_values.copy_from_slice(&inputs);
            ours(ours_values);
        },
        &mut || {
            rten_values.copy_from_slice(&inputs);
            rten(rten_values);
        },
    ]);
    print_line(name, seconds.map(|seconds| seconds * 1e9 / COUNT as f64), errors);
    Ok(())
}

fn print_line(name: &str, [ours, rten]: [f64; 2], [our_error, rten_error]: [f64; 2]) {
    println!("{name:10}{ours:10.3}{rten:14.3}{our_error:14.1e}{rten_error:14.1e}");
}

fn softmax() -> Result<()> {
    let rows = Tensor::rand(-10f32, 10.0, (SOFTMAX_LENGTH, SOFTMAX_LENGTH), &Device::Cpu)?;
    let inputs = rows.flatten_all()?.to_vec1::<f32>()?;
    let mut values = inputs.clone();
    let mut failed = None;
    let seconds = alternate::seconds([&mut || failed = ops::softmax(&rows).err().or(failed.take()), &mut || {
        values.copy_from_slice(&inputs);
        values.chunks_exact_mut(SOFTMAX_LENGTH).for_each(|row| _ = Softmax::new_mut(row).dispatch());
    }]);
    failed.map_or(Ok(()), Err)?;
    let exponentials = rows.to_dtype(DType::F64)?.exp()?;
    let exact = exponentials.broadcast_div(&exponentials.sum_keepdim(1)?)?;
    let difference = |values: Tensor| (values.to_dtype(DType::F64)? - &exact)?.abs()?.max_all()?.to_scalar();
    let errors =
        [difference(ops::softmax(&rows)?)?, difference(Tensor::from_vec(values, rows.shape(), &Device::Cpu)?)?];
    print_line("softmax", seconds.map(|seconds| seconds * 1e9 / inputs.len() as f64), errors);
    Ok(())
}

fn main() -> Result<()> {
    galley::memory::heap::tune();
    println!("ns/value      Galley  rten-vecmath  Galley error    rten error");
    let ours = |activation: Activation| move |values: &mut [f32]| activation.apply(values);
    let (gelu, tanh): (Exact, Exact) = (|x| x.gelu_erf(), |x| x.gelu());
    compare("GELU", &mut ours(Activation::Gelu), &mut |values| Gelu {}.map_mut(values), gelu)?;
    compare("GELU tanh", &mut ours(Activation::GeluTanh), &mut |values| ApproxGelu {}.map_mut(values), tanh)?;
    compare("SiLU", &mut ours(Activation::Silu), &mut |values| Silu {}.map_mut(values), |x| x * exact_sigmoid(x)?)?;
    compare("sigmoid", &mut ours(Activation::Sigmoid), &mut |values| Sigmoid {}.map_mut(values), exact_sigmoid)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(candle_core::Error::wrap)?;
    pool.install(softmax)
}
