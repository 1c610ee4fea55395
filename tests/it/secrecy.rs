//! Nothing of what is encrypted, and no key and no passphrase, is anywhere but where it must be:
//! looked for by markers in all that a backup and a restore write, say, and start.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::world::{Run, World, signal, wait_until};

/// A line of the dump, which nothing but the dump's tool and the restored file may have.
const MARKER: &str = "never-to-be-seen-4711";
const PHRASE: &str = "a-passphrase-of-the-host-0815";

/// What must not be found, by what it is.
type Secrets = BTreeMap<&'static str, String>;

fn assert_without(secrets: &Secrets, place: &str, bytes: &[u8]) {
    for (what, secret) in secrets {
        let mut windows = bytes.windows(secret.len());
        assert!(
            !windows.any(|window| window == secret.as_bytes()),
            "the {what} is in {place}"
        );
    }
}

/// All files below a folder.
fn assert_files_without(secrets: &Secrets, folder: &Path, but: &[&str]) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if but.iter().any(|but| name.to_str() == Some(but)) {
            continue;
        }
        if path.is_dir() {
            assert_files_without(secrets, &path, but);
        } else if let Ok(bytes) = std::fs::read(&path) {
            assert_without(secrets, &path.display().to_string(), &bytes);
        }
    }
}

/// The process and all that it has started, by what `/proc` says of parents.
fn family(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields.to_owned());
        let parent = fields.and_then(|fields| fields.split_whitespace().nth(1)?.parse().ok());
        parents.extend(parent.map(|parent: u32| (pid, parent)));
    }
    let mut family = vec![root];
    let mut at = 0;
    while at < family.len() {
        let parent = family[at];
        family.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        at += 1;
    }
    family
}

/// Runs to the end, and looks all the while at every process's command line and environment, and
/// at the files in `tmp`. Returns what it said, and how many processes were looked at.
fn watched(world: &World, args: &[&str], secrets: &Secrets) -> (Run, usize) {
    let mut running = begin(world, args);
    let mut seen = std::collections::BTreeSet::new();
    while running.try_wait().unwrap().is_none() {
        for pid in family(running.id()) {
            for file in ["cmdline", "environ"] {
                let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                if !bytes.is_empty() {
                    seen.insert(pid);
                }
                assert_without(secrets, &format!("{file} of a process"), &bytes);
            }
        }
        assert_files_without(secrets, &world.path("tmp"), &[]);
        std::thread::sleep(Duration::from_millis(20));
    }
    (said(world, running), seen.len())
}

/// What a process that has ended has said, and its exit code.
fn said(world: &World, mut ended: Child) -> Run {
    Run {
        code: ended.wait().unwrap().code(),
        stdout: String::new(),
        stderr: std::fs::read_to_string(world.path("said")).unwrap(),
    }
}

/// All that it says goes into the file `said`.
fn begin(world: &World, args: &[&str]) -> Child {
    let said = std::fs::File::create(world.path("said")).unwrap();
    let mut command = world.tapline(args);
    command.env("TMPDIR", world.path("tmp"));
    command.stdout(said.try_clone().unwrap()).stderr(said);
    command.spawn().unwrap()
}

/// A world whose dump is full of [`MARKER`], with hooks and a command that is notified, both of
/// which keep what they are told.
fn world(lock: &str) -> World {
    let world = World::new("");
    std::fs::create_dir(world.path("tmp")).unwrap();
    std::fs::create_dir(world.path("source")).unwrap();
    let line = format!("{MARKER}\n");
    world.write("source/dump", line.repeat(200_000));
    world.write("phrase", PHRASE);
    let tell = |file: &str| format!("[\"sh\", \"-c\", \"cat >> {file}; env >> {file}\"]");
    world.inventory(&format!(
        "[hooks]\nbefore = {0}\nafter = {0}\nbefore_run = {0}\nafter_run = {0}\n\
         [notify]\ncommand = {1}\non = [\"success\", \"failure\"]\n\
         [databases.x]\nengine = \"command\"\nlevel = 1\nhide_names = true\n\
         schedule = \"0 3 1 1 *\"\ntime_zone = \"UTC\"\n{lock}\n\
         command = [\"sh\", \"-c\", \"head -c 3000000 source/dump; sleep 1; cat source/dump\"]\n\
         restore = [\"sh\", \"-c\", \"sleep 1; env > told-env; cat > back\"]\n",
        tell("told-hook"),
        tell("told-notice"),
    ));
    world
}

/// Looks at all that is left when a backup and a restore are over.
fn assert_nothing_is_left(world: &World, secrets: &Secrets) {
    for key in world.server.store().keys() {
        let bytes = world.server.store().read(&key).unwrap();
        assert_without(secrets, &key, &bytes);
        assert_without(secrets, "a key of an object", key.as_bytes());
    }
    // The database itself, what came back, and where the secrets are kept.
    let theirs = ["source", "back", "phrase", "age.key"];
    assert_files_without(secrets, world.folder.path(), &theirs);
    for told in ["told-hook", "told-notice", "told-env", "report.json"] {
        assert!(
            !std::fs::read(world.path(told)).unwrap().is_empty(),
            "{told}"
        );
    }
    assert_eq!(std::fs::read_dir(world.path("tmp")).unwrap().count(), 0);
    let back = std::fs::read_to_string(world.path("back")).unwrap();
    assert!(back.lines().filter(|line| *line == MARKER).count() > 200_000);
}

#[test]
fn no_plaintext_and_no_private_key_is_where_it_must_not_be() {
    let pair = World::new("");
    let public = pair.age_recipient();
    let world = world(&format!("encrypt_to = [\"{public}\"]"));
    std::fs::copy(pair.path("age.key"), world.path("age.key")).unwrap();
    let private = std::fs::read_to_string(world.path("age.key")).unwrap();
    let private = private.lines().last().unwrap().to_owned();
    assert!(private.starts_with("AGE-SECRET-KEY-1"));
    let secrets = Secrets::from([("plaintext", MARKER.to_owned()), ("key", private)]);
    let backup = ["-vv", "backup", "--report", "report.json"];
    let (backup, seen) = watched(&world, &backup, &secrets);
    assert_eq!(backup.code, Some(0), "{}", backup.words());
    assert!(seen >= 3, "tapline, sh and sleep at least: {seen}");
    let restore = [
        "-vv",
        "restore",
        "x",
        "--overwrite",
        "--identity",
        "age.key",
    ];
    let (restore, seen) = watched(&world, &restore, &secrets);
    assert_eq!(restore.code, Some(0), "{}", restore.words());
    assert!(seen >= 3, "{seen}");
    for run in [&backup, &restore] {
        assert_without(&secrets, "what it says", run.words().as_bytes());
    }
    for args in [
        &["status", "--json"][..],
        &["list", "--json"],
        &["show", "x", "--json"],
    ] {
        assert_without(&secrets, args[0], world.run(args).words().as_bytes());
    }
    assert_nothing_is_left(&world, &secrets);

    // The page, its metrics and its JSON.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let serve = begin(&world, &["-vv", "serve", "--listen", &port.to_string()]);
    wait_until(|| TcpStream::connect(port).is_ok());
    for path in ["/", "/metrics", "/api/v1/status"] {
        let page = get(port, path);
        assert!(page.contains("200 OK") && page.contains('x'), "{page}");
        assert_without(&secrets, path, page.as_bytes());
    }
    signal(&serve, "TERM");
    let said = said(&world, serve);
    assert_without(&secrets, "what the service says", said.words().as_bytes());
}

fn get(at: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn no_passphrase_is_where_it_must_not_be() {
    let world = world("passphrase = { file = \"phrase\" }");
    let secrets = Secrets::from([
        ("plaintext", MARKER.to_owned()),
        ("passphrase", PHRASE.to_owned()),
    ]);
    let backup = ["-vv", "backup", "--report", "report.json"];
    let (backup, seen) = watched(&world, &backup, &secrets);
    assert_eq!(backup.code, Some(0), "{}", backup.words());
    assert!(seen >= 3, "{seen}");
    let restore = [
        "-vv",
        "restore",
        "x",
        "--overwrite",
        "--passphrase-file",
        "phrase",
    ];
    let (restore, _) = watched(&world, &restore, &secrets);
    assert_eq!(restore.code, Some(0), "{}", restore.words());
    for run in [&backup, &restore] {
        assert_without(&secrets, "what it says", run.words().as_bytes());
    }
    assert_nothing_is_left(&world, &secrets);
}

/// The kernel writes a process's memory to a file, or gives it to a program, when it crashes.
#[test]
fn who_holds_a_key_or_a_passphrase_leaves_no_core_dump() {
    let pair = World::new("");
    let public = pair.age_recipient();
    let by_key = world(&format!("encrypt_to = [\"{public}\"]"));
    std::fs::copy(pair.path("age.key"), by_key.path("age.key")).unwrap();
    let by_phrase = world("passphrase = { file = \"phrase\" }");
    let signing = world(&format!("encrypt_to = [\"{public}\"]"));
    let made = signing.run(&["keygen", "--signing", "-o", "sign.key"]);
    let inventory = std::fs::read_to_string(signing.path("tapline.toml")).unwrap();
    let inventory = format!("{inventory}[signatures]\n{}", made.stdout);
    signing.write("tapline.toml", inventory);
    let restore = ["restore", "x", "--overwrite", "--identity", "age.key"];
    for (world, args, holds) in [
        // Who only locks with a public key holds nothing that opens.
        (&by_key, &["backup"][..], false),
        (&by_key, &restore, true),
        (&by_phrase, &["backup"], true),
        (&signing, &["backup"], true),
    ] {
        let mut running = Command::new("sh")
            .args([
                "-c",
                "ulimit -c unlimited; exec \"$0\" \"$@\"",
                super::world::TAPLINE,
            ])
            .args(args)
            .current_dir(world.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // When the tool runs, and not only a hook, everything is in memory.
        let sleeps = |pid: u32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
            name.is_ok_and(|name| name.trim() == "sleep")
        };
        wait_until(|| family(running.id()).into_iter().any(sleeps));
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.id())).unwrap();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let is_none = core.unwrap().split_whitespace().nth(4) == Some("0");
        assert_eq!(is_none, holds, "{args:?}: {core:?}");
        assert!(running.wait().unwrap().success());
    }
}
