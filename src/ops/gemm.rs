//! Matrix products on slices, and the row-tiled driver that convolution and linear layers share.

use gemm::Parallelism;
use rayon::prelude::*;

use super::Activation;
use super::backward::add;

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

/// What happens to a product before it leaves the cache: `activation(product + bias + residual)`.
pub struct Epilogue<'a> {
    /// One value per column.
    pub bias: &'a [f32],
    /// As long as the whole result.
    pub residual: Option<&'a [f32]>,
    pub activation: Activation,
}

impl Epilogue<'_> {
    /// Finishes `rows`, which begin at `offset` in the whole result.
    pub fn finish(&self, rows: &mut [f32], offset: usize) {
        let columns = self.bias.len();
        vectorized!(|| {
            for (index, row) in rows.chunks_exact_mut(columns).enumerate() {
                add(row, self.bias);
                if let Some(residual) = self.residual {
                    add(row, &residual[offset + index * columns..][..columns]);
                }
            }
        });
        self.activation.apply(rows);
    }
}

/// More rows per tile would push the result out of the cache before its epilogue.
const MAX_TILE_ROWS: usize = 256;

/// Computes `rows × columns` results in tiles of rows, tiles in parallel.
///
/// `product(tile, first_row, count)` fills a tile; at most `max_rows` rows are asked for at once.
pub fn tiled(
    rows: usize,
    max_rows: usize,
    epilogue: &Epilogue,
    product: impl Fn(&mut [f32], usize, usize) + Sync,
) -> Vec<f32> {
    let columns = epilogue.bias.len();
    let mut result = vec![0.0; rows * columns];
    let share = rows.div_ceil(rayon::current_num_threads());
    let tile_rows = share.min(max_rows).clamp(1, MAX_TILE_ROWS);
    result.par_chunks_mut((tile_rows * columns).max(1)).enumerate().for_each(|(index, tile)| {
        let first_row = index * tile_rows;
        product(tile, first_row, tile.len() / columns);
        epilogue.finish(tile, first_row * columns);
    });
    result
}
