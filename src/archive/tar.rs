//! The tar layer of an archive: one header of fixed length, the dump, padding, two zero blocks.
//!
//! ```text
//! 512  ustar header of a PAX extended header (type x)
//! 512  its records: size=<20 digits>, comment=sha256=<64 hex digits>, and path=<name> where ustar's will not do
//! 512  ustar header of the dump
//! ```
//!
//! The length does not depend on the size or the hash, so the header can be written after the dump.
//! Format: POSIX.1-2017 pax, "pax Interchange Format" and "ustar Interchange Format",
//! <https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html>. Over 8 GiB the ustar size
//! is in GNU's base-256 form besides, for readers that know no PAX.

/// What everything in a tar archive is a multiple of, in bytes.
pub const BLOCK: usize = 512;

/// Length of the header before the dump, in bytes.
pub const HEADER_LEN: usize = 3 * BLOCK;

/// Length of what ends a tar archive, two blocks of zeros, in bytes.
pub const END_LEN: usize = 2 * BLOCK;

/// The longest name that a dump may have in an archive, in bytes: its PAX record must fit beside
/// the others.
pub const MAX_NAME: usize = 255;

const NAME_FIELD: usize = 100;
const SIZE_DIGITS: usize = 20;
const MAX_OCTAL_SIZE: u64 = 0o77_777_777_777;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarHeader {
    /// File name, 1 to [`MAX_NAME`] bytes of UTF-8 with no slash and no NUL.
    pub name: String,
    /// Size of the dump, in bytes.
    pub size: u64,
    /// SHA-256 of the dump; a staged archive, written before its files' hashes are known, has none
    /// in its headers.
    pub sha256: Option<[u8; 32]>,
}

impl TarHeader {
    /// The header as it stands in the archive.
    ///
    /// # Panics
    /// When the name is longer than [`MAX_NAME`].
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        assert!(self.name.len() <= MAX_NAME, "the inventory limits names");
        let mut records = record("size", &format!("{:0SIZE_DIGITS$}", self.size));
        if let Some(sha256) = &self.sha256 {
            records += &record("comment", &format!("sha256={}", hex(sha256)));
        }
        if self.name.len() > NAME_FIELD || !self.name.is_ascii() {
            records += &record("path", &self.name);
        }
        let mut header = [0; HEADER_LEN];
        let (extended, dump) = header.split_at_mut(2 * BLOCK);
        ustar(
            &mut extended[..BLOCK],
            b"PaxHeaders/dump",
            records.len() as u64,
            b'x',
        );
        extended[BLOCK..][..records.len()].copy_from_slice(records.as_bytes());
        ustar(dump, self.name.as_bytes(), self.size, b'0');
        header
    }

    /// Reads what [`TarHeader::to_bytes`] wrote.
    ///
    /// # Errors
    /// Says what is not as tapline writes it.
    pub fn from_bytes(header: &[u8; HEADER_LEN]) -> Result<Self, String> {
        let records = str::from_utf8(&header[BLOCK..2 * BLOCK]).map_err(
            |_| "the tar header is not one that tapline writes: its PAX records are not text",
        )?;
        let value = |key: &str| {
            let mut rest = records;
            while let Some((length, _)) = rest.split_once(' ') {
                let length: usize = length.parse().ok()?;
                let line = rest.get(length.checked_sub(rest.len().min(length))?..length)?;
                let (name, value) = line
                    .split_once(' ')?
                    .1
                    .strip_suffix('\n')?
                    .split_once('=')?;
                if name == key {
                    return Some(value.to_owned());
                }
                rest = &rest[length..];
            }
            None
        };
        let missing = |key: &str| {
            format!("the tar header is not one that tapline writes: it has no PAX record {key}")
        };
        let size = value("size")
            .and_then(|size| size.parse().ok())
            .ok_or_else(|| missing("size"))?;
        let sha256 = match value("comment") {
            Some(comment) => Some(
                comment
                    .strip_prefix("sha256=")
                    .and_then(unhex)
                    .ok_or_else(|| missing("comment=sha256"))?,
            ),
            None => None,
        };
        let field = &header[2 * BLOCK..][..NAME_FIELD];
        let field = &field[..field
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(NAME_FIELD)];
        let name = value("path").unwrap_or_else(|| String::from_utf8_lossy(field).into_owned());
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(
                "the tar header is not one that tapline writes: it has no file name".into(),
            );
        }
        let read = Self { name, size, sha256 };
        // Everything else in it is fixed, so one comparison finds any other damage.
        if read.to_bytes() == *header {
            Ok(read)
        } else {
            Err("the tar header is damaged".into())
        }
    }
}

/// How many zero bytes follow a file of `size` bytes, to the end of its block.
pub fn padding(size: u64) -> usize {
    let rest = usize::try_from(size % BLOCK as u64).expect("less than a block");
    (BLOCK - rest) % BLOCK
}

/// A PAX record: its own length in decimal, a space, `key=value`, a line break.
fn record(key: &str, value: &str) -> String {
    let body = key.len() + value.len() + 3;
    let digits = |length: usize| length.to_string().len();
    let mut length = body + digits(body);
    length = body + digits(length);
    format!("{length} {key}={value}\n")
}

fn ustar(block: &mut [u8], name: &[u8], size: u64, kind: u8) {
    let name = &name[..name.len().min(NAME_FIELD)];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000600\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    if size <= MAX_OCTAL_SIZE {
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    } else {
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    block[136..148].copy_from_slice(b"00000000000\0");
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    // The checksum is of the header with the checksum field full of spaces.
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Lower-case hex digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |digits, byte| {
        digits + &format!("{byte:02x}")
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Where a header has its digest's digits.
    fn digest_of(header: &[u8]) -> std::ops::Range<usize> {
        let start = memchr::memmem::find(header, b"sha256=").unwrap() + "sha256=".len();
        start..start + 64
    }

    proptest! {
        #[test]
        fn any_header_reads_back(name in "[^/\\x00]{1,60}", size: u64, sha256: Option<[u8; 32]>) {
            let header = TarHeader { name, size, sha256 };
            prop_assert_eq!(TarHeader::from_bytes(&header.to_bytes()), Ok(header));
        }

        #[test]
        fn any_flipped_bit_is_found_and_nothing_panics(at in 0..HEADER_LEN, bit in 0..8u8, size: u64) {
            let header = TarHeader { name: "größe.sql".into(), size, sha256: Some([7; 32]) };
            let mut bytes = header.to_bytes();
            bytes[at] ^= 1u8 << bit;
            let read = TarHeader::from_bytes(&bytes);
            // Any digest is one; what it is of is looked at by who has read that.
            if digest_of(&header.to_bytes()).contains(&at) {
                prop_assert!(read != Ok(header));
            } else {
                prop_assert!(read.is_err());
            }
        }

        #[test]
        fn a_header_with_anything_else_in_it_is_refused(
            at in 0..HEADER_LEN, other in proptest::collection::vec(any::<u8>(), 1..64), size: u64,
        ) {
            let header = TarHeader { name: "shop.sql".into(), size, sha256: Some([7; 32]) };
            let mut bytes = header.to_bytes();
            let end = HEADER_LEN.min(at + other.len());
            bytes[at..end].copy_from_slice(&other[..end - at]);
            if let Ok(read) = TarHeader::from_bytes(&bytes) {
                prop_assert_eq!(TarHeader { sha256: header.sha256, ..read }, header);
            }
        }
    }

    #[test]
    fn longest_names_fit() {
        for name in [
            "x".repeat(MAX_NAME),
            "ü".repeat(MAX_NAME / 2),
            "x".repeat(100),
            "x".repeat(101),
        ] {
            let header = TarHeader {
                name,
                size: u64::MAX,
                sha256: Some([0xff; 32]),
            };
            assert_eq!(TarHeader::from_bytes(&header.to_bytes()), Ok(header));
        }
    }

    #[test]
    fn padding_ends_on_a_block() {
        for (size, zeros) in [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511)] {
            assert_eq!(padding(size), zeros);
        }
    }
}
