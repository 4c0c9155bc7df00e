//! Makes the icon's files from its drawing: `cargo run --release --example draw-icon`.
//!
//! It reads `resources/icon.svg` and writes `resources/AppIcon.icns`, for the bundle of a Mac, and
//! `resources/icon.png`, for the window elsewhere.

mod draw;

use std::fs;
use std::path::Path;

use anyhow::Context;

const WINDOW_PIXELS: u32 = 256;

fn main() -> anyhow::Result<()> {
    let resources = Path::new(env!("CARGO_MANIFEST_DIR")).join("resources");
    let svg = fs::read_to_string(resources.join("icon.svg")).context("failed to read resources/icon.svg")?;
    fs::write(resources.join("AppIcon.icns"), draw::icns(&svg)?).context("failed to write resources/AppIcon.icns")?;
    fs::write(resources.join("icon.png"), draw::png(&svg, WINDOW_PIXELS)?).context("failed to write resources/icon.png")
}
