//! A job's sizes, all fixed before its first byte.
//!
//! ```text
//! memory = held part + in_flight × part + (workers + 1) × (segment + its compressed bound) + workers × compressor
//! ```
//!
//! Nothing in it depends on the dump's size, so a job that starts can also end: without this, a
//! large part (wanted for a large dump) times a deep window times many jobs meets the machine's
//! limit hours into a run.
//!
//! The part is chosen from the expected size so that the store's limit on parts is not reached, and
//! capped by the memory. Where both cannot be had, memory wins and the archive gets further
//! volumes.

use serde::Serialize;

use crate::archive::Compression;
use crate::deposit::Window;
use crate::store::Limits;

const MIB: u64 = 1 << 20;
/// What is compressed at once: large enough that a sync flush costs nothing, small enough to have
/// many.
const SEGMENTS: [usize; 3] = [4 << 20, 1 << 20, 256 << 10];
/// Parts in flight, for a store that answers slower than one part after the other would use it.
const IN_FLIGHT: usize = 4;
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
    /// Size of a part, in bytes.
    pub part: u64,
    /// Parts being filled or uploaded at once, the held one not counted.
    pub in_flight: usize,
    /// Most parts in a volume.
    pub max_parts: u32,
    /// The dump's expected size, in bytes, where one is known.
    pub expected: Option<u64>,
    /// The most memory that the job's data path takes, in bytes.
    pub memory: u64,
}

impl Layout {
    /// The sizes of the parts.
    pub fn window(&self) -> Window {
        Window {
            part: self.part,
            in_flight: self.in_flight,
            max_parts: self.max_parts,
        }
    }

    /// Chooses the sizes for a job that may take `memory` bytes, on a machine with `cores`.
    ///
    /// # Errors
    /// When `memory` is too little for the store's smallest part: the least that would do, in
    /// bytes.
    pub fn new(
        memory: u64,
        cores: usize,
        limits: Limits,
        (compression, level): (Compression, i32),
        expected: Option<u64>,
    ) -> Result<Self, u64> {
        let per_worker = |segment: usize| (segment + compression.bound(segment)) as u64;
        let encode = |segment: usize, workers: usize| {
            (workers as u64 + 1) * per_worker(segment)
                + workers as u64 * compression.state(level, segment)
        };
        // The larger share goes to parts; a core more helps less than a window that is deep enough.
        let (segment, workers) = SEGMENTS
            .into_iter()
            .flat_map(|segment| (1..=cores).rev().map(move |workers| (segment, workers)))
            .find(|(segment, workers)| encode(*segment, *workers) <= memory * 2 / 5)
            .unwrap_or((SEGMENTS[SEGMENTS.len() - 1], 1));
        let for_parts = memory.saturating_sub(encode(segment, workers));
        let least = 2 * limits.min_part;
        if for_parts < least {
            return Err(least + encode(segment, workers));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let needed = expected.map_or(0, |size| {
            (size as f64 * MARGIN / f64::from(limits.max_parts)) as u64
        });
        let wanted = needed
            .max(SMALL_PART)
            .next_multiple_of(MIB)
            .clamp(limits.min_part, limits.max_part);
        // As deep a window as the wanted part leaves; at least two, so that upload and encode
        // overlap, if it can be.
        let in_flight = (2..=IN_FLIGHT)
            .rev()
            .find(|in_flight| (*in_flight as u64 + 1) * wanted <= for_parts)
            .unwrap_or(if for_parts >= 3 * limits.min_part {
                2
            } else {
                1
            });
        let part = wanted.min(for_parts / (in_flight as u64 + 1));
        Ok(Self {
            segment,
            workers,
            part,
            in_flight,
            max_parts: limits.max_parts,
            expected,
            memory: (in_flight as u64 + 1) * part + encode(segment, workers),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_layout_keeps_to_the_memory_and_the_stores_limits(
            memory in 1u64..4096, cores in 1usize..129, expected in proptest::option::of(0u64..1 << 50),
            level in 1i32..=9, zstd: bool,
        ) {
            let memory = memory * MIB;
            let compression = if zstd { Compression::Zstd } else { Compression::Gzip };
            match Layout::new(memory, cores, Limits::S3, (compression, level), expected) {
                Ok(layout) => {
                    prop_assert!(layout.memory <= memory);
                    prop_assert!((Limits::S3.min_part..=Limits::S3.max_part).contains(&layout.part));
                    prop_assert!(layout.in_flight >= 1 && layout.workers >= 1 && layout.workers <= cores);
                }
                Err(least) => {
                    prop_assert!(least > memory);
                    prop_assert!(Layout::new(least * 2, cores, Limits::S3, (compression, level), expected).is_ok());
                }
            }
        }
    }

    #[test]
    fn an_expected_size_fits_in_one_volume_when_memory_allows() {
        let size = 400 << 30;
        let layout =
            Layout::new(1 << 30, 8, Limits::S3, (Compression::Gzip, 6), Some(size)).unwrap();
        assert!(
            layout.part * u64::from(layout.max_parts) > size,
            "{layout:?}"
        );
        assert!(layout.in_flight >= 2);
    }

    #[test]
    fn the_default_share_is_used_well() {
        let layout = Layout::new(128 * MIB, 2, Limits::S3, (Compression::Gzip, 6), None).unwrap();
        assert_eq!(
            (
                layout.segment,
                layout.workers,
                layout.part,
                layout.in_flight
            ),
            (4 << 20, 2, 8 * MIB, 4)
        );
    }
}
