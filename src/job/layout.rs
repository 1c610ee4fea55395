//! A job's sizes, all fixed before its first byte.
//!
//! ```text
//! memory = (held part + part being filled + in_flight) × part
//!        + (workers + feeds) × (segment + its compressed bound) + workers × codec
//!        + (workers + 1) × what that is sealed to, when it is encrypted
//! ```
//!
//! Nothing in it depends on the dump's size, so a job that starts can also end: without this, a
//! large part (wanted for a large dump) times a deep window times many jobs meets the machine's
//! limit hours into a run.
//!
//! **Cores come first**, and may take two thirds of the memory; then segments are as large as two
//! fifths allow. The other way round, 128 MiB used four of 32 cores. What small segments cost is
//! little: gzip's look back into the one before, zstd's begin anew.
//!
//! The part is chosen from the expected size so that the store's limit on parts is not reached, and
//! capped by the memory. Where both cannot be had, memory wins and the archive gets further
//! volumes. What is left is the window: one connection carries some 20 MB/s (what AWS's own
//! transfer manager counts on), so four of them are slower than one disk.

use serde::Serialize;

use crate::archive::Compression;
use crate::cipher::Envelope;
use crate::deposit::Window;
use crate::store::Limits;

const MIB: u64 = 1 << 20;
/// What is compressed at once: large enough that zstd's frames find what repeats, small enough to
/// have many.
const SEGMENTS: [usize; 6] = [4 << 20, 2 << 20, 1 << 20, 512 << 10, 256 << 10, 128 << 10];
/// The same where nothing is compressed. A part that ends within a segment keeps all of it.
const PLAIN_SEGMENTS: [usize; 6] = [1 << 20, 512 << 10, 256 << 10, 128 << 10, 64 << 10, 32 << 10];
/// Parts on their way at once. Two, so that one is on its way while the store answers for the
/// other; 64 are what 10 Gbit/s take at 20 MB/s each.
const IN_FLIGHT: std::ops::RangeInclusive<u64> = 2..=64;
/// Parts in memory that are not on their way: the held one, and the one being filled.
const AT_HOME: u64 = 2;
/// The part size when nothing calls for more.
const SMALL_PART: u64 = 8 * MIB;
/// An estimate may be this much too low before the parts run out.
const MARGIN: f64 = 1.25;

/// A job's sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// Size of a segment, in bytes.
    pub segment: usize,
    /// Segments being compressed at once.
    pub workers: usize,
    /// Segments being filled at once: one, or one for each session of a parallel dump.
    pub feeds: usize,
    /// Size of a part, in bytes.
    pub part: u64,
    /// Parts on their way to a store at once; the held one and the one being filled are not counted.
    pub in_flight: usize,
    /// Most parts in a volume.
    pub max_parts: u32,
    /// The dump's expected size, in bytes, where one is known.
    pub expected: Option<u64>,
    /// The most memory that the job's data path takes, in bytes.
    pub memory: u64,
}

impl Layout {
    /// The sizes of the parts, whose SHA-256 is wanted or not.
    pub fn window(&self, sha256: bool) -> Window {
        Window {
            sha256,
            part: self.part,
            in_flight: self.in_flight,
            max_parts: self.max_parts,
        }
    }

    /// Chooses the sizes for a job that may take `memory` bytes, on a machine with `cores`; with as
    /// many parts on their way as its stores' limits ask for and memory allows.
    ///
    /// # Errors
    /// When `memory` is too little for the store's smallest part: the least that would do, in
    /// bytes.
    pub fn new(
        memory: u64,
        cores: usize,
        limits: Limits,
        compression: (Compression, i32),
        encrypted: bool,
        expected: Option<u64>,
    ) -> Result<Self, u64> {
        let feeds = (1, 1, encrypted);
        Self::with_feeds(feeds, memory, cores, limits, compression, expected)
    }

    /// The same where `feeds` segments are filled at once, and the parts go to so many `stores`.
    ///
    /// # Errors
    /// As for [`Layout::new`].
    pub fn with_feeds(
        (feeds, stores, encrypted): (usize, usize, bool),
        memory: u64,
        cores: usize,
        limits: Limits,
        compression: (Compression, i32),
        expected: Option<u64>,
    ) -> Result<Self, u64> {
        let (segments, surplus) = match compression.0 {
            // A part keeps the whole of a segment that it ends in, where that is not compressed.
            Compression::None => (PLAIN_SEGMENTS, PLAIN_SEGMENTS[0] as u64),
            Compression::Gzip | Compression::Zstd => (SEGMENTS, 0),
        };
        let stores = stores.max(1) as u64;
        let least = (AT_HOME + stores) * (limits.min_part + surplus);
        let encode = |segment: usize, workers: usize| {
            encoder_memory(segment, workers, compression, encrypted)
                + feeds_memory(segment, feeds, compression)
        };
        let smallest = segments[segments.len() - 1];
        let for_cores = (memory / 3 * 2).min(memory.saturating_sub(least));
        let workers = (1..=cores)
            .rev()
            .find(|workers| encode(smallest, *workers) <= for_cores)
            .unwrap_or(1);
        let segment = segments
            .into_iter()
            .find(|segment| encode(*segment, workers) <= (memory / 5 * 2).min(for_cores))
            .unwrap_or(smallest);
        let encode = encode(segment, workers);
        let for_parts = memory.saturating_sub(encode);
        if for_parts < least {
            return Err(least.saturating_add(encode));
        }
        // A part is in memory once however many stores it is on its way to; at worst none of them
        // is at the same.
        let fit = |part: u64| (for_parts / (part + surplus)).saturating_sub(AT_HOME) / stores;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let needed = expected.map_or(0, |size| {
            (size as f64 * MARGIN / f64::from(limits.max_parts)) as u64
        });
        let wanted = needed
            .clamp(SMALL_PART, limits.max_part.max(SMALL_PART))
            .next_multiple_of(MIB)
            .clamp(limits.min_part, limits.max_part);
        // As deep a window as parts of the wanted size leave, and smaller parts where that would
        // not be the least.
        let asked = limits.connections.map(|asked| u64::from(asked.get()));
        let in_flight = asked
            .unwrap_or_else(|| fit(wanted).clamp(*IN_FLIGHT.start(), *IN_FLIGHT.end()))
            .min(fit(limits.min_part));
        let parts = AT_HOME.saturating_add(stores.saturating_mul(in_flight));
        let part = wanted.min(for_parts / parts - surplus);
        Ok(Self {
            segment,
            workers,
            feeds,
            part,
            in_flight: usize::try_from(in_flight).unwrap_or(usize::MAX),
            max_parts: limits.max_parts,
            expected,
            memory: parts * (part + surplus) + encode,
        })
    }
}

fn encoder_memory(
    segment: usize,
    workers: usize,
    (compression, level): (Compression, i32),
    encrypted: bool,
) -> u64 {
    let (bound, workers) = (compression.bound(segment), workers as u64);
    let sealed = if encrypted {
        Envelope::bound(bound.max(segment))
    } else {
        0
    };
    (segment as u64 + bound as u64 + sealed as u64)
        .saturating_mul(workers.saturating_add(1))
        .saturating_add(workers.saturating_mul(compression.state(level, segment)))
}

/// What more than one feed takes: each a segment of its own, and an eighth of one, which is read and
/// belongs to the next.
fn feeds_memory(segment: usize, feeds: usize, (compression, _): (Compression, i32)) -> u64 {
    let (more, bound) = (
        (feeds as u64).saturating_sub(1),
        compression.bound(segment) as u64,
    );
    let behind = if more > 0 {
        segment as u64 / 8 * feeds as u64
    } else {
        0
    };
    more.saturating_mul(segment as u64 + bound)
        .saturating_add(behind)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    /// Compressions with a level of theirs.
    const ALL: [(Compression, i32); 7] = [
        (Compression::None, 0),
        (Compression::Gzip, 1),
        (Compression::Gzip, 6),
        (Compression::Zstd, 1),
        (Compression::Zstd, 3),
        (Compression::Zstd, 9),
        (Compression::Zstd, 19),
    ];

    proptest! {
        #[test]
        fn the_layout_keeps_to_the_memory_and_the_stores_limits(
            memory: u64, shift in 0u32..60, cores in 1usize..129,
            expected in proptest::option::of(any::<u64>()),
            connections in proptest::option::of(any::<NonZeroU32>()),
            compression in proptest::sample::select(&ALL[..]), encrypted: bool,
        ) {
            let memory = memory >> shift;
            let limits = Limits { connections, ..Limits::S3 };
            match Layout::new(memory, cores, limits, compression, encrypted, expected) {
                Ok(layout) => {
                    prop_assert!(layout.memory <= memory);
                    prop_assert!((Limits::S3.min_part..=Limits::S3.max_part).contains(&layout.part));
                    prop_assert!(layout.in_flight >= 1 && layout.workers >= 1 && layout.workers <= cores);
                    if let Some(connections) = connections {
                        prop_assert!(layout.in_flight <= connections.get() as usize);
                    }
                }
                Err(least) => {
                    prop_assert!(least > memory);
                    let enough = Layout::new(least, cores, Limits::S3, compression, encrypted, expected);
                    prop_assert!(enough.is_ok());
                }
            }
        }
    }

    #[test]
    fn no_core_is_idle_for_want_of_segments_and_no_store_for_want_of_connections() {
        for cores in [2, 8, 32, 64] {
            for memory in [128 * MIB, 256 * MIB, 512 * MIB, 4096 * MIB] {
                for compression in ALL {
                    let layout =
                        Layout::new(memory, cores, Limits::S3, compression, false, None).unwrap();
                    let case = format!("{cores} cores, {} MiB, {compression:?}", memory / MIB);
                    // zstd's slow levels take megabytes for each worker.
                    if compression.0 != Compression::Zstd || compression.1 <= 3 {
                        assert_eq!(layout.workers, cores, "{case}: {layout:?}");
                    }
                    let connections = if memory < 256 * MIB { 2 } else { 8 };
                    assert!(layout.in_flight >= connections, "{case}: {layout:?}");
                    assert_eq!(layout.part, SMALL_PART, "{case}: {layout:?}");
                }
            }
        }
    }

    #[test]
    fn the_memory_that_is_said_to_be_enough_is_enough() {
        for compression in ALL {
            for cores in [1, 2, 4, 16, 128] {
                for memory in [1, 18 * MIB, 19 * MIB] {
                    let new =
                        |memory| Layout::new(memory, cores, Limits::S3, compression, false, None);
                    if let Err(least) = new(memory) {
                        let rounded = least.next_multiple_of(MIB);
                        assert!(
                            new(least).is_ok(),
                            "{compression:?}, {cores} cores, {least}"
                        );
                        assert!(
                            new(rounded).is_ok(),
                            "{compression:?}, {cores} cores, {rounded}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn an_expected_size_fits_in_one_volume_when_memory_allows() {
        let size = 400 << 30;
        let gzip = (Compression::Gzip, 6);
        let layout = Layout::new(1 << 30, 8, Limits::S3, gzip, false, Some(size)).unwrap();
        assert!(
            layout.part * u64::from(layout.max_parts) > size,
            "{layout:?}"
        );
        assert!(layout.in_flight >= 8, "{layout:?}");
    }

    #[test]
    fn connections_are_as_many_as_asked_for_where_memory_allows() {
        let of = |memory, connections| {
            let gzip = (Compression::Gzip, 6);
            let limits = Limits {
                connections: NonZeroU32::new(connections),
                ..Limits::S3
            };
            Layout::new(memory, 2, limits, gzip, false, None).unwrap()
        };
        assert_eq!(of(1 << 30, 1).in_flight, 1);
        assert_eq!(of(1 << 30, 32).in_flight, 32);
        assert_eq!(of(4 << 30, 200).in_flight, 200);
        let little = of(128 * MIB, 200);
        assert!(little.part < SMALL_PART, "{little:?}");
        assert!(little.in_flight >= 10, "{little:?}");
    }

    #[test]
    fn segments_that_are_filled_at_once_are_counted() {
        let zstd = (Compression::Zstd, 1);
        let of = |feeds| {
            Layout::with_feeds((feeds, 1, false), 128 * MIB, 2, Limits::S3, zstd, None).unwrap()
        };
        let (one, four, many) = (of(1), of(4), of(32));
        assert!(one.memory <= 128 * MIB && four.memory <= 128 * MIB && many.memory <= 128 * MIB);
        assert!(
            four.segment < one.segment && many.segment < four.segment,
            "{many:?}"
        );
        assert_eq!((four.workers, many.workers), (2, 2));
        let places = (four.workers + four.feeds) as u64;
        let segments = places * (four.segment + zstd.0.bound(four.segment)) as u64;
        let parts = (AT_HOME + four.in_flight as u64) * four.part;
        assert!(four.memory >= segments + parts, "{four:?}");
    }

    proptest! {
        #[test]
        fn parts_on_their_way_to_several_stores_are_counted(
            stores in 1usize..6, memory in 60u64..2000, expected in proptest::option::of(any::<u64>()),
        ) {
            let gzip = (Compression::Gzip, 6);
            let feeds = (1, stores, true);
            let of = Layout::with_feeds(feeds, memory * MIB, 4, Limits::S3, gzip, expected).unwrap();
            prop_assert!(of.memory <= memory * MIB && of.in_flight >= 1, "{of:?}");
            let parts = (AT_HOME + (stores * of.in_flight) as u64) * of.part;
            prop_assert!(parts <= of.memory, "{of:?}");
        }
    }

    #[test]
    fn the_default_share_is_used_well() {
        let gzip = (Compression::Gzip, 6);
        let layout = Layout::new(128 * MIB, 2, Limits::S3, gzip, false, None).unwrap();
        assert_eq!(
            (layout.segment, layout.workers, layout.part),
            (4 << 20, 2, 8 * MIB)
        );
        assert!(layout.in_flight >= 8, "{layout:?}");
    }
}
