//! The checksums that S3 keeps of parts and objects, and how the parts' combine into the object's.
//!
//! Both are CRCs, so the checksum of joined bytes follows from the pieces' checksums and lengths
//! alone: the whole object's value is known although its first part is made last. Source:
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcParams, checksum_with_params};
use serde::{Deserialize, Serialize};

/// Which checksum a store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChecksumKind {
    /// CRC-64/NVME, what AWS recommends for full objects.
    Crc64Nvme,
    /// CRC-32 (ISO HDLC), understood by older servers.
    Crc32,
}

impl ChecksumKind {
    /// What crc-fast is to compute. Its `Digest` is compiled into the crate that uses it, and is slower
    /// than a compressor where that crate is not optimised; what takes parameters is not.
    fn params(self) -> &'static CrcParams {
        static PARAMS: LazyLock<[CrcParams; 2]> = LazyLock::new(|| {
            [ChecksumKind::Crc64Nvme, ChecksumKind::Crc32].map(|kind| {
                let bits = 8 * kind.width();
                let (unused, ones) = (64 - bits, u64::MAX >> (64 - bits));
                let polynomial = kind.polynomial().reverse_bits() >> unused;
                let width = u8::try_from(bits).expect("64 at most");
                CrcParams::new("", width, polynomial, ones, true, ones, 0)
            })
        });
        &PARAMS[self as usize]
    }

    fn width(self) -> usize {
        match self {
            ChecksumKind::Crc64Nvme => 8,
            ChecksumKind::Crc32 => 4,
        }
    }

    /// The CRC's polynomial as a reflected CRC writes it: the highest bit stands for x⁰.
    fn polynomial(self) -> u64 {
        match self {
            ChecksumKind::Crc64Nvme => 0x9a6c_9329_ac4b_c9b5,
            ChecksumKind::Crc32 => 0xedb8_8320,
        }
    }

    /// What `value` adds to the CRC of something `length` bytes longer: `value × x^(8 × length)`.
    ///
    /// crc-fast's `checksum_combine` gives the same and takes 200 µs for CRC-64, as long as the
    /// checksum of 6 MB does, which is too much for every piece of an archive.
    fn shift(self, value: u64, length: u64) -> u64 {
        // x⁸, then x¹⁶, x³², …: a multiplication for each binary digit of the length that is set.
        let mut power = 1 << (8 * self.width() - 9);
        let (mut shifted, mut left) = (value, length);
        while left > 0 {
            if left & 1 == 1 {
                shifted = self.times(shifted, power);
            }
            power = self.times(power, power);
            left >>= 1;
        }
        shifted
    }

    /// The product of two polynomials modulo this one's.
    fn times(self, a: u64, mut b: u64) -> u64 {
        let polynomial = self.polynomial();
        (0..8 * self.width()).rev().fold(0, |product, bit| {
            let term = b & (a >> bit & 1).wrapping_neg();
            b = b >> 1 ^ polynomial & (b & 1).wrapping_neg();
            product ^ term
        })
    }
}

/// A checksum of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum {
    kind: ChecksumKind,
    value: u64,
}

impl Checksum {
    /// The checksum of `bytes`.
    pub fn of(kind: ChecksumKind, bytes: &[u8]) -> Self {
        Self {
            kind,
            value: checksum_with_params(*kind.params(), bytes),
        }
    }

    /// The checksum of buffers that follow one another.
    pub fn of_buffers<'a>(kind: ChecksumKind, buffers: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut digest = Digest::new(kind);
        for buffer in buffers {
            digest.update(buffer);
        }
        digest.finish()
    }

    /// The checksum of this one's bytes followed by the `next_len` bytes of `next`.
    ///
    /// # Panics
    /// When the two are of different kinds.
    #[must_use]
    pub fn then(self, next: Checksum, next_len: u64) -> Self {
        assert_eq!(
            self.kind, next.kind,
            "checksums of two kinds do not combine"
        );
        Self {
            kind: self.kind,
            value: self.kind.shift(self.value, next_len) ^ next.value,
        }
    }

    /// Which checksum it is.
    pub fn kind(self) -> ChecksumKind {
        self.kind
    }

    /// The value itself.
    pub fn value(self) -> u64 {
        self.value
    }

    /// The value as S3 writes it: base64 of the big-endian bytes.
    pub fn to_base64(self) -> String {
        STANDARD.encode(&self.value.to_be_bytes()[8 - self.kind.width()..])
    }

    /// Reads what [`Checksum::to_base64`] writes; `None` when it is not that.
    pub fn from_base64(kind: ChecksumKind, text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        if bytes.len() != kind.width() {
            return None;
        }
        let mut padded = [0; 8];
        padded[8 - bytes.len()..].copy_from_slice(&bytes);
        Some(Self {
            kind,
            value: u64::from_be_bytes(padded),
        })
    }
}

/// A checksum in the making.
pub struct Digest {
    kind: ChecksumKind,
    /// They begin where the bytes so far have led to.
    params: CrcParams,
}

impl Digest {
    /// Of no bytes yet.
    pub fn new(kind: ChecksumKind) -> Self {
        Self {
            kind,
            params: CrcParams {
                xorout: 0,
                ..*kind.params()
            },
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.params.init_algorithm = checksum_with_params(self.params, bytes);
    }

    /// The checksum of all of them.
    pub fn finish(self) -> Checksum {
        Checksum {
            kind: self.kind,
            value: self.params.init_algorithm ^ self.kind.params().xorout,
        }
    }
}

#[cfg(test)]
mod tests {
    use crc_fast::checksum_combine_with_params;

    use super::*;

    #[test]
    fn joined_checksums_are_the_checksum_of_what_is_joined() {
        let mut bytes = vec![0; 70_000];
        fastrand::Rng::with_seed(3).fill(&mut bytes);
        for kind in [ChecksumKind::Crc64Nvme, ChecksumKind::Crc32] {
            for at in [0, 1, 255, 256, 257, 65_536, bytes.len()] {
                let (before, after) = bytes.split_at(at);
                let joined =
                    Checksum::of(kind, before).then(Checksum::of(kind, after), after.len() as u64);
                assert_eq!(joined, Checksum::of(kind, &bytes), "{kind:?} at {at}");
            }
            // The slow way that the crate has, for lengths that no test can hold.
            let (a, b) = (Checksum::of(kind, b"a"), Checksum::of(kind, b"b"));
            for length in [1 << 33, (5 << 40) + 12_345] {
                let params = *kind.params();
                let slow = checksum_combine_with_params(params, a.value, b.value, length);
                assert_eq!(a.then(b, length).value, slow, "{kind:?} {length}");
            }
        }
    }

    /// The check values of the CRC catalogue for `123456789`.
    #[test]
    fn known_values() {
        for (kind, value) in [
            (ChecksumKind::Crc64Nvme, 0xae8b_1486_0a79_9888),
            (ChecksumKind::Crc32, 0xcbf4_3926),
        ] {
            let whole = Checksum::of(kind, b"123456789");
            assert_eq!(whole.value, value);
            assert_eq!(
                Checksum::of(kind, b"1234").then(Checksum::of(kind, b"56789"), 5),
                whole
            );
            assert_eq!(
                Checksum::of_buffers(kind, [&b"12"[..], b"3456", b"789"]),
                whole
            );
            assert_eq!(Checksum::from_base64(kind, &whole.to_base64()), Some(whole));
        }
    }
}
