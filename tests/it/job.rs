//! A job as a state machine: past the first completion nothing ends it, and before the manifest
//! nothing of it stays.

use std::future::pending;
use std::pin::pin;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::poll_immediate;
use tapline::archive::{Compression, Cores};
use tapline::catalog::{BackupId, backup_prefix};
use tapline::dump::ToolCommand;
use tapline::job::{FailedStep, FailureKind, Interruption, Job, Layout, back_up, stalled};
use tapline::meter::Step;
use tapline::s3_server::{Fault, Op};
use tapline::store::memory::{Effect, MemoryStore};
use tapline::store::retry::{PatientStore, RetryPolicy};
use tapline::store::{ChecksumKind, ErrorKind, Limits, Result, SharedStore, StoreError};
use tapline::upkeep::cleanup;
use tokio_util::sync::CancellationToken;

use super::meddled::{Meddled, Meddler};
use super::world::{World, wait_until};

/// What happens to the requests of one operation.
#[derive(Clone, Copy, PartialEq)]
enum Mishap {
    /// Done, and the reply is lost.
    ReplyLost,
    /// The same the first time, and then all is well.
    ReplyLostOnce,
    /// Not done, and no reply: it may be on its way for a long time.
    Unheard,
    /// Refused for want of rights.
    Denied,
    /// The same where the key ends so.
    DeniedAt(&'static str),
    /// The same after so long.
    DeniedLate(Duration),
    /// Answered after so long.
    Slow(Duration),
}

/// Some operations meet mishaps, each time.
#[derive(Clone)]
struct Unlucky {
    mishaps: Vec<(&'static str, Mishap)>,
    /// Set when one of them begins for the first time.
    begun: Arc<AtomicBool>,
}

impl Unlucky {
    fn new(operation: &'static str, mishap: Mishap) -> Meddled<Self> {
        Self::all(&[(operation, mishap)])
    }

    fn all(mishaps: &[(&'static str, Mishap)]) -> Meddled<Self> {
        let limits = Limits {
            min_part: 1,
            max_part: 5 << 30,
            max_parts: 100,
            in_order: false,
            connections: None,
        };
        Meddled {
            store: MemoryStore::new(limits, Some(ChecksumKind::Crc64Nvme)),
            meddler: Self {
                mishaps: mishaps.to_vec(),
                begun: Arc::default(),
            },
        }
    }
}

impl Meddler for Unlucky {
    async fn meet<T: Send>(
        &self,
        operation: &'static str,
        key: &str,
        _: Option<T>,
        carry_out: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let mut mishaps = self.mishaps.iter();
        let Some((_, mishap)) = mishaps.find(|(met, _)| *met == operation) else {
            return carry_out.await;
        };
        let is_first = !self.begun.swap(true, Ordering::Relaxed);
        let lost = || StoreError::new(ErrorKind::Transient, "the reply is lost").maybe_done(true);
        match *mishap {
            Mishap::DeniedAt(end) if !key.ends_with(end) => carry_out.await,
            Mishap::Denied | Mishap::DeniedAt(_) => {
                Err(StoreError::new(ErrorKind::Denied, "AccessDenied"))
            }
            Mishap::DeniedLate(time) => {
                tokio::time::sleep(time).await;
                Err(StoreError::new(ErrorKind::Denied, "AccessDenied"))
            }
            Mishap::Unheard => Err(lost().maybe_coming(true)),
            Mishap::ReplyLostOnce if !is_first => carry_out.await,
            Mishap::Slow(time) => {
                tokio::time::sleep(time).await;
                carry_out.await
            }
            Mishap::ReplyLost | Mishap::ReplyLostOnce => {
                carry_out.await?;
                Err(lost())
            }
        }
    }
}

/// A job of some parts, in a store that is asked for at most `patience`.
fn job(store: &Meddled<Unlucky>, script: &str, patience: Duration) -> Job {
    let patient: SharedStore = Arc::new(PatientStore::new(
        Arc::new(store.clone()),
        RetryPolicy::lasting(patience),
        Arc::new(|| ()),
    ));
    let layout = Layout {
        segment: 8 << 10,
        workers: 2,
        feeds: 1,
        part: 16 << 10,
        in_flight: 2,
        max_parts: 4,
        expected: None,
        memory: 0,
    };
    let command = ToolCommand::new("sh").args(["-c", script]);
    Job::of_command("x", command, (Compression::Gzip, 1), patient, layout)
}

const DUMP: &str = "head -c 100000 /dev/urandom";
const NO_PATIENCE: Duration = Duration::from_millis(100);

fn is_clean(store: &MemoryStore) -> bool {
    store.keys().is_empty() && store.open_uploads() == 0
}

#[tokio::test]
async fn lost_replies_leave_either_a_backup_or_nothing() {
    for operation in ["create", "part", "complete", "put", "abort"] {
        let store = Unlucky::new(operation, Mishap::ReplyLost);
        let job = Arc::new(job(&store, DUMP, NO_PATIENCE));
        let id = BackupId::now();
        let result = back_up(job, id.clone(), &Cores::all(), &Interruption::default()).await;
        let manifest = format!("{}manifest.json", backup_prefix("x", &id));
        let there = store.store.keys().contains(&manifest);
        match result {
            Ok(_) => assert!(there && store.store.open_uploads() == 0, "{operation}"),
            Err(failure) => assert!(is_clean(&store.store), "{operation}: {failure:?}"),
        }
    }
}

/// What is tried again has two uploads then, of which one becomes the archive.
#[tokio::test]
async fn one_lost_reply_costs_no_backup_and_leaves_nothing_beside_it() {
    for operation in ["create", "part", "complete", "put"] {
        let store = Unlucky::new(operation, Mishap::ReplyLostOnce);
        let mut job = job(&store, DUMP, Duration::from_secs(10));
        // The upload that is a sign of life during the commit is begun, too.
        job.sign_of_life_after = Duration::ZERO;
        let (id, cores) = (BackupId::now(), Cores::all());
        let result = back_up(Arc::new(job), id.clone(), &cores, &Interruption::default()).await;
        assert!(result.is_ok(), "{operation}: {result:?}");
        let manifest = format!("{}manifest.json", backup_prefix("x", &id));
        assert!(store.store.keys().contains(&manifest), "{operation}");
        assert_eq!(store.store.open_uploads(), 0, "{operation}");
    }
}

#[tokio::test]
async fn a_key_that_may_only_write_backs_up_and_what_it_cannot_take_away_is_said() {
    let interruption = Interruption::default();
    for operation in ["head", "list"] {
        let store = Unlucky::new(operation, Mishap::Denied);
        let good = Arc::new(job(&store, DUMP, NO_PATIENCE));
        back_up(good, BackupId::now(), &Cores::all(), &interruption)
            .await
            .unwrap();
        let bad = Arc::new(job(&store, &format!("{DUMP}; exit 1"), NO_PATIENCE));
        let before = store.store.keys();
        back_up(bad, BackupId::now(), &Cores::all(), &interruption)
            .await
            .unwrap_err();
        assert_eq!(
            (store.store.keys(), store.store.open_uploads()),
            (before, 0),
            "{operation}"
        );
    }
    // What it has completed, it knows by itself.
    let store = Unlucky::all(&[("list", Mishap::Denied), ("put", Mishap::Denied)]);
    let bad = Arc::new(job(&store, DUMP, NO_PATIENCE));
    let failed = back_up(bad, BackupId::now(), &Cores::all(), &interruption).await;
    let left = failed.unwrap_err().left.expect("nobody could look");
    assert!(left.contains("could not be looked up") && is_clean(&store.store));

    let store = Unlucky::new("abort", Mishap::Denied);
    let bad = Arc::new(job(&store, &format!("{DUMP}; exit 1"), NO_PATIENCE));
    let failed = back_up(
        bad,
        BackupId::now(),
        &Cores::all(),
        &Interruption::default(),
    )
    .await;
    let left = failed.unwrap_err().left.expect("an upload is left");
    assert!(left.contains("tapline cleanup --store store") && left.contains("AccessDenied"));
}

#[tokio::test]
async fn a_refused_delete_does_not_keep_the_other_traces() {
    let store = Unlucky::new("delete", Mishap::Denied);
    let script = "head -c 200000 /dev/urandom; exit 1";
    let bad = Arc::new(job(&store, script, NO_PATIENCE));
    let failed = back_up(
        bad,
        BackupId::now(),
        &Cores::all(),
        &Interruption::default(),
    )
    .await;
    assert!(failed.is_err() && store.store.open_uploads() == 0);

    // Of several volumes one is locked.
    let store = Unlucky::all(&[
        ("put", Mishap::Denied),
        ("delete", Mishap::DeniedAt(".v002")),
    ]);
    let bad = Arc::new(job(&store, "head -c 200000 /dev/urandom", NO_PATIENCE));
    let (id, cores) = (BackupId::now(), Cores::all());
    let failed = back_up(bad, id, &cores, &Interruption::default()).await;
    let left = failed.unwrap_err().left.expect("a volume is left");
    let keys = store.store.keys();
    assert!(
        keys.len() == 1 && keys[0].contains("/x.tar.gz.v002"),
        "{keys:?}"
    );
    assert!(left.contains(&keys[0]) && !left.contains(".v003"), "{left}");
}

/// It may arrive when the job has ended, and would be a backup without volumes, the newest.
#[tokio::test]
async fn what_a_manifest_that_may_still_come_is_of_is_left_and_that_is_said() {
    let store = Unlucky::new("put", Mishap::Unheard);
    let job = Arc::new(job(&store, DUMP, NO_PATIENCE));
    let (id, cores) = (BackupId::now(), Cores::all());
    let failed = back_up(job, id.clone(), &cores, &Interruption::default()).await;
    let left = failed.unwrap_err().left.expect("the archive is left");
    let command = format!("tapline verify x@{id}");
    assert!(left.contains(&command) && left.contains("tapline cleanup"));
    let keys = store.store.keys();
    assert!(
        keys.iter().any(|key| key.ends_with("/x.tar.gz")),
        "{keys:?}"
    );
    assert!(keys.len() > 1, "all of its volumes: {keys:?}");
}

#[tokio::test]
async fn a_machine_that_stood_still_has_not_waited() {
    let store = Unlucky::all(&[]);
    let mut job = job(&store, DUMP, NO_PATIENCE);
    job.stall_timeout = Some(Duration::from_millis(400));
    let mut tool = pin!(job.meter.wait_for(Step::Dump, pending::<()>()));
    assert_eq!(poll_immediate(&mut tool).await, None);
    let mut watch = pin!(stalled(&job));
    assert!(poll_immediate(&mut watch).await.is_none());
    // Nobody else comes to his turn meanwhile.
    std::thread::sleep(Duration::from_millis(500));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let early = poll_immediate(&mut watch).await;
    assert!(early.is_none(), "{early:?}");
    let words = watch.await.to_string();
    assert!(words.contains("waiting for dump"), "{words}");
}

#[tokio::test]
async fn who_waits_for_a_core_does_not_stall() {
    let store = Unlucky::all(&[]);
    let mut job = job(&store, DUMP, Duration::from_secs(10));
    job.stall_timeout = Some(Duration::from_secs(2));
    // Another job has the only one.
    let cores = Cores::new(1);
    let (lane, (done, until)) = (cores.lane(1), std::sync::mpsc::channel::<()>());
    lane.put(move || _ = until.recv());
    let interruption = Interruption::default();
    let backup = back_up(Arc::new(job), BackupId::now(), &cores, &interruption);
    let work = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        drop(done);
    };
    let (committed, ()) = tokio::join!(backup, work);
    assert!(committed.is_ok(), "{committed:?}");
}

#[tokio::test]
async fn nothing_ends_a_commit_that_has_begun() {
    for operation in ["complete", "put"] {
        let store = Unlucky::new(operation, Mishap::Slow(Duration::from_secs(3)));
        let mut job = job(&store, DUMP, Duration::from_secs(10));
        job.stall_timeout = Some(Duration::from_millis(500));
        let interruption = Interruption::from(CancellationToken::new());
        let (id, cores) = (BackupId::now(), Cores::all());
        let backup = back_up(Arc::new(job), id, &cores, &interruption);
        let interrupt = async {
            while !store.meddler.begun.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            interruption.cancel.cancel();
        };
        let (committed, ()) = tokio::join!(backup, interrupt);
        assert!(committed.is_ok(), "{operation}: {committed:?}");
    }
}

#[tokio::test]
async fn a_commit_goes_on_when_whoever_waited_for_it_is_gone() {
    let store = Unlucky::new("complete", Mishap::Slow(Duration::from_millis(500)));
    let job = Arc::new(job(&store, DUMP, Duration::from_secs(10)));
    let interruption = Interruption::default();
    let (id, cores) = (BackupId::now(), Cores::all());
    tokio::select! {
        _ = back_up(job, id, &cores, &interruption) => panic!("it takes longer"),
        () = async {
            while !store.meddler.begun.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } => {}
    }
    interruption.commits.close();
    interruption.commits.wait().await;
    assert!(
        store
            .store
            .keys()
            .iter()
            .any(|key| key.ends_with("manifest.json"))
    );
}

#[tokio::test]
async fn an_interruption_while_an_upload_is_begun_leaves_no_upload() {
    let store = Unlucky::new("create", Mishap::Slow(Duration::from_secs(1)));
    let job = Arc::new(job(&store, DUMP, Duration::from_secs(10)));
    let interruption = Interruption::default();
    let (id, cores) = (BackupId::now(), Cores::all());
    let backup = back_up(job, id, &cores, &interruption);
    let interrupt = async {
        while !store.meddler.begun.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        interruption.cancel.cancel();
    };
    let start = Instant::now();
    let (result, ()) = tokio::join!(backup, interrupt);
    assert_eq!(result.unwrap_err().kind, FailureKind::Interrupted);
    assert!(is_clean(&store.store) && start.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn a_part_that_fails_ends_a_dump_that_is_silent() {
    let store = Unlucky::new("part", Mishap::Denied);
    // The second part is the first that is sent, and there is no third at which its failure would be
    // seen.
    let script = "head -c 40000 /dev/urandom; exec sleep 60";
    let job = Arc::new(job(&store, script, NO_PATIENCE));
    let start = Instant::now();
    let result = back_up(
        job,
        BackupId::now(),
        &Cores::all(),
        &Interruption::default(),
    )
    .await;
    let failure = result.unwrap_err();
    assert_eq!(
        (failure.step, failure.kind),
        (FailedStep::Upload, FailureKind::StoreDenied)
    );
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    assert!(is_clean(&store.store));
}

#[tokio::test]
async fn the_tool_starts_only_when_the_store_has_accepted_the_upload() {
    let folder = tempfile::tempdir().unwrap();
    let started = folder.path().join("started");
    // Time enough to start.
    let store = Unlucky::new("create", Mishap::DeniedLate(Duration::from_secs(2)));
    let job = Arc::new(job(
        &store,
        &format!("touch {}", started.display()),
        NO_PATIENCE,
    ));
    let result = back_up(
        job,
        BackupId::now(),
        &Cores::all(),
        &Interruption::default(),
    )
    .await;
    assert!(result.is_err() && !started.exists());
}

#[test]
fn a_failure_is_data_in_the_report_and_names_what_the_store_said() {
    let world = World::new(
        "[run]\nretry_for = \"1s\"\n\
         [databases.x]\nengine = \"command\"\ncommand = [\"head\", \"-c\", \"99\", \"/dev/zero\"]\n",
    );
    world.server.faults().on(Op::Part).meets(Fault::SlowDown);
    assert_eq!(world.run(&["backup", "--report", "r.json"]).code, Some(4));
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(world.path("r.json")).unwrap()).unwrap();
    let failure = &report["jobs"][0]["failure"];
    assert_eq!(
        (&failure["step"], &failure["kind"]),
        (&"upload".into(), &"store_unreachable".into())
    );
    let store = &failure["store"];
    assert_eq!(
        (&store["operation"], &store["code"], &store["status"]),
        (&"UploadPart".into(), &"SlowDown".into(), &503.into())
    );
    assert!(
        store["tries"].as_u64() > Some(1) && store["seconds"].as_f64() > Some(0.5),
        "{store}"
    );
    world.assert_store_is_clean();
}

#[test]
fn a_dead_host_costs_its_own_job_its_patience_and_nobody_elses() {
    // A host that answers nothing: the backlog of a socket that nobody accepts from.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let dead = |n| {
        format!(
            "[databases.d{n}]\nengine = \"postgres\"\nhost = \"127.0.0.1\"\nport = {port}\n\
             user = \"u\"\n"
        )
    };
    let databases: String = (0..4).map(dead).collect();
    let world = World::new(&format!(
        "[run]\njobs = 8\njobs_per_host = 8\nconnect_timeout = \"8s\"\n{databases}\
         [databases.good]\nengine = \"command\"\ncommand = [\"echo\", \"x\"]\n"
    ));
    let start = Instant::now();
    let mut running = world
        .tapline(&["backup"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(|| {
        world
            .keys("good")
            .iter()
            .any(|key| key.ends_with("manifest.json"))
    });
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "the good one waited for the dead host"
    );
    running.wait().unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(24),
        "dead hosts were asked one by one"
    );
}

/// S3 dates an object that came in parts by the begin of its upload: between its completion and its
/// manifest, the volume of a dump of three days looks like something that nobody cares for.
#[tokio::test]
async fn a_backup_of_days_that_is_being_committed_shows_a_sign_of_life() {
    const DAYS: Duration = Duration::from_hours(72);
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("dumping");
    std::fs::write(&flag, "").unwrap();
    let store = Unlucky::new("put", Mishap::Slow(Duration::from_secs(2)));
    let script = format!(
        "{DUMP}; while [ -e {} ]; do sleep 0.05; done",
        flag.display()
    );
    let mut job = job(&store, &script, Duration::from_secs(10));
    job.layout.max_parts = 100;
    job.sign_of_life_after = Duration::ZERO;
    let interruption = Interruption::default();
    let (id, cores) = (BackupId::now(), Cores::all());
    let backup = back_up(Arc::new(job), id, &cores, &interruption);
    let look = async {
        let part = |effect: &Effect| matches!(effect, Effect::Part(..));
        while !store.store.effects().iter().any(part) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        store.store.age_by(DAYS);
        std::fs::remove_file(&flag).unwrap();
        while !store.meddler.begun.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let now = jiff::Timestamp::now().as_second();
        cleanup::plan(&store.store, Duration::from_hours(1), now)
            .await
            .unwrap()
    };
    let (committed, plan) = tokio::join!(backup, look);
    assert!(committed.is_ok() && plan.leftovers.is_empty(), "{plan:?}");
    assert_eq!(plan.young, 2, "the volume and the sign of life");
    assert_eq!(store.store.open_uploads(), 0);
}
