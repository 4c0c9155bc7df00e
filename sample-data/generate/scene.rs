//! A table seen by a camera under one lamp. Everything solid is a pile of flat slices drawn from the bottom up, each
//! shaded by the slope of its edge: with parallel projection that is exact for whatever a camera above can see.

use tiny_skia::{
    FillRule, GradientStop, LineCap, LineJoin, LinearGradient, Mask, Paint, Path, Pixmap, Point, RadialGradient,
    Shader, SpreadMode, Stroke, Transform,
};

use super::colour::{BLACK, Colour, WHITE};
use super::outline;
use super::random::Random;

/// Where a thing lies: its place on the table, its height above it, how it is turned and how large it is.
#[derive(Debug, Clone, Copy)]
pub struct Spot {
    pub x: f32,
    pub y: f32,
    pub z: f32,
    pub turn: f32,
    pub size: f32,
}

impl Spot {
    pub fn at(x: f32, y: f32) -> Self {
        Self { x, y, z: 0.0, turn: 0.0, size: 1.0 }
    }

    /// Raised by `height`, in the thing's own measure.
    pub fn up(self, height: f32) -> Self {
        Self { z: self.z + height * self.size, ..self }
    }

    pub fn turned(self, angle: f32) -> Self {
        Self { turn: self.turn + angle, ..self }
    }

    pub fn sized(self, factor: f32) -> Self {
        Self { size: self.size * factor, ..self }
    }

    /// The place (x, y) of this thing's own plane.
    pub fn inside(self, x: f32, y: f32) -> Self {
        let (sin, cos) = self.turn.sin_cos();
        Self { x: self.x + self.size * (cos * x - sin * y), y: self.y + self.size * (sin * x + cos * y), ..self }
    }

    /// The same in polar coordinates.
    pub fn around(self, angle: f32, distance: f32) -> Self {
        self.inside(distance * angle.cos(), distance * angle.sin())
    }
}

/// A camera so far away that nothing gets smaller with distance.
#[derive(Debug, Clone, Copy)]
pub struct Camera {
    /// Pixels per table unit.
    pub scale: f32,
    pub yaw: f32,
    /// How round a plate looks: 1 from straight above, less from the side.
    pub squash: f32,
    pub centre: (f32, f32),
}

impl Camera {
    /// How far a thing of height 1 reaches up in the picture.
    pub fn lift(&self) -> f32 {
        (1.0 - self.squash * self.squash).max(0.0).sqrt()
    }

    /// From the plane of `spot` to pixels.
    fn plane(&self, spot: Spot) -> Transform {
        let (sin, cos) = self.yaw.sin_cos();
        let (scale, squash) = (self.scale, self.squash);
        Transform::from_row(scale * cos, scale * squash * sin, -scale * sin, scale * squash * cos, 0.0, 0.0)
            .post_translate(self.centre.0, self.centre.1 - scale * self.lift() * spot.z)
            .pre_translate(spot.x, spot.y)
            .pre_rotate(spot.turn.to_degrees())
            .pre_scale(spot.size, spot.size)
    }

    /// The direction on the table that points straight down in the picture: towards the viewer.
    pub fn towards_viewer(&self) -> f32 {
        std::f32::consts::FRAC_PI_2 - self.yaw
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Light {
    /// Where on the table it comes from.
    pub angle: f32,
    /// Its height above the table, in radians.
    pub elevation: f32,
    /// What reaches the shade, 0–1.
    pub ambient: f32,
}

/// Slices of a solid from the bottom up: height, and the outline's scale there.
pub type Profile<'a> = &'a [(f32, f32)];

/// A quarter circle in steps of 6 degrees.
pub const DOME: Profile<'static> = &[
    (0.000, 1.000),
    (0.105, 0.995),
    (0.208, 0.978),
    (0.309, 0.951),
    (0.407, 0.914),
    (0.500, 0.866),
    (0.588, 0.809),
    (0.669, 0.743),
    (0.743, 0.669),
    (0.809, 0.588),
    (0.866, 0.500),
    (0.914, 0.407),
    (0.951, 0.309),
    (0.978, 0.208),
    (0.995, 0.105),
    (1.000, 0.030),
];
pub const PILLOW: Profile<'static> =
    &[(0.0, 0.93), (0.15, 0.98), (0.4, 1.0), (0.7, 0.98), (0.9, 0.93), (0.97, 0.86), (1.0, 0.78)];
pub const BLOCK: Profile<'static> = &[(0.0, 1.0), (0.9, 1.0), (1.0, 0.96)];

pub struct Scene {
    pub pixels: Pixmap,
    pub camera: Camera,
    pub light: Light,
    pub random: Random,
    clip: Option<Mask>,
}

impl Scene {
    pub fn new(width: u32, height: u32, camera: Camera, light: Light, random: Random) -> Self {
        let pixels = Pixmap::new(width, height).expect("pictures have a size");
        Self { pixels, camera, light, random, clip: None }
    }

    pub fn fill(&mut self, outline: &Path, spot: Spot, colour: Colour) {
        self.tint(outline, spot, colour, 1.0);
    }

    pub fn tint(&mut self, outline: &Path, spot: Spot, colour: Colour, opacity: f32) {
        self.paint(outline, spot, Shader::SolidColor(colour.with_opacity(opacity)));
    }

    /// `width` in the spot's own measure, with round ends.
    pub fn stroke(&mut self, line: &Path, spot: Spot, colour: Colour, width: f32) {
        self.soft_stroke(line, spot, colour, width, 1.0);
    }

    pub fn soft_stroke(&mut self, line: &Path, spot: Spot, colour: Colour, width: f32, opacity: f32) {
        let paint =
            Paint { shader: Shader::SolidColor(colour.with_opacity(opacity)), anti_alias: true, ..Paint::default() };
        let stroke = Stroke { width, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Stroke::default() };
        self.pixels.stroke_path(line, &paint, &stroke, self.camera.plane(spot), self.clip.as_ref());
    }

    /// Only what lies inside `outline` is drawn until [`Scene::unclip`].
    pub fn clip(&mut self, outline: &Path, spot: Spot) {
        let mut mask = Mask::new(self.pixels.width(), self.pixels.height()).expect("pictures have a size");
        mask.fill_path(outline, FillRule::EvenOdd, true, self.camera.plane(spot));
        self.clip = Some(mask);
    }

    pub fn unclip(&mut self) {
        self.clip = None;
    }

    /// What a surface receives whose outward normal leans `lean` towards the light's side; 1 is a level surface.
    fn brightness(&self, lean: f32, level: f32) -> f32 {
        let (sin, cos) = self.light.elevation.sin_cos();
        let direct = (lean * cos + level * sin).max(0.0) / sin;
        self.light.ambient + (1.0 - self.light.ambient) * direct.min(1.7)
    }

    /// A solid of the given height over `outline`. `reach` is the outline's radius, for the slope of its sides.
    pub fn solid(&mut self, outline: &Path, spot: Spot, profile: Profile, height: f32, colour: Colour) {
        let bounds = outline.bounds();
        let reach = 0.25 * (bounds.width() + bounds.height());
        let visible = height * spot.size * self.camera.scale * self.camera.lift();
        let steps = (visible.ceil() as usize).clamp(profile.len() * 2, 56);
        for step in 0..=steps {
            let (at, scale, normal) = slice(profile, step as f32 / steps as f32, height, reach);
            let lit = colour.lit(self.brightness(normal.0, normal.1));
            let shaded = colour.lit(self.brightness(-normal.0, normal.1));
            let place = spot.up(at).sized(scale);
            self.graded(outline, place, reach, lit, shaded);
        }
    }

    /// Filled from `lit` on the lamp's side to `shaded` on the other.
    pub fn graded(&mut self, outline: &Path, spot: Spot, reach: f32, lit: Colour, shaded: Colour) {
        let (sin, cos) = (self.light.angle - spot.turn).sin_cos();
        let stops = vec![
            GradientStop::new(0.0, shaded.with_opacity(1.0)),
            GradientStop::new(0.5, shaded.mix(lit, 0.5).with_opacity(1.0)),
            GradientStop::new(1.0, lit.with_opacity(1.0)),
        ];
        let shader = LinearGradient::new(
            Point::from_xy(-cos * reach, -sin * reach),
            Point::from_xy(cos * reach, sin * reach),
            stops,
            SpreadMode::Pad,
            Transform::identity(),
        );
        self.paint(outline, spot, shader.expect("a gradient has a length"));
    }

    /// A tube bent to a ring of radius `middle`, from the lower to the upper of two angles around the tube (in radians,
    /// 0 is its equator).
    pub fn tube(&mut self, spot: Spot, middle: f32, thickness: f32, angles: (f32, f32), colour: Colour) {
        let steps = 22;
        for step in 0..=steps {
            let around = angles.0 + (angles.1 - angles.0) * step as f32 / steps as f32;
            let (sin, cos) = around.sin_cos();
            let place = spot.up(thickness * (1.0 + sin));
            let bright = colour.lit(self.brightness(cos, sin));
            let dark = colour.lit(self.brightness(-cos, sin));
            let reach = middle + thickness;
            self.graded(&outline::ring(middle + thickness * cos, middle - 0.01), place, reach, bright, dark);
            self.graded(&outline::ring(middle + 0.01, middle - thickness * cos), place, reach, dark, bright);
        }
    }

    /// A cast shadow, soft because the lamp is large: `height` is the thing's own.
    pub fn shadow(&mut self, outline: &Path, spot: Spot, height: f32, strength: f32) {
        let copies = 7;
        let length = (height / self.light.elevation.tan()).min(1.2) * spot.size;
        for copy in 0..copies {
            let share = copy as f32 / (copies - 1) as f32;
            let (sin, cos) = self.light.angle.sin_cos();
            let place = Spot { x: spot.x - cos * length * share, y: spot.y - sin * length * share, ..spot };
            let place = place.sized(1.06 + 0.05 * height - 0.1 * share);
            self.tint(outline, place, BLACK, strength * (1.0 - self.light.ambient * 0.6) / copies as f32);
        }
    }

    /// A soft bright spot on the lamp's side of a glossy round thing.
    pub fn sheen(&mut self, spot: Spot, radius: f32, strength: f32) {
        let (sin, cos) = (self.light.angle - spot.turn).sin_cos();
        self.glow(spot.inside(cos * radius * 0.42, sin * radius * 0.42), radius * 0.5, WHITE, strength);
    }

    /// A round patch of colour that fades to its edge.
    pub fn glow(&mut self, spot: Spot, radius: f32, colour: Colour, strength: f32) {
        let stops = vec![
            GradientStop::new(0.0, colour.with_opacity(strength)),
            GradientStop::new(0.35, colour.with_opacity(strength * 0.75)),
            GradientStop::new(1.0, colour.with_opacity(0.0)),
        ];
        let origin = Point::from_xy(0.0, 0.0);
        let shader = RadialGradient::new(origin, origin, radius, stops, SpreadMode::Pad, Transform::identity());
        self.paint(&outline::disc(radius), spot, shader.expect("a glow has a radius"));
    }

    fn paint(&mut self, outline: &Path, spot: Spot, shader: Shader) {
        let paint = Paint { shader, anti_alias: true, ..Paint::default() };
        self.pixels.fill_path(outline, &paint, FillRule::EvenOdd, self.camera.plane(spot), self.clip.as_ref());
    }
}

/// Height, scale and outward normal (sideways, up) of a profile at `share` of its height.
fn slice(profile: Profile, share: f32, height: f32, reach: f32) -> (f32, f32, (f32, f32)) {
    let index = profile.windows(2).position(|pair| share <= pair[1].0).unwrap_or(profile.len() - 2);
    let ((low, wide), (high, narrow)) = (profile[index], profile[index + 1]);
    let along = ((share - low) / (high - low)).clamp(0.0, 1.0);
    let (rise, inward) = ((high - low) * height, (wide - narrow) * reach);
    let length = rise.hypot(inward).max(1e-6);
    let normal = if share >= 1.0 { (0.0, 1.0) } else { (rise / length, inward / length) };
    (share * height, wide + (narrow - wide) * along, normal)
}
