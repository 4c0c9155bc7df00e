//! Opens any bytes as a checkpoint and reads every small weight: whatever they are, an answer comes back.
#![no_main]

use galley::checkpoint::Checkpoint;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(checkpoint) = Checkpoint::from_bytes("fuzzed", bytes.to_vec()) {
        for tensor in checkpoint.tensors().iter().filter(|tensor| tensor.elements() < 1 << 20) {
            let _ = checkpoint.read_f32(&tensor.name);
        }
    }
});
