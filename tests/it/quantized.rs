//! Networks with weights in 8 and 4 bits, from files that hold such and rounded while loading.

use std::collections::BTreeMap;

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor};
use galley::checkpoint::Checkpoint;
use galley::models::{self, Loading, Network, Precision, Strictness};
use galley::predict::STARTER;

/// The starter model as a gguf file whose convolutions and linear layers are quantized, rows padded to whole blocks.
fn starter_in(kind: GgmlDType) -> Vec<u8> {
    as_gguf(&Checkpoint::from_static("the starter model", STARTER).unwrap(), kind)
}

/// A checkpoint in the same form.
pub fn as_gguf(checkpoint: &Checkpoint, kind: GgmlDType) -> Vec<u8> {
    let mut tensors = Vec::new();
    let mut metadata = BTreeMap::new();
    for info in checkpoint.tensors().iter().filter(|info| !info.shape.is_empty()) {
        let values = checkpoint.read_f32(&info.name).unwrap();
        let is_depthwise = info.shape.len() == 4 && info.shape[1] == 1;
        let tensor = Tensor::from_vec(values, info.shape.as_slice(), &Device::Cpu).unwrap();
        let tensor = if info.shape.len() < 2 || is_depthwise {
            QTensor::quantize(&tensor, GgmlDType::F32).unwrap()
        } else {
            let rows = if tensor.rank() == 4 { tensor.permute((0, 2, 3, 1)).unwrap() } else { tensor };
            let rows = rows.contiguous().unwrap().flatten_from(1).unwrap();
            let padding = rows.dim(1).unwrap().next_multiple_of(32) - rows.dim(1).unwrap();
            let shape = info.shape.iter().map(|size| gguf_file::Value::U32(*size as u32)).collect();
            metadata.insert(format!("galley.shape.{}", info.name), gguf_file::Value::Array(shape));
            QTensor::quantize(&rows.pad_with_zeros(1, 0, padding).unwrap(), kind).unwrap()
        };
        tensors.push((info.name.as_str(), tensor));
    }
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let mut bytes = std::io::Cursor::new(Vec::new());
    gguf_file::write(&mut bytes, &metadata, &tensors).unwrap();
    bytes.into_inner()
}

fn build(checkpoint: &Checkpoint, precision: Precision) -> Network {
    let architecture = models::detect(checkpoint.tensors()).unwrap();
    let loading = Loading { strictness: Strictness::Strict, precision };
    let (network, report) = models::build(checkpoint, &architecture, loading, &Device::Cpu).unwrap();
    assert!(report.is_whole());
    network
}

fn logits(network: &Network, images: usize) -> Vec<f32> {
    let values: Vec<f32> = (0..images * 96 * 96 * 3).map(|n| (n as f32 * 0.011).sin() * 1.5).collect();
    let pixels = Tensor::from_vec(values, (images, 96, 96, 3), &Device::Cpu).unwrap();
    network.forward(&pixels).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, as a share of the largest logit.
fn difference(ours: &[f32], exact: &[f32]) -> f32 {
    let largest = exact.iter().fold(0.0f32, |most, logit| most.max(logit.abs()));
    ours.iter().zip(exact).fold(0.0f32, |most, (one, other)| most.max((one - other).abs())) / largest
}

#[test]
fn blocks_of_a_file_are_multiplied_as_they_are() {
    for kind in [GgmlDType::Q8_0, GgmlDType::Q4_0] {
        let checkpoint = Checkpoint::from_bytes("starter.gguf", starter_in(kind)).unwrap();
        let exact = logits(&build(&checkpoint, Precision::F32), 3);
        // The same weights: only the rows between the layers are rounded.
        let ours = logits(&build(&checkpoint, Precision::Stored), 3);
        assert_ne!(ours, exact);
        assert!(difference(&ours, &exact) < 0.03, "{kind:?}: {}", difference(&ours, &exact));
    }
}

#[test]
fn floats_rounded_while_loading_give_nearly_the_same_logits() {
    let checkpoint = Checkpoint::from_static("the starter model", STARTER).unwrap();
    let exact = logits(&build(&checkpoint, Precision::Stored), 3);
    assert_eq!(exact, logits(&build(&checkpoint, Precision::F32), 3));
    for (precision, allowed) in [(Precision::Int8, 0.05), (Precision::Int4, 0.5)] {
        let ours = logits(&build(&checkpoint, precision), 3);
        assert!(difference(&ours, &exact) < allowed, "{precision:?}: {}", difference(&ours, &exact));
    }
}
