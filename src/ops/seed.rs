//! Where backward begins: at a tensor whose gradient is already known.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::output;

/// The gradients of everything `result` was computed from, when its own is `gradient`, of the same shape.
pub fn gradients_of(result: &Tensor, gradient: &Tensor) -> Result<GradStore> {
    if result.dims() != gradient.dims() {
        candle_core::bail!("a gradient of shape {:?} for a result of {:?}", gradient.dims(), result.dims());
    }
    let gradient = gradient.detach();
    if !result.device().is_cpu() {
        return (result * gradient)?.sum_all()?.backward();
    }
    result.apply_op1(Seed { gradient })?.backward()
}

/// A number that stands for all of a result: candle begins at a single one only.
struct Seed {
    gradient: Tensor,
}

impl CustomOp1 for Seed {
    fn name(&self) -> &'static str {
        "seed"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(output(vec![0.0], ()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.gradient.clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::ops::testing::{assert_close, random};

    #[test]
    fn gradients_begin_where_they_are_told() -> Result<()> {
        let x = Var::from_tensor(&random(&[3, 5], 1)?)?;
        let gradient = random(&[3, 5], 2)?;
        let gradients = gradients_of(&x.sqr()?, &gradient)?;
        let oracle = ((x.as_detached_tensor() * gradient)? * 2.0)?;
        assert_close(gradients.get(&x).unwrap(), &oracle, 1e-6)?;
        assert!(gradients_of(&x.sqr()?, &random(&[5, 3], 2)?).is_err());
        Ok(())
    }
}
