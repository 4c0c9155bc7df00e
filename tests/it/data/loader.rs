//! Batches: which photos, in what order, and that neither threads nor interruptions change them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use galley::data::{Batch, DataOptions, Dataset, EpochOrder, Loader, Photo, Split, Tiles};
use galley::images::transform::{Resize, Transform};
use galley::images::{ImageBudget, Limits, load_input};

use crate::support::{test_data, write_photo};

fn transform() -> Transform {
    Transform { resize: Resize::ShortSide(32), crop: Some(28), ..Transform::default() }
}

/// 23 photos of three classes, one of which is no photo.
fn dataset(folder: &Path) -> Dataset {
    for seed in 0..22 {
        write_photo(&folder.join(format!("{}/{seed}.png", ["a", "b", "c"][seed as usize % 3])), seed);
    }
    fs::write(folder.join("b/broken.jpg"), [0xFF, 0xD8, 0xFF, 0xE0, 0, 0]).unwrap();
    Dataset::open(folder, None, &DataOptions { validation_fraction: 0.0, ..DataOptions::default() }).unwrap()
}

fn loader(photos: &[Photo], tiles: Tiles, threads: usize, ahead: usize) -> Loader {
    Loader::new(photos.into(), 3, Arc::new(tiles), None, threads, ahead).unwrap()
}

const ORDER: EpochOrder = EpochOrder { seed: 5, epoch: 2, shuffle: true, batch_size: 4, first_batch: 0 };

fn batches(loader: &Loader, order: EpochOrder) -> Vec<Batch> {
    loader.epoch(order).unwrap().collect()
}

#[test]
fn every_photo_comes_once_with_its_own_pixels_and_a_broken_one_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path());
    let loader = loader(&dataset.photos, Tiles::new(&transform()), 2, 2);
    let batches = batches(&loader, ORDER);
    assert_eq!(batches.len(), loader.batches(4));
    let mut seen: Vec<usize> = batches.iter().flat_map(|batch| batch.indices.clone()).collect();
    let skipped: Vec<_> = batches.iter().flat_map(|batch| batch.skipped.clone()).collect();
    let [(broken, reason)] = skipped.as_slice() else { panic!("{skipped:?}") };
    assert!(dataset.photos[*broken].path.ends_with("b/broken.jpg"));
    assert_eq!(reason, "the picture is damaged: a JPEG segment has an impossible length");
    seen.push(*broken);
    seen.sort_unstable();
    assert_eq!(seen, (0..23).collect::<Vec<_>>());

    let (budget, limits) = (ImageBudget::new(100_000_000), Limits::default());
    for batch in &batches {
        assert_eq!((batch.size, batch.labels.len()), (28, batch.indices.len()));
        for (row, index) in batch.indices.iter().enumerate() {
            let photo = &dataset.photos[*index];
            let expected = load_input(&photo.path, &transform(), &limits, &budget).unwrap().pixels;
            assert!(batch.pixels[row * expected.len()..][..expected.len()] == expected);
            assert_eq!(batch.labels[row] as usize, photo.class);
            let target: Vec<f32> = (0..3).map(|class| f32::from(u8::from(class == photo.class))).collect();
            assert_eq!(batch.targets[row * 3..][..3], target);
        }
        assert_eq!(batch.pixels.len(), batch.indices.len() * 28 * 28 * 3);
    }
}

#[test]
fn threads_and_batches_ahead_and_the_cache_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path());
    let expected = batches(&loader(&dataset.photos, Tiles::new(&transform()), 1, 1), ORDER);
    let cache = folder.path().join("tiles");
    for (threads, ahead) in [(1, 3), (2, 1), (5, 2), (3, 100)] {
        let tiles = Tiles::in_folder(&cache, &transform(), 40_000).unwrap();
        assert!(batches(&loader(&dataset.photos, tiles, threads, ahead), ORDER) == expected, "{threads} {ahead}");
    }
}

#[test]
fn a_run_that_goes_on_within_an_epoch_sees_the_same_batches() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path());
    let loader = loader(&dataset.photos, Tiles::new(&transform()), 2, 2);
    let whole = batches(&loader, ORDER);
    for first_batch in 0..=8 {
        let rest = batches(&loader, EpochOrder { first_batch, ..ORDER });
        assert!(rest == whole[first_batch.min(whole.len())..], "{first_batch}");
    }
    // Leaving an epoch in the middle ends its threads and harms no other.
    let mut left = loader.epoch(ORDER).unwrap();
    assert!(left.next().as_ref() == whole.first());
    drop(left);
    assert!(batches(&loader, ORDER) == whole);
}

#[test]
fn the_order_follows_the_seed_and_the_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path());
    let loader = loader(&dataset.photos, Tiles::new(&transform()), 2, 2);
    let order = |order| batches(&loader, order).into_iter().flat_map(|batch| batch.indices).collect::<Vec<_>>();
    assert_eq!(order(ORDER), order(EpochOrder { batch_size: 9, ..ORDER }));
    assert_ne!(order(ORDER), order(EpochOrder { epoch: 3, ..ORDER }));
    assert_ne!(order(ORDER), order(EpochOrder { seed: 6, ..ORDER }));
    assert!(order(EpochOrder { shuffle: false, ..ORDER }).is_sorted());
}

#[test]
fn a_transform_that_gives_no_squares_is_refused() {
    let transform = Transform { crop: None, ..transform() };
    assert!(Loader::new([].into(), 3, Arc::new(Tiles::new(&transform)), None, 1, 1).is_err());
}

#[test]
fn the_second_epoch_of_real_photos_comes_from_their_tiles() {
    let Some(data) = test_data() else { return };
    let food = data.join("food/food101-512");
    let dataset = Dataset::open(&food.join("train"), Some(&food.join("test")), &DataOptions::default()).unwrap();
    let photos: Arc<[Photo]> = dataset.part(Split::Train).cloned().collect();
    let folder = tempfile::tempdir().unwrap();
    let transform = Transform::default();
    let tiles = Arc::new(Tiles::in_folder(folder.path(), &transform, Tiles::LIMIT_BYTES).unwrap());
    let loader = Loader::new(photos, dataset.classes.len(), tiles.clone(), None, 2, 2).unwrap();
    let order = EpochOrder { batch_size: 16, ..ORDER };
    let epoch = || {
        let started = std::time::Instant::now();
        let batches = batches(&loader, order);
        println!("306 photos in {:.2?}", started.elapsed());
        batches
    };
    let first = epoch();
    assert_eq!(tiles.kept(), 306);
    assert!(epoch() == first);
}
