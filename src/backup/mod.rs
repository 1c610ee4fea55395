//! The write path of one job.

pub mod meter;
