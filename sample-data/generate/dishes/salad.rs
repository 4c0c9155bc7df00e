//! A salad: a heap of leaves with whatever the garden gave, in a bowl or on a plate.

use super::super::colour::Colour;
use super::super::garnish;
use super::super::outline::{blob, disc};
use super::super::scene::{Scene, Spot};
use super::super::tableware::{bowl, crumbs, plate};

const LEAVES: [[u32; 3]; 4] = [
    [0x5d9a3c, 0x7fb24d, 0x3f7a33],
    [0xa3c65a, 0xc3d77d, 0x7ca843],
    [0x3f6b35, 0x6c2f45, 0x5d8f43],
    [0x6fa044, 0x8a3a55, 0xb6cd6e],
];

pub fn draw(scene: &mut Scene, spot: Spot) {
    let (floor, reach) = if scene.random.chance(0.65) {
        let depth = scene.random.range(0.4, 0.6);
        (bowl(scene, spot, 1.15, depth).up(-0.1), 0.74)
    } else {
        (plate(scene, spot, 1.32), 0.72)
    };
    let greens = scene.random.pick(&LEAVES);
    let count = scene.random.count(16, 24);
    for index in 0..count {
        let share = 1.0 - index as f32 / count as f32;
        let angle = index as f32 * 2.4 + scene.random.near(0.0, 0.5);
        let place = floor.up(0.25 * (1.0 - share)).around(angle, reach * share.sqrt());
        let green = Colour::hex(scene.random.pick(&greens)).jitter(&mut scene.random, 0.04);
        let place = place.turned(angle + scene.random.near(0.0, 0.8)).sized(scene.random.range(0.3, 0.44));
        garnish::lettuce(scene, place, green);
    }
    let kinds = [scene.random.count(0, 7), scene.random.count(0, 7), scene.random.count(0, 7)];
    for _ in 0..scene.random.count(9, 17) {
        let distance = reach * scene.random.unit().sqrt();
        let place =
            floor.up(0.28 * (1.0 - distance)).around(scene.random.angle(), distance).turned(scene.random.angle());
        let kind = scene.random.pick(&kinds);
        extra(scene, place, kind);
    }
    if scene.random.chance(0.4) {
        crumbs(scene, floor.up(0.2), Colour::hex(0xf3e7c4), 0.7, 30);
    }
}

fn extra(scene: &mut Scene, spot: Spot, kind: usize) {
    match kind {
        0 => garnish::tomato(scene, spot.sized(0.13)),
        1 => garnish::cucumber(scene, spot.sized(0.18)),
        2 => garnish::onion(scene, spot.up(0.05).sized(0.2)),
        3 => garnish::olive(scene, spot.sized(0.09)),
        4 => garnish::cube(scene, spot.sized(0.15), Colour::hex(0xf7f3e6)),
        5 => garnish::cube(scene, spot.sized(0.17), Colour::hex(0xd09a52)),
        6 => radish(scene, spot.sized(0.15)),
        _ => boiled_egg(scene, spot.sized(0.2)),
    }
}

fn radish(scene: &mut Scene, spot: Spot) {
    scene.shadow(&disc(1.0), spot, 0.15, 0.5);
    scene.fill(&disc(1.0), spot.up(0.1), Colour::hex(0xc9305e));
    scene.fill(&disc(0.86), spot.up(0.1), Colour::hex(0xfaf2f2));
}

fn boiled_egg(scene: &mut Scene, spot: Spot) {
    let shape = blob(&mut scene.random, 12, 0.04);
    scene.shadow(&shape, spot, 0.3, 0.5);
    scene.fill(&shape, spot.up(0.2), Colour::hex(0xf8f4ea));
    scene.fill(&disc(0.52), spot.up(0.2).inside(0.12, 0.0), Colour::hex(0xf0b73a));
}
