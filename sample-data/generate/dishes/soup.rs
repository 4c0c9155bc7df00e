//! A bowl of soup: cream soup with a swirl, or clear broth with things in it.

use std::f32::consts::TAU;

use super::super::colour::{Colour, WHITE};
use super::super::garnish;
use super::super::outline::{disc, leaf, line, ring};
use super::super::scene::{Scene, Spot};
use super::super::tableware::{bowl, crumbs, plate, steam};

const CREAMS: [u32; 8] = [0xd8572a, 0xe8943a, 0x7f9e4a, 0xd9c08a, 0x8f2f4f, 0xc9402c, 0xe9d9b0, 0x5f7a3a];
const BROTHS: [u32; 4] = [0xd9a64a, 0xc48a3a, 0x9a5a2c, 0xb8452a];

pub fn draw(scene: &mut Scene, spot: Spot) {
    let stand = if scene.random.chance(0.35) { plate(scene, spot, 1.35).sized(0.85) } else { spot };
    let depth = scene.random.range(0.35, 0.6);
    let rim = bowl(scene, stand, 1.12, depth);
    scene.clip(&disc(1.04), rim);
    let surface = rim.up(-scene.random.range(0.1, 0.2));
    if scene.random.chance(0.6) {
        cream(scene, surface)
    } else {
        broth(scene, surface)
    }
    let wall = scene.light.angle - rim.turn;
    scene.soft_stroke(&ring(1.0, 0.99), surface, Colour::hex(0x2a1408), 0.05, 0.25);
    scene.glow(surface.around(wall, 0.5), 0.35, WHITE, 0.4);
    scene.unclip();
    if scene.random.chance(0.4) {
        steam(scene, surface);
    }
}

fn pool(scene: &mut Scene, surface: Spot, colour: Colour) {
    scene.graded(&disc(1.02), surface, 1.0, colour.lit(1.12), colour.lit(0.85));
    scene.tint(&ring(1.02, 0.93), surface, colour.lit(0.7), 0.35);
}

fn cream(scene: &mut Scene, surface: Spot) {
    let colour = Colour::hex(scene.random.pick(&CREAMS)).jitter(&mut scene.random, 0.05);
    pool(scene, surface, colour);
    let swirl = Colour::hex(scene.random.pick(&[0xf9f3e4, 0xf9f3e4, 0x6f8f3a]));
    match scene.random.count(0, 3) {
        0 | 1 => spiral(scene, surface, swirl),
        2 => {
            for drop in 0..9 {
                let place = surface.around(TAU * drop as f32 / 9.0, 0.5).turned(TAU * drop as f32 / 9.0 + 1.57);
                scene.fill(&leaf(0.55), place.sized(0.15), swirl);
            }
        }
        _ => {
            let place = surface.around(scene.random.angle(), 0.2);
            scene.glow(place, 0.4, swirl, 0.9);
        }
    }
    let centre = surface.around(scene.random.angle(), scene.random.range(0.0, 0.3));
    for _ in 0..scene.random.count(0, 7) {
        let place = centre.around(scene.random.angle(), scene.random.range(0.0, 0.4)).turned(scene.random.angle());
        garnish::cube(scene, place.sized(0.15), Colour::hex(0xc98f45));
    }
    if scene.random.chance(0.6) {
        let place = centre.turned(scene.random.angle());
        garnish::basil(scene, place.sized(0.24));
    }
    crumbs(scene, surface, Colour::hex(0x3f6b2c), 0.7, 24);
}

fn spiral(scene: &mut Scene, surface: Spot, colour: Colour) {
    let (turns, phase) = (scene.random.range(1.5, 3.0), scene.random.angle());
    let points: Vec<_> = (0..60)
        .map(|step| {
            let along = step as f32 / 59.0;
            let (sin, cos) = (phase + TAU * turns * along).sin_cos();
            ((0.08 + 0.62 * along) * cos, (0.08 + 0.62 * along) * sin)
        })
        .collect();
    let place = surface.around(scene.random.angle(), 0.1);
    scene.soft_stroke(&line(&points), place, colour, 0.12, 0.35);
    scene.soft_stroke(&line(&points), place, colour, 0.075, 0.95);
}

fn broth(scene: &mut Scene, surface: Spot) {
    let colour = Colour::hex(scene.random.pick(&BROTHS)).jitter(&mut scene.random, 0.05);
    pool(scene, surface, colour);
    if scene.random.chance(0.6) {
        noodles(scene, surface);
    }
    for _ in 0..scene.random.count(7, 14) {
        let place = surface.around(scene.random.angle(), 0.8 * scene.random.unit().sqrt()).turned(scene.random.angle());
        match scene.random.count(0, 5) {
            0 | 1 => carrot(scene, place.sized(0.12)),
            2 => garnish::mushroom(scene, place.sized(0.14)),
            3 => garnish::cube(scene, place.sized(0.15), Colour::hex(0xf1e4c4)),
            4 => scene.stroke(&ring(0.06, 0.03), place, Colour::hex(0x6f9a3f), 0.025),
            _ => garnish::basil(scene, place.sized(0.14)),
        }
        scene.tint(&disc(0.14), place, colour, 0.25);
    }
    for _ in 0..14 {
        let place = surface.around(scene.random.angle(), 0.9 * scene.random.unit().sqrt());
        let radius = scene.random.range(0.02, 0.06);
        scene.tint(&disc(radius), place, Colour::hex(0xf9d87a), 0.45);
        scene.tint(&ring(radius, radius * 0.8), place, WHITE, 0.35);
    }
}

fn noodles(scene: &mut Scene, surface: Spot) {
    for _ in 0..22 {
        let place = surface.around(scene.random.angle(), 0.45 * scene.random.unit()).turned(scene.random.angle());
        let (bend, phase) = (scene.random.range(0.05, 0.18), scene.random.angle());
        let points: Vec<_> =
            (0..9).map(|step| (step as f32 * 0.11 - 0.45, bend * (step as f32 * 0.9 + phase).sin())).collect();
        scene.soft_stroke(&line(&points), place, Colour::hex(0x8a5a20), 0.075, 0.4);
        scene.stroke(&line(&points), place, Colour::hex(0xf0d694), 0.05);
    }
}

fn carrot(scene: &mut Scene, spot: Spot) {
    scene.fill(&disc(1.0), spot, Colour::hex(0xc95f1a));
    scene.fill(&disc(0.88), spot.up(0.08), Colour::hex(0xf08a32));
    scene.fill(&disc(0.4), spot.up(0.08), Colour::hex(0xf6a54d));
}
