//! Doughnuts: one large or a few, glazed, sprinkled, drizzled, sometimes bitten.

use std::f32::consts::{PI, TAU};

use super::super::colour::{Colour, WHITE};
use super::super::outline::{disc, line, ring, slab};
use super::super::scene::{Scene, Spot};
use super::super::tableware::serve;

const GLAZES: [u32; 9] = [0xe889a8, 0x4a2a1c, 0xf5ede0, 0x8fc7b5, 0x9fb8e0, 0xf2cf63, 0x7b4a2a, 0xc9405a, 0xd9a35c];
const SPRINKLES: [u32; 7] = [0xe8433f, 0xf5c33b, 0x4ea5d9, 0x62b35b, 0xf7f3ea, 0xe37fb0, 0x5a2f1c];

pub fn draw(scene: &mut Scene, spot: Spot) {
    let floor = serve(scene, spot);
    let first = scene.random.angle();
    match scene.random.count(0, 5) {
        0..=2 => doughnut(scene, floor.sized(0.98)),
        3 => {
            doughnut(scene, floor.around(first, 0.55).sized(0.66));
            doughnut(scene, floor.around(first + PI, 0.55).sized(0.66));
        }
        4 => {
            for index in 0..3 {
                doughnut(scene, floor.around(first + index as f32 * TAU / 3.0, 0.62).sized(0.58));
            }
        }
        _ => {
            doughnut(scene, floor.around(first, 0.2).sized(0.8));
            doughnut(scene, floor.around(first, 0.2).up(0.42).around(first + PI, 0.45).sized(0.8));
        }
    }
}

fn doughnut(scene: &mut Scene, spot: Spot) {
    let spot = spot.turned(scene.random.angle());
    let middle = scene.random.range(0.58, 0.66);
    let thickness = 0.98 - middle;
    let dough =
        Colour::hex(scene.random.pick(&[0xc98a45, 0xd9a05c, 0xa5682f, 0x6b3f24])).jitter(&mut scene.random, 0.04);
    scene.shadow(&ring(middle + thickness, middle - thickness), spot, 0.55, 0.8);
    let round = thickness * 0.82;
    scene.tube(spot, middle, round, (-1.2, 1.57), dough);
    scene.tint(&ring(middle + round, middle + round * 0.99), spot.up(round), dough.mix(WHITE, 0.5), 0.8);
    let glaze = Colour::hex(scene.random.pick(&GLAZES)).jitter(&mut scene.random, 0.05);
    if scene.random.chance(0.88) {
        icing(scene, spot, middle, round, glaze);
    }
    let top = spot.up(round * 2.0);
    match scene.random.count(0, 4) {
        0..=2 => sprinkles(scene, spot, middle, round),
        3 => drizzle(scene, top, middle, round),
        _ => {}
    }
    let lamp = scene.light.angle - spot.turn;
    for offset in [-0.35, 0.0, 0.35] {
        scene.glow(top.around(lamp + offset, middle), round * 0.42, WHITE, 0.4);
    }
}

/// A glaze over the upper half, its edge running down in waves.
fn icing(scene: &mut Scene, spot: Spot, middle: f32, round: f32, glaze: Colour) {
    let waves = scene.random.count(7, 11);
    let phase = scene.random.angle();
    for drop in 0..waves * 2 {
        let angle = phase + TAU * drop as f32 / (waves * 2) as f32;
        let low = scene.random.range(0.1, 0.45);
        let reach = middle + round * 1.03 * low.cos();
        for step in 0..6 {
            let along = low + 0.5 * step as f32 / 6.0;
            let place =
                spot.up(round * (1.0 + along.sin())).around(angle, middle + (reach - middle) * along.cos() / low.cos());
            scene.fill(&disc(round * 0.3), place.around(angle, -round * 0.22), glaze.lit(0.78));
        }
    }
    scene.tube(spot, middle, round * 1.03, (0.5, 1.57), glaze);
}

fn sprinkles(scene: &mut Scene, spot: Spot, middle: f32, round: f32) {
    let single = scene.random.chance(0.25).then(|| scene.random.pick(&SPRINKLES));
    let stick = slab(1.0, 0.32, 0.16);
    for _ in 0..scene.random.count(30, 70) {
        let (angle, across) = (scene.random.angle(), scene.random.range(-0.75, 0.75));
        let rise = round * (1.03 + (1.0 - across * across).sqrt());
        let place = spot.up(rise).around(angle, middle + round * across).turned(scene.random.angle()).sized(0.11);
        let colour = Colour::hex(single.unwrap_or_else(|| scene.random.pick(&SPRINKLES)));
        scene.tint(&stick, place.up(-0.25), Colour::hex(0x20100a), 0.3);
        scene.fill(&stick, place, colour);
    }
}

fn drizzle(scene: &mut Scene, top: Spot, middle: f32, round: f32) {
    let stripe = Colour::hex(scene.random.pick(&GLAZES)).mix(WHITE, 0.2);
    scene.clip(&ring(middle + round * 0.85, middle - round * 0.85), top);
    for index in -7..=7 {
        let at = index as f32 * 0.14;
        scene.stroke(&line(&[(at, -1.0), (at + 0.06, 0.0), (at, 1.0)]), top, stripe, 0.045);
    }
    scene.unclip();
}
