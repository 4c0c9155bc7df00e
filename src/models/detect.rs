//! Recognises a network: the known one whose tensor names and shapes the file shares most of.

use std::collections::HashMap;

use super::catalog::{Candidate, Family, candidates};
use super::source::{is_ignorable, same_shape};
use super::{Architecture, LoadReport, ModelError, Naming, asked, head, strangers, tensor_count};
use crate::checkpoint::{TensorInfo, TensorKind};

/// Which network a checkpoint holds, from its tensors' names and shapes alone.
pub fn detect(tensors: &[TensorInfo]) -> Result<Architecture, ModelError> {
    detect_with_hint(tensors, None)
}

/// The same with the architecture's name from the file's metadata or its `config.json`.
///
/// The name decides only where tensors cannot: timm's TensorFlow weights (`tf_…`) pad differently under the same names.
pub fn detect_with_hint(tensors: &[TensorInfo], hint: Option<&str>) -> Result<Architecture, ModelError> {
    let held = weights(tensors);
    let unknown =
        || ModelError::Unknown { looks_like: strangers::looks_like(tensors), layers: strangers::summary(tensors) };
    let hint = hint.map(|hint| hint.split('.').next().unwrap_or(hint).trim_start_matches("timm/"));
    if strangers::is_lookalike(hint) {
        return Err(unknown());
    }
    let mut best: Option<(f64, usize, Candidate)> = None;
    for candidate in candidates() {
        let body = asked(&candidate.family, candidate.naming, &[])?;
        let matched = body.iter().filter(|(name, shape)| held.get(&**name).is_some_and(|held| same_shape(held, shape)));
        let matched = matched.count();
        // Shared tensors over all tensors of either: neither a part nor a whole of another network wins by size.
        let share = matched as f64 / (body.len() + held.len() - matched) as f64;
        if matched * 4 >= body.len() && best.as_ref().is_none_or(|(most, ..)| share > *most) {
            best = Some((share, matched, candidate));
        }
    }
    let Some((_, matched, candidate)) = best else { return Err(unknown()) };
    if strangers::is_refused(tensors) {
        return Err(unknown());
    }
    architecture(tensors, candidate, matched, hint)
}

/// Weights by name, without those that no network needs.
fn weights(tensors: &[TensorInfo]) -> HashMap<&str, &[usize]> {
    let weights = tensors.iter().filter(|tensor| tensor.kind == TensorKind::Weight && !is_ignorable(&tensor.name));
    weights.map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect()
}

fn architecture(
    tensors: &[TensorInfo],
    candidate: Candidate,
    matched: usize,
    hint: Option<&str>,
) -> Result<Architecture, ModelError> {
    let Candidate { mut name, mut title, naming, mut family } = candidate;
    let body = asked(&family, naming, &[])?;
    let root = family.head_root(naming);
    let found = head::parse(tensors, root, &body, &family, naming)?;
    let Some(head) = found else { return Err(ModelError::NoHead { title, root }) };
    let mut recognised_by = format!(
        "{matched} of the {} of {title} before its classifier, by name and shape ({} names)",
        tensor_count(body.len()),
        naming.name(),
    );
    let mut assumptions = Vec::new();
    if head.assumed_relu {
        let sentence = "ReLU is assumed between the layers of its classifier, because the file names no activation";
        assumptions.push(sentence.to_owned());
    }
    if let Family::Inverted(net) = &mut family
        && naming == Naming::Timm
        && hint.is_some_and(|hint| hint.strip_prefix("tf_") == Some(&name))
    {
        // Padding and epsilon of TensorFlow, from timm's tf_ variants.
        (net.tensorflow, net.epsilon) = (true, 1e-3);
        name = format!("tf_{name}");
        title += " (TensorFlow)";
        recognised_by += "; its TensorFlow padding by the name in the file's metadata";
    } else if has_tensorflow_twin(&name) && hint.is_none() {
        recognised_by +=
            "; weights of timm's tf_ variant, which has the same tensors, would need its name in the metadata";
    }
    let naming_name = naming.name();
    Ok(Architecture {
        name,
        title,
        classes: head.classes,
        naming: naming_name,
        recognised_by,
        assumptions,
        scheme: naming,
        family,
        head: head.steps,
    })
}

fn has_tensorflow_twin(name: &str) -> bool {
    name.starts_with("efficientnet_b") || name.starts_with("mobilenetv3_") && name != "mobilenetv3_small_050"
}

/// How a file's weights fit the tensors `asked` for.
pub fn compare(tensors: &[TensorInfo], asked: &[(String, Vec<usize>)]) -> LoadReport {
    let mut held = weights(tensors);
    let mut report = LoadReport::default();
    for (name, shape) in asked {
        let list = match held.remove(name.as_str()) {
            Some(held) if same_shape(held, shape) => &mut report.matched,
            Some(_) => &mut report.reshaped,
            None => &mut report.missing,
        };
        list.push(name.clone());
    }
    report.unexpected = held.keys().map(ToString::to_string).collect();
    report.unexpected.sort_unstable();
    report
}
