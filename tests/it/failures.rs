//! A dump that is not whole is no backup: nothing stays in the store, and the tool's own words are
//! in the message.

use tapline::s3_server::{Fault, Op};
use tapline::store::memory::Effect;

use super::world::{World, untar};

fn command(script: &str) -> String {
    format!("[databases.x]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", '''{script}''']\n")
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
fn a_dump_without_its_end_marker_although_its_tool_exits_0() {
    let world = World::new(
        "[databases.x]\nengine = \"postgres\"\ndump_tool = \"fake\"\nhost = \"127.0.0.1\"\nport = 1\n",
    );
    world.write(
        "fake",
        "#!/bin/sh\n[ \"$1\" = --version ] && echo fake 1 && exit\nhead -c 3000000 /dev/zero\n",
    );
    world.write(
        "tapline.toml",
        std::fs::read_to_string(world.path("tapline.toml"))
            .unwrap()
            .replace("\"fake\"", &format!("{:?}", world.path("fake"))),
    );
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(world.path("fake"), mode).unwrap();
    let run = world.run(&["backup"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stdout
            .contains("exited 0, but its dump does not end with")
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
    for op in [Op::Create, Op::Part, Op::Put] {
        faults.on(op).times(3).meets(Fault::SlowDown);
    }
    faults.on(Op::Part).from(4).times(3).meets(Fault::ReplyLost);
    faults.on(Op::Complete).nth(1).meets(Fault::ReplyLost);
    faults.on(Op::Put).nth(4).meets(Fault::ReplyLost);
    let run = world.run(&["backup", "--report", "-"]);
    assert_eq!(run.code, Some(0));
    assert_eq!(untar(&world.download("x")).len(), 60_000_000);
    let effects = world.server.store().effects();
    let position = |wanted: &dyn Fn(&Effect) -> bool| effects.iter().rposition(wanted).unwrap();
    let last_other_part = position(&|effect| matches!(effect, Effect::Part(_, 2..)));
    let first_part = effects
        .iter()
        .position(|effect| matches!(effect, Effect::Part(_, 1)))
        .unwrap();
    let completed = position(&|effect| matches!(effect, Effect::Completed(_)));
    let manifest = position(&|effect| matches!(effect, Effect::Put(_)));
    assert!(
        last_other_part < first_part && first_part < completed && completed < manifest,
        "{effects:?}"
    );
    assert_eq!(world.server.store().open_uploads(), 0);
}

#[test]
fn a_store_that_refuses_fails_the_job_at_once() {
    for (op, operation) in [
        (Op::Create, "CreateMultipartUpload"),
        (Op::Part, "UploadPart"),
        (Op::Complete, "CompleteMultipartUpload"),
        (Op::Put, "PutObject"),
    ] {
        let world = World::new(&command("echo x"));
        world.server.faults().on(op).nth(1).meets(Fault::Denied);
        let run = world.run(&["backup"]);
        assert_eq!(run.code, Some(1));
        assert!(run.stdout.contains(operation) && run.stdout.contains("a scripted fault"));
        world.assert_store_is_clean();
    }
}

#[test]
fn a_store_that_stays_away_is_given_up_after_retry_for() {
    let world = World::new(&command("echo x"));
    world.server.faults().on(Op::Part).meets(Fault::SlowDown);
    let run = world.run(&["backup", "--retry-for", "2s"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stdout.contains("tries in") && run.stdout.contains("uploading part 1"));
    world.assert_store_is_clean();
}
