//! Speed from photo files to network input, on all threads together: `decoding [--threads 2] [--seconds 3] PHOTO|FOLDER…`
//!
//! Each thread takes the photos in turn, through the default transform (256, centre 224). Prints one line: photos per
//! second, and how long the fastest photo took on its thread. `images.py` sets it beside other decoders.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use galley::images::transform::Transform;
use galley::images::{ImageBudget, Limits, is_photo_name, load_input};

struct Request {
    threads: usize,
    seconds: f64,
    photos: Vec<PathBuf>,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Request, String> {
    let mut request = Request { threads: 2, seconds: 3.0, photos: Vec::new() };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--threads" => request.threads = value()?.parse().map_err(|error| format!("--threads: {error}"))?,
            "--seconds" => request.seconds = value()?.parse().map_err(|error| format!("--seconds: {error}"))?,
            _ => request.photos.extend(photos(Path::new(&argument))),
        }
    }
    if request.photos.is_empty() { Err("name photos or folders of photos".to_owned()) } else { Ok(request) }
}

fn photos(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = walkdir::WalkDir::new(path).sort_by_file_name().into_iter().filter_map(Result::ok);
    let files = entries.filter(|entry| entry.file_type().is_file() && is_photo_name(entry.path()));
    files.map(walkdir::DirEntry::into_path)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let request = parse(std::env::args().skip(1))?;
    galley::memory::heap::tune();
    let (limits, transform, budget) = (Limits::default(), Transform::default(), ImageBudget::new(1 << 30));
    let started = AtomicUsize::new(0);
    let start = Instant::now();
    let work = || {
        let mut fastest = Duration::MAX;
        while start.elapsed().as_secs_f64() < request.seconds {
            let number = started.fetch_add(1, Ordering::Relaxed);
            let photo = &request.photos[number % request.photos.len()];
            let begun = Instant::now();
            load_input(photo, &transform, &limits, &budget).map_err(|error| format!("{}: {error}", photo.display()))?;
            fastest = fastest.min(begun.elapsed());
        }
        Ok::<_, String>(fastest)
    };
    let fastest = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..request.threads).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?);
        joined.collect::<Result<Vec<_>, String>>()
    })?;
    let per_second = started.into_inner() as f64 / start.elapsed().as_secs_f64();
    let fastest = fastest.into_iter().min().unwrap_or_default();
    println!("{per_second:.1} photos per second, the fastest in {:.2} ms", fastest.as_secs_f64() * 1e3);
    Ok(())
}
