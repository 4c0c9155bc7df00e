//! A stack of pancakes with syrup, butter and fruit.

use super::super::colour::{Colour, WHITE};
use super::super::garnish;
use super::super::outline::{blob, disc, line};
use super::super::scene::{Scene, Spot};
use super::super::tableware::serve;

pub fn draw(scene: &mut Scene, spot: Spot) {
    let floor = serve(scene, spot).sized(scene.random.range(0.85, 1.0));
    let toasted = scene.random.pick(&[0xc07a35, 0xb06a2c, 0xd19448, 0x9a5a2a, 0x6a3d24]);
    let toasted = Colour::hex(toasted).jitter(&mut scene.random, 0.04);
    scene.shadow(&disc(1.0), floor, 0.6, 0.85);
    let mut top = floor;
    for _ in 0..scene.random.count(3, 6) {
        let place = top.around(scene.random.angle(), scene.random.range(0.0, 0.06));
        top = pancake(scene, place, toasted);
    }
    if scene.random.chance(0.75) {
        syrup(scene, top);
    }
    toppings(scene, top);
}

fn pancake(scene: &mut Scene, spot: Spot, toasted: Colour) -> Spot {
    let size = scene.random.range(0.92, 1.03);
    let place = spot.sized(size).turned(scene.random.angle());
    let shape = blob(&mut scene.random, 15, 0.025);
    let pale = toasted.mix(Colour::hex(0xf6dfa6), 0.72);
    scene.solid(&shape, place, &[(0.0, 0.94), (0.25, 0.99), (0.6, 1.0), (0.85, 0.985), (1.0, 0.95)], 0.15, pale);
    let top = place.up(0.15);
    scene.fill(&shape, top.sized(0.955), toasted.mix(pale, 0.35));
    scene.fill(&shape, top.sized(0.92), toasted);
    for _ in 0..16 {
        let spot = top.around(scene.random.angle(), 0.8 * scene.random.unit().sqrt());
        let (radius, tone) = (scene.random.range(0.04, 0.2), scene.random.range(0.8, 1.2));
        scene.glow(spot, radius, toasted.lit(tone), 0.7);
    }
    Spot { size: spot.size, turn: spot.turn, ..top }
}

fn syrup(scene: &mut Scene, top: Spot) {
    let amber = Colour::hex(scene.random.pick(&[0x8a4313, 0x6b2f10, 0xb56a1e, 0x3d1f14, 0xa01f35]))
        .jitter(&mut scene.random, 0.03);
    let shape = blob(&mut scene.random, 14, 0.16);
    let viewer = scene.camera.towards_viewer() - top.turn;
    let lift = scene.camera.lift().max(0.2) / scene.camera.squash;
    for _ in 0..scene.random.count(3, 6) {
        let angle = viewer + scene.random.near(0.0, 1.3);
        let length = scene.random.range(0.15, 0.5);
        let edge = top.around(angle, 0.93);
        let width = scene.random.range(0.08, 0.16);
        // Straight down the side: what is lower lies nearer to the viewer in the picture.
        let fall = Spot { turn: scene.camera.towards_viewer(), ..edge };
        scene.stroke(&line(&[(-0.1, 0.0), (0.0, 0.0), (length * lift * 0.7, 0.0)]), fall, amber.lit(0.85), width);
        scene.stroke(
            &line(&[(-0.5, 0.0), (-0.2, 0.0), (0.0, 0.0)]),
            Spot { turn: angle + top.turn, ..edge },
            amber.lit(0.9),
            width * 1.2,
        );
        scene.glow(fall.inside(length * lift * 0.68, 0.0), width * 0.4, WHITE, 0.5);
    }
    scene.tint(&shape, top.up(0.01).sized(0.74), amber.lit(0.8), 0.95);
    scene.graded(&shape, top.up(0.03).sized(0.71), 0.8, amber.lit(1.25), amber.lit(0.95));
    scene.sheen(top.up(0.03), 0.8, 0.5);
}

fn toppings(scene: &mut Scene, top: Spot) {
    let fruit = scene.random.count(0, 4);
    let count = if fruit == 4 { 0 } else { scene.random.count(3, 7) };
    for _ in 0..count {
        let place =
            top.up(0.03).around(scene.random.angle(), scene.random.range(0.15, 0.6)).turned(scene.random.angle());
        match fruit {
            0 | 1 => garnish::berry(scene, place.sized(0.12)),
            2 => garnish::strawberry(scene, place.sized(0.2)),
            _ => garnish::banana(scene, place.sized(0.19)),
        }
    }
    if scene.random.chance(0.65) || count == 0 {
        let butter = Colour::hex(0xf7dc7a).jitter(&mut scene.random, 0.03);
        let place = top.up(0.04).turned(scene.random.angle());
        let melted = blob(&mut scene.random, 12, 0.1);
        scene.tint(&melted, place.sized(0.33), butter, 0.55);
        garnish::cube(scene, place.sized(0.36), butter);
    } else if scene.random.chance(0.4) {
        let cream = Colour::hex(0xfbf6ea);
        for (height, size) in [(0.03, 0.3), (0.14, 0.23), (0.24, 0.14)] {
            scene.solid(&disc(1.0), top.up(height).sized(size), super::super::scene::PILLOW, 0.5, cream);
        }
    }
}
