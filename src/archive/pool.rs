//! The second step: segments become pieces of the archive, on all cores, and come out in order.
//!
//! ```text
//! room ─▶ put ─▶ [ segment | segment | segment ] ─▶ next
//!                  each on a core of its own
//! ```
//!
//! Room is taken before a segment is read, and held until its piece is with its part: a segment and
//! what it compresses to are counted once, from the first byte to the last.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use super::{Compression, Encoded};
use crate::meter::{Meter, Step};

/// The cores of this machine, shared by all jobs of a run: no more segments are compressed at once
/// than there are cores, however many jobs there are.
#[derive(Debug, Clone)]
pub struct Cores(Arc<Semaphore>);

impl Cores {
    /// All cores that this process may use.
    pub fn all() -> Self {
        Self(Arc::new(Semaphore::new(Self::count())))
    }

    /// How many they are.
    pub fn count() -> usize {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }
}

/// The memory of one segment and what it compresses to.
pub struct Room {
    _memory: OwnedSemaphorePermit,
}

/// Where segments go in.
pub struct Inlet {
    memory: Arc<Semaphore>,
    encodings: mpsc::Sender<Encoding>,
    compression: (Compression, i32),
    cores: Cores,
    meter: Arc<Meter>,
}

/// Where pieces come out, in the order of their segments.
pub struct Outlet {
    encodings: mpsc::Receiver<Encoding>,
    content: crc32fast::Hasher,
}

/// A segment on its way through a core. Dropped, it is given up.
type Encoding = (AbortOnDropHandle<std::io::Result<Encoded>>, Room);

/// A way through the cores for `workers` segments at once and one being read.
pub fn encoder(
    workers: usize,
    compression: (Compression, i32),
    cores: &Cores,
    meter: &Arc<Meter>,
) -> (Inlet, Outlet) {
    let (encodings_in, encodings) = mpsc::channel(workers + 1);
    let (memory, cores, meter) = (
        Arc::new(Semaphore::new(workers + 1)),
        cores.clone(),
        meter.clone(),
    );
    let inlet = Inlet {
        memory,
        encodings: encodings_in,
        compression,
        cores,
        meter,
    };
    (
        inlet,
        Outlet {
            encodings,
            content: crc32fast::Hasher::new(),
        },
    )
}

impl Inlet {
    /// Waits until there is room for a segment.
    pub async fn room(&self) -> Room {
        let permit = self
            .meter
            .wait_for_encode(self.memory.clone().acquire_owned())
            .await;
        Room {
            _memory: permit.expect("never closed"),
        }
    }

    /// Begins to compress a segment. When the outlet is gone this never returns: the error there is
    /// the one to report.
    pub async fn put(&self, segment: Bytes, room: Room) {
        let ((compression, level), cores, meter) =
            (self.compression, self.cores.0.clone(), self.meter.clone());
        let task = tokio::spawn(async move {
            let _core = cores.acquire_owned().await.map_err(std::io::Error::other)?;
            let encode = move || {
                let start = Instant::now();
                let encoded = compression.encode(level, &segment);
                meter.was_busy(Step::Encode, start);
                encoded
            };
            spawn_blocking(encode)
                .await
                .map_err(std::io::Error::other)?
        });
        if self
            .encodings
            .send((AbortOnDropHandle::new(task), room))
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    }
}

impl Outlet {
    /// The next piece, and the room that is to be let go when the piece is with its part; `None`
    /// when the inlet is gone.
    ///
    /// # Errors
    /// When the compressor failed.
    pub async fn next(&mut self) -> std::io::Result<Option<(Vec<Bytes>, Room)>> {
        let Some((task, room)) = self.encodings.recv().await else {
            return Ok(None);
        };
        let encoded = task.await.map_err(std::io::Error::other)??;
        self.content.combine(&encoded.crc);
        Ok(Some((encoded.buffers, room)))
    }

    /// The CRC-32 of all segments, for what closes the archive.
    pub fn content(self) -> crc32fast::Hasher {
        self.content
    }
}
