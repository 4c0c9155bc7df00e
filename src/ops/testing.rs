//! Material for operation tests: seeded random tensors, views of every kind, and comparison.

use candle_core::{Device, Result, Tensor};

/// The same values for the same shape and seed, in [-1, 1).
pub fn random(shape: &[usize], seed: u64) -> Result<Tensor> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let values: Vec<f32> = (0..shape.iter().product::<usize>())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// Tensors of one shape: contiguous, offset in a larger one, and with its first and last axes stored swapped.
pub fn views(shape: &[usize]) -> Result<[Tensor; 3]> {
    let mut longer = shape.to_vec();
    longer[0] += 1;
    let mut swapped = shape.to_vec();
    swapped.swap(0, shape.len() - 1);
    let offset = random(&longer, 11)?.narrow(0, 1, shape[0])?;
    let strided = random(&swapped, 12)?.transpose(0, shape.len() - 1)?;
    Ok([random(shape, 10)?, offset, strided])
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

/// NHWC to candle's NCHW.
pub fn to_nchw(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 3, 1, 2))?.contiguous()
}

/// candle's NCHW to NHWC.
pub fn to_nhwc(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 2, 3, 1))?.contiguous()
}
