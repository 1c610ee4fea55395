//! tapline
#![cfg_attr(not(test), warn(missing_docs))]

pub mod backup;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod engine;
pub mod format;
pub mod run;
#[cfg(feature = "demo")]
pub mod s3_server;
pub mod store;
