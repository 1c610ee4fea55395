//! An archive on its way into its store: cut into parts of one size, several of them in flight.
//!
//! The first part of the first volume is short by the head's length and **held**: the head can only
//! be written when the dump has ended well, and S3 takes parts in any order. When a volume's part
//! numbers run out, the next volume begins; on a store that takes parts in order, after the held one.
//!
//! A **small** archive never leaves memory before it is whole: where it is expected to be no more than
//! the held part, no upload is begun until that overflows, and what fits becomes an object by a
//! single request of the commit.
//!
//! ```text
//! push → filling → full? → slot free? → UploadPart (volume 1: 2, 3, … then volume 2: 1, 2, …)
//!        └ the very first one → held → seal: head + held → UploadPart 1, last of all
//!
//! memory = held part + part being filled + in_flight × part
//! ```
//!
//! A slot of the window is what a part on its way needs; the part being filled has memory of its
//! own, so that the window is never idle for want of a part that is still being compressed.
//!
//! | file | role |
//! |---|---|
//! | this | [`Deposit`]: cutting, sending, sealing |
//! | [`part`] | one part: its pieces, and their checksums joined |
//! | [`volume`] | one object: its parts, and their receipts added up |
//! | [`ledger`] | what a job may have left in its store |

mod ledger;
mod part;
mod volume;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};

use crate::archive::Piece;
use crate::catalog::volume_name;
use crate::meter::{Meter, Step};
use crate::store::{
    Checksum, ChecksumKind, ErrorKind, PartBody, PartReceipt, Result, SharedStore, StoreError,
    Upload,
};
pub use ledger::Ledger;
use part::Part;
pub use volume::{Content, SealedVolume};
use volume::{OpenVolume, UploadedPart};

/// The sizes that an archive is deposited in.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Size of a part, in bytes.
    pub part: u64,
    /// Parts on their way at once.
    pub in_flight: usize,
    /// Most parts in a volume.
    pub max_parts: u32,
    /// Whether the parts' SHA-256 is wanted.
    pub sha256: bool,
}

/// Cuts an archive into parts and uploads them.
pub struct Deposit {
    store: SharedStore,
    meter: Arc<Meter>,
    ledger: Ledger,
    window: Window,
    head_len: u64,
    /// Whether part 1 waits for its head.
    holds: bool,
    key: String,
    backup_id: String,
    slots: Arc<Semaphore>,
    /// The volumes before the one being written.
    full: Vec<OpenVolume>,
    writing: OpenVolume,
    /// Size of the part being filled when it will be full.
    target: u64,
    filling: Part,
    held: Option<Part>,
    in_flight: JoinSet<(usize, Result<UploadedPart>)>,
}

impl Deposit {
    /// Begins the first volume, at `key`. `head_len` bytes are kept free at its start.
    ///
    /// # Errors
    /// When the store refuses to begin an upload.
    pub async fn begin(
        store: SharedStore,
        meter: Arc<Meter>,
        ledger: Ledger,
        window: Window,
        names: (String, String),
        head_len: usize,
    ) -> Result<Self> {
        let mut deposit = Self::of_little(store, meter, ledger, window, names, head_len)?;
        deposit.begun(0).await?;
        Ok(deposit)
    }

    /// The same for what is expected to fit the held part: the store is asked when it does not.
    ///
    /// # Errors
    /// When a part has no room for the head.
    pub fn of_little(
        store: SharedStore,
        meter: Arc<Meter>,
        ledger: Ledger,
        window: Window,
        (key, backup_id): (String, String),
        head_len: usize,
    ) -> Result<Self> {
        let head_len = head_len as u64;
        if head_len >= window.part {
            let part = window.part;
            let why = format!("a part of {part} bytes has no room for a head of {head_len}");
            return Err(StoreError::new(ErrorKind::Invalid, why));
        }
        Ok(Self {
            slots: Arc::new(Semaphore::new(window.in_flight)),
            target: window.part.saturating_sub(head_len),
            store,
            meter,
            ledger,
            window,
            head_len,
            holds: true,
            backup_id,
            full: Vec::new(),
            writing: OpenVolume::new(key.clone(), None),
            key,
            filling: Part::default(),
            held: None,
            in_flight: JoinSet::new(),
        })
    }

    /// Begins an object whose bytes are known from the first to the last: its parts go in order, and
    /// it is one volume.
    ///
    /// # Errors
    /// When the store refuses to begin an upload.
    pub async fn begin_whole(
        store: SharedStore,
        meter: Arc<Meter>,
        ledger: Ledger,
        window: Window,
        names: (String, String),
    ) -> Result<Self> {
        let held = Self::begin(store, meter, ledger, window, names, 0).await?;
        Ok(Self {
            holds: false,
            ..held
        })
    }

    /// Takes the next bytes of the archive; waits while the window is full.
    ///
    /// # Errors
    /// The first part that failed, as soon as it is known.
    pub async fn push(&mut self, mut piece: Piece) -> Result<()> {
        self.receive_what_is_there()?;
        while !piece.is_empty() {
            let room = usize::try_from(self.target - self.filling.len()).unwrap_or(usize::MAX);
            self.filling.push(piece.split_to(room));
            if self.filling.len() == self.target {
                self.close_part().await?;
            }
        }
        Ok(())
    }

    /// The checksum that the store keeps of what is pushed.
    pub fn checksum_kind(&self) -> Option<ChecksumKind> {
        self.store.checksum_kind()
    }

    /// Returns when a part has failed, and never otherwise: to be awaited while the archive's next
    /// bytes are, which a slow dump may not have for hours.
    pub async fn failure(&mut self) -> StoreError {
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

    /// Uploads what is left, and last of all part 1 with the `head`, which only a whole dump has. It
    /// is as long as was said, and shorter only where nothing else was pushed.
    ///
    /// # Errors
    /// When a part fails, or the receipts do not add up to what was pushed.
    pub async fn seal(mut self, head: Bytes) -> Result<Vec<SealedVolume>> {
        let is_all = self.fills_held() && self.filling.len() == 0;
        let fits = |length: u64| length == self.head_len || is_all && length < self.head_len;
        if !fits(head.len() as u64) {
            let (is, was) = (head.len(), self.head_len);
            let why = format!("the archive's head has {is} bytes, and {was} were kept free for it");
            return Err(StoreError::new(ErrorKind::Invalid, why));
        }
        if self.filling.len() > 0 || self.fills_held() {
            self.close_part().await?;
        }
        if let Some(mut first) = self.held.take() {
            first.push_front(Piece::new(head, self.store.checksum_kind()));
            if self.full.is_empty() && self.writing.upload.is_none() {
                return self.keep(first).await;
            }
            let slot = self.slot().await?;
            let upload = self.begun(0).await?;
            self.send((0, upload), 1, first, slot);
        }
        let meter = self.meter.clone();
        while let Some(done) = meter
            .wait_for(Step::Upload, self.in_flight.join_next())
            .await
        {
            self.receive(done)?;
        }
        self.full.push(self.writing);
        let slice = self.window.part;
        let seal = |volume: OpenVolume| volume.seal(slice, None);
        self.full.into_iter().map(seal).collect()
    }

    /// An archive of one part, of which nothing was sent.
    async fn keep(mut self, only: Part) -> Result<Vec<SealedVolume>> {
        let (body, part) = PartToSend::of(only, &self.store, self.window.sha256).await?;
        self.writing.receive(part.uploaded(PartReceipt {
            number: 1,
            size: body.len(),
            etag: String::new(),
            checksum: part.checksum,
        }));
        let slice = self.window.part;
        Ok(vec![self.writing.seal(slice, Some(body))?])
    }

    /// The upload of a volume, begun when it is not.
    async fn begun(&mut self, volume: usize) -> Result<Upload> {
        let open = self.full.get(volume).unwrap_or(&self.writing);
        if let Some(upload) = &open.upload {
            return Ok(upload.clone());
        }
        let number = u32::try_from(volume + 1).unwrap_or(u32::MAX);
        let names = (self.key.as_str(), self.backup_id.as_str());
        let begun = begin_volume(&self.store, &self.meter, &self.ledger, names, number);
        let upload = begun.await?;
        let open = self.full.get_mut(volume).unwrap_or(&mut self.writing);
        open.upload = Some(upload.clone());
        Ok(upload)
    }

    /// Whether the part being filled is the first of all, which is held.
    fn fills_held(&self) -> bool {
        self.holds && self.held.is_none() && self.full.is_empty() && self.writing.parts == 0
    }

    /// Most parts of the volume being written. A store that takes parts in order could not keep
    /// all those that come before part 1, so the held part is a volume of its own there; those that
    /// follow go in order.
    fn most_parts(&self) -> u32 {
        if self.holds && self.full.is_empty() && self.store.limits().in_order {
            1
        } else {
            self.window.max_parts
        }
    }

    /// Sends the part that was filled on its way, or holds it.
    async fn close_part(&mut self) -> Result<()> {
        if self.fills_held() {
            self.held = Some(std::mem::take(&mut self.filling));
            self.writing.parts = 1;
            self.target = self.window.part;
            return Ok(());
        }
        let slot = self.slot().await?;
        let mut upload = self.begun(self.full.len()).await?;
        if self.writing.parts >= self.most_parts() {
            let number = u32::try_from(self.full.len() + 2).unwrap_or(u32::MAX);
            let next = OpenVolume::new(volume_name(&self.key, number), None);
            self.full.push(std::mem::replace(&mut self.writing, next));
            upload = self.begun(self.full.len()).await?;
        }
        self.writing.parts += 1;
        let part = std::mem::take(&mut self.filling);
        let volume = (self.full.len(), upload);
        self.send(volume, self.writing.parts, part, slot);
        Ok(())
    }

    /// Waits for a slot of the window.
    async fn slot(&mut self) -> Result<OwnedSemaphorePermit> {
        let (slots, meter) = (self.slots.clone(), self.meter.clone());
        let mut acquire = std::pin::pin!(meter.wait_for(Step::Upload, slots.acquire_owned()));
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

    fn send(
        &mut self,
        (volume, upload): (usize, Upload),
        number: u32,
        part: Part,
        slot: OwnedSemaphorePermit,
    ) {
        let (store, meter) = (self.store.clone(), self.meter.clone());
        let sha256 = self.window.sha256;
        self.in_flight.spawn(async move {
            let start = Instant::now();
            let uploaded = upload_part(&store, &upload, number, part, sha256).await;
            drop(slot);
            if let Ok(part) = &uploaded {
                meter.add_archive(part.receipt.size);
                meter.was_busy(Step::Upload, start);
            }
            (volume, uploaded)
        });
    }

    fn receive_what_is_there(&mut self) -> Result<()> {
        while let Some(done) = self.in_flight.try_join_next() {
            self.receive(done)?;
        }
        Ok(())
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

async fn begin_volume(
    store: &SharedStore,
    meter: &Meter,
    ledger: &Ledger,
    (first, backup_id): (&str, &str),
    number: u32,
) -> Result<Upload> {
    let (store, key, id) = (
        store.clone(),
        volume_name(first, number),
        backup_id.to_owned(),
    );
    let begun = ledger.begin(async move { store.create_upload(&key, &id).await });
    meter.wait_for(Step::Upload, begun).await
}

async fn upload_part(
    store: &SharedStore,
    upload: &Upload,
    number: u32,
    part: Part,
    sha256: bool,
) -> Result<UploadedPart> {
    let (body, part) = PartToSend::of(part, store, sha256).await?;
    let size = body.len();
    let receipt = store
        .put_part(upload, number, body, part.checksum)
        .await
        .map_err(|error| error.context(format!("part {number} of {}", upload.key)))?;
    Ok(part.uploaded(PartReceipt {
        number,
        size,
        checksum: part.checksum,
        ..receipt
    }))
}

/// What is known of a part besides its bytes.
struct PartToSend {
    /// Of the store's kind.
    checksum: Option<Checksum>,
    crc64nvme: Checksum,
    sha256: Option<[u8; 32]>,
}

impl PartToSend {
    async fn of(part: Part, store: &SharedStore, sha256: bool) -> Result<(PartBody, Self)> {
        let (body, checksums) = part.into_body();
        let sha256 = if sha256 {
            Some(digest_of(body.clone()).await?)
        } else {
            None
        };
        let kept = store.checksum_kind();
        let known = Self {
            checksum: kept.and_then(|kind| checksums.kept(kind)),
            crc64nvme: checksums.crc64nvme(),
            sha256,
        };
        Ok((body, known))
    }

    fn uploaded(&self, receipt: PartReceipt) -> UploadedPart {
        UploadedPart {
            receipt,
            crc64nvme: self.crc64nvme,
            sha256: self.sha256,
        }
    }
}

/// SHA-256 of a part, computed where it holds nobody up.
async fn digest_of(body: PartBody) -> Result<[u8; 32]> {
    let digest = tokio::task::spawn_blocking(move || {
        let mut digest = Context::new(&SHA256);
        for buffer in body.buffers() {
            digest.update(buffer);
        }
        digest.finish().as_ref().try_into().ok()
    });
    let broke_down = || StoreError::new(ErrorKind::Invalid, "hashing a part broke down");
    digest.await.ok().flatten().ok_or_else(broke_down)
}
