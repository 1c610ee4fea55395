//! What benches measure with: a source that is made up.

pub mod synthetic;
