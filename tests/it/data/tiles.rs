//! A tile gives the network input that the photo itself gives, also from the disk and after damage.

use std::fs;
use std::path::{Path, PathBuf};

use galley::data::Tiles;
use galley::images::transform::{Interpolation, Resize, Transform};
use galley::images::{ImageBudget, Limits, Picture, load_input};

use crate::support::{test_data, write_photo};

/// Every file below the folders.
fn files(folders: &[PathBuf]) -> Vec<PathBuf> {
    let entries = folders.iter().flat_map(|folder| walkdir::WalkDir::new(folder).sort_by_file_name());
    entries
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.into_path())
        .collect()
}

fn input_of(transform: &Transform, tile: &Picture) -> Vec<f32> {
    let levels = transform.crop(tile);
    let mut pixels = vec![0.0; levels.len()];
    transform.normalize(&levels, &mut pixels);
    pixels
}

#[test]
fn tiles_of_real_photos_give_the_network_input_of_their_photos() {
    let Some(data) = test_data() else { return };
    let some = [
        data.join("food/loose-photos"),
        data.join("food/food101-512/test/pizza"),
        data.join("food/grocery-store/val/Vegetables"),
    ];
    let some = files(&some);
    let many: Vec<PathBuf> = files(&[data.join("odd-images")]).into_iter().chain(some.clone()).collect();
    let model = Transform::default();
    let large = Transform {
        resize: Resize::ShortSide(64),
        crop: Some(96),
        interpolation: Interpolation::Bicubic,
        ..Transform::default()
    };
    let squashed = Transform { resize: Resize::Exact { height: 80, width: 72 }, crop: Some(64), ..model };
    let (budget, limits) = (ImageBudget::new(100_000_000), Limits::default());
    for (transform, photos) in [(model, &many), (large, &some), (squashed, &some)] {
        let folder = tempfile::tempdir().unwrap();
        let tiles = Tiles::in_folder(folder.path(), &transform, Tiles::LIMIT_BYTES).unwrap();
        let mut read = 0;
        for photo in photos {
            let expected = load_input(photo, &transform, &limits, &budget);
            // Decoded, and then from the disk.
            for _ in 0..2 {
                match (&expected, tiles.load(photo, vec![7; 1000])) {
                    (Ok(expected), Ok(tile)) => {
                        assert!(input_of(&transform, &tile) == expected.pixels, "{}", photo.display());
                    }
                    (Err(expected), Err(error)) => assert_eq!(error.to_string(), expected.to_string()),
                    (expected, tile) => panic!("{}: {:?} and {tile:?}", photo.display(), expected.is_ok()),
                }
            }
            read += usize::from(expected.is_ok());
        }
        assert!(read > 30, "{read}");
        assert_eq!(tiles.kept(), read);
    }
}

fn photos(folder: &Path) -> Vec<PathBuf> {
    let photo = |seed: u32| folder.join(format!("{seed}.png"));
    (0..4).for_each(|seed| write_photo(&photo(seed), seed));
    (0..4).map(photo).collect()
}

fn transform() -> Transform {
    Transform { resize: Resize::ShortSide(32), crop: Some(28), ..Transform::default() }
}

#[test]
fn a_photo_that_changed_gets_a_new_tile() {
    let folder = tempfile::tempdir().unwrap();
    let photos = photos(folder.path());
    let tiles = Tiles::in_folder(&folder.path().join("tiles"), &transform(), Tiles::LIMIT_BYTES).unwrap();
    let before = tiles.load(&photos[0], Vec::new()).unwrap().rgb;
    write_photo(&photos[0], 77);
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(10);
    fs::File::open(&photos[0]).unwrap().set_modified(later).unwrap();
    assert_ne!(tiles.load(&photos[0], Vec::new()).unwrap().rgb, before);
    fs::remove_file(&photos[0]).unwrap();
    assert!(tiles.load(&photos[0], Vec::new()).is_err());
}

#[test]
fn damaged_tiles_are_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let photos = photos(folder.path());
    let cache = folder.path().join("tiles");
    let open = || Tiles::in_folder(&cache, &transform(), Tiles::LIMIT_BYTES).unwrap();
    let load =
        |tiles: &Tiles| photos.iter().map(|photo| tiles.load(photo, Vec::new()).unwrap().rgb).collect::<Vec<_>>();
    let sound = load(&Tiles::new(&transform()));
    let tiles = open();
    assert_eq!(load(&tiles), sound);
    assert_eq!(tiles.kept(), 4);
    drop(tiles);
    let pixels =
        files(std::slice::from_ref(&cache)).into_iter().find(|file| file.extension().is_some_and(|e| e == "pixels"));
    let pixels = pixels.unwrap();
    let mut bytes = fs::read(&pixels).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    for damaged in [bytes.clone(), bytes[..middle].to_vec(), Vec::new(), vec![0; bytes.len()]] {
        fs::write(&pixels, damaged).unwrap();
        assert_eq!(load(&open()), sound);
        assert_eq!(open().kept(), 4);
    }
}
