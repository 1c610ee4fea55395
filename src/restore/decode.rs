//! The second step back: an archive's bytes, decrypted where they were encrypted, become the files in
//! it, exactly those that the manifest names. Of an encrypted one it names less, and the archive
//! proves itself: every byte that gets here was sealed by whoever made it.
//!
//! Synchronous, over any reader, and strict: what this program did not write that way is refused.
//! Memory is bounded whatever the archive says: pieces have a fixed size, and no length from the
//! archive is allocated.

use std::cell::Cell;
use std::io::{self, BufRead, Read};

use super::frames::Zstd;
use super::hash::Hash;
use crate::archive::{BLOCK, Compression, END_LEN, EntryName, HEADER_LEN, TarHeader, hex, padding};
use crate::catalog::{Encryption, Entry, Manifest};
use bytes::{Bytes, BytesMut};

/// Size of a piece, in bytes.
const PIECE: usize = 256 << 10;

/// What comes out of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The next file of the manifest begins, of this name.
    Begin(String),
    /// Its next bytes.
    Data(Bytes),
}

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It is not what its manifest says, at about this byte of the archive.
    #[error("the archive is damaged near byte {at} of {size}: {why}")]
    Damaged {
        /// How far into the archive, in bytes.
        at: u64,
        /// The archive's size, in bytes.
        size: u64,
        /// What is wrong.
        why: String,
    },
    /// Nobody takes the pieces any more.
    #[error("the pieces are not wanted any more")]
    Unwanted,
}

/// What is wrong, before it is known where.
enum Wrong {
    With(String),
    Unwanted,
}

impl From<String> for Wrong {
    fn from(why: String) -> Self {
        Self::With(why)
    }
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        Self::With(match error.kind() {
            io::ErrorKind::UnexpectedEof => "it ends too early".into(),
            _ => error.to_string(),
        })
    }
}

type Result<T> = std::result::Result<T, Wrong>;

/// What an archive holds, of which large pieces are taken.
pub(super) trait Content: Read {
    /// The next bytes, `most` of them at most; none at the end.
    ///
    /// # Errors
    /// As for reading.
    fn piece(&mut self, most: usize) -> io::Result<Bytes>;
}

/// A reader whose pieces are copies.
pub(super) struct Copied<R>(pub(super) R);

impl<R: Read> Read for Copied<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl<R: Read> Content for Copied<R> {
    fn piece(&mut self, most: usize) -> io::Result<Bytes> {
        let mut piece = BytesMut::zeroed(most);
        self.0.read_exact(&mut piece)?;
        Ok(piece.freeze())
    }
}

/// Reads `archive` to its very end and gives what is in it to `emit`, which returns whether it
/// wants more.
///
/// # Errors
/// When a byte of it is not as it must be: compression, checksums, tar structure, names, sizes and
/// SHA-256 against the manifest, and nothing after the end.
pub fn decode(
    manifest: &Manifest,
    archive: impl BufRead,
    emit: &mut dyn FnMut(Piece) -> bool,
) -> std::result::Result<(), DecodeError> {
    let at = Cell::new(0);
    let counted = Counted { archive, at: &at };
    decompress(manifest, counted, emit).map_err(|wrong| match wrong {
        Wrong::With(why) => DecodeError::Damaged {
            at: at.get(),
            size: manifest.archive.size,
            why,
        },
        Wrong::Unwanted => DecodeError::Unwanted,
    })
}

fn decompress(
    manifest: &Manifest,
    mut archive: impl BufRead,
    emit: &mut dyn FnMut(Piece) -> bool,
) -> Result<()> {
    let untar = |tar: &mut dyn Content, emit: &mut dyn FnMut(Piece) -> bool| match &manifest
        .archive
        .encryption
    {
        _ if manifest.parallel.is_some() => untar_joined(manifest, tar, emit),
        None => untar(&manifest.entries, tar, emit),
        Some(sealed) => untar_sealed(sealed, tar, emit),
    };
    match manifest.archive.container.as_str() {
        "tar" => {}
        "zip" => {
            return match &manifest.archive.encryption {
                None => unzip(&manifest.entries, &mut archive, emit),
                Some(sealed) => unzip_sealed(sealed, &mut archive, emit),
            };
        }
        other => {
            return Err(Wrong::With(format!(
                "its container is {other:?}, which is not known"
            )));
        }
    }
    match manifest.archive.compression {
        Compression::Gzip => {
            // One member; its CRC-32 and length are checked when its end is read.
            let mut gzip = flate2::bufread::GzDecoder::new(archive);
            untar(&mut Copied(&mut gzip), emit)?;
            at_end(&mut gzip.into_inner(), "the gzip member")
        }
        Compression::Zstd => {
            // Ends only where the archive does.
            untar(&mut Zstd::new(archive)?, emit)
        }
        Compression::None => untar(&mut Copied(archive), emit),
    }
}

/// The tar layer: for each file its header, its bytes, zeros to the end of its block; then two
/// blocks of zeros.
fn untar(
    entries: &[Entry],
    tar: &mut dyn Content,
    emit: &mut dyn FnMut(Piece) -> bool,
) -> Result<()> {
    for entry in entries {
        let mut header = [0; HEADER_LEN];
        tar.read_exact(&mut header)?;
        let header = TarHeader::from_bytes(&header)?;
        let sha256 = header
            .sha256
            .map_or_else(|| entry.sha256.clone(), |sha256| hex(&sha256));
        if (&header.name, header.size, &sha256) != (&entry.name, entry.size, &entry.sha256) {
            let TarHeader { name, size, .. } = header;
            return Err(Wrong::With(format!(
                "it holds {name:?} with {size} bytes and SHA-256 {sha256}, and its manifest says {:?} with {} bytes and \
                 SHA-256 {}",
                entry.name, entry.size, entry.sha256
            )));
        }
        file(&entry.name, entry.size, Some(&entry.sha256), tar, emit)?;
        zeros(tar, padding(entry.size), "the padding of a file")?;
    }
    zeros(tar, END_LEN, "the end of the tar archive")?;
    at_end(tar, "the tar archive")
}

/// The same of a dump that is in many files, which are one script: it has the size and the SHA-256
/// of its entry, or, in an encrypted archive, what the seal proves.
fn untar_joined(
    manifest: &Manifest,
    tar: &mut dyn Content,
    emit: &mut dyn FnMut(Piece) -> bool,
) -> Result<()> {
    let wanted = |wanted| if wanted { Ok(()) } else { Err(Wrong::Unwanted) };
    let files = manifest.parallel.map_or(0, |parallel| parallel.files);
    let entry = manifest.entries.first();
    let mut left = entry.map(|entry| entry.size);
    let mut hash = entry.map(|entry| Hash::of(entry.size));
    for at in 1..=files {
        let mut header = [0; HEADER_LEN];
        tar.read_exact(&mut header)?;
        let TarHeader { name, size, .. } = TarHeader::from_bytes(&header)?;
        if left.is_some_and(|left| size > left) || !EntryName::are_all_of(&name) {
            let why = format!("its file {name:?} with {size} bytes is no part of the script");
            return Err(Wrong::With(why));
        }
        left = left.map(|left| left - size);
        wanted(emit(Piece::Begin(name)))?;
        let mut of_file = size;
        while of_file > 0 {
            let piece = next_piece(tar, of_file)?;
            if let Some(hash) = &mut hash {
                hash.update(&piece);
            }
            of_file -= piece.len() as u64;
            if at == files && of_file == 0 {
                // Before the last bytes are given away, as of a single file.
                is_whole(entry, left, hash.take())?;
            }
            wanted(emit(Piece::Data(piece)))?;
        }
        zeros(tar, padding(size), "the padding of a file")?;
    }
    // The last file may be empty.
    is_whole(entry, left, hash)?;
    zeros(tar, END_LEN, "the end of the tar archive")?;
    at_end(tar, "the tar archive")
}

/// Whether the script that was read is its entry, as far as that is told, and has not been looked at
/// before.
fn is_whole(entry: Option<&Entry>, left: Option<u64>, hash: Option<Hash>) -> Result<()> {
    let (
        Some(Entry {
            name,
            sha256: expected,
            ..
        }),
        Some(hash),
    ) = (entry, hash)
    else {
        return Ok(());
    };
    let sha256 = hash.finish()?;
    if let Some(left) = left.filter(|left| *left > 0) {
        return Err(Wrong::With(format!("{left} bytes of {name:?} are missing")));
    }
    if sha256 != *expected {
        return Err(Wrong::With(format!(
            "the SHA-256 of {name:?} is {sha256}, and its manifest says {expected}"
        )));
    }
    Ok(())
}

/// The same of an encrypted archive, whose files only it knows.
fn untar_sealed(
    sealed: &Encryption,
    tar: &mut dyn Content,
    emit: &mut dyn FnMut(Piece) -> bool,
) -> Result<()> {
    let mut names = Names::of(sealed);
    loop {
        let mut header = [0; HEADER_LEN];
        let (first, rest) = header.split_at_mut(BLOCK);
        tar.read_exact(first)?;
        if first.iter().all(|byte| *byte == 0) {
            zeros(tar, END_LEN - BLOCK, "the end of the tar archive")?;
            at_end(tar, "the tar archive")?;
            return names.end();
        }
        tar.read_exact(rest)?;
        let TarHeader { name, size, sha256 } = TarHeader::from_bytes(&header)?;
        names.next(&name)?;
        let sha256 = sha256.map(|sha256| hex(&sha256));
        file(&name, size, sha256.as_deref(), tar, emit)?;
        zeros(tar, padding(size), "the padding of a file")?;
    }
}

fn unzip_sealed(
    sealed: &Encryption,
    zip: &mut impl Read,
    emit: &mut dyn FnMut(Piece) -> bool,
) -> Result<()> {
    let mut names = Names::of(sealed);
    while let Some(mut found) = zip::read::read_zipfile_from_stream(zip).map_err(io::Error::from)? {
        let name = found.name().map_err(io::Error::from)?.into_owned();
        names.next(&name)?;
        let size = found.size();
        file(&name, size, None, &mut Copied(&mut found), emit)?;
        at_end(&mut found, "a file")?;
    }
    io::copy(zip, &mut io::sink())?;
    names.end()
}

/// The names that an encrypted archive's files must have, if they are told at all.
struct Names<'a> {
    told: Option<std::slice::Iter<'a, String>>,
    seen: usize,
}

impl<'a> Names<'a> {
    fn of(sealed: &'a Encryption) -> Self {
        Self {
            told: sealed.files.as_ref().map(|files| files.iter()),
            seen: 0,
        }
    }

    fn next(&mut self, found: &str) -> Result<()> {
        self.seen += 1;
        let told = self.told.as_mut().map(Iterator::next);
        match told {
            Some(told) if told.is_none_or(|told| told != found) => Err(Wrong::With(format!(
                "it holds {found:?}, and its manifest says {}",
                told.map_or_else(
                    || "that there is no more".into(),
                    |told| format!("{told:?}")
                )
            ))),
            _ if !EntryName::are_all_of(found) => Err(Wrong::With(format!(
                "{found:?} is not the name of a file in an archive"
            ))),
            _ => Ok(()),
        }
    }

    fn end(self) -> Result<()> {
        let missing = self.told.and_then(|mut told| told.next());
        match missing {
            Some(missing) => Err(Wrong::With(format!("it does not hold {missing:?}"))),
            None if self.seen == 0 => Err(Wrong::With("it holds no file".into())),
            None => Ok(()),
        }
    }
}

/// A zip, read from its front: each file behind its own header, whose CRC-32 is checked; what
/// follows the last file is the directory for those who read from the end.
fn unzip(
    entries: &[Entry],
    zip: &mut impl Read,
    emit: &mut dyn FnMut(Piece) -> bool,
) -> Result<()> {
    for entry in entries {
        let Some(mut found) = zip::read::read_zipfile_from_stream(zip).map_err(io::Error::from)?
        else {
            return Err(Wrong::With(format!("it does not hold {:?}", entry.name)));
        };
        let (name, size) = (
            found.name().map_err(io::Error::from)?.into_owned(),
            found.size(),
        );
        if (&name, size) != (&entry.name, entry.size) {
            let Entry {
                name: expected,
                size: expected_size,
                ..
            } = entry;
            return Err(Wrong::With(format!(
                "it holds {name:?} with {size} bytes, and its manifest says {expected:?} with {expected_size} bytes"
            )));
        }
        file(
            &entry.name,
            entry.size,
            Some(&entry.sha256),
            &mut Copied(&mut found),
            emit,
        )?;
        at_end(&mut found, "a file")?;
    }
    if zip::read::read_zipfile_from_stream(zip)
        .map_err(io::Error::from)?
        .is_some()
    {
        return Err(Wrong::With(
            "it holds more files than its manifest says".into(),
        ));
    }
    io::copy(zip, &mut io::sink())?;
    Ok(())
}

/// One file's bytes, hashed on the way; what was sealed without a hash is proven by the seal.
fn file(
    name: &str,
    size: u64,
    expected: Option<&str>,
    content: &mut dyn Content,
    emit: &mut dyn FnMut(Piece) -> bool,
) -> Result<()> {
    let wanted = |wanted| if wanted { Ok(()) } else { Err(Wrong::Unwanted) };
    wanted(emit(Piece::Begin(name.to_owned())))?;
    let (mut hash, mut left) = (Hash::of(size), size);
    loop {
        let piece = next_piece(content, left)?;
        hash.update(&piece);
        left -= piece.len() as u64;
        if left > 0 {
            wanted(emit(Piece::Data(piece)))?;
            continue;
        }
        // Before the last bytes are given away: a file is never seen whole that is not the one.
        let sha256 = hash.finish()?;
        if let Some(expected) = expected.filter(|expected| **expected != sha256) {
            return Err(Wrong::With(format!(
                "the SHA-256 of {name:?} is {sha256}, and its manifest says {expected}"
            )));
        }
        return wanted(emit(Piece::Data(piece)));
    }
}

/// The next of so many bytes.
fn next_piece(content: &mut dyn Content, left: u64) -> Result<Bytes> {
    let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
    let piece = content.piece(most)?;
    if piece.is_empty() && most > 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(piece)
}

fn zeros(tar: &mut (impl Read + ?Sized), length: usize, what: &str) -> Result<()> {
    let mut block = [0; BLOCK + END_LEN];
    tar.read_exact(&mut block[..length])?;
    if block[..length].iter().all(|byte| *byte == 0) {
        Ok(())
    } else {
        Err(Wrong::With(format!("{what} is not zeros")))
    }
}

fn at_end(rest: &mut (impl Read + ?Sized), what: &str) -> Result<()> {
    if rest.read(&mut [0])? == 0 {
        Ok(())
    } else {
        Err(Wrong::With(format!("something follows the end of {what}")))
    }
}

/// A reader that counts what was taken from it.
struct Counted<'a, R> {
    archive: R,
    at: &'a Cell<u64>,
}

impl<R: BufRead> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.archive.read(buffer)?;
        self.at.set(self.at.get() + read as u64);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.archive.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        self.at.set(self.at.get() + length as u64);
        self.archive.consume(length);
    }
}
