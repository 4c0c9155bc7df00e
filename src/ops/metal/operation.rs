//! An operation that can be differentiated: a program for its result, and one for each argument's gradient.

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, MetalStorage, Result, Shape, Tensor};

use super::program::Program;
use super::{execute, run};

/// What a gradient's program takes as an input.
#[derive(Debug, Clone, Copy)]
pub enum Read {
    Argument(usize),
    /// The gradient of the operation's result.
    Upstream,
}

#[derive(Debug, Clone)]
pub struct Gradient {
    pub program: Program,
    pub reads: Vec<Read>,
}

#[derive(Debug, Clone)]
pub struct Operation {
    pub name: &'static str,
    /// Of the result.
    pub shape: Vec<usize>,
    pub result: Program,
    /// One for each argument, in their order.
    pub gradients: Vec<Gradient>,
}

impl Operation {
    /// The gradient of an argument, if it is tracked.
    fn gradient(&self, index: usize, arguments: &[&Tensor], upstream: &Tensor) -> Result<Option<Tensor>> {
        if !arguments[index].track_op() {
            return Ok(None);
        }
        let Gradient { program, reads } = &self.gradients[index];
        let reads = reads.iter().map(|read| match read {
            Read::Argument(index) => arguments[*index],
            Read::Upstream => upstream,
        });
        run(program, &reads.collect::<Vec<_>>(), arguments[index].dims()).map(Some)
    }

    fn forward(&self, arguments: &[(&MetalStorage, &Layout)]) -> Result<(MetalStorage, Shape)> {
        Ok((execute(&self.result, arguments)?, Shape::from(self.shape.as_slice())))
    }

    fn not_here<R>(&self) -> Result<R> {
        candle_core::bail!("the {} of Metal was given a tensor of another device", self.name)
    }
}

impl CustomOp1 for Operation {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.not_here()
    }

    fn metal_fwd(&self, x: &MetalStorage, layout: &Layout) -> Result<(MetalStorage, Shape)> {
        self.forward(&[(x, layout)])
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        self.gradient(0, &[x], upstream)
    }
}

impl CustomOp3 for Operation {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.not_here()
    }

    fn metal_fwd(
        &self,
        x: &MetalStorage,
        x_layout: &Layout,
        weight: &MetalStorage,
        weight_layout: &Layout,
        bias: &MetalStorage,
        bias_layout: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        self.forward(&[(x, x_layout), (weight, weight_layout), (bias, bias_layout)])
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = |index| self.gradient(index, &[x, weight, bias], upstream);
        Ok((gradient(0)?, gradient(1)?, gradient(2)?))
    }
}
