//! Services that are killed again and again, clocks that jump, a store that is away for an hour: no
//! backup is missed for good, none is made twice at once, none is lost.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tapline::catalog::BackupId;
use tapline::s3_server::Fault;

use super::prune::put_backup;
use super::serve::{Service, end, log, manifests, serve};
use super::world::{World, backup_keys, signal};

/// A database whose dump takes a second, and notes in `twice` that another one is at it. A dump of
/// a service that was killed is ended at once, but not before.
fn alone(name: &str, more: &str) -> String {
    format!(
        "[databases.{name}]\nengine = \"command\"\ncommand = [\"flock\", \"-w\", \"0.5\", \
         \"-E\", \"9\", \"{name}.lock\", \"-c\", \"echo x >> {name}.ran; sleep 1; seq 99\"]\n\
         {more}"
    )
}

/// No dump has found another one at its database.
fn assert_never_twice_at_once(world: &World) {
    let log = log(world);
    assert!(!log.contains("exited with status 9"), "{log}");
}

/// On a machine that does other things, too.
fn wait_long(world: &World, what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < Duration::from_mins(5),
            "{what}: {}",
            log(world)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn of_two_services_that_are_killed_in_turn_no_database_is_missed_doubled_or_lost() {
    const KILLS: usize = 20;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let names = ["a", "b", "c", "d"];
    let often = "schedule = \"*/3 * * * * *\"\n";
    let world = World::new(&names.map(|name| alone(name, often)).concat());
    let mut both = [serve(&world), serve(&world)];
    let all = || names.iter().all(|name| manifests(&world, name) > 0);
    wait_long(&world, "the first backups", all);
    let mut stored = Vec::new();
    for kill in 0..KILLS {
        std::thread::sleep(Duration::from_millis(random.u64(..2500)));
        if kill % 7 == 3 {
            let away = world.server.faults().on_any();
            away.meets(Fault::InternalError);
            std::thread::sleep(Duration::from_secs(2));
            world.server.faults().clear();
        }
        let one = &mut both[kill % 2];
        signal(one, "KILL");
        one.wait().unwrap();
        *one = serve(&world);
        stored.extend(backup_keys(&world.server));
    }
    let before = names.map(|name| manifests(&world, name));
    for (name, before) in names.iter().zip(before) {
        wait_long(&world, name, || manifests(&world, name) > before);
    }
    for running in both {
        end(&world, running);
    }
    assert_never_twice_at_once(&world);
    let left = backup_keys(&world.server);
    let is_manifest = |key: &&String| key.ends_with("/manifest.json");
    for key in stored.iter().filter(is_manifest) {
        assert!(left.contains(key), "{key} is lost");
    }
    let backups = left.iter().filter(is_manifest).count();
    let verified = world.quietly(&["verify", "--all"]);
    assert_eq!(verified.code, Some(0), "{}", verified.words());
    println!("{KILLS} kills, {backups} backups, all of them whole");
}

/// A clock of a service's own, which can be set: the rest of the machine keeps its time.
struct Clock {
    file: PathBuf,
    offset: SignedDuration,
}

impl Clock {
    fn new(world: &World, at: Timestamp) -> Self {
        let mut clock = Self {
            file: world.path("clock"),
            offset: SignedDuration::ZERO,
        };
        clock.set(at);
        clock
    }

    fn now(&self) -> Timestamp {
        Timestamp::now() + self.offset
    }

    fn set(&mut self, at: Timestamp) {
        self.offset = at.duration_since(Timestamp::now());
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{:+}s", self.offset.as_secs())).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    /// A service that lives by it, and looks at it twice in a second, as under a watchdog.
    fn serve(&self, world: &World) -> Service {
        let library = std::fs::read_dir("/usr/lib").unwrap().find_map(|folder| {
            let library = folder.unwrap().path().join("faketime/libfaketimeMT.so.1");
            library.exists().then_some(library)
        });
        let mut command = world.tapline(&["serve"]);
        command
            .env(
                "LD_PRELOAD",
                library.expect("faketime: tests/run.sh installs it"),
            )
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
            .env("WATCHDOG_USEC", "1000000");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(world.path("log"));
        command.stdout(Stdio::null()).stderr(log.unwrap());
        Service::of(world, command)
    }
}

/// The next night's two o'clock, and the night's before backup is there.
fn night(world: &World) -> Timestamp {
    let day = 24 * 60 * 60;
    let two_hours_ago = Timestamp::now().as_second() - 2 * 60 * 60;
    let two = (two_hours_ago.div_euclid(day) + 1) * day + 2 * 60 * 60;
    let two = Timestamp::from_second(two).unwrap();
    put_backup(world, "shop", &BackupId::at(two - DAY + MINUTE));
    two
}

const DAY: SignedDuration = SignedDuration::from_hours(24);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const SECOND: SignedDuration = SignedDuration::from_secs(1);
const NIGHTLY: &str = "schedule = \"0 2 * * *\"\ntime_zone = \"UTC\"\n";

#[test]
fn a_service_whose_clock_jumps_backs_up_in_each_of_its_nights() {
    let world = World::new(&alone("shop", NIGHTLY));
    let two = night(&world);
    let mut clock = Clock::new(&world, two - 3 * SECOND);
    let running = clock.serve(&world);
    let backed_up = |count: usize, what: &str| {
        wait_long(&world, what, || manifests(&world, "shop") >= count);
        assert_eq!(manifests(&world, "shop"), count, "{what}");
    };
    // What must not be done, would be done by then.
    let nothing = |count: usize, what: &str| {
        std::thread::sleep(Duration::from_secs(4));
        assert_eq!(manifests(&world, "shop"), count, "{what}");
    };
    backed_up(2, "the first night");
    clock.set(two - 2 * SECOND);
    nothing(2, "set back by some seconds, two o'clock comes again");
    clock.set(two + DAY - 2 * SECOND);
    backed_up(3, "the second night");
    clock.set(two + 4 * DAY + HOUR);
    backed_up(4, "ahead by days, whose nights are one");
    clock.set(two + DAY + HOUR);
    nothing(4, "set right");
    clock.set(two + 2 * DAY - 2 * SECOND);
    backed_up(
        5,
        "the third night, although there is a backup of the fifth",
    );
    // In the middle of a dump.
    clock.set(two + 3 * DAY);
    let began = |count: usize| {
        let ran = std::fs::read_to_string(world.path("shop.ran")).unwrap_or_default();
        ran.lines().count() >= count
    };
    wait_long(&world, "the fourth night begins", || began(5));
    clock.set(two + 2 * DAY + 22 * HOUR);
    backed_up(6, "what was under way is done");
    let mut running = running;
    signal(&running, "KILL");
    running.wait().unwrap();
    clock.set(two + 4 * DAY - 2 * SECOND);
    let running = clock.serve(&world);
    backed_up(
        7,
        "the fifth night, by another process that finds a backup of it",
    );
    end(&world, running);
    assert_never_twice_at_once(&world);
    assert_eq!(world.run(&["verify", "shop"]).code, Some(0));
}

#[test]
fn a_store_that_is_away_for_an_hour_of_the_night_has_its_backup_an_hour_later_at_most() {
    let world = World::new(&format!(
        "[run]\nretry_for = \"1s\"\n{}",
        alone("shop", NIGHTLY)
    ));
    let two = night(&world);
    let mut clock = Clock::new(&world, two - 10 * MINUTE);
    let running = clock.serve(&world);
    // It knows what was done last.
    std::thread::sleep(Duration::from_secs(3));
    let away = world.server.faults().on_any();
    away.meets(Fault::InternalError);
    while clock.now() < two + HOUR {
        clock.set(clock.now() + MINUTE);
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(manifests(&world, "shop"), 1);
    world.server.faults().clear();
    let back = clock.now();
    wait_long(&world, "the night's backup", || {
        clock.set(clock.now() + MINUTE);
        std::thread::sleep(Duration::from_millis(500));
        manifests(&world, "shop") == 2
    });
    let late = clock.now().duration_since(back);
    println!("it came {late:#} after the store was back");
    // The dump's own second, and those of the machine, are minutes by this clock.
    assert!(late < 2 * HOUR, "{late:#}: {}", log(&world));
    end(&world, running);
    assert_never_twice_at_once(&world);
}
