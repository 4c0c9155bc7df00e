//! Where a product goes. It leaves the kernel as bytes where the code of its rows is known before its values are.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::activations::{Code, Coder};
use super::kernel::{CodedPlace, Passed};
use super::product::{CodedRows, Product, Residual};
use crate::ops::packed::Target;
use crate::ops::{scratch, vectorized};

/// Where a product goes.
pub enum Output<'a> {
    Floats(Target<'a>),
    Coded(CodedTarget<'a>),
}

impl<'a> From<Target<'a>> for Output<'a> {
    fn from(target: Target<'a>) -> Self {
        Self::Floats(target)
    }
}

impl<'a> From<CodedTarget<'a>> for Output<'a> {
    fn from(target: CodedTarget<'a>) -> Self {
        Self::Coded(target)
    }
}

impl Output<'_> {
    pub fn rows(&self) -> usize {
        match self {
            Self::Floats(target) => target.rows,
            Self::Coded(target) => target.rows,
        }
    }

    pub fn columns(&self) -> usize {
        match self {
            Self::Floats(target) => target.columns,
            Self::Coded(target) => target.columns,
        }
    }

    pub fn stride(&self) -> usize {
        match self {
            Self::Floats(target) => target.stride,
            Self::Coded(target) => target.columns,
        }
    }
}

/// Rows of bytes, one after the other, all coded alike, with or without what is beyond the bytes.
pub struct CodedTarget<'a> {
    pub rows: usize,
    pub columns: usize,
    coder: Coder,
    bytes: *mut u8,
    rests: Option<*mut u8>,
    /// Codes of rows in 16 bits that lie there already, and are added.
    held: Option<&'a [Code]>,
    slices: PhantomData<&'a mut [MaybeUninit<u8>]>,
}

impl<'a> CodedTarget<'a> {
    /// Rows of `columns` bytes.
    pub fn bytes(space: &'a mut [u8], columns: usize, coder: Coder) -> Self {
        let rows = space.len() / columns.max(1);
        Self { rows, columns, coder, bytes: space.as_mut_ptr(), rests: None, held: None, slices: PhantomData }
    }

    /// Rows in 16 bits; those that are `held` there, if any, are added to them.
    ///
    /// # Safety
    /// With codes of rows that are held, all of both slices must hold values.
    pub unsafe fn finely(
        bytes: &'a mut [MaybeUninit<u8>],
        rests: &'a mut [MaybeUninit<u8>],
        columns: usize,
        coder: Coder,
        held: Option<&'a [Code]>,
    ) -> Self {
        let rows = bytes.len() / columns.max(1);
        assert!(rests.len() == bytes.len(), "two bytes for each value");
        assert!(held.is_none_or(|codes| codes.len() == rows), "a code per row");
        let (bytes, rests) = (bytes.as_mut_ptr().cast(), Some(rests.as_mut_ptr().cast()));
        Self { rows, columns, coder, bytes, rests, held, slices: PhantomData }
    }

    /// What the kernel writes from `column` on, and what it adds, which lies in the same place.
    pub fn place(&self, column: usize) -> (CodedPlace, Option<Passed>) {
        let from = |bytes: *mut u8| bytes.wrapping_add(column);
        let place = CodedPlace { bytes: from(self.bytes), rests: self.rests.map(from), coder: self.coder };
        let passed = self.held.zip(place.rests).map(|(codes, rests)| Passed {
            bytes: place.bytes.cast_const(),
            rests: rests.cast_const(),
            codes: codes.as_ptr(),
        });
        (place, passed)
    }

    /// Whether its code begins where a ReLU does.
    pub fn begins_with_zero(&self) -> bool {
        self.coder.begins_with_zero()
    }

    /// What is added to the product.
    fn held(&self) -> Residual<'_> {
        let Some((codes, rests)) = self.held.zip(self.rests) else { return Residual::None };
        let length = self.rows * self.columns;
        // SAFETY: these are the slices that it was made of, which hold rows.
        let slice = |bytes: *mut u8| unsafe { std::slice::from_raw_parts(bytes.cast_const(), length) };
        Residual::Coded(CodedRows { bytes: slice(self.bytes), rests: slice(rests), codes })
    }

    /// Codes values as a product is coded that is written here: just as the kernel does, also those far out of range.
    fn encode(self, values: &[f32]) {
        let length = self.rows * self.columns;
        assert_eq!(values.len(), length, "values of all rows");
        // SAFETY: these are the slices that it was made of.
        let slice = |bytes: *mut u8| unsafe { std::slice::from_raw_parts_mut(bytes.cast::<MaybeUninit<u8>>(), length) };
        vectorized(
            #[inline(always)]
            || match self.rests {
                None => self.coder.encode(values, slice(self.bytes)),
                Some(rests) => self.coder.encode_finely(values, slice(self.bytes), slice(rests)),
            },
        );
    }
}

impl Product<'_> {
    /// Computes every row of `target`, with what that holds in place of a residual; the activation is a ReLU.
    ///
    /// With `is_shared` on all threads.
    pub fn write_coded(&self, target: CodedTarget, is_shared: bool) {
        assert!(target.held.is_none() || matches!(self.residual, Residual::None), "one thing is added");
        if !is_shared {
            return self.write_to(target.into());
        }
        scratch::with_shared(target.rows * target.columns, true, |values| {
            let mut product: Product = self.clone();
            if target.held.is_some() {
                product.residual = target.held();
            }
            product.write_shared(Target::holding(values, target.columns));
            target.encode(values);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::packed::{Rows, Start, lines};
    use crate::ops::quantized::QuantizedMatrix;
    use crate::ops::quantized::instructions::Instructions;
    use crate::ops::quantized::row_bytes::SLACK;
    use crate::ops::quantized::testing::{Fine, floats, row_bytes};
    use crate::ops::{Activation, written};

    /// Bytes that leave the kernel are those of the floats that would.
    #[test]
    fn coded_products_are_coded_values_with_every_instruction_set() {
        let (rows, depth) = (17, 8);
        for columns in [16, 37, 64] {
            let weights = floats(depth * columns, 1);
            let weight = QuantizedMatrix::new([1, depth], columns, |row, column| weights[row * columns + column]);
            // Some values are out of range, and some so far that no integer of 32 bits is their place.
            let mut bias = floats(columns, 3);
            (bias[1], bias[2]) = (1e10, 1e30);
            let (bias, residual) = (lines(&bias), floats(rows * columns, 4));
            let held = Fine::new(&residual, columns);
            let coder = Coder::up_to(1.0);
            for instructions in Instructions::all() {
                let bytes = row_bytes(rows * depth + SLACK, instructions);
                let codes = [Code { scale: 0.01, offset: -1.0 }; 17];
                let whole = Product::whole(Rows::dense(&bytes, rows, depth), &codes, &weight, Start::Bias(&bias));
                let product = |residual| Product { residual, activation: Activation::Relu, ..whole.clone() };
                for added in [Residual::None, Residual::Floats(&residual), Residual::Coded(held.rows())] {
                    let mut values = vec![0.0; rows * columns];
                    product(added).write_with(Target::holding(&mut values, columns).into(), instructions);
                    assert!(values.iter().any(|value| *value > 1.1));
                    let [mut plain, mut fine, mut rests] = [(); 3].map(|()| vec![7; rows * columns]);
                    coder.encode(&values, &mut plain);
                    coder.encode_finely(&values, &mut fine, &mut rests);
                    let mut ours = vec![7; rows * columns];
                    let target = CodedTarget::bytes(&mut ours, columns, coder);
                    product(added).write_with(target.into(), instructions);
                    assert!(ours == plain, "{instructions:?}");
                    // With the best instructions, whose bytes these may not be.
                    if instructions.largest_byte() == Instructions::best().largest_byte() {
                        let mut shared = vec![7; rows * columns];
                        product(added).write_coded(CodedTarget::bytes(&mut shared, columns, coder), true);
                        assert!(shared == plain, "on all threads");
                    }
                    let [mut ours, mut our_rests] = match added {
                        Residual::Coded(held) => [held.bytes, held.rests].map(<[u8]>::to_vec),
                        _ => [(); 2].map(|()| vec![7; rows * columns]),
                    }
                    .map(|bytes| bytes.into_iter().map(MaybeUninit::new).collect::<Vec<_>>());
                    // What is added may lie where the result goes.
                    let (added, in_place) = match added {
                        Residual::Coded(held) => (Residual::None, Some(held.codes)),
                        _ => (added, None),
                    };
                    // SAFETY: all hold values.
                    let target = unsafe { CodedTarget::finely(&mut ours, &mut our_rests, columns, coder, in_place) };
                    product(added).write_with(target.into(), instructions);
                    // SAFETY: all have been written from the beginning.
                    let ours = [ours, our_rests].map(|bytes| unsafe { written(bytes) });
                    assert!(ours == [fine, rests], "{instructions:?}");
                }
            }
        }
    }
}
