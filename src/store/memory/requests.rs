//! What a store in memory answers to each request, and refuses.

use std::collections::BTreeMap;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::super::{
    Checksum, ChecksumKind, ErrorKind, Limits, ObjectInfo, OpenUpload, Page, PartBody, PartReceipt,
    Result, Store, StoreError, Upload, UploadInfo, Written,
};
use super::{Effect, MemoryStore, Object, Open, Part, State, no_upload, now, written};

/// Parts that a store with `in_order` holds until it is their turn.
const BEFORE_THEIR_TURN: u32 = 4;

/// Entries of one page of a listing, as S3 has it.
const PAGE: usize = 1000;

#[async_trait]
impl Store for MemoryStore {
    fn address(&self) -> String {
        "memory:".into()
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn checksum_kind(&self) -> Option<ChecksumKind> {
        self.checksum
    }

    async fn create_upload(&self, key: &str, backup_id: &str) -> Result<Upload> {
        let mut state = self.state();
        state.next_id += 1;
        let id = format!("upload-{:08}", state.next_id);
        let (key, backup_id) = (key.to_owned(), backup_id.to_owned());
        state.effects.push(Effect::Begun(key.clone()));
        let open = Open {
            key: key.clone(),
            backup_id: backup_id.clone(),
            initiated: now(),
            parts: BTreeMap::new(),
        };
        state.uploads.insert(id.clone(), open);
        Ok(Upload {
            key,
            id,
            backup_id,
            has_twin: false,
        })
    }

    async fn put_part(
        &self,
        upload: &Upload,
        number: u32,
        body: PartBody,
        checksum: Option<Checksum>,
    ) -> Result<PartReceipt> {
        if !(1..=self.limits.max_parts).contains(&number) {
            return Err(invalid(format!("InvalidArgument: part number {number}")));
        }
        let buffers = || body.buffers().iter().map(AsRef::as_ref);
        if let Some(sent) = checksum
            && Checksum::of_buffers(sent.kind(), buffers()) != sent
        {
            return Err(invalid(format!(
                "BadDigest: the checksum of part {number} is not that of its bytes"
            )));
        }
        let etag = format!(
            "\"{}\"",
            Checksum::of_buffers(ChecksumKind::Crc64Nvme, buffers()).to_base64()
        );
        let receipt = PartReceipt {
            number,
            size: body.len(),
            etag,
            checksum,
        };
        let mut state = self.state();
        let open = state
            .uploads
            .get_mut(&upload.id)
            .ok_or_else(|| no_upload(&upload.id))?;
        let next = (1..=number)
            .find(|part| !open.parts.contains_key(part))
            .unwrap_or(number);
        if self.limits.in_order && number > next + BEFORE_THEIR_TURN {
            let why = format!("part {number} comes too early: {next} is not there");
            return Err(invalid(why));
        }
        let body = if self.discard { PartBody::new() } else { body };
        open.parts.insert(
            number,
            Part {
                receipt: receipt.clone(),
                body,
                arrived: now(),
            },
        );
        state.effects.push(Effect::Part(upload.key.clone(), number));
        Ok(receipt)
    }

    async fn complete_upload(
        &self,
        upload: &Upload,
        parts: &[PartReceipt],
        checksum: Option<Checksum>,
    ) -> Result<Written> {
        let mut state = self.state();
        let open = state
            .uploads
            .get(&upload.id)
            .ok_or_else(|| no_upload(&upload.id))?;
        state.is_free(&upload.key)?;
        if parts.is_empty() || !parts.is_sorted_by(|a, b| a.number < b.number) {
            return Err(invalid(
                "InvalidPartOrder: parts must be given, ascending by number",
            ));
        }
        let (mut buffers, mut size, mut whole) = (Vec::new(), 0, None::<Checksum>);
        for (at, part) in parts.iter().enumerate() {
            let Part { receipt, body, .. } = match open.parts.get(&part.number) {
                Some(stored) if stored.receipt.etag == part.etag => stored,
                _ => {
                    return Err(invalid(format!(
                        "InvalidPart: part {} is not what was uploaded",
                        part.number
                    )));
                }
            };
            if at + 1 < parts.len() && receipt.size < self.limits.min_part {
                return Err(invalid(format!(
                    "EntityTooSmall: part {} has {} bytes",
                    part.number, receipt.size
                )));
            }
            whole = match (whole, receipt.checksum) {
                (None, next) if at == 0 => next,
                (Some(whole), Some(next)) if whole.kind() == next.kind() => {
                    Some(whole.then(next, receipt.size))
                }
                _ => None,
            };
            buffers.extend_from_slice(body.buffers());
            size += receipt.size;
        }
        if checksum.is_some() && checksum != whole {
            return Err(invalid(
                "BadDigest: the checksum of the object is not that of its parts",
            ));
        }
        let backup_id = Some(open.backup_id.clone());
        let object = Object {
            buffers,
            size,
            modified: open.initiated,
            checksum: whole,
            backup_id,
        };
        let written = written(&object);
        state.objects.insert(upload.key.clone(), object);
        state.uploads.remove(&upload.id);
        state.effects.push(Effect::Completed(upload.key.clone()));
        Ok(written)
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        let mut state = self.state();
        if state.uploads.remove(&upload.id).is_some() {
            state.effects.push(Effect::Aborted(upload.key.clone()));
        }
        Ok(())
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<Written> {
        let mut state = self.state();
        state.is_free(key)?;
        Ok(state.insert(key, body, self.checksum))
    }

    async fn replace(&self, key: &str, body: Bytes) -> Result<Written> {
        if self.state().away {
            return Err(StoreError::new(ErrorKind::Transient, "it is away"));
        }
        Ok(self.overwrite(key, body))
    }

    async fn put_volume(
        &self,
        key: &str,
        backup_id: &str,
        body: PartBody,
        checksum: Option<Checksum>,
    ) -> Result<Written> {
        let buffers = || body.buffers().iter().map(AsRef::as_ref);
        let kind = checksum.map(Checksum::kind).or(self.checksum);
        let whole = kind.map(|kind| Checksum::of_buffers(kind, buffers()));
        if checksum.is_some() && checksum != whole {
            return Err(invalid("BadDigest: the checksum is not that of the bytes"));
        }
        let size = body.len();
        let mut state = self.state();
        state.is_free(key)?;
        let object = Object {
            buffers: if self.discard {
                Vec::new()
            } else {
                body.buffers().to_vec()
            },
            size,
            modified: now(),
            checksum: whole,
            backup_id: Some(backup_id.to_owned()),
        };
        let written = written(&object);
        state.objects.insert(key.to_owned(), object);
        state.effects.push(Effect::Put(key.to_owned()));
        Ok(written)
    }

    async fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let no_key = || StoreError::new(ErrorKind::NotFound, format!("NoSuchKey: {key}"));
        let object = self.state().objects.get(key).cloned().ok_or_else(no_key)?;
        if self.discard && object.backup_id.is_some() {
            return Err(invalid("this store keeps no bodies"));
        }
        let range = range.unwrap_or(0..object.size);
        if range.start >= object.size && object.size > 0 {
            return Err(invalid(format!(
                "InvalidRange: {range:?} of {} bytes",
                object.size
            )));
        }
        let mut at = 0;
        let mut pieces = Vec::new();
        for buffer in object.buffers {
            let length = buffer.len() as u64;
            let (from, to) = (
                range.start.clamp(at, at + length) - at,
                range.end.clamp(at, at + length) - at,
            );
            let (from, to) = (
                usize::try_from(from).expect("in a buffer"),
                usize::try_from(to).expect("in a buffer"),
            );
            if from < to {
                pieces.push(Ok(buffer.slice(from..to)));
            }
            at += length;
        }
        Ok(stream::iter(pieces).boxed())
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        let state = self.state();
        if state.away {
            return Err(StoreError::new(ErrorKind::Transient, "it is away"));
        }
        Ok(state.objects.get(key).map(|object| describe(key, object)))
    }

    async fn list(&self, prefix: &str, after: Option<String>) -> Result<Page<ObjectInfo>> {
        let state = self.state();
        if state.away {
            return Err(StoreError::new(ErrorKind::Transient, "it is away"));
        }
        Ok(page(
            state.objects.iter(),
            (prefix, after.as_deref()),
            |key, object| ObjectInfo {
                checksum: None,
                backup_id: None,
                ..describe(key, object)
            },
        ))
    }

    async fn list_uploads(&self, prefix: &str, after: Option<String>) -> Result<Page<OpenUpload>> {
        let state = self.state();
        // Ids grow with time; a key may have several uploads, so the pages follow `key id`.
        let by_key: BTreeMap<String, &Open> = state
            .uploads
            .iter()
            .map(|(id, open)| (format!("{}\0{id}", open.key), open))
            .collect();
        Ok(page(
            by_key.iter(),
            (prefix, after.as_deref()),
            |place, open| OpenUpload {
                key: open.key.clone(),
                id: place[open.key.len() + 1..].to_owned(),
                initiated: open.initiated,
            },
        ))
    }

    async fn upload_info(&self, _key: &str, upload_id: &str) -> Result<UploadInfo> {
        let mut info = UploadInfo::default();
        for part in self
            .state()
            .uploads
            .get(upload_id)
            .iter()
            .flat_map(|open| open.parts.values())
        {
            info.add(part.receipt.size, part.arrived);
        }
        Ok(info)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let mut state = self.state();
        if state.objects.remove(key).is_some() {
            state.effects.push(Effect::Deleted(key.to_owned()));
        }
        Ok(())
    }
}

/// One page of what follows `after` under `prefix`.
fn page<'a, V: 'a, T>(
    entries: impl Iterator<Item = (&'a String, &'a V)>,
    (prefix, after): (&str, Option<&str>),
    describe: impl Fn(&'a String, &'a V) -> T,
) -> Page<T> {
    let mut rest = entries
        .filter(|(key, _)| {
            key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)
        })
        .peekable();
    let mut page = Page {
        items: Vec::new(),
        next: None,
    };
    while let Some((key, value)) = rest.next() {
        page.items.push(describe(key, value));
        if page.items.len() == PAGE {
            page.next = rest.peek().map(|_| key.clone());
            break;
        }
    }
    page
}

fn describe(key: &str, object: &Object) -> ObjectInfo {
    ObjectInfo {
        key: key.to_owned(),
        size: object.size,
        modified: object.modified,
        checksum: object.checksum,
        backup_id: object.backup_id.clone(),
    }
}

fn invalid(message: impl Into<String>) -> StoreError {
    StoreError::new(ErrorKind::Invalid, message)
}

impl State {
    /// Whether nothing has this key: what is put must be new (`If-None-Match: *`).
    fn is_free(&self, key: &str) -> Result<()> {
        if self.objects.contains_key(key) {
            let why = format!("PreconditionFailed: {key}");
            return Err(StoreError::new(ErrorKind::AlreadyExists, why));
        }
        Ok(())
    }
}
