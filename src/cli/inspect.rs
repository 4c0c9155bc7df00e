//! `galley inspect`: what a checkpoint holds, as text for people or one JSON object.

use std::process::ExitCode;

use super::arguments::InspectArguments;
use super::print;
use super::rows::printable;
use crate::format::{bytes, count, counted};
use crate::images::transform::{Interpolation, Resize, Transform};
use crate::jobs::inspect::{Inspection, Share, inspect};
use crate::worker::BoxError;

/// Labels shown before the rest is only counted.
const LABELS_SHOWN: usize = 12;

pub fn run(arguments: &InspectArguments) -> ExitCode {
    print(inspect(&arguments.file).and_then(|inspection| match arguments.json {
        true => Ok(serde_json::to_string(&inspection).map_err(BoxError::from)? + "\n"),
        false => Ok(describe(&inspection)),
    }))
}

fn describe(inspection: &Inspection) -> String {
    let mut lines = vec![("File", format!("{} ({})", inspection.path.display(), bytes(inspection.file_bytes)))];
    lines.push(("Container", format!("{}; {}", inspection.container, inspection.found_as)));
    match (&inspection.title, &inspection.architecture) {
        (Some(title), Some(name)) => lines.push(("Network", format!("{title} ({name})"))),
        _ => lines.push(("Network", "not one Galley knows".to_owned())),
    }
    let optional = [("Recognised", &inspection.recognised_by), ("Because", &inspection.unknown_because)];
    lines.extend(optional.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))));
    lines.push(("Parameters", count(inspection.parameters)));
    if let (Some(classes), Some(from)) = (inspection.classes, &inspection.labels_from) {
        lines.push(("Classes", format!("{} ({from})", count(classes as u64))));
        lines.push(("", labels(&inspection.labels)));
    }
    if let (Some(transform), Some(from)) = (&inspection.transform, &inspection.transform_from) {
        lines.push(("Input", format!("{}; from {from}", transform_text(transform))));
    }
    lines.extend(shares("Bytes by kind", &inspection.by_kind));
    lines.extend(shares("Bytes by type", &inspection.by_element));
    lines.extend(inspection.notices.iter().map(|notice| ("Note", notice.clone())));
    lines.iter().map(|(name, text)| format!("{name:<14} {}\n", printable(text))).collect()
}

fn labels(labels: &[String]) -> String {
    let shown = labels.iter().take(LABELS_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match labels.len().saturating_sub(LABELS_SHOWN) {
        0 => shown,
        more => format!("{shown}, … and {} more", count(more as u64)),
    }
}

fn shares<'a>(heading: &'a str, shares: &'a [Share]) -> impl Iterator<Item = (&'a str, String)> {
    shares.iter().enumerate().map(move |(index, share)| {
        let text = format!("{:<10} {:>9} in {}", share.name, bytes(share.bytes), counted(share.tensors, "tensor"));
        (if index == 0 { heading } else { "" }, text)
    })
}

/// A transform in the order it is applied.
pub fn transform_text(transform: &Transform) -> String {
    let resize = match transform.resize {
        Resize::ShortSide(side) => format!("shorter side to {side}"),
        Resize::Exact { height, width } => format!("{height} × {width} (height × width)"),
    };
    let interpolation = match transform.interpolation {
        Interpolation::Bilinear => "bilinear",
        Interpolation::Bicubic => "bicubic",
    };
    let crop = transform.crop.map(|side| format!(", center {side}")).unwrap_or_default();
    let three = |[red, green, blue]: [f32; 3]| format!("{red}, {green}, {blue}");
    let (mean, std) = (three(transform.mean), three(transform.std));
    format!("resize {resize}, {interpolation}{crop}, mean {mean}, standard deviation {std}")
}
