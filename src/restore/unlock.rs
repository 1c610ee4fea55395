//! An encrypted backup before it is read: whether the keys at hand open it, found out before any
//! target is touched; and what can be told of it without a key.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{ON_THE_WAY, RestoreError, Stored, arriving, check, fetch};
use crate::catalog::{Manifest, Properties};
use crate::cipher::{Locked, opened, opened_text, shape};

/// An age header with hundreds of recipients is shorter.
const LONGEST_HEADER: u64 = 1 << 20;

/// Tries the keys at hand on the header of an encrypted archive; of another there is nothing to do.
///
/// # Errors
/// [`RestoreError::Locked`] says whose key is needed.
pub async fn unlock(stored: &Arc<Stored>) -> Result<(), RestoreError> {
    let Some(needs) = stored.manifest.needed_key() else {
        return Ok(());
    };
    if stored.identities.is_empty() {
        return Err(RestoreError::Locked(format!(
            "it is encrypted: {needs} is needed (--identity FILE; for a passphrase \
             --passphrase-file or --passphrase-env)"
        )));
    }
    let header = header(stored).await?;
    let identities = stored.identities.clone();
    let tried = spawn_blocking(move || opened(&header[..], &identities).map(drop)).await;
    match tried {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Locked::NoKey)) => Err(RestoreError::Locked(format!(
            "it is encrypted, and what was given does not open it: {needs} is needed"
        ))),
        Ok(Err(Locked::Damaged(why))) => Err(RestoreError::Damaged(format!(
            "the archive's age header is damaged: {why}"
        ))),
        Err(error) => Err(RestoreError::Damaged(format!(
            "trying the keys broke down: {error}"
        ))),
    }
}

/// What the backup says about the database itself.
///
/// # Errors
/// [`RestoreError::Damaged`] when that cannot be read, although the archive can.
pub(super) async fn properties(stored: &Stored) -> Result<Option<Properties>, RestoreError> {
    let Manifest {
        properties,
        archive,
        ..
    } = &stored.manifest;
    let sealed = archive.encryption.as_ref();
    let Some(sealed) = sealed.and_then(|sealed| sealed.properties.clone()) else {
        return Ok(properties.clone());
    };
    let identities = stored.identities.clone();
    let opened = spawn_blocking(move || opened_text(&sealed, &identities)).await;
    let opened = opened
        .map_err(|error| error.to_string())
        .and_then(|opened| opened.map_err(|locked| locked.to_string()))
        .and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()));
    opened.map(Some).map_err(|why| {
        RestoreError::Damaged(format!(
            "what the manifest says about the database itself cannot be read: {why}"
        ))
    })
}

/// The archive's first bytes.
async fn header(stored: &Stored) -> Result<Vec<u8>, RestoreError> {
    let mut header = Vec::new();
    if let Some((key, volume)) = stored.volumes().next() {
        let range = 0..volume.size.min(LONGEST_HEADER);
        let mut body = stored.store.get(&key, Some(range)).await?;
        while let Some(buffer) = body.next().await {
            let buffer: Bytes = buffer?;
            header.extend_from_slice(&buffer);
        }
    }
    Ok(header)
}

/// Reads an encrypted backup to its end without a key: its volumes have the digests of the manifest,
/// and they are put together as an encrypted archive is. Whether it can be opened is not known.
///
/// # Errors
/// What is wrong with it.
pub async fn inspect(stored: Arc<Stored>, cancel: &CancellationToken) -> Result<(), RestoreError> {
    check(&stored).await?;
    let (to, fetched) = mpsc::channel(ON_THE_WAY);
    let fetch = AbortOnDropHandle::new(tokio::spawn(fetch::fetch(stored, to)));
    let looked = spawn_blocking(move || shape(arriving(fetched)));
    let read = async {
        let looked = looked.await;
        let broke_down =
            |error| RestoreError::Damaged(format!("reading the archive broke down: {error}"));
        fetch.await.map_err(broke_down)??;
        let shape = looked.map_err(broke_down)?;
        shape.map_err(|error| RestoreError::Damaged(format!("the archive: {error}")))
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(RestoreError::Cancelled),
        read = read => read.map(drop),
    }
}
