//! The whole path of one job, from a child process to a store that swallows what it gets: what the
//! machine can do when neither database nor store is slow, on one core of the encoder and on more.
//!
//! `cargo bench --bench path`; `TAPLINE_BENCH_ROUNDS` (5) and `TAPLINE_BENCH_DUMP` (1GiB:3). What is
//! printed are medians, and beside the path's CPU time that of the bare codec and SHA-256 on the same
//! bytes: what is left is what cutting, handing over and reading a pipe cost.

mod load;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use load::{Load, cpu, rounds};
use ring::digest::{SHA256, digest};
use tapline::archive::{Codec, Compression, Cores, LOOK_BACK};
use tapline::catalog::BackupId;
use tapline::dump::ToolCommand;
use tapline::job::{Interruption, Job, Layout, back_up};
use tapline::store::Limits;
use tapline::store::memory::MemoryStore;

/// As much as a job has by default.
const MEMORY: u64 = 128 << 20;

fn main() {
    let (rounds, load) = (rounds(), Load::new("1GiB:3"));
    let (size, gibs, path) = (load.size, load.gibs, load.path());
    let content = Bytes::from(std::fs::read(&path).expect("a temp file"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    println!("            cores     GB/s  CPU s/GiB  of it codec and SHA-256");
    for compression in [
        (Compression::None, 0),
        (Compression::Zstd, 1),
        (Compression::Gzip, Compression::Gzip.levels().1),
    ] {
        let bare = bare(&content, compression) / gibs;
        for workers in 1..=Cores::count() {
            let run = || {
                let job = job(&path, workers, compression, size);
                let (before, start) = (cpu(), Instant::now());
                let (cores, interruption) = (Cores::new(workers), Interruption::default());
                let committed = back_up(Arc::new(job), BackupId::now(), &cores, &interruption);
                let committed = runtime.block_on(committed).expect("nothing can fail");
                assert_eq!(committed.manifest.dump_size(), Some(size));
                (start.elapsed().as_secs_f64(), cpu() - before)
            };
            run();
            let all: Vec<(f64, f64)> = (0..rounds).map(|_| run()).collect();
            let median = |part: fn(&(f64, f64)) -> f64| {
                let mut all: Vec<f64> = all.iter().map(part).collect();
                all.sort_by(f64::total_cmp);
                all[all.len() / 2]
            };
            let (wall, cpu) = (median(|(wall, _)| *wall), median(|(_, cpu)| *cpu) / gibs);
            let (name, level) = (compression.0.name(), compression.1);
            println!(
                "{name:>6} {level:>2} {workers:>8} {:>8.2} {cpu:>10.2} {:>8.0}%",
                gibs * 1.073_741_824 / wall,
                bare / cpu * 100.0
            );
        }
    }
}

/// CPU seconds of the codec and the digest alone, on segments as a job has them.
fn bare(content: &Bytes, compression: (Compression, i32)) -> f64 {
    let segment = layout(1, compression, content.len() as u64).segment;
    let mut codec = Codec::new(compression.0, compression.1).expect("memory");
    let before = cpu();
    for start in (0..content.len()).step_by(segment) {
        let look_back = &content[start.saturating_sub(LOOK_BACK)..start];
        let segment = content.slice(start..content.len().min(start + segment));
        black_box(digest(&SHA256, &segment));
        black_box(codec.encode(look_back, &segment).expect("memory"));
    }
    cpu() - before
}

fn layout(workers: usize, compression: (Compression, i32), size: u64) -> Layout {
    let (limits, size) = (Limits::S3, Some(size));
    Layout::new(MEMORY, workers, limits, compression, false, size).expect("enough memory")
}

fn job(path: &str, workers: usize, compression: (Compression, i32), size: u64) -> Job {
    let store = Arc::new(MemoryStore::discarding(Limits::S3));
    let command = ToolCommand::new("cat").args([path]);
    let layout = layout(workers, compression, size);
    Job::of_command("path", command, compression, store, layout)
}
