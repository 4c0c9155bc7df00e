//! Real photos through decoding and the transform: the odd ones, those PyTorch's answers are known for, and pictures
//! resized by Pillow.

use std::path::{Path, PathBuf};

use galley::images::transform::{Interpolation, Resize, Transform};
use galley::images::{ImageBudget, ImageError, Input, Limits, Picture, decode, load_input};

use crate::support::test_data;

fn read(path: &Path, short_side: Option<u32>) -> Result<Picture, ImageError> {
    decode(path, short_side, &Limits::default(), &ImageBudget::new(64_000_000))
}

fn mean(picture: &Picture) -> [f64; 3] {
    let mut sums = [0.0; 3];
    for pixel in picture.rgb.chunks_exact(3) {
        sums.iter_mut().zip(pixel).for_each(|(sum, level)| *sum += f64::from(*level));
    }
    sums.map(|sum| sum / f64::from(picture.width) / f64::from(picture.height))
}

/// One line of the index of odd images.
struct Odd {
    path: PathBuf,
    name: String,
    mode: String,
    pillow: String,
    size: String,
    mean: Option<[f64; 3]>,
}

fn odd_images() -> Option<Vec<Odd>> {
    let folder = test_data()?.join("odd-images");
    let index = std::fs::read_to_string(folder.join("INDEX.tsv")).expect("the index is readable");
    let mut rows = csv::ReaderBuilder::new().delimiter(b'\t').quoting(false).from_reader(index.as_bytes());
    let odd = |row: csv::StringRecord| {
        let mean: Vec<f64> = row[10].split(',').filter_map(|level| level.parse().ok()).collect();
        Odd {
            path: folder.join(&row[0]),
            name: row[0].to_owned(),
            mode: row[4].to_owned(),
            pillow: row[8].to_owned(),
            size: row[9].to_owned(),
            mean: mean.try_into().ok(),
        }
    };
    Some(rows.records().map(|row| odd(row.expect("the index is a table"))).collect())
}

/// Where a mean colour can be compared with Pillow's, which drops alpha, keeps profiles out of it, and knows no white.
fn mean_is_comparable(odd: &Odd) -> bool {
    let with_alpha = odd.mode.contains('A') || odd.name.contains("trns") || odd.name.contains("tRNS");
    // These GIFs have a transparent colour; the JPEGs and the HEIC a profile (Pillow: `icc_profile` in `info`).
    let transparent = ["gif/oob.gif", "gif/issue_1455_oversized.gif"];
    let profiled = [
        "jpeg-odd/icc_profile_big.jpg",
        "jpeg-odd/portrait_2.jpg",
        "jpeg-odd/vips_sample-xyb.jpg",
        "phone-photos/04-pizza-dad.jpeg",
        "heif-avif/exifsamples_IMG_5195.HEIC",
    ];
    !with_alpha && odd.mode != "CMYK" && !transparent.contains(&&*odd.name) && !profiled.contains(&&*odd.name)
}

#[test]
fn every_odd_image_is_decoded_upright_or_refused_with_a_reason() {
    let Some(images) = odd_images() else { return };
    let mut wrong = Vec::new();
    let mut decoded = 0;
    for odd in &images {
        let picture = match read(&odd.path, None) {
            Ok(picture) => picture,
            Err(ImageError::DecoderFailed(_)) => {
                wrong.push(format!("{}: the decoder panicked", odd.name));
                continue;
            }
            Err(error) => {
                println!("{}: {error} (Pillow: {})", odd.name, odd.pillow);
                continue;
            }
        };
        decoded += 1;
        let size = format!("{}x{}", picture.width, picture.height);
        assert_eq!(picture.rgb.len(), picture.width as usize * picture.height as usize * 3, "{}", odd.name);
        if odd.pillow.contains("truncated") {
            wrong.push(format!("{}: decoded although it is truncated", odd.name));
        }
        if odd.pillow == "ok" && size != odd.size {
            wrong.push(format!("{}: {size} instead of {}", odd.name, odd.size));
        }
        if let Some(expected) = odd.mean.filter(|_| mean_is_comparable(odd)) {
            let off = mean(&picture).iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            // The index is rounded to one decimal; our JPEG pixels are libjpeg's, other formats are lossless or exact, and
            // libheif's conversion from the narrow range is half a level off (rounded exactly, the mean is ours).
            let allowed = if odd.name.starts_with("heif-avif/") { 0.6 } else { 0.15 };
            if off > allowed {
                wrong.push(format!("{}: mean {:.2?} instead of {expected:?}", odd.name, mean(&picture)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(decoded >= 85, "only {decoded} of {} decoded", images.len());
}

#[test]
fn kinds_without_a_decoder_say_what_to_do() {
    let Some(images) = odd_images() else { return };
    let is_read = |name: &str| cfg!(target_os = "macos") || cfg!(feature = "heic") && !name.ends_with(".avif");
    for odd in images.iter().filter(|odd| odd.name.starts_with("heif-avif/") && !odd.name.contains("empty")) {
        if !is_read(&odd.name) {
            let reason = read(&odd.path, None).unwrap_err().to_string();
            assert!(reason.contains("convert to JPEG"), "{}: {reason}", odd.name);
        }
    }
}

#[test]
#[cfg(feature = "heic")]
fn photos_of_phones_are_decoded_and_damaged_ones_are_errors() {
    let Some(images) = odd_images() else { return };
    let mut decoded = 0;
    for odd in images.iter().filter(|odd| odd.name.starts_with("heif-avif/") && !odd.name.ends_with(".avif")) {
        let picture = read(&odd.path, None);
        match &*odd.pillow {
            "ok" => {
                decoded += 1;
                assert!(picture.is_ok(), "{}: {:?}", odd.name, picture.err());
            }
            _ => {
                let reason = picture.map(|picture| (picture.width, picture.height)).unwrap_err();
                assert!(!matches!(reason, ImageError::DecoderFailed(_)), "{}: {reason}", odd.name);
            }
        }
    }
    assert_eq!(decoded, 7);
}

#[test]
fn all_eight_orientations_show_the_same_scene() {
    let Some(folder) = test_data() else { return };
    let photo = |number: u32| {
        let name = format!("odd-images/exif-orientation/recurser_Landscape_{number}.jpg");
        read(&folder.join(name), None).expect("it is a sound photo")
    };
    let upright = photo(1);
    assert_eq!((upright.full_width, upright.full_height), (1800, 1200));
    for number in [0, 2, 3, 4, 5, 6, 7, 8] {
        let other = photo(number);
        assert_eq!((other.width, other.height), (upright.width, upright.height));
        let differences = upright.rgb.iter().zip(&other.rgb).map(|(a, b)| f64::from(a.abs_diff(*b)));
        let difference = differences.sum::<f64>() / upright.rgb.len() as f64;
        // Each was saved anew, with its number painted on it; turned wrongly the scenes differ by 30 levels or more.
        assert!(difference < 6.0, "orientation {number} differs by {difference:.1} levels");
    }
}

#[test]
fn a_reduced_photo_is_the_full_one_made_smaller() {
    let Some(folder) = test_data() else { return };
    let path = folder.join("odd-images/phone-photos/04-pizza-dad.jpeg");
    let full = read(&path, None).expect("it is a sound photo");
    for (short_side, scale) in [(256, 4), (512, 2), (150, 8)] {
        let reduced = read(&path, Some(short_side)).expect("it is a sound photo");
        assert_eq!((reduced.width, reduced.height), (full.width / scale, full.height / scale));
        let differences = reduced.rgb.chunks_exact(3).enumerate().map(|(at, pixel)| {
            let (x, y) = (at as u32 % reduced.width * scale, at as u32 / reduced.width * scale);
            let block = (0..scale * scale).map(|part| {
                let place = (y + part / scale) * full.width + x + part % scale;
                f64::from(full.rgb[place as usize * 3 + 1])
            });
            (f64::from(pixel[1]) - block.sum::<f64>() / f64::from(scale * scale)).abs()
        });
        let difference = differences.sum::<f64>() / f64::from(reduced.width * reduced.height);
        assert!(difference < 2.0, "1/{scale} differs from the mean of its blocks by {difference:.2} levels");
    }
}

/// The picture that `tests/reference/resize.py` gives to Pillow.
fn formula_picture(width: u32, height: u32) -> Picture {
    let level = |x: u32, y: u32, c: u32| {
        let wave = x * x * (c + 3) + y * y * (5 - c) + x * y * 7 + x * 11 + y * 13 + c * 50;
        (wave % 251 + 4 * ((x / 5 + y / 7) % 2)) as u8
    };
    let rows = (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| level(x, y, c))));
    Picture { width, height, rgb: rows.collect(), full_width: width, full_height: height }
}

#[derive(serde::Deserialize)]
struct ResizeCase {
    width: u32,
    height: u32,
    resize: serde_json::Value,
    crop: Option<u32>,
    interpolation: Interpolation,
    result: [usize; 2],
    bytes: Option<String>,
    #[serde(default)]
    sums: Vec<u64>,
    #[serde(default)]
    every_997th: Vec<u8>,
}

impl ResizeCase {
    fn transform(&self) -> Transform {
        let number = |value: &serde_json::Value| value.as_u64().expect("sizes are whole numbers") as u32;
        let resize = match self.resize.as_array() {
            Some(pair) => Resize::Exact { height: number(&pair[0]), width: number(&pair[1]) },
            None => Resize::ShortSide(number(&self.resize)),
        };
        // Without normalization, so that the levels can be read back.
        Transform { resize, crop: self.crop, interpolation: self.interpolation, mean: [0.0; 3], std: [1.0; 3] }
    }
}

fn from_hexadecimal(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().map(|digit| digit.to_digit(16).expect("hexadecimal") as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] * 16 + pair[1]).collect()
}

#[test]
fn resizing_and_cropping_give_pillows_bytes() {
    #[derive(serde::Deserialize)]
    struct Reference {
        cases: Vec<ResizeCase>,
    }
    let reference: Reference = serde_json::from_str(include_str!("../reference/resize.json")).expect("a reference");
    assert!(reference.cases.len() > 80);
    for case in &reference.cases {
        let name =
            format!("{}x{} to {} crop {:?} {:?}", case.width, case.height, case.resize, case.crop, case.interpolation);
        let values = case.transform().apply(&formula_picture(case.width, case.height));
        let levels: Vec<u8> = values.iter().map(|value| (value * 255.0).round() as u8).collect();
        assert_eq!(levels.len(), case.result[0] * case.result[1] * 3, "{name}");
        if let Some(bytes) = &case.bytes {
            assert!(levels == from_hexadecimal(bytes), "{name} differs");
            continue;
        }
        let every_997th: Vec<u8> = levels.iter().step_by(997).copied().collect();
        assert_eq!(every_997th, case.every_997th, "{name}");
        let sum = |channel| levels.iter().skip(channel).step_by(3).map(|level| u64::from(*level)).sum::<u64>();
        assert_eq!([sum(0), sum(1), sum(2)].as_slice(), case.sums, "{name}");
    }
}

/// What PyTorch's preprocessing made of a photo, from a reference beside a checkpoint.
struct Checked {
    path: PathBuf,
    transform: Transform,
    channel_mean: [f32; 3],
    first_pixel: [f32; 3],
    middle_pixel: [f32; 3],
}

fn checked_inputs(folder: &Path) -> Vec<Checked> {
    let triple = |value: &serde_json::Value| -> Option<[f32; 3]> { serde_json::from_value(value.clone()).ok() };
    let references = walkdir::WalkDir::new(folder.join("checkpoints")).into_iter().filter_map(Result::ok);
    let mut checked = Vec::new();
    for entry in references.filter(|entry| entry.file_name().to_string_lossy().ends_with("reference.json")) {
        let text = std::fs::read_to_string(entry.path()).expect("the reference is readable");
        let document: serde_json::Value = serde_json::from_str(&text).expect("the reference is JSON");
        for variant in document["variants"].as_array().into_iter().flatten() {
            let how = &variant["preprocess"];
            let resize = match (&how["resize"], how["resize"].as_u64()) {
                (_, Some(side)) => Resize::ShortSide(side as u32),
                (pair, None) => {
                    let side = |at: usize| pair[at].as_u64().expect("a size") as u32;
                    Resize::Exact { height: side(0), width: side(1) }
                }
            };
            let transform = Transform {
                resize,
                crop: how["crop"].as_str().map(|_| 224),
                interpolation: serde_json::from_value(how["interpolation"].clone()).expect("a known filter"),
                mean: triple(&how["mean"]).unwrap_or([0.0; 3]),
                std: triple(&how["std"]).unwrap_or([1.0; 3]),
            };
            for image in variant["images"].as_array().into_iter().flatten() {
                let check = &image["input_check"];
                let (Some(channel_mean), Some(first_pixel), Some(middle_pixel)) =
                    (triple(&check["channel_mean"]), triple(&check["pixel_0_0"]), triple(&check["pixel_mid"]))
                else {
                    continue;
                };
                let name = image["path"].as_str().expect("a path");
                // PyTorch's preprocessing ignores profiles other than sRGB, and drops alpha where we lay the picture on
                // white; the Landscape lies on its side there unless the reference says otherwise.
                let unlike = [
                    "food/food101-512/test/pad_thai/13080.jpg",
                    "odd-images/phone-photos/04-pizza-dad.jpeg",
                    "odd-images/png-odd/transparent.png",
                ];
                let lying = name.contains("Landscape_6") && image["exif_orientation"] == "ignored";
                if unlike.contains(&name) || lying {
                    continue;
                }
                let path = folder.join(name);
                checked.push(Checked { path, transform, channel_mean, first_pixel, middle_pixel });
            }
        }
    }
    checked
}

#[test]
fn network_input_of_real_photos_is_pytorchs() {
    let Some(folder) = test_data() else { return };
    let checked = checked_inputs(&folder);
    assert!(checked.len() > 100, "only {} photos are checked", checked.len());
    let budget = ImageBudget::new(64_000_000);
    let mut wrong = Vec::new();
    for photo in &checked {
        let picture = read(&photo.path, Some(photo.transform.short_side())).expect("it is a sound photo");
        let input =
            load_input(&photo.path, &photo.transform, &Limits::default(), &budget).expect("it is a sound photo");
        let Input { height, width, pixels: input } = input;
        assert_eq!(Some((height, width)), photo.transform.output_size());
        assert_eq!(input.len(), height * width * 3);
        let pixel = |y: usize, x: usize| -> [f32; 3] {
            let at = (y * width + x) * 3;
            [input[at], input[at + 1], input[at + 2]]
        };
        let mean = [0, 1, 2].map(|channel| {
            let sum: f64 = input.iter().skip(channel).step_by(3).map(|value| f64::from(*value)).sum();
            (sum / (height * width) as f64) as f32
        });
        let reduced = picture.width < picture.full_width;
        // References are rounded to five decimals. At full scale every pixel is libjpeg's and every weight Pillow's; a
        // level is about 0.017. A photo decoded at a reduced scale differs by a few levels at edges.
        let (pixels, means) = if reduced { (0.1, 0.01) } else { (2e-5, 2e-5) };
        for (what, got, wanted, tolerance) in [
            ("mean", mean, photo.channel_mean, means),
            ("first pixel", pixel(0, 0), photo.first_pixel, pixels),
            ("middle pixel", pixel(height / 2, width / 2), photo.middle_pixel, pixels),
        ] {
            let off = got.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            if off > tolerance {
                wrong.push(format!("{what} of {} is {got:?} instead of {wanted:?}", photo.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
