//! One object of an archive while its parts are on their way, and when all of them have arrived.

use ring::digest::{Context, SHA256};

use crate::archive::hex;
use crate::catalog::{self, PartsDigest};
use crate::store::{
    Checksum, ChecksumKind, ErrorKind, PartBody, PartReceipt, Result, StoreError, Upload,
};

/// A volume whose parts are being cut and uploaded.
#[derive(Debug)]
pub(super) struct OpenVolume {
    key: String,
    /// `None` until a part of it is to be sent.
    pub upload: Option<Upload>,
    /// Parts cut so far, the held one counted.
    pub parts: u32,
    uploaded: Vec<UploadedPart>,
}

/// A part with its receipt and what is needed to check the volume.
#[derive(Debug)]
pub(super) struct UploadedPart {
    pub receipt: PartReceipt,
    pub crc64nvme: Checksum,
    /// Where it was wanted.
    pub sha256: Option<[u8; 32]>,
}

/// A volume whose parts all have receipts that add up; not an object yet.
#[derive(Debug)]
pub struct SealedVolume {
    /// The key of the object that it will be.
    pub key: String,
    /// What becomes the object.
    pub content: Content,
    /// Number of parts.
    pub parts: u32,
    /// Size in bytes.
    pub size: u64,
    /// Checksum of the whole, of the store's kind.
    pub checksum: Option<Checksum>,
    /// CRC-64/NVME of the whole, for the manifest.
    pub crc64nvme: Checksum,
    /// SHA-256 of the parts' SHA-256, for the manifest, where it was wanted.
    pub digest: Option<PartsDigest>,
}

/// What is there of a volume that is no object yet.
#[derive(Debug)]
pub enum Content {
    /// An upload, and the receipts of all its parts, ascending from 1 without a gap.
    Uploaded(Upload, Vec<PartReceipt>),
    /// All of it in memory, and nothing in the store.
    InMemory(PartBody),
}

impl OpenVolume {
    pub fn new(key: String) -> Self {
        Self {
            key,
            upload: None,
            parts: 0,
            uploaded: Vec::new(),
        }
    }

    pub fn receive(&mut self, part: UploadedPart) {
        self.uploaded.push(part);
    }

    /// Adds the receipts up; all parts but the last have `slice` bytes. `body` is all of a volume of
    /// which nothing was sent.
    ///
    /// # Errors
    /// When a part that was cut has none, or not one.
    pub fn seal(mut self, slice: u64, body: Option<PartBody>) -> Result<SealedVolume> {
        self.uploaded.sort_by_key(|part| part.receipt.number);
        let numbers = self.uploaded.iter().map(|part| part.receipt.number);
        let (Some(first), true) = (self.uploaded.first(), numbers.eq(1..=self.parts)) else {
            let (key, cut, have) = (&self.key, self.parts, self.uploaded.len());
            let why = format!("{key}: {cut} parts were cut, and {have} have receipts");
            return Err(StoreError::new(ErrorKind::Invalid, why));
        };
        let content = match (self.upload, body) {
            (_, Some(body)) => Content::InMemory(body),
            (Some(upload), None) => Content::Uploaded(upload, Vec::new()),
            (None, None) => {
                let why = format!("{}: its upload was never begun", self.key);
                return Err(StoreError::new(ErrorKind::Invalid, why));
            }
        };
        let mut sealed = SealedVolume {
            crc64nvme: first.crc64nvme,
            checksum: first.receipt.checksum,
            size: first.receipt.size,
            parts: self.parts,
            key: self.key,
            content,
            digest: None,
        };
        for part in &self.uploaded[1..] {
            let receipt = &part.receipt;
            sealed.crc64nvme = sealed.crc64nvme.then(part.crc64nvme, receipt.size);
            let both = sealed.checksum.zip(receipt.checksum);
            sealed.checksum = both.map(|(before, next)| before.then(next, receipt.size));
            sealed.size += receipt.size;
        }
        let digests = self.uploaded.iter().map(|part| part.sha256);
        if let Some(digests) = digests.collect::<Option<Vec<[u8; 32]>>>() {
            let mut all = Context::new(&SHA256);
            for digest in &digests {
                all.update(digest);
            }
            let sha256 = hex(all.finish().as_ref());
            sealed.digest = Some(PartsDigest { slice, sha256 });
        }
        if let Content::Uploaded(_, receipts) = &mut sealed.content {
            *receipts = self.uploaded.into_iter().map(|part| part.receipt).collect();
        }
        Ok(sealed)
    }
}

impl SealedVolume {
    /// What the manifest says of it.
    pub fn describe(&self) -> catalog::Volume {
        let key = &self.key;
        catalog::Volume {
            name: key
                .rsplit_once('/')
                .map_or(key.as_str(), |(_, name)| name)
                .to_owned(),
            size: self.size,
            parts: self.parts,
            crc64nvme: self.crc64nvme.to_base64(),
            crc32: self
                .checksum
                .filter(|checksum| checksum.kind() == ChecksumKind::Crc32)
                .map(Checksum::to_base64),
            digest: self.digest.clone(),
        }
    }
}
