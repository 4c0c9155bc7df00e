//! Photos of every dish as files.

use std::fs;
use std::path::Path;

use anyhow::Context;
use rayon::prelude::*;

use crate::generate;

/// Writes `per_class` photos of each dish as `folder/<dish>/NNN.jpg`.
pub fn write_photos(folder: &Path, per_class: u64, seed: u64) -> anyhow::Result<()> {
    for (dish, name) in generate::names().into_iter().enumerate() {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("failed to make the folder {}", folder.display()))?;
        (0..per_class).into_par_iter().try_for_each(|number| {
            let path = folder.join(format!("{:03}.jpg", number + 1));
            fs::write(&path, generate::jpeg(dish, number, seed))
                .with_context(|| format!("failed to write {}", path.display()))
        })?;
    }
    Ok(())
}
