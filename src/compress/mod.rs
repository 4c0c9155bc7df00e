//! Makes networks smaller, as files that all other parts open.

pub mod prune;
