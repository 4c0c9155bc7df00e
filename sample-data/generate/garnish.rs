//! Small food that turns up on and beside any dish.

use std::f32::consts::TAU;

use super::colour::{Colour, WHITE};
use super::outline::{blob, disc, frilled_leaf, leaf, line, ring, slab, smooth, wedge};
use super::scene::{BLOCK, DOME, PILLOW, Scene, Spot};

const CREAM: Colour = Colour::hex(0xf6ecd2);

/// Any one of them, about 0.2 large.
pub fn any(scene: &mut Scene, spot: Spot) {
    let spot = spot.turned(scene.random.angle());
    match scene.random.count(0, 9) {
        0 => tomato(scene, spot.sized(0.2)),
        1 => tomato_slice(scene, spot.sized(0.26)),
        2 => basil(scene, spot.sized(0.3)),
        3 => lemon(scene, spot.sized(0.26)),
        4 => cucumber(scene, spot.sized(0.24)),
        5 => olive(scene, spot.sized(0.14)),
        6 => berry(scene, spot.sized(0.11)),
        7 => strawberry(scene, spot.sized(0.2)),
        8 => mushroom(scene, spot.sized(0.2)),
        _ => egg_in_shell(scene, spot.sized(0.25)),
    }
}

pub fn tomato(scene: &mut Scene, spot: Spot) {
    let red = Colour::hex(scene.random.pick(&[0xd8352a, 0xe2542c, 0xe9a23b])).jitter(&mut scene.random, 0.04);
    scene.shadow(&disc(1.0), spot, 0.9, 0.6);
    scene.solid(&disc(1.0), spot, DOME, 1.3, red);
    scene.sheen(spot.up(1.1), 0.8, 0.8);
    for petal in 0..5 {
        let place = spot.up(1.25).turned(TAU * petal as f32 / 5.0).inside(0.2, 0.0);
        scene.fill(&leaf(0.4), place.sized(0.25), Colour::hex(0x4f7a35));
    }
}

pub fn tomato_slice(scene: &mut Scene, spot: Spot) {
    let red = Colour::hex(0xd93a2b).jitter(&mut scene.random, 0.05);
    scene.shadow(&disc(1.0), spot, 0.15, 0.5);
    scene.solid(&disc(1.0), spot, BLOCK, 0.12, red);
    let top = spot.up(0.12);
    scene.fill(&disc(0.88), top, red.lit(1.35));
    let chambers = scene.random.count(4, 6);
    for chamber in 0..chambers {
        let from = TAU * chamber as f32 / chambers as f32;
        let pulp = top.around(from, 0.48);
        scene.fill(&disc(0.24), pulp, red.lit(0.9));
        for seed in 0..3 {
            let place = pulp.around(from + seed as f32 * 2.1, 0.12).turned(from).sized(0.09);
            scene.fill(&leaf(0.5), place, Colour::hex(0xf2c46d));
        }
    }
    scene.sheen(top, 0.7, 0.35);
}

pub fn basil(scene: &mut Scene, spot: Spot) {
    let green = Colour::hex(scene.random.pick(&[0x3f7d3a, 0x5a9a45, 0x2f6b3c])).jitter(&mut scene.random, 0.04);
    let count = scene.random.count(1, 3);
    for index in 0..count {
        let place = spot.turned(index as f32 * 2.1).inside(0.6, 0.0).sized(0.75);
        scene.shadow(&leaf(0.5), place, 0.15, 0.5);
        scene.graded(&leaf(0.5), place.up(0.1), 0.5, green.lit(1.2), green.lit(0.85));
        scene.stroke(&line(&[(-1.1, 0.0), (0.0, 0.03), (0.8, 0.0)]), place.up(0.1), green.lit(1.4), 0.05);
    }
}

pub fn lemon(scene: &mut Scene, spot: Spot) {
    let rind = Colour::hex(scene.random.pick(&[0xf0cf3d, 0x9dbb3c, 0xee9a35]));
    citrus(scene, spot, rind);
}

fn citrus(scene: &mut Scene, spot: Spot, rind: Colour) {
    scene.shadow(&disc(1.0), spot, 0.25, 0.6);
    scene.solid(&disc(1.0), spot, BLOCK, 0.25, rind);
    let top = spot.up(0.25);
    scene.fill(&disc(0.92), top, rind.mix(WHITE, 0.75));
    for part in 0..8 {
        let from = TAU * part as f32 / 8.0;
        scene.fill(&wedge(0.8, from + 0.07, from + 0.7), top, rind.mix(WHITE, 0.25));
    }
}

pub fn cucumber(scene: &mut Scene, spot: Spot) {
    let skin = Colour::hex(0x3f7a3a).jitter(&mut scene.random, 0.04);
    scene.shadow(&disc(1.0), spot, 0.15, 0.5);
    scene.solid(&disc(1.0), spot, BLOCK, 0.14, skin);
    let top = spot.up(0.14);
    scene.fill(&disc(0.9), top, Colour::hex(0xd5e6ad));
    scene.fill(&disc(0.55), top, Colour::hex(0xc2d996));
    for seed in 0..8 {
        let angle = TAU * seed as f32 / 8.0;
        scene.fill(&leaf(0.4), top.around(angle, 0.38).turned(angle).sized(0.12), Colour::hex(0xeef3d2));
    }
}

pub fn olive(scene: &mut Scene, spot: Spot) {
    let skin = Colour::hex(scene.random.pick(&[0x2c2630, 0x6d7a35, 0x4a2b3a]));
    scene.shadow(&disc(1.0), spot, 0.4, 0.5);
    scene.solid(&ring(1.0, 0.4), spot, &[(0.0, 1.0), (0.6, 1.0), (1.0, 0.9)], 0.45, skin);
    scene.sheen(spot.up(0.45).inside(0.0, 0.0), 0.9, 0.35);
}

pub fn berry(scene: &mut Scene, spot: Spot) {
    let skin = Colour::hex(scene.random.pick(&[0x2e3a6b, 0x3d2a57, 0xc02a3c, 0x8f1f35]));
    scene.shadow(&disc(1.0), spot, 0.7, 0.6);
    scene.solid(&disc(1.0), spot, DOME, 1.2, skin);
    scene.sheen(spot.up(1.1), 0.9, 0.6);
    scene.fill(&disc(0.2), spot.up(1.2), skin.lit(0.6));
}

pub fn strawberry(scene: &mut Scene, spot: Spot) {
    let red = Colour::hex(0xd32a35).jitter(&mut scene.random, 0.04);
    let shape = smooth(&[
        (-0.7, 0.0),
        (-0.6, -0.6),
        (0.1, -0.65),
        (0.8, -0.3),
        (1.1, 0.0),
        (0.8, 0.3),
        (0.1, 0.65),
        (-0.6, 0.6),
    ]);
    scene.shadow(&shape, spot, 0.6, 0.6);
    scene.solid(&shape, spot, DOME, 0.6, red);
    for _ in 0..12 {
        let place = spot.up(0.55).inside(scene.random.range(-0.5, 0.6), scene.random.range(-0.4, 0.4));
        scene.fill(&leaf(0.5), place.sized(0.06), Colour::hex(0xf4d38a));
    }
    for petal in [-0.9, 0.0, 0.9] {
        scene.fill(
            &leaf(0.4),
            spot.up(0.5).inside(-0.65, 0.0).turned(3.1 + petal).inside(0.2, 0.0).sized(0.35),
            Colour::hex(0x5b9440),
        );
    }
}

pub fn mushroom(scene: &mut Scene, spot: Spot) {
    let flesh = Colour::hex(0xe9dcc6).jitter(&mut scene.random, 0.04);
    let shape = smooth(&[
        (-1.0, 0.1),
        (-0.8, -0.6),
        (0.0, -0.9),
        (0.8, -0.6),
        (1.0, 0.1),
        (0.35, 0.2),
        (0.3, 0.9),
        (-0.3, 0.9),
        (-0.35, 0.2),
    ]);
    scene.shadow(&shape, spot, 0.15, 0.5);
    scene.solid(&shape, spot, BLOCK, 0.12, flesh.lit(0.8));
    scene.fill(&shape, spot.up(0.13).sized(0.9), flesh);
    scene.stroke(&line(&[(-0.6, 0.05), (-0.2, -0.1), (0.2, -0.1), (0.6, 0.05)]), spot.up(0.13), flesh.lit(0.55), 0.12);
}

fn egg_in_shell(scene: &mut Scene, spot: Spot) {
    let shell = Colour::hex(scene.random.pick(&[0xd9a679, 0xf3e6d6, 0xc98d63]));
    let shape = smooth(&[
        (-0.9, 0.0),
        (-0.6, -0.65),
        (0.2, -0.75),
        (0.9, -0.45),
        (1.15, 0.0),
        (0.9, 0.45),
        (0.2, 0.75),
        (-0.6, 0.65),
    ]);
    scene.shadow(&shape, spot, 0.8, 0.6);
    scene.solid(&shape, spot, DOME, 0.95, shell);
    scene.sheen(spot.up(0.85), 0.8, 0.4);
}

/// A leaf of lettuce, along the spot's x axis.
pub fn lettuce(scene: &mut Scene, spot: Spot, green: Colour) {
    let width = scene.random.range(0.4, 0.65);
    let shape = frilled_leaf(&mut scene.random, width, 13, 0.16);
    scene.shadow(&shape, spot, 0.15, 0.5);
    scene.graded(&shape, spot, 0.6, green.lit(1.25), green.lit(0.72));
    scene.tint(&shape, spot.sized(0.7), green.lit(1.3), 0.4);
    let vein = green.mix(CREAM, 0.55);
    scene.stroke(&line(&[(-0.95, 0.0), (0.0, 0.04), (0.75, 0.0)]), spot, vein, 0.06);
    for at in [-0.45, -0.1, 0.25] {
        for side in [-1.0, 1.0] {
            let rib = line(&[(at, 0.02), (at + 0.15, side * width * 0.3), (at + 0.3, side * width * 0.55)]);
            scene.soft_stroke(&rib, spot, vein, 0.025, 0.7);
        }
    }
}

/// A ring of red onion.
pub fn onion(scene: &mut Scene, spot: Spot) {
    let purple = Colour::hex(0x9a4a86).jitter(&mut scene.random, 0.04);
    let shape = blob(&mut scene.random, 12, 0.06);
    scene.stroke(&shape, spot, purple, 0.2);
    scene.stroke(&shape, spot.sized(0.98), Colour::hex(0xefdfea), 0.11);
}

/// A cube of cheese, bread or butter.
pub fn cube(scene: &mut Scene, spot: Spot, colour: Colour) {
    let shape = slab(1.0, 1.0, 0.12);
    scene.shadow(&shape, spot, 0.5, 0.6);
    scene.solid(&shape, spot, BLOCK, 0.55, colour);
    scene.fill(&slab(0.86, 0.86, 0.1), spot.up(0.56), colour.lit(1.1));
}

/// A rasher of bacon, along the spot's x axis.
pub fn bacon(scene: &mut Scene, spot: Spot) {
    let wave = |offset: f32| -> Vec<(f32, f32)> {
        (0..9).map(|step| (step as f32 / 4.0 - 1.0, offset + 0.07 * (step as f32 * 1.7).sin())).collect()
    };
    for (offset, tone, width) in
        [(0.0, 0x8f2d22, 0.4), (0.05, 0xb4483a, 0.3), (-0.06, 0xeec0a0, 0.09), (0.11, 0xe2a684, 0.05)]
    {
        scene.stroke(&line(&wave(offset)), spot.up(0.05), Colour::hex(tone), width);
    }
}

/// A few chips of potato in a heap.
pub fn fries(scene: &mut Scene, spot: Spot) {
    for _ in 0..scene.random.count(5, 9) {
        let place = spot.around(scene.random.angle(), scene.random.range(0.0, 0.4)).turned(scene.random.angle());
        let stick = slab(0.75, 0.13, 0.03);
        let gold = Colour::hex(0xe8b84f).jitter(&mut scene.random, 0.06);
        scene.shadow(&stick, place, 0.12, 0.5);
        scene.solid(&stick, place, BLOCK, 0.12, gold);
    }
}

/// A slice of banana.
pub fn banana(scene: &mut Scene, spot: Spot) {
    scene.shadow(&disc(1.0), spot, 0.25, 0.5);
    scene.solid(&disc(1.0), spot, PILLOW, 0.3, Colour::hex(0xf1e0a4));
    scene.tint(&disc(0.45), spot.up(0.3), Colour::hex(0xd9bf78), 0.6);
    for seed in 0..3 {
        scene.fill(&disc(0.07), spot.up(0.3).around(seed as f32 * 2.1, 0.22), Colour::hex(0x6b4a2a));
    }
}
