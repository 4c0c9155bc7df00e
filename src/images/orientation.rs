//! Turns a decoded photo upright, as its metadata says. A value that means nothing is ignored.

use image::metadata::Orientation;

/// The orientation that EXIF data states, with or without the `Exif` marker that JPEGs put before it.
pub fn from_exif(exif: &[u8]) -> Option<Orientation> {
    Orientation::from_exif_chunk(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))
}

/// The same from ImageMagick's text form: a name, a length and hexadecimal digits, in lines.
pub fn from_hexadecimal_exif(text: &[u8]) -> Option<Orientation> {
    let text = std::str::from_utf8(text).ok()?;
    let digits: Vec<u32> = text.split_whitespace().skip(2).flat_map(str::chars).map_while(|c| c.to_digit(16)).collect();
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect();
    from_exif(&bytes)
}

/// The orientation an XMP packet states, as an attribute or as an element.
pub fn from_xmp(packet: &[u8]) -> Option<Orientation> {
    const NAME: &[u8] = b"tiff:Orientation";
    let at = packet.windows(NAME.len()).position(|window| window == NAME)?;
    match packet.get(at + NAME.len()..)? {
        [b'>', digit, b'<', ..] | [b'=', b'"' | b'\'', digit, b'"' | b'\'', ..] => {
            Orientation::from_exif(digit.wrapping_sub(b'0'))
        }
        _ => None,
    }
}

/// True when width and height change places.
pub fn swaps_sides(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

/// Size once upright.
pub fn upright_size(orientation: Orientation, width: u32, height: u32) -> (u32, u32) {
    if swaps_sides(orientation) { (height, width) } else { (width, height) }
}

/// Turns pixels of `width` × `height` upright. Sides that stay are turned in place; sides that change places need a
/// second buffer of the same size.
pub fn upright(orientation: Orientation, width: usize, height: usize, mut rgb: Vec<u8>) -> Vec<u8> {
    match orientation {
        Orientation::NoTransforms => rgb,
        Orientation::FlipHorizontal => {
            flip_rows(&mut rgb, width);
            rgb
        }
        Orientation::Rotate180 => {
            pixels(&mut rgb).reverse();
            rgb
        }
        Orientation::FlipVertical => {
            pixels(&mut rgb).reverse();
            flip_rows(&mut rgb, width);
            rgb
        }
        _ => transpose(orientation, width, height, &rgb),
    }
}

fn pixels(rgb: &mut [u8]) -> &mut [[u8; 3]] {
    rgb.as_chunks_mut::<3>().0
}

fn flip_rows(rgb: &mut [u8], width: usize) {
    pixels(rgb).chunks_exact_mut(width).for_each(|row| row.reverse());
}

fn transpose(orientation: Orientation, width: usize, height: usize, rgb: &[u8]) -> Vec<u8> {
    let source = rgb.as_chunks::<3>().0;
    let mut turned = vec![0; rgb.len()];
    // Row `x` of the result is column `x` of the source or counted from the other end; so are its pixels.
    let from_right = matches!(orientation, Orientation::Rotate270 | Orientation::Rotate270FlipH);
    let from_below = matches!(orientation, Orientation::Rotate90 | Orientation::Rotate270FlipH);
    for (x, row) in pixels(&mut turned).chunks_exact_mut(height).enumerate() {
        let column = if from_right { width - 1 - x } else { x };
        for (y, pixel) in row.iter_mut().enumerate() {
            let line = if from_below { height - 1 - y } else { y };
            *pixel = source[line * width + column];
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, RgbImage};

    use super::*;

    #[test]
    fn every_orientation_is_what_the_image_crate_makes_of_it() {
        let (width, height) = (5, 3);
        let bytes: Vec<u8> = (0..width * height * 3).map(|value| value as u8).collect();
        for value in 1..=8 {
            let orientation = Orientation::from_exif(value).unwrap();
            let mut expected = DynamicImage::from(RgbImage::from_raw(width, height, bytes.clone()).unwrap());
            expected.apply_orientation(orientation);
            let turned = upright(orientation, width as usize, height as usize, bytes.clone());
            assert_eq!(turned, expected.as_bytes(), "orientation {value}");
            assert_eq!(upright_size(orientation, width, height), (expected.width(), expected.height()));
        }
    }

    #[test]
    fn exif_in_hexadecimal_lines_is_read() {
        let text = b"\nexif\n      32\n4578696600004d4d002a00000008000101120003000000\n01000300000000\n";
        assert_eq!(from_hexadecimal_exif(text), Some(Orientation::Rotate180));
        assert_eq!(from_hexadecimal_exif(b"exif 32 45zz"), None);
    }

    #[test]
    fn xmp_orientation_is_read_as_attribute_and_as_element() {
        assert_eq!(from_xmp(b"<x tiff:Orientation=\"3\"/>"), Some(Orientation::Rotate180));
        assert_eq!(from_xmp(b"<tiff:Orientation>6</tiff:Orientation>"), Some(Orientation::Rotate90));
        assert_eq!(from_xmp(b"<tiff:Orientation>9</tiff:Orientation>"), None);
        assert_eq!(from_xmp(b"tiff:Orientation"), None);
    }
}
