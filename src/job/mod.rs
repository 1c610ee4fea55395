//! One job as a state machine, on one screen: [`back_up`].
//!
//! ```text
//! Planned ──▶ Dumping ──▶ Sealed ──▶ Committed
//!  (Job)         │           │
//!                └─ erased ──┘   by its prefix in the store
//! ```
//!
//! Each state consumes the one before, so that no other order can be written down.
//!
//! | state | what is true | how it is left |
//! |---|---|---|
//! | [`Job`] | all sizes are fixed, nothing has been asked for | a store accepts an upload, unless the dump is small; then the tool starts |
//! | [`Dumping`] | bytes flow: source ─segments▶ encode ─pieces▶ deposit ─parts▶ store | the dump is whole ([`crate::dump::DumpEnd`]), every part has a receipt of a store, or the archive is whole in memory |
//! | [`Stowed`] | nothing can fail any more but the stores | in each for itself the volumes are completed, the manifest is put; no signal gets here |
//! | [`Committed`] | there is a backup in one store at least | |
//!
//! Whatever fails before the manifest, there is no backup: the child's process group is ended, and
//! all below the backup's prefix is taken away again, also when the run is being cancelled.
//!
//! | file | role |
//! |---|---|
//! | this | the way through the states |
//! | [`plan`] | a job that is planned |
//! | [`layout`] | its sizes |
//! | [`stream`](mod@stream) | the path: from the tool's start to an archive that lacks only its completion |
//! | [`parallel`] | a dump by several sessions, into an archive of many files |
//! | [`watch`] | nothing moves |
//! | [`seal`] | a whole dump (which is decided in [`crate::dump`]) and its manifest |
//! | [`settle`](mod@settle) | the end in each store: a backup, or nothing of it |
//! | [`commit`] | the point of no return |
//! | [`erase`](mod@erase) | taking away what is no backup |
//! | [`failure`] | why there is none, as data |
//! | [`places`] | numbered places for jobs and workers |

mod commit;
mod erase;
mod failure;
mod layout;
mod parallel;
pub mod places;
mod plan;
mod seal;
mod settle;
mod stream;
mod watch;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::archive::Cores;
use crate::catalog::BackupId;
use crate::meter::Phase;
pub use commit::{Committed, Sealed, Signature};
pub use failure::{FailedStep, Failure, FailureKind, JobError, StoreFailure};
pub use layout::Layout;
pub use parallel::Parallel;
pub use plan::{Job, JobStore, SIGN_OF_LIFE_AFTER};
pub use seal::WholeDump;
pub use settle::{Destination, StoreEnd, Stowed, give_up, give_up_all, settle};
use stream::{Dumping, stream};
pub use watch::{Witness, stalled};

/// How a run is interrupted, and what an interruption must wait for.
#[derive(Debug, Clone, Default)]
pub struct Interruption {
    /// Fires when jobs are to end.
    pub cancel: CancellationToken,
    /// The commits under way, which nothing ends but themselves.
    pub commits: TaskTracker,
}

impl From<CancellationToken> for Interruption {
    fn from(cancel: CancellationToken) -> Self {
        Self {
            cancel,
            commits: TaskTracker::new(),
        }
    }
}

/// Dumps, archives and uploads one source, and commits the backup.
///
/// # Errors
/// Then there is no backup, and nothing of it is in the store unless the failure says so.
pub async fn back_up(
    job: Arc<Job>,
    id: BackupId,
    cores: &Cores,
    interruption: &Interruption,
) -> Result<Committed, Failure> {
    job.meter.set_phase(Phase::Running);
    let routes = job.routes();
    let mut running = None;
    let stowed = tokio::select! {
        biased;
        () = interruption.cancel.cancelled() => Err(JobError::Cancelled),
        stalled = stalled(&job) => Err(stalled),
        stowed = JobError::caught(async {
            let Dumping { source, envelope, tee, started } =
                Dumping::begin(&job, &id, &routes, cores).await?;
            let source = running.insert(source);
            let (whole, landed) = stream(&job, cores, source, envelope, tee).await?;
            let container = ("tar", job.compression);
            Ok(Stowed::new(&job, &id, &routes, started, &whole, container, landed))
        }) => stowed,
    };
    let committed = match stowed {
        Ok(stowed) => stowed.settle(interruption).await,
        Err(error) => {
            let end = async {
                if let Some(source) = &mut running {
                    source.kill().await;
                }
            };
            let given_up = job.give_up(&id, &routes, error, interruption);
            Err(tokio::join!(given_up, end).0)
        }
    };
    job.meter.set_phase(Phase::Done);
    committed
}
