//! The files of an archive that has many: each lies in memory as a whole, so its header can stand
//! before it.
//!
//! ```text
//! segment  [ header ][ content            ][ zeros to the end of the block ]
//!                     └ hashed, with those of all entries, as the one script they are
//! ```
//!
//! The very first entry's header is the archive's head, which is written last of all, as that of an
//! archive with one file is: for whoever carries an archive on, the two are one kind.

use super::encoder::{Inlet, Room};
use super::tar::{BLOCK, HEADER_LEN, TarHeader, padding};

/// Where entries are handed in, one after the other.
pub struct Desk {
    inlet: Inlet,
    first: Option<TarHeader>,
    entries: u64,
    size: u64,
}

impl Desk {
    /// The way into an archive.
    pub fn new(inlet: Inlet) -> Self {
        Self {
            inlet,
            first: None,
            entries: 0,
            size: 0,
        }
    }

    /// How much of a segment an entry may fill, its header counted, in bytes.
    pub fn limit(segment: usize) -> usize {
        segment - (BLOCK - 1)
    }

    /// Makes room for the header at the front of an empty segment.
    pub fn begin(room: &mut Room) {
        room.segment().resize(HEADER_LEN, 0);
    }

    /// Hands in an entry: what was written into its segment behind [`Desk::begin`].
    pub async fn put(&mut self, mut room: Room, name: String) {
        let segment = room.segment();
        let size = segment.len() - HEADER_LEN;
        let header = TarHeader {
            name,
            size: size as u64,
            sha256: None,
        };
        let start = if self.first.is_some() {
            segment[..HEADER_LEN].copy_from_slice(&header.to_bytes());
            HEADER_LEN
        } else {
            segment.drain(..HEADER_LEN);
            self.first = Some(header);
            0
        };
        let content = start..start + size;
        segment.resize(content.end + padding(size as u64), 0);
        self.entries += 1;
        self.size += size as u64;
        self.inlet.put_hashed(room, content).await;
    }

    /// The first entry's header, the number of entries, and the size of all their content.
    pub fn close(self) -> (Option<TarHeader>, u64, u64) {
        (self.first, self.entries, self.size)
    }
}
