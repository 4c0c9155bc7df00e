//! Peak memory of `galley classify` as a whole process over many 12-megapixel photos:
//!
//! `cargo bench --bench peak_memory -- [--photos 5000] [--photo FILE] [classify's own flags]`
//!
//! The photos are hard links to one file (a drawn one unless `--photo` names another), so 5,000 cost hardly any disk. Prints one
//! line: photos, seconds, photos per second, and the highest resident size as the operating system kept it for the
//! child process (mapped files and libraries included).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const LINKS_PER_FILE: u64 = 10_000;

struct Request {
    photos: u64,
    photo: Option<PathBuf>,
    classify_flags: Vec<String>,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Request, String> {
    let mut request = Request { photos: 5000, photo: None, classify_flags: Vec::new() };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--bench" => (), // cargo adds it
            "--photos" => request.photos = value()?.parse().map_err(|error| format!("--photos: {error}"))?,
            "--photo" => request.photo = Some(value()?.into()),
            _ => request.classify_flags.push(argument),
        }
    }
    Ok(request)
}

/// A 4032 × 3024 JPEG with detail everywhere, about as heavy as a phone's.
fn draw_photo(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let picture = image::RgbImage::from_fn(4032, 3024, |x, y| {
        let wave = |period: f32| ((x as f32 / period).sin() + (y as f32 / (period * 0.7)).cos()) * 40.0 + 110.0;
        let grain = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503)).wrapping_mul(2_246_822_519) >> 27;
        image::Rgb([97.0, 310.0, 33.0].map(|period| (wave(period) + grain as f32) as u8))
    });
    let file = std::io::BufWriter::new(std::fs::File::create(path)?);
    picture.write_with_encoder(image::codecs::jpeg::JpegEncoder::new_with_quality(file, 88))?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let request = parse(std::env::args().skip(1))?;
    let folder = tempfile::tempdir()?;
    let photos = folder.path().join("photos");
    std::fs::create_dir(&photos)?;
    let original = folder.path().join("original.jpg");
    match &request.photo {
        Some(photo) => drop(std::fs::copy(photo, &original)?),
        None => draw_photo(&original)?,
    }
    for i in 0..request.photos {
        let photo = photos.join(format!("{i:06}.jpg"));
        // A file system allows only so many links to one file.
        if i % LINKS_PER_FILE == 0 {
            std::fs::copy(&original, &photo)?;
        } else {
            std::fs::hard_link(photos.join(format!("{:06}.jpg", i - i % LINKS_PER_FILE)), &photo)?;
        }
    }
    let started = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_galley"));
    command.arg("classify").args(&request.classify_flags).arg(&photos).stdout(Stdio::null());
    command.env("GALLEY_JOURNAL", folder.path().join("journal.sqlite"));
    let status = command.status()?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{} photos of {} in {seconds:.1} s, {:.1} per second; peak resident size {}; {status}",
        galley::format::count(request.photos),
        galley::format::bytes(original.metadata()?.len()),
        request.photos as f64 / seconds,
        galley::format::bytes(peak_of_children()),
    );
    Ok(())
}

/// Highest resident size among the child processes that have ended, in bytes.
fn peak_of_children() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the buffer is a whole rusage, which the call fills; zeroed integers are valid before it.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    usage.ru_maxrss as u64 * unit
}
