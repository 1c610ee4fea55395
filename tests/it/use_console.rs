//! What stdout, stderr and signals do to the program: a log never matters more than a backup.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::world::{TAPLINE, World, end_of, server_process, store, wait_until};

const TWO: &str = "[run]\nretry_for = \"5s\"\n[defaults]\nengine = \"command\"\n\
    [databases.good]\ncommand = [\"seq\", \"200000\"]\n\
    [databases.bad]\ncommand = [\"sh\", \"-c\", \"echo x; exit 3\"]\n";
const GOOD: &str = "[databases.good]\nengine = \"command\"\ncommand = [\"seq\", \"1000\"]\n";

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// A pipe whose reader has gone.
fn gone() -> Stdio {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn manifests(world: &World, database: &str) -> usize {
    let keys = world.keys(database);
    keys.iter()
        .filter(|key| key.ends_with("/manifest.json"))
        .count()
}

#[test]
fn a_stderr_that_cannot_be_written_costs_no_backup() {
    for (how, args) in [
        ("full", vec!["backup"]),
        ("full", vec!["backup", "-q"]),
        ("gone", vec!["backup", "-v"]),
        ("gone", vec!["backup", "--log-format", "json"]),
    ] {
        let world = World::new(TWO);
        let stderr = if how == "full" { full().into() } else { gone() };
        let status = world.tapline(&args).stderr(stderr).status().unwrap();
        assert_eq!(status.code(), Some(1), "{args:?}");
        assert_eq!(manifests(&world, "good"), 1, "{how} {args:?}");
        assert_eq!(world.keys("bad"), Vec::<String>::new());
        assert_eq!(world.server.store().open_uploads(), 0);
    }
    // What ends the program before it has begun is its exit code's to tell.
    let world = World::new(GOOD);
    for stderr in [full().into(), gone()] {
        let status = world.tapline(&["backup", "nope"]).stderr(stderr).status();
        assert_eq!(status.unwrap().code(), Some(3));
    }
}

#[test]
fn a_stdout_that_is_full_changes_the_exit_code_alone() {
    let world = World::new(GOOD);
    let backup = world.tapline(&["backup"]).stdout(full()).output().unwrap();
    let stderr = String::from_utf8_lossy(&backup.stderr);
    assert_eq!(backup.status.code(), Some(7), "{stderr}");
    assert!(stderr.contains("cannot write to stdout"), "{stderr}");
    assert_eq!(manifests(&world, "good"), 1);
    // What failed is told first.
    let world = World::new(TWO);
    let backup = world.tapline(&["backup"]).stdout(full()).output().unwrap();
    assert_eq!(backup.status.code(), Some(1));
    // A reader that has read enough is no error.
    let list = world.tapline(&["list"]).stdout(gone()).status().unwrap();
    assert_eq!(list.code(), Some(0));
}

#[test]
fn a_report_that_cannot_be_written_hides_nothing() {
    let world = World::new(GOOD);
    world.write("taken.json", "");
    std::fs::create_dir(world.path("a.json")).unwrap();
    std::fs::create_dir(world.path("b.svg")).unwrap();
    let run = world.run(&["backup", "--report", "a.json", "--timeline=b.svg"]);
    assert_eq!(run.code, Some(7));
    assert!(run.stdout.contains("1 of 1 stored"));
    assert!(run.stderr.contains("cannot write a.json") && run.stderr.contains("b.svg"));
}

#[test]
fn a_run_that_comes_to_nothing_replaces_the_report_of_the_last_one() {
    let world = World::new("[databases.x]\nengine = \"command\"\ncommand = [\"seq\", \"9\"]\n");
    assert_eq!(world.run(&["backup", "--report", "r.json"]).code, Some(0));
    let report = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(world.path(name)).unwrap()).unwrap()
    };
    assert_eq!(report("r.json")["jobs"].as_array().unwrap().len(), 1);
    world.write("tapline.toml", "[databases.x]\nengine = \"oracle\"\n");
    assert_eq!(world.run(&["backup", "--report", "r.json"]).code, Some(3));
    let said = report("r.json");
    assert_eq!(
        (&said["version"], &said["exit_code"]),
        (&1.into(), &3.into())
    );
    assert_eq!(said["jobs"].as_array().unwrap().len(), 0);
    assert!(
        said["error"].as_str().unwrap().contains("tapline.toml"),
        "{said}"
    );
    let run = world.run(&["backup", "--report", "-"]);
    assert!(
        run.code == Some(3) && run.stdout.starts_with("{\n"),
        "{}",
        run.stdout
    );
    // A dry run is nobody's report.
    world.run(&["backup", "--dry-run", "--report", "none.json"]);
    assert!(!world.path("none.json").exists());
}

#[test]
fn quiet_says_only_what_went_wrong() {
    let world = World::new(TWO);
    let run = world.run(&["backup", "good", "-q"]);
    assert_eq!(
        (run.code, run.stdout.as_str(), run.stderr.as_str()),
        (Some(0), "", "")
    );
    let run = world.run(&["backup", "-q"]);
    assert_eq!(run.code, Some(1));
    let said = run.stdout + &run.stderr;
    assert!(said.contains("bad") && said.contains("status 3") && !said.contains("good"));
    for args in [
        &["verify", "good", "-q"][..],
        &["prune", "-q"],
        &["cleanup", "-q"],
    ] {
        let run = world.run(args);
        assert_eq!((run.code, run.stdout.as_str()), (Some(0), ""), "{args:?}");
    }
    // What was asked for is data, and is printed.
    assert!(world.run(&["list", "-q"]).stdout.contains("good"));
}

#[test]
fn every_error_is_a_line_of_json_where_json_is_asked_for() {
    let world = World::new(GOOD);
    world.write(
        "broken.toml",
        "[databases.x]\nengine = \"postgres\"\nport = \"x\"\n",
    );
    let dead = "[stores.s3]\nurl = \"s3://bucket\"\nendpoint = \"http://127.0.0.1:9\"\n\
        region = \"x\"\naccess_key = { file = \"access\" }\nsecret_key = { file = \"secret\" }\n\
        [run]\nretry_for = \"1s\"\n";
    world.write("dead.toml", format!("{dead}{GOOD}"));
    for (args, code, kind) in [
        (&["backup", "--jobs", "0"][..], 2, "usage"),
        (&["lst"], 2, "usage"),
        (&["backup", "nope"], 3, "inventory"),
        (&["check", "-c", "broken.toml"], 3, "inventory"),
        (&["list", "-c", "dead.toml"], 4, "transient"),
        (&["show", "nope"], 6, "no_backup"),
    ] {
        let mut all = vec!["--log-format=json"];
        all.extend(args);
        let run = world.run(&all);
        assert_eq!(run.code, Some(code), "{args:?}");
        let lines: Vec<Value> = run
            .stderr
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect();
        let last = lines.last().expect("an error");
        assert_eq!(last["level"], "ERROR", "{last}");
        assert_eq!(last["fields"]["kind"], kind, "{last}");
        assert_eq!(last["fields"]["exit_code"], code, "{last}");
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// A backup that does not end by itself; it ends with the test at the latest.
struct Endless(Child);

impl Endless {
    /// Returns once its dump has begun.
    fn begin(world: &World) -> Self {
        let child = world
            .tapline(&["backup"])
            .stdout(Stdio::null())
            .stderr(File::create(world.path("stderr")).unwrap())
            .spawn()
            .unwrap();
        let endless = Self(child);
        wait_until(|| world.path("begun").exists());
        endless
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        // One that has ended is none.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const ENDLESS: &str = "[databases.x]\nengine = \"command\"\n\
    command = [\"sh\", \"-c\", \"head -c 20000000 /dev/urandom; touch begun; exec sleep 300\"]\n";

#[test]
fn a_closed_terminal_ends_a_run_in_order() {
    let world = World::new(ENDLESS);
    let mut backup = Endless::begin(&world);
    signal(&backup.0, Signal::HUP);
    assert_eq!(end_of(&mut backup.0).code(), Some(129));
    world.assert_store_is_clean();
}

#[test]
fn nohup_means_it() {
    let world = World::new(
        "[databases.good]\nengine = \"command\"\n\
         command = [\"sh\", \"-c\", \"touch begun; sleep 1; seq 1000\"]\n",
    );
    let mut child = Command::new("nohup")
        .args([TAPLINE, "backup", "--no-progress"])
        .current_dir(world.folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(|| world.path("begun").exists());
    signal(&child, Signal::HUP);
    assert_eq!(end_of(&mut child).code(), Some(0));
    assert_eq!(manifests(&world, "good"), 1);
}

#[test]
fn a_store_that_hangs_does_not_keep_a_terminated_run_from_ending() {
    let world = World::new(ENDLESS);
    let (mut server, endpoint) = server_process(&[]);
    world.write("tapline.toml", format!("{}\n{ENDLESS}", store(&endpoint)));
    let mut backup = Endless::begin(&world);
    signal(&server, Signal::STOP);
    let start = Instant::now();
    signal(&backup.0, Signal::TERM);
    let (code, took) = (end_of(&mut backup.0).code(), start.elapsed());
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(code, Some(143));
    assert!(took < Duration::from_secs(10), "{took:?}");
    let said = std::fs::read_to_string(world.path("stderr")).unwrap();
    assert!(said.contains("tapline cleanup"), "{said}");
}

#[test]
fn a_signal_while_planning_or_reading_ends_at_once() {
    let world = World::new(GOOD);
    world.write(
        "slow.toml",
        "[stores.s]\nurl = \"s3://bucket\"\naccess_key = { command = [\"sh\", \"-c\", \"touch begun; exec sleep 60\"] }\n\
         secret_key = { env = \"HOME\" }\n[databases.x]\nengine = \"command\"\ncommand = [\"true\"]\n",
    );
    for task in ["backup", "list", "check"] {
        let mut child = world
            .tapline(&[task, "-c", "slow.toml"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until(|| world.path("begun").exists());
        let start = Instant::now();
        signal(&child, Signal::TERM);
        assert_eq!(end_of(&mut child).code(), Some(143), "{task}");
        assert!(start.elapsed() < Duration::from_secs(20), "{task}");
        std::fs::remove_file(world.path("begun")).unwrap();
    }
}
