//! The archive's bytes, made on all cores.
//!
//! | file | what is in it |
//! |---|---|
//! | [`tar`] | the header, its padding |
//! | [`frame`] | what gzip and zstd put before and behind the segments |
//! | [`codec`] | the compressors |
//! | `isal` | a fast one, in builds with the feature of that name |
//! | [`cores`] | the threads that work |
//! | [`encoder`](mod@encoder) | segments through the cores, in order |
//! | [`entry`] | a file whose size is known before its first byte is given away |
//! | [`entry_name`] | what a file in an archive may be called |
//! | [`piece`] | what comes out of it, with checksums |

mod codec;
mod cores;
mod encoder;
mod entry;
mod entry_name;
mod frame;
#[cfg(feature = "isal")]
mod isal;
mod piece;
mod tar;

use serde::{Deserialize, Serialize};

pub use codec::{Codec, LOOK_BACK};
pub use cores::{Cores, Lane};
pub use encoder::{Encoding, Inlet, Outlet, PieceRoom, Room, Rooms, encoder};
pub use entry::Desk;
pub use entry_name::EntryName;
pub use frame::Content;
pub use piece::{Checksums, Piece};
pub use tar::{BLOCK, END_LEN, HEADER_LEN, MAX_NAME, TarHeader, hex, padding};

/// Whether gzip's fast levels are ISA-L's.
pub const HAS_ISAL: bool = cfg!(feature = "isal");

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

    /// The levels that may be asked for, and the one taken when none is: the knee of ratio against
    /// CPU seconds for each GiB, measured on a plain dump of PostgreSQL.
    ///
    /// | gzip | 1 | **2** | 3 | 4 | 5 | 6 | | zstd | **1** | 2 | 3 | 4 | 5 | 6 |
    /// |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
    /// | ratio | 2.09 | 3.03 | 3.13 | 3.40 | 3.45 | 3.49 | | | 3.47 | 3.27 | 3.25 | 3.18 | 3.28 | 3.36 |
    /// | CPU s | 4.5 | 7.5 | 9.1 | 9.9 | 10.9 | 14.1 | | | 2.3 | 3.2 | 5.2 | 6.8 | 10.7 | 13.8 |
    ///
    /// With ISA-L built in, gzip's first three are its own:
    ///
    /// | gzip | 1 | 2 | **3** |
    /// |---|---|---|---|
    /// | ratio | 3.00 | 3.00 | 3.23 |
    /// | CPU s | 2.4 | 2.5 | 3.0 |
    pub fn levels(self) -> (std::ops::RangeInclusive<i32>, i32) {
        match self {
            Compression::Gzip => (1..=9, if HAS_ISAL { 3 } else { 2 }),
            Compression::Zstd => (1..=19, 1),
            Compression::None => (0..=0, 0),
        }
    }
}
