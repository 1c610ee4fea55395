//! The cores of this machine: a thread for each, shared by all jobs of a run.
//!
//! ```text
//! shop, encode    [work][work][work]   at most its workers at once ┐
//! shop, hash      [work]               one at a time: in order     ├─ each lane in turn ─▶ thread per core
//! events, encode  [work][work]         …                           ┘
//! ```
//!
//! However many jobs there are, no more than a core's worth of work is done on each core, and no
//! job waits for all of another's. A lane is as long as its owner lets it become: whoever puts work
//! into one holds the memory that the work needs.

use std::collections::VecDeque;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

type Work = Box<dyn FnOnce() + Send>;

/// The threads. The last clone that goes ends them, each after the work that it is at.
#[derive(Clone)]
pub struct Cores {
    threads: Arc<Threads>,
}

/// A queue of work, begun in the order in which it was put.
pub struct Lane {
    cores: Cores,
    id: u64,
}

impl Cores {
    /// All cores that this process may use.
    pub fn all() -> Self {
        Self::new(Self::count())
    }

    /// As many as said.
    pub fn new(count: usize) -> Self {
        let queue = Arc::new(Queue::default());
        for core in 0..count.max(1) {
            let queue = queue.clone();
            let work = move || queue.work();
            if let Err(error) = thread::Builder::new()
                .name(format!("core-{core}"))
                .spawn(work)
            {
                tracing::warn!(%error, "no thread for core {core} of {count}");
                // One is enough to go on with.
                assert!(core > 0, "no thread can be started: {error}");
                break;
            }
        }
        Self {
            threads: Arc::new(Threads { queue }),
        }
    }

    /// How many this process may use.
    pub fn count() -> usize {
        thread::available_parallelism().map_or(1, NonZero::get)
    }

    /// A lane of which at most `width` pieces of work are done at once.
    pub fn lane(&self, width: usize) -> Lane {
        let mut state = self.threads.queue.state();
        let id = state.opened;
        state.opened += 1;
        state.lanes.push(Waiting {
            id,
            work: VecDeque::new(),
            free: width.max(1),
        });
        Lane {
            cores: self.clone(),
            id,
        }
    }
}

impl Lane {
    /// Puts work at the lane's end.
    pub fn put(&self, work: impl FnOnce() + Send + 'static) {
        let queue = &self.cores.threads.queue;
        if let Some(lane) = queue.state().lane(self.id) {
            lane.work.push_back(Box::new(work));
        }
        queue.wake.notify_one();
    }
}

#[cfg(test)]
impl Lane {
    /// How much of it has not begun.
    pub fn waiting(&self) -> usize {
        let mut state = self.cores.threads.queue.state();
        state.lane(self.id).map_or(0, |lane| lane.work.len())
    }
}

/// What has not begun is given up; what has begun goes on, and holds what it was given.
impl Drop for Lane {
    fn drop(&mut self) {
        let mut state = self.cores.threads.queue.state();
        let at = state.lanes.iter().position(|lane| lane.id == self.id);
        let given_up = at.map(|at| state.lanes.remove(at));
        // Work may hold anything, a lane too: it is dropped when the queue is free.
        drop(state);
        drop(given_up);
    }
}

struct Threads {
    queue: Arc<Queue>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.queue.state().closed = true;
        self.queue.wake.notify_all();
    }
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    lanes: Vec<Waiting>,
    /// The lane whose turn it is.
    turn: usize,
    opened: u64,
    closed: bool,
}

/// A lane as the threads see it.
struct Waiting {
    id: u64,
    work: VecDeque<Work>,
    /// How much more of it may be begun now.
    free: usize,
}

impl Queue {
    /// What a thread does all its life.
    fn work(&self) {
        while let Some((lane, work)) = self.next() {
            // What was to come of it is dropped with it, and whoever waits for that is told so.
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                tracing::error!("a worker broke down");
            }
            if let Some(lane) = self.state().lane(lane) {
                lane.free += 1;
            }
        }
    }

    /// Waits for work; `None` when there will be none.
    fn next(&self) -> Option<(u64, Work)> {
        let mut state = self.state();
        while !state.closed {
            if let Some(work) = state.next() {
                // Whoever has ended may have freed a place in another lane than it goes on with.
                if state.lanes.iter().any(Waiting::may_begin) {
                    self.wake.notify_one();
                }
                return Some(work);
            }
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and if it did, the state is whole between lines.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn may_begin(&self) -> bool {
        self.free > 0 && !self.work.is_empty()
    }
}

impl State {
    fn lane(&mut self, id: u64) -> Option<&mut Waiting> {
        self.lanes.iter_mut().find(|lane| lane.id == id)
    }

    /// The first work of the next lane that has some and may begin it.
    fn next(&mut self) -> Option<(u64, Work)> {
        let count = self.lanes.len();
        let in_turn = (self.turn..self.turn + count).map(|at| at % count);
        let at = in_turn.into_iter().find(|at| self.lanes[*at].may_begin())?;
        self.turn = at + 1;
        let lane = &mut self.lanes[at];
        lane.free -= 1;
        Some((lane.id, lane.work.pop_front()?))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn a_lane_of_one_keeps_its_order_on_many_cores() {
        let (cores, (sender, done)) = (Cores::new(4), mpsc::channel());
        let lane = cores.lane(1);
        for number in 0..1000 {
            let sender = sender.clone();
            lane.put(move || sender.send(number).unwrap());
        }
        let order: Vec<i32> = (0..1000)
            .map(|_| done.recv_timeout(LONG).unwrap())
            .collect();
        assert!(order.is_sorted());
    }

    #[test]
    fn no_more_is_done_at_once_than_a_lane_allows() {
        let (cores, (sender, done)) = (Cores::new(8), mpsc::channel());
        let (lane, now, most) = (
            cores.lane(3),
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicUsize::new(0)),
        );
        for _ in 0..60 {
            let (sender, now, most) = (sender.clone(), now.clone(), most.clone());
            lane.put(move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(2));
                now.fetch_sub(1, Ordering::SeqCst);
                sender.send(()).unwrap();
            });
        }
        for _ in 0..60 {
            done.recv_timeout(LONG).unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn a_lane_with_much_work_does_not_hold_up_another() {
        let (cores, (sender, done)) = (Cores::new(1), mpsc::channel());
        let (long, short) = (cores.lane(1), cores.lane(1));
        let (gate, open) = mpsc::channel::<()>();
        long.put(move || open.recv_timeout(LONG).unwrap());
        for (lane, name) in [(&long, "long"), (&long, "long"), (&short, "short")] {
            let sender = sender.clone();
            lane.put(move || sender.send(name).unwrap());
        }
        gate.send(()).unwrap();
        let order: Vec<_> = (0..3).map(|_| done.recv_timeout(LONG).unwrap()).collect();
        assert_eq!(order, ["short", "long", "long"]);
    }

    #[test]
    fn a_lane_that_is_dropped_gives_up_what_has_not_begun() {
        let (cores, (sender, done)) = (Cores::new(1), mpsc::channel());
        let (gate, open) = mpsc::channel::<()>();
        let busy = cores.lane(1);
        busy.put(move || open.recv_timeout(LONG).unwrap());
        let lane = cores.lane(1);
        lane.put(move || sender.send(()).unwrap());
        drop(lane);
        gate.send(()).unwrap();
        assert_eq!(
            done.recv_timeout(LONG),
            Err(mpsc::RecvTimeoutError::Disconnected)
        );
    }

    #[test]
    fn work_that_panics_costs_neither_the_thread_nor_the_place() {
        let (cores, (sender, done)) = (Cores::new(1), mpsc::channel());
        let lane = cores.lane(1);
        lane.put(|| panic!("as is to be expected here"));
        lane.put(move || sender.send(()).unwrap());
        done.recv_timeout(LONG).unwrap();
    }
}
