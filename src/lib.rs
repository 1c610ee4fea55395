//! tapline streams databases into S3: dump, archive and upload overlap, and nothing is ever staged
//! on disk.
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
//! - A backup exists if and only if its manifest does, and the manifest is put last: after the dump
//!   tool exited 0 (and wrote its end marker), after every part has a receipt, after the objects
//!   are complete.
//! - A job that fails or is interrupted leaves nothing in the store, and no earlier backup is
//!   touched.
//! - A job's memory is fixed before its first byte. Every arrow above is bounded: when S3 is slow,
//!   the tool waits on its pipe.
//! - No secret on a command line, in a log, a report, a manifest, an error, or a file on disk.
//! - The archive is an ordinary `.tar.gz` with one file in it, or with several that joined are one
//!   script, and needs no help from this program to be restored.
//!
//! # The rooms, in the order in which they use each other
//!
//! | room | what is in it |
//! |---|---|
//! | [`cli`] | what a person types and sees: words and pictures only |
//! | [`serve`] | a service with a clock: what is due is done |
//! | [`run`] | many jobs: plan, places, signals, the report |
//! | [`notify`] | how a run went, told to services, webhooks and commands |
//! | [`hooks`] | commands of one's own before and after |
//! | [`upkeep`] | what looks after the backups that are there: verify, prune, cleanup, check |
//! | [`staged`] | the baseline: one job as dump → archive → upload, by pools of workers |
//! | [`job`] | one job: Planned → Dumping → Sealed → Committed, and erasing |
//! | [`restore`] | one backup back: fetch → decode → target; verifying is a restore to nowhere |
//! | [`deposit`] | the archive's parts on their way: window, receipts, volumes |
//! | [`cipher`] | an archive that only the owner of a key reads: the layer between encode and part |
//! | [`archive`] | the archive's bytes: tar, codecs, and the workers that compress |
//! | [`access`] | stores opened, secrets resolved |
//! | [`engine`] | what differs per database: its clients, whom they connect to, with which password |
//! | [`dump`] | processes: a tool, its child, the dump that it writes, the proof that it is whole |
//! | [`config`] | the inventory, validated |
//! | [`catalog`] | backup ids, object keys, the manifest, retention |
//! | [`signature`] | who has written a manifest |
//! | [`store`] | a bucket and prefix, or a folder; and the patience with it |
//! | [`scratch`] | files that live for a run |
//! | [`charts`], [`bench`](mod@bench), [`meter`], [`units`] | pictures of a run, made-up sources, counters, words for numbers |
//! | [`core_dump`] | none of a process that holds a key |
#![cfg_attr(
    feature = "demo",
    doc = "| [`s3_server`] | an S3 server in this process, for the demo and the tests |"
)]

pub mod access;
pub mod archive;
pub mod bench;
pub mod catalog;
pub mod charts;
pub mod cipher;
pub mod cli;
pub mod config;
pub mod core_dump;
pub mod deposit;
pub mod dump;
pub mod engine;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod hooks;
pub mod job;
pub mod meter;
pub mod notify;
pub mod restore;
pub mod run;
#[cfg(feature = "demo")]
pub mod s3_server;
pub mod scratch;
pub mod serve;
pub mod signature;
pub mod staged;
pub mod store;
pub mod units;
pub mod upkeep;
