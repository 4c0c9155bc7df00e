//! Photos that lie, end early, or are no photos: each is an error with a reason, in bounded memory, and never a panic.

use std::io::Cursor;

use galley::images::transform::Transform;
use galley::images::{ImageBudget, ImageError, Limits, Picture, decode, decode_bytes, load_input};
use image::codecs::jpeg::JpegEncoder;
use image::{ColorType, ImageFormat, RgbImage};

fn read(bytes: &[u8]) -> Result<Picture, ImageError> {
    decode_bytes(bytes, None, &Limits::default(), &ImageBudget::new(64_000_000))
}

fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 5) as u8, (y * 7) as u8, ((x * y) / 3) as u8]))
}

fn encoded(format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture(61, 47).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture(width, height).write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 90)).unwrap();
    bytes
}

const FORMATS: [ImageFormat; 6] =
    [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff];

fn assert_reason(error: &ImageError) {
    let reason = error.to_string();
    assert!(!reason.is_empty() && !reason.ends_with('.'), "{reason:?}");
    assert!(!matches!(error, ImageError::DecoderFailed(_)), "the decoder panicked");
}

#[test]
fn every_format_made_here_is_read_back() {
    for format in FORMATS {
        let picture = read(&encoded(format)).unwrap();
        assert_eq!((picture.width, picture.height), (61, 47), "{format:?}");
    }
}

/// Where the pixels of a file end; what follows may be missing without loss.
fn end_of_pixels(format: ImageFormat, bytes: &[u8]) -> usize {
    match format {
        // The end marker; the last byte before it may be padding.
        ImageFormat::Jpeg => bytes.len() - 3,
        // IEND, and the checksums before it.
        ImageFormat::Png => bytes.len() - 12 - 4 - 4,
        ImageFormat::Gif => bytes.len() - 4,
        // The encoder writes the directory behind the pixels.
        ImageFormat::Tiff => bytes.len() - 16,
        _ => bytes.len() - 2,
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error_with_a_reason() {
    for format in FORMATS {
        let bytes = encoded(format);
        for length in 0..end_of_pixels(format, &bytes) {
            match read(&bytes[..length]) {
                Ok(_) => panic!("{format:?} cut to {length} of {} bytes was decoded", bytes.len()),
                Err(error) => assert_reason(&error),
            }
        }
    }
}

#[test]
fn a_cut_jpeg_says_how_much_is_there() {
    let bytes = jpeg(256, 256);
    let reason = read(&bytes[..bytes.len() / 2]).unwrap_err();
    let ImageError::Truncated { percent: Some(percent) } = reason else { panic!("{reason:?}") };
    assert!((30..70).contains(&percent), "{percent} %");
    assert_eq!(reason.to_string(), format!("the file is cut short: {percent} % of the picture is there"));
}

#[test]
fn a_jpeg_that_was_cut_and_given_a_new_end_is_refused() {
    let bytes = jpeg(256, 256);
    let mut mended = bytes[..bytes.len() / 2].to_vec();
    mended.extend([0xFF, 0xD9]);
    assert!(matches!(read(&mended), Err(ImageError::Truncated { .. })));
    // The same at a reduced scale.
    let large = jpeg(1600, 1200);
    let mut mended = large[..large.len() / 2].to_vec();
    mended.extend([0xFF, 0xD9]);
    let reduced = decode_bytes(&mended, Some(64), &Limits::default(), &ImageBudget::new(1 << 26));
    assert!(matches!(reduced, Err(ImageError::Truncated { .. })));
}

#[test]
fn a_jpeg_without_its_end_marker_is_whole() {
    let bytes = jpeg(64, 64);
    let whole = read(&bytes).unwrap();
    assert_eq!(read(&bytes[..bytes.len() - 2]).unwrap().rgb, whole.rgb);
}

#[test]
fn flipped_bytes_never_panic() {
    for format in FORMATS {
        let bytes = encoded(format);
        for at in 0..bytes.len() {
            // Every byte of the headers, a sample of the rest.
            if at > 700 && at % 13 != 0 {
                continue;
            }
            for value in [0x00, 0xFF, bytes[at] ^ 0x01, bytes[at] ^ 0x80] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                if let Err(error) = read(&damaged) {
                    assert_reason(&error);
                }
            }
        }
    }
}

/// The size fields of the JPEG frame header, set to something else.
fn jpeg_of_stated_size(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = jpeg(64, 64);
    let frame = bytes.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

#[test]
fn a_jpeg_that_claims_more_than_it_holds_is_cut_short() {
    assert!(matches!(read(&jpeg_of_stated_size(640, 480)), Err(ImageError::Truncated { .. })));
}

#[test]
fn a_jpeg_of_gigapixels_is_refused_before_decoding() {
    let error = read(&jpeg_of_stated_size(65_500, 65_500)).unwrap_err();
    assert!(matches!(error, ImageError::TooManyPixels { .. }), "{error:?}");
}

#[test]
fn a_jpeg_without_width_or_height_is_refused() {
    assert!(matches!(read(&jpeg_of_stated_size(0, 64)), Err(ImageError::NoPixels { .. })));
    assert!(read(&jpeg_of_stated_size(64, 0)).unwrap_err().to_string().contains("height"));
}

#[test]
fn a_png_that_claims_gigapixels_is_refused() {
    let mut bytes = encoded(ImageFormat::Png);
    bytes[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    bytes[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    // The checksum of the header is right, so that the size alone is what is wrong with it.
    let checksum = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&checksum.to_be_bytes());
    assert!(matches!(read(&bytes), Err(ImageError::TooManyPixels { .. })));
}

/// CRC-32 as PNG defines it (Annex D of its specification).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { 0xEDB8_8320 ^ (crc >> 1) } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[test]
fn a_gif_of_gigapixels_is_refused_in_little_memory() {
    let mut bytes = encoded(ImageFormat::Gif);
    bytes[6..10].copy_from_slice(&[0xFF; 4]);
    assert!(matches!(read(&bytes), Err(ImageError::TooManyPixels { .. })));
}

#[test]
fn a_bmp_of_absurd_size_is_refused() {
    for (width, height) in [(i32::MAX, 1), (1, i32::MAX), (i32::MAX, i32::MAX), (-5, 5), (0, 0), (60_000, 60_000)] {
        let mut bytes = encoded(ImageFormat::Bmp);
        bytes[18..22].copy_from_slice(&width.to_le_bytes());
        bytes[22..26].copy_from_slice(&height.to_le_bytes());
        assert_reason(&read(&bytes).unwrap_err());
    }
}

#[test]
fn a_webp_chunk_longer_than_its_file_is_cut_short() {
    let mut bytes = encoded(ImageFormat::WebP);
    bytes[16..20].copy_from_slice(&0x7FFF_FFFE_u32.to_le_bytes());
    assert!(matches!(read(&bytes), Err(ImageError::Truncated { .. })));
}

/// A WebP of 16 × 16 whose lossy frame says in its own header that it has 16383 × 16383.
pub fn webp_with_a_larger_frame() -> Vec<u8> {
    let canvas = [&[0; 4][..], &[15, 0, 0], &[15, 0, 0]].concat();
    let frame = [&[0x10, 0, 0, 0x9D, 0x01, 0x2A, 0xFF, 0x3F, 0xFF, 0x3F][..], &[0; 1000]].concat();
    let chunk = |name: &[u8; 4], payload: &[u8]| [&name[..], &(payload.len() as u32).to_le_bytes(), payload].concat();
    let chunks = [chunk(b"VP8X", &canvas), chunk(b"VP8 ", &frame)].concat();
    chunk(b"RIFF", &[b"WEBP", &chunks[..]].concat())
}

#[test]
fn a_webp_frame_larger_than_its_picture_is_refused() {
    let reason = read(&webp_with_a_larger_frame()).unwrap_err().to_string();
    assert!(reason.contains("larger than the picture"), "{reason}");
}

#[test]
fn a_tiff_directory_beyond_its_file_is_an_error() {
    let mut bytes = encoded(ImageFormat::Tiff);
    for offset in [0_u32, 8, 0x7FFF_FFFF, u32::MAX] {
        bytes[4..8].copy_from_slice(&offset.to_le_bytes());
        assert_reason(&read(&bytes).unwrap_err());
    }
}

#[test]
fn a_jpeg_with_thousands_of_scans_is_refused() {
    let mut bytes = jpeg(16, 16);
    bytes.truncate(bytes.len() - 2);
    let start = bytes.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap();
    let scan = bytes[start..].to_vec();
    (0..2_000).for_each(|_| bytes.extend(&scan));
    bytes.extend([0xFF, 0xD9]);
    assert!(read(&bytes).unwrap_err().to_string().contains("scans"));
}

#[test]
fn impossible_jpeg_tables_are_errors() {
    for (marker, payload) in [
        (0xC4, vec![0x00; 17]),                                      // no codes at all: used by the scan
        (0xC4, [vec![0x00], vec![0xFF; 16], vec![1; 100]].concat()), // more codes than bits can tell apart
        (0xC4, vec![0x0F; 3]),                                       // too short
        (0xDB, vec![0x00; 10]),                                      // too short
        (0xDB, [vec![0x09], vec![1; 64]].concat()),                  // no such table
    ] {
        let mut bytes = jpeg(64, 64);
        let start = bytes.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap();
        let length = (payload.len() as u16 + 2).to_be_bytes();
        let segment = [vec![0xFF, marker], length.to_vec(), payload].concat();
        bytes.splice(start..start, segment);
        assert_reason(&read(&bytes).unwrap_err());
    }
}

#[test]
fn garbage_behind_every_signature_is_an_error() {
    let signatures: [&[u8]; 7] = [
        b"\xFF\xD8\xFF\xE0",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\x40\x01\0\0WEBP",
        b"GIF89a",
        b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
        b"II*\0\x08\0\0\0",
        b"MM\0*\0\0\0\x08",
    ];
    for signature in signatures {
        for seed in 0..50_u32 {
            let noise =
                (0..400_u32).map(|at| ((at * 2_654_435 + seed * 40_503).wrapping_mul(2_246_822_519) >> 24) as u8);
            let bytes: Vec<u8> = signature.iter().copied().chain(noise).collect();
            assert_reason(&read(&bytes).unwrap_err());
        }
    }
}

#[test]
fn what_is_no_photo_is_named() {
    let cases: [(&[u8], &str); 5] = [
        (b"", "empty"),
        (b"%PDF-1.7", "PDF"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41", "MP4"),
    ];
    for (bytes, word) in cases {
        let reason = read(bytes).unwrap_err().to_string();
        assert!(reason.contains(word), "{reason}");
    }
}

#[test]
fn limits_are_kept_before_decoding() {
    let budget = ImageBudget::new(1 << 26);
    let bytes = jpeg(64, 48);
    let refusal = |limits: Limits| decode_bytes(&bytes, None, &limits, &budget).unwrap_err();
    let default = Limits::default();
    assert!(matches!(refusal(Limits { max_pixels: 1000, ..default }), ImageError::TooManyPixels { .. }));
    assert!(matches!(refusal(Limits { max_side: 63, ..default }), ImageError::TooLong { .. }));
    assert!(matches!(refusal(Limits { max_decode_bytes: 5000, ..default }), ImageError::TooMuchMemory { .. }));
    assert_eq!(budget.used_bytes(), 0);
}

#[test]
fn a_photo_under_a_false_name_is_read_by_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("photo.png");
    std::fs::write(&path, jpeg(30, 20)).unwrap();
    let picture = decode(&path, None, &Limits::default(), &ImageBudget::new(1 << 26)).unwrap();
    assert_eq!((picture.width, picture.height), (30, 20));
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (limits, budget) = (Limits::default(), ImageBudget::new(1 << 26));
    let reason = |name: &str| load_input(&at(name), &Transform::default(), &limits, &budget).unwrap_err().to_string();

    let pipe = std::ffi::CString::new(at("pipe.jpg").into_os_string().into_encoded_bytes()).unwrap();
    // SAFETY: the name is a C string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    assert_eq!(reason("pipe.jpg"), "a pipe or a device, not a photo");
    std::fs::create_dir(at("folder.jpg")).unwrap();
    assert_eq!(reason("folder.jpg"), "a folder, not a photo");
    std::os::unix::fs::symlink(at("loop.jpg"), at("loop.jpg")).unwrap();
    assert_eq!(reason("loop.jpg"), "failed to read the file");
    assert_eq!(reason("missing.jpg"), "failed to read the file");
    std::fs::write(at("empty.jpg"), b"").unwrap();
    assert_eq!(reason("empty.jpg"), "the file is empty (0 bytes)");
    std::fs::write(at("large.jpg"), vec![0; 2000]).unwrap();
    let small = Limits { max_file_bytes: 1000, ..limits };
    let error = load_input(&at("large.jpg"), &Transform::default(), &small, &budget).unwrap_err();
    assert!(matches!(error, ImageError::TooManyBytes { bytes: 2000, limit: 1000 }));
    assert!(matches!(
        load_input(std::path::Path::new("/dev/zero"), &Transform::default(), &limits, &budget),
        Err(ImageError::NotAFile(_))
    ));
}

#[test]
fn a_failed_photo_gives_its_permit_back() {
    let budget = ImageBudget::new(1 << 20);
    let bytes = jpeg(600, 400);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let cut = decode_bytes(&bytes[..bytes.len() / 2], None, &Limits::default(), &budget);
                    assert!(cut.is_err());
                    assert!(decode_bytes(&bytes, None, &Limits::default(), &budget).is_ok());
                }
            });
        }
    });
    assert_eq!(budget.used_bytes(), 0);
}

#[test]
fn gray_and_sixteen_bit_pictures_are_read() {
    let gray: Vec<u8> = (0..=255).collect();
    let mut bytes = Cursor::new(Vec::new());
    image::write_buffer_with_format(&mut bytes, &gray, 16, 16, ColorType::L8, ImageFormat::Png).unwrap();
    let picture = read(bytes.get_ref()).unwrap();
    assert!(picture.rgb.chunks_exact(3).zip(&gray).all(|(pixel, gray)| pixel == [*gray; 3]));

    let deep: Vec<u8> = (0..256_u32).flat_map(|level| (level as u16 * 257).to_ne_bytes()).collect();
    let mut bytes = Cursor::new(Vec::new());
    image::write_buffer_with_format(&mut bytes, &deep, 16, 16, ColorType::L16, ImageFormat::Png).unwrap();
    let picture = read(bytes.get_ref()).unwrap();
    assert!(picture.rgb.chunks_exact(3).zip(&gray).all(|(pixel, gray)| pixel == [*gray; 3]));
}
