//! One run at a time of each database, between processes and hosts: whoever backs it up has a lease
//! on it, a small object in the database's store.
//!
//! **How**: announce, then look. A run puts an object of its own below `~tapline/leases/NAME/`, and
//! then lists what is there. Alone, it holds the lease; else it takes its object back and tries
//! again after a random time, or gives up when the other one has been there for a while. Of two
//! that begin at once the one that looks last sees the other: never both go on. That needs no
//! conditional writes, which not every store has, but listings that show what has been put, as
//! every S3 does. What is weaker: a key that may not list cannot look and goes on alone; its own
//! lease is seen by others all the same.
//!
//! **A sign of life** is the same object put again: its date is the store's own, so
//! that no host's clock matters. One whose sign of life is older than [`EXPIRY`] is of a run that
//! was killed. On the same machine it is known at once: by the process. When a run cannot reach the
//! store for that long, and finds another at its database afterwards, it ends itself.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::hostname;
use super::resources::after_name;
use crate::catalog::{BackupId, is_lease_key, lease_key, leases_prefix};
use crate::store::{ErrorKind, SharedStore, StoreError, Written, get_small, list_all};

/// Who gave no sign of life for so long is gone: five are missed, and a store's hiccup is shorter.
const EXPIRY: Duration = Duration::from_mins(3);
/// The usual times.
const PACE: Pace = Pace {
    expiry: EXPIRY,
    beat: Duration::from_secs(30),
    settled: Duration::from_secs(10),
    pause: Duration::from_secs(3),
};
/// Letting go is worth so much time; otherwise it expires.
const LETTING_GO: Duration = Duration::from_secs(2);
/// A lease is some hundred bytes.
const LONGEST: usize = 16 << 10;

/// How quickly it goes.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Without a sign of life for so long it is over.
    expiry: Duration,
    /// Between two signs of life.
    beat: Duration,
    /// Whoever lost a race has taken its object back by then.
    settled: Duration,
    /// The longest wait between two tries.
    pause: Duration,
}

/// A run's lease on one database: first it is wanted, then it is held.
pub struct Lease {
    store: SharedStore,
    database: String,
    key: String,
    holder: Holder,
    pace: Pace,
    /// The first put, which may still be on its way when whoever asked for it is gone.
    put: Option<JoinHandle<Result<Written, StoreError>>>,
    /// Fires when another run has taken the database over.
    lost: CancellationToken,
    beats: Option<AbortOnDropHandle<()>>,
}

/// Why there is no lease.
pub enum NoLease {
    /// Another run has it; in words.
    Taken(String),
    /// The store does not answer.
    Store(StoreError),
    /// The store takes no such object, so that nobody can know of this run.
    Refused(StoreError),
}

/// What the object says: who holds the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    version: u32,
    host: String,
    process: ProcessMark,
    began: Timestamp,
    /// It has let go, and could not take the object away.
    released: bool,
}

/// A process, so that it is not taken for another of its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ProcessMark {
    /// The boot of the machine; empty where it is not known.
    boot: String,
    /// The namespace that its number is of: a container has its own.
    namespace: String,
    pid: u32,
    /// Its begin, in clock ticks since the boot.
    begin: String,
}

/// What else is at the database.
struct Other {
    key: String,
    /// Seconds since its last sign of life.
    quiet: i64,
    holder: Option<Holder>,
}

impl Lease {
    /// The lease of `database` that a run wants for the backup `id`. Whatever becomes of
    /// [`Lease::take`], also when it is given up half way, [`Lease::let_go`] is to follow.
    pub fn wanted(store: SharedStore, database: &str, id: &BackupId) -> Self {
        Self {
            store,
            database: database.to_owned(),
            key: lease_key(database, id),
            holder: Holder {
                version: 1,
                host: hostname(),
                process: ProcessMark::own(),
                began: Timestamp::now(),
                released: false,
            },
            pace: PACE,
            put: None,
            lost: CancellationToken::new(),
            beats: None,
        }
    }

    /// Takes it.
    ///
    /// # Errors
    /// When another run has it, or the store does not say.
    pub async fn take(&mut self) -> Result<(), NoLease> {
        let Self {
            store,
            database,
            key,
            holder,
            pace,
            put,
            lost,
            ..
        } = self;
        let start = tokio::time::Instant::now();
        loop {
            // Its key is nobody else's.
            let (to, at, what) = (store.clone(), key.clone(), text(holder));
            let putting = put.insert(tokio::spawn(async move { to.replace(&at, what).await }));
            let done = putting.await;
            *put = None;
            match done {
                Ok(Err(error)) if error.may_pass() => return Err(NoLease::Store(error)),
                Ok(Err(error)) => return Err(NoLease::Refused(error)),
                Ok(Ok(_)) | Err(_) => {}
            }
            let other = match other(store, database, key).await {
                Ok(other) => other,
                Err(error) if error.may_pass() => return Err(NoLease::Store(error)),
                Err(error) => {
                    tracing::info!(
                        database,
                        "whether another run is at it is not known: {error}"
                    );
                    None
                }
            };
            let Some(other) = other else {
                let (store, lost) = (store.clone(), lost.clone());
                let about = (database.clone(), key.clone(), holder.clone());
                let beats = tokio::spawn(beats(*pace, store, about, lost));
                self.beats = Some(AbortOnDropHandle::new(beats));
                return Ok(());
            };
            let_go(store, key, holder).await;
            // By their clocks, which need not agree; so each waits no longer than that, either.
            let age = |holder: &Holder| Timestamp::now().duration_since(holder.began).as_secs();
            let settled = pace.settled.as_secs().cast_signed();
            let is_settled = other
                .holder
                .as_ref()
                .is_none_or(|other| age(other) >= settled);
            if is_settled || start.elapsed() >= pace.settled {
                return Err(NoLease::Taken(other.words(database)));
            }
            tokio::time::sleep(pace.pause.mul_f64(fastrand::f64())).await;
        }
    }

    /// Fires when the run must end, because another has begun.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Gives it back. One that is only dropped expires.
    pub async fn let_go(self) {
        drop(self.beats);
        if let Some(put) = self.put {
            let _ = tokio::time::timeout(LETTING_GO, put).await;
        }
        let_go(&self.store, &self.key, &self.holder).await;
    }
}

/// Takes the object away; where that is not allowed, it says at least that it means nothing.
async fn let_go(store: &SharedStore, key: &str, holder: &Holder) {
    let released = Holder {
        released: true,
        ..holder.clone()
    };
    let work = async {
        if let Err(error) = store.delete(key).await {
            tracing::debug!("a lease is not taken away: {error}");
            let _ = store.replace(key, text(&released)).await;
        }
    };
    let _ = tokio::time::timeout(LETTING_GO, work).await;
}

/// Signs of life, for as long as the lease is held.
async fn beats(
    pace: Pace,
    store: SharedStore,
    (database, key, holder): (String, String, Holder),
    lost: CancellationToken,
) {
    // The wall clock goes on while a machine sleeps, and another host's does, too.
    let mut heard = SystemTime::now();
    let away = |heard: SystemTime| heard.elapsed().is_ok_and(|away| away >= pace.expiry);
    loop {
        tokio::time::sleep(pace.beat).await;
        if away(heard)
            && let Ok(Some(other)) = other(&store, &database, &key).await
        {
            let words = other.words(&database);
            tracing::error!(
                database,
                "the lease was lost while the store was away: {words}"
            );
            lost.cancel();
            return;
        }
        match store.replace(&key, text(&holder)).await {
            Ok(_) => heard = SystemTime::now(),
            Err(error) => tracing::debug!(database, "no sign of life: {error}"),
        }
    }
}

/// Who else is at the database and alive. Of several the one that has been there longest: a listing
/// is in the order of its keys, and a backup's id begins with the time.
async fn other(
    store: &SharedStore,
    database: &str,
    own: &str,
) -> Result<Option<Other>, StoreError> {
    let listed = list_all(&**store, &leases_prefix(database)).await?;
    let now = Timestamp::now().as_second() + store.clock_offset().unwrap_or_default();
    for object in listed {
        // A store that tells no dates has nobody expire.
        let quiet = if object.modified > 0 {
            now - object.modified
        } else {
            0
        };
        let is_expired = quiet >= EXPIRY.as_secs().cast_signed();
        if object.key == own || !is_lease_key(&object.key) || is_expired {
            continue;
        }
        let holder = match get_small(&**store, &object.key, LONGEST).await {
            Ok(text) => serde_json::from_slice::<Holder>(&text).ok(),
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(_) => None,
        };
        if holder.as_ref().is_some_and(|holder| holder.released) {
            continue;
        }
        if holder
            .as_ref()
            .is_some_and(|holder| holder.process.is_dead())
        {
            let _ = store.delete(&object.key).await;
            continue;
        }
        return Ok(Some(Other {
            key: object.key,
            quiet,
            holder,
        }));
    }
    Ok(None)
}

fn text(holder: &Holder) -> Bytes {
    let text = serde_json::to_vec(holder).expect("a holder has only string keys");
    text.into()
}

impl Other {
    fn words(&self, database: &str) -> String {
        let id = self.key.rsplit('/').next().unwrap_or_default();
        let whose = self.holder.as_ref().map_or(String::new(), |holder| {
            format!(" on {} (process {})", holder.host, holder.process.pid)
        });
        format!(
            "another backup of {database} is under way{whose}: {id}, last sign of life {} s ago; \
             wait for its end, or for {} minutes after it was killed",
            self.quiet.max(0),
            EXPIRY.as_secs() / 60
        )
    }
}

impl ProcessMark {
    fn own() -> Self {
        let pid = std::process::id();
        Self {
            boot: boot(),
            namespace: namespace(),
            pid,
            begin: begin_of(pid).unwrap_or_default(),
        }
    }

    /// Whether it is certainly gone: it was of this boot of this machine, and its number is
    /// nobody's now, or another's.
    fn is_dead(&self) -> bool {
        let is_here = !self.boot.is_empty()
            && !self.namespace.is_empty()
            && !self.begin.is_empty()
            && (&self.boot, &self.namespace) == (&boot(), &namespace());
        is_here && begin_of(self.pid).as_ref() != Some(&self.begin)
    }
}

fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

fn namespace() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.display().to_string()
}

/// The 22nd field of proc(5)'s `stat`; a zombie has ended.
fn begin_of(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = after_name(&stat)?;
    fields.next().filter(|state| *state != "Z")?;
    fields.nth(18).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{Limits, Store};

    const QUICK: Pace = Pace {
        expiry: EXPIRY,
        beat: Duration::from_millis(50),
        settled: Duration::from_secs(20),
        pause: Duration::from_millis(100),
    };

    fn store() -> (MemoryStore, SharedStore) {
        let memory = MemoryStore::new(Limits::S3, None);
        (memory.clone(), Arc::new(memory))
    }

    fn wanted(store: &SharedStore) -> Lease {
        Lease {
            pace: QUICK,
            ..Lease::wanted(store.clone(), "shop", &BackupId::now())
        }
    }

    async fn taken(store: &SharedStore) -> bool {
        let mut lease = wanted(store);
        let taken = lease.take().await;
        lease.let_go().await;
        match taken {
            Ok(()) => false,
            Err(NoLease::Taken(_)) => true,
            Err(NoLease::Store(error) | NoLease::Refused(error)) => panic!("{error}"),
        }
    }

    /// Another host's lease, begun so many seconds ago.
    async fn put(store: &MemoryStore, seconds: i64, boot: &str) {
        let holder = Holder {
            version: 1,
            host: "elsewhere".into(),
            process: ProcessMark {
                boot: boot.into(),
                pid: 4_194_304,
                ..ProcessMark::own()
            },
            began: Timestamp::now() - jiff::SignedDuration::from_secs(seconds),
            released: false,
        };
        let key = lease_key("shop", &BackupId::now());
        store.put(&key, text(&holder)).await.unwrap();
    }

    #[tokio::test]
    async fn of_many_that_begin_at_once_never_two_have_the_lease() {
        let (memory, store) = store();
        let holding = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let tries = (0..8).map(|_| {
            let (store, holding) = (store.clone(), holding.clone());
            tokio::spawn(async move {
                use std::sync::atomic::Ordering::SeqCst;
                for _ in 0..20 {
                    let mut lease = wanted(&store);
                    let is_taken = lease.take().await.is_ok();
                    if is_taken {
                        assert_eq!(holding.fetch_add(1, SeqCst), 0, "two have it");
                        tokio::time::sleep(Duration::from_millis(fastrand::u64(..50))).await;
                        holding.fetch_sub(1, SeqCst);
                    }
                    lease.let_go().await;
                    if is_taken {
                        return true;
                    }
                }
                false
            })
        });
        let got = futures_util::future::join_all(tries).await;
        assert!(
            got.into_iter().all(|got| got.unwrap()),
            "all get it in turn"
        );
        assert_eq!(memory.keys(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn who_is_alive_has_it_and_who_gave_no_sign_of_life_or_is_gone_has_not() {
        let (memory, store) = store();
        put(&memory, 60, "another boot").await;
        assert!(taken(&store).await);
        memory.age_by(EXPIRY);
        assert!(!taken(&store).await);
        // A process of this machine that is no more needs no waiting for.
        put(&memory, 60, &boot()).await;
        assert!(!taken(&store).await);
    }

    #[tokio::test]
    async fn a_lease_is_kept_by_signs_of_life() {
        let (memory, store) = store();
        let mut lease = wanted(&store);
        assert!(lease.take().await.is_ok());
        for _ in 0..3 {
            memory.age_by(EXPIRY);
            tokio::time::sleep(4 * QUICK.beat).await;
            assert!(!lease.lost().is_cancelled());
            let listed = memory.list(&leases_prefix("shop"), None).await.unwrap();
            let age = Timestamp::now().as_second() - listed.items[0].modified;
            assert!(age < 60, "no sign of life for {age} s");
        }
        lease.let_go().await;
        assert_eq!(memory.keys(), Vec::<String>::new());
    }

    /// A lease that has been held while the store was away for longer than one lasts, and what
    /// `meanwhile` did.
    async fn after_the_store_was_away(meanwhile: impl AsyncFnOnce(&MemoryStore)) -> bool {
        let (memory, store) = store();
        let mut lease = Lease {
            pace: Pace {
                expiry: Duration::from_millis(400),
                ..QUICK
            },
            ..wanted(&store)
        };
        assert!(lease.take().await.is_ok());
        memory.set_away(true);
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(!lease.lost().is_cancelled(), "nobody is known to be at it");
        // To others its last sign of life is as old.
        memory.age_by(EXPIRY);
        memory.set_away(false);
        meanwhile(&memory).await;
        tokio::time::sleep(6 * QUICK.beat).await;
        let is_lost = lease.lost().is_cancelled();
        lease.let_go().await;
        is_lost
    }

    #[tokio::test]
    async fn who_finds_another_at_it_after_the_store_was_away_ends_and_else_goes_on() {
        assert!(!after_the_store_was_away(async |_| {}).await);
        let taken_over = async |memory: &MemoryStore| put(memory, 60, "another boot").await;
        assert!(after_the_store_was_away(taken_over).await);
        // One that was killed meanwhile is in nobody's way.
        let and_killed = async |memory: &MemoryStore| put(memory, 60, &boot()).await;
        assert!(!after_the_store_was_away(and_killed).await);
    }
}
