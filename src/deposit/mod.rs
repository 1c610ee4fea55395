//! The third step: the archive's bytes are cut into parts of one size, and parts go out several at
//! a time.
//!
//! The first part of the first volume is short by the head's length and **held**: the head can only
//! be written when the dump has ended well, and S3 takes parts in any order. When a volume's part
//! numbers run out, the next volume begins.
//!
//! ```text
//! push → filling → full? → slot free? → UploadPart (volume 1: 2, 3, … then volume 2: 1, 2, …)
//!        └ the very first one → held → seal: head + held → UploadPart 1, last of all
//! ```
//!
//! A slot of the window is taken before the first byte goes into a part, so that the window's
//! memory is `in_flight × part` whatever the store does.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::catalog::volume_name;
use crate::job::{Layout, Whole};
use crate::meter::{Meter, Step};
use crate::store::{
    Checksum, ChecksumKind, PartBody, PartReceipt, SharedStore, StoreError, Upload,
};

/// What a backup has put into its store so far; what is to be taken away again when it fails.
#[derive(Debug, Default)]
pub struct Footprint {
    uploads: Vec<Upload>,
    objects: Vec<String>,
    manifest: Option<String>,
}

impl Footprint {
    /// The upload was begun.
    pub fn begun(&mut self, upload: &Upload) {
        self.uploads.push(upload.clone());
    }

    /// The upload became the object that it was for.
    pub fn completed(&mut self, upload: &Upload) {
        self.uploads.retain(|open| open != upload);
        self.objects.push(upload.key.clone());
    }

    /// The manifest is about to be put: from here on it may exist.
    pub fn manifest(&mut self, key: &str) {
        self.manifest = Some(key.to_owned());
    }

    /// Takes everything away: the manifest first, because the objects must outlive it; then
    /// objects, then uploads.
    ///
    /// # Errors
    /// What could not be taken away. The rest was tried all the same.
    pub async fn erase(self, store: &SharedStore) -> Result<(), StoreError> {
        if let Some(manifest) = &self.manifest {
            store
                .delete(manifest)
                .await
                .map_err(|error| error.context(format!("deleting {manifest}")))?;
        }
        let mut result = Ok(());
        for upload in &self.uploads {
            let aborted = store.abort_upload(upload).await;
            result =
                result.and(aborted.map_err(|error| {
                    error.context(format!("aborting the upload of {}", upload.key))
                }));
        }
        for key in &self.objects {
            let deleted = store.delete(key).await;
            result = result.and(deleted.map_err(|error| error.context(format!("deleting {key}"))));
        }
        result
    }
}

/// Footprint shared between the path that leaves it and the job that must erase it.
pub type SharedFootprint = Arc<Mutex<Footprint>>;

/// A volume whose parts all have receipts that add up.
#[derive(Debug)]
pub struct SealedVolume {
    pub upload: Upload,
    pub receipts: Vec<PartReceipt>,
    pub size: u64,
    pub checksum: Option<Checksum>,
    pub crc64nvme: Checksum,
}

/// Every part of an archive is in the store, the head too, and nothing exists yet. Made by
/// [`Uploader::seal`] alone.
#[derive(Debug)]
pub struct Sealed {
    pub volumes: Vec<SealedVolume>,
    pub whole: Whole,
}

/// Cuts an archive into parts and uploads them.
pub struct Uploader {
    store: SharedStore,
    meter: Arc<Meter>,
    footprint: SharedFootprint,
    layout: Layout,
    head_len: u64,
    key: String,
    backup_id: String,
    slots: Arc<Semaphore>,
    volumes: Vec<Volume>,
    /// Size of the part being filled when it will be full.
    target: u64,
    filling: PartBody,
    slot: Option<OwnedSemaphorePermit>,
    held: Option<PartBody>,
    in_flight: JoinSet<Result<Uploaded, StoreError>>,
}

/// A volume being written.
struct Volume {
    upload: Upload,
    /// Parts cut so far, the held one counted.
    parts: u32,
    uploaded: Vec<Uploaded>,
}

/// A part with its receipt and what is needed to check the volume.
struct Uploaded {
    volume: usize,
    receipt: PartReceipt,
    crc64nvme: Checksum,
}

impl Uploader {
    /// Begins the first volume, at `key`. `head_len` bytes are kept free at its start.
    ///
    /// # Errors
    /// When the store refuses to begin an upload.
    pub async fn begin(
        store: SharedStore,
        meter: Arc<Meter>,
        footprint: SharedFootprint,
        layout: Layout,
        (key, backup_id): (String, String),
        head_len: usize,
    ) -> Result<Self, StoreError> {
        let head_len = head_len as u64;
        let mut uploader = Self {
            slots: Arc::new(Semaphore::new(layout.in_flight)),
            target: layout.part - head_len,
            store,
            meter,
            footprint,
            layout,
            head_len,
            key,
            backup_id,
            volumes: Vec::new(),
            filling: PartBody::new(),
            slot: None,
            held: None,
            in_flight: JoinSet::new(),
        };
        uploader.begin_volume().await?;
        Ok(uploader)
    }

    async fn begin_volume(&mut self) -> Result<(), StoreError> {
        let number = u32::try_from(self.volumes.len()).expect("few volumes") + 1;
        let key = volume_name(&self.key, number);
        let upload = self
            .meter
            .wait_for(
                Step::Upload,
                self.store.create_upload(&key, &self.backup_id),
            )
            .await?;
        self.footprint
            .lock()
            .expect("no holder panics")
            .begun(&upload);
        self.volumes.push(Volume {
            upload,
            parts: 0,
            uploaded: Vec::new(),
        });
        Ok(())
    }

    /// Takes the next bytes of the archive; waits while the window is full.
    ///
    /// # Errors
    /// The first part that failed, as soon as it is known.
    pub async fn push(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            if self.filling.is_empty() && !self.fills_held() && self.slot.is_none() {
                self.open_part().await?;
            }
            let room = usize::try_from(self.target - self.filling.len()).unwrap_or(usize::MAX);
            self.filling.push(bytes.split_to(room.min(bytes.len())));
            if self.filling.len() == self.target {
                self.close_part();
            }
        }
        Ok(())
    }

    /// Whether the part being filled is the first of all, whose memory is the held part's.
    fn fills_held(&self) -> bool {
        self.held.is_none() && self.volumes.len() == 1 && self.volumes[0].parts == 0
    }

    /// Waits for a slot of the window, and begins a volume when this one has no part number left.
    async fn open_part(&mut self) -> Result<(), StoreError> {
        if self.current().parts == self.layout.max_parts {
            self.begin_volume().await?;
        }
        let slots = self.slots.clone();
        let slot = self.meter.clone();
        let mut acquire = std::pin::pin!(slot.wait_for(Step::Upload, slots.acquire_owned()));
        loop {
            tokio::select! {
                biased;
                Some(done) = self.in_flight.join_next() => self.receive(done)?,
                permit = &mut acquire => {
                    self.slot = Some(permit.expect("the window is never closed"));
                    return Ok(());
                }
            }
        }
    }

    fn current(&mut self) -> &mut Volume {
        self.volumes.last_mut().expect("begun with one")
    }

    /// Sends the part that was filled on its way, or holds it.
    fn close_part(&mut self) {
        let held = self.fills_held();
        let body = std::mem::take(&mut self.filling);
        self.current().parts += 1;
        self.target = self.layout.part;
        if held {
            self.held = Some(body);
        } else {
            let slot = self.slot.take();
            self.send(
                self.volumes.len() - 1,
                self.volumes[self.volumes.len() - 1].parts,
                body,
                slot,
            );
        }
    }

    fn send(
        &mut self,
        volume: usize,
        number: u32,
        body: PartBody,
        slot: Option<OwnedSemaphorePermit>,
    ) {
        let (store, meter) = (self.store.clone(), self.meter.clone());
        let upload = self.volumes[volume].upload.clone();
        self.in_flight.spawn(async move {
            let start = Instant::now();
            let buffers = || body.buffers().iter().map(AsRef::as_ref);
            let crc64nvme = Checksum::of_buffers(ChecksumKind::Crc64Nvme, buffers());
            let checksum = store.checksum_kind().map(|kind| match kind {
                ChecksumKind::Crc64Nvme => crc64nvme,
                ChecksumKind::Crc32 => Checksum::of_buffers(kind, buffers()),
            });
            let size = body.len();
            let receipt = store
                .put_part(&upload, number, body, checksum)
                .await
                .map_err(|error| {
                    error.context(format!("uploading part {number} of {}", upload.key))
                })?;
            drop(slot);
            meter.add_archive(size);
            meter.was_busy(Step::Upload, start);
            let receipt = PartReceipt {
                number,
                size,
                checksum,
                ..receipt
            };
            Ok(Uploaded {
                volume,
                receipt,
                crc64nvme,
            })
        });
    }

    fn receive(
        &mut self,
        done: Result<Result<Uploaded, StoreError>, tokio::task::JoinError>,
    ) -> Result<(), StoreError> {
        let uploaded = done.map_err(|error| {
            StoreError::new(
                crate::store::ErrorKind::Invalid,
                format!("the upload of a part broke down: {error}"),
            )
        })??;
        self.volumes[uploaded.volume].uploaded.push(uploaded);
        Ok(())
    }

    async fn drain(&mut self) -> Result<(), StoreError> {
        let meter = self.meter.clone();
        while let Some(done) = meter
            .wait_for(Step::Upload, self.in_flight.join_next())
            .await
        {
            self.receive(done)?;
        }
        Ok(())
    }

    /// Uploads what is left, and last of all part 1 with the `head`, which only a whole dump has.
    ///
    /// # Errors
    /// When a part fails, or the receipts do not add up to what was pushed.
    pub async fn seal(mut self, head: Bytes, whole: Whole) -> Result<Sealed, StoreError> {
        assert_eq!(
            head.len() as u64,
            self.head_len,
            "the head's length is fixed"
        );
        if !self.filling.is_empty() || self.fills_held() {
            self.close_part();
        }
        self.drain().await?;
        let mut first = self.held.take().expect("closed above if not before");
        first.push_front(head);
        self.send(0, 1, first, None);
        self.drain().await?;
        let volumes = self
            .volumes
            .into_iter()
            .map(Volume::seal)
            .collect::<Result<_, _>>()?;
        Ok(Sealed { volumes, whole })
    }
}

impl Volume {
    /// Checks that every part cut has its receipt, and adds them up.
    fn seal(mut self) -> Result<SealedVolume, StoreError> {
        self.uploaded
            .sort_by_key(|uploaded| uploaded.receipt.number);
        let numbers = self.uploaded.iter().map(|uploaded| uploaded.receipt.number);
        if !numbers.eq(1..=self.parts) {
            return Err(StoreError::new(
                crate::store::ErrorKind::Invalid,
                format!(
                    "{}: {} parts were cut, and {} have receipts",
                    self.upload.key,
                    self.parts,
                    self.uploaded.len()
                ),
            ));
        }
        let join = |joined: Option<Checksum>, next: Checksum, size| match joined {
            None => Some(next),
            Some(joined) => Some(joined.then(next, size)),
        };
        let (mut crc64nvme, mut checksum, mut size) = (None, None, 0);
        for uploaded in &self.uploaded {
            let receipt = &uploaded.receipt;
            crc64nvme = join(crc64nvme, uploaded.crc64nvme, receipt.size);
            checksum = receipt
                .checksum
                .and_then(|next| join(checksum, next, receipt.size));
            size += receipt.size;
        }
        Ok(SealedVolume {
            crc64nvme: crc64nvme.expect("a volume has a part"),
            checksum,
            size,
            receipts: self
                .uploaded
                .into_iter()
                .map(|uploaded| uploaded.receipt)
                .collect(),
            upload: self.upload,
        })
    }
}
