//! What a Metal kernel is told besides its buffers: the Rust side of the structs in `kernels.metal`.

use std::mem::{offset_of, size_of};

use crate::ops::Activation;
use crate::ops::window::Geometry;

/// A field that is one 32-bit word on both sides.
trait Word {
    fn word(self) -> u32;
}

impl Word for u32 {
    fn word(self) -> u32 {
        self
    }
}

impl Word for f32 {
    fn word(self) -> u32 {
        self.to_bits()
    }
}

/// The layout of a parameter struct, for comparison with the other side's.
pub struct Layout {
    pub name: &'static str,
    pub size: usize,
    /// Name and offset in bytes.
    pub fields: &'static [(&'static str, usize)],
}

macro_rules! parameters {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Default)]
        pub struct $name { $(pub $field: $kind),* }

        impl $name {
            pub const LAYOUT: Layout = Layout {
                name: stringify!($name),
                size: size_of::<Self>(),
                fields: &[$((stringify!($field), offset_of!(Self, $field))),*],
            };
        }

        impl From<$name> for Vec<u32> {
            fn from(parameters: $name) -> Self {
                vec![$(Word::word(parameters.$field)),*]
            }
        }
    };
}

parameters! {
    /// A window that slides over images; a launch covers output rows from `first_row` on.
    Windows {
        batch: u32,
        height: u32,
        width: u32,
        channels: u32,
        side: u32,
        stride: u32,
        top: u32,
        left: u32,
        out_height: u32,
        out_width: u32,
        first_row: u32,
        rows: u32,
        slices: u32,
        activation: u32,
    }
}

parameters! {
    /// A matrix of rows. Sums along a row are split over lanes, sums along a column over slices.
    Rows {
        rows: u32,
        columns: u32,
        lanes: u32,
        slices: u32,
        activation: u32,
        has_residual: u32,
        epsilon: f32,
    }
}

parameters! {
    /// What an optimizer's step does to one variable of `length` elements; each kernel reads what it needs.
    Update {
        length: u32,
        keep: f32,
        share: f32,
        first: f32,
        second: f32,
        decayed: f32,
        rate: f32,
        root: f32,
        epsilon: f32,
    }
}

impl Windows {
    /// All output rows of a window over images whose lengths `Program` has found to fit 32 bits.
    pub fn over(geometry: &Geometry) -> Self {
        Self {
            batch: geometry.batch as u32,
            height: geometry.height as u32,
            width: geometry.width as u32,
            channels: geometry.channels as u32,
            side: geometry.window.kernel as u32,
            stride: geometry.window.stride as u32,
            top: geometry.top as u32,
            left: geometry.left as u32,
            out_height: geometry.out_height as u32,
            out_width: geometry.out_width as u32,
            first_row: 0,
            rows: (geometry.batch * geometry.out_height) as u32,
            slices: 1,
            activation: Activation::None as u32,
        }
    }
}

impl Rows {
    pub fn new(rows: usize, columns: usize) -> Self {
        Self { rows: rows as u32, columns: columns as u32, lanes: 1, slices: 1, ..Self::default() }
    }
}
