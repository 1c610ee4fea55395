//! The way back: an archive decrypted, or looked at by somebody who cannot.

use std::io::{self, BufRead, Read};

use age::{DecryptError, Decryptor};
use base64::prelude::{BASE64_STANDARD, Engine};

use super::Identities;
use super::seal::{CHUNK, TAG};

/// Why an archive cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Locked {
    /// None of the keys is one that it was sealed for.
    #[error("none of the given keys opens it")]
    NoKey,
    /// Its header is not as it was written.
    #[error("its age header is damaged: {0}")]
    Damaged(String),
}

/// The plaintext of an archive: not a byte of it before its piece was found to be whole.
///
/// # Errors
/// When it is locked to others, or its header is not as it was written.
pub fn opened<R: BufRead>(
    archive: R,
    identities: &Identities,
) -> Result<age::stream::StreamReader<R>, Locked> {
    let damaged = |error: DecryptError| match error {
        DecryptError::NoMatchingKeys | DecryptError::DecryptionFailed => Locked::NoKey,
        other => Locked::Damaged(other.to_string()),
    };
    let decryptor = Decryptor::new_buffered(archive).map_err(damaged)?;
    decryptor
        .decrypt(std::iter::once(identities as &dyn age::Identity))
        .map_err(damaged)
}

/// What [`super::Lock::seal_text`] has sealed.
///
/// # Errors
/// As for [`opened`].
pub fn opened_text(sealed: &str, identities: &Identities) -> Result<Vec<u8>, Locked> {
    let damaged = |error: &dyn std::fmt::Display| Locked::Damaged(error.to_string());
    let sealed = BASE64_STANDARD.decode(sealed);
    let sealed = sealed.map_err(|error| damaged(&error))?;
    let mut text = Vec::new();
    opened(&sealed[..], identities)?
        .read_to_end(&mut text)
        .map_err(|error| damaged(&error))?;
    Ok(text)
}

/// What can be told of a sealed archive without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of plaintext that are in it.
    pub plain: u64,
}

/// Reads a sealed archive to its end, and looks whether it is put together as one: a header and
/// pieces, of which the last alone may be short.
///
/// # Errors
/// What is wrong with it.
pub fn shape(mut archive: impl BufRead) -> io::Result<Shape> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    Decryptor::new_buffered(&mut archive)
        .map_err(|error| wrong(format!("its age header is damaged: {error}")))?;
    let sealed = io::copy(&mut archive, &mut io::sink())?;
    let (piece, tag) = ((CHUNK + TAG) as u64, TAG as u64);
    let (full, short) = (sealed / piece, sealed % piece);
    // An empty piece is the only one of an empty archive.
    let is_one = match (full, short) {
        (0, 0) => false,
        (0, short) => short >= tag,
        (_, 0) => true,
        (_, short) => short > tag,
    };
    if !is_one {
        return Err(wrong(format!(
            "its last piece has {short} bytes, which none has: it was cut or added to"
        )));
    }
    let pieces = full + u64::from(short > 0);
    Ok(Shape {
        plain: sealed - pieces * tag,
    })
}
