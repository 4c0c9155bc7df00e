//! The first frame of a GIF, on its canvas. As in Pillow the canvas grows when the frame reaches beyond it; what the
//! frame leaves open is white where the frame has a transparent colour, else the first colour of its palette.

use std::io::Read;

use gif::{DecodeOptions, DecodingError, MemoryLimit};

use super::{ImageBudget, ImageError, Limits, Permit, Picture};

/// The decoder's tables and chunks.
const DECODER_BYTES: u64 = 1 << 20;

const WHITE: [u8; 3] = [255; 3];

pub fn decode<'a>(
    reader: impl Read,
    limits: &Limits,
    budget: &'a ImageBudget,
) -> Result<(Picture, Permit<'a>), ImageError> {
    let mut options = DecodeOptions::new();
    // Our own estimate bounds the pixels; the decoder would refuse large frames that are fine.
    options.set_memory_limit(MemoryLimit::Unlimited);
    let mut decoder = options.read_info(reader).map_err(reason)?;
    let frame =
        decoder.next_frame_info().map_err(reason)?.ok_or_else(|| ImageError::damaged("the GIF has no frame"))?;
    let [left, top, frame_width, frame_height] = [frame.left, frame.top, frame.width, frame.height].map(u32::from);
    let (transparent, screen) = (frame.transparent, (decoder.width(), decoder.height()));
    let width = u32::from(screen.0).max(left + frame_width);
    let height = u32::from(screen.1).max(top + frame_height);
    limits.check_size(frame_width, frame_height)?;
    limits.check_size(width, height)?;

    let (canvas_pixels, frame_pixels) =
        (u64::from(width) * u64::from(height), frame_width as usize * frame_height as usize);
    let permit = limits.admit(3 * canvas_pixels + frame_pixels as u64 + DECODER_BYTES, budget)?;
    let mut indices = vec![0; frame_pixels];
    decoder.read_into_buffer(&mut indices).map_err(reason)?;

    let palette = decoder.palette().map_err(reason)?.as_chunks::<3>().0;
    let color = |index: u8| palette.get(usize::from(index)).copied().unwrap_or_default();
    let open = if transparent.is_some() { WHITE } else { color(0) };
    let mut rgb = open.repeat(canvas_pixels as usize);
    let lines = rgb.chunks_exact_mut(width as usize * 3).skip(top as usize);
    for (line, indices) in lines.zip(indices.chunks_exact(frame_width as usize)) {
        let pixels = line.as_chunks_mut::<3>().0.iter_mut().skip(left as usize);
        for (pixel, index) in pixels.zip(indices) {
            *pixel = if Some(*index) == transparent { WHITE } else { color(*index) };
        }
    }
    Ok((Picture { width, height, rgb, full_width: width, full_height: height }, permit))
}

fn reason(error: DecodingError) -> ImageError {
    match error {
        DecodingError::UnexpectedEof => ImageError::Truncated { percent: None },
        DecodingError::Io(error) => ImageError::from(error),
        other => ImageError::damaged(other.to_string()),
    }
}
