//! Colours as red, green and blue in 0–1, and the few things an illustrator does with them.

use super::random::Random;

#[derive(Debug, Clone, Copy)]
pub struct Colour {
    pub red: f32,
    pub green: f32,
    pub blue: f32,
}

pub const WHITE: Colour = Colour::hex(0xffffff);
pub const BLACK: Colour = Colour::hex(0x000000);

impl Colour {
    pub const fn hex(rgb: u32) -> Self {
        Self {
            red: ((rgb >> 16) & 255) as f32 / 255.0,
            green: ((rgb >> 8) & 255) as f32 / 255.0,
            blue: (rgb & 255) as f32 / 255.0,
        }
    }

    pub fn mix(self, other: Self, share: f32) -> Self {
        let blend = |from: f32, to: f32| from + (to - from) * share;
        Self {
            red: blend(self.red, other.red),
            green: blend(self.green, other.green),
            blue: blend(self.blue, other.blue),
        }
    }

    /// Under `light` 1 darker and warmer, above it paler: food in shade keeps its glow.
    pub fn lit(self, light: f32) -> Self {
        if light > 1.0 {
            return self.mix(WHITE, ((light - 1.0) * 0.5).min(0.6));
        }
        let light = light.max(0.0);
        Self { red: self.red * light.powf(0.85), green: self.green * light, blue: self.blue * light.powf(1.1) }
    }

    pub fn jitter(self, random: &mut Random, amount: f32) -> Self {
        let light = random.near(0.0, amount);
        let mut shift = |channel: f32| (channel + light + random.near(0.0, amount * 0.6)).clamp(0.0, 1.0);
        Self { red: shift(self.red), green: shift(self.green), blue: shift(self.blue) }
    }

    pub fn with_opacity(self, opacity: f32) -> tiny_skia::Color {
        let clamp = |value: f32| value.clamp(0.0, 1.0);
        tiny_skia::Color::from_rgba(clamp(self.red), clamp(self.green), clamp(self.blue), clamp(opacity))
            .expect("every channel was clamped to 0–1")
    }
}
