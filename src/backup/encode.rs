//! The second step: segments become pieces of the archive, on all cores, and come out in order.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use super::meter::{Meter, Step};
use crate::format::{Compression, Encoded};

/// The cores of this machine, shared by all jobs of a run: no more segments are compressed at once than
/// there are cores, however many jobs there are.
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

/// A segment on its way through a core, with its share of the job's memory. Dropped, it is given up.
pub struct Encoding {
    task: AbortOnDropHandle<std::io::Result<Encoded>>,
    memory: OwnedSemaphorePermit,
}

impl Encoding {
    /// Begins to compress `segment`.
    pub fn begin(
        compression: Compression,
        level: i32,
        segment: Bytes,
        memory: OwnedSemaphorePermit,
        cores: &Cores,
        meter: &Arc<Meter>,
    ) -> Self {
        let (cores, meter) = (cores.0.clone(), meter.clone());
        let task = tokio::spawn(async move {
            let _core = cores.acquire_owned().await.map_err(std::io::Error::other)?;
            let encode = move || {
                let start = Instant::now();
                let encoded = compression.encode(level, &segment);
                meter.was_busy(Step::Encode, start);
                encoded
            };
            spawn_blocking(encode).await.map_err(std::io::Error::other)?
        });
        Self { task: AbortOnDropHandle::new(task), memory }
    }

    /// Waits until it is compressed. The permit is to be let go when the pieces are with their parts.
    ///
    /// # Errors
    /// When the compressor failed.
    pub async fn finish(self) -> std::io::Result<(Encoded, OwnedSemaphorePermit)> {
        Ok((self.task.await.map_err(std::io::Error::other)??, self.memory))
    }
}
