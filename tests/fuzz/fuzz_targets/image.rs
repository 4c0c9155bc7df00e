//! Decodes any bytes as a photo, in full and reduced, and makes network input of the small ones: whatever they are, a
//! picture of the stated size or an error comes back, in no more memory than allowed. A decoder of another crate that panics costs one photo, which
//! `galley::images` promises, so those panics are printed and only panics of our own end the run.
#![no_main]

use std::panic;
use std::process;

use galley::images::transform::Transform;
use galley::images::{ImageBudget, Limits, decode_bytes};
use galley::memory::heap;

const LIMITS: Limits =
    Limits { max_file_bytes: 1 << 20, max_pixels: 4_000_000, max_side: 65_535, max_decode_bytes: 64_000_000 };

/// Pictures up to this many pixels go through the transform.
const SMALL: usize = 1 << 16;

libfuzzer_sys::fuzz_target!(
    init: panic::set_hook(Box::new(|panicked| {
        eprintln!("{panicked}");
        if !panicked.location().is_some_and(|place| place.file().contains("/registry/")) {
            process::abort();
        }
    })),
    |bytes: &[u8]| {
        let budget = ImageBudget::new(LIMITS.max_decode_bytes);
        for short_side in [None, Some(32)] {
            let before = heap::live();
            heap::reset_peak();
            let decoded = decode_bytes(bytes, short_side, &LIMITS, &budget);
            let taken = heap::peak().saturating_sub(before);
            assert!(taken <= LIMITS.max_decode_bytes, "{taken} bytes of heap");
            let Ok(picture) = decoded else { continue };
            let pixels = picture.width as usize * picture.height as usize;
            assert_eq!(picture.rgb.len(), pixels * 3);
            let transform = Transform::default();
            if pixels <= SMALL {
                let (height, width) = transform.size_for(&picture);
                assert_eq!(transform.apply(&picture).len(), height * width * 3);
            }
        }
        assert_eq!(budget.used_bytes(), 0);
    }
);
