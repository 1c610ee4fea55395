//! tapline as a service: what is due is done, once, whatever becomes of the process.

use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tapline::catalog::BackupId;
use tapline::s3_server::{Fault, Op};

use super::prune::put_backup;
use super::world::{World, backup_keys, end_of, leases, signal, wait_until};

/// Due on the first of January alone, and so since the last one.
const YEARLY: &str = "schedule = \"0 0 1 1 *\"\ntime_zone = \"UTC\"\n";

/// A database whose dump takes a moment, notes that it ran, and notices another one beside it.
pub fn slow(name: &str, more: &str) -> String {
    format!(
        "[databases.{name}]\nengine = \"command\"\ncommand = [\"flock\", \"-w\", \"3\", \
         \"{name}.lock\", \"-c\", \"echo x >> {name}.ran; sleep 0.5; seq 99\"]\n{more}"
    )
}

/// The id of a backup of two years ago.
fn long_ago() -> BackupId {
    BackupId::at(Timestamp::now() - SignedDuration::from_hours(2 * 366 * 24))
}

/// A running service: it ends with its test, and what it said is told when that fails.
pub struct Service {
    child: Child,
    log: PathBuf,
}

impl Service {
    pub fn of(world: &World, mut command: Command) -> Self {
        Self {
            child: command.spawn().unwrap(),
            log: world.path("log"),
        }
    }
}

impl Deref for Service {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Service {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

pub fn serve(world: &World) -> Service {
    let log = std::fs::OpenOptions::new();
    let log = log
        .clone()
        .create(true)
        .append(true)
        .open(world.path("log"));
    let mut command = world.tapline(&["serve"]);
    command.stdout(Stdio::null()).stderr(log.unwrap());
    Service::of(world, command)
}

pub fn log(world: &World) -> String {
    std::fs::read_to_string(world.path("log")).unwrap_or_default()
}

/// Ends it by SIGTERM; it must end well, and soon.
pub fn end(world: &World, mut running: Service) {
    let start = Instant::now();
    signal(&running, "TERM");
    let code = end_of(&mut running).code();
    assert_eq!(code, Some(0), "{}", log(world));
    assert!(start.elapsed() < Duration::from_mins(1));
}

pub fn manifests(world: &World, database: &str) -> usize {
    let prefix = format!("backups/{database}/");
    let of = |key: &&String| key.starts_with(&prefix) && key.ends_with("/manifest.json");
    backup_keys(&world.server).iter().filter(of).count()
}

/// How often the dump of a database was begun.
fn dumps(world: &World, database: &str) -> usize {
    let ran = std::fs::read_to_string(world.path(&format!("{database}.ran")));
    ran.unwrap_or_default().lines().count()
}

#[test]
fn what_was_missed_is_done_at_once_and_once() {
    let world = World::new(&(slow("shop", YEARLY) + &slow("events", YEARLY) + &slow("byhand", "")));
    for database in ["shop", "events", "byhand"] {
        put_backup(&world, database, &long_ago());
    }
    let running = serve(&world);
    wait_until(|| manifests(&world, "shop") == 2 && manifests(&world, "events") == 2);
    end(&world, running);
    assert_eq!(leases(&world.server), Vec::<String>::new());
    // Another start finds nothing that is due, nor does a backup by hand make anything due.
    let running = serve(&world);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(world.run(&["backup", "shop"]).code, Some(0));
    std::thread::sleep(Duration::from_secs(2));
    end(&world, running);
    assert_eq!((dumps(&world, "shop"), dumps(&world, "events")), (2, 1));
    assert_eq!(dumps(&world, "byhand"), 0);
}

#[test]
fn a_second_store_that_is_away_from_the_start_holds_up_nothing_that_is_due() {
    let world = World::new("");
    let offsite = super::world::store(&world.server.endpoint())
        .replace("[stores.s3]", "[stores.offsite]")
        .replace("s3://bucket/backups", "s3://bucket/offsite");
    let more = "schedule = \"*/2 * * * * *\"\nstores = [\"s3\", \"offsite\"]\n";
    world.inventory(&format!(
        "{offsite}[run]\nwait_for_store = \"1s\"\n{}",
        slow("shop", more)
    ));
    let away = world.server.faults().on_any().key("offsite/");
    away.meets(Fault::InternalError);
    let running = serve(&world);
    // A quarter of an hour (retry_for) is what each request to a single store would be worth.
    let start = Instant::now();
    while manifests(&world, "shop") < 1 {
        assert!(start.elapsed() < Duration::from_mins(5), "{}", log(&world));
        std::thread::sleep(Duration::from_millis(50));
    }
    wait_until(|| log(&world).contains("stored in s3; offsite failed"));
    world.server.faults().clear();
    end(&world, running);
}

#[test]
fn a_service_that_is_killed_at_any_instant_misses_nothing_and_does_nothing_twice() {
    const KILLS: u64 = 20;
    std::thread::scope(|scope| {
        for lane in 0..4 {
            scope.spawn(move || {
                for kill in (lane..KILLS).step_by(4) {
                    let world = World::new(&slow("shop", YEARLY));
                    put_backup(&world, "shop", &long_ago());
                    let mut first = serve(&world);
                    std::thread::sleep(Duration::from_millis(100 * kill));
                    signal(&first, "KILL");
                    first.wait().unwrap();
                    let was_stored = manifests(&world, "shop") == 2;
                    let second = serve(&world);
                    wait_until(|| manifests(&world, "shop") >= 2);
                    std::thread::sleep(Duration::from_millis(1500));
                    end(&world, second);
                    assert_eq!(
                        manifests(&world, "shop"),
                        2,
                        "killed at {kill}: {}",
                        log(&world)
                    );
                    assert!(dumps(&world, "shop") <= 2, "killed at {kill}");
                    // The next backup or `cleanup` takes the lease away of one that was killed behind
                    // its commit.
                    let left = leases(&world.server);
                    assert!(left.is_empty() || was_stored, "killed at {kill}: {left:?}");
                }
            });
        }
    });
}

#[test]
fn two_services_on_one_inventory_divide_the_work() {
    let names = ["a", "b", "c", "d"];
    let world = World::new(&names.map(|name| slow(name, YEARLY)).concat());
    for name in names {
        put_backup(&world, name, &long_ago());
    }
    let both = [serve(&world), serve(&world)];
    wait_until(|| names.iter().all(|name| manifests(&world, name) >= 2));
    std::thread::sleep(Duration::from_secs(2));
    for running in both {
        end(&world, running);
    }
    for name in names {
        let count = (manifests(&world, name), dumps(&world, name));
        assert_eq!(count, (2, 1), "{name}: {}", log(&world));
    }
}

#[test]
fn the_first_backup_comes_when_it_is_due_also_after_a_kill() {
    let soon = "schedule = \"*/2 * * * * *\"\n";
    let world = World::new(&(slow("shop", YEARLY) + &slow("events", soon)));
    let mut running = serve(&world);
    let awaited = |name| {
        let key = format!("backups/~tapline/records/{name}/awaited.json");
        world.server.store().read(&key).is_some()
    };
    wait_until(|| awaited("shop") && manifests(&world, "events") > 0);
    signal(&running, "KILL");
    running.wait().unwrap();
    let running = serve(&world);
    let before = manifests(&world, "events");
    wait_until(|| manifests(&world, "events") > before);
    end(&world, running);
    assert_eq!(dumps(&world, "shop"), 0, "it is not due before January");
}

#[test]
fn a_wrong_inventory_leaves_the_one_before_and_a_right_one_takes_its_place() {
    let world = World::new(&slow("shop", YEARLY));
    put_backup(&world, "shop", &long_ago());
    let running = serve(&world);
    wait_until(|| manifests(&world, "shop") == 2);
    world.inventory("[databases.shop]\nengine = \"oracle\"\n");
    signal(&running, "HUP");
    wait_until(|| log(&world).contains("the one before is kept"));
    assert!(log(&world).contains("databases.shop.engine: must be"));
    world.inventory(&slow("shop", ""));
    signal(&running, "HUP");
    wait_until(|| log(&world).contains("nothing is ever due"));
    world.inventory(&(slow("shop", YEARLY) + &slow("events", YEARLY)));
    put_backup(&world, "events", &long_ago());
    signal(&running, "HUP");
    wait_until(|| manifests(&world, "events") == 2);
    end(&world, running);
    assert_eq!(dumps(&world, "shop"), 1);
    world.inventory(&slow("shop", ""));
    let run = world.run(&["serve"]);
    assert!(run.code == Some(3) && run.stderr.contains("add schedule ="));
}

#[test]
fn a_prune_and_a_cleanup_that_were_missed_are_done_at_once_and_once() {
    let yearly = "\"0 0 1 1 *\"";
    let world = World::new(&format!(
        "[serve]\nprune = {yearly}\ncleanup = {yearly}\ntime_zone = \"UTC\"\n{}",
        slow("shop", "keep_last = 1\n")
    ));
    for _ in 0..2 {
        assert_eq!(world.run(&["backup"]).code, Some(0));
        std::thread::sleep(Duration::from_secs(1));
    }
    let key = |name: &str| format!("backups/~tapline/chores/{name}.json");
    let read = |name: &str| world.server.store().read(&key(name));
    // At its first start nothing is known, so nothing was missed; and that start is remembered.
    let running = serve(&world);
    wait_until(|| read("prune").is_some() && read("cleanup").is_some());
    end(&world, running);
    assert_eq!(manifests(&world, "shop"), 2);
    let two_years_ago = format!("{{\"version\":1,\"began\":\"{}\"}}", long_ago().time());
    for name in ["prune", "cleanup"] {
        world
            .server
            .store()
            .overwrite(&key(name), two_years_ago.clone().into());
    }
    let running = serve(&world);
    let is_done = |name: &str| read(name).is_some_and(|text| text != two_years_ago.as_bytes());
    wait_until(|| manifests(&world, "shop") == 1 && is_done("prune") && is_done("cleanup"));
    end(&world, running);
    let done = read("prune");
    let running = serve(&world);
    std::thread::sleep(Duration::from_secs(2));
    end(&world, running);
    assert_eq!(read("prune"), done, "it was not due again");
}

#[test]
fn verify_drill_prune_and_cleanup_have_schedules_too() {
    let often = "\"* * * * * *\"";
    let world = World::new(&format!(
        "[serve]\nverify = {often}\ndrill = {often}\nprune = {often}\ncleanup = {often}\n\
         [notify]\ncommand = [\"touch\", \"told\"]\n{}",
        slow("shop", "keep_last = 1\n")
    ));
    assert_eq!(world.run(&["backup"]).code, Some(0));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let orphan = put_backup(&world, "gone", &long_ago());
    world.server.store().age_by(Duration::from_hours(48));
    let store = world.server.store();
    world
        .block_on(tapline::store::Store::delete(store, &orphan[1]))
        .unwrap();
    let running = serve(&world);
    let has = |key: &str| world.server.store().read(key).is_some();
    wait_until(|| has("backups/~tapline/records/shop/verify.json"));
    // A manifest goes before its volumes.
    let volumes = || {
        let mut keys = world.keys("shop");
        keys.retain(|key| key.ends_with("/shop.tar.gz"));
        keys
    };
    wait_until(|| volumes().len() == 1 && !has(&orphan[0]));
    assert_eq!(manifests(&world, "shop"), 1);
    assert!(!world.path("told").exists());
    // What is wrong is told.
    let volume = volumes().remove(0);
    let mut bytes = store.read(&volume).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    store.overwrite(&volume, bytes.into());
    wait_until(|| world.path("told").exists());
    end(&world, running);
}

#[test]
fn a_service_that_is_ended_leaves_nothing_of_what_was_under_way() {
    let world = World::new(&format!(
        "[databases.x]\nengine = \"command\"\n{YEARLY}\
         command = [\"sh\", \"-c\", \"head -c 30000000 /dev/urandom; touch running; sleep 300\"]\n"
    ));
    put_backup(&world, "x", &long_ago());
    let running = serve(&world);
    wait_until(|| world.path("running").exists());
    end(&world, running);
    assert_eq!(
        (manifests(&world, "x"), world.server.store().open_uploads()),
        (1, 0)
    );
    assert_eq!(leases(&world.server), Vec::<String>::new());
}

#[test]
fn a_store_that_is_away_at_the_start_is_asked_again() {
    let world = World::new(&format!(
        "[run]\nretry_for = \"1s\"\n{}",
        slow("shop", YEARLY)
    ));
    put_backup(&world, "shop", &long_ago());
    world.server.faults().on(Op::List).meets(Fault::SlowDown);
    let running = serve(&world);
    wait_until(|| log(&world).contains("when it was backed up last is not known"));
    world.server.faults().clear();
    let start = Instant::now();
    // After `retry_for`, or a moment more.
    while manifests(&world, "shop") < 2 {
        assert!(start.elapsed() < Duration::from_secs(90), "{}", log(&world));
        std::thread::sleep(Duration::from_millis(100));
    }
    end(&world, running);
}

#[test]
fn systemd_is_told_when_it_is_ready_alive_and_stopping() {
    let world = World::new(&slow("shop", YEARLY));
    let socket = UnixDatagram::bind(world.path("notify")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut command = world.tapline(&["serve"]);
    command
        .env("NOTIFY_SOCKET", world.path("notify"))
        .env("WATCHDOG_USEC", "2000000")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut running = Service::of(&world, command);
    let heard = |what: &str| {
        let mut buffer = [0; 4096];
        loop {
            let length = socket
                .recv(&mut buffer)
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            if String::from_utf8_lossy(&buffer[..length]).contains(what) {
                return;
            }
        }
    };
    heard("READY=1");
    for _ in 0..3 {
        heard("WATCHDOG=1");
    }
    signal(&running, "HUP");
    heard("RELOADING=1");
    heard("READY=1");
    signal(&running, "TERM");
    heard("STOPPING=1");
    assert_eq!(end_of(&mut running).code(), Some(0));
}

/// One GET; the status line, headers and body.
pub fn get(address: &str, path: &str, headers: &str) -> String {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

pub fn listening(world: &World, args: &[&str]) -> (Service, String) {
    let log_file = std::fs::File::create(world.path("log")).unwrap();
    let args = [&["serve", "--listen"], args].concat();
    let mut command = world.tapline(&args);
    command.stdout(Stdio::null()).stderr(log_file);
    let running = Service::of(world, command);
    wait_until(|| log(world).contains("serving "));
    let text = log(world);
    let (_, rest) = text.split_once("listening on http://").unwrap();
    (running, rest.split('/').next().unwrap().to_owned())
}

#[test]
fn the_page_metrics_and_json_say_how_each_database_stands() {
    let odd = "<script>alert(1)</script>";
    let world = World::new(
        &(slow("shop", YEARLY)
            + &slow("events", YEARLY)
                .replace("[databases.events]", &format!("[databases.'{odd}']"))),
    );
    put_backup(
        &world,
        "shop",
        &BackupId::at(Timestamp::now() - SignedDuration::from_hours(5)),
    );
    let (running, address) = listening(&world, &["127.0.0.1:0"]);
    let here = "host: localhost\r\n";
    let page = get(&address, "/", here);
    assert!(
        page.starts_with("HTTP/1.1 200") && page.contains("default-src 'none'"),
        "{page}"
    );
    assert!(
        page.contains("5 h 0 min ago") && page.contains("1 database not well"),
        "{page}"
    );
    assert!(
        page.contains("&lt;script&gt;") && page.matches("<script").count() == 1,
        "{page}"
    );
    assert!(page.len() < 100_000);
    assert!(page.contains("<script src=/script.js defer>"));
    for elsewhere in ["http://", "https://", "src=\"", "src=//", "url("] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
    let metrics = get(&address, "/metrics", here);
    assert!(metrics.contains("tapline_database_good{database=\"shop\",store=\"s3\"} 1"));
    let json = get(&address, "/api/v1/status", here);
    let body = json.split_once("\r\n\r\n").unwrap().1;
    let status: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(status["databases"].as_array().unwrap().len(), 2);
    assert!(get(&address, "/healthz", "host: x\r\n").starts_with("HTTP/1.1 200"));
    assert!(get(&address, "/", "host: evil.example\r\n").starts_with("HTTP/1.1 403"));
    assert!(get(&address, "/nowhere", here).starts_with("HTTP/1.1 404"));
    end(&world, running);
}

#[test]
fn beyond_loopback_a_token_is_asked_for() {
    let world = World::new(&slow("shop", YEARLY));
    let run = world.run(&["serve", "--listen", "0.0.0.0:0"]);
    assert!(run.code == Some(2) && run.stderr.contains("--token-file"));
    world.write("token", "short");
    let run = world.run(&["serve", "--listen", "127.0.0.1:0", "--token-file", "token"]);
    assert!(run.code == Some(2) && run.stderr.contains("16 characters"));
    world.write("token", "0123456789abcdef\n");
    let (running, address) = listening(&world, &["0.0.0.0:0", "--token-file", "token"]);
    let address = address.replace("0.0.0.0", "127.0.0.1");
    for path in ["/", "/metrics", "/api/v1/status"] {
        let answer = get(&address, path, "host: x\r\n");
        assert!(answer.starts_with("HTTP/1.1 401"), "{path}: {answer}");
        let headers = "host: x\r\nauthorization: Bearer 0123456789abcdef\r\n";
        assert!(
            get(&address, path, headers).starts_with("HTTP/1.1 200"),
            "{path}"
        );
    }
    assert!(get(&address, "/healthz", "host: x\r\n").starts_with("HTTP/1.1 200"));
    end(&world, running);
}
