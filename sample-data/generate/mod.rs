//! Draws photos of eight kinds of dishes. The same seed always gives the same picture.
//!
//! Every picture differs in the dish itself, its tableware, the table, the lamp, the camera, what lies about and what
//! hides part of the dish; colours, tables and props are shared by all kinds, so that only shapes tell them apart.

mod colour;
mod dishes;
mod finish;
mod garnish;
mod outline;
mod random;
mod scene;
mod table;
mod tableware;

use std::f32::consts::PI;

use image::codecs::jpeg::JpegEncoder;

use dishes::{DISHES, Dish};
use random::Random;
use scene::{Camera, Light, Scene, Spot};

const SIZES: [(u32, u32); 6] = [(160, 120), (120, 160), (192, 144), (144, 192), (160, 160), (192, 192)];
const JPEG_QUALITY: u8 = 85;

/// The dishes' names, sorted: the names of the class folders.
pub fn names() -> [&'static str; 8] {
    DISHES.map(|dish| dish.name)
}

/// The photo number `number` of a dish, as the bytes of a JPEG file.
pub fn jpeg(dish: usize, number: u64, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed ^ (dish as u64) << 56 ^ number.wrapping_mul(0x9e37_79b9));
    let photo = photograph(&DISHES[dish], &mut random);
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
        .encode_image(&photo)
        .expect("an image in memory encodes to a vector");
    bytes
}

fn photograph(dish: &Dish, random: &mut Random) -> image::RgbImage {
    let (width, height) = random.pick(&SIZES);
    // Drawn at twice the size and halved: smoother than antialiasing alone.
    let (width, height) = (2 * width, 2 * height);
    let camera = aim(dish, random, width as f32, height as f32);
    let light = Light { angle: random.angle(), elevation: random.range(0.55, 1.2), ambient: random.range(0.4, 0.75) };
    let mut scene = Scene::new(width, height, camera, light, Random::new(random.count(0, usize::MAX - 1) as u64));
    table::lay(&mut scene);
    surroundings(&mut scene);
    (dish.draw)(&mut scene, Spot::at(0.0, 0.0));
    occlusion(&mut scene);
    finish::photo(&scene.pixels, random)
}

fn aim(dish: &Dish, random: &mut Random, width: f32, height: f32) -> Camera {
    let squash = random.range(dish.squash.0, dish.squash.1);
    let scale = 0.5 * width.min(height * 1.15) / random.range(1.12, 1.75);
    let centre = (width * random.near(0.5, 0.14), height * (random.near(0.5, 0.12) + 0.1 * (1.0 - squash)));
    Camera { scale, yaw: random.angle(), squash, centre }
}

/// Things that stand about on the table, far ones first.
fn surroundings(scene: &mut Scene) {
    let away = scene.camera.towards_viewer() + PI;
    let mut angles: Vec<f32> = (0..scene.random.count(1, 5)).map(|_| scene.random.near(0.0, PI)).collect();
    angles.sort_by(|one, other| one.abs().total_cmp(&other.abs()));
    for angle in angles {
        let spot = Spot::at(0.0, 0.0).around(away + angle, scene.random.range(1.45, 1.95));
        match scene.random.count(0, 8) {
            0 => tableware::cup(scene, spot),
            1 => tableware::napkin(scene, spot.turned(away)),
            2 => tableware::sauce(scene, spot),
            3 | 4 => tableware::cutlery(scene, spot.turned(angle + away + PI / 2.0)),
            5 => garnish::fries(scene, spot.sized(0.8)),
            _ => {
                for _ in 0..scene.random.count(1, 3) {
                    let place = spot.around(scene.random.angle(), 0.25);
                    garnish::any(scene, place);
                }
            }
        }
    }
}

/// Something that hides a part of the dish, in about half of the photos.
fn occlusion(scene: &mut Scene) {
    let near = scene.camera.towards_viewer() + scene.random.near(0.0, 1.8);
    let spot = Spot::at(0.0, 0.0).around(near, scene.random.range(0.85, 1.2));
    let turn = scene.random.range(-1.0, 1.0);
    match scene.random.count(0, 11) {
        0 => tableware::cup(scene, spot.around(near, 0.3)),
        1 => tableware::napkin(scene, spot.up(0.15).turned(near)),
        2 | 3 => tableware::cutlery(scene, spot.up(0.2).turned(near + PI / 2.0 + turn)),
        4 => tableware::hand(scene, spot.up(0.1).turned(near + PI + 0.4 * turn)),
        5 => tableware::crumbs(scene, Spot::at(0.0, 0.0).up(0.2), colour::WHITE, 1.3, 60),
        6 => garnish::any(scene, spot.up(0.2).turned(PI * turn).sized(1.5)),
        _ => {}
    }
}
