//! Augmented batches repeat whatever the threads, and a preview shows what a run sees.

use std::path::Path;
use std::sync::Arc;

use galley::data::{Augment, Batch, DataOptions, Dataset, EpochOrder, Loader, Photo, Tiles, preview};
use galley::images::transform::{Interpolation, Resize, Transform};

use crate::support::write_photo;

const EVERYTHING: Augment = Augment {
    flip: 0.5,
    random_crop: true,
    brightness: 0.3,
    contrast: 0.3,
    saturation: 0.3,
    erase: 0.5,
    mixup: 0.2,
    cutmix: 1.0,
    ..Augment::NONE
};

const ORDER: EpochOrder = EpochOrder { seed: 3, epoch: 1, shuffle: true, batch_size: 5, first_batch: 0 };

fn transform() -> Transform {
    Transform {
        resize: Resize::ShortSide(36),
        crop: Some(32),
        interpolation: Interpolation::Bicubic,
        ..Transform::default()
    }
}

fn photos(folder: &Path) -> Vec<Photo> {
    (0..18).for_each(|seed| write_photo(&folder.join(format!("{}/{seed}.png", ["a", "b"][seed as usize % 2])), seed));
    let options = DataOptions { validation_fraction: 0.0, ..DataOptions::default() };
    Dataset::open(folder, None, &options).unwrap().photos
}

fn batches(photos: &[Photo], augment: Option<Augment>, threads: usize, order: EpochOrder) -> Vec<Batch> {
    let tiles = Arc::new(Tiles::new(&transform()));
    Loader::new(photos.into(), 2, tiles, augment, threads, 2).unwrap().epoch(order).unwrap().collect()
}

#[test]
fn an_epoch_repeats_whatever_the_threads_and_where_it_starts() {
    let folder = tempfile::tempdir().unwrap();
    let photos = photos(folder.path());
    let whole = batches(&photos, Some(EVERYTHING), 1, ORDER);
    assert!(batches(&photos, Some(EVERYTHING), 4, ORDER) == whole);
    assert!(batches(&photos, Some(EVERYTHING), 2, EpochOrder { first_batch: 2, ..ORDER }) == whole[2..]);
    for other in [EpochOrder { seed: 4, ..ORDER }, EpochOrder { epoch: 2, ..ORDER }] {
        assert!(batches(&photos, Some(EVERYTHING), 2, other)[0].pixels != whole[0].pixels);
    }
    for batch in &whole {
        assert!(batch.targets.chunks(2).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-6));
    }
}

#[test]
fn a_photo_is_changed_in_the_same_way_in_any_batch_and_order() {
    let folder = tempfile::tempdir().unwrap();
    let photos = photos(folder.path());
    let augment = Some(Augment { mixup: 0.0, cutmix: 0.0, ..EVERYTHING });
    let rows = |order| {
        let batches = batches(&photos, augment, 2, order);
        let rows = batches.iter().flat_map(|batch| batch.indices.iter().zip(batch.pixels.chunks(32 * 32 * 3)));
        let mut rows: Vec<(usize, Vec<f32>)> = rows.map(|(index, pixels)| (*index, pixels.to_vec())).collect();
        rows.sort_by_key(|(index, _)| *index);
        rows
    };
    assert!(rows(ORDER) == rows(EpochOrder { shuffle: false, batch_size: 7, ..ORDER }));
}

#[test]
fn no_augmentation_is_the_evaluation_transform() {
    let folder = tempfile::tempdir().unwrap();
    let photos = photos(folder.path());
    assert!(batches(&photos, Some(Augment::NONE), 2, ORDER) == batches(&photos, None, 2, ORDER));
}

#[test]
fn a_flip_mirrors_and_erasing_leaves_the_mean() {
    let folder = tempfile::tempdir().unwrap();
    let photos = photos(folder.path());
    let order = EpochOrder { shuffle: false, batch_size: 18, ..ORDER };
    let pixels = |augment| batches(&photos, Some(augment), 2, order).remove(0).pixels;
    let plain = pixels(Augment::NONE);
    let mut mirrored = pixels(Augment { flip: 1.0, ..Augment::NONE });
    assert!(mirrored != plain);
    mirrored.chunks_mut(32 * 3).for_each(|row| row.as_chunks_mut::<3>().0.reverse());
    assert!(mirrored == plain);

    let erased = pixels(Augment { erase: 1.0, ..Augment::NONE });
    for (before, after) in plain.chunks(32 * 32 * 3).zip(erased.chunks(32 * 32 * 3)) {
        let changed: Vec<&f32> = before.iter().zip(after).filter(|(a, b)| a != b).map(|(_, after)| after).collect();
        assert!(changed.iter().all(|value| **value == 0.0));
        let share = changed.len() as f64 / before.len() as f64;
        assert!((0.015..0.36).contains(&share), "{share}");
    }
}

#[test]
fn a_preview_shows_what_the_epochs_see() {
    let folder = tempfile::tempdir().unwrap();
    let photos = photos(folder.path());
    let augment = Augment { mixup: 0.0, cutmix: 0.0, erase: 0.0, ..EVERYTHING };
    let tiles = Tiles::new(&transform());
    let pictures = preview(&tiles, &photos[4].path, 4, &augment, 3, 6).unwrap();
    assert_eq!(pictures.len(), 6);
    for (epoch, picture) in (0..).zip(&pictures) {
        let order = EpochOrder { epoch, shuffle: false, batch_size: 1, ..ORDER };
        let batch = &batches(&photos, Some(augment), 2, order)[4];
        let mut pixels = vec![0.0; 32 * 32 * 3];
        transform().normalize(&picture.rgb, &mut pixels);
        assert!(pixels == batch.pixels, "{epoch}");
    }
    assert!(pictures.windows(2).all(|pair| pair[0].rgb != pair[1].rgb));
}

#[test]
fn figures_without_sense_are_refused() {
    assert_eq!(Augment::default().check(), Ok(()));
    assert_eq!(EVERYTHING.check(), Ok(()));
    for wrong in [
        Augment { flip: 1.5, ..Augment::NONE },
        Augment { crop_scale: [0.0, 1.0], ..Augment::NONE },
        Augment { crop_ratio: [2.0, 1.0], ..Augment::NONE },
        Augment { saturation: f64::NAN, ..Augment::NONE },
        Augment { mixup: -1.0, ..Augment::NONE },
    ] {
        assert!(wrong.check().is_err(), "{wrong:?}");
    }
}
