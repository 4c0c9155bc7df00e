//! A pizza, whole or with a slice gone.

use std::f32::consts::TAU;

use super::super::colour::Colour;
use super::super::garnish;
use super::super::outline::{blob, disc, leaf, line, polygon};
use super::super::scene::{Scene, Spot};
use super::super::tableware::{crumbs, serve};

pub fn draw(scene: &mut Scene, spot: Spot) {
    let floor = serve(scene, spot);
    let spot = floor.turned(scene.random.angle()).sized(scene.random.range(1.0, 1.15));
    let missing = scene.random.chance(0.3).then(|| scene.random.range(0.6, 0.95));
    if let Some(angle) = missing {
        scene.clip(&all_but(angle), spot);
    }
    let middle = base(scene, spot);
    let slices = scene.random.pick(&[6, 8, 8]);
    let kind = scene.random.count(0, 4);
    for _ in 0..scene.random.count(9, 16) {
        topping(scene, middle, kind);
    }
    if scene.random.chance(0.5) {
        crumbs(scene, middle.up(0.05), Colour::hex(0x4a6a2c), 0.8, 40);
    }
    if missing.is_some() || scene.random.chance(0.5) {
        for cut in 0..slices {
            let angle = TAU * cut as f32 / slices as f32;
            let way =
                line(&[(0.0, 0.0), (0.5 * angle.cos(), 0.5 * angle.sin()), (0.99 * angle.cos(), 0.99 * angle.sin())]);
            scene.soft_stroke(&way, middle.up(0.02), Colour::hex(0x6b3a1c), 0.022, 0.8);
        }
    }
    scene.unclip();
}

/// Everything but a slice that begins at angle 0.
fn all_but(slice: f32) -> tiny_skia::Path {
    let mut points = vec![(0.0, 0.0)];
    points.extend((0..=40).map(|step| {
        let angle = slice + (TAU - slice) * step as f32 / 40.0;
        (1.8 * angle.cos(), 1.8 * angle.sin())
    }));
    polygon(&points)
}

/// Dough, crust, sauce and cheese; answers the plane the toppings lie on.
fn base(scene: &mut Scene, spot: Spot) -> Spot {
    let crust =
        Colour::hex(scene.random.pick(&[0xd9a35c, 0xc98a45, 0xe2b878, 0xb5763a])).jitter(&mut scene.random, 0.03);
    let shape = blob(&mut scene.random, 18, 0.02);
    scene.shadow(&shape, spot, 0.15, 0.8);
    scene.solid(&shape, spot, &[(0.0, 0.96), (0.4, 1.0), (0.75, 0.975), (1.0, 0.91)], 0.16, crust);
    for _ in 0..34 {
        let place = spot.up(0.13).around(scene.random.angle(), scene.random.range(0.9, 0.97));
        let (radius, tone) = (scene.random.range(0.03, 0.1), scene.random.range(0.45, 0.8));
        scene.glow(place, radius, crust.lit(tone), 0.8);
    }
    let middle = spot.up(0.1);
    scene.fill(&shape, middle.sized(0.86), crust.lit(0.7));
    let sauce = Colour::hex(scene.random.pick(&[0xb5301d, 0xc4421f, 0xa32a1a, 0x5f7a2e, 0xe8d3a2]))
        .jitter(&mut scene.random, 0.04);
    scene.fill(&shape, middle.sized(0.845), sauce);
    let cheese = Colour::hex(scene.random.pick(&[0xf3d27a, 0xf0c75c, 0xf6e6b8])).jitter(&mut scene.random, 0.04);
    let pools = scene.random.count(9, 26);
    for _ in 0..pools {
        let pool = blob(&mut scene.random, 12, 0.2);
        let size = scene.random.range(0.12, 0.26);
        let place = middle.around(scene.random.angle(), 0.68 * scene.random.unit().sqrt());
        scene.tint(&pool, place.sized(size * 1.1), cheese.lit(0.8), 0.8);
        scene.fill(&pool, place.up(0.015).sized(size), cheese);
        scene.glow(place.up(0.015), size * 0.6, Colour::hex(0xc98433), 0.35);
    }
    middle.up(0.02)
}

fn topping(scene: &mut Scene, middle: Spot, kind: usize) {
    let place = middle.around(scene.random.angle(), 0.7 * scene.random.unit().sqrt()).turned(scene.random.angle());
    let choice = if scene.random.chance(0.65) { kind } else { scene.random.count(0, 6) };
    match choice {
        0 | 5 => salami(scene, place),
        1 => garnish::tomato_slice(scene, place.sized(0.16)),
        2 => garnish::mushroom(scene, place.sized(0.15)),
        3 => garnish::olive(scene, place.sized(0.085)),
        4 => garnish::basil(scene, place.sized(0.2)),
        _ => pepper(scene, place),
    }
}

fn salami(scene: &mut Scene, spot: Spot) {
    let meat = Colour::hex(0xa8352a).jitter(&mut scene.random, 0.04);
    let place = spot.sized(scene.random.range(0.13, 0.17));
    scene.shadow(&disc(1.0), place, 0.15, 0.5);
    scene.solid(&disc(1.0), place, &[(0.0, 1.0), (1.0, 0.97)], 0.15, meat.lit(0.75));
    scene.graded(&disc(0.9), place.up(0.15), 1.0, meat.lit(1.25), meat.lit(0.95));
    for _ in 0..7 {
        let fleck = place.up(0.15).around(scene.random.angle(), 0.7 * scene.random.unit().sqrt());
        scene.tint(&disc(0.09), fleck, Colour::hex(0xe8a58c), 0.7);
    }
}

fn pepper(scene: &mut Scene, spot: Spot) {
    let skin = Colour::hex(scene.random.pick(&[0x4f8f3c, 0xe0a02c, 0xcf3a2a]));
    scene.shadow(&leaf(0.3), spot.sized(0.2), 0.2, 0.5);
    scene.stroke(&line(&[(-0.2, 0.05), (0.0, -0.1), (0.2, 0.05)]), spot.up(0.03), skin, 0.06);
}
