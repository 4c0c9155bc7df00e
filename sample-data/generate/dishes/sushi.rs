//! Sushi: nigiri and maki in rows, with ginger, wasabi and soy sauce.

use super::super::colour::{Colour, WHITE};
use super::super::outline::{blob, disc, frill, leaf, line, slab};
use super::super::scene::{BLOCK, PILLOW, Scene, Spot};
use super::super::tableware::{crumbs, sauce, serve};

const NORI: Colour = Colour::hex(0x22302a);
const RICE: Colour = Colour::hex(0xf4f0e4);
const FILLINGS: [u32; 6] = [0xf0884a, 0xc2333a, 0x8db04e, 0xf2c84b, 0xe9e2d0, 0xe56f5f];

pub fn draw(scene: &mut Scene, spot: Spot) {
    let floor = serve(scene, spot).turned(scene.random.angle());
    let (rows, columns) = scene.random.pick(&[(2, 3), (2, 2), (3, 3), (1, 3), (2, 4)]);
    let size = [1.0, 1.0, 0.86, 0.7, 0.62][rows.max(columns)];
    let kinds = [scene.random.count(0, 3), scene.random.count(0, 3), scene.random.count(0, 3)];
    let fillings = [scene.random.pick(&FILLINGS), scene.random.pick(&FILLINGS), scene.random.pick(&FILLINGS)];
    let mut pieces = Vec::new();
    for row in 0..rows {
        for column in 0..columns {
            let across = (column as f32 - (columns - 1) as f32 / 2.0) * 0.68 * size;
            let along = (row as f32 - (rows - 1) as f32 / 2.0) * 0.86 * size;
            let place = floor.inside(across + scene.random.near(0.0, 0.04), along + scene.random.near(0.0, 0.05));
            pieces.push((place.turned(scene.random.near(0.0, 0.15)).sized(size), row));
        }
    }
    from_back_to_front(scene, &mut pieces);
    for (place, row) in pieces {
        match kinds[row] {
            0 => maki(scene, place, fillings[row]),
            1 => inside_out(scene, place, fillings[row]),
            _ => nigiri(scene, place, fillings[row]),
        }
    }
    extras(scene, floor);
}

/// Nearer pieces hide farther ones.
fn from_back_to_front(scene: &Scene, pieces: &mut [(Spot, usize)]) {
    let (sin, cos) = scene.camera.towards_viewer().sin_cos();
    let nearness = |spot: &Spot| spot.x * cos + spot.y * sin;
    pieces.sort_by(|(one, _), (other, _)| nearness(one).total_cmp(&nearness(other)));
}

fn grains(scene: &mut Scene, spot: Spot, reach: (f32, f32), count: usize) {
    for _ in 0..count {
        let place = spot.inside(scene.random.near(0.0, reach.0), scene.random.near(0.0, reach.1));
        let tone = if scene.random.chance(0.5) { RICE.lit(0.86) } else { WHITE };
        let place = place.turned(scene.random.angle()).sized(0.045);
        scene.tint(&leaf(0.6), place, tone, 0.8);
    }
}

fn maki(scene: &mut Scene, spot: Spot, filling: u32) {
    let height = 0.42;
    scene.shadow(&disc(0.36), spot, height, 0.7);
    scene.solid(&disc(0.36), spot, BLOCK, height, NORI);
    roll_top(scene, spot.up(height), 0.325, filling);
}

fn inside_out(scene: &mut Scene, spot: Spot, filling: u32) {
    let height = 0.4;
    scene.shadow(&disc(0.37), spot, height, 0.7);
    scene.solid(&disc(0.37), spot, PILLOW, height, RICE);
    let speck = Colour::hex(scene.random.pick(&[0xf0742c, 0x2a2622, 0xe9c98a, 0x7fa03f]));
    for _ in 0..44 {
        let place =
            spot.up(scene.random.range(0.04, 0.36)).around(scene.random.angle(), scene.random.range(0.33, 0.37));
        scene.fill(&disc(0.022), place, speck);
    }
    scene.fill(&disc(0.2), spot.up(height), NORI);
    roll_top(scene, spot.up(height), 0.175, filling);
}

fn roll_top(scene: &mut Scene, top: Spot, radius: f32, filling: u32) {
    scene.graded(&disc(radius), top, radius, RICE.lit(1.05), RICE.lit(0.93));
    grains(scene, top, (radius * 0.9, radius * 0.9), 16);
    let parts = scene.random.count(1, 3);
    for part in 0..parts {
        let away = if parts == 1 { 0.0 } else { radius * 0.3 };
        let place = top.around(part as f32 * std::f32::consts::TAU / parts as f32, away);
        let tone = if part == 0 { filling } else { scene.random.pick(&FILLINGS) };
        let shape = blob(&mut scene.random, 9, 0.12);
        let colour = Colour::hex(tone);
        scene.fill(&shape, place.sized(radius * 0.46), colour.lit(0.8));
        scene.fill(&shape, place.sized(radius * 0.4), colour);
    }
}

fn nigiri(scene: &mut Scene, spot: Spot, filling: u32) {
    let pad = slab(0.5, 0.86, 0.2);
    scene.shadow(&pad, spot, 0.4, 0.7);
    scene.solid(&pad, spot, PILLOW, 0.24, RICE);
    for _ in 0..26 {
        let place =
            spot.up(scene.random.range(0.05, 0.2)).inside(scene.random.near(0.0, 0.27), scene.random.near(0.0, 0.45));
        let place = place.turned(scene.random.angle()).sized(0.045);
        scene.tint(&leaf(0.6), place, RICE.lit(0.88), 0.8);
    }
    let fish = Colour::hex(filling).jitter(&mut scene.random, 0.04);
    let slice = slab(0.52, 0.94, 0.18);
    let place = spot.up(0.22);
    scene.solid(&slice, place, PILLOW, 0.16, fish);
    let top = place.up(0.15);
    scene.clip(&slab(0.44, 0.84, 0.14), top);
    let slant = scene.random.near(0.14, 0.08);
    for stripe in -4..=4 {
        let at = stripe as f32 * 0.12;
        scene.soft_stroke(
            &line(&[(-0.26, at), (0.0, at + slant * 0.4), (0.26, at + slant)]),
            top,
            fish.mix(WHITE, 0.6),
            0.028,
            0.9,
        );
    }
    scene.unclip();
    scene.sheen(top, 0.3, 0.45);
    if scene.random.chance(0.35) {
        scene.solid(&slab(0.56, 0.16, 0.03), spot.up(0.05), BLOCK, 0.34, NORI);
    }
}

fn extras(scene: &mut Scene, floor: Spot) {
    let start = scene.random.angle();
    if scene.random.chance(0.6) {
        let green = Colour::hex(0x9cbc4f).jitter(&mut scene.random, 0.04);
        let shape = blob(&mut scene.random, 10, 0.12);
        let place = floor.around(start, 1.0).sized(0.15);
        scene.shadow(&shape, place, 0.5, 0.6);
        scene.solid(&shape, place, PILLOW, 0.8, green);
    }
    if scene.random.chance(0.5) {
        for petal in 0..4 {
            let pink = Colour::hex(0xf2b8a6).jitter(&mut scene.random, 0.03);
            let shape = frill(&mut scene.random, 6, 0.12);
            let place = floor.around(start + 0.6, 1.0).around(petal as f32 * 1.6, 0.08).up(0.04 * petal as f32);
            scene.shadow(&shape, place.sized(0.17), 0.2, 0.4);
            scene.graded(&shape, place.sized(0.17), 1.0, pink.lit(1.2), pink.lit(0.85));
        }
    }
    if scene.random.chance(0.45) {
        sauce(scene, floor.around(start + 3.1, 1.12).sized(0.8));
    }
    if scene.random.chance(0.4) {
        crumbs(scene, floor.up(0.02), Colour::hex(0xe9c98a), 1.0, 20);
    }
}
