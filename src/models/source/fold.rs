//! A batch norm as what the convolution before it is multiplied by, and what is added then.

use super::{BatchNorm, Source};
use crate::models::ModelError;

/// Scale (one when none) and shift per output.
pub type Fold = (Option<Vec<f32>>, Vec<f32>);

impl Source<'_> {
    /// What a convolution's outputs are multiplied by, and what is added then.
    pub(super) fn fold(
        &mut self,
        norm: Option<&BatchNorm>,
        conv: &str,
        channels: usize,
    ) -> Result<Option<Fold>, ModelError> {
        let Some(norm) = norm else {
            let bias = self.values(&format!("{conv}.bias"), &[channels], 0.0)?;
            return Ok(bias.map(|bias| (None, bias)));
        };
        let mut part = |part: &str, neutral| self.values(&format!("{}.{part}", norm.name), &[channels], neutral);
        let (weight, bias) = (part("weight", 1.0)?, part("bias", 0.0)?);
        let (mean, variance) = (part("running_mean", 0.0)?, part("running_var", 1.0)?);
        let (Some(mut scale), Some(mut shift), Some(mean), Some(variance)) = (weight, bias, mean, variance) else {
            return Ok(None);
        };
        for (scale, variance) in scale.iter_mut().zip(variance) {
            *scale /= (variance + norm.epsilon).sqrt();
        }
        for ((shift, scale), mean) in shift.iter_mut().zip(&scale).zip(mean) {
            *shift -= mean * scale;
        }
        Ok(Some((Some(scale), shift)))
    }
}

pub fn scale_of(scale: &Option<Vec<f32>>, output: usize) -> f32 {
    scale.as_ref().map_or(1.0, |scale| scale[output])
}
