//! The archive's bytes: tar header, gzip and zstd framing. Synchronous and pure, no I/O.

mod codec;
mod digest;
mod entry_name;
mod pool;
mod tar;

use serde::{Deserialize, Serialize};

pub use codec::Encoded;
pub use digest::Hash;
pub use entry_name::EntryName;
pub use pool::{Cores, Inlet, Outlet, Room, encoder};
pub use tar::{BLOCK, END_LEN, HEADER_LEN, MAX_NAME, TarHeader, hex, padding};

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// One gzip member: `.tar.gz`.
    Gzip,
    /// Zstandard frames: `.tar.zst`.
    Zstd,
    /// Plain `.tar`.
    None,
}

impl Compression {
    /// As the inventory and the manifest name it.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::None => "none",
        }
    }

    /// The archive's file name extension, without the leading dot.
    pub fn extension(self) -> &'static str {
        match self {
            Compression::Gzip => "tar.gz",
            Compression::Zstd => "tar.zst",
            Compression::None => "tar",
        }
    }

    /// The levels that may be asked for, and the one taken when none is.
    pub fn levels(self) -> (std::ops::RangeInclusive<i32>, i32) {
        match self {
            Compression::Gzip => (1..=9, 6),
            Compression::Zstd => (1..=19, 3),
            Compression::None => (0..=0, 0),
        }
    }
}
