//! What the system gives a process: too little is said at the start, and a soft limit is no limit.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::world::{Run, TAPLINE, World};

const ENTRY: &str = "[databases.x]\nengine = \"command\"\ncommand = [\"seq\", \"9\"]\n";

/// `tapline ARGS` under a limit, in prlimit's words.
fn limited(world: &World, limit: &str, args: &[&str]) -> Run {
    let tapline = world.tapline(args);
    let mut command = Command::new("prlimit");
    command
        .args([limit, "--"])
        .arg(tapline.get_program())
        .args(tapline.get_args())
        .current_dir(tapline.get_current_dir().unwrap())
        .envs(
            tapline
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        );
    Run::from(command.output().unwrap())
}

#[test]
fn too_few_open_files_are_said_at_once_and_a_low_soft_limit_is_raised() {
    let world = World::new(ENTRY);
    for most in ["12", "40"] {
        let run = limited(&world, &format!("--nofile={most}"), &["backup"]);
        assert_eq!(run.code, Some(1), "{}", run.words());
        let words = format!("at most {most} open files are allowed (`ulimit -n`");
        assert!(run.stderr.contains(&words), "{}", run.words());
    }
    for enough in ["--nofile=12:1024", "--nofile=64:64"] {
        let run = limited(&world, enough, &["backup"]);
        assert_eq!(run.code, Some(0), "{enough}: {}", run.words());
    }
}

#[test]
fn threads_that_are_not_to_be_had_are_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let tapline = folder.path().join("tapline");
    let mut command = Command::new("prlimit");
    // The limit is no limit for root, and counts all processes of a user: this one has no other.
    if rustix::process::geteuid().is_root() {
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        std::fs::copy(TAPLINE, &tapline).unwrap();
        command = Command::new("setpriv");
        command.args(["--reuid", "54321", "--regid", "54321", "--clear-groups"]);
        command.args(["prlimit", "--nproc=3", "--"]).arg(&tapline);
    } else {
        command.args(["--nproc=1", "--", TAPLINE]);
    }
    let run = command.args(["init", "-"]).current_dir("/").output();
    let run = Run::from(run.unwrap());
    assert_eq!(run.code, Some(1), "{}", run.words());
    let words = "no more processes and threads may be had (`ulimit -u`";
    assert!(run.stderr.contains(words), "{}", run.words());
    assert!(!run.stderr.contains("panicked"), "{}", run.words());
}
