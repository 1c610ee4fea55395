//! A part of an archive: its pieces, and their checksums joined.

use crate::archive::{Checksums, Piece};
use crate::store::PartBody;

/// A part that is being filled, or full.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub body: PartBody,
    /// `None` while there is nothing in it.
    checksums: Option<Checksums>,
}

impl Part {
    pub fn len(&self) -> u64 {
        self.body.len()
    }

    pub fn push(&mut self, piece: Piece) {
        let (bytes, next) = piece.into_parts();
        self.body.push(bytes);
        self.checksums = Some(self.checksums.map_or(next, |before| before.then(next)));
    }

    pub fn push_front(&mut self, piece: Piece) {
        let (bytes, first) = piece.into_parts();
        self.body.push_front(bytes);
        self.checksums = Some(self.checksums.map_or(first, |after| first.then(after)));
    }

    /// What is sent, and its checksums.
    pub fn into_body(self) -> (PartBody, Checksums) {
        let none = || Checksums::of(&[], None);
        (self.body, self.checksums.unwrap_or_else(none))
    }
}
