//! SIGKILL at random instants.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::world::World;

/// How many in an ordinary run; `TAPLINE_KILLS` asks for more.
const KILLS: usize = 4;

/// Runs `tapline` once to its end to know how long it takes at most; then again and again, killed at an
/// instant up to then; every second one at the instant from which on the new content is there, as far
/// as that is known: both are moved by what each finds. `look` waits until what the kill has left behind
/// has come to rest, and says whether the new content is there.
pub fn at_random_instants<'a>(
    what: &str,
    world: &World,
    args: impl Fn(usize) -> Vec<&'a str>,
    mut look: impl FnMut() -> bool,
) {
    let kills = std::env::var("TAPLINE_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let start = Instant::now();
    assert_eq!(world.run(&args(0)).code, Some(0));
    let mut whole = start.elapsed();
    assert!(look(), "what was not killed has done its work");
    let mut random = fastrand::Rng::new();
    let mut switch = whole;
    let (mut done, mut finished) = (0, 0);
    for n in 0..kills {
        let aimed = n % 2 == 1;
        let after = if aimed {
            switch.mul_f64(0.98 + random.f64() * 0.04)
        } else {
            whole.mul_f64(random.f64() * 1.1)
        };
        let mut running = world
            .tapline(&args(n))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(after);
        if running.try_wait().unwrap().is_some() {
            finished += 1;
            // The first was slower, as first runs are.
            whole = whole.min(after);
            switch = switch.min(whole);
        }
        running.kill().unwrap();
        running.wait().unwrap();
        let is_new = look();
        done += usize::from(is_new);
        if aimed {
            switch = switch.mul_f64(if is_new { 0.94 } else { 1.06 });
        }
        println!(
            "{what}: killed after {after:?}: {}",
            if is_new { "new" } else { "old" }
        );
    }
    println!(
        "{what}: {kills} kills within {whole:?}: {} times the old one, {done} times the new one \
         ({finished} were over before)",
        kills - done
    );
    // What a tool of the last one still does is not this test's.
    std::thread::sleep(Duration::from_millis(100));
}
