//! Recognises a network: the known one whose tensor names and shapes the file shares most of.

use std::collections::HashMap;

use super::catalog::{Candidate, Family, candidates};
use super::inner::{self, InnerLayer, Widths};
use super::source::{is_ignorable, same_shape};
use super::{Architecture, LoadReport, ModelError, Naming, head, strangers, tensor_count};
use crate::checkpoint::{TensorInfo, TensorKind};
use crate::format::count;

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
    let mut best: Option<Fit> = None;
    for candidate in candidates() {
        let fit = Fit::of(candidate, Widths::new(), &held)?;
        if fit.matched * 4 >= fit.asked && best.as_ref().is_none_or(|best| fit.share > best.share) {
            best = Some(fit);
        }
    }
    if best.as_ref().is_none_or(|best| best.matched < best.asked) {
        best = narrower(&held, hint, best)?;
    }
    let Some(fit) = best else { return Err(unknown()) };
    if strangers::is_refused(tensors) {
        return Err(unknown());
    }
    architecture(tensors, fit, hint)
}

/// How a file fits a network.
struct Fit {
    candidate: Candidate,
    widths: Widths,
    /// Tensors that the network has before its classifier, and those of them that the file has.
    asked: usize,
    matched: usize,
    /// Shared tensors over all tensors of either: neither a part nor a whole of another network wins by size.
    share: f64,
}

impl Fit {
    fn of(candidate: Candidate, widths: Widths, held: &HashMap<&str, &[usize]>) -> Result<Self, ModelError> {
        let body = inner::ask(&candidate.family, candidate.naming, &[], &widths)?.tensors;
        let matched = body.iter().filter(|(name, shape)| held.get(&**name).is_some_and(|held| same_shape(held, shape)));
        let (asked, matched) = (body.len(), matched.count());
        let share = matched as f64 / (asked + held.len() - matched) as f64;
        Ok(Self { candidate, widths, asked, matched, share })
    }

    /// How much is left of the inner channels, when some are not, in words.
    fn left(&self) -> Result<Option<String>, ModelError> {
        if self.widths.is_empty() {
            return Ok(None);
        }
        let layers = inner::ask(&self.candidate.family, self.candidate.naming, &[], &self.widths)?.inner;
        let sum = |of: fn(&InnerLayer) -> usize| count(layers.iter().map(of).sum::<usize>() as u64);
        Ok(Some(format!("{} of its {}", sum(|layer| layer.channels), sum(|layer| layer.published))))
    }
}

/// The fit that is better than `best` when inner layers may be narrower than published. Nearly all must fit then: few tensors
/// tell networks apart whose widths are not known. Of equal ones the named wins, or else the first.
fn narrower(
    held: &HashMap<&str, &[usize]>,
    hint: Option<&str>,
    mut best: Option<Fit>,
) -> Result<Option<Fit>, ModelError> {
    for candidate in candidates() {
        let layers = inner::ask(&candidate.family, candidate.naming, &[], &Widths::new())?.inner;
        let widths = inner::narrower(&layers, held);
        if widths.is_empty() {
            continue;
        }
        let is_named = hint == Some(candidate.name.as_str());
        let fit = Fit::of(candidate, widths, held)?;
        let is_better = |best: &Fit| fit.share > best.share || fit.share == best.share && is_named;
        if fit.matched * 10 >= fit.asked * 9 && best.as_ref().is_none_or(is_better) {
            best = Some(fit);
        }
    }
    Ok(best)
}

/// Weights by name, without those that no network needs.
fn weights(tensors: &[TensorInfo]) -> HashMap<&str, &[usize]> {
    let weights = tensors.iter().filter(|tensor| tensor.kind == TensorKind::Weight && !is_ignorable(&tensor.name));
    weights.map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect()
}

fn architecture(tensors: &[TensorInfo], fit: Fit, hint: Option<&str>) -> Result<Architecture, ModelError> {
    let left = fit.left()?;
    let Fit { candidate, widths, matched, .. } = fit;
    let Candidate { mut name, mut title, naming, mut family } = candidate;
    let body = inner::ask(&family, naming, &[], &widths)?.tensors;
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
    if let Some(left) = left {
        title += ", pruned";
        recognised_by += &format!("; pruned: {left} inner channels are left");
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
        widths,
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
