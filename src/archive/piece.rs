//! What an archive is made of: bytes with the checksums that go with them to the store.
//!
//! They are computed where the bytes are made, on every core, and are joined where pieces become
//! parts: only a piece that is cut at a part's edge is looked at once more.

use bytes::Bytes;

use crate::store::{Checksum, ChecksumKind};

/// The checksums of some bytes: CRC-64/NVME for the manifest, and CRC-32 where the store keeps
/// that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksums {
    length: u64,
    crc64nvme: Checksum,
    crc32: Option<Checksum>,
}

impl Checksums {
    /// Of bytes for a store that keeps checksums of this kind.
    pub fn of(bytes: &[u8], kept: Option<ChecksumKind>) -> Self {
        let crc32 = kept.filter(|kind| *kind == ChecksumKind::Crc32);
        Self {
            length: bytes.len() as u64,
            crc64nvme: Checksum::of(ChecksumKind::Crc64Nvme, bytes),
            crc32: crc32.map(|kind| Checksum::of(kind, bytes)),
        }
    }

    /// Of these bytes and the next ones.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        Self {
            length: self.length + next.length,
            crc64nvme: self.crc64nvme.then(next.crc64nvme, next.length),
            crc32: self
                .crc32
                .zip(next.crc32)
                .map(|(crc32, after)| crc32.then(after, next.length)),
        }
    }

    /// The one for the manifest.
    pub fn crc64nvme(self) -> Checksum {
        self.crc64nvme
    }

    /// The one for a store that keeps this kind, if it was computed.
    pub fn kept(self, kind: ChecksumKind) -> Option<Checksum> {
        match kind {
            ChecksumKind::Crc64Nvme => Some(self.crc64nvme),
            ChecksumKind::Crc32 => self.crc32,
        }
    }
}

/// Bytes of an archive, in its order.
#[derive(Debug, Clone)]
pub struct Piece {
    bytes: Bytes,
    checksums: Checksums,
    kept: Option<ChecksumKind>,
}

impl Piece {
    /// For a store that keeps checksums of this kind.
    pub fn new(bytes: Bytes, kept: Option<ChecksumKind>) -> Self {
        Self {
            checksums: Checksums::of(&bytes, kept),
            bytes,
            kept,
        }
    }

    /// How many bytes are left of it.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether none are left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes the first `length` bytes off, or all if there are no more.
    #[must_use]
    pub fn split_to(&mut self, length: usize) -> Self {
        let cut = length.min(self.len());
        let first = self.bytes.split_to(cut);
        if self.is_empty() {
            let whole = Self {
                bytes: first,
                ..*self
            };
            self.checksums = Checksums::of(&[], self.kept);
            return whole;
        }
        *self = Self::new(std::mem::take(&mut self.bytes), self.kept);
        Self::new(first, self.kept)
    }

    /// The bytes, and their checksums.
    pub fn into_parts(self) -> (Bytes, Checksums) {
        (self.bytes, self.checksums)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_cut_anyhow_have_the_checksums_of_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 1..5000),
            cuts in proptest::collection::vec(1usize..700, 0..20),
            crc32: bool,
        ) {
            let kept = crc32.then_some(ChecksumKind::Crc32);
            let whole = Checksums::of(&bytes, kept);
            let mut rest = Piece::new(bytes.clone().into(), kept);
            let (mut joined, mut sums) = (Vec::new(), None);
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (bytes, next) = rest.split_to(cut).into_parts();
                joined.extend_from_slice(&bytes);
                sums = Some(sums.map_or(next, |sums: Checksums| sums.then(next)));
            }
            prop_assert!(rest.is_empty());
            prop_assert_eq!(joined, bytes);
            prop_assert_eq!(sums, Some(whole));
        }
    }
}
