//! A burger: bun, lettuce, patty, cheese, tomato, onion, bun.

use super::super::colour::Colour;
use super::super::garnish;
use super::super::outline::{blob, disc, frill, leaf, line, slab};
use super::super::scene::{DOME, PILLOW, Scene, Spot};
use super::super::tableware::serve;

pub fn draw(scene: &mut Scene, spot: Spot) {
    let floor = serve(scene, spot);
    if scene.random.chance(0.4) {
        garnish::fries(scene, floor.around(scene.camera.towards_viewer() + 2.2, 1.0));
    }
    let crust = scene.random.pick(&[0xc9812f, 0xb56a2a, 0xd79a4a, 0x8f4f25, 0xe0b070]);
    let crust = Colour::hex(crust).jitter(&mut scene.random, 0.04);
    let floor = floor.sized(scene.random.range(0.8, 0.98));
    scene.shadow(&disc(1.0), floor, 0.9, 0.85);
    let mut top = bun_base(scene, floor, crust);
    top = salad_leaf(scene, top);
    for _ in 0..scene.random.pick(&[1, 1, 1, 2]) {
        top = patty(scene, top);
        top = cheese(scene, top);
    }
    top = slices(scene, top);
    if scene.random.chance(0.5) {
        top = salad_leaf(scene, top);
    }
    bun_top(scene, top, crust);
}

fn bun_base(scene: &mut Scene, spot: Spot, crust: Colour) -> Spot {
    let shape = blob(&mut scene.random, 16, 0.02);
    scene.solid(&shape, spot, &[(0.0, 0.86), (0.3, 0.95), (1.0, 0.96)], 0.24, crust);
    scene.fill(&shape, spot.up(0.24).sized(0.93), Colour::hex(0xf3dfb5));
    spot.up(0.24)
}

fn salad_leaf(scene: &mut Scene, spot: Spot) -> Spot {
    let green = Colour::hex(scene.random.pick(&[0x77a843, 0x5c9440, 0x9dbb58])).jitter(&mut scene.random, 0.04);
    for (height, tone) in [(0.0, 0.8), (0.05, 1.1)] {
        let shape = frill(&mut scene.random, 15, 0.05);
        let place = spot.up(height).sized(1.05).turned(scene.random.angle());
        scene.solid(&shape, place, &[(0.0, 0.97), (1.0, 1.02)], 0.06, green.lit(tone));
    }
    spot.up(0.09)
}

fn patty(scene: &mut Scene, spot: Spot) -> Spot {
    let meat =
        Colour::hex(scene.random.pick(&[0x5a3220, 0x6e3f26, 0x48281b, 0x8a5a32])).jitter(&mut scene.random, 0.03);
    let shape = blob(&mut scene.random, 26, 0.03);
    scene.solid(&shape, spot, PILLOW, 0.22, meat);
    for _ in 0..46 {
        let place =
            spot.up(scene.random.range(0.05, 0.18)).around(scene.random.angle(), scene.random.range(0.88, 0.97));
        let tone = scene.random.range(0.6, 1.35);
        scene.tint(&disc(0.035), place, meat.lit(tone), 0.8);
    }
    spot.up(0.21)
}

fn cheese(scene: &mut Scene, spot: Spot) -> Spot {
    let slice =
        Colour::hex(scene.random.pick(&[0xf2b632, 0xf6c95c, 0xefdc9a, 0xe89a28])).jitter(&mut scene.random, 0.03);
    let shape = slab(1.62, 1.62, 0.12);
    let place = spot.turned(scene.random.angle());
    for corner in 0..4 {
        let angle = std::f32::consts::FRAC_PI_4 + corner as f32 * std::f32::consts::FRAC_PI_2;
        let droop = scene.random.range(0.04, 0.16);
        for step in 0..8 {
            let down = droop * (1.0 - step as f32 / 8.0);
            scene.fill(
                &disc(0.1 + 0.012 * step as f32),
                place.up(-down).around(angle, 0.96 - 0.01 * step as f32),
                slice.lit(0.82),
            );
        }
    }
    scene.solid(&shape, place, &[(0.0, 1.0), (1.0, 1.0)], 0.05, slice);
    spot.up(0.05)
}

fn slices(scene: &mut Scene, spot: Spot) -> Spot {
    let kind = scene.random.count(0, 2);
    let start = scene.random.angle();
    for index in 0..4 {
        let place = spot.around(start + index as f32 * 1.57, 0.5).turned(scene.random.angle());
        match kind {
            0 => garnish::tomato_slice(scene, place.sized(0.46)),
            1 => garnish::onion(scene, place.up(0.05).sized(0.46)),
            _ => garnish::cucumber(scene, place.sized(0.42)),
        }
    }
    spot.up(0.07)
}

fn bun_top(scene: &mut Scene, spot: Spot, crust: Colour) {
    let shape = blob(&mut scene.random, 16, 0.015);
    let height = scene.random.range(0.52, 0.72);
    scene.solid(&shape, spot, &[(0.0, 0.93), (1.0, 0.99)], 0.07, crust.lit(1.3));
    let dome = spot.up(0.07);
    scene.solid(&shape, dome, DOME, height, crust);
    scene.glow(dome.up(height), 0.7, crust.lit(0.72), 0.55);
    for _ in 0..12 {
        let (radius, tone) = (scene.random.range(0.06, 0.2), scene.random.range(0.8, 1.15));
        let away = 0.6 * scene.random.unit();
        let place = dome.up(height * (1.0 - away * away).sqrt()).around(scene.random.angle(), away);
        scene.glow(place, radius, crust.lit(tone), 0.5);
    }
    scene.sheen(dome.up(height * 0.86), 0.75, 0.45);
    if scene.random.chance(0.8) {
        seeds(scene, dome, height);
    }
    if scene.random.chance(0.25) {
        let stick = spot.up(height);
        let length = 0.6 * scene.camera.lift() / scene.camera.squash.max(0.3);
        let away = scene.camera.towards_viewer() + std::f32::consts::PI;
        scene.stroke(
            &line(&[(0.0, 0.0), (0.5, 0.0), (1.0, 0.0)]),
            stick.turned(away).sized(length),
            Colour::hex(0xd9b27a),
            0.05,
        );
        garnish::olive(scene, stick.around(away, length).sized(0.13));
    }
}

/// Sesame, laid on the dome.
fn seeds(scene: &mut Scene, dome: Spot, height: f32) {
    let seed = Colour::hex(scene.random.pick(&[0xfaeecb, 0xfaeecb, 0x3a3230]));
    for _ in 0..scene.random.count(18, 46) {
        let (angle, distance) = (scene.random.angle(), 0.88 * scene.random.unit().sqrt());
        let rise = height * (1.0 - distance * distance).sqrt();
        let place = dome.up(rise).around(angle, distance).turned(scene.random.angle());
        scene.fill(&leaf(0.6), place.up(-0.01).sized(0.055), Colour::hex(0x6b3d1c));
        scene.fill(&leaf(0.6), place.sized(0.05), seed);
    }
}
