//! SIGKILL at random instants of a backup of 150 MB: what is listed afterwards is whole, and
//! `cleanup` removes the rest. 10 of them; `TAPLINE_KILLS=100` asks for more, `TAPLINE_SEED` for
//! those of an earlier run.

use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::matrix::judge::{tidy_up, whole_backups};
use super::world::{World, signal, wait_until};

const SIZE: usize = 150_000_000;
const OPTIONS: [&str; 6] = [
    "backup",
    "--no-progress",
    "--compression",
    "zstd",
    "--level",
    "1",
];
/// Kills at once.
const AT_ONCE: usize = 2;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

#[test]
fn a_kill_at_any_instant_leaves_whole_backups_and_what_cleanup_removes() {
    let seed = number("TAPLINE_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = number("TAPLINE_KILLS").unwrap_or(10);
    println!("TAPLINE_SEED={seed} TAPLINE_KILLS={kills}");
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; SIZE];
    random.fill(&mut bytes);
    std::fs::write(&dump, bytes).unwrap();
    let database = format!(
        "[databases.x]\nengine = \"command\"\ncommand = [\"cat\", \"{}\"]\n",
        dump.display()
    );

    let whole = World::new(&database);
    let start = Instant::now();
    assert_eq!(whole.quietly(&OPTIONS).code, Some(0));
    let time = start.elapsed();
    assert_eq!(whole_backups(&whole, &dump), Ok(1));

    // Some come after the end: the last moments are the ones that count.
    let instants = Mutex::new(
        std::iter::repeat_with(|| time.mul_f64(1.2 * random.f64()))
            .take(usize::try_from(kills).expect("few"))
            .collect::<Vec<Duration>>(),
    );
    let (killed, listed) = (Mutex::new(0), Mutex::new(0));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(instant) = { instants.lock().unwrap().pop() } {
                    let (was_killed, left) = kill(&database, &dump, instant);
                    *killed.lock().unwrap() += usize::from(was_killed);
                    *listed.lock().unwrap() += left;
                }
            });
        }
    });
    let (killed, listed) = (killed.into_inner().unwrap(), listed.into_inner().unwrap());
    println!("{kills} backups of {time:.1?}: {killed} killed, {listed} listed and whole");
    assert!(killed > 0, "all were over before they could be killed");
}

/// Kills a backup that was begun `instant` ago, unless it is over. Returns whether it was killed,
/// and how many backups are listed.
fn kill(database: &str, dump: &std::path::Path, instant: Duration) -> (bool, usize) {
    let world = World::new(database);
    let mut command = world.tapline(&OPTIONS);
    let mut running = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(instant);
    let over = running.try_wait().unwrap();
    if over.is_none() {
        signal(&running, "KILL");
        running.wait().unwrap();
    }
    wait_until(|| world.server.log().pending() == 0);
    let listed = whole_backups(&world, dump).unwrap();
    if listed > 0 {
        let verified = world.quietly(&["verify", "--all"]);
        assert_eq!(
            verified.code,
            Some(0),
            "killed after {instant:?}: {}",
            verified.words()
        );
    }
    if over.is_some_and(|over| over.success()) {
        assert_eq!(listed, 1, "a good backup is listed");
    }
    let kept =
        tidy_up(&world, dump).unwrap_or_else(|why| panic!("killed after {instant:?}: {why}"));
    assert_eq!(kept, listed);
    (over.is_none(), listed)
}
