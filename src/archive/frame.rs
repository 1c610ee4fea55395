//! The compression layer of an archive: a head of fixed length that holds the tar header
//! uncompressed, bodies compressed one segment at a time and in any order, and a tail that closes
//! the stream.
//!
//! | | head | body of a segment | tail |
//! |---|---|---|---|
//! | gzip | gzip header, a *stored* block | deflate blocks, a sync flush | the final stored block, CRC-32, size |
//! | zstd | a frame of one raw block | a frame | a frame of one raw block |
//! | none | the tar header | the segment | the padding |
//!
//! gzip is one single member: several are legal (RFC 1952), but many readers stop after the first
//! or worse. A sync flush ends on a byte (RFC 1951, 3.2.4: an empty stored block), so bodies
//! concatenate. Sources: RFC 1951, RFC 1952, RFC 8878.

use bytes::Bytes;

use super::Compression;
use super::tar::HEADER_LEN;
use crate::store::{Checksum, ChecksumKind};

const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
const STORED_LEN: usize = 5;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const RAW_FRAME_LEN: usize = 10;

/// What is in an archive so far, uncompressed: what closes a gzip member.
#[derive(Debug, Clone, Copy)]
pub struct Content {
    length: u64,
    crc32: Checksum,
}

impl Content {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            length: bytes.len() as u64,
            crc32: Checksum::of(ChecksumKind::Crc32, bytes),
        }
    }

    /// Of these bytes and the next ones.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        Self {
            length: self.length + next.length,
            crc32: self.crc32.then(next.crc32, next.length),
        }
    }
}

impl Compression {
    /// Length of the head, in bytes.
    pub fn head_len(self) -> usize {
        HEADER_LEN
            + match self {
                Compression::Gzip => GZIP_HEADER.len() + STORED_LEN,
                Compression::Zstd => RAW_FRAME_LEN,
                Compression::None => 0,
            }
    }

    /// The head that holds a tar header.
    pub fn head(self, tar_header: &[u8; HEADER_LEN]) -> Bytes {
        match self {
            Compression::Gzip => [&GZIP_HEADER[..], &stored(tar_header, false)]
                .concat()
                .into(),
            Compression::Zstd => raw_frame(tar_header).into(),
            Compression::None => Bytes::copy_from_slice(tar_header),
        }
    }

    /// What ends the archive: `padding` zero bytes of tar, and the compression's own trailer.
    /// `content` is the tar header and every segment.
    pub fn tail(self, padding: usize, content: Content) -> Bytes {
        let zeros = vec![0; padding];
        match self {
            Compression::Gzip => {
                let Content { length, crc32 } = content.then(Content::of(&zeros));
                let mut tail = stored(&zeros, true);
                // ISIZE is the length modulo 2^32.
                #[expect(clippy::cast_possible_truncation)]
                let trailer = [crc32.value() as u32, length as u32];
                tail.extend(trailer.iter().flat_map(|field| field.to_le_bytes()));
                tail.into()
            }
            Compression::Zstd => raw_frame(&zeros).into(),
            Compression::None => zeros.into(),
        }
    }
}

/// A stored deflate block, preceded by nothing and aligned to bytes because all around it is.
fn stored(data: &[u8], last: bool) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("a stored block holds at most 65,535 bytes");
    let mut block = vec![u8::from(last)];
    block.extend(length.to_le_bytes());
    block.extend((!length).to_le_bytes());
    block.extend(data);
    block
}

/// A zstd frame of one raw block, for 256 to 65,791 bytes (the range of a two-byte content size).
fn raw_frame(data: &[u8]) -> Vec<u8> {
    const SINGLE_SEGMENT_TWO_BYTE_SIZE: u8 = 0b0110_0000;
    let size = u16::try_from(data.len() - 256).expect("heads and tails are small");
    let block = u32::try_from(data.len()).expect("as above") << 3 | 1; // raw, the last one
    let mut frame = ZSTD_MAGIC.to_vec();
    frame.push(SINGLE_SEGMENT_TWO_BYTE_SIZE);
    frame.extend(size.to_le_bytes());
    frame.extend(&block.to_le_bytes()[..3]);
    frame.extend(data);
    frame
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::super::codec::{Codec, LOOK_BACK};
    use super::super::tar::{END_LEN, TarHeader, padding};
    use super::*;

    /// A level of each way to compress.
    const ALL: [(Compression, i32); 8] = [
        (Compression::Gzip, 1),
        (Compression::Gzip, 2),
        (Compression::Gzip, 3),
        (Compression::Gzip, 6),
        (Compression::Gzip, 9),
        (Compression::Zstd, 1),
        (Compression::Zstd, 6),
        (Compression::None, 0),
    ];

    fn archive(compression: Compression, level: i32, segments: &[Vec<u8>]) -> (TarHeader, Vec<u8>) {
        let size = segments.iter().map(|segment| segment.len() as u64).sum();
        let header = TarHeader {
            name: "dump".into(),
            size,
            sha256: Some([1; 32]),
        };
        let bytes = header.to_bytes();
        let mut content = Content::of(&bytes);
        let mut codec = Codec::new(compression, level).unwrap();
        let mut before: &[u8] = &[];
        let mut archive = compression.head(&bytes).to_vec();
        assert_eq!(archive.len(), compression.head_len());
        for segment in segments {
            let encoded = codec.encode(before, &Bytes::from(segment.clone())).unwrap();
            assert!(encoded.len() <= compression.bound(segment.len()).max(segment.len()));
            content = content.then(Content::of(segment));
            archive.extend_from_slice(&encoded);
            before = &segment[segment.len().saturating_sub(LOOK_BACK)..];
        }
        archive.extend_from_slice(&compression.tail(padding(size) + END_LEN, content));
        (header, archive)
    }

    fn decode(compression: Compression, archive: &[u8]) -> Vec<u8> {
        let mut tar = Vec::new();
        match compression {
            // The single-member decoder: a second member would be left over.
            Compression::Gzip => {
                let mut decoder = flate2::bufread::GzDecoder::new(archive);
                decoder.read_to_end(&mut tar).unwrap();
                assert!(decoder.into_inner().is_empty());
            }
            Compression::Zstd => {
                zstd::stream::read::Decoder::new(archive)
                    .unwrap()
                    .read_to_end(&mut tar)
                    .unwrap();
            }
            Compression::None => tar = archive.to_vec(),
        }
        tar
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn any_dump_cut_any_way_is_a_tar_of_it(
            segments in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..9000), 0..6),
            repeat in 1usize..60,
        ) {
            let segments: Vec<Vec<u8>> = segments.into_iter().map(|segment| segment.repeat(repeat)).collect();
            for (compression, level) in ALL {
                let (header, archive) = archive(compression, level, &segments);
                let tar = decode(compression, &archive);
                let dump = segments.concat();
                prop_assert_eq!(&tar[..HEADER_LEN], &header.to_bytes());
                prop_assert_eq!(&tar[HEADER_LEN..][..dump.len()], &dump[..]);
                prop_assert!(tar[HEADER_LEN + dump.len()..].iter().all(|byte| *byte == 0));
                prop_assert_eq!(tar.len() % 512, 0);
            }
        }
    }

    #[test]
    fn incompressible_segments_keep_to_the_bound_at_every_level() {
        let mut segment = vec![0; (4 << 20) + 1];
        fastrand::Rng::with_seed(1).fill(&mut segment);
        let segment = Bytes::from(segment);
        for (compression, level) in ALL {
            let mut codec = Codec::new(compression, level).unwrap();
            for before in [&[][..], &segment[..LOOK_BACK]] {
                let encoded = codec.encode(before, &segment).unwrap();
                let bound = compression.bound(segment.len()).max(segment.len());
                assert!(
                    encoded.len() <= bound,
                    "{compression:?} {level}: {}",
                    encoded.len()
                );
            }
        }
    }
}
