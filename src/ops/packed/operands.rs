//! What a product takes and where it is written, in f32 or bytes.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::matrix::{Line, PANEL};

/// The left factor: `images × groups × count` rows, counted in that order. The depth of a row lies in `segments` runs of
/// `segment_length` values, so that the windows of a convolution need no copy of their own.
#[derive(Clone, Copy)]
pub struct Rows<'a, T = f32> {
    pub elements: &'a [T],
    pub images: usize,
    pub image_stride: usize,
    pub groups: usize,
    pub group_stride: usize,
    pub count: usize,
    pub row_stride: usize,
    pub segments: usize,
    pub segment_stride: usize,
    pub segment_length: usize,
}

impl<'a, T> Rows<'a, T> {
    /// `count` rows of `depth` values, one after the other.
    pub fn dense(elements: &'a [T], count: usize, depth: usize) -> Self {
        Self {
            elements,
            images: 1,
            image_stride: 0,
            groups: 1,
            group_stride: 0,
            count,
            row_stride: depth,
            segments: 1,
            segment_stride: 0,
            segment_length: depth,
        }
    }

    pub fn depth(&self) -> usize {
        self.segments * self.segment_length
    }

    pub fn all(&self) -> usize {
        self.images * self.groups * self.count
    }

    /// One past the last element used.
    pub fn end(&self) -> usize {
        if self.all() * self.depth() == 0 {
            return 0;
        }
        (self.images - 1) * self.image_stride
            + (self.groups - 1) * self.group_stride
            + (self.count - 1) * self.row_stride
            + (self.segments - 1) * self.segment_stride
            + self.segment_length
    }
}

/// What the sums begin with.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    /// One value per column of the weight, in whole lines.
    Bias(&'a [Line]),
    /// What the result already holds.
    Result,
}

/// Where a product is written: rows `stride` apart. Its parts can be written by several threads.
pub struct Target<'a> {
    pub first: *mut f32,
    pub rows: usize,
    pub columns: usize,
    pub stride: usize,
    pub holds_values: bool,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: a target is an exclusive borrow of its own rows and columns.
unsafe impl Send for Target<'_> {}

impl<'a> Target<'a> {
    /// Rows of `columns` values, one after the other, in memory that holds nothing yet.
    pub fn new(space: &'a mut [MaybeUninit<f32>], columns: usize) -> Self {
        let rows = space.len() / columns.max(1);
        Self {
            first: space.as_mut_ptr().cast(),
            rows,
            columns,
            stride: columns,
            holds_values: false,
            slice: PhantomData,
        }
    }

    /// The same where values are held: the only target for [`Start::Result`].
    pub fn holding(values: &'a mut [f32], columns: usize) -> Self {
        let rows = values.len() / columns.max(1);
        Self { first: values.as_mut_ptr(), rows, columns, stride: columns, holds_values: true, slice: PhantomData }
    }

    /// Some of its columns, borrowed.
    pub fn columns(&mut self, columns: Range<usize>) -> Target<'_> {
        assert!(columns.start <= columns.end && columns.end <= self.columns, "columns of the target");
        // SAFETY: the first of the columns lies in the first row or one past it.
        let first = unsafe { self.first.add(columns.start) };
        Target { first, columns: columns.len(), slice: PhantomData, ..*self }
    }

    /// Some of its rows, borrowed.
    #[cfg(target_arch = "x86_64")]
    pub fn rows(&self, rows: Range<usize>) -> Target<'_> {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows of the target");
        let first = self.first.wrapping_add(rows.start * self.stride);
        Target { first, rows: rows.len(), slice: PhantomData, ..*self }
    }

    /// Some of its columns.
    pub fn into_columns(self, columns: Range<usize>) -> Self {
        self.split_at_column(columns.end).0.split_at_column(columns.start).1
    }

    /// The columns before and from `column` on.
    pub fn split_at_column(self, column: usize) -> (Self, Self) {
        let column = column.min(self.columns);
        // SAFETY: `column` lies in the first row or one past it.
        let first = unsafe { self.first.add(column) };
        (Self { columns: column, ..self }, Self { first, columns: self.columns - column, ..self })
    }

    /// Calls `activate` with some columns of each row, inside code that is compiled for this machine's vector instructions.
    ///
    /// # Safety
    /// These columns must hold values.
    #[inline(always)]
    pub unsafe fn activate(&self, columns: Range<usize>, activate: impl Fn(&mut [f32])) {
        for row in 0..self.rows {
            let first = row * self.stride + columns.start;
            // SAFETY: the caller's promise, and nothing else refers to what a target borrows.
            let values = unsafe { std::slice::from_raw_parts_mut(self.first.add(first), columns.len()) };
            if let Some(values) = values.first_chunk_mut::<{ 2 * PANEL }>() {
                // A length that is known while compiling leaves no loop and no remainder.
                activate(values);
            } else {
                activate(values);
            }
        }
    }
}
