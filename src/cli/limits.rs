//! What the system gives a process, looked at before anything is begun: what is short later on looks
//! like a store that does not answer, or is the end in the middle of a dump.

use std::num::NonZero;
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::exit::{Exit, Failure};

/// With fewer open files no backup is made: pipes and guard of one tool, and connections to a store.
const FEWEST_OPEN_FILES: u64 = 64;
/// Of every connection of many jobs at once. A child might go through all that it may have.
const MOST_OPEN_FILES: u64 = 65_536;
/// Threads of a job beside the runtime's: what waits for files, names and processes.
const BESIDE_WORKERS: usize = 8;

/// Raises the limit of open files to what may be had without a right: many systems begin with 1,024
/// for the sake of programs that call `select`, and 20 jobs with 64 connections each are more.
///
/// # Errors
/// When there are too few for one job.
pub(super) fn open_files() -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    let may = limit.maximum.unwrap_or(u64::MAX).min(MOST_OPEN_FILES);
    let mut is = limit.current.unwrap_or(u64::MAX);
    let more = Rlimit {
        current: Some(may),
        maximum: limit.maximum,
    };
    if is < may && setrlimit(Resource::Nofile, more).is_ok() {
        is = may;
    }
    if is < FEWEST_OPEN_FILES {
        let why = format!(
            "cannot start: at most {is} open files are allowed (`ulimit -n`, LimitNOFILE= of \
             systemd), and {FEWEST_OPEN_FILES} is the least"
        );
        return Err(Failure::new(Exit::Failed, why));
    }
    Ok(())
}

/// Starts as many threads at once as a small job has, and ends them again: the system may refuse
/// them, and tokio panics where it does.
///
/// # Errors
/// With the system's word.
pub(super) fn threads() -> Result<(), Failure> {
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    let start = |_| thread::Builder::new().spawn(thread::park);
    let started: Result<Vec<_>, _> = (0..workers + BESIDE_WORKERS).map(start).collect();
    let started = started.map_err(|error| {
        let why = format!(
            "cannot start: no more processes and threads may be had (`ulimit -u`, TasksMax= of \
             systemd, pids.max of a container): {error}"
        );
        Failure::new(Exit::Failed, why)
    })?;
    for thread in started {
        thread.thread().unpark();
        let _ = thread.join();
    }
    Ok(())
}
