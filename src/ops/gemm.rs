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
    #[cfg(target_os = "macos")]
    if accelerate::product(destination, row_stride, left, right, scale, adds) {
        return;
    }
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

/// The product by the system's own library, which alone knows the matrix unit of Apple's processors. Any thread may call it.
#[cfg(target_os = "macos")]
mod accelerate {
    use super::Matrix;

    const ROW_MAJOR: i32 = 101;
    const AS_IT_IS: i32 = 111;
    const TRANSPOSED: i32 = 112;

    #[link(name = "Accelerate", kind = "framework")]
    unsafe extern "C" {
        fn cblas_sgemm(
            order: i32,
            left_form: i32,
            right_form: i32,
            rows: i32,
            columns: i32,
            depth: i32,
            scale: f32,
            left: *const f32,
            left_stride: i32,
            right: *const f32,
            right_stride: i32,
            keep: f32,
            result: *mut f32,
            result_stride: i32,
        );
    }

    /// False where a matrix lies in memory as the library takes none, and nothing was computed. All that is read and
    /// written lies in its slice, as the caller has checked.
    pub fn product(result: &mut [f32], row_stride: usize, left: Matrix, right: Matrix, scale: f32, adds: bool) -> bool {
        let (Some((left_form, left_stride)), Some((right_form, right_stride))) = (form(&left), form(&right)) else {
            return false;
        };
        let lengths = [left.rows, right.columns, left.columns, row_stride].map(i32::try_from);
        let [Ok(rows), Ok(columns), Ok(depth), Ok(result_stride)] = lengths else { return false };
        // SAFETY: the caller's promise; the strides are those of the slices, and no shorter than a row.
        unsafe {
            cblas_sgemm(
                ROW_MAJOR,
                left_form,
                right_form,
                rows,
                columns,
                depth,
                scale,
                left.elements.as_ptr(),
                left_stride,
                right.elements.as_ptr(),
                right_stride,
                if adds { 1.0 } else { 0.0 },
                result.as_mut_ptr(),
                result_stride,
            );
        }
        true
    }

    /// How the library is to take a matrix, and the distance of its rows, or of its columns when it lies transposed.
    fn form(matrix: &Matrix) -> Option<(i32, i32)> {
        let Matrix { rows, columns, row_stride, column_stride, .. } = *matrix;
        let (form, stride) = match (row_stride, column_stride) {
            (stride, 1) if stride >= columns => (AS_IT_IS, stride),
            (1, stride) if stride >= rows => (TRANSPOSED, stride),
            _ => return None,
        };
        Some((form, i32::try_from(stride.max(1)).ok()?))
    }
}
