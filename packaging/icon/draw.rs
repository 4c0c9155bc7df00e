//! The icon's drawing as pixels, and in the files that systems read.

use anyhow::{Context, ensure};
use icns::{IconFamily, IconType, Image, PixelFormat};
use resvg::{tiny_skia, usvg};

/// What a bundle's icon consists of: 16 to 512 points, each also at two pixels for a point; pixels of a side first.
///
/// The two smallest are 24-bit colors with a mask: macOS shows their PNG form in a file but not as a bundle's icon.
pub const SIZES: [(u32, IconType); 10] = [
    (16, IconType::RGB24_16x16),
    (32, IconType::RGBA32_16x16_2x),
    (32, IconType::RGB24_32x32),
    (64, IconType::RGBA32_32x32_2x),
    (128, IconType::RGBA32_128x128),
    (256, IconType::RGBA32_128x128_2x),
    (256, IconType::RGBA32_256x256),
    (512, IconType::RGBA32_256x256_2x),
    (512, IconType::RGBA32_512x512),
    (1024, IconType::RGBA32_512x512_2x),
];

/// The drawing at `size` pixels a side: red, green, blue and straight alpha of each.
pub fn pixels(svg: &str, size: u32) -> anyhow::Result<Vec<u8>> {
    let tree = usvg::Tree::from_str(svg, &usvg::Options::default()).context("failed to read the drawing")?;
    let side = tree.size().width();
    ensure!(side == tree.size().height(), "the drawing is not a square");
    let mut canvas = tiny_skia::Pixmap::new(size, size).context("an icon needs at least one pixel")?;
    let scale = tiny_skia::Transform::from_scale(size as f32 / side, size as f32 / side);
    resvg::render(&tree, scale, &mut canvas.as_mut());
    Ok(canvas.take_demultiplied())
}

/// The drawing as a PNG file.
pub fn png(svg: &str, size: u32) -> anyhow::Result<Vec<u8>> {
    let picture = image::RgbaImage::from_raw(size, size, pixels(svg, size)?).expect("four bytes a pixel");
    let mut file = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut file, image::ImageFormat::Png)?;
    Ok(file.into_inner())
}

/// The drawing at every size as an Apple icon file.
pub fn icns(svg: &str) -> anyhow::Result<Vec<u8>> {
    let mut family = IconFamily::new();
    for (size, kind) in SIZES {
        let picture = Image::from_data(PixelFormat::RGBA, size, size, pixels(svg, size)?)?;
        family.add_icon_with_type(&picture, kind)?;
    }
    let mut file = Vec::new();
    family.write(&mut file)?;
    Ok(file)
}
