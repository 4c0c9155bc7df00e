//! How a network wants its photos: from the person, the checkpoint, `config.json` beside it, or the architecture.

use serde_json::Value;

use super::{PredictError, TransformOverrides};
use crate::images::transform::{Interpolation, Resize, Transform};

/// The transform a checkpoint's `config.json` (as timm writes it) describes; `Err` says why it cannot be followed.
pub fn transform_from_timm(config: &Value, default: &Transform) -> Option<Result<Transform, String>> {
    // Before timm 0.8 the fields lay at the top level.
    let fields = config.get("pretrained_cfg").filter(|fields| fields.is_object()).unwrap_or(config);
    let size = fields.get("input_size")?;
    Some(timm_transform(fields, size, default))
}

fn timm_transform(fields: &Value, size: &Value, default: &Transform) -> Result<Transform, String> {
    let side = match serde_json::from_value::<[u32; 3]>(size.clone()) {
        Ok([3, height, width]) if height == width && (1..=4096).contains(&height) => height,
        _ => return Err(format!("input_size {size} is not three channels of a square")),
    };
    // timm.data.create_transform: the shorter side becomes floor(size / crop_pct), 0.875 unless told.
    let crop_share = fields.get("crop_pct").and_then(Value::as_f64).unwrap_or(0.875);
    if !(0.1..=1.0).contains(&crop_share) {
        return Err(format!("crop_pct {crop_share} is not between 0.1 and 1"));
    }
    let resized = (f64::from(side) / crop_share).floor() as u32;
    let resize = match fields.get("crop_mode").and_then(Value::as_str).unwrap_or("center") {
        "center" => Resize::ShortSide(resized),
        "squash" => Resize::Exact { height: resized, width: resized },
        other => return Err(format!("crop_mode {other} is not supported")),
    };
    let interpolation = match fields.get("interpolation").and_then(Value::as_str) {
        Some("bilinear") => Interpolation::Bilinear,
        Some("bicubic") => Interpolation::Bicubic,
        Some(other) => return Err(format!("interpolation {other} is not supported")),
        None => default.interpolation,
    };
    let channels = |key, default| match fields.get(key) {
        Some(value) => serde_json::from_value(value.clone()).map_err(|_| format!("{key} is not three numbers")),
        None => Ok(default),
    };
    let transform = Transform {
        resize,
        crop: Some(side),
        interpolation,
        mean: channels("mean", default.mean)?,
        std: channels("std", default.std)?,
    };
    transform.check().map_err(|error| error.to_string())?;
    Ok(transform)
}

/// Puts what a person set in place of what was found, and names those parts.
pub fn overridden(
    mut transform: Transform,
    overrides: &TransformOverrides,
) -> Result<(Transform, Vec<&'static str>), PredictError> {
    let mut set = Vec::new();
    if let Some(resize) = overrides.resize {
        transform.resize = resize;
        // A crop that nobody asked for must not be larger than the photo somebody did ask for.
        transform.crop = match (transform.crop, resize) {
            (Some(crop), Resize::ShortSide(side)) => Some(crop.min(side)),
            (Some(crop), Resize::Exact { height, width }) => Some(crop).filter(|crop| *crop <= height.min(width)),
            (None, _) => None,
        };
        set.push("resize");
    }
    if let Some(crop) = overrides.crop {
        transform.crop = Some(crop);
        set.push("crop");
    }
    if let Some(interpolation) = overrides.interpolation {
        transform.interpolation = interpolation;
        set.push("interpolation");
    }
    if let Some(mean) = overrides.mean {
        transform.mean = mean;
        set.push("mean");
    }
    if let Some(std) = overrides.std {
        transform.std = std;
        set.push("std");
    }
    transform.check()?;
    Ok((transform, set))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timm_fields_give_timms_evaluation_transform() {
        let config = serde_json::json!({ "pretrained_cfg": {
            "input_size": [3, 224, 224], "crop_pct": 0.95, "interpolation": "bicubic", "crop_mode": "center",
            "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25],
        }});
        let expected = Transform {
            resize: Resize::ShortSide(235), // floor(224 / 0.95)
            crop: Some(224),
            interpolation: Interpolation::Bicubic,
            mean: [0.5; 3],
            std: [0.25; 3],
        };
        assert_eq!(transform_from_timm(&config, &Transform::default()), Some(Ok(expected)));
    }

    #[test]
    fn fields_that_cannot_be_followed_are_named() {
        for (key, value) in [
            ("input_size", serde_json::json!([3, 224, 160])),
            ("crop_mode", serde_json::json!("border")),
            ("interpolation", serde_json::json!("random")),
            ("std", serde_json::json!([0.0, 1.0, 1.0])),
            ("mean", serde_json::json!(0.5)),
            ("crop_pct", serde_json::json!(0.0)),
        ] {
            let mut config = serde_json::json!({ "input_size": [3, 224, 224] });
            config[key] = value;
            let read = transform_from_timm(&config, &Transform::default());
            assert!(matches!(read, Some(Err(_))), "{config}: {read:?}");
        }
    }

    #[test]
    fn a_smaller_resize_takes_the_crop_along_unless_that_was_set_too() {
        let resize = |resize, crop| -> Result<Option<u32>, PredictError> {
            let overrides = TransformOverrides { resize: Some(resize), crop, ..Default::default() };
            Ok(overridden(Transform::default(), &overrides)?.0.crop)
        };
        assert_eq!(resize(Resize::ShortSide(128), None).unwrap(), Some(128));
        assert_eq!(resize(Resize::Exact { height: 200, width: 300 }, None).unwrap(), None);
        assert_eq!(resize(Resize::ShortSide(128), Some(224)).unwrap(), Some(224));
        assert!(resize(Resize::ShortSide(0), None).is_err());
    }
}
