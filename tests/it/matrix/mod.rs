//! The matrix: every request of a backup, and of a restore, meets every fault, once and for ever;
//! and every request of a backup is the moment of every signal. Afterwards there is one of the
//! outcomes that are promised, and no other. So does the client that a restore loads by. `docs/faults.md` is made of the lists in [`cells`].

mod backup;
mod cells;
mod client;
mod docs;
pub mod judge;
mod restore;
mod several;
mod signals;

pub use backup::dump;

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::world::is_long_run;

/// Those of `cells` that are to run, each of which comes with its number: all of them in
/// `tests/long.sh`, else one of `share`, and another one each day: in so many days every request meets
/// every fault or signal. The number adds up the places of what a cell is made of. `TAPLINE_DAY` asks
/// for those of another day.
pub fn chosen<C>(share: usize, cells: impl IntoIterator<Item = (usize, C)>) -> Vec<C> {
    let share = if is_long_run() { 1 } else { share };
    let today = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let today = usize::try_from(today.unwrap().as_secs() / 86_400).unwrap();
    let day = std::env::var("TAPLINE_DAY").map_or(today, |day| day.parse().expect("a number"));
    println!("one of {share}: TAPLINE_DAY={day}");
    let chosen = cells
        .into_iter()
        .filter(|(number, _)| number % share == day % share);
    chosen.map(|(_, cell)| cell).collect()
}

/// Cells at once, of all matrices together: nearly all of a cell's time is waiting for patience to end.
const AT_ONCE: usize = 16;
static UNDER_WAY: Mutex<usize> = Mutex::new(0);
static ONE_LESS: Condvar = Condvar::new();

/// A cell's place among those that run at once.
struct Place;

impl Place {
    fn wait() -> Self {
        let taken = UNDER_WAY.lock().unwrap();
        *ONE_LESS
            .wait_while(taken, |taken| *taken >= AT_ONCE)
            .unwrap() += 1;
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *UNDER_WAY.lock().unwrap() -= 1;
        ONE_LESS.notify_one();
    }
}

/// What takes longer is a hang.
const PATIENCE: Duration = Duration::from_secs(80);

/// How long the store may be silent where it is made to be: less than anybody would set, so that a
/// cell takes seconds, and more than a busy machine takes for a request.
const SILENCE: &str = "timeout = \"2s\"\n";

/// Runs all cells, several at once, prints how many came to which outcome, and fails when one came
/// to none of those that are promised. `name` picks cells by `TAPLINE_CELLS`, a part of a name.
fn run_all<C: Send>(
    what: &str,
    cells: Vec<C>,
    name: impl Fn(&C) -> String + Sync,
    run: impl Fn(&C) -> Result<&'static str, String> + Sync,
) {
    let only = std::env::var("TAPLINE_CELLS").unwrap_or_default();
    let mut waiting: Vec<C> = cells
        .into_iter()
        .filter(|cell| name(cell).contains(&only))
        .collect();
    let (count, start) = (waiting.len(), Instant::now());
    waiting.reverse();
    let waiting = Mutex::new(waiting);
    let outcomes = Mutex::new(BTreeMap::<&str, usize>::new());
    let wrong = Mutex::new(Vec::new());
    let slowest = Mutex::new((Duration::ZERO, String::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap().pop();
                    let Some(cell) = next else { return };
                    let _place = Place::wait();
                    let begin = Instant::now();
                    match run(&cell) {
                        Ok(outcome) => *outcomes.lock().unwrap().entry(outcome).or_default() += 1,
                        Err(words) => {
                            wrong
                                .lock()
                                .unwrap()
                                .push(format!("{}: {words}", name(&cell)));
                        }
                    }
                    let mut slowest = slowest.lock().unwrap();
                    if begin.elapsed() > slowest.0 {
                        *slowest = (begin.elapsed(), name(&cell));
                    }
                }
            });
        }
    });
    let (time, cell) = slowest.into_inner().unwrap();
    println!(
        "{what}: {count} cells in {:.0?}; the slowest, {cell}: {time:.1?}",
        start.elapsed()
    );
    for (outcome, count) in outcomes.into_inner().unwrap() {
        println!("  {count:4} {outcome}");
    }
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort();
    assert!(
        wrong.is_empty(),
        "{} cells are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
