//! Which instructions multiply bytes on this machine: found at run time, the same sums with all of them, as far as their
//! largest byte goes.

#[cfg(target_arch = "aarch64")]
mod arm;
#[cfg(target_arch = "x86_64")]
mod finish;
mod portable;
#[cfg(target_arch = "x86_64")]
mod store;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::kernel::Block;
use super::matrix::Form;
#[cfg(target_arch = "x86_64")]
use crate::ops::amx;
use crate::ops::packed::Rows;

/// Compiles the kernel for an instruction set: `$rows` (and `$block_rows` with scales per block) are the numbers of rows
/// whose sums fit the registers, of as many panels as [`Instructions::take_pairs`] says, the most first, down to 1.
macro_rules! compile_kernel {
    (
        $dot:ty, $(#[$features:meta])?, $vectors:literal, [$($rows:literal)*], [$($block_rows:literal)*]
    ) => {
        impl $dot {
            /// `count` rows times the panels.
            ///
            /// # Safety
            /// As for [`kernel::multiply`](crate::ops::quantized::kernel::multiply), with `count` rows; the machine must
            /// have the instructions, which the existence of `self` says.
            $(#[$features])?
            pub unsafe fn multiply<const PANELS: usize>(
                self,
                form: $crate::ops::quantized::matrix::Form,
                block: &$crate::ops::quantized::kernel::Block<PANELS>,
                count: usize,
            ) {
                use $crate::ops::quantized::matrix::Form;
                let (mut left, mut block) = (count, *block);
                while left > 0 {
                    // SAFETY: the caller's promise; at most the rows that are left are asked for.
                    unsafe {
                        let done = match form {
                            Form::Columns => 'done: {
                                $(if left >= $rows {
                                    self.columns::<$rows, PANELS>(&block);
                                    break 'done $rows;
                                })*
                                unreachable!("one row fits")
                            }
                            Form::Blocks => 'done: {
                                $(if left >= $block_rows {
                                    self.blocks::<$block_rows, PANELS, false>(&block);
                                    break 'done $block_rows;
                                })*
                                unreachable!("one row fits")
                            }
                            Form::HalfBlocks => 'done: {
                                $(if left >= $block_rows {
                                    self.blocks::<$block_rows, PANELS, true>(&block);
                                    break 'done $block_rows;
                                })*
                                unreachable!("one row fits")
                            }
                        };
                        left -= done;
                        if left > 0 {
                            block = block.below(done);
                        }
                    }
                }
            }

            /// Compiled on its own so that its sums get all registers.
            $(#[$features])?
            #[inline(never)]
            unsafe fn columns<const ROWS: usize, const PANELS: usize>(
                self,
                block: &$crate::ops::quantized::kernel::Block<PANELS>,
            ) {
                // SAFETY: the caller's promise is passed on.
                unsafe { $crate::ops::quantized::kernel::multiply::<Self, ROWS, PANELS, $vectors>(self, block) }
            }

            $(#[$features])?
            #[inline(never)]
            unsafe fn blocks<const ROWS: usize, const PANELS: usize, const HALVES: bool>(
                self,
                block: &$crate::ops::quantized::kernel::Block<PANELS>,
            ) {
                // SAFETY: the caller's promise is passed on.
                unsafe {
                    $crate::ops::quantized::kernel::multiply_blocks::<Self, ROWS, PANELS, $vectors, HALVES>(self, block);
                }
            }
        }
    };
}
use compile_kernel;

/// The kernel of one instruction set, which this machine has.
#[derive(Debug, Clone, Copy)]
pub enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Amx(tiles::TileProduct),
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Avx512Vnni),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(x86::AvxVnni),
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    #[cfg(target_arch = "aarch64")]
    Tiles(arm::TileProduct),
    #[cfg(target_arch = "aarch64")]
    Neon(arm::DotProduct),
    Portable(portable::Portable),
}

impl Instructions {
    /// All that this machine has, the fastest first.
    pub fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let special = {
            let (tiles, avx512) = (tiles::TileProduct::new().map(Self::Amx), x86::Avx512Vnni::new().map(Self::Avx512));
            let (vnni, avx2) = (x86::AvxVnni::new().map(Self::AvxVnni), x86::Avx2::new().map(Self::Avx2));
            tiles.into_iter().chain(avx512).chain(vnni).chain(avx2)
        };
        #[cfg(target_arch = "aarch64")]
        let special = {
            let tiles = arm::TileProduct::new().map(Self::Tiles);
            tiles.into_iter().chain(arm::DotProduct::new().map(Self::Neon))
        };
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let special = std::iter::empty();
        special.chain([Self::Portable(portable::Portable)])
    }

    pub fn best() -> Self {
        Self::all().next().expect("the portable kernel runs everywhere")
    }

    /// The largest byte of a row for which products with any weights are exact.
    pub fn largest_byte(self) -> u8 {
        match self {
            // It adds two products in 16 bits. Those of 128 with -128 just fit, and rounding may reach one more than this.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => 127,
            _ => 255,
        }
    }

    /// Whether it adds products in 16 bits where these suffice.
    pub fn adds_narrow(self) -> bool {
        self.largest_byte() < 255
    }

    /// Whether the registers have room for several rows of two panels: else one panel at a time lets more rows share it.
    pub fn take_pairs(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) | Self::Avx512(_) => true,
            _ => false,
        }
    }

    /// Prepares this thread for the kernel, for as long as the result lives.
    pub fn configure(self) -> impl Sized {
        #[cfg(target_arch = "x86_64")]
        if let Self::Amx(_) = self { amx::Tiles::configure() } else { None }
    }

    /// All rows times the panels of a block, which begins with the first of them.
    ///
    /// # Safety
    /// As for [`super::kernel::multiply`], with these rows, on a thread that is configured.
    pub unsafe fn multiply<const PANELS: usize>(self, form: Form, block: &Block<PANELS>, rows: &Rows<u8>) {
        // SAFETY: the caller's promise is passed on.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            if let (Self::Amx(kernel), Form::Columns) = (self, form) {
                return kernel.multiply(block, rows);
            }
            for index in 0..rows.images * rows.groups {
                let first = index / rows.groups * rows.image_stride + index % rows.groups * rows.group_stride;
                let group = Block { rows: block.rows.add(first), ..block.below(index * rows.count) };
                self.multiply_group(form, &group, rows.count);
            }
        }
    }

    /// The same with `count` rows, one row stride apart.
    ///
    /// # Safety
    /// As for [`Instructions::multiply`].
    unsafe fn multiply_group<const PANELS: usize>(self, form: Form, block: &Block<PANELS>, count: usize) {
        // SAFETY: the caller's promise is passed on; a kernel exists only where its instructions do.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Amx(kernel) => kernel.without_tiles().multiply(form, block, count),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512(kernel) => kernel.multiply(form, block, count),
                #[cfg(target_arch = "x86_64")]
                Self::AvxVnni(kernel) => kernel.multiply(form, block, count),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2(kernel) => kernel.multiply(form, block, count),
                #[cfg(target_arch = "aarch64")]
                Self::Tiles(kernel) => kernel.multiply(form, block, count),
                #[cfg(target_arch = "aarch64")]
                Self::Neon(kernel) => kernel.multiply(form, block, count),
                Self::Portable(kernel) => kernel.multiply(form, block, count),
            }
        }
    }
}
