//! Table tops: wood, cloth, slate, marble, paint. None belongs to one kind of dish.

use super::colour::{BLACK, Colour, WHITE};
use super::outline::{blob, disc, line, rectangle};
use super::scene::{Scene, Spot};

/// Half the side of the square that is painted: more than any camera sees.
const EDGE: f32 = 7.0;

const PAINTS: [u32; 16] = [
    0xd9b48f, 0x6f8f72, 0x35506b, 0xc8574a, 0xe8c15a, 0x8fb7bd, 0xf0e6d6, 0x3a3a3f, 0xb3879b, 0x7a5a43, 0xe59a6b,
    0x9aa65c, 0xd8d8d4, 0x54727e, 0xf2d7c9, 0x8b2f3b,
];

pub fn lay(scene: &mut Scene) {
    let turn = scene.random.angle();
    let spot = Spot::at(0.0, 0.0).turned(turn);
    match scene.random.count(0, 8) {
        0 | 1 => wood(scene, spot),
        2 => checks(scene, spot),
        3 => stripes(scene, spot),
        4 => dots(scene, spot),
        5 => slate(scene, spot),
        6 => marble(scene, spot),
        7 => terrazzo(scene, spot),
        _ => painted(scene, spot),
    }
}

/// Any colour a table, a cloth or a plate may have.
pub fn any_paint(scene: &mut Scene) -> Colour {
    let paint = scene.random.pick(&PAINTS);
    Colour::hex(paint).jitter(&mut scene.random, 0.08)
}

fn cover(scene: &mut Scene, spot: Spot, colour: Colour) {
    scene.fill(&rectangle(-EDGE, -EDGE, 2.0 * EDGE, 2.0 * EDGE), spot, colour);
}

fn wood(scene: &mut Scene, spot: Spot) {
    let tone = scene.random.pick(&[0xb98555, 0x8a5a35, 0xd9b382, 0x5b3d2a, 0xc9a27a, 0x9c8f80, 0xa5663c]);
    let base = Colour::hex(tone).jitter(&mut scene.random, 0.05);
    cover(scene, spot, base);
    let width = scene.random.range(0.5, 1.1);
    let mut left = -EDGE;
    while left < EDGE {
        let plank = base.jitter(&mut scene.random, 0.06);
        scene.fill(&rectangle(left, -EDGE, width, 2.0 * EDGE), spot, plank);
        for _ in 0..8 {
            grain(scene, spot, left, width, plank);
        }
        scene.stroke(&line(&[(left, -EDGE), (left, EDGE)]), spot, plank.lit(0.45), 0.025);
        left += width;
    }
}

fn grain(scene: &mut Scene, spot: Spot, left: f32, width: f32, plank: Colour) {
    let middle = left + width * scene.random.range(0.05, 0.95);
    let sway = scene.random.range(0.0, 0.06);
    let phase = scene.random.angle();
    let points: Vec<_> = (0..=12)
        .map(|step| (middle + sway * (step as f32 * 0.9 + phase).sin(), EDGE * (step as f32 / 6.0 - 1.0)))
        .collect();
    let tone = scene.random.range(0.72, 0.93);
    let thickness = scene.random.range(0.008, 0.03);
    scene.soft_stroke(&line(&points), spot, plank.lit(tone), thickness, 0.7);
}

fn cloth(scene: &mut Scene) -> (Colour, Colour) {
    let dyed = any_paint(scene);
    let pale = Colour::hex(0xf4efe6).jitter(&mut scene.random, 0.04);
    if scene.random.chance(0.25) { (dyed, dyed.lit(0.7)) } else { (pale, dyed) }
}

fn checks(scene: &mut Scene, spot: Spot) {
    let (ground, band) = cloth(scene);
    cover(scene, spot, ground);
    let pitch = scene.random.range(0.22, 0.6);
    let mut at = -EDGE;
    while at < EDGE {
        scene.tint(&rectangle(at, -EDGE, pitch * 0.5, 2.0 * EDGE), spot, band, 0.5);
        scene.tint(&rectangle(-EDGE, at, 2.0 * EDGE, pitch * 0.5), spot, band, 0.5);
        at += pitch;
    }
}

fn stripes(scene: &mut Scene, spot: Spot) {
    let (ground, band) = cloth(scene);
    cover(scene, spot, ground);
    let pitch = scene.random.range(0.2, 0.7);
    let share = scene.random.range(0.15, 0.6);
    let mut at = -EDGE;
    while at < EDGE {
        scene.tint(&rectangle(at, -EDGE, pitch * share, 2.0 * EDGE), spot, band, 0.85);
        scene.tint(&rectangle(at + pitch * (share + 0.08), -EDGE, pitch * 0.06, 2.0 * EDGE), spot, band, 0.6);
        at += pitch;
    }
}

fn dots(scene: &mut Scene, spot: Spot) {
    let (ground, dot) = cloth(scene);
    cover(scene, spot, ground);
    let pitch = scene.random.range(0.25, 0.5);
    let shape = disc(pitch * scene.random.range(0.12, 0.3));
    let rows = (2.0 * EDGE / pitch) as i32;
    for row in 0..rows {
        for column in 0..rows {
            let shift = if row % 2 == 0 { 0.0 } else { 0.5 };
            let place = spot.inside((column as f32 + shift) * pitch - EDGE, row as f32 * pitch - EDGE);
            scene.fill(&shape, place, dot);
        }
    }
}

fn slate(scene: &mut Scene, spot: Spot) {
    let stone = Colour::hex(0x3d444a).jitter(&mut scene.random, 0.08);
    cover(scene, spot, stone);
    for _ in 0..110 {
        let tone = scene.random.range(0.7, 1.25);
        patch(scene, spot, stone.lit(tone), 0.5);
    }
}

fn patch(scene: &mut Scene, spot: Spot, colour: Colour, largest: f32) {
    let shape = blob(&mut scene.random, 9, 0.3);
    let (x, y) = (scene.random.range(-4.0, 4.0), scene.random.range(-4.0, 4.0));
    let (turn, size) = (scene.random.angle(), scene.random.range(0.1, largest));
    let opacity = scene.random.range(0.12, 0.4);
    scene.tint(&shape, spot.inside(x, y).turned(turn).sized(size), colour, opacity);
}

fn marble(scene: &mut Scene, spot: Spot) {
    let stone = Colour::hex(0xe9e6e2).jitter(&mut scene.random, 0.05);
    let vein = if scene.random.chance(0.7) { Colour::hex(0x8d8f96) } else { Colour::hex(0xb99a6b) };
    cover(scene, spot, stone);
    for _ in 0..24 {
        let (mut x, mut y) = (scene.random.range(-6.0, 3.5), -5.0);
        let lean = scene.random.range(0.1, 0.6);
        let points: Vec<_> = (0..24)
            .map(|_| {
                x += lean * 0.5 + scene.random.near(0.0, 0.3);
                y += 0.45;
                (x, y)
            })
            .collect();
        let (thickness, opacity) = (scene.random.range(0.01, 0.09), scene.random.range(0.12, 0.5));
        scene.soft_stroke(&line(&points), spot, vein, thickness, opacity);
        scene.soft_stroke(&line(&points), spot, vein, thickness * 4.0, opacity * 0.25);
    }
}

fn terrazzo(scene: &mut Scene, spot: Spot) {
    let ground = if scene.random.chance(0.7) { Colour::hex(0xe6e1d8) } else { Colour::hex(0x4a4d52) };
    cover(scene, spot, ground);
    let chips = [any_paint(scene), any_paint(scene), any_paint(scene)];
    for _ in 0..420 {
        let shape = blob(&mut scene.random, 6, 0.35);
        let (x, y) = (scene.random.range(-4.0, 4.0), scene.random.range(-4.0, 4.0));
        let size = scene.random.range(0.02, 0.09);
        let chip = scene.random.pick(&chips);
        scene.fill(&shape, spot.inside(x, y).sized(size), chip);
    }
}

fn painted(scene: &mut Scene, spot: Spot) {
    let paint = any_paint(scene);
    cover(scene, spot, paint);
    for _ in 0..24 {
        let tone = if scene.random.chance(0.5) { BLACK } else { WHITE };
        patch(scene, spot, paint.mix(tone, 0.15), 1.2);
    }
}
