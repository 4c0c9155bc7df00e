//! Matrix products on slices of any stride.

use gemm::Parallelism;

/// A matrix inside a slice: element `(r, c)` lies at `r * row_stride + c * column_stride`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub elements: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a> Matrix<'a> {
    pub fn row_major(elements: &'a [f32], rows: usize, columns: usize) -> Self {
        Self { elements, rows, columns, row_stride: columns, column_stride: 1 }
    }

    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// One past the last element used.
    fn end(&self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

/// `destination = scale · left · right`, on the calling thread. Rows of `destination` are `row_stride` apart.
pub fn multiply(destination: &mut [f32], row_stride: usize, left: Matrix, right: Matrix, scale: f32) {
    product(destination, row_stride, left, right, scale, false);
}

/// `destination += left · right`, on the calling thread. Rows of `destination` are `row_stride` apart.
pub fn accumulate(destination: &mut [f32], row_stride: usize, left: Matrix, right: Matrix) {
    product(destination, row_stride, left, right, 1.0, true);
}

fn product(destination: &mut [f32], row_stride: usize, left: Matrix, right: Matrix, scale: f32, adds: bool) {
    let (rows, columns, depth) = (left.rows, right.columns, left.columns);
    assert_eq!(depth, right.rows, "inner lengths of a matrix product");
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(row_stride >= columns && (rows - 1) * row_stride + columns <= destination.len(), "product fits its slice");
    assert!(left.end() <= left.elements.len() && right.end() <= right.elements.len(), "factors lie in their slices");
    // SAFETY: the asserts above keep every element that is read or written inside its slice, and the borrow of
    // `destination` is exclusive.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            destination.as_mut_ptr(),
            1,
            row_stride as isize,
            adds,
            left.elements.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.elements.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            if adds { 1.0 } else { 0.0 },
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
