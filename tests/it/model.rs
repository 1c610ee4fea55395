//! The state machine of a job against its model: whatever part fails, whatever reply is lost,
//! whenever it is cancelled and however its tool ends, it comes out as exactly one of committed
//! and absent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tapline::archive::{Compression, Cores};
use tapline::catalog::{BackupId, Manifest};
use tapline::dump::ToolCommand;
use tapline::job::{Interruption, Job, Layout, back_up};
use tapline::store::memory::MemoryStore;
use tapline::store::retry::{PatientStore, RetryPolicy};
use tapline::store::{ChecksumKind, ErrorKind, Limits, Result, SharedStore, StoreError};
use tokio_util::sync::CancellationToken;

use super::meddled::{Meddled, Meddler};

/// What a request meets.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Good,
    /// It is not done.
    Fails,
    /// It is done, and nobody hears of it.
    ReplyLost,
    /// It is not done, and will never be.
    Refused,
    /// The run is interrupted when it arrives; it is done.
    Cancels,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => Just(Fate::Good),
        2 => Just(Fate::Fails),
        2 => Just(Fate::ReplyLost),
        1 => Just(Fate::Refused),
        1 => Just(Fate::Cancels),
    ]
}

#[derive(Debug, Clone)]
struct Plan {
    /// Of the first requests; the others are good.
    fates: Vec<Fate>,
    /// Bytes of the dump, in the smallest parts.
    size: usize,
    /// How the tool ends.
    status: u8,
}

fn plan() -> impl Strategy<Value = Plan> {
    let status = prop_oneof![4 => Just(0u8), 1 => Just(3)];
    (
        prop::collection::vec(fate(), 0..24),
        0usize..120_000,
        status,
    )
        .prop_map(|(fates, size, status)| Plan {
            fates,
            size,
            status,
        })
}

/// Requests meet their fates in the order in which they arrive.
struct Fateful {
    to_come: Mutex<VecDeque<Fate>>,
    cancel: CancellationToken,
    /// Requests that were to show or remove something and did not, manifests whose put was not
    /// heard of.
    in_the_way: Mutex<usize>,
}

impl Meddler for Fateful {
    async fn meet<T: Send>(
        &self,
        operation: &'static str,
        _: &str,
        _: Option<T>,
        done: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let removes = !["create", "part", "complete"].contains(&operation);
        let fate = self
            .to_come
            .lock()
            .unwrap()
            .pop_front()
            .unwrap_or(Fate::Good);
        let broken = || StoreError::new(ErrorKind::Transient, "a fate");
        if removes && !matches!(fate, Fate::Good | Fate::Cancels) {
            *self.in_the_way.lock().unwrap() += 1;
        }
        match fate {
            Fate::Good => done.await,
            Fate::Fails => Err(broken()),
            Fate::ReplyLost => {
                let _unheard = done.await;
                Err(broken().maybe_done(true).maybe_coming(true))
            }
            Fate::Refused => Err(StoreError::new(ErrorKind::Denied, "a fate")),
            Fate::Cancels => {
                self.cancel.cancel();
                tokio::task::yield_now().await;
                done.await
            }
        }
    }
}

/// Runs the plan; says what is neither committed nor absent.
async fn run(plan: &Plan, file: &std::path::Path) -> std::result::Result<(), String> {
    let limits = Limits {
        min_part: 10_000,
        ..Limits::S3
    };
    let memory = MemoryStore::new(limits, Some(ChecksumKind::Crc64Nvme));
    let interruption = Interruption::default();
    let fateful = Arc::new(Meddled {
        store: memory.clone(),
        meddler: Fateful {
            to_come: Mutex::new(plan.fates.iter().copied().collect()),
            cancel: interruption.cancel.clone(),
            in_the_way: Mutex::new(0),
        },
    });
    let patience = RetryPolicy {
        for_at_most: Duration::from_millis(40),
        first: Duration::from_millis(1),
        longest: Duration::from_millis(4),
    };
    let store: SharedStore = Arc::new(PatientStore::new(
        fateful.clone(),
        patience,
        Arc::new(|| {}),
    ));
    let script = format!(
        "head -c {} {}; exit {}",
        plan.size,
        file.display(),
        plan.status
    );
    let command = ToolCommand::new("sh").args(["-c", &script]);
    let layout = Layout {
        segment: 8192,
        workers: 2,
        feeds: 1,
        part: 10_000,
        in_flight: 3,
        max_parts: 10_000,
        expected: None,
        memory: 0,
    };
    let job = Job::of_command("x", command, (Compression::None, 0), store, layout);
    let done = back_up(Arc::new(job), BackupId::now(), &Cores::all(), &interruption).await;

    let (keys, open) = (memory.keys(), memory.open_uploads());
    let manifests: Vec<&String> = keys
        .iter()
        .filter(|key| key.ends_with("manifest.json"))
        .collect();
    let state = format!("{done:?}, with {keys:?} and {open} open uploads");
    // Whatever there is of a manifest is of an archive that is there.
    for key in &manifests {
        let manifest =
            Manifest::from_json(&memory.read(key).unwrap()).map_err(|e| e.to_string())?;
        let whole = manifest.keys().iter().all(|key| keys.contains(key));
        if !whole || manifest.dump_size() != Some(plan.size as u64) {
            return Err(format!("a manifest without its archive: {state}"));
        }
    }
    let in_the_way = *fateful.meddler.in_the_way.lock().unwrap() > 0;
    match &done {
        Ok(_) if plan.status != 0 || plan.size == 0 => Err(format!("not a whole dump: {state}")),
        Ok(_) if manifests.len() == 1 && (open == 0 || in_the_way) => Ok(()),
        Err(_) if keys.is_empty() && open == 0 => Ok(()),
        Err(failure) if failure.left.is_some() && in_the_way => Ok(()),
        _ => Err(format!("neither committed nor absent: {state}")),
    }
}

/// Several runners side by side: a failed job waits before it looks again whether all is gone.
#[test]
fn a_job_ends_as_one_of_committed_and_absent_whatever_happens_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump");
    let mut bytes = vec![0; 120_000];
    fastrand::fill(&mut bytes);
    std::fs::write(&file, bytes).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .enable_all()
                    .build()
                    .unwrap();
                let config = Config {
                    cases: 32,
                    failure_persistence: None,
                    max_shrink_iters: 64,
                    ..Config::default()
                };
                let tried = TestRunner::new(config).run(&plan(), |plan| {
                    runtime
                        .block_on(run(&plan, &file))
                        .map_err(TestCaseError::fail)
                });
                if let Err(error) = tried {
                    panic!("{error}");
                }
            });
        }
    });
}
