//! tapline streams databases into S3: dump, archive and upload overlap, and nothing is ever staged on disk.
//!
//! ```text
//!  child process            encode (all cores)                   upload (in-flight window)
//!  ┌──────────────┐ bytes  ┌──────────┐   ┌───────────────────┐  ┌───────────────┐
//!  │ pg_dump …    │ ─────▶ │ segments │ ─▶│ tar + gzip, in    │─▶│ parts → S3    │─▶ complete ─▶ manifest
//!  │ stdout       │  pipe  │ 4 MiB    │   │ parallel, ordered │  │ UploadPart    │
//!  └──────────────┘        └──────────┘   └───────────────────┘  └───────────────┘
//! ```
//!
//! # The promises
//!
//! - A backup exists if and only if its manifest does, and the manifest is put last: after the dump tool exited 0 (and
//!   wrote its end marker), after every part has a receipt, after the objects are complete.
//! - A job that fails or is interrupted leaves nothing in the store, and no earlier backup is touched.
//! - A job's memory is fixed before its first byte. Every arrow above is bounded: when S3 is slow, the tool waits on
//!   its pipe.
//! - No secret on a command line, in a log, a report, a manifest, an error, or a file on disk.
//! - The archive is an ordinary `.tar.gz` with one file in it, and needs no help from this program to be restored.
//!
//! # The rooms, in the order of the data path
//!
//! | room | what is in it |
//! |---|---|
//! | [`cli`] | what a person types and sees |
//! | [`config`] | the inventory, validated |
//! | [`plan`] | what a run will do: stores opened, secrets resolved, databases discovered, sizes fixed |
//! | [`run`] | many jobs: places, cancellation, the report |
//! | [`places`] | numbered places for jobs and workers |
//! | [`resources`] | what a run took from the machine |
//! | [`staged`] | the baseline: one job as dump → archive → upload, by pools of workers that hand over files |
//! | [`backup`] | one job: source → encode → upload → commit |
//! | [`restore`] | one backup back: fetch → decode → target; verifying is a restore to nowhere |
//! | [`upkeep`] | what takes away from a store |
//! | [`catalog`] | backup ids, object keys, the manifest, retention |
//! | [`engine`] | what differs per database |
//! | [`disk`] | what a disk holds and has left |
//! | [`format`](mod@format) | the archive's bytes |
//! | [`store`] | a bucket and prefix |
#![cfg_attr(feature = "demo", doc = "| [`s3_server`] | an S3 server in this process, for the demo and the tests |")]

pub mod backup;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod disk;
pub mod engine;
pub mod format;
pub mod places;
pub mod plan;
pub mod resources;
pub mod restore;
pub mod run;
#[cfg(feature = "demo")]
pub mod s3_server;
pub mod staged;
pub mod store;
pub mod upkeep;
