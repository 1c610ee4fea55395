//! The whole path of one job, from a child process to a store that swallows what it gets: what the
//! machine can do when neither database nor store is slow.

use std::io::Write;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput};
use tapline::archive::Compression;
use tapline::archive::Cores;
use tapline::bench::synthetic::Synthetic;
use tapline::catalog::BackupId;
use tapline::dump::ToolCommand;
use tapline::job::{Interruption, Job, Layout, back_up};
use tapline::store::Limits;
use tapline::store::memory::MemoryStore;

const DUMP: &str = "64MiB";
/// As much as a job has by default.
const MEMORY: u64 = 128 << 20;

fn main() {
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    let size = DUMP.parse::<Synthetic>().expect("a size").size();
    // From a file whose pages are in memory, so that making it up takes no part in it.
    let mut dump = tempfile::NamedTempFile::new().expect("a temp file");
    DUMP.parse::<Synthetic>()
        .expect("a size")
        .write(&mut dump)
        .expect("a temp file");
    dump.flush().expect("a temp file");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("path");
    group.throughput(Throughput::Bytes(size));
    let gzip = [1, 6].map(|level| (Compression::Gzip, level));
    let zstd = [1, 3].map(|level| (Compression::Zstd, level));
    for (compression, level) in [(Compression::None, 0)].into_iter().chain(gzip).chain(zstd) {
        group.bench_function(BenchmarkId::new(compression.name(), level), |bencher| {
            bencher.iter(|| {
                let command = ToolCommand::new("cat").args([dump.path().display().to_string()]);
                let job = job(command, compression, level, size);
                let (cores, interruption) = (Cores::all(), Interruption::default());
                let committed = back_up(Arc::new(job), BackupId::now(), &cores, &interruption);
                let committed = runtime.block_on(committed).expect("nothing can fail");
                assert_eq!(committed.manifest.dump_size(), Some(size));
            });
        });
    }
    group.finish();
    criterion.final_summary();
}

fn job(command: ToolCommand, compression: Compression, level: i32, size: u64) -> Job {
    let layout = Layout::new(
        MEMORY,
        Cores::count(),
        Limits::S3,
        (compression, level),
        false,
        Some(size),
        None,
    );
    let layout = layout.expect("enough memory");
    let store = Arc::new(MemoryStore::discarding(Limits::S3));
    Job::of_command("path", command, (compression, level), store, layout)
}
