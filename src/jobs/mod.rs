//! What the program can do, each as a plain function plus a context, and as a job on its own thread.

pub mod bench;
pub mod brought;
pub mod classify;
pub mod doctor;
pub mod export;
pub mod inspect;
pub mod thumbnails;
