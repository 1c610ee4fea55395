//! A dump that is not whole is no backup: nothing stays in the store, and the tool's own words are
//! in the message.

use tapline::s3_server::{Fault, Op};
use tapline::store::memory::Effect;

use super::world::{World, end_of, untar, wait_until};

fn command(script: &str) -> String {
    format!("[databases.x]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", '''{script}''']\n")
}

/// The number of a process of exactly this command line.
fn process_of(line: &str) -> Option<String> {
    let line: Vec<u8> = line
        .split(' ')
        .flat_map(|word| [word.as_bytes(), b"\0"].concat())
        .collect();
    let is_it = |process: &std::fs::DirEntry| {
        std::fs::read(process.path().join("cmdline")).is_ok_and(|it| it == line)
    };
    let found = std::fs::read_dir("/proc").unwrap().flatten().find(is_it);
    found.map(|process| process.file_name().into_string().unwrap())
}

fn is_running(line: &str) -> bool {
    process_of(line).is_some()
}

#[track_caller]
fn fails(run_section: &str, script: &str, words: &[&str]) {
    let world = World::new(&format!("{run_section}{}", command(script)));
    let run = world.run(&["backup"]);
    assert_eq!(run.code, Some(1));
    for words in words {
        assert!(run.stdout.contains(words), "{words:?} is missing");
    }
    world.assert_store_is_clean();
}

#[test]
fn exit_status_1_after_200_mb() {
    fails(
        "",
        "head -c 200000000 /dev/zero; echo no more luck >&2; exit 1",
        &["exited with status 1", "no more luck"],
    );
}

#[test]
fn a_sqlite_file_that_cannot_be_dumped_is_called_by_its_name_and_not_by_ours() {
    let world = World::new("[databases.x]\nengine = \"sqlite\"\npath = \"x.db\"\n");
    world.write("x.db", "no database, not at all, not even its beginning");
    let run = world.run(&["backup"]);
    assert_eq!(run.code, Some(1));
    let told = "the SQLite dump of x.db exited with status 1";
    for words in [told, "file is not a database"] {
        assert!(run.stdout.contains(words), "{words:?} is missing");
    }
    assert!(!run.words().contains("/tapline exited"));
    world.assert_store_is_clean();
}

#[test]
fn killed_by_a_signal_after_incompressible_parts() {
    fails(
        "",
        "head -c 40000000 /dev/urandom; kill -9 $$",
        &["killed by signal 9"],
    );
}

#[test]
fn stdout_closed_and_lingering() {
    fails(
        "[run]\nexit_timeout = \"1s\"\n",
        "echo x; exec >&-; sleep 100",
        &["did not exit within 1s"],
    );
}

#[test]
fn failed_while_a_grandchild_holds_its_stdout() {
    fails(
        "",
        "sleep 100 & echo gone >&2; exit 3",
        &["exited with status 3", "gone"],
    );
}

#[test]
fn exited_0_while_a_grandchild_holds_its_stdout_in_silence() {
    let start = std::time::Instant::now();
    fails(
        "[run]\nexit_timeout = \"1s\"\n",
        "echo x; sleep 1234.5 & exit 0",
        &["exited 0, but a process that it left behind holds its stdout open"],
    );
    assert!(start.elapsed() < std::time::Duration::from_secs(20));
    assert!(!is_running("sleep 1234.5"), "its group is ended");
}

#[test]
fn what_is_left_behind_may_write_on_after_exit_0() {
    let world = World::new(&format!(
        "[run]\nexit_timeout = \"2s\"\n{}",
        command("(for i in 1 2 3 4; do sleep 1; echo $i; done) & exit 0")
    ));
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert_eq!(untar(&world.download("x")), b"1\n2\n3\n4\n");
}

#[test]
fn a_dump_without_a_byte() {
    let script = "false | cat";
    fails("", script, &["its dump is empty", "allow_empty"]);
    let world = World::new(&format!("{}allow_empty = true\n", command(script)));
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert_eq!(untar(&world.download("x")), b"");
}

#[test]
fn a_killed_tapline_takes_its_tools_and_their_children_with_it() {
    let world = World::new(&command("trap '' TERM; echo x; sleep 1234.75; true"));
    let mut tapline = world.tapline(&["backup"]).spawn().unwrap();
    wait_until(|| is_running("sleep 1234.75"));
    // The tool may be quicker than the line that says it is there.
    std::thread::sleep(std::time::Duration::from_millis(500));
    tapline.kill().unwrap();
    tapline.wait().unwrap();
    wait_until(|| !is_running("sleep 1234.75"));
}

/// Nothing may be signalled by number once its owner was reaped: the number may be another's.
#[test]
fn a_job_that_fails_long_after_its_tool_ended_signals_nobody() {
    let run = "[run]\nretry_for = \"1s\"\n";
    let script = command("echo $$ >pid; head -c 100000 /dev/zero");
    let world = World::new(&format!("{run}{script}"));
    world.server.faults().on(Op::Complete).meets(Fault::Denied);
    let traced = std::process::Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=kill", "-e", "signal=none", "-o"])
        .arg(world.path("calls"))
        .arg(super::world::TAPLINE)
        .args(["backup", "--retry-for", "1s"])
        .current_dir(world.folder.path())
        .output();
    let Ok(output) = traced else {
        return eprintln!("strace is not installed: nothing was tried");
    };
    assert_eq!(output.status.code(), Some(4));
    let pid = std::fs::read_to_string(world.path("pid")).unwrap();
    let calls = std::fs::read_to_string(world.path("calls")).unwrap();
    assert!(!calls.contains(&format!("kill(-{}", pid.trim())), "{calls}");
}

#[test]
fn a_tools_words_cannot_move_the_terminal_nor_bring_table_data_into_it() {
    let world = World::new(&command(
        "printf '\\033[2J\\033]0;owned\\007bad luck\\n' >&2; head -c 100000 /dev/zero | tr '\\0' 6 >&2; exit 1",
    ));
    let run = world.run(&["backup", "--report", "report.json"]);
    assert_eq!(run.code, Some(1));
    let report = std::fs::read_to_string(world.path("report.json")).unwrap();
    for text in [&run.stdout, &run.stderr, &report] {
        assert!(text.contains("bad luck") && !text.contains('\u{1b}') && !text.contains('\u{7}'));
        assert!(text.len() < 10_000, "{} bytes", text.len());
    }
}

#[test]
fn stalled() {
    fails(
        "[run]\nstall_timeout = \"1s\"\n",
        "echo x; sleep 100",
        &["nothing moved for 1s"],
    );
}

#[test]
fn a_program_that_is_not_there() {
    let world =
        World::new("[databases.x]\nengine = \"command\"\ncommand = [\"/no/such/program\"]\n");
    let run = world.run(&["backup"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stdout.contains("cannot run /no/such/program"));
    world.assert_store_is_clean();
}

#[test]
fn a_dump_that_does_not_look_like_one_although_its_tool_exits_0() {
    for (engine, keys, lacks) in [
        (
            "postgres",
            "",
            "end with \"-- PostgreSQL database dump complete",
        ),
        (
            "postgres",
            "globals = true\n",
            "end with \"-- PostgreSQL database cluster dump complete",
        ),
        ("postgres", "format = \"custom\"\n", "begin with \"PGDMP\""),
        ("mariadb", "", "end with \"-- Dump completed"),
    ] {
        let world = World::new(&format!(
            "[databases.x]\nengine = \"{engine}\"\ndump_tool = \"./fake\"\nhost = \"127.0.0.1\"\n\
             port = 1\n{keys}"
        ));
        let tool =
            "#!/bin/sh\n[ \"$1\" = --version ] && echo fake 1 && exit\nhead -c 3000000 /dev/zero\n";
        world.write("fake", tool);
        world.executable("fake");
        let run = world.run(&["backup"]);
        assert_eq!(run.code, Some(1), "{engine} {keys}");
        let words = format!("exited 0, but its dump does not {lacks}");
        assert!(run.stdout.contains(&words), "{words}");
        world.assert_store_is_clean();
    }
}

/// Another user's process (`sudo`), one that waits for a dead disk: no signal ends it, and it keeps
/// nobody from ending.
#[test]
fn a_tool_that_nobody_can_end_is_left_behind_with_a_word() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("only root can make a process that nobody can end: nothing was tried");
    }
    let world = World::new(
        "[run]\nstall_timeout = \"1s\"\n[databases.x]\nengine = \"command\"\n\
         command = [\"setpriv\", \"--reuid=65534\", \"--clear-groups\", \"sleep\", \"1234.25\"]\n",
    );
    // root without the right to signal others.
    let output = std::process::Command::new("timeout")
        .args(["--foreground", "--signal=KILL", "100"])
        .args(["setpriv", "--bounding-set=-kill", "--inh-caps=-kill"])
        .args([super::world::TAPLINE, "backup"])
        .current_dir(world.folder.path())
        .output()
        .unwrap();
    let words = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let left = process_of("sleep 1234.25");
    if let Some(left) = &left {
        let killed = std::process::Command::new("kill")
            .args(["-KILL", left])
            .status();
        assert!(killed.unwrap().success());
    }
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(left.is_some(), "no signal has reached it");
    assert!(
        words.contains("cannot be ended") && words.contains("nothing moved for 1s"),
        "{words}"
    );
    world.assert_store_is_clean();
}

#[test]
fn a_flood_of_stderr_does_not_block_a_good_dump() {
    let world = World::new(&command("head -c 50000000 /dev/zero >&2; echo fine"));
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert_eq!(untar(&world.download("x")), b"fine\n");
}

#[test]
fn passing_faults_of_the_store_are_ridden_out_and_the_order_of_effects_holds() {
    let world = World::new(&command("head -c 60000000 /dev/urandom"));
    let faults = world.server.faults();
    for op in [Op::Create, Op::Part] {
        faults.on(op).times(3).meets(Fault::SlowDown);
    }
    let manifest = || faults.on(Op::Put).key("manifest.json");
    manifest().times(3).meets(Fault::SlowDown);
    faults.on(Op::Part).from(4).times(3).meets(Fault::ReplyLost);
    faults.on(Op::Complete).nth(1).meets(Fault::ReplyLost);
    manifest().nth(4).meets(Fault::ReplyLost);
    let run = world.run(&["backup", "--report", "-"]);
    assert_eq!(run.code, Some(0));
    assert_eq!(untar(&world.download("x")).len(), 60_000_000);
    let effects = world.server.store().effects();
    let position = |wanted: &dyn Fn(&Effect) -> bool| effects.iter().rposition(wanted).unwrap();
    let last_part = position(&|effect| matches!(effect, Effect::Part(..)));
    let completed = position(&|effect| matches!(effect, Effect::Completed(_)));
    let manifest = position(&|effect| matches!(effect, Effect::Put(_)));
    assert!(last_part < completed && completed < manifest, "{effects:?}");
    assert_eq!(world.server.store().open_uploads(), 0);
}

#[test]
fn a_store_that_refuses_from_the_beginning_fails_the_job_at_once() {
    let world = World::new(&command("echo x"));
    let faults = world.server.faults();
    faults.on(Op::Create).nth(1).meets(Fault::Denied);
    let run = world.run(&["backup"]);
    assert_eq!(run.code, Some(4));
    assert!(run.stdout.contains("CreateMultipartUpload of x/"));
    assert!(run.stdout.contains("a scripted fault") && run.stdout.contains("secret_key"));
    world.assert_store_is_clean();
}

/// One 403 in hour ten, a session that has just expired: nothing to lose a dump for.
#[test]
fn a_store_that_refuses_once_it_has_accepted_is_asked_again_until_retry_for() {
    for (op, operation) in [
        (Op::Part, "UploadPart"),
        (Op::Complete, "CompleteMultipartUpload"),
        (Op::Put, "PutObject"),
    ] {
        let world = World::new(&command("echo x"));
        world.server.faults().on(op).times(2).meets(Fault::Denied);
        assert_eq!(world.run(&["backup"]).code, Some(0));

        let world = World::new(&command("echo x"));
        world.server.faults().on(op).meets(Fault::Denied);
        let run = world.run(&["backup", "--retry-for", "1s"]);
        assert_eq!(run.code, Some(4));
        assert!(run.stdout.contains(operation) && run.stdout.contains("tries in 1 s"));
        world.assert_store_is_clean();
    }
}

#[test]
fn a_store_that_stays_away_is_given_up_after_retry_for() {
    let world = World::new(&command("echo x"));
    world.server.faults().on(Op::Part).meets(Fault::SlowDown);
    let run = world.run(&["backup", "--retry-for", "2s"]);
    assert_eq!(run.code, Some(4));
    assert!(run.stdout.contains("tries in") && run.stdout.contains("part 1 of "));
    world.assert_store_is_clean();
}

/// It ignores SIGTERM, and so does what it has started in a group of its own, which no signal of
/// tapline's reaches and which holds its stdout and stderr: the end is waited for, but not for ever.
#[test]
fn a_tool_that_will_not_end_keeps_no_terminated_run_from_ending() {
    let world = World::new(&command(
        "trap \"\" TERM; setsid sh -c \"echo \\$\\$ >left; sleep 300\" & \
         while :; do echo x; sleep 0.1; done",
    ));
    let mut running = world.tapline(&["backup"]).spawn().unwrap();
    let left = || std::fs::read_to_string(world.path("left")).unwrap_or_default();
    wait_until(|| left().ends_with('\n'));
    let begin = std::time::Instant::now();
    super::world::signal(&running, "TERM");
    let status = end_of(&mut running);
    let took = begin.elapsed();
    let outside = left().trim().to_owned();
    let still_there = std::path::Path::new("/proc").join(&outside).exists();
    std::process::Command::new("kill")
        .args(["-KILL", "--", &format!("-{outside}")])
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(143));
    assert!(still_there, "nobody's signal has reached it");
    assert!(took < std::time::Duration::from_secs(15), "{took:?}");
    world.assert_store_is_clean();
}
