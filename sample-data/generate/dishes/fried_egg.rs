//! Fried eggs: one to three, in the pan, on a plate or on toast.

use super::super::colour::{Colour, WHITE};
use super::super::garnish;
use super::super::outline::{blob, disc, slab};
use super::super::scene::{DOME, PILLOW, Scene, Spot};
use super::super::tableware::{crumbs, pan, serve};

pub fn draw(scene: &mut Scene, spot: Spot) {
    let mut floor = if scene.random.chance(0.4) { pan(scene, spot) } else { serve(scene, spot) };
    let first = scene.random.angle();
    let count = scene.random.pick(&[1, 1, 1, 2, 2, 3]);
    if count == 1 && scene.random.chance(0.35) {
        floor = toast(scene, floor);
    }
    sides(scene, floor, first);
    let size = [0.86, 0.64, 0.54][count - 1];
    for index in 0..count {
        let away = if count == 1 { scene.random.range(0.0, 0.12) } else { 0.5 + 0.04 * count as f32 };
        let place = floor.around(first + index as f32 * std::f32::consts::TAU / count as f32, away);
        let size = size * scene.random.range(0.92, 1.06);
        egg(scene, place.sized(size));
    }
    if scene.random.chance(0.6) {
        crumbs(scene, floor.up(0.08), Colour::hex(0x2a2420), 0.8, 30);
    }
    if scene.random.chance(0.35) {
        crumbs(scene, floor.up(0.1), Colour::hex(0x4f8a3a), 0.8, 25);
    }
}

fn toast(scene: &mut Scene, floor: Spot) -> Spot {
    let crust = Colour::hex(0xa8692f).jitter(&mut scene.random, 0.05);
    let slice = slab(1.9, 1.9, 0.45);
    let place = floor.turned(scene.random.angle());
    scene.shadow(&slice, place, 0.2, 0.7);
    scene.solid(&slice, place, PILLOW, 0.18, crust);
    scene.fill(&slab(1.72, 1.72, 0.4), place.up(0.18), Colour::hex(0xe3b878));
    scene.glow(place.up(0.18), 0.9, Colour::hex(0xb9793a), 0.5);
    floor.up(0.18)
}

fn sides(scene: &mut Scene, floor: Spot, first: f32) {
    for _ in 0..scene.random.count(0, 3) {
        let place = floor.around(first + scene.random.range(1.2, 5.0), scene.random.range(0.8, 1.0));
        let place = place.turned(scene.random.angle());
        match scene.random.count(0, 3) {
            0 => garnish::bacon(scene, place.sized(0.5)),
            1 => garnish::tomato(scene, place.sized(0.17)),
            2 => garnish::mushroom(scene, place.sized(0.22)),
            _ => garnish::basil(scene, place.sized(0.28)),
        }
    }
}

fn egg(scene: &mut Scene, spot: Spot) {
    let spot = spot.turned(scene.random.angle());
    let albumen = Colour::hex(scene.random.pick(&[0xfbf8f0, 0xf6f1e4, 0xf3efe9]));
    let wobble = scene.random.range(0.08, 0.2);
    let shape = blob(&mut scene.random, 17, wobble);
    scene.shadow(&shape, spot, 0.1, 0.7);
    if scene.random.chance(0.6) {
        let crisp = Colour::hex(0xb8762f).jitter(&mut scene.random, 0.05);
        scene.fill(&shape, spot.sized(1.04), crisp);
        scene.fill(&shape, spot.up(0.01).sized(1.0), crisp.mix(albumen, 0.55));
    }
    scene.solid(&shape, spot.sized(0.97), &[(0.0, 1.0), (0.5, 0.985), (1.0, 0.93)], 0.07, albumen);
    let top = spot.up(0.07);
    for _ in 0..7 {
        let place = top.around(scene.random.angle(), scene.random.range(0.4, 0.8));
        let radius = scene.random.range(0.06, 0.16);
        scene.tint(&disc(radius), place, Colour::hex(0xcfc6b4), 0.3);
        scene.tint(&disc(radius * 0.85), place.around(scene.light.angle, radius * 0.2), WHITE, 0.7);
    }
    let centre = top.around(scene.random.angle(), scene.random.range(0.0, 0.22));
    yolk(scene, centre);
}

fn yolk(scene: &mut Scene, spot: Spot) {
    let yellow =
        Colour::hex(scene.random.pick(&[0xf5b01f, 0xf39a1c, 0xf7c531, 0xe9831a])).jitter(&mut scene.random, 0.03);
    let radius = scene.random.range(0.33, 0.44);
    let shape = blob(&mut scene.random, 12, 0.025);
    let place = spot.sized(radius);
    scene.tint(&disc(1.25), place, Colour::hex(0xd9d0b8), 0.45);
    scene.shadow(&shape, place, 0.3, 0.5);
    scene.solid(&shape, place, DOME, 0.5, yellow);
    scene.sheen(place.up(0.45), 0.9, 0.9);
}
