//! The layer between encode and part: an archive as it is, or sealed in pieces of 64 KiB.
//!
//! ```text
//! archive   [head│body of piece 0 ][piece 1][piece 2]…[tail]
//!            └ known at the end ┘   sealed on any core, in any order, as soon as they are full
//! deposit   [header, nonce, piece 0][piece 1]…            └ the last one is flagged
//!            └ kept free at the front, given with the seal
//! ```
//!
//! Piece 0 holds the archive's head, which only a whole dump has; so it is sealed last, and lies in
//! the held part. Where a piece begins depends on how well everything before it compressed: pieces
//! are cut where the encoder's output is in order, and sealed beside it.
//!
//! memory = with each room of the encoder, what its output is sealed to; and two pieces

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::seal::{CHUNK, Seal, TAG};
use crate::archive::{Cores, Lane, Piece};
use crate::store::ChecksumKind;

/// How an archive goes into its parts.
pub struct Envelope {
    /// Length of the archive's head.
    head: usize,
    sealing: Option<Sealing>,
}

struct Sealing {
    seal: Arc<Seal>,
    lane: Lane,
    kept: Option<ChecksumKind>,
    /// What follows the head in piece 0.
    first: Vec<u8>,
    /// What is not sealed yet: whether it is the last piece is not known.
    rest: Vec<u8>,
    /// The number of the next piece.
    next: u64,
}

impl Envelope {
    /// None: for an archive with a head of so many bytes that is to be read by everybody.
    pub fn open(head: usize) -> Self {
        Self {
            head,
            sealing: None,
        }
    }

    /// For an archive with a head of so many bytes, fewer than a piece has.
    pub fn sealed(
        seal: Seal,
        head: usize,
        cores: &Cores,
        workers: usize,
        kept: Option<ChecksumKind>,
    ) -> Self {
        Self {
            head,
            sealing: Some(Sealing {
                seal: Arc::new(seal),
                lane: cores.lane(workers),
                kept,
                first: Vec::new(),
                rest: Vec::new(),
                next: 1,
            }),
        }
    }

    /// How many bytes are to be kept free at the front.
    pub fn head_len(&self) -> usize {
        match &self.sealing {
            None => self.head,
            Some(sealing) => sealing.seal.prefix().len() + CHUNK + TAG,
        }
    }

    /// The most bytes that `encoded` ones are sealed to with what was left before them: what a room
    /// of the encoder needs beside its own.
    pub const fn bound(encoded: usize) -> usize {
        (encoded / CHUNK + 1) * (CHUNK + TAG)
    }

    /// Takes the archive's next bytes, and gives what can go on of them, which may be nothing yet.
    /// `held` is given back with it. What is given is to be awaited in order, several at once.
    ///
    /// # Errors
    /// When a worker broke down.
    pub fn body<T: Send + 'static>(
        &mut self,
        piece: Piece,
        held: T,
    ) -> BoxFuture<'static, io::Result<(Piece, T)>> {
        let Some(sealing) = &mut self.sealing else {
            return std::future::ready(Ok((piece, held))).boxed();
        };
        let sealed = sealing.body(piece.into_parts().0, self.head);
        async move {
            let broke_down = |_| io::Error::other("a worker broke down");
            Ok((sealed.await.map_err(broke_down)?, held))
        }
        .boxed()
    }

    /// The archive's end: takes its tail and its head, and gives what comes last and what is to be
    /// put at the front.
    pub fn close(self, tail: Piece, head: Bytes) -> (Piece, Bytes) {
        match self.sealing {
            None => (tail, head),
            Some(sealing) => sealing.close(&tail.into_parts().0, &head),
        }
    }
}

impl Sealing {
    fn body(&mut self, mut bytes: Bytes, head: usize) -> oneshot::Receiver<Piece> {
        let (done, sealed) = oneshot::channel();
        let missing = CHUNK.saturating_sub(head + self.first.len());
        let first = bytes.split_to(missing.min(bytes.len()));
        self.first.extend_from_slice(&first);
        let unsealed = self.rest.len() + bytes.len();
        // One byte at least is left: the last piece is only known by what follows it not.
        let count = unsealed.saturating_sub(1) / CHUNK;
        let (seal, kept, number) = (self.seal.clone(), self.kept, self.next);
        self.next += count as u64;
        let body = bytes.split_to((count * CHUNK).saturating_sub(self.rest.len()));
        if count == 0 {
            self.rest.extend_from_slice(&bytes);
            let _ = done.send(Piece::new(Bytes::new(), kept));
            return sealed;
        }
        let rest = std::mem::replace(&mut self.rest, bytes.to_vec());
        self.lane.put(move || {
            let mut out = Vec::with_capacity(count * (CHUNK + TAG));
            let (begin, others) = body.split_at(CHUNK - rest.len());
            seal.seal(number, false, &[&rest, begin], &mut out);
            for (number, plain) in (number + 1..).zip(others.chunks(CHUNK)) {
                seal.seal(number, false, &[plain], &mut out);
            }
            drop((rest, body));
            let _ = done.send(Piece::new(out.into(), kept));
        });
        sealed
    }

    fn close(mut self, mut tail: &[u8], head: &[u8]) -> (Piece, Bytes) {
        let missing = CHUNK.saturating_sub(head.len() + self.first.len());
        let first;
        (first, tail) = tail.split_at(missing.min(tail.len()));
        self.first.extend_from_slice(first);
        self.rest.extend_from_slice(tail);
        let is_only = self.rest.is_empty();
        let mut last = Vec::new();
        let mut plain = self.rest.chunks(CHUNK).peekable();
        while let Some(piece) = plain.next() {
            self.seal
                .seal(self.next, plain.peek().is_none(), &[piece], &mut last);
            self.next += 1;
        }
        let mut front = self.seal.prefix().to_vec();
        self.seal.seal(0, is_only, &[head, &self.first], &mut front);
        (Piece::new(last.into(), self.kept), front.into())
    }
}
