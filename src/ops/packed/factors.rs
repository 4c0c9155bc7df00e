//! The factors of a product as matrix units take them.

use std::ops::Range;

use super::matrix::PackedMatrix;
use super::operands::{Rows, Start, Target};
use super::product::Product;
use crate::ops::Activation;

impl Rows<'_> {
    /// The element that a row begins with.
    pub fn first_element(&self, row: usize) -> usize {
        let (image, group) = (row / self.count / self.groups, row / self.count % self.groups);
        image * self.image_stride + group * self.group_stride + row % self.count * self.row_stride
    }

    /// Writes a part of a row's depth in one piece.
    pub fn gather(&self, row: usize, depth: &Range<usize>, space: &mut [f32]) {
        let start = self.first_element(row);
        let mut place = depth.start;
        while place < depth.end {
            let (segment, offset) = (place / self.segment_length, place % self.segment_length);
            let length = (self.segment_length - offset).min(depth.end - place);
            let values = &self.elements[start + segment * self.segment_stride + offset..][..length];
            space[place - depth.start..][..length].copy_from_slice(values);
            place += length;
        }
    }
}

/// A left factor that is the transpose of rows `stride` apart.
pub struct Turned<'a> {
    pub elements: &'a [f32],
    pub stride: usize,
}

/// What a product is made of besides its left factor.
pub struct Right<'a> {
    pub weight: &'a PackedMatrix,
    pub depth: Range<usize>,
    pub panels: Range<usize>,
    /// With none, sums begin at zero, and the target may hold anything.
    pub start: Option<Start<'a>>,
    pub residual: Option<&'a [f32]>,
    pub activation: Activation,
}

impl<'a> Right<'a> {
    pub fn of(product: &'a Product) -> Self {
        let Product { weight, start, residual, activation, .. } = *product;
        let (depth, panels) = (product.depth.clone(), product.panels.clone());
        Self { weight, depth, panels, start: Some(start), residual, activation }
    }

    /// All of a weight, whose products are added to what the target holds, if it does.
    pub fn whole(weight: &'a PackedMatrix, target: &Target) -> Self {
        Self {
            weight,
            depth: 0..weight.depth(),
            panels: 0..weight.panels(),
            start: target.holds_values.then_some(Start::Result),
            residual: None,
            activation: Activation::None,
        }
    }
}
