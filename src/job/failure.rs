//! Why a job has no backup: an error with its causes for the program, and the same as plain data
//! for reports, logs and exit codes.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};

use crate::dump::{ChildError, DumpError, Flaw};
use crate::meter::Step;
use crate::store::{ErrorKind, StoreError};

/// What tools say whose server has waited too long for them, and the server's setting.
const IMPATIENT: &[(&str, &str)] = &[
    ("Lost connection to", "net_write_timeout"),
    ("I/O Error reading RDB payload", "repl-timeout"),
];

/// What tools say of what stays as it is: who may do what, what there is, how they are called.
const FINAL_WORDS: &[&str] = &[
    "authentication failed",
    "no pg_hba.conf entry",
    "no password supplied",
    "permission denied",
    "must be superuser",
    "row-level security",
    "server version mismatch",
    "database \"",
    "unrecognized option",
    "invalid option",
    "unknown option",
    "unknown variable",
    "Access denied",
    "Unknown database",
    "references invalid",
];

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// What the job needs could not be found out: a secret, a tool, the source, the memory.
    #[error("{message}")]
    Plan {
        /// What it was about.
        kind: FailureKind,
        /// In words.
        message: String,
    },
    /// The dump is not whole.
    #[error("dump: {0}")]
    Dump(#[from] DumpError),
    /// The compressor failed.
    #[error("encode: {0}")]
    Encode(#[from] std::io::Error),
    /// A staged job cannot keep its files.
    #[error("{0}")]
    Disk(String),
    /// The store failed before anything was completed, after all retries.
    #[error("upload: {0}")]
    Upload(#[from] StoreError),
    /// The store failed in the commit, after all retries.
    #[error("commit: {0}")]
    Commit(#[source] StoreError),
    /// Nothing moved for too long.
    #[error("stalled: nothing moved for {0:?} (stall_timeout) while waiting for {step}", step = .1.name())]
    Stalled(Duration, Step),
    /// The dump is whole, and yet not all that it should be, which `strict` does not let pass.
    #[error("not stored, because strict = true and there are warnings: {}", .0.join("; "))]
    Warned(Vec<String>),
    /// The run was interrupted.
    #[error("interrupted")]
    Cancelled,
    /// The program itself failed.
    #[error("the job broke down: {0}")]
    Panicked(String),
}

/// The step of a job in which it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailedStep {
    /// Before the tool was started.
    Plan,
    /// The engine's tool, or what it wrote.
    Dump,
    /// Compression, or the files of a staged job.
    Encode,
    /// The parts.
    Upload,
    /// From the first completion to the manifest.
    Commit,
}

/// What a failure is about: whom to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The inventory asks for what cannot be.
    Inventory,
    /// A secret is missing.
    Secret,
    /// A tool is missing or does not fit.
    Tool,
    /// The source does not answer or does not let us in.
    Source,
    /// Another run is at the database, or was at it when this one was due.
    Busy,
    /// A hook before it failed.
    Hook,
    /// The dump is not whole.
    Dump,
    /// The disk of a staged run.
    Disk,
    /// The memory given to the run is too little.
    Memory,
    /// The store did not answer for as long as it was asked.
    StoreUnreachable,
    /// The store lets us in no further.
    StoreDenied,
    /// The store answered what it must not, or another object has the key.
    StoreRefused,
    /// Nothing moved.
    Stalled,
    /// The run was interrupted.
    Interrupted,
    /// The program itself.
    Internal,
}

/// A job's failure as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Where.
    pub step: FailedStep,
    /// What it is about.
    pub kind: FailureKind,
    /// In words, causes included.
    pub message: String,
    /// What the store was asked and said, when it was the store.
    pub store: Option<Box<StoreFailure>>,
    /// What could not be taken away again, and how it can be.
    pub left: Option<String>,
    /// Whether the same may succeed when it is done once more.
    pub may_heal: bool,
}

/// A store's failure as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreFailure {
    /// The operation as S3 names it, such as `UploadPart`.
    pub operation: Option<String>,
    /// The object's key.
    pub key: Option<String>,
    /// HTTP status of the last reply.
    pub status: Option<u16>,
    /// The server's code, such as `AccessDenied`.
    pub code: Option<String>,
    /// How often it was tried.
    pub tries: u32,
    /// For how long, in seconds.
    pub seconds: f64,
    /// The chain of causes, the nearest first.
    pub causes: Vec<String>,
}

impl JobError {
    /// Of what a panic was raised with.
    pub fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Self::Panicked(text.unwrap_or_else(|| "a panic".into()))
    }

    /// What `work` comes to; that it breaks down is an error like any other.
    ///
    /// # Errors
    /// Its own, and [`JobError::Panicked`].
    pub async fn caught<T>(work: impl Future<Output = Result<T, Self>>) -> Result<T, Self> {
        let done = AssertUnwindSafe(work).catch_unwind().await;
        done.unwrap_or_else(|panic| Err(Self::panicked(&*panic)))
    }

    /// The failure as data; `left` is what [`super::erase`](mod@super::erase) could not take away.
    pub fn describe(&self, left: Option<String>) -> Failure {
        let store = match self {
            JobError::Upload(error) | JobError::Commit(error) => {
                Some(Box::new(StoreFailure::of(error)))
            }
            _ => None,
        };
        let (step, kind) = self.place();
        Failure {
            step,
            kind,
            message: self.words(),
            store,
            left,
            may_heal: self.may_heal(),
        }
    }

    /// In words, with the way out where there is one.
    fn words(&self) -> String {
        let words = self.to_string();
        let impatient = match self {
            JobError::Dump(_) => IMPATIENT.iter().find(|(said, _)| words.contains(said)),
            _ => None,
        };
        match impatient {
            Some((_, setting)) => format!(
                "{words}\nWhere the store was away, or slow, for longer than the server waits for \
                 its reader: raise its {setting}"
            ),
            None => words,
        }
    }

    /// Whether a dump that has failed so may be whole the next time. The store has a patience of its
    /// own.
    fn may_heal(&self) -> bool {
        match self {
            JobError::Dump(DumpError::Tool(ChildError::Failed { last_words, .. })) => {
                !FINAL_WORDS.iter().any(|words| last_words.contains(words))
            }
            JobError::Dump(DumpError::Tool(ChildError::Spawn { .. })) => false,
            JobError::Dump(DumpError::Flawed { flaw, .. }) => !matches!(flaw, Flaw::Beginning(_)),
            JobError::Dump(_) | JobError::Stalled(..) => true,
            _ => false,
        }
    }

    fn place(&self) -> (FailedStep, FailureKind) {
        match self {
            JobError::Plan { kind, .. } => (FailedStep::Plan, *kind),
            JobError::Dump(_) | JobError::Warned(_) => (FailedStep::Dump, FailureKind::Dump),
            JobError::Encode(_) => (FailedStep::Encode, FailureKind::Internal),
            JobError::Disk(_) => (FailedStep::Encode, FailureKind::Disk),
            JobError::Upload(error) => (FailedStep::Upload, kind_of(error)),
            JobError::Commit(error) => (FailedStep::Commit, kind_of(error)),
            JobError::Stalled(_, step) => {
                let step = match step {
                    Step::Upload => FailedStep::Upload,
                    Step::Encode => FailedStep::Encode,
                    Step::Dump => FailedStep::Dump,
                };
                (step, FailureKind::Stalled)
            }
            JobError::Cancelled => (FailedStep::Dump, FailureKind::Interrupted),
            JobError::Panicked(_) => (FailedStep::Dump, FailureKind::Internal),
        }
    }
}

fn kind_of(error: &StoreError) -> FailureKind {
    match error.kind() {
        ErrorKind::Transient | ErrorKind::Unreachable => FailureKind::StoreUnreachable,
        ErrorKind::Denied => FailureKind::StoreDenied,
        ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::Unsupported
        | ErrorKind::Invalid => FailureKind::StoreRefused,
    }
}

impl StoreFailure {
    fn of(error: &StoreError) -> Self {
        let first = std::error::Error::source(error);
        let causes = std::iter::successors(first, |cause| cause.source());
        Self {
            operation: error.operation().map(str::to_owned),
            key: error.key().map(str::to_owned),
            status: error.status(),
            code: error.code().map(str::to_owned),
            tries: error.tries(),
            seconds: error.elapsed().as_secs_f64(),
            causes: causes.map(ToString::to_string).collect(),
        }
    }
}
