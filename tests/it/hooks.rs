//! Commands before and after a run and each database.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::world::{World, end_of, leases, signal, wait_until};

const DATABASES: &str = "[databases.good]\nengine = \"command\"\ncommand = [\"seq\", \"9\"]\n\
    [databases.bad]\nengine = \"command\"\ncommand = [\"false\"]\n";

/// A world whose hooks are scripts of its folder, which note what they are called with.
fn world(hooks: &[(&str, &str)], more: &str) -> World {
    let world = World::new("");
    let mut table = String::from("[hooks]\nenv = { TOKEN = { file = \"token\" } }\n");
    for (name, script) in hooks {
        let text = format!("#!/bin/sh\ncat > {name}.${{TAPLINE_DATABASE:-run}}.json\n{script}\n");
        world.write(name, text);
        world.executable(name);
        table += &format!("{name} = [\"{}\"]\n", world.path(name).display());
    }
    world.write("token", "sesame");
    world.inventory(&format!("{table}{more}"));
    world
}

fn told(world: &World, name: &str) -> Value {
    let text = std::fs::read(world.path(&format!("{name}.json")));
    serde_json::from_slice(&text.unwrap_or_else(|error| panic!("{name}: {error}"))).unwrap()
}

#[test]
fn each_is_called_in_its_turn_with_what_it_is_about() {
    let note = |name: &str| format!("echo {name} $TAPLINE_DATABASE $TAPLINE_RESULT >> order");
    let order = ["before_run", "before", "after", "after_run"].map(|name| (name, note(name)));
    let hooks: Vec<_> = order
        .iter()
        .map(|(name, script)| (*name, script.as_str()))
        .collect();
    let world = world(&hooks, &format!("[run]\njobs = 1\n{DATABASES}"));
    assert_eq!(world.run(&["backup"]).code, Some(1));
    let order = std::fs::read_to_string(world.path("order")).unwrap();
    let lines: Vec<&str> = order.lines().map(str::trim).collect();
    assert_eq!((lines[0], lines[5]), ("before_run", "after_run"));
    for line in [
        "before good",
        "after good stored",
        "before bad",
        "after bad failed",
    ] {
        assert!(lines[1..5].contains(&line), "{order}");
    }
    assert_eq!(told(&world, "before_run.run")["databases"][0], "good");
    let good = told(&world, "after.good");
    assert_eq!(
        (&good["result"], &good["dump_bytes"]),
        (&"stored".into(), &18.into())
    );
    assert_eq!(good["backup_id"], world.manifest("good").backup_id.as_str());
    assert!(
        told(&world, "after.bad")["error"]
            .as_str()
            .unwrap()
            .contains("status 1")
    );
    let run = told(&world, "after_run.run");
    assert_eq!((&run["stored"], &run["failed"]), (&1.into(), &1.into()));
    assert_eq!(run["jobs"].as_array().unwrap().len(), 2);
}

#[test]
fn a_before_that_fails_stops_that_database_alone_and_says_so() {
    let hooks = [
        (
            "before",
            "test $TAPLINE_DATABASE = good || { echo no room >&2; exit 3; }",
        ),
        ("after", ""),
    ];
    let databases = DATABASES.replace("\"false\"", "\"touch\", \"dumped\"");
    let world = world(&hooks, &databases);
    let run = world.run(&["backup", "--report", "r.json"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stdout.contains("hooks.before: ") && run.stdout.contains("no room"));
    assert!(run.stdout.contains("1 of 2 stored, 1 failed"));
    assert!(!world.path("dumped").exists());
    let report = std::fs::read_to_string(world.path("r.json")).unwrap();
    assert!(report.contains("\"kind\": \"hook\""), "{report}");
    assert_eq!(told(&world, "after.bad")["result"], "failed");
    assert_eq!(leases(&world.server), Vec::<String>::new());
}

#[test]
fn a_before_run_that_fails_stops_all_and_after_run_is_told() {
    let world = world(
        &[("before_run", "exit 1"), ("after_run", "exit 1")],
        DATABASES,
    );
    let run = world.run(&["backup"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stdout.contains("0 of 2 stored, 2 failed") && run.stdout.contains("hooks.before_run")
    );
    assert_eq!(told(&world, "after_run.run")["failed"], 2);
    // That an after fails is a warning.
    assert!(run.stderr.contains("hooks.after_run"));
    assert!(world.keys("good").is_empty());
}

#[test]
fn a_hook_has_its_time_and_no_more_and_goes_with_all_that_it_started() {
    let hooks = [("before", "sleep 300.75 & echo $! > pid; sleep 300.75")];
    let world = world(&hooks, DATABASES);
    let inventory = std::fs::read_to_string(world.path("tapline.toml")).unwrap();
    world.write(
        "tapline.toml",
        inventory.replace("[hooks]", "[hooks]\ntimeout = \"1s\""),
    );
    let start = Instant::now();
    let run = world.run(&["backup", "good"]);
    assert!(run.code == Some(1) && run.stdout.contains("was not done within 1s"));
    assert!(start.elapsed() < Duration::from_secs(10));
    let pid = std::fs::read_to_string(world.path("pid")).unwrap();
    let process = format!("/proc/{}/stat", pid.trim());
    wait_until(|| !std::fs::read_to_string(&process).is_ok_and(|stat| !stat.contains(") Z ")));
}

#[test]
fn what_it_says_is_in_the_log_and_of_secrets_it_has_its_own_alone() {
    let hooks = [(
        "before",
        "echo said=$TOKEN; echo loud >&2; env > env; yes x | head -c 9000000",
    )];
    let world = world(&hooks, DATABASES);
    let mut command = world.tapline(&["backup", "good"]);
    let output = command
        .env("AWS_SECRET_ACCESS_KEY", "storekey")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("said=sesame") && log.contains("loud"), "{log}");
    assert!(log.len() < 2_000_000, "{} bytes of log", log.len());
    let env = std::fs::read_to_string(world.path("env")).unwrap();
    assert!(env.contains("TOKEN=sesame") && env.contains("TAPLINE_BACKUP_ID=2"));
    assert!(!env.contains("storekey"));
}

#[test]
fn an_interrupted_run_still_calls_what_comes_after() {
    let hooks = [("before", ""), ("after", ""), ("after_run", "")];
    let world = world(
        &hooks,
        "[databases.x]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", \"touch on; sleep 300\"]\n",
    );
    let mut command = world.tapline(&["backup"]);
    let mut running = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(|| world.path("on").exists());
    signal(&running, "TERM");
    assert_eq!(end_of(&mut running).code(), Some(143));
    assert_eq!(told(&world, "after.x")["result"], "cancelled");
    assert_eq!(told(&world, "after_run.run")["cancelled"], 1);
    world.assert_store_is_clean();
}
