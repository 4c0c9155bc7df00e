//! What food is served on and eaten with, for any dish.

use std::f32::consts::{FRAC_PI_2, TAU};

use super::colour::{BLACK, Colour, WHITE};
use super::outline::{blob, disc, line, polygon, rectangle, ring, slab, smooth};
use super::scene::{BLOCK, PILLOW, Scene, Spot};
use super::table::any_paint;

fn glazed(scene: &mut Scene) -> Colour {
    if scene.random.chance(0.55) {
        return Colour::hex(0xf3f1ec).jitter(&mut scene.random, 0.05);
    }
    any_paint(scene)
}

/// Serves on a plate, a board, a slate, paper or the bare table; answers where the food stands.
pub fn serve(scene: &mut Scene, spot: Spot) -> Spot {
    match scene.random.count(0, 9) {
        0..=4 => plate(scene, spot, 1.32),
        5 => square_plate(scene, spot),
        6 | 7 => board(scene, spot),
        8 => paper(scene, spot),
        _ => spot,
    }
}

pub fn plate(scene: &mut Scene, spot: Spot, radius: f32) -> Spot {
    let glaze = glazed(scene);
    scene.shadow(&disc(radius), spot, 0.16, 0.75);
    scene.solid(&disc(radius), spot, &[(0.0, 0.6), (0.3, 0.68), (0.9, 0.99), (1.0, 1.0)], 0.11, glaze);
    let rim = spot.up(0.11);
    scene.fill(&disc(radius * 0.985), rim, glaze.lit(1.04));
    if scene.random.chance(0.4) {
        let band = any_paint(scene);
        let from = scene.random.range(0.8, 0.95);
        let to = from - scene.random.range(0.02, 0.1);
        scene.fill(&ring(radius * from, radius * to), rim, band);
    }
    let well = disc(radius * 0.74);
    scene.graded(&well, rim, radius * 0.74, glaze.lit(0.8), glaze.lit(1.12));
    let floor = spot.up(0.09);
    scene.fill(&disc(radius * 0.71), floor, glaze.lit(0.985));
    floor
}

fn square_plate(scene: &mut Scene, spot: Spot) -> Spot {
    let glaze = glazed(scene);
    let turn = scene.random.angle();
    let tile = slab(2.5, 2.5, 0.3);
    let place = spot.turned(turn);
    scene.shadow(&tile, place, 0.12, 0.75);
    scene.solid(&tile, place, &[(0.0, 0.8), (0.9, 1.0), (1.0, 1.0)], 0.1, glaze);
    scene.graded(&slab(2.1, 2.1, 0.25), place.up(0.1), 1.0, glaze.lit(0.93), glaze.lit(1.08));
    spot.up(0.09)
}

fn board(scene: &mut Scene, spot: Spot) -> Spot {
    let tone = scene.random.pick(&[0xc08a57, 0x9a663e, 0xd8b283, 0x6f4a30, 0x44484d]);
    let wood = Colour::hex(tone).jitter(&mut scene.random, 0.04);
    let place = spot.turned(scene.random.angle());
    let (width, height) = (scene.random.range(2.5, 3.0), scene.random.range(2.2, 2.6));
    let plank = slab(width, height, 0.25);
    scene.shadow(&plank, place, 0.14, 0.75);
    scene.solid(&plank, place, BLOCK, 0.1, wood);
    let top = place.up(0.1);
    for _ in 0..14 {
        let y = scene.random.range(-0.46, 0.46) * height;
        let tone = scene.random.range(0.8, 0.95);
        let grain = line(&[(-0.48 * width, y), (-0.1 * width, y + 0.03), (0.2 * width, y - 0.02), (0.48 * width, y)]);
        scene.soft_stroke(&grain, top, wood.lit(tone), 0.025, 0.7);
    }
    spot.up(0.1)
}

fn paper(scene: &mut Scene, spot: Spot) -> Spot {
    let sheet = if scene.random.chance(0.5) { Colour::hex(0xe9dcc4) } else { Colour::hex(0xf6f4ef) };
    let corners: Vec<_> = [(-1.3, -1.2), (1.3, -1.2), (1.3, 1.2), (-1.3, 1.2)]
        .into_iter()
        .map(|(x, y)| (x + scene.random.near(0.0, 0.15), y + scene.random.near(0.0, 0.15)))
        .collect();
    let place = spot.turned(scene.random.angle());
    scene.shadow(&polygon(&corners), place, 0.04, 0.5);
    scene.fill(&polygon(&corners), place, sheet);
    for _ in 0..5 {
        let (a, b) = (scene.random.range(-1.1, 1.1), scene.random.range(-1.1, 1.1));
        scene.soft_stroke(&line(&[(a, -1.1), (b, 1.1)]), place, BLACK, 0.03, 0.06);
    }
    spot.up(0.01)
}

/// A deep bowl; answers where its filling's surface lies. Draw the filling, clipped to it by the caller.
pub fn bowl(scene: &mut Scene, spot: Spot, radius: f32, depth: f32) -> Spot {
    let glaze = glazed(scene);
    let inner = if scene.random.chance(0.6) { glaze } else { glazed(scene) };
    scene.shadow(&disc(radius), spot, depth, 0.8);
    scene.solid(&disc(radius), spot, &[(0.0, 0.5), (0.15, 0.66), (0.45, 0.88), (0.8, 0.98), (1.0, 1.0)], depth, glaze);
    let rim = spot.up(depth);
    scene.fill(&disc(radius), rim, glaze.lit(1.1));
    scene.graded(&disc(radius * 0.93), rim, radius, inner.lit(0.62), inner.lit(0.98));
    rim
}

/// A frying pan with a handle; answers where the food lies.
pub fn pan(scene: &mut Scene, spot: Spot) -> Spot {
    let iron = Colour::hex(scene.random.pick(&[0x26272a, 0x33302e, 0x55585c])).jitter(&mut scene.random, 0.03);
    let handle = spot.turned(scene.random.angle());
    scene.shadow(&slab(1.6, 0.22, 0.1), handle.inside(1.9, 0.0), 0.2, 0.6);
    let grip = if scene.random.chance(0.5) { iron } else { Colour::hex(0x7a4a2b) };
    scene.solid(&slab(1.6, 0.22, 0.1), handle.inside(1.9, 0.0).up(0.16), BLOCK, 0.08, grip);
    scene.shadow(&disc(1.3), spot, 0.25, 0.8);
    scene.solid(&disc(1.3), spot, &[(0.0, 0.85), (1.0, 1.0)], 0.24, iron);
    scene.fill(&disc(1.3), spot.up(0.24), iron.lit(1.5));
    scene.graded(&disc(1.25), spot.up(0.24), 1.25, iron.lit(0.6), iron.lit(1.35));
    scene.fill(&disc(1.1), spot.up(0.08), iron.lit(0.9));
    scene.glow(spot.up(0.08).around(scene.light.angle, 0.4), 0.8, WHITE, 0.12);
    spot.up(0.08)
}

const STEEL: Colour = Colour::hex(0xc4c8cc);

/// A fork, a knife, a spoon or chopsticks, along the spot's x axis.
pub fn cutlery(scene: &mut Scene, spot: Spot) {
    let metal = if scene.random.chance(0.8) { STEEL } else { Colour::hex(0xc9a25e) };
    match scene.random.count(0, 3) {
        0 => fork(scene, spot, metal),
        1 => knife(scene, spot, metal),
        2 => spoon(scene, spot, metal),
        _ => chopsticks(scene, spot),
    }
}

fn handle(scene: &mut Scene, spot: Spot, metal: Colour) {
    let shaft = smooth(&[(-1.0, -0.075), (-0.2, -0.04), (0.42, -0.03), (0.42, 0.03), (-0.2, 0.04), (-1.0, 0.075)]);
    scene.shadow(&shaft, spot, 0.08, 0.5);
    scene.graded(&shaft, spot.up(0.04), 0.1, metal.lit(1.25), metal.lit(0.7));
}

fn fork(scene: &mut Scene, spot: Spot, metal: Colour) {
    handle(scene, spot, metal);
    let place = spot.up(0.05);
    scene.fill(
        &smooth(&[(0.38, -0.03), (0.55, -0.13), (0.75, -0.13), (0.75, 0.13), (0.55, 0.13), (0.38, 0.03)]),
        place,
        metal,
    );
    for tine in [-0.11, -0.037, 0.037, 0.11] {
        scene.stroke(&line(&[(0.72, tine), (0.9, tine), (1.08, tine)]), place, metal.lit(0.95), 0.034);
    }
}

fn knife(scene: &mut Scene, spot: Spot, metal: Colour) {
    handle(scene, spot, metal);
    let blade = smooth(&[(0.2, -0.07), (0.8, -0.09), (1.15, 0.02), (0.9, 0.07), (0.2, 0.06)]);
    scene.shadow(&blade, spot, 0.05, 0.4);
    scene.graded(&blade, spot.up(0.04), 0.1, metal.lit(1.35), metal.lit(0.85));
}

fn spoon(scene: &mut Scene, spot: Spot, metal: Colour) {
    handle(scene, spot, metal);
    let cup = smooth(&[(0.4, 0.0), (0.55, -0.17), (0.85, -0.19), (1.05, 0.0), (0.85, 0.19), (0.55, 0.17)]);
    scene.shadow(&cup, spot, 0.06, 0.5);
    scene.fill(&cup, spot.up(0.05), metal.lit(1.15));
    scene.graded(&cup, spot.up(0.05).inside(0.08, 0.0).sized(0.9), 0.5, metal.lit(0.6), metal.lit(1.2));
}

fn chopsticks(scene: &mut Scene, spot: Spot) {
    let wood = Colour::hex(scene.random.pick(&[0x8c4a2f, 0xd3a56b, 0x2b2523, 0xa52a2a]));
    let spread = scene.random.range(-0.06, 0.06);
    for (side, lean) in [(-0.08, spread), (0.08, -spread)] {
        let stick = polygon(&[(-1.3, -0.05), (1.2, -0.02), (1.2, 0.02), (-1.3, 0.05)]);
        let place = spot.inside(0.0, side).turned(lean);
        scene.shadow(&stick, place, 0.12, 0.5);
        scene.graded(&stick, place.up(0.1), 0.06, wood.lit(1.2), wood.lit(0.75));
    }
}

/// A cup of coffee, tea or milk.
pub fn cup(scene: &mut Scene, spot: Spot) {
    let glaze = glazed(scene);
    let drink = Colour::hex(scene.random.pick(&[0x3b2214, 0xb98552, 0xa8501c, 0xf1e7d6, 0xd99a2b, 0xa33b3b]));
    scene.shadow(&disc(0.45), spot, 0.5, 0.8);
    let ear = spot.up(0.25).turned(scene.random.angle());
    scene.stroke(&smooth(&[(0.4, -0.12), (0.66, -0.1), (0.66, 0.1), (0.4, 0.12)]), ear, glaze.lit(0.85), 0.09);
    scene.solid(&disc(0.45), spot, &[(0.0, 0.8), (0.2, 0.95), (1.0, 1.0)], 0.5, glaze);
    let rim = spot.up(0.5);
    scene.fill(&disc(0.45), rim, glaze.lit(1.1));
    scene.graded(&disc(0.41), rim, 0.4, glaze.lit(0.6), glaze.lit(0.95));
    scene.clip(&disc(0.41), rim);
    scene.graded(&disc(0.4), spot.up(0.42), 0.4, drink.lit(0.85), drink.lit(1.1));
    scene.unclip();
    if scene.random.chance(0.5) {
        scene.tint(&ring(0.37, 0.32), spot.up(0.42), WHITE, 0.25);
    }
}

/// A small dish of sauce.
pub fn sauce(scene: &mut Scene, spot: Spot) {
    let glaze = glazed(scene);
    let filling = Colour::hex(scene.random.pick(&[0x2a1a14, 0xb5281e, 0xf0e3c0, 0x6b8a3a, 0xe0a428, 0x7a3b1d]));
    scene.shadow(&disc(0.34), spot, 0.18, 0.7);
    scene.solid(&disc(0.34), spot, &[(0.0, 0.7), (1.0, 1.0)], 0.16, glaze);
    scene.fill(&disc(0.34), spot.up(0.16), glaze.lit(1.1));
    scene.graded(&disc(0.29), spot.up(0.15), 0.3, filling.lit(0.85), filling.lit(1.15));
    scene.sheen(spot.up(0.15), 0.2, 0.5);
}

/// A folded napkin.
pub fn napkin(scene: &mut Scene, spot: Spot) {
    let cloth = any_paint(scene);
    let trim = any_paint(scene);
    let (width, height) = (scene.random.range(0.8, 1.3), scene.random.range(0.8, 1.4));
    let sheet = slab(width, height, 0.03);
    scene.shadow(&sheet, spot, 0.06, 0.6);
    scene.graded(&sheet, spot.up(0.02), 1.0, cloth.lit(1.08), cloth.lit(0.9));
    if scene.random.chance(0.6) {
        for at in [0.4, 0.33, -0.4] {
            scene.tint(&rectangle(-width / 2.0, at * height, width, 0.04), spot.up(0.02), trim, 0.8);
        }
    }
    scene.soft_stroke(&line(&[(0.0, -height / 2.0), (0.0, height / 2.0)]), spot.up(0.02), BLACK, 0.03, 0.12);
}

/// Fingers that reach in along the spot's x axis.
pub fn hand(scene: &mut Scene, spot: Spot) {
    let tone = scene.random.pick(&[0xf0c7a6, 0xd9a27a, 0xb07850, 0x7a4b30, 0x54331f]);
    let skin = Colour::hex(tone).jitter(&mut scene.random, 0.03);
    let sleeve = any_paint(scene);
    let palm =
        smooth(&[(-2.6, -0.3), (-0.7, -0.32), (-0.2, -0.36), (-0.05, 0.0), (-0.2, 0.36), (-0.7, 0.32), (-2.6, 0.3)]);
    scene.shadow(&palm, spot, 0.25, 0.6);
    scene.graded(&palm, spot.up(0.2), 0.4, skin.lit(1.05), skin.lit(0.8));
    for (index, (across, length)) in [(-0.27, 0.42), (-0.09, 0.55), (0.09, 0.5), (0.26, 0.36)].into_iter().enumerate() {
        let finger = spot.inside(-0.15, across).turned((index as f32 - 1.5) * 0.06).up(0.2);
        scene.stroke(&line(&[(0.0, 0.0), (length / 2.0, 0.0), (length, 0.0)]), finger, skin.lit(0.78), 0.19);
        scene.stroke(&line(&[(0.0, 0.0), (length / 2.0, 0.0), (length, 0.0)]), finger, skin.lit(1.02), 0.15);
        scene.fill(&disc(0.05), finger.inside(length + 0.02, 0.0), skin.mix(WHITE, 0.4));
    }
    scene.solid(&slab(1.8, 0.8, 0.1), spot.inside(-2.0, 0.0).up(0.15), PILLOW, 0.15, sleeve);
}

/// Steam that rises from something hot.
pub fn steam(scene: &mut Scene, spot: Spot) {
    for _ in 0..3 {
        let place = spot.around(scene.random.angle(), scene.random.range(0.1, 0.5));
        let phase = scene.random.angle();
        for step in 0..9 {
            let along = step as f32 / 9.0;
            let side = 0.1 * (phase + along * TAU * 0.7).sin();
            let viewer = scene.camera.towards_viewer() + FRAC_PI_2;
            scene.glow(place.around(viewer, side).up(0.3 + along), 0.1 + 0.1 * along, WHITE, 0.14 * (1.0 - along));
        }
    }
}

/// Crumbs, salt or pepper scattered about.
pub fn crumbs(scene: &mut Scene, spot: Spot, colour: Colour, reach: f32, count: usize) {
    for _ in 0..count {
        let (angle, distance) = (scene.random.angle(), reach * scene.random.unit().sqrt());
        let size = scene.random.range(0.012, 0.035);
        let shape = blob(&mut scene.random, 6, 0.3);
        let tone = colour.jitter(&mut scene.random, 0.12);
        scene.fill(&shape, spot.around(angle, distance).sized(size), tone);
    }
}
