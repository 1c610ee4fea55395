//! An archive on its way into its stores: cut into parts of one size, several of them in flight to
//! each store.
//!
//! ```text
//!                          ┌ slot free? → UploadPart (volume 1: 2, 3, … then volume 2: 1, 2, …)
//! push → filling → full? ──┤ slot free? → UploadPart         a window and an upload for each store
//!        │                 └ …
//!        └ the very first one → held → seal: head + held → UploadPart 1, last of all
//!
//! memory = held part + part being filled + stores × in_flight × part
//! ```
//!
//! A part is cut, digested and in memory once: what goes to several stores are references to it. A
//! slot of the window is what a part on its way to a store needs; the part being filled has memory
//! of its own, so that no window is idle for want of a part that is still being compressed.
//!
//! When a volume's part numbers run out, the next volume begins; on a store that takes parts in
//! order, after the held one.
//!
//! A **small** archive never leaves memory before it is whole: where it is expected to be no more
//! than the held part, no upload is begun until that overflows, and what fits becomes an object by
//! a single request of the commit.
//!
//! | file | role |
//! |---|---|
//! | this | [`Deposit`]: one store's window, uploads, and volumes |
//! | [`tee`] | [`Tee`]: one archive into several deposits; one that fails or lags is dropped |
//! | [`cut`] | parts cut, the first one held |
//! | [`volume`] | one object: its parts, and their receipts added up |
//! | [`ledger`] | what a job may have left in its store |

mod cut;
mod ledger;
mod tee;
mod volume;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};

use crate::catalog::volume_name;
use crate::meter::{Meter, Step};
use crate::store::{ErrorKind, PartReceipt, Result, SharedStore, StoreError, Upload};
use cut::SharedPart;
use ledger::Beginning;
pub use ledger::Ledger;
pub use tee::{Landed, Lost, Tee, kept_by};
pub use volume::{Content, SealedVolume};
use volume::{OpenVolume, UploadedPart};

/// The sizes that an archive is deposited in.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Size of a part, in bytes.
    pub part: u64,
    /// Parts on their way to a store at once.
    pub in_flight: usize,
    /// Most parts in a volume.
    pub max_parts: u32,
    /// Whether the parts' SHA-256 is wanted.
    pub sha256: bool,
}

/// A store that an archive goes to.
#[derive(Clone)]
pub struct Route {
    /// The store.
    pub store: SharedStore,
    /// What the inventory calls it.
    pub store_name: String,
    /// How long others may wait for it in all.
    pub patience: Duration,
    /// What may be left there.
    pub ledger: Ledger,
}

/// One store's part of the work.
struct Deposit {
    route: Route,
    meter: Arc<Meter>,
    window: Window,
    /// Whether part 1 waits for its head.
    holds: bool,
    key: String,
    backup_id: String,
    slots: Arc<Semaphore>,
    /// The volumes before the one being written.
    full: Vec<OpenVolume>,
    writing: OpenVolume,
    /// The request for the next volume's upload.
    beginning: Option<(usize, Beginning)>,
    in_flight: JoinSet<(usize, Result<UploadedPart>)>,
}

impl Deposit {
    /// At `key`; nothing is asked of the store yet.
    fn new(
        route: Route,
        meter: Arc<Meter>,
        window: Window,
        holds: bool,
        (key, backup_id): (String, String),
    ) -> Self {
        let mut writing = OpenVolume::new(key.clone());
        writing.parts = u32::from(holds);
        Self {
            slots: Arc::new(Semaphore::new(window.in_flight)),
            route,
            meter,
            window,
            holds,
            backup_id,
            full: Vec::new(),
            writing,
            key,
            beginning: None,
            in_flight: JoinSet::new(),
        }
    }

    /// Returns when the store has accepted the first volume's upload. One that is given up half way
    /// is taken up again by the next part.
    async fn accepted(&mut self) -> Result<()> {
        self.begun(0).await.map(drop)
    }

    /// The upload of a volume, begun when it is not.
    async fn begun(&mut self, volume: usize) -> Result<Upload> {
        let open = self.full.get(volume).unwrap_or(&self.writing);
        if let Some(upload) = &open.upload {
            return Ok(upload.clone());
        }
        let (_, request) = match &mut self.beginning {
            Some(beginning) if beginning.0 == volume => beginning,
            other => {
                let number = u32::try_from(volume + 1).unwrap_or(u32::MAX);
                let key = volume_name(&self.key, number);
                let (store, id) = (self.route.store.clone(), self.backup_id.clone());
                let request = async move { store.create_upload(&key, &id).await };
                other.insert((volume, self.route.ledger.begin(request)))
            }
        };
        let begun = request.await;
        self.beginning = None;
        let upload = begun?;
        let open = self.full.get_mut(volume).unwrap_or(&mut self.writing);
        open.upload = Some(upload.clone());
        Ok(upload)
    }

    /// Most parts of the volume being written. A store that takes parts in order could not keep
    /// all those that come before part 1, so the held part is a volume of its own there; those that
    /// follow go in order.
    fn most_parts(&self) -> u32 {
        if self.holds && self.full.is_empty() && self.route.store.limits().in_order {
            1
        } else {
            self.window.max_parts
        }
    }

    /// Sends a part on its way; waits while the window is full.
    async fn send(&mut self, part: SharedPart) -> Result<()> {
        let slot = self.slot().await?;
        let mut upload = self.begun(self.full.len()).await?;
        if self.writing.parts >= self.most_parts() {
            let number = u32::try_from(self.full.len() + 2).unwrap_or(u32::MAX);
            let next = OpenVolume::new(volume_name(&self.key, number));
            self.full.push(std::mem::replace(&mut self.writing, next));
            upload = self.begun(self.full.len()).await?;
        }
        self.writing.parts += 1;
        self.spawn(self.full.len(), upload, self.writing.parts, part, slot);
        Ok(())
    }

    /// Sends the held part, and waits for all receipts.
    async fn seal(&mut self, held: Option<SharedPart>) -> Result<Vec<SealedVolume>> {
        if let Some(first) = held {
            let is_all = self.full.is_empty() && self.writing.parts == 1;
            if is_all && self.writing.upload.is_none() && self.beginning.is_none() {
                return self.keep(&first).await;
            }
            let slot = self.slot().await?;
            let upload = self.begun(0).await?;
            self.spawn(0, upload, 1, first, slot);
        }
        while let Some(done) = self.in_flight.join_next().await {
            self.receive(done)?;
        }
        let last = std::mem::replace(&mut self.writing, OpenVolume::new(String::new()));
        let volumes = std::mem::take(&mut self.full).into_iter().chain([last]);
        volumes
            .map(|volume| volume.seal(self.window.part, None))
            .collect()
    }

    /// An archive of one part, of which nothing was sent.
    async fn keep(&mut self, only: &SharedPart) -> Result<Vec<SealedVolume>> {
        let checksum = only.checksum(self.route.store.checksum_kind());
        let mut volume = std::mem::replace(&mut self.writing, OpenVolume::new(String::new()));
        volume.receive(UploadedPart {
            receipt: PartReceipt {
                number: 1,
                size: only.body.len(),
                etag: String::new(),
                checksum,
            },
            crc64nvme: only.crc64nvme(),
            sha256: self.digest_of(only).await?,
        });
        let body = Some(only.body.clone());
        Ok(vec![volume.seal(self.window.part, body)?])
    }

    async fn digest_of(&self, part: &SharedPart) -> Result<Option<[u8; 32]>> {
        if !self.window.sha256 {
            return Ok(None);
        }
        part.sha256().await.map(Some)
    }

    /// Returns when a part has failed, and never otherwise: to be awaited while the archive's next
    /// bytes are, which a slow dump may not have for hours.
    async fn failure(&mut self) -> StoreError {
        loop {
            let received = match self.in_flight.join_next().await {
                Some(done) => self.receive(done),
                None => std::future::pending().await,
            };
            if let Err(error) = received {
                return error;
            }
        }
    }

    /// Waits for a slot of the window.
    async fn slot(&mut self) -> Result<OwnedSemaphorePermit> {
        let mut acquire = std::pin::pin!(self.slots.clone().acquire_owned());
        loop {
            tokio::select! {
                biased;
                Some(done) = self.in_flight.join_next() => self.receive(done)?,
                permit = &mut acquire => return permit.map_err(|_| {
                    StoreError::new(ErrorKind::Invalid, "the window of parts was closed")
                }),
            }
        }
    }

    fn spawn(
        &mut self,
        volume: usize,
        upload: Upload,
        number: u32,
        part: SharedPart,
        slot: OwnedSemaphorePermit,
    ) {
        let (store, meter, sha256) = (
            self.route.store.clone(),
            self.meter.clone(),
            self.window.sha256,
        );
        self.in_flight.spawn(async move {
            let start = Instant::now();
            let uploaded = upload_part(&store, &upload, number, &part, sha256).await;
            if let Ok(uploaded) = &uploaded {
                // Of several stores the first one counts: it is one archive.
                if !part.is_counted.swap(true, Ordering::Relaxed) {
                    meter.add_archive(uploaded.receipt.size);
                }
                meter.add_sent(uploaded.receipt.size);
                meter.was_busy(Step::Upload, start);
            }
            drop((slot, part));
            (volume, uploaded)
        });
    }

    fn receive(
        &mut self,
        done: std::result::Result<(usize, Result<UploadedPart>), JoinError>,
    ) -> Result<()> {
        let (volume, uploaded) = done.map_err(|error| {
            let why = format!("the upload of a part broke down: {error}");
            StoreError::new(ErrorKind::Invalid, why)
        })?;
        self.full
            .get_mut(volume)
            .unwrap_or(&mut self.writing)
            .receive(uploaded?);
        Ok(())
    }
}

async fn upload_part(
    store: &SharedStore,
    upload: &Upload,
    number: u32,
    part: &SharedPart,
    sha256: bool,
) -> Result<UploadedPart> {
    let sha256 = if sha256 {
        Some(part.sha256().await?)
    } else {
        None
    };
    let (body, checksum) = (part.body.clone(), part.checksum(store.checksum_kind()));
    let size = body.len();
    let receipt = store
        .put_part(upload, number, body, checksum)
        .await
        .map_err(|error| error.context(format!("part {number} of {}", upload.key)))?;
    Ok(UploadedPart {
        receipt: PartReceipt {
            number,
            size,
            checksum,
            ..receipt
        },
        crc64nvme: part.crc64nvme(),
        sha256,
    })
}
