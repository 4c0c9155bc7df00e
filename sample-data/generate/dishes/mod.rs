//! The eight dishes. Each draws itself, with what it is served on, about a radius of 1 at the given spot.

mod burger;
mod doughnut;
mod fried_egg;
mod pancakes;
mod pizza;
mod salad;
mod soup;
mod sushi;

use super::scene::{Scene, Spot};

/// A kind of dish: its folder, how level the camera may look at it, and how it is drawn.
pub struct Dish {
    pub name: &'static str,
    /// The range of [`super::scene::Camera::squash`]: tall dishes are seen from lower.
    pub squash: (f32, f32),
    pub draw: fn(&mut Scene, Spot),
}

pub const DISHES: [Dish; 8] = [
    Dish { name: "burger", squash: (0.34, 0.66), draw: burger::draw },
    Dish { name: "doughnut", squash: (0.5, 0.99), draw: doughnut::draw },
    Dish { name: "fried_egg", squash: (0.5, 0.99), draw: fried_egg::draw },
    Dish { name: "pancakes", squash: (0.38, 0.75), draw: pancakes::draw },
    Dish { name: "pizza", squash: (0.5, 0.99), draw: pizza::draw },
    Dish { name: "salad", squash: (0.5, 0.99), draw: salad::draw },
    Dish { name: "soup", squash: (0.5, 0.99), draw: soup::draw },
    Dish { name: "sushi", squash: (0.42, 0.9), draw: sushi::draw },
];
