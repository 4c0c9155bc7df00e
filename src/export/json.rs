//! A row as one line of JSON, for programs.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{ExportOptions, Row, RowResult};
use crate::predict::Prediction;

#[derive(Serialize)]
struct Line<'a> {
    /// Only of an answer to a line that had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    path: &'a str,
    /// Only for a file name that is not UTF-8, which JSON cannot hold: its bytes in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    status: &'static str,
    /// Only with a threshold: the best label, or "unsure".
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    predictions: Vec<Class<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<&'a [f32]>,
    reason: Option<&'a str>,
    /// Only of an answer to a line that had others.
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<&'a Map<String, Value>>,
}

#[derive(Serialize)]
struct Class<'a> {
    index: usize,
    label: &'a str,
    probability: f32,
}

/// `{"path", "status": "ok"|"skipped", "predictions": [{"index", "label", "probability"}], "reason"}`, with `"logits"`
/// where the row has them and `"label"` where there is a threshold. No line feed.
pub fn json_line(row: &Row, options: &ExportOptions) -> String {
    json_answer(row, options, None, &Map::new())
}

/// The same with `"id"` before and `"fields"` after it, where there are any.
pub fn json_answer(row: &Row, options: &ExportOptions, id: Option<&Value>, fields: &Map<String, Value>) -> String {
    let (status, predictions, logits, reason) = match &row.result {
        RowResult::Ok { predictions, logits } => ("ok", predictions.as_slice(), logits.as_deref(), None),
        RowResult::Skipped { reason } => ("skipped", [].as_slice(), None, Some(reason.as_str())),
    };
    let line = Line {
        id,
        path: &row.path.to_string_lossy(),
        path_bytes: bytes_if_not_utf8(&row.path),
        status,
        label: options.label(predictions).filter(|_| options.threshold > 0.0),
        predictions: predictions.iter().map(class).collect(),
        logits,
        reason,
        fields: (!fields.is_empty()).then_some(fields),
    };
    serde_json::to_string(&line).expect("text and numbers always have a JSON form")
}

fn class(prediction: &Prediction) -> Class<'_> {
    Class { index: prediction.index, label: &prediction.label, probability: prediction.probability }
}

fn bytes_if_not_utf8(path: &Path) -> Option<String> {
    let is_utf8 = path.to_str().is_some();
    (!is_utf8).then(|| path.as_os_str().as_encoded_bytes().iter().map(|byte| format!("{byte:02x}")).collect())
}
