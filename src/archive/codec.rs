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
use flate2::{Compress, FlushCompress, Status};

use super::Compression;
use super::tar::HEADER_LEN;

/// Compressed bytes come in buffers of this size: none is much larger than what is in it,
/// so the memory of a part is what a part holds.
const BUFFER: usize = 128 << 10;

const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
const STORED_LEN: usize = 5;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const RAW_FRAME_LEN: usize = 10;

/// A segment's part of the archive.
#[derive(Debug)]
pub struct Encoded {
    /// Its bytes, in order.
    pub buffers: Vec<Bytes>,
    /// Its share of the stream's CRC-32; only gzip has one.
    pub crc: crc32fast::Hasher,
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

    /// Compresses one segment at `level` (see [`Compression::levels`]).
    ///
    /// # Errors
    /// Only if the compressor itself fails, which no input makes it do.
    pub fn encode(self, level: i32, segment: &Bytes) -> std::io::Result<Encoded> {
        let mut crc = crc32fast::Hasher::new();
        let buffers = match self {
            Compression::Gzip => {
                crc.update(segment);
                deflate(level, segment)?
            }
            Compression::Zstd => zstd_frame(level, segment)?,
            Compression::None => vec![segment.clone()],
        };
        Ok(Encoded { buffers, crc })
    }

    /// The most bytes that a segment of `segment` bytes takes when encoded, whole buffers counted.
    pub fn bound(self, segment: usize) -> usize {
        match self {
            // zlib's fastest levels may write any byte with nine bits.
            Compression::Gzip => (segment + segment / 8 + 64).next_multiple_of(BUFFER),
            Compression::Zstd => zstd::zstd_safe::compress_bound(segment),
            // The segment itself is handed on.
            Compression::None => 0,
        }
    }

    /// About how much memory one compressor takes while it works on a segment of `segment` bytes.
    pub fn state(self, level: i32, segment: usize) -> u64 {
        let segment = segment as u64;
        match self {
            Compression::Gzip => 512 << 10,
            // Tables of 4-byte entries, at most twice as many as bytes in the window, and a window
            // of the segment.
            Compression::Zstd if level <= 3 => (4 << 20) + 2 * segment,
            Compression::Zstd if level <= 9 => (8 << 20) + 4 * segment,
            Compression::Zstd => (8 << 20) + 16 * segment,
            Compression::None => 0,
        }
    }

    /// What ends the archive: `padding` zero bytes of tar, and the compression's own trailer.
    /// `content` is the CRC-32 of the tar header and every segment, in order.
    pub fn tail(self, padding: usize, content: &crc32fast::Hasher) -> Bytes {
        let zeros = vec![0; padding];
        match self {
            Compression::Gzip => {
                let (mut crc, mut length) = (content.clone(), content.total_len());
                crc.update(&zeros);
                length += padding as u64;
                let mut tail = stored(&zeros, true);
                tail.extend(crc.finalize().to_le_bytes());
                // ISIZE is the length modulo 2^32.
                #[expect(clippy::cast_possible_truncation)]
                tail.extend((length as u32).to_le_bytes());
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

fn deflate(level: i32, segment: &[u8]) -> std::io::Result<Vec<Bytes>> {
    let mut compress = Compress::new(flate2::Compression::new(level.unsigned_abs()), false);
    let mut buffers = Vec::new();
    loop {
        let mut buffer = Vec::with_capacity(BUFFER);
        let consumed = usize::try_from(compress.total_in()).expect("a segment is in memory");
        let status =
            compress.compress_vec(&segment[consumed..], &mut buffer, FlushCompress::Sync)?;
        // A full buffer means that there may be more, unless there was nothing left to flush.
        let done = status == Status::BufError || buffer.len() < BUFFER;
        buffer.shrink_to_fit();
        if !buffer.is_empty() {
            buffers.push(buffer.into());
        }
        if done {
            return Ok(buffers);
        }
    }
}

fn zstd_frame(level: i32, segment: &[u8]) -> std::io::Result<Vec<Bytes>> {
    let mut encoder = zstd::stream::write::Encoder::new(Buffers::default(), level)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(segment.len() as u64))?;
    std::io::Write::write_all(&mut encoder, segment)?;
    Ok(encoder.finish()?.into_list())
}

/// Collects what is written in buffers of [`BUFFER`] bytes.
#[derive(Default)]
struct Buffers {
    full: Vec<Bytes>,
    filling: Vec<u8>,
}

impl Buffers {
    fn into_list(mut self) -> Vec<Bytes> {
        self.filling.shrink_to_fit();
        self.full.push(self.filling.into());
        self.full
    }
}

impl std::io::Write for Buffers {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        if self.filling.len() == BUFFER {
            self.full.push(std::mem::take(&mut self.filling).into());
        }
        self.filling.reserve_exact(if self.filling.capacity() == 0 {
            BUFFER
        } else {
            0
        });
        let taken = data.len().min(BUFFER - self.filling.len());
        self.filling.extend_from_slice(&data[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::super::tar::{END_LEN, TarHeader, padding};
    use super::*;

    const ALL: [Compression; 3] = [Compression::Gzip, Compression::Zstd, Compression::None];

    fn archive(compression: Compression, segments: &[Vec<u8>]) -> (TarHeader, Vec<u8>) {
        let size = segments.iter().map(|segment| segment.len() as u64).sum();
        let header = TarHeader {
            name: "dump".into(),
            size,
            sha256: Some([1; 32]),
        };
        let bytes = header.to_bytes();
        let mut content = crc32fast::Hasher::new();
        content.update(&bytes);
        let mut archive = compression.head(&bytes).to_vec();
        assert_eq!(archive.len(), compression.head_len());
        for segment in segments {
            let encoded = compression
                .encode(compression.levels().1, &Bytes::from(segment.clone()))
                .unwrap();
            let length: usize = encoded.buffers.iter().map(Bytes::len).sum();
            assert!(length <= compression.bound(segment.len()).max(segment.len()));
            content.combine(&encoded.crc);
            encoded
                .buffers
                .iter()
                .for_each(|buffer| archive.extend_from_slice(buffer));
        }
        archive.extend_from_slice(&compression.tail(padding(size) + END_LEN, &content));
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
            for compression in ALL {
                let (header, archive) = archive(compression, &segments);
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
        for compression in [Compression::Gzip, Compression::Zstd] {
            for level in [*compression.levels().0.start(), 6, 9] {
                let encoded = compression
                    .encode(level, &Bytes::from(segment.clone()))
                    .unwrap();
                let held: usize = encoded.buffers.iter().map(Bytes::len).sum();
                assert!(
                    held <= compression.bound(segment.len()),
                    "{compression:?} {level}: {held}"
                );
            }
        }
    }
}
