//! Between what least and most the inputs of layers lie, as photos showed when a network was compressed: with that known,
//! integers can leave a kernel that else had to wait for all of an image.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::layer_weight::LayerWeight;
use crate::ops::{FAR, LayerInputs};

/// Least and most by the name of a layer's weight.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InputRanges(BTreeMap<String, [f32; 2]>);

impl InputRanges {
    /// The key of a file's metadata that holds them, as JSON.
    pub const KEY: &'static str = "galley.input_ranges";

    /// Of a file's text; nothing where it says nothing that can be read.
    pub fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// What layers were given that were watched.
    pub fn watched(layers: &[LayerWeight], inputs: &[LayerInputs]) -> Self {
        let ranges = layers.iter().zip(inputs);
        Self(ranges.filter_map(|(layer, inputs)| Some((layer.name.clone(), inputs.means()?.range))).collect())
    }

    /// The most of a layer whose inputs are not below zero, as behind a ReLU. None beyond any that a network has: sums of
    /// products could not be told from those of numbers that are not finite, nor bytes from zero.
    pub fn most(&self, layer: &str) -> Option<f32> {
        let [least, most] = *self.0.get(layer)?;
        (least == 0.0 && most > 1.0 / FAR && most < FAR).then_some(most)
    }
}

impl FromIterator<(String, [f32; 2])> for InputRanges {
    fn from_iter<T: IntoIterator<Item = (String, [f32; 2])>>(ranges: T) -> Self {
        Self(ranges.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ranges_of_a_relu_are_taken_and_text_that_says_none_is_none() {
        let all =
            [("a", [0.0, 3.5]), ("b", [-0.1, 3.5]), ("c", [0.0, 1e-30]), ("d", [0.0, 1e30]), ("e", [0.0, f32::NAN])];
        let ranges: InputRanges = all.map(|(name, range)| (name.to_owned(), range)).into_iter().collect();
        assert_eq!(
            ["a", "b", "c", "d", "e", "f"].map(|name| ranges.most(name)),
            [Some(3.5), None, None, None, None, None]
        );
        let text = serde_json::to_string(&InputRanges([("a".to_owned(), [0.0, 0.1])].into())).unwrap();
        assert_eq!(InputRanges::parse(&text).most("a"), Some(0.1));
        for text in ["", "{", "[1]", r#"{"a": "b"}"#, r#"{"a": [0, null]}"#, r#"{"a": [0.0]}"#] {
            assert_eq!(InputRanges::parse(text), InputRanges::default(), "{text}");
        }
    }
}
