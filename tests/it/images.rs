//! Real photos through decoding and the transform: the odd ones, those PyTorch's answers are known for, and pictures
//! resized by Pillow.

use std::path::{Path, PathBuf};

use galley::images::{ImageBudget, ImageError, Limits, Picture, decode};

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
    // These GIFs have a transparent colour; the JPEGs a profile (Pillow: `icc_profile` in `info`).
    let transparent = ["gif/oob.gif", "gif/issue_1455_oversized.gif"];
    let profiled = [
        "jpeg-odd/icc_profile_big.jpg",
        "jpeg-odd/portrait_2.jpg",
        "jpeg-odd/vips_sample-xyb.jpg",
        "phone-photos/04-pizza-dad.jpeg",
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
            // The index is rounded to one decimal; our JPEG pixels are libjpeg's, other formats are lossless or exact.
            if off > 0.15 {
                wrong.push(format!("{}: mean {:.2?} instead of {expected:?}", odd.name, mean(&picture)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(decoded >= 85, "only {decoded} of {} decoded", images.len());
}

#[test]
fn kinds_that_wait_for_later_say_so() {
    let Some(images) = odd_images() else { return };
    for odd in images.iter().filter(|odd| odd.name.starts_with("heif-avif/") && !odd.name.contains("empty")) {
        let reason = read(&odd.path, None).unwrap_err().to_string();
        assert!(reason.contains("convert to JPEG"), "{}: {reason}", odd.name);
    }
}

#[test]
fn all_eight_orientations_show_the_same_scene() {
    let Some(folder) = test_data() else { return };
    let photo = |number: u32| {
        let name = format!("odd-images/exif-orientation/recurser_Landscape_{number}.jpg");
        read(&folder.join(name), Some(64)).expect("it is a sound photo")
    };
    let upright = photo(1);
    assert_eq!((upright.full_width, upright.full_height), (1800, 1200));
    assert!(upright.width < 1800, "the photo was not decoded at a reduced scale");
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
