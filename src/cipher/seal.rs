//! One archive's key, and the header that wraps it to each recipient.
//!
//! The header, its MAC and the wrapping are the age crate's. It keeps the file key to itself, and
//! seals a payload only from its front to its end; so the key is taken down where every recipient
//! is given it, and the pieces are sealed here, by the construction of the format
//! (<https://c2sp.org/age>, "Payload"): the payload key is HKDF-SHA-256 of the file key, salted with
//! the nonce; a piece's nonce is its number in 11 bytes and whether it is the last.

use std::cell::Cell;
use std::collections::HashSet;

use age::secrecy::ExposeSecret;
use age::{EncryptError, Encryptor};
use age_core::format::{FileKey, Stanza};
use bytes::Bytes;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};

use super::Lock;

/// Bytes of plaintext in a piece.
pub const CHUNK: usize = 64 << 10;
/// By so much is a piece longer when it is sealed.
pub const TAG: usize = 16;
/// Length of the nonce behind the header.
const NONCE: usize = 16;

/// What one archive is sealed with. Never used for another: numbers are its nonces.
pub struct Seal {
    prefix: Bytes,
    key: LessSafeKey,
}

impl Seal {
    /// A new one, of a random key.
    ///
    /// # Errors
    /// When the key cannot be wrapped to a recipient; says to which.
    pub fn new(lock: &Lock) -> Result<Self, String> {
        let recipients = lock.to_age()?;
        let Some((first, others)) = recipients.split_first() else {
            return Err("there is no recipient".into());
        };
        let first = KeyTap {
            recipient: &**first,
            key: Cell::new(None),
        };
        let others = others.iter().map(|recipient| &**recipient);
        let all = std::iter::once(&first as &dyn age::Recipient).chain(others);
        let encryptor = Encryptor::with_recipients(all).map_err(|error| error.to_string())?;
        let mut prefix = Vec::new();
        // It writes the header and the nonce at once, and the rest is not its own.
        drop(
            encryptor
                .wrap_output(&mut prefix)
                .map_err(|error| error.to_string())?,
        );
        let (Some(key), Some(at)) = (first.key.take(), prefix.len().checked_sub(NONCE)) else {
            return Err("the age header was not written".into());
        };
        Ok(Self {
            key: payload_key(&key, &prefix[at..]),
            prefix: prefix.into(),
        })
    }

    /// The header and the nonce: what the archive begins with.
    pub fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    /// Seals a piece of at most [`CHUNK`] bytes, and adds it to `sealed`.
    pub fn seal(&self, number: u64, last: bool, plain: &[&[u8]], sealed: &mut Vec<u8>) {
        let from = sealed.len();
        for slice in plain {
            sealed.extend_from_slice(slice);
        }
        debug_assert!(sealed.len() - from <= CHUNK);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(number, last), Aad::empty(), &mut sealed[from..])
            .expect("a piece is shorter than the cipher's limit");
        sealed.extend_from_slice(tag.as_ref());
    }
}

fn payload_key(file_key: &FileKey, nonce: &[u8]) -> LessSafeKey {
    let pseudorandom = Salt::new(HKDF_SHA256, nonce).extract(file_key.expose_secret());
    let expanded = pseudorandom
        .expand(&[b"payload"], &CHACHA20_POLY1305)
        .expect("a key is shorter than HKDF's limit");
    LessSafeKey::new(UnboundKey::from(expanded))
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&number.to_be_bytes());
    nonce[11] = u8::from(last);
    Nonce::assume_unique_for_key(nonce)
}

/// A recipient that takes the file key down.
struct KeyTap<'a> {
    recipient: &'a dyn age::Recipient,
    key: Cell<Option<FileKey>>,
}

impl age::Recipient for KeyTap<'_> {
    fn wrap_file_key(&self, key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        let copy = FileKey::init_with_mut(|copy| copy.copy_from_slice(key.expose_secret()));
        self.key.set(Some(copy));
        self.recipient.wrap_file_key(key)
    }
}

#[cfg(test)]
impl Seal {
    /// With a key and a nonce that are known: a header that was read somewhere.
    pub(super) fn known(prefix: &[u8], file_key: &FileKey) -> Self {
        let key = payload_key(file_key, &prefix[prefix.len() - NONCE..]);
        let prefix = Bytes::copy_from_slice(prefix);
        Self { prefix, key }
    }
}
