//! Layers that take their gradients themselves: without a graph of operations, whose every edge costs a pass over memory.

mod conv;
mod linear;
mod mlp;
mod norm;
mod pool;

use candle_core::{Result, Tensor};

use super::Phase;

pub use conv::{KeptConv, TrainedConv};
pub use linear::KeptLinear;
pub use mlp::KeptMlp;
pub use norm::KeptNorm;
pub use pool::KeptPool;

/// A layer in training. What it computes equals its [`forward`](super::layers::Layer::forward) up to rounding.
pub trait Learn {
    /// The output, and what backward needs.
    fn keep(&self, xs: &Tensor, phase: Phase) -> Result<(Tensor, Box<dyn Backward + '_>)>;

    /// The output alone.
    fn pass(&self, xs: &Tensor, phase: Phase) -> Result<Tensor> {
        Ok(self.keep(xs, phase)?.0)
    }

    /// What backward needs alone, of an input that has passed already.
    fn again(&self, xs: &Tensor) -> Result<Box<dyn Backward + '_>> {
        Ok(self.keep(xs, Phase::TrainAgain)?.1)
    }
}

/// What a layer kept of a pass.
pub trait Backward {
    /// Reports the gradient of every parameter, and returns that of the input if it is wanted, given the output's.
    fn back(self: Box<Self>, upstream: &Tensor, wants_input: bool, found: &mut Found) -> Result<Option<Tensor>>;
}

/// Gradients by the parameter they are of; also of tensors that do not train.
#[derive(Default)]
pub struct Found(pub Vec<(Tensor, Tensor)>);

impl Found {
    pub fn add(&mut self, parameter: &Tensor, gradient: Tensor) {
        self.0.push((parameter.clone(), gradient));
    }

    /// The gradient of `parameter`, taken out.
    pub fn take(&mut self, parameter: &Tensor) -> Option<Tensor> {
        let place = self.0.iter().position(|(one, _)| one.id() == parameter.id())?;
        Some(self.0.swap_remove(place).1)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::models::{Network, RandomWeights, Strictness, build_trainable, named};
    use crate::ops::gradients_of;
    use crate::ops::testing::random;

    fn network(name: &str) -> Network {
        let architecture = named(name, 5).unwrap();
        let weights = RandomWeights::of(&architecture).unwrap();
        build_trainable(&weights, &architecture, Strictness::Strict, 0, &Device::Cpu).unwrap().0
    }

    fn difference(one: &Tensor, other: &Tensor) -> Result<f32> {
        assert_eq!(one.dims(), other.dims());
        let scale = other.abs()?.max_all()?.to_scalar::<f32>()?.max(1e-3);
        Ok((one.detach() - other.detach())?.abs()?.max_all()?.to_scalar::<f32>()? / scale)
    }

    /// Every block that takes its gradients itself, against its own graph of operations, whose gradients are proven.
    #[test]
    fn gradients_equal_those_of_the_graph() {
        let mut learning = 0;
        for name in [
            "convnext_atto",
            "mobilenetv3_small_100",
            "mobilenetv2_100",
            "efficientnet_b0",
            "resnet18",
            "resnet50",
            "squeezenet1_0",
            "squeezenet1_1",
            "vit_tiny_patch16_224",
        ] {
            let network = network(name);
            // A vision transformer takes images of one size only.
            let (photos, side) = if name.starts_with("vit") { (2, 224) } else { (3, 40) };
            let mut xs = random(&[photos, side, side, 3], 1).unwrap();
            for block in &network.blocks {
                let graph_input = Var::from_tensor(&xs).unwrap();
                let graph = block.forward_in(Phase::TrainAgain, graph_input.as_tensor().clone()).unwrap();
                let ys = graph.detach();
                if let Some(learn) = block.learn(&xs) {
                    learning += 1;
                    let upstream = random(ys.dims(), 2).unwrap();
                    let gradients = gradients_of(&graph, &upstream).unwrap();
                    let (kept, backward) = learn.keep(&xs, Phase::TrainAgain).unwrap();
                    let passed = learn.pass(&xs, Phase::TrainAgain).unwrap();
                    for ours in [kept, passed] {
                        assert!(difference(&ours, &ys).unwrap() < 1e-4, "{name} {}", block.name);
                    }
                    for backward in [backward, learn.again(&xs).unwrap()] {
                        let mut found = Found::default();
                        let of_input = backward.back(&upstream, true, &mut found).unwrap().unwrap();
                        let oracle = gradients.get(&graph_input).unwrap();
                        assert!(difference(&of_input, oracle).unwrap() < 2e-4, "{name} {} input", block.name);
                        for parameter in &network.learned[block.learned.clone()] {
                            let ours = found.take(&parameter.var).unwrap();
                            let oracle = gradients.get(&parameter.var).unwrap();
                            let difference = difference(&ours, oracle).unwrap();
                            assert!(difference < 5e-4, "{name} {}: {difference}", parameter.name);
                        }
                    }
                }
                xs = ys;
            }
        }
        assert!(learning > 72, "{learning} blocks");
    }
}
