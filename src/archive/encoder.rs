//! The second step: segments become pieces of the archive, on all cores, and come out in order.
//!
//! ```text
//!             ┌─▶ encode: on any core, as many at once as there are workers ─┐
//! room ─▶ put ┤                                                              ├─▶ next
//!             └─▶ hash:   on any core, one after the other ──────────────────┘
//!
//! memory = (workers + feeds) × (segment + its compressed bound) + workers × codec
//! ```
//!
//! Room is taken before a segment is read, and held until its piece is with its part: a segment and
//! what it compresses to are counted once, from the first byte to the last. Whoever works on a
//! segment holds its room too, so that nothing is given back while it is in use, in an abort
//! neither. Buffers and codecs are used again: there are never more of them than room for them.
//!
//! SHA-256 of the whole can only be computed in order. It is a lane of its own beside the encoding,
//! one core's work at most: 1.7 GB/s where the processor knows SHA, faster than one dump tool
//! writes.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use ring::digest::{Context, SHA256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::codec::{Codec, LOOK_BACK};
use super::cores::{Cores, Lane};
use super::frame::Content;
use super::piece::Piece;
use super::{Compression, HEADER_LEN};
use crate::meter::{Meter, Step};
use crate::store::ChecksumKind;

/// How segments become pieces.
#[derive(Debug, Clone, Copy)]
pub struct Encoding {
    /// How they are compressed.
    pub compression: Compression,
    /// At which level.
    pub level: i32,
    /// Size of a segment, in bytes.
    pub segment: usize,
    /// Segments being compressed at once.
    pub workers: usize,
    /// Segments being filled at once.
    pub feeds: usize,
    /// Which checksums the store keeps of the pieces.
    pub checksum: Option<ChecksumKind>,
    /// Whether SHA-256 of all segments is wanted.
    pub sha256: bool,
}

/// A way through the cores for segments.
pub fn encoder(cores: &Cores, encoding: Encoding, meter: &Arc<Meter>) -> (Inlet, Outlet) {
    let places = encoding.workers + encoding.feeds;
    let (pending_in, pending) = mpsc::channel(places);
    let hash = encoding
        .sha256
        .then(|| Arc::new(Mutex::new(Context::new(&SHA256))));
    let lanes = Arc::new(Lanes {
        encode: cores.lane(encoding.workers),
        hash: cores.lane(1),
    });
    let rooms = Rooms {
        segment: encoding.segment,
        memory: Arc::new(Semaphore::new(places)),
        buffers: Shelf::default(),
        meter: meter.clone(),
    };
    let inlet = Inlet {
        rooms,
        lanes: lanes.clone(),
        encoding,
        hash: hash.clone(),
        codecs: Shelf::default(),
        before: Bytes::new(),
        pending: pending_in,
        meter: meter.clone(),
    };
    let outlet = Outlet {
        _lanes: lanes,
        encoding,
        pending,
        hash,
        content: Content::of(&[]),
    };
    (inlet, outlet)
}

/// Where segments go in.
pub struct Inlet {
    encoding: Encoding,
    rooms: Rooms,
    lanes: Arc<Lanes>,
    hash: Option<Arc<Mutex<Context>>>,
    codecs: Shelf<Codec>,
    /// The end of the segment before.
    before: Bytes,
    pending: mpsc::Sender<Pending>,
    meter: Arc<Meter>,
}

/// The encoder's memory, for whoever fills segments.
#[derive(Clone)]
pub struct Rooms {
    segment: usize,
    memory: Arc<Semaphore>,
    buffers: Shelf<Vec<u8>>,
    meter: Arc<Meter>,
}

/// What is on its way is given up when neither end is there any more.
struct Lanes {
    encode: Lane,
    hash: Lane,
}

/// The memory of one segment and what it compresses to, with the segment's buffer in it.
pub struct Room {
    segment: Buffer,
    place: Place,
}

/// A share of the encoder's memory, given back when the last who works in it is done.
type Place = Arc<OwnedSemaphorePermit>;

impl Room {
    /// The segment, to be filled up to its capacity.
    pub fn segment(&mut self) -> &mut Vec<u8> {
        &mut self.segment.bytes
    }
}

/// A segment on its way through the cores.
struct Pending {
    encoded: oneshot::Receiver<io::Result<(Piece, Content)>>,
    hashed: Option<oneshot::Receiver<()>>,
    place: Place,
}

impl Rooms {
    /// Waits until there is room for a segment.
    pub async fn room(&self) -> Room {
        let memory = self.memory.clone().acquire_owned();
        let permit = self.meter.wait_for_encode(memory).await;
        let empty = || Vec::with_capacity(self.segment);
        Room {
            segment: Buffer {
                bytes: self.buffers.take().unwrap_or_else(empty),
                shelf: self.buffers.clone(),
            },
            place: Arc::new(permit.expect("never closed")),
        }
    }
}

impl Inlet {
    /// Where there is room for segments.
    pub fn rooms(&self) -> Rooms {
        self.rooms.clone()
    }

    /// Waits until there is room for a segment.
    pub async fn room(&self) -> Room {
        self.rooms.room().await
    }

    /// Begins to compress a segment. When the outlet is gone this never returns: the error there is
    /// the one to report.
    pub async fn put(&mut self, room: Room) {
        let all = 0..room.segment.bytes.len();
        self.put_hashed(room, all).await;
    }

    /// The same where only `hashed` of the segment belongs to what SHA-256 is wanted of.
    pub async fn put_hashed(&mut self, room: Room, hashed: Range<usize>) {
        let Room { segment, place } = room;
        let segment = Bytes::from_owner(segment);
        let look_back = match self.encoding.compression {
            Compression::Gzip => segment.len().min(LOOK_BACK),
            Compression::Zstd | Compression::None => 0,
        };
        // A copy: a slice would keep the whole segment.
        let before = Bytes::copy_from_slice(&segment[segment.len() - look_back..]);
        let before = std::mem::replace(&mut self.before, before);
        let pending = Pending {
            hashed: self.begin_hash(segment.slice(hashed), place.clone()),
            encoded: self.begin_encode(before, segment, place.clone()),
            place,
        };
        if self.pending.send(pending).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn begin_hash(&self, segment: Bytes, place: Place) -> Option<oneshot::Receiver<()>> {
        let hash = self.hash.clone()?;
        let (done, hashed) = oneshot::channel();
        self.lanes.hash.put(move || {
            hash.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .update(&segment);
            drop((segment, place));
            let _ = done.send(());
        });
        Some(hashed)
    }

    fn begin_encode(
        &self,
        before: Bytes,
        segment: Bytes,
        place: Place,
    ) -> oneshot::Receiver<io::Result<(Piece, Content)>> {
        let (done, encoded) = oneshot::channel();
        let (encoding, codecs, meter) = (self.encoding, self.codecs.clone(), self.meter.clone());
        self.lanes.encode.put(move || {
            let start = Instant::now();
            let piece = codecs.encode(encoding, &before, &segment);
            meter.was_busy(Step::Encode, start);
            drop((before, segment, place));
            let _ = done.send(piece);
        });
        encoded
    }
}

/// Where pieces come out, in the order of their segments.
pub struct Outlet {
    _lanes: Arc<Lanes>,
    encoding: Encoding,
    pending: mpsc::Receiver<Pending>,
    hash: Option<Arc<Mutex<Context>>>,
    content: Content,
}

/// Held while a piece is on its way into its part.
pub struct PieceRoom {
    _place: Place,
}

impl Outlet {
    /// The next piece, and the room that is to be let go when the piece is with its part; `None`
    /// when the inlet is gone.
    ///
    /// # Errors
    /// When the compressor failed.
    pub async fn next(&mut self) -> io::Result<Option<(Piece, PieceRoom)>> {
        let Some(pending) = self.pending.recv().await else {
            return Ok(None);
        };
        let broken = |_| io::Error::other("a worker broke down");
        let (piece, content) = pending.encoded.await.map_err(broken)??;
        if let Some(hashed) = pending.hashed {
            hashed.await.map_err(broken)?;
        }
        self.content = self.content.then(content);
        let room = PieceRoom {
            _place: pending.place,
        };
        Ok(Some((piece, room)))
    }

    /// The pieces that are to come, each as [`Self::next`] gives it.
    pub fn pieces(&mut self) -> BoxStream<'_, io::Result<(Piece, PieceRoom)>> {
        stream::try_unfold(self, |outlet| async move {
            let next = outlet.next().await?;
            Ok(next.map(|next| (next, outlet)))
        })
        .boxed()
    }

    /// SHA-256 of what was to be hashed of all pieces that came out, where it was wanted.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        let hash = self.hash.as_ref()?;
        let hash = hash.lock().unwrap_or_else(PoisonError::into_inner).clone();
        hash.finish().as_ref().try_into().ok()
    }

    /// What comes after the last piece: `padding` zeros of tar, and what closes an archive whose
    /// first header is `header`.
    pub fn tail(self, header: &[u8; HEADER_LEN], padding: usize) -> Piece {
        let Encoding {
            compression,
            checksum,
            ..
        } = self.encoding;
        let content = Content::of(header).then(self.content);
        Piece::new(compression.tail(padding, content), checksum)
    }
}

/// Things that are kept for the next who needs one.
struct Shelf<T>(Arc<Mutex<Vec<T>>>);

impl<T> Shelf<T> {
    fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, thing: T) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(thing);
    }
}

impl<T> Clone for Shelf<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl Shelf<Codec> {
    fn encode(
        &self,
        encoding: Encoding,
        before: &[u8],
        segment: &Bytes,
    ) -> io::Result<(Piece, Content)> {
        let mut codec = match self.take() {
            Some(codec) => codec,
            None => Codec::new(encoding.compression, encoding.level)?,
        };
        let encoded = codec.encode(before, segment)?;
        self.put(codec);
        // Only gzip's end says what was in it.
        let content = match encoding.compression {
            Compression::Gzip => Content::of(segment),
            Compression::Zstd | Compression::None => Content::of(&[]),
        };
        Ok((Piece::new(encoded, encoding.checksum), content))
    }
}

/// A segment's buffer: back on its shelf when nothing refers to it any more.
struct Buffer {
    bytes: Vec<u8>,
    shelf: Shelf<Vec<u8>>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        self.shelf.put(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn until(holds: impl Fn() -> bool) {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// A job that is given up leaves workers at its segments: what they work in is not free, and
    /// another job's memory is not so much more.
    #[tokio::test]
    async fn room_is_free_when_the_last_who_works_in_it_is_done() {
        for hashing in [true, false] {
            let meter = Arc::<Meter>::default();
            let encoding = Encoding {
                compression: Compression::Gzip,
                level: 1,
                segment: 1000,
                workers: 1,
                feeds: 1,
                checksum: None,
                sha256: true,
            };
            let (mut inlet, mut outlet) = encoder(&Cores::new(2), encoding, &meter);
            let (memory, hash) = (inlet.rooms.memory.clone(), inlet.hash.clone().unwrap());
            let codecs = inlet.codecs.clone();
            // One of the two gets no further than this.
            let hash = hashing.then(|| hash.lock().unwrap());
            let codec = (!hashing).then(|| codecs.0.lock().unwrap());
            let mut room = inlet.room().await;
            room.segment().resize(1000, 7);
            inlet.put(room).await;
            let lanes = &inlet.lanes;
            until(|| lanes.hash.waiting() + lanes.encode.waiting() == 0).await;
            let Some(Pending {
                encoded, hashed, ..
            }) = outlet.pending.recv().await
            else {
                panic!("it was put");
            };
            if hashing {
                encoded.await.unwrap().unwrap();
            } else {
                hashed.unwrap().await.unwrap();
            }
            drop((inlet, outlet));
            assert_eq!(memory.available_permits(), 1, "hashing: {hashing}");
            drop((hash, codec));
            until(|| memory.available_permits() == 2).await;
        }
    }
}
