//! Photos of phones (HEIC), where the system has no decoder of its own.

use std::io::Read;

use heic_decoder::{ColorInfo, DecodedImage, HeifError, ImageInfo, RgbOptions};
use moxcms::ColorProfile;

use super::color::{self, Samples};
use super::{ImageBudget, ImageError, Limits, Permit, Picture};

/// Tables and parsed boxes of the decoder.
const DECODER_BYTES: u64 = 1 << 20;

/// Bytes of a sample while it is decoded.
const SAMPLE_BYTES: u64 = 4;

/// The code of Display P3's primaries (ITU-T H.273, table 2), of which photos may say no more than this number.
const DISPLAY_P3: u16 = 12;

/// Codes of the same standard (tables 2 to 4).
const UNSPECIFIED: u16 = 2;
const BT_601: u16 = 6;

pub fn decode<'a>(
    mut reader: impl Read,
    bytes: u64,
    limits: &Limits,
    budget: &'a ImageBudget,
) -> Result<(Picture, Permit<'a>), ImageError> {
    // The file is needed whole to know how large the picture is, which asks for another permit.
    let mut file = Vec::with_capacity(bytes as usize);
    reader.read_to_end(&mut file)?;
    let info = heic_decoder::probe(&file).map_err(reason)?;
    let [width, height] = [info.width, info.height].map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    limits.check_size(width, height)?;
    let permit = limits.admit(estimate(&info, bytes), budget)?;

    let image = heic_decoder::decode(&file).map_err(reason)?;
    drop(file);
    let (profile, options) = (profile(&image), RgbOptions { color: Some(color_of(&image)), ..RgbOptions::default() });
    let (samples, pixels) = if image.alpha.is_some() {
        (Samples::Rgba, image.to_rgba8_with_options(&options).map_err(reason)?.data)
    } else {
        (Samples::Rgb, image.to_rgb8_with_options(&options).map_err(reason)?.data)
    };
    drop(image);
    let rgb = color::into_srgb(samples, pixels, profile.as_deref());
    Ok((Picture { width, height, rgb, full_width: width, full_height: height }, permit))
}

/// An upper bound of the memory: all tiles and the picture that they are laid into, or that and the turned one, and the
/// bytes that they become.
fn estimate(info: &ImageInfo, file_bytes: u64) -> u64 {
    let pixels = info.coded_width as u64 * info.coded_height as u64;
    let halves_per_pixel = match info.chroma_format_idc {
        0 => 2,
        1 => 3,
        2 => 4,
        _ => 6,
    };
    let alpha = if info.alpha_bit_depth.is_some() { 2 * SAMPLE_BYTES * pixels } else { 0 };
    let planes = pixels * halves_per_pixel / 2 * SAMPLE_BYTES + alpha;
    2 * file_bytes + 2 * planes + 4 * pixels + color::profile_bytes(Some(&[])) + DECODER_BYTES
}

/// How samples become colours. Where a file leaves the matrix open it is BT.601's, and what says nothing at all has the
/// narrow range of films: as libheif reads them, and with it Pillow and most viewers.
fn color_of(image: &DecodedImage) -> ColorInfo {
    let open = ColorInfo {
        color_primaries: UNSPECIFIED,
        transfer_characteristics: UNSPECIFIED,
        matrix_coefficients: UNSPECIFIED,
        full_range: false,
    };
    let info = image.color_info.unwrap_or(open);
    let is_open = info.matrix_coefficients == UNSPECIFIED;
    ColorInfo { matrix_coefficients: if is_open { BT_601 } else { info.matrix_coefficients }, ..info }
}

/// The profile inside of the file, or one for the primaries that it names.
fn profile(image: &DecodedImage) -> Option<Vec<u8>> {
    let named = |info: ColorInfo| match info.color_primaries {
        DISPLAY_P3 => ColorProfile::new_display_p3().encode().ok(),
        _ => None,
    };
    image.metadata.icc_profile.clone().or_else(|| named(image.color_info?))
}

fn reason(error: HeifError) -> ImageError {
    match error {
        HeifError::Truncated { .. } => ImageError::Truncated { percent: None },
        HeifError::Unsupported(what) => ImageError::unsupported("HEIC", what),
        HeifError::LimitExceeded(what) => ImageError::unsupported("HEIC", format!("it is too large ({what})")),
        HeifError::NotHeif(what) | HeifError::MalformedBox(what) | HeifError::MalformedHevc(what) => {
            ImageError::damaged(what)
        }
        HeifError::CabacDesync(what) => ImageError::damaged(what),
    }
}
