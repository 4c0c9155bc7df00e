//! The app bundle's parts that are files here: the icon is what its drawing gives, and Info.plist is true of the program.
//! `packaging/check-bundle.sh` looks at a whole bundle.

use std::fs;
use std::path::{Path, PathBuf};

use galley::images::is_photo_name;
use galley::jobs::brought::Brought;
use icns::{IconFamily, PixelFormat};
use serde::Deserialize;

#[path = "../../packaging/icon/draw.rs"]
mod draw;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn drawing() -> String {
    fs::read_to_string(file("resources/icon.svg")).unwrap()
}

/// The mean difference of what shows, in levels: the last bit of a curve may differ between platforms.
fn difference(one: &[u8], other: &[u8]) -> f64 {
    assert_eq!(one.len(), other.len());
    let shown = |rgba: &[u8]| rgba[..3].iter().map(|&level| f64::from(level) * f64::from(rgba[3]) / 255.0).sum::<f64>();
    let differences = one
        .chunks_exact(4)
        .zip(other.chunks_exact(4))
        .map(|(one, other)| (shown(one) - shown(other)).abs() / 3.0 + f64::from(one[3].abs_diff(other[3])));
    differences.sum::<f64>() / (one.len() / 4) as f64
}

#[test]
fn the_icon_has_every_size_as_it_is_drawn() {
    let kept = fs::read(file("resources/AppIcon.icns")).unwrap();
    for bytes in [kept, draw::icns(&drawing()).unwrap()] {
        let family = IconFamily::read(&bytes[..]).unwrap();
        assert_eq!(family.available_icons().len(), draw::SIZES.len());
        for (size, kind) in draw::SIZES {
            let picture = family.get_icon_with_type(kind).unwrap().convert_to(PixelFormat::RGBA);
            assert_eq!((picture.width(), picture.height(), kind.pixel_width()), (size, size, size));
            let differs = difference(picture.data(), &draw::pixels(&drawing(), size).unwrap());
            assert!(differs < 0.5, "{kind:?} differs by {differs} levels");
        }
    }
}

#[test]
fn the_windows_icon_is_as_it_is_drawn() {
    let kept = fs::read(file("resources/icon.png")).unwrap();
    for bytes in [kept, draw::png(&drawing(), 256).unwrap()] {
        let picture = image::load_from_memory(&bytes).unwrap().into_rgba8();
        assert_eq!(picture.dimensions(), (256, 256));
        let differs = difference(&picture, &draw::pixels(&drawing(), 256).unwrap());
        assert!(differs < 0.5, "{differs} levels");
    }
}

/// As in Apple's template for icons of 1024: a tile of 824 in the middle, and nothing outside it.
#[test]
fn the_icon_keeps_apples_margins() {
    let pixels = draw::pixels(&drawing(), 1024).unwrap();
    let opacity = |x: usize, y: usize| pixels[(y * 1024 + x) * 4 + 3];
    for along in 0..1024 {
        for (x, y) in [(along, 99), (along, 924), (99, along), (924, along)] {
            assert_eq!(opacity(x, y), 0, "{x}, {y}");
        }
    }
    for (x, y) in [(512, 100), (512, 923), (100, 512), (923, 512)] {
        assert_eq!(opacity(x, y), 255, "{x}, {y}");
    }
}

#[derive(Deserialize)]
struct Info {
    #[serde(rename = "CFBundleExecutable")]
    executable: String,
    #[serde(rename = "CFBundleShortVersionString")]
    version: String,
    #[serde(rename = "CFBundleVersion")]
    build: String,
    #[serde(rename = "LSMinimumSystemVersion")]
    minimum_system: String,
    #[serde(rename = "CFBundleDocumentTypes")]
    documents: Vec<DocumentType>,
    #[serde(rename = "UTImportedTypeDeclarations")]
    imported: Vec<ImportedType>,
}

#[derive(Deserialize)]
struct DocumentType {
    #[serde(rename = "CFBundleTypeRole")]
    role: String,
    #[serde(rename = "LSHandlerRank")]
    rank: String,
    #[serde(rename = "LSItemContentTypes")]
    content: Vec<String>,
}

#[derive(Deserialize)]
struct ImportedType {
    #[serde(rename = "UTTypeIdentifier")]
    identifier: String,
    #[serde(rename = "UTTypeTagSpecification")]
    tags: Tags,
}

#[derive(Deserialize)]
struct Tags {
    #[serde(rename = "public.filename-extension")]
    extensions: Vec<String>,
}

fn info() -> Info {
    plist::from_file(file("packaging/Info.plist")).unwrap()
}

/// The photos that macOS knows by these types, by some of their extensions.
const PHOTO_TYPES: &[(&str, &[&str])] = &[
    ("public.jpeg", &["jpg", "jpeg"]),
    ("public.mpo-image", &["mpo"]),
    ("public.png", &["png"]),
    ("org.webmproject.webp", &["webp"]),
    ("com.compuserve.gif", &["gif"]),
    ("com.microsoft.bmp", &["bmp"]),
    ("public.tiff", &["tif", "tiff"]),
    ("public.heic", &["heic"]),
    ("public.heif", &["heif"]),
    ("public.avif", &["avif"]),
    ("public.camera-raw-image", &["dng", "cr2", "cr3", "nef", "arw", "orf", "rw2", "raf"]),
];

#[test]
fn the_bundle_is_of_this_program() {
    let info = info();
    assert_eq!(info.executable, env!("CARGO_PKG_NAME"));
    assert_eq!((info.version.as_str(), info.build.as_str()), ("@VERSION@", "@VERSION@"));
    let manifest = fs::read_to_string(file("Cargo.toml")).unwrap();
    let first = manifest.lines().find_map(|line| line.strip_prefix("version = ")).unwrap();
    assert_eq!(first, format!("{:?}", env!("CARGO_PKG_VERSION")), "packaging/bundle takes this line");
    assert!(env!("CARGO_PKG_VERSION").split('.').all(|part| part.parse::<u32>().is_ok()), "macOS takes numbers alone");
    // What `device::choose` asks for before Metal is used.
    assert_eq!(info.minimum_system, "15.0");
}

#[test]
fn galley_reads_every_type_of_file_that_opens_it() {
    let Info { documents, imported, .. } = info();
    let folder = tempfile::tempdir().unwrap();
    for identifier in documents.iter().flat_map(|document| &document.content) {
        if let Some((_, extensions)) = PHOTO_TYPES.iter().find(|(known, _)| known == identifier) {
            for extension in *extensions {
                assert!(is_photo_name(Path::new(&format!("photo.{extension}"))), "{identifier}: {extension}");
            }
        } else if let Some(declared) = imported.iter().find(|declared| declared.identifier == *identifier) {
            for extension in &declared.tags.extensions {
                let path = folder.path().join(format!("model.{extension}"));
                fs::write(&path, "").unwrap();
                assert_eq!(Brought::sort([path.clone()]).checkpoints, [path]);
            }
        } else {
            assert!(["public.folder", "public.volume"].contains(&identifier.as_str()), "{identifier} is not known");
        }
    }
}

#[test]
fn every_type_of_checkpoint_opens_galley_and_no_other_type_by_itself() {
    let Info { documents, imported, .. } = info();
    let opened =
        |identifier: &str| documents.iter().find(|document| document.content.iter().any(|is| is == identifier));
    let mut extensions: Vec<_> = imported.iter().flat_map(|declared| declared.tags.extensions.clone()).collect();
    extensions.sort();
    assert_eq!(extensions, ["ckpt", "gguf", "pt", "pth", "safetensors", "th"]);
    for declared in &imported {
        assert_eq!(opened(&declared.identifier).unwrap().rank, "Default", "{}", declared.identifier);
    }
    for (identifier, _) in PHOTO_TYPES {
        assert_eq!(opened(identifier).unwrap().rank, "Alternate", "{identifier}");
    }
    assert_eq!(opened("public.folder").unwrap().rank, "Alternate");
    assert!(documents.iter().all(|document| document.role == "Editor" || document.role == "Viewer"));
}
