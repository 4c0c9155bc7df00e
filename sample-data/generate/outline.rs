//! Closed outlines about the origin, mostly of radius 1: what every thing on the table is cut from.

use std::f32::consts::{PI, TAU};

use tiny_skia::{Path, PathBuilder, Rect};

use super::random::Random;

pub fn disc(radius: f32) -> Path {
    PathBuilder::from_circle(0.0, 0.0, radius).expect("radii are positive")
}

/// A disc with a hole, for the even-odd rule.
pub fn ring(outer: f32, inner: f32) -> Path {
    let mut path = PathBuilder::new();
    path.push_circle(0.0, 0.0, outer);
    path.push_circle(0.0, 0.0, inner.max(0.001));
    path.finish().expect("a ring has two circles")
}

/// A smooth closed curve through the points (Catmull-Rom).
pub fn smooth(points: &[(f32, f32)]) -> Path {
    let count = points.len();
    let at = |index: usize| points[index % count];
    let mut path = PathBuilder::new();
    path.move_to(points[0].0, points[0].1);
    for index in 0..count {
        let (before, from, to, after) = (at(index + count - 1), at(index), at(index + 1), at(index + 2));
        path.cubic_to(
            from.0 + (to.0 - before.0) / 6.0,
            from.1 + (to.1 - before.1) / 6.0,
            to.0 - (after.0 - from.0) / 6.0,
            to.1 - (after.1 - from.1) / 6.0,
            to.0,
            to.1,
        );
    }
    path.close();
    path.finish().expect("a closed curve has points")
}

pub fn polygon(points: &[(f32, f32)]) -> Path {
    let mut path = PathBuilder::new();
    path.move_to(points[0].0, points[0].1);
    for point in &points[1..] {
        path.line_to(point.0, point.1);
    }
    path.close();
    path.finish().expect("a polygon has points")
}

/// An open smooth line through the points.
pub fn line(points: &[(f32, f32)]) -> Path {
    let mut path = PathBuilder::new();
    path.move_to(points[0].0, points[0].1);
    for pair in points[1..].windows(2) {
        let middle = ((pair[0].0 + pair[1].0) / 2.0, (pair[0].1 + pair[1].1) / 2.0);
        path.quad_to(pair[0].0, pair[0].1, middle.0, middle.1);
    }
    let last = points[points.len() - 1];
    path.line_to(last.0, last.1);
    path.finish().expect("a line has points")
}

/// An uneven disc: `wobble` is the depth of its waves, `detail` the number of points it is bent at.
pub fn blob(random: &mut Random, detail: usize, wobble: f32) -> Path {
    let phases = [random.angle(), random.angle(), random.angle()];
    let points: Vec<_> = (0..detail)
        .map(|index| {
            let angle = TAU * index as f32 / detail as f32;
            let waves = (2.0 * angle + phases[0]).sin() + 0.8 * (3.0 * angle + phases[1]).sin();
            let radius = 1.0 + wobble * (0.5 * waves + 0.5 * (5.0 * angle + phases[2]).sin() + random.near(0.0, 0.6));
            (radius * angle.cos(), radius * angle.sin())
        })
        .collect();
    smooth(&points)
}

/// A disc with a frilled edge, as lettuce has.
pub fn frill(random: &mut Random, lobes: usize, depth: f32) -> Path {
    let points: Vec<_> = (0..lobes * 2)
        .map(|index| {
            let angle = PI * index as f32 / lobes as f32 + random.near(0.0, 0.3 / lobes as f32);
            let radius = 1.0 + depth * (if index % 2 == 0 { 1.0 } else { -1.0 }) * random.range(0.4, 1.0);
            (radius * angle.cos(), radius * angle.sin())
        })
        .collect();
    smooth(&points)
}

/// From (-1, 0) to (1, 0), `width` wide at its widest.
pub fn leaf(width: f32) -> Path {
    let mut path = PathBuilder::new();
    path.move_to(-1.0, 0.0);
    path.cubic_to(-0.6, -width * 1.2, 0.3, -width * 0.9, 1.0, 0.0);
    path.cubic_to(0.3, width * 0.9, -0.6, width * 1.2, -1.0, 0.0);
    path.close();
    path.finish().expect("a leaf has two sides")
}

/// A long leaf with a frilled edge, from (-1, 0) to (1, 0).
pub fn frilled_leaf(random: &mut Random, width: f32, teeth: usize, depth: f32) -> Path {
    let side = |sign: f32, random: &mut Random| -> Vec<(f32, f32)> {
        (0..teeth)
            .map(|index| {
                let along = -0.92 + 1.84 * (index as f32 + 0.5) / teeth as f32;
                let belly = width * (1.0 - along * along).max(0.02).powf(0.6) * (1.0 + 0.25 * along);
                let tooth = if index % 2 == 0 { 1.0 + depth } else { 1.0 - depth };
                (along, sign * belly * tooth * random.near(1.0, 0.15))
            })
            .collect()
    };
    let mut points = vec![(-1.05, 0.0)];
    points.extend(side(1.0, random));
    points.push((1.0, 0.0));
    points.extend(side(-1.0, random).into_iter().rev());
    smooth(&points)
}

/// A rectangle about the origin with round corners.
pub fn slab(width: f32, height: f32, corner: f32) -> Path {
    let (right, bottom) = (width / 2.0, height / 2.0);
    let corner = corner.min(right).min(bottom);
    let mut path = PathBuilder::new();
    path.move_to(-right + corner, -bottom);
    path.line_to(right - corner, -bottom);
    path.quad_to(right, -bottom, right, -bottom + corner);
    path.line_to(right, bottom - corner);
    path.quad_to(right, bottom, right - corner, bottom);
    path.line_to(-right + corner, bottom);
    path.quad_to(-right, bottom, -right, bottom - corner);
    path.line_to(-right, -bottom + corner);
    path.quad_to(-right, -bottom, -right + corner, -bottom);
    path.close();
    path.finish().expect("a slab has four sides")
}

/// The part of a disc between two angles.
pub fn wedge(radius: f32, from: f32, to: f32) -> Path {
    let steps = 24;
    let mut points = vec![(0.0, 0.0)];
    points.extend((0..=steps).map(|step| {
        let angle = from + (to - from) * step as f32 / steps as f32;
        (radius * angle.cos(), radius * angle.sin())
    }));
    polygon(&points)
}

pub fn rectangle(left: f32, top: f32, width: f32, height: f32) -> Path {
    PathBuilder::from_rect(Rect::from_xywh(left, top, width, height).expect("rectangles have a size"))
}
