//! The compressors: each is made once, works on one segment at a time, and is kept for the next.
//! gzip's are zlib-rs and, in builds with the feature `isal`, ISA-L for its fast levels.
//!
//! | | a segment becomes | that before it |
//! |---|---|---|
//! | gzip | deflate blocks and a sync flush | is looked back into, 32 KiB, as pigz does |
//! | zstd | a frame | is not known to it |
//! | none | itself | |
//!
//! Looking back is what lets gzip's segments be small: a decoder's window spans them, and without
//! it each would begin with nothing to refer to. A segment is compressed at one go from memory that
//! lies in one piece: a streaming zstd context copies it into a window of its own and searches that
//! as an external dictionary: on a dump in SQL 6% more CPU time at level 1, 30% more at level 3.

use std::io;

use bytes::Bytes;
use flate2::{Compress, FlushCompress};

use super::Compression;

/// How far deflate looks back (RFC 1951, 2: 32,768 bytes).
pub const LOOK_BACK: usize = 32 << 10;

/// A compressor and what it keeps from one segment to the next.
pub struct Codec {
    method: Method,
    /// Room for what any segment compresses to; what is handed on is copied out of it, so that the
    /// memory of a part is what is in it.
    output: Vec<u8>,
}

enum Method {
    Deflate(Compress),
    #[cfg(feature = "isal")]
    FastDeflate(super::isal::Deflate),
    Zstd(zstd::bulk::Compressor<'static>),
    Stored,
}

impl Codec {
    /// A compressor at `level` (see [`Compression::levels`]).
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(compression: Compression, level: i32) -> io::Result<Self> {
        let method = match compression {
            #[cfg(feature = "isal")]
            Compression::Gzip if super::isal::LEVELS.contains(&level.unsigned_abs()) => {
                Method::FastDeflate(super::isal::Deflate::new(level.unsigned_abs()))
            }
            Compression::Gzip => {
                let level = flate2::Compression::new(level.unsigned_abs());
                Method::Deflate(Compress::new(level, false))
            }
            Compression::Zstd => {
                let mut compressor = zstd::bulk::Compressor::new(level)?;
                compressor.include_checksum(true)?;
                Method::Zstd(compressor)
            }
            Compression::None => Method::Stored,
        };
        Ok(Self {
            method,
            output: Vec::new(),
        })
    }

    /// Compresses one segment that follows after bytes that end with `before`.
    ///
    /// # Errors
    /// Only if the compressor itself fails, which no input makes it do.
    pub fn encode(&mut self, before: &[u8], segment: &Bytes) -> io::Result<Bytes> {
        self.output.clear();
        match &mut self.method {
            Method::Deflate(compress) => {
                self.output.reserve(Compression::Gzip.bound(segment.len()));
                deflate(compress, before, segment, &mut self.output)?;
            }
            #[cfg(feature = "isal")]
            Method::FastDeflate(stream) => {
                self.output.reserve(Compression::Gzip.bound(segment.len()));
                stream.deflate(before, segment, &mut self.output)?;
            }
            Method::Zstd(compressor) => {
                self.output.reserve(Compression::Zstd.bound(segment.len()));
                compressor.compress_to_buffer(segment, &mut self.output)?;
            }
            Method::Stored => return Ok(segment.clone()),
        }
        Ok(Bytes::copy_from_slice(&self.output))
    }
}

fn deflate(
    compress: &mut Compress,
    before: &[u8],
    segment: &[u8],
    output: &mut Vec<u8>,
) -> io::Result<()> {
    compress.reset();
    if !before.is_empty() {
        compress.set_dictionary(before)?;
    }
    loop {
        let consumed = usize::try_from(compress.total_in()).map_err(io::Error::other)?;
        compress.compress_vec(&segment[consumed..], output, FlushCompress::Sync)?;
        // Room that is left says that all is out.
        if output.len() < output.capacity() {
            return Ok(());
        }
        output.reserve(LOOK_BACK);
    }
}

impl Compression {
    /// The most bytes that a segment of `segment` bytes takes when encoded.
    pub fn bound(self, segment: usize) -> usize {
        match self {
            // zlib's fastest levels may write any byte with nine bits.
            Compression::Gzip => segment + segment / 8 + 64,
            Compression::Zstd => zstd::zstd_safe::compress_bound(segment),
            // The segment itself is handed on.
            Compression::None => 0,
        }
    }

    /// The most memory that one compressor keeps for segments of `segment` bytes.
    ///
    /// zstd's is what `ZSTD_sizeof_CCtx` says of segments from 128 KiB to 2 MiB, rounded up: tables
    /// that from level 9 on grow with the segment, tenfold, then sixteenfold.
    pub fn state(self, level: i32, segment: usize) -> u64 {
        const KIB: usize = 1 << 10;
        let tables = match (self, level) {
            (Compression::None, _) => 0,
            // zlib-rs's; ISA-L's is 421 KiB.
            (Compression::Gzip, _) => 512 * KIB,
            (Compression::Zstd, ..=2) => 768 * KIB,
            (Compression::Zstd, 3) => 768 * KIB + segment.min(512 * KIB),
            (Compression::Zstd, ..=5) => 3072 * KIB,
            (Compression::Zstd, ..=8) => 6144 * KIB,
            (Compression::Zstd, ..=12) => 2048 * KIB + 11 * segment,
            (Compression::Zstd, _) => 2048 * KIB + 17 * segment,
        };
        (tables + self.bound(segment)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zstd_context_keeps_no_more_than_is_counted_for_it() {
        let mut bytes = vec![0; 1 << 20];
        fastrand::Rng::with_seed(5).fill(&mut bytes);
        for level in [1, 2, 3, 4, 5, 6, 8, 9, 12, 13, 15, 19] {
            for segment in [128 << 10, 256 << 10, 1 << 20] {
                let segment = Bytes::copy_from_slice(&bytes[..segment]);
                let mut codec = Codec::new(Compression::Zstd, level).unwrap();
                codec.encode(&[], &segment).unwrap();
                let Method::Zstd(context) = &mut codec.method else {
                    panic!("it is zstd's");
                };
                let kept = context.context_mut().sizeof() + codec.output.capacity();
                let counted = Compression::Zstd.state(level, segment.len());
                assert!(kept as u64 <= counted, "{level}, {}: {kept}", segment.len());
            }
        }
    }

    #[test]
    fn small_gzip_segments_look_back_and_cost_no_ratio() {
        let mut dump = Vec::new();
        let synthetic: crate::bench::synthetic::Synthetic = "4MiB:4".parse().unwrap();
        synthetic.write(&mut dump).unwrap();
        let dump = Bytes::from(dump);
        let size = |segment: usize, look_back: usize| -> usize {
            let mut codec = Codec::new(Compression::Gzip, 6).unwrap();
            (0..dump.len())
                .step_by(segment)
                .map(|start| {
                    let before = &dump[start.saturating_sub(look_back)..start];
                    let segment = dump.slice(start..dump.len().min(start + segment));
                    codec.encode(before, &segment).unwrap().len()
                })
                .sum()
        };
        let (whole, small) = (size(4 << 20, 0), size(128 << 10, LOOK_BACK));
        assert!(small * 1000 <= whole * 1005, "{small} instead of {whole}");
        assert!(small < size(128 << 10, 0), "looking back is worth it");
    }
}
