//! Matrix products with a bias: Galley's linear layer beside the crates `gemm` and `rten-gemm`, in GFLOP/s, on one thread
//! and on two, on the products of ConvNeXt-Tiny (its MLPs) and ResNet-50 (its 1×1 convolutions) at batch 8.
//!
//! Galley and rten-gemm get their weights packed beforehand and add the bias in the kernel; `gemm` packs each time and
//! gets the bias as what it adds to. Galley's time includes taking and giving back the memory of its result.

mod alternate;

use std::mem::MaybeUninit;

use candle_core::{Device, Result, Tensor};
use galley::ops::{Activation, PackedMatrix, Weight};
use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmUninitOptions};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;

/// Pixels of the picture at each stage, and its channels.
const CONVNEXT_TINY: [(usize, usize); 4] = [(56 * 56, 96), (28 * 28, 192), (14 * 14, 384), (7 * 7, 768)];
const RESNET_50: [(usize, usize); 4] = [(56 * 56, 64), (28 * 28, 128), (14 * 14, 256), (7 * 7, 512)];
const BATCH: usize = 8;

struct Product {
    rows: usize,
    inputs: usize,
    outputs: usize,
}

/// Each stage widens its channels four times and narrows them again.
fn products(stages: [(usize, usize); 4]) -> impl Iterator<Item = Product> {
    stages.into_iter().flat_map(|(pixels, channels)| {
        [(channels, 4 * channels), (4 * channels, channels)].map(|(inputs, outputs)| Product {
            rows: BATCH * pixels,
            inputs,
            outputs,
        })
    })
}

/// Numbers in [-0.5, 0.5) that never form a pattern along a row.
fn values(count: usize) -> Vec<f32> {
    (0..count as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 - 0.5).collect()
}

fn assert_close(ours: &[f32], theirs: &[f32]) {
    let difference = ours.iter().zip(theirs).map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f32::max);
    assert!(difference < 1e-3, "they differ by {difference}");
}

/// GFLOP/s of Galley, `gemm` and `rten-gemm` on the threads of the pool this runs in.
fn measure(product: &Product) -> Result<[f64; 3]> {
    let Product { rows, inputs, outputs } = *product;
    let (x, weight, bias) = (values(rows * inputs), values(inputs * outputs), values(outputs));

    let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu);
    let packed = Weight::Packed(PackedMatrix::from_tensor(&tensor(&weight, &[inputs, outputs])?)?);
    let (x_tensor, bias_tensor) = (tensor(&x, &[rows, inputs])?, tensor(&bias, &[outputs])?);
    let linear = || packed.linear(&x_tensor, &bias_tensor, Activation::None, None);

    let threads = rayon::current_num_threads();
    let parallelism = if threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(threads) };
    let mut product = vec![0.0; rows * outputs];
    let mut by_gemm = || {
        product.chunks_exact_mut(outputs).for_each(|row| row.copy_from_slice(&bias));
        let (to, from, by) = (product.as_mut_ptr(), x.as_ptr(), weight.as_ptr());
        let (wide, deep) = (outputs as isize, inputs as isize);
        // SAFETY: the three matrices are row-major and have as many values as their sizes say.
        unsafe {
            gemm::gemm(
                rows,
                outputs,
                inputs,
                to,
                1,
                wide,
                true,
                from,
                1,
                deep,
                by,
                1,
                wide,
                1.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
    };

    let executor = GemmExecutor::<f32>::default();
    let prepacked = executor.prepack_b(NdTensor::from_data([inputs, outputs], weight.clone()).view());
    let matrix = NdTensor::from_data([rows, inputs], x.clone());
    let mut space = vec![MaybeUninit::uninit(); rows * outputs];
    let mut by_rten = || {
        let options =
            GemmUninitOptions { alpha: 1.0, bias: Some(BiasVector::Row(&bias)), a_quant: None, b_quant: None };
        let (a, b) = (GemmInputA::Unpacked(matrix.view()), GemmInputB::Packed(&prepacked));
        executor.gemm_uninit(&mut space, a, b, options).expect("the sizes fit").len()
    };

    let mut failed = None;
    let seconds = alternate::seconds([&mut || failed = linear().err().or(failed.take()), &mut by_gemm, &mut || {
        _ = std::hint::black_box(by_rten())
    }]);
    failed.map_or(Ok(()), Err)?;
    let ours = linear()?.flatten_all()?.to_vec1::<f32>()?;
    assert_close(&ours, &product);
    // SAFETY: the last pass wrote all of it.
    assert_close(&ours, unsafe { space.assume_init_ref() });
    Ok(seconds.map(|seconds| 2e-9 * (rows * inputs * outputs) as f64 / seconds))
}

fn main() -> Result<()> {
    galley::memory::heap::tune();
    for threads in [1, 2] {
        println!("{threads} thread(s), GFLOP/s: rows·inputs·outputs       Galley      gemm rten-gemm");
        let mut ratios = [Vec::new(), Vec::new()];
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(candle_core::Error::wrap)?;
        for (network, stages) in [("ConvNeXt-Tiny", CONVNEXT_TINY), ("ResNet-50", RESNET_50)] {
            for product in products(stages) {
                let [ours, gemm, rten] = pool.install(|| measure(&product))?;
                let shape = format!("{}·{}·{}", product.rows, product.inputs, product.outputs);
                println!("{network:24}{shape:>24}{ours:10.1}{gemm:10.1}{rten:10.1}");
                ratios[0].push(ours / gemm);
                ratios[1].push(ours / rten);
            }
        }
        let [gemm, rten] = ratios.map(|mut ratios| {
            ratios.sort_by(f64::total_cmp);
            ratios[ratios.len() / 2]
        });
        println!("median: Galley is {gemm:.2} x gemm, {rten:.2} x rten-gemm");
    }
    Ok(())
}
