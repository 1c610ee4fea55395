//! What a file system's error means to a caller.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use crate::store::{ErrorKind, StoreError};

const FULL: &str = "free some room, or prune";
const REFUSED: &str = "check who owns the folder, who may write there, and how it is mounted";
const TOO_LARGE: &str = "its file system takes no file as large (FAT: 4 GiB): lower the store's max_parts, and an \
     archive has several volumes";
const NO_LINKS: &str = "its file system can neither link a file nor rename one without replacing another; use one \
     that can";

/// Why something was not done: the file system's error, or the store's own.
#[derive(Debug)]
pub(super) enum Fault {
    System(io::Error),
    Store(StoreError),
}

impl From<Errno> for Fault {
    fn from(error: Errno) -> Self {
        Self::System(error.into())
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Fault {
    pub fn is(&self, errno: Errno) -> bool {
        matches!(self, Self::System(error) if Errno::from_io_error(error) == Some(errno))
    }

    /// The error as a store's; `changes`: it may have been done all the same.
    pub fn explain(self, changes: bool) -> StoreError {
        let error = match self {
            Self::Store(error) => return error,
            Self::System(error) => error,
        };
        let (kind, advice) = kind(&error);
        let explained = StoreError::new(kind, error.to_string())
            .maybe_done(changes && kind == ErrorKind::Transient)
            .with_source(Arc::new(error));
        match advice {
            Some(advice) => explained.with_advice(advice),
            None => explained,
        }
    }
}

fn kind(error: &io::Error) -> (ErrorKind, Option<&'static str>) {
    let Some(errno) = Errno::from_io_error(error) else {
        return (ErrorKind::Transient, None);
    };
    match errno {
        Errno::NOENT => (ErrorKind::NotFound, None),
        Errno::EXIST => (ErrorKind::AlreadyExists, None),
        Errno::ACCESS | Errno::PERM | Errno::ROFS => (ErrorKind::Denied, Some(REFUSED)),
        // Waiting does not make room, and a job that ends gives back what it has taken.
        Errno::NOSPC | Errno::DQUOT => (ErrorKind::Invalid, Some(FULL)),
        Errno::FBIG => (ErrorKind::Invalid, Some(TOO_LARGE)),
        Errno::NOTSUP | Errno::NOSYS | Errno::XDEV => (ErrorKind::Unsupported, Some(NO_LINKS)),
        // What stands in the way is a file or a link, or its name is too long.
        Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL => {
            (ErrorKind::Invalid, None)
        }
        // A disk that was pulled, a server that is away, a handle that is stale.
        _ => (ErrorKind::Transient, None),
    }
}
