//! The matrix unit of Intel's servers (AMX): eight tile registers of sixteen rows of 64 bytes, and instructions that multiply
//! two of them and add to a third.
//!
//! The compiler knows nothing of these registers, so each kernel is one piece of assembly from its first load to its last
//! store; see Intel's Architectures Software Developer's Manual, volume 1, chapter 18.

use std::arch::asm;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Rows of a tile, and columns of 32 bits.
pub const SIDE: usize = 16;
/// Bytes of a tile's row.
pub const ROW_BYTES: usize = 64;

/// Whether this processor has tiles of bytes and of bf16, and the system lets this process use them.
pub fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && system_allows())
}

fn has_instructions() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    // AMX-BF16, AMX-TILE and AMX-INT8 in leaf 7; the kernels around them are of AVX-512.
    const TILES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    let has_avx512 = pulp::x86::V4::try_new().is_some() && std::arch::is_x86_feature_detected!("avx512vnni");
    has_avx512 && __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & TILES == TILES
}

/// Asks Linux for the state of the tiles, which a process gets on demand only; the answer holds for all of its threads.
#[cfg(target_os = "linux")]
fn system_allows() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const TILE_DATA: libc::c_ulong = 18;
    // SAFETY: asks for a permission, and changes no memory of this process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn system_allows() -> bool {
    false
}

/// The shapes of the tile registers, as LDTILECFG reads them.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All eight registers at full size, on this thread, for as long as it lives.
pub struct Tiles(PhantomData<*const ()>);

impl Tiles {
    /// `None` where there are no tiles.
    pub fn configure() -> Option<Self> {
        if !is_available() {
            return None;
        }
        let mut configuration =
            Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        configuration.row_bytes[..8].fill(ROW_BYTES as u16);
        configuration.rows[..8].fill(SIDE as u8);
        // SAFETY: the machine has the instruction, and the configuration is one of palette 1.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &configuration, options(nostack, readonly, preserves_flags)) };
        Some(Self(PhantomData))
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the machine has the instruction: `self` exists. Without this the system would save the tiles with every
        // switch to another thread.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}
