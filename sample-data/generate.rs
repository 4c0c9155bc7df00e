//! Makes the sample photos: `cargo run --release --example generate-sample-data`.
//!
//! Without options it writes `sample-data/photos/{train,test}/<dish>/NNN.jpg`, always the same bytes. `--per-class N
//! --seed S --out DIR` writes N other photos of each dish to `DIR/<dish>/` instead, for training.

#[path = "generate/mod.rs"]
mod generate;
mod write;

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Folder, photos per dish and seed of the two parts that come with Galley.
const SPLITS: [(&str, u64, u64); 2] = [("train", 40, 1), ("test", 12, 2)];

fn main() -> anyhow::Result<()> {
    match parse(env::args().skip(1))? {
        Some((per_class, seed, folder)) => write::write_photos(&folder, per_class, seed),
        None => {
            let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/photos");
            SPLITS
                .iter()
                .try_for_each(|&(split, per_class, seed)| write::write_photos(&photos.join(split), per_class, seed))
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Option<(u64, u64, PathBuf)>> {
    let (mut per_class, mut seed, mut folder) = (None, None, None);
    while let Some(option) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--per-class" => per_class = Some(value.parse().context("--per-class needs a number")?),
            "--seed" => seed = Some(value.parse().context("--seed needs a number")?),
            "--out" => folder = Some(PathBuf::from(value)),
            _ => bail!("unknown option {option}; there are --per-class, --seed and --out"),
        }
    }
    match (per_class, seed, folder) {
        (None, None, None) => Ok(None),
        (Some(per_class), Some(seed), Some(folder)) => Ok(Some((per_class, seed, folder))),
        _ => bail!("--per-class, --seed and --out belong together"),
    }
}
