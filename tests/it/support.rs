//! Where tests find their material.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of real photos and checkpoints, named by `GALLEY_TEST_DATA`; without it the test says that it skips.
pub fn test_data() -> Option<PathBuf> {
    let folder = std::env::var_os("GALLEY_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: GALLEY_TEST_DATA is not set");
    }
    folder
}

/// Runs the test `name` again in a process of its own, where nothing else allocates, and `measure` only there.
pub fn alone(name: &str, measure: impl FnOnce()) {
    const ALONE: &str = "GALLEY_TEST_RUNS_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return measure();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    eprintln!("{said}");
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// A SqueezeNet 1.1 with seeded weights, as torchvision names them: small, quick, and with an opinion on every photo.
pub fn write_model(path: &Path, classes: usize, seed: u32) {
    write_model_with(path, classes, seed, &[]);
}

/// The same with metadata beside the tensors.
pub fn write_model_with(path: &Path, classes: usize, seed: u32, metadata: &[(&str, &str)]) {
    let mut tensors = vec![tensor("features.0", [64, 3, 3, 3])];
    let fires = [(3, 64, 16, 64), (4, 128, 16, 64), (6, 128, 32, 128), (7, 256, 32, 128)];
    let more_fires = [(9, 256, 48, 192), (10, 384, 48, 192), (11, 384, 64, 256), (12, 512, 64, 256)];
    for (index, inputs, squeezed, expanded) in fires.into_iter().chain(more_fires) {
        tensors.push(tensor(&format!("features.{index}.squeeze"), [squeezed, inputs, 1, 1]));
        tensors.push(tensor(&format!("features.{index}.expand1x1"), [expanded, squeezed, 1, 1]));
        tensors.push(tensor(&format!("features.{index}.expand3x3"), [expanded, squeezed, 3, 3]));
    }
    tensors.push(tensor("classifier.1", [classes, 512, 1, 1]));

    let mut random = Random(seed);
    let mut parts = Vec::new();
    for (name, shape) in tensors {
        let fan_in = shape[1] * shape[2] * shape[3];
        let scale = (6.0 / fan_in as f32).sqrt();
        let weight: Vec<u8> = (0..shape[0] * fan_in).flat_map(|_| (scale * random.signed()).to_le_bytes()).collect();
        let bias: Vec<u8> = (0..shape[0]).flat_map(|_| (0.5 + 0.5 * random.signed()).to_le_bytes()).collect();
        parts.push((format!("{name}.weight"), shape.to_vec(), weight));
        parts.push((format!("{name}.bias"), vec![shape[0]], bias));
    }
    let views = parts.iter().map(|(name, shape, bytes)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name.as_str(), view.unwrap())
    });
    let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    std::fs::write(path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
}

fn tensor(name: &str, shape: [usize; 4]) -> (String, [usize; 4]) {
    (name.to_owned(), shape)
}

/// A small photo whose colors follow from its seed.
pub fn write_photo(path: &Path, seed: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut random = Random(seed);
    let mut color = || [0; 3].map(|_| (127.5 + 127.5 * random.signed()) as u8);
    let tiles: Vec<[u8; 3]> = (0..24).map(|_| color()).collect();
    let photo = image::RgbImage::from_fn(96, 64, |x, y| image::Rgb(tiles[(x / 16 + 6 * (y / 16)) as usize]));
    photo.save(path).unwrap();
}

/// xorshift32: the same numbers everywhere.
struct Random(u32);

impl Random {
    /// From −1 to 1.
    fn signed(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(0x9e37_79b9).wrapping_add(1) | 1;
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as f32 / (u32::MAX as f32) * 2.0 - 1.0
    }
}
