//! The operations networks are made of, in NHWC, f32.
