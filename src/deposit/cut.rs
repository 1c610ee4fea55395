//! An archive cut into parts of one size, once, for all stores that it goes to.
//!
//! The first part is short by the head's length and **held**: the head can only be written when the
//! dump has ended well, and S3 takes parts in any order.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use tokio::sync::OnceCell;

use super::Window;
use crate::archive::{Checksums, Piece};
use crate::store::{Checksum, ChecksumKind, ErrorKind, PartBody, Result, StoreError};

/// A part that is being filled.
#[derive(Debug, Default)]
struct Filling {
    body: PartBody,
    /// `None` while there is nothing in it.
    checksums: Option<Checksums>,
}

impl Filling {
    fn push(&mut self, piece: Piece) {
        let (bytes, next) = piece.into_parts();
        self.body.push(bytes);
        self.checksums = Some(self.checksums.map_or(next, |before| before.then(next)));
    }

    fn push_front(&mut self, piece: Piece) {
        let (bytes, first) = piece.into_parts();
        self.body.push_front(bytes);
        self.checksums = Some(self.checksums.map_or(first, |after| first.then(after)));
    }

    fn full(self) -> SharedPart {
        let none = || Checksums::of(&[], None);
        Arc::new(Part {
            body: self.body,
            checksums: self.checksums.unwrap_or_else(none),
            sha256: OnceCell::new(),
            is_counted: AtomicBool::new(false),
        })
    }
}

/// A part, as it goes to each store.
#[derive(Debug)]
pub(super) struct Part {
    pub body: PartBody,
    checksums: Checksums,
    sha256: OnceCell<[u8; 32]>,
    /// Whether a store has it.
    pub is_counted: AtomicBool,
}

pub(super) type SharedPart = Arc<Part>;

impl Part {
    /// For the manifest.
    pub fn crc64nvme(&self) -> Checksum {
        self.checksums.crc64nvme()
    }

    /// For a store that keeps this kind.
    pub fn checksum(&self, kept: Option<ChecksumKind>) -> Option<Checksum> {
        kept.and_then(|kind| self.checksums.kept(kind))
    }

    /// SHA-256, computed once however many stores it goes to, and where it holds nobody up.
    pub async fn sha256(&self) -> Result<[u8; 32]> {
        let digest = self.sha256.get_or_try_init(|| async {
            let body = self.body.clone();
            let digest = tokio::task::spawn_blocking(move || {
                let mut digest = Context::new(&SHA256);
                for buffer in body.buffers() {
                    digest.update(buffer);
                }
                digest.finish().as_ref().try_into().ok()
            });
            let broke_down = || StoreError::new(ErrorKind::Invalid, "hashing a part broke down");
            digest.await.ok().flatten().ok_or_else(broke_down)
        });
        digest.await.copied()
    }
}

/// Cuts the archive.
#[derive(Debug)]
pub(super) struct Cutter {
    /// Size of a part, in bytes.
    part: u64,
    head_len: u64,
    /// Whether the first part waits for its head.
    holds: bool,
    /// Which checksums the stores keep.
    kept: Option<ChecksumKind>,
    /// How many bytes the part being filled has when it is full.
    target: u64,
    filling: Filling,
    held: Option<Filling>,
    /// Whether no part is full yet.
    is_first: bool,
}

/// What is left of an archive when all of it was pushed.
pub(super) struct End {
    /// What follows the full parts.
    pub last: Option<SharedPart>,
    /// The held part, with its head.
    pub first: Option<SharedPart>,
}

impl Cutter {
    /// For an archive with a head of so many bytes; of one without, no part is held.
    pub fn new(window: &Window, head: Option<usize>, kept: Option<ChecksumKind>) -> Result<Self> {
        let (part, head_len) = (window.part, head.unwrap_or_default() as u64);
        if head_len >= part {
            let why = format!("a part of {part} bytes has no room for a head of {head_len}");
            return Err(StoreError::new(ErrorKind::Invalid, why));
        }
        Ok(Self {
            part,
            head_len,
            holds: head.is_some(),
            kept,
            target: part - head_len,
            filling: Filling::default(),
            held: None,
            is_first: true,
        })
    }

    /// Takes bytes of `piece` up to the end of a part: that part, when it is full and can go.
    pub fn take(&mut self, piece: &mut Piece) -> Option<SharedPart> {
        let room = self.target - self.filling.body.len();
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        self.filling.push(piece.split_to(room));
        if self.filling.body.len() < self.target {
            return None;
        }
        self.close()
    }

    fn close(&mut self) -> Option<SharedPart> {
        let full = std::mem::take(&mut self.filling);
        self.target = self.part;
        if std::mem::take(&mut self.is_first) && self.holds {
            self.held = Some(full);
            return None;
        }
        Some(full.full())
    }

    /// Ends the archive, with its `head`, which is as long as was said, and shorter only where
    /// nothing else was pushed.
    pub fn end(mut self, head: Bytes) -> Result<End> {
        let is_all = self.is_first && self.filling.body.is_empty();
        let fits = |length: u64| length == self.head_len || is_all && length < self.head_len;
        if !fits(head.len() as u64) {
            let (is, was) = (head.len(), self.head_len);
            let why = format!("the archive's head has {is} bytes, and {was} were kept free for it");
            return Err(StoreError::new(ErrorKind::Invalid, why));
        }
        let is_held = self.is_first && self.holds;
        let last = if is_held || !self.filling.body.is_empty() {
            self.close()
        } else {
            None
        };
        let first = self.held.map(|mut first| {
            first.push_front(Piece::new(head, self.kept));
            first.full()
        });
        Ok(End { last, first })
    }
}
