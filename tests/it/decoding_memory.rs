//! Decoding takes no more memory than it asked the budget for, and asks for no more than three times what it takes.
//! Each test runs again in a process of its own, where nothing else allocates, and measures the heap there.

use std::io::Cursor;

use galley::images::{ImageBudget, ImageError, Limits, decode_bytes};
use galley::memory::heap;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, RgbImage, RgbaImage};

use super::hostile_images::webp_with_a_larger_frame;
use super::support::{self, test_data};

/// A phone's twelve megapixels.
const WIDTH: u32 = 4032;
const HEIGHT: u32 = 3024;

fn alone(test: &str, measure: impl FnOnce()) {
    support::alone(&format!("decoding_memory::{test}"), measure);
}

fn assert_within_permit(name: &str, bytes: &[u8], short_side: Option<u32>) {
    let budget = ImageBudget::new(u64::MAX);
    let allowing = |max_decode_bytes| Limits { max_decode_bytes, ..Limits::default() };
    // A limit of nothing is an error that names the estimate.
    let refused = decode_bytes(bytes, short_side, &allowing(0), &budget);
    let Err(ImageError::TooMuchMemory { bytes: estimate, .. }) = refused else { panic!("{name}: {refused:?}") };

    let before = heap::live();
    heap::reset_peak();
    decode_bytes(bytes, short_side, &allowing(estimate), &budget).unwrap_or_else(|error| panic!("{name}: {error}"));
    let taken = heap::peak() - before;
    eprintln!("{name}: {:.1} MB estimated, {:.1} MB taken", estimate as f64 / 1e6, taken as f64 / 1e6);
    assert!(taken <= estimate, "{name}: {taken} bytes taken, {estimate} estimated");
    assert!(estimate <= 3 * taken, "{name}: {estimate} bytes estimated, {taken} taken");
}

/// Large areas of one colour, quickly drawn and quickly compressed; what they hold changes nothing in the memory.
fn photo() -> RgbImage {
    RgbImage::from_fn(WIDTH, HEIGHT, |x, y| image::Rgb([(x >> 5) as u8, (y >> 5) as u8, 90]))
}

fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A 90° turn in an EXIF segment behind the JPEG's first two bytes.
fn turned(jpeg: &[u8]) -> Vec<u8> {
    const TAG: &[u8] = b"\xFF\xE1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    [&jpeg[..2], TAG, &jpeg[2..]].concat()
}

/// One segment of a JPEG.
fn segment(marker: u8, payload: &[u8]) -> Vec<u8> {
    [&[0xFF, marker][..], &(payload.len() as u16 + 2).to_be_bytes(), payload].concat()
}

/// A progressive JPEG of black or gray: one scan, in which every block's constant is no different from the last.
/// `sampling` holds the factors of each component, as the frame header does.
fn progressive(width: u32, height: u32, sampling: &[u8]) -> Vec<u8> {
    let factors = |sampling: &u8| (u32::from(sampling >> 4), u32::from(sampling & 15));
    let (across, down) = factors(&sampling[0]);
    let units = width.div_ceil(8 * across) * height.div_ceil(8 * down);
    let blocks: u32 = sampling.iter().map(factors).map(|(across, down)| units * across * down).sum();
    let ids = 1..=sampling.len() as u8;
    let components: Vec<u8> = ids.clone().zip(sampling).flat_map(|(id, factors)| [id, *factors, 0]).collect();
    let (height, width) = ((height as u16).to_be_bytes(), (width as u16).to_be_bytes());
    let frame = [&[8][..], &height, &width, &[sampling.len() as u8], &components].concat();
    let scan = [&[sampling.len() as u8][..], &ids.flat_map(|id| [id, 0]).collect::<Vec<_>>(), &[0, 0, 0]].concat();
    // One code, the bit 0, for "no difference".
    let huffman = [&[0, 1][..], &[0; 15], &[0]].concat();
    let tables = [segment(0xDB, &[&[0][..], &[1; 64]].concat()), segment(0xC4, &huffman)].concat();
    let data = vec![0; blocks.div_ceil(8) as usize];
    [&b"\xFF\xD8"[..], &tables, &segment(0xC2, &frame), &segment(0xDA, &scan), &data, b"\xFF\xD9"].concat()
}

#[test]
fn a_baseline_jpeg_stays_within_its_permit() {
    alone("a_baseline_jpeg_stays_within_its_permit", || {
        let mut bytes = Vec::new();
        photo().write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 90)).unwrap();
        assert_within_permit("baseline JPEG", &bytes, None);
        assert_within_permit("baseline JPEG, turned", &turned(&bytes), None);
        assert_within_permit("baseline JPEG at 1/4", &bytes, Some(256));
    });
}

#[test]
fn a_progressive_jpeg_stays_within_its_permit() {
    alone("a_progressive_jpeg_stays_within_its_permit", || {
        let halved = progressive(WIDTH, HEIGHT, &[0x22, 0x11, 0x11]);
        assert_within_permit("progressive 4:2:0 JPEG", &halved, None);
        assert_within_permit("progressive 4:2:0 JPEG, turned", &turned(&halved), None);
        assert_within_permit("progressive 4:2:0 JPEG at 1/4", &halved, Some(256));
        assert_within_permit("progressive gray JPEG", &progressive(WIDTH, HEIGHT, &[0x11]), None);
    });
}

/// Those with and without tiles, alpha and a profile.
#[test]
#[cfg(all(feature = "heic", not(target_os = "macos")))]
fn photos_of_phones_stay_within_their_permits() {
    alone("photos_of_phones_stay_within_their_permits", || {
        let Some(folder) = test_data() else { return };
        for name in ["example.heic", "exifsamples_IMG_5195.HEIC", "tigranbs_image4.heic", "with-alpha-512x512.heic"] {
            let bytes = std::fs::read(folder.join("odd-images/heif-avif").join(name)).unwrap();
            assert_within_permit(name, &bytes, None);
        }
    });
}

/// A profile of inks with 11 grid points each way and tables of one byte (`mft1`), its colors all the same.
fn profile_of_inks() -> Vec<u8> {
    const GRID: usize = 11;
    let tables = vec![128; 4 * 256 + GRID.pow(4) * 3 + 3 * 256];
    let tag = [&b"mft1\0\0\0\0\x04\x03"[..], &[GRID as u8, 0], &[0; 36], &tables].concat();
    let directory = [&[0, 0, 0, 1][..], b"A2B0", &144_u32.to_be_bytes(), &(tag.len() as u32).to_be_bytes()].concat();
    let mut header = [0; 128];
    header[..4].copy_from_slice(&(144 + tag.len() as u32).to_be_bytes());
    header[8] = 2;
    header[12..24].copy_from_slice(b"prtrCMYKLab ");
    header[36..40].copy_from_slice(b"acsp");
    [&header[..], &directory, &tag].concat()
}

#[test]
fn a_profile_stays_within_the_permit_of_its_photo() {
    alone("a_profile_stays_within_the_permit_of_its_photo", || {
        let jpeg = progressive(40, 24, &[0x11; 4]);
        let part = segment(0xE2, &[b"ICC_PROFILE\0\x01\x01", &profile_of_inks()[..]].concat());
        let with_profile = [&jpeg[..2], &part, &jpeg[2..]].concat();
        assert!(heap_of_decoding(&with_profile) > heap_of_decoding(&jpeg) + 1_000_000, "the profile was not applied");
        assert_within_permit("small JPEG with a profile of inks", &with_profile, None);
    });
}

#[test]
fn a_png_stays_within_its_permit() {
    alone("a_png_stays_within_its_permit", || {
        let rgba = RgbaImage::from_pixel(WIDTH, HEIGHT, image::Rgba([9, 90, 200, 128]));
        assert_within_permit("PNG with alpha", &encoded(rgba, ImageFormat::Png), None);
        let deep = ImageBuffer::from_pixel(WIDTH, HEIGHT, image::Rgb([900_u16, 9000, 60_000]));
        assert_within_permit("PNG of 16 bits", &encoded(deep, ImageFormat::Png), None);
        let gray = GrayImage::from_pixel(WIDTH, HEIGHT, image::Luma([77]));
        assert_within_permit("gray PNG", &encoded(gray, ImageFormat::Png), None);
    });
}

#[test]
fn a_webp_stays_within_its_permit() {
    alone("a_webp_stays_within_its_permit", || {
        assert_within_permit("lossless WebP", &encoded(photo(), ImageFormat::WebP), None);
    });
}

#[test]
fn a_bmp_and_a_gif_stay_within_their_permits() {
    alone("a_bmp_and_a_gif_stay_within_their_permits", || {
        assert_within_permit("BMP", &encoded(photo(), ImageFormat::Bmp), None);
        let (width, height) = (WIDTH as u16, HEIGHT as u16);
        let mut bytes = Vec::new();
        let mut encoder = gif::Encoder::new(&mut bytes, width, height, &[0; 6]).unwrap();
        let indices = vec![1; WIDTH as usize * HEIGHT as usize];
        encoder.write_frame(&gif::Frame::from_indexed_pixels(width, height, indices, None)).unwrap();
        drop(encoder);
        assert_within_permit("GIF", &bytes, None);
    });
}

#[test]
fn a_tiff_stays_within_its_permit() {
    alone("a_tiff_stays_within_its_permit", || {
        assert_within_permit("TIFF", &encoded(photo(), ImageFormat::Tiff), None);
        let deep = ImageBuffer::from_pixel(WIDTH, HEIGHT, image::Rgb([900_u16, 9000, 60_000]));
        assert_within_permit("TIFF of 16 bits", &encoded(deep, ImageFormat::Tiff), None);
    });
}

/// A file that is refused, or that is small, has its memory counted without an estimate to compare with.
fn heap_of_decoding(bytes: &[u8]) -> u64 {
    let before = heap::live();
    heap::reset_peak();
    let _ = decode_bytes(bytes, None, &Limits::default(), &ImageBudget::new(u64::MAX));
    heap::peak() - before
}

#[test]
fn a_file_that_lies_takes_little_memory() {
    alone("a_file_that_lies_takes_little_memory", || {
        let taken = heap_of_decoding(&webp_with_a_larger_frame());
        assert!(taken < 10_000_000, "a WebP with a larger frame took {taken} bytes");
        // A TIFF whose height is two million numbers.
        let width = b"\0\x01\x04\0\x01\0\0\0\x10\0\0\0";
        let height = b"\x01\x01\x04\0\x80\x84\x1e\0\x08\0\0\0";
        let tiff = [&b"II*\0\x08\0\0\0\x02\0"[..], width, height, &[0; 100]].concat();
        let taken = heap_of_decoding(&tiff);
        assert!(taken < 1_000_000, "a TIFF of {} bytes took {taken}", tiff.len());
        let mut jpeg = Vec::new();
        RgbImage::new(16, 16).write_with_encoder(JpegEncoder::new(&mut jpeg)).unwrap();
        let empty_part = b"\xFF\xE2\0\x10ICC_PROFILE\0\x01\x01";
        let jpeg = [&jpeg[..2], &empty_part.repeat(200_000), &jpeg[2..]].concat();
        let taken = heap_of_decoding(&jpeg);
        assert!(taken < 2 * jpeg.len() as u64, "a JPEG of {} bytes with empty parts took {taken}", jpeg.len());
    });
}

/// Small pictures of every kind, among which are metadata of every size.
#[test]
fn every_photo_of_the_collection_stays_within_its_permit() {
    let Some(data) = test_data() else { return };
    alone("every_photo_of_the_collection_stays_within_its_permit", || {
        let files = walkdir::WalkDir::new(data.join("odd-images")).into_iter().filter_map(Result::ok);
        let mut worst = (0.0, String::new());
        for file in files.filter(|file| file.file_type().is_file()) {
            let bytes = std::fs::read(file.path()).unwrap();
            let name = file.path().display();
            let budget = ImageBudget::new(u64::MAX);
            let refused = decode_bytes(&bytes, None, &Limits { max_decode_bytes: 0, ..Limits::default() }, &budget);
            let Err(ImageError::TooMuchMemory { bytes: estimate, .. }) = refused else { continue };
            let taken = heap_of_decoding(&bytes);
            let share = taken as f64 / estimate as f64;
            if share > worst.0 {
                worst = (share, name.to_string());
            }
            assert!(taken <= estimate, "{name}: {taken} bytes taken, {estimate} estimated");
        }
        eprintln!("closest to its estimate: {worst:?}");
        assert!(worst.0 > 0.0, "no photo was read");
    });
}
