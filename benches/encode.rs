//! What compression costs: a segment through [`Compression::encode`], and the same bytes through
//! the bare codec. The difference is what buffers and checksums cost.

use std::io::Write;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use tapline::archive::{Codec, Compression};
use tapline::bench::synthetic::Synthetic;

/// A segment of a synthetic dump, as compressible as a usual one.
const SEGMENT: &str = "4MiB";

fn main() {
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    let mut segment = Vec::new();
    SEGMENT
        .parse::<Synthetic>()
        .expect("a size")
        .write(&mut segment)
        .expect("memory");
    let segment = Bytes::from(segment);
    for (compression, levels) in [
        (Compression::Gzip, [1, 6, 9]),
        (Compression::Zstd, [1, 3, 9]),
    ] {
        let mut group = criterion.benchmark_group(compression.name());
        group.throughput(Throughput::Bytes(segment.len() as u64));
        for level in levels {
            group.bench_function(BenchmarkId::new("encode", level), |bencher| {
                let mut codec = Codec::new(compression, level).expect("memory");
                bencher.iter(|| codec.encode(&[], &segment));
            });
            group.bench_function(BenchmarkId::new("bare", level), |bencher| {
                bencher.iter(|| bare(compression, level, &segment));
            });
        }
    }
    criterion.final_summary();
}

/// The codec as its crate gives it, all at once.
fn bare(compression: Compression, level: i32, segment: &[u8]) -> std::io::Result<Vec<u8>> {
    match compression {
        Compression::Gzip => {
            let level = flate2::Compression::new(level.unsigned_abs());
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::with_capacity(segment.len()), level);
            encoder.write_all(segment)?;
            encoder.finish()
        }
        Compression::Zstd => zstd::bulk::compress(segment, level),
        Compression::None => Ok(segment.to_vec()),
    }
}
