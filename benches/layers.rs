//! What encryption and a second store cost: the whole path of one job into stores that swallow what
//! they get, plain, encrypted, into two stores, and both, in turn. What is printed are medians of
//! ratios within a round, so that what else the machine does meets all of them.
//!
//! `cargo bench --bench layers`; `TAPLINE_BENCH_ROUNDS` (5) and `TAPLINE_BENCH_DUMP` (512MiB:3).

mod load;

use std::sync::Arc;
use std::time::Instant;

use load::{Load, cpu, rounds};
use tapline::archive::{Compression, Cores};
use tapline::catalog::BackupId;
use tapline::cipher::{Lock, NewIdentity};
use tapline::dump::ToolCommand;
use tapline::job::{Interruption, Job, JobStore, Layout, back_up};
use tapline::store::Limits;
use tapline::store::memory::MemoryStore;

/// As much as a job has by default.
const MEMORY: u64 = 128 << 20;

/// A way to do the same backup.
struct Way {
    name: &'static str,
    encrypted: bool,
    stores: usize,
}

const WAYS: [Way; 4] = [
    Way {
        name: "plain",
        encrypted: false,
        stores: 1,
    },
    Way {
        name: "encrypted",
        encrypted: true,
        stores: 1,
    },
    Way {
        name: "two stores",
        encrypted: false,
        stores: 2,
    },
    Way {
        name: "encrypted, two stores",
        encrypted: true,
        stores: 2,
    },
];

/// Wall and CPU time, in seconds.
type Taken = (f64, f64);

fn main() {
    let (rounds, load) = (rounds(), Load::new("512MiB:3"));
    let (size, gibs, path) = (load.size, load.gibs, load.path());
    let public = NewIdentity::generate().recipient();
    let lock = Lock::Recipients(vec![public.parse().expect("a public key")]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for (compression, level) in [(Compression::Zstd, 1), (Compression::Gzip, 2)] {
        let run = |way: &Way| -> Taken {
            let job = job(way, &path, (compression, level), size, &lock);
            let (before, start) = (cpu(), Instant::now());
            let (cores, interruption) = (Cores::all(), Interruption::default());
            let committed = back_up(Arc::new(job), BackupId::now(), &cores, &interruption);
            runtime.block_on(committed).expect("nothing can fail");
            (start.elapsed().as_secs_f64(), cpu() - before)
        };
        run(&WAYS[0]);
        let mut taken: [Vec<Taken>; WAYS.len()] = Default::default();
        for round in 0..rounds {
            // Nobody is always first.
            for at in (0..WAYS.len()).map(|at| (at + round) % WAYS.len()) {
                taken[at].push(run(&WAYS[at]));
            }
        }
        println!(
            "{} {level}, {rounds} rounds, {} cores",
            compression.name(),
            Cores::count()
        );
        for (way, own) in WAYS.iter().zip(&taken) {
            let ratio = |part: fn(&Taken) -> f64| {
                let pairs = own.iter().zip(&taken[0]);
                median(pairs.map(|(one, plain)| part(one) / part(plain)).collect())
            };
            let cpu = median(own.iter().map(|(_, cpu)| cpu / gibs).collect());
            println!(
                "  {:22} wall ×{:.3}  CPU ×{:.3}  {cpu:.2} CPU s/GiB",
                way.name,
                ratio(|(wall, _)| *wall),
                ratio(|(_, cpu)| *cpu)
            );
        }
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    if all.len() % 2 == 1 {
        all[middle]
    } else {
        f64::midpoint(all[middle - 1], all[middle])
    }
}

fn job(way: &Way, dump: &str, compression: (Compression, i32), size: u64, lock: &Lock) -> Job {
    let layout = Layout::with_feeds(
        (1, way.stores, way.encrypted),
        MEMORY,
        Cores::count(),
        Limits::S3,
        compression,
        Some(size),
    );
    let store = || JobStore::only(Arc::new(MemoryStore::discarding(Limits::S3)));
    let command = ToolCommand::new("cat").args([dump]);
    let layout = layout.expect("enough memory");
    let mut job = Job::of_command("bench", command, compression, store().store, layout);
    job.stores = (0..way.stores).map(|_| store()).collect();
    job.lock = way.encrypted.then(|| lock.clone());
    job
}
