//! A zstd archive's frames, decoded on several cores.
//!
//! ```text
//! archive ─▶ a frame, by the lengths of its blocks ─▶ decode: on any core ─▶ in their order
//!
//! memory = (cores + 1) × (content + frame) + those whose pieces are held, 8 MiB of content at most
//! ```
//!
//! A frame says what its content's length is, where it was compressed at one go, as segments are.
//! One that does not, such as a staged archive's single one, is read as a stream. Source: RFC 8878.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, BufRead, Chain, Cursor, Read};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, sync_channel};

use bytes::Bytes;
use zstd::bulk::Decompressor;
use zstd::zstd_safe::compress_bound;

use super::decode::{Content, Copied};
use crate::archive::{Cores, Lane};

/// The most that a frame may hold, or a decoder must look back, as a power of two: ours hold a
/// segment of 4 MiB at most.
const MOST_LOG: u32 = 23;
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Magic number and descriptor.
const FIRST: usize = 5;
/// So small a frame is not worth a hand-over, in bytes of content.
const SMALL: usize = 16 << 10;
/// The most frames at work at once: what 8 cores decode is more than is hashed.
const WIDEST: usize = 8;

/// The machine's, for all that is read.
static CORES: LazyLock<Cores> = LazyLock::new(|| Cores::new(Cores::count().min(WIDEST)));

/// The content of an archive.
pub(super) enum Zstd<R: BufRead> {
    Frames(Frames<R>),
    Stream(zstd::stream::read::Decoder<'static, Chain<Cursor<Vec<u8>>, R>>),
}

/// The content of frames that each say its length.
pub(super) struct Frames<R> {
    archive: R,
    /// The header of the next frame, which has been read.
    first: Option<Header>,
    lane: Lane,
    /// Those that are being decoded, in their order.
    coming: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    now: Bytes,
    /// The contents of those before, which whoever took their pieces may still hold.
    spent: VecDeque<Bytes>,
}

/// The header of a frame.
struct Header {
    bytes: Vec<u8>,
    /// The length of its content.
    content: Option<u64>,
    has_checksum: bool,
}

impl<R: BufRead> Zstd<R> {
    pub(super) fn new(mut archive: R) -> io::Result<Self> {
        let first = Header::read(&mut archive)?;
        match first {
            Some(Header {
                bytes,
                content: None,
                ..
            }) => {
                let all = Cursor::new(bytes).chain(archive);
                let mut stream = zstd::stream::read::Decoder::with_buffer(all)?;
                stream.window_log_max(MOST_LOG)?;
                Ok(Self::Stream(stream))
            }
            first => Ok(Self::Frames(Frames {
                archive,
                first,
                lane: CORES.lane(WIDEST),
                coming: VecDeque::new(),
                now: Bytes::new(),
                spent: VecDeque::new(),
            })),
        }
    }
}

impl<R: BufRead> Content for Zstd<R> {
    fn piece(&mut self, most: usize) -> io::Result<Bytes> {
        match self {
            Self::Frames(frames) => frames.piece(most),
            Self::Stream(stream) => Copied(stream).piece(most),
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Frames(frames) => frames.read(into),
            Self::Stream(stream) => stream.read(into),
        }
    }
}

impl Header {
    /// The next frame's; `None` at the archive's end.
    fn read(archive: &mut impl BufRead) -> io::Result<Option<Self>> {
        if archive.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut bytes = vec![0; FIRST];
        archive.read_exact(&mut bytes)?;
        let descriptor = bytes[4];
        if bytes[..4] != MAGIC || descriptor & 0b1000 != 0 {
            return Err(wrong("something else than a zstd frame begins"));
        }
        let is_single = descriptor & 0b10_0000 != 0;
        let before = usize::from(!is_single) + [0, 1, 2, 4][usize::from(descriptor & 0b11)];
        let length = match descriptor >> 6 {
            0 => usize::from(is_single),
            flag => 1 << flag,
        };
        bytes.resize(FIRST + before + length, 0);
        archive.read_exact(&mut bytes[FIRST..])?;
        let mut content = [0; 8];
        content[..length].copy_from_slice(&bytes[FIRST + before..]);
        // Two bytes say what is above 255.
        let content = u64::from_le_bytes(content) + if length == 2 { 256 } else { 0 };
        Ok(Some(Self {
            bytes,
            content: (length > 0).then_some(content),
            has_checksum: descriptor & 0b100 != 0,
        }))
    }

    /// The whole frame, and the length of its content.
    fn frame(self, archive: &mut impl Read) -> io::Result<(Vec<u8>, usize)> {
        let Self {
            bytes: mut frame,
            content,
            has_checksum,
        } = self;
        let content = content.and_then(|content| usize::try_from(content).ok());
        let content = content.filter(|content| *content <= 1 << MOST_LOG);
        let content = content.ok_or_else(|| wrong("a frame is larger than any segment"))?;
        let most = frame.len() + compress_bound(content);
        let mut read = |frame: &mut Vec<u8>, length: usize| {
            let start = frame.len();
            if start + length > most {
                return Err(wrong("a frame is longer than its content"));
            }
            frame.resize(start + length, 0);
            archive.read_exact(&mut frame[start..])
        };
        loop {
            read(&mut frame, 3)?;
            let [a, b, c] = *frame.last_chunk::<3>().unwrap_or(&[0; 3]);
            let block = u32::from_le_bytes([a, b, c, 0]);
            // A block of one byte that is repeated is that byte.
            let length = if block >> 1 & 0b11 == 1 {
                1
            } else {
                block >> 3
            };
            read(&mut frame, length as usize)?;
            if block & 1 == 1 {
                break;
            }
        }
        if has_checksum {
            read(&mut frame, 4)?;
        }
        Ok((frame, content))
    }
}

impl<R: BufRead> Frames<R> {
    /// Hands the next frame over; whether there was one.
    fn put_next(&mut self) -> io::Result<bool> {
        let header = match self.first.take() {
            Some(first) => Some(first),
            None => Header::read(&mut self.archive)?,
        };
        let Some(header) = header else {
            return Ok(false);
        };
        let (frame, content) = header.frame(&mut self.archive)?;
        let (done, decoded) = sync_channel(1);
        let room = self.room();
        let decode = move || {
            // Whoever waited for it may be gone.
            let _ = done.send(decode(&frame, content, room));
        };
        if content < SMALL {
            decode();
        } else {
            self.lane.put(decode);
        }
        self.coming.push_back(decoded);
        Ok(true)
    }

    /// Memory for the next content: that of the oldest one, when nobody holds it any more. New
    /// memory for each is what the system has to empty first.
    fn room(&mut self) -> Vec<u8> {
        let Some(oldest) = self.spent.pop_front() else {
            return Vec::new();
        };
        match oldest.try_into_mut() {
            Ok(room) => room.into(),
            Err(held) => {
                self.spent.push_front(held);
                self.spent.truncate(Cores::count().min(WIDEST));
                Vec::new()
            }
        }
    }

    fn piece(&mut self, most: usize) -> io::Result<Bytes> {
        while self.now.is_empty() {
            while self.coming.len() <= Cores::count().min(WIDEST) && self.put_next()? {}
            let Some(next) = self.coming.pop_front() else {
                return Ok(Bytes::new());
            };
            let broken = |_| io::Error::other("a thread that decodes broke down");
            self.now = next.recv().map_err(broken)??.into();
            self.spent.push_back(self.now.clone());
        }
        Ok(self.now.split_to(most.min(self.now.len())))
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let piece = self.piece(into.len())?;
        into[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

thread_local! {
    static DECODER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Decodes a whole frame into `room`, which grows when it must.
fn decode(frame: &[u8], content: usize, mut room: Vec<u8>) -> io::Result<Vec<u8>> {
    room.clear();
    room.reserve(content);
    DECODER.with_borrow_mut(|decoder| {
        let decoder = match decoder {
            Some(decoder) => decoder,
            none => none.insert(Decompressor::new()?),
        };
        decoder.decompress_to_buffer(frame, &mut room)
    })?;
    if room.len() == content {
        Ok(room)
    } else {
        Err(wrong("a frame does not hold what it says"))
    }
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn read(archive: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        Zstd::new(archive)?.read_to_end(&mut content)?;
        Ok(content)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn frames_of_any_content_come_out_in_their_order(
            contents in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 0..300), 0usize..900, any::<bool>()), 0..12),
        ) {
            let (mut archive, mut all) = (Vec::new(), Vec::new());
            for (bytes, repeat, checksum) in contents {
                let content = bytes.repeat(repeat);
                let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
                compressor.include_checksum(checksum).unwrap();
                archive.extend(compressor.compress(&content).unwrap());
                all.extend(content);
            }
            prop_assert!(read(&archive).unwrap() == all);
        }
    }

    #[test]
    fn what_says_no_length_is_read_as_a_stream_and_what_is_cut_or_changed_is_an_error() {
        let content = b"a row of a table\n".repeat(9000);
        let mut stream = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        stream.write_all(&content).unwrap();
        assert!(read(&stream.finish().unwrap()).unwrap() == content);
        let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
        compressor.include_checksum(true).unwrap();
        let frame = compressor.compress(&content).unwrap();
        for cut in 1..frame.len() {
            assert!(read(&frame[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..frame.len() {
            let mut wrong = frame.clone();
            wrong[at] ^= 0x10;
            assert!(
                read(&wrong).map_or(true, |read| read == content),
                "changed at {at}"
            );
        }
        // A length that nobody would allocate.
        let mut huge = MAGIC.to_vec();
        huge.extend([0b1110_0000, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0]);
        assert!(read(&huge).unwrap_err().to_string().contains("larger than"));
    }
}
