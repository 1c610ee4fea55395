//! Many jobs: how many at once, what one failure does to the others, signals, memory, and the disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tapline::config::Inventory;
use tapline::job::Interruption;
use tapline::run::{Board, Plan};
use tapline::store::memory::MemoryStore;
use tapline::store::{ChecksumKind, ErrorKind, Limits, NOTES, Result, SharedStore, StoreError};

use super::meddled::{Meddled, Meddler};
use super::world::{TAPLINE, World, end_of, peak_rss, server_process, store, wait_until};

#[test]
fn eight_databases_three_at_once_and_one_broken_leaves_seven() {
    let mut databases = String::from("[run]\njobs = 3\n");
    for n in 0..8 {
        let end = if n == 4 { "exit 9" } else { "exit 0" };
        // Each dump counts the dumps that run beside it, itself included.
        databases += &format!(
            "[databases.db{n}]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", '''mkdir -p running; touch running/{n}; \
             sleep 0.3; ls running | wc -l; rm running/{n}; {end}''']\n"
        );
    }
    let world = World::new(&databases);
    let run = world.run(&["backup", "--report", "report.json"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stdout.contains("7 of 8 stored, 1 failed")
            && run.stdout.contains("exited with status 9")
    );
    let mut most = 0;
    for n in (0..8).filter(|n| *n != 4) {
        let beside: usize =
            String::from_utf8(super::world::untar(&world.download(&format!("db{n}"))))
                .unwrap()
                .trim()
                .parse()
                .unwrap();
        assert!((1..=3).contains(&beside), "{beside} children at once");
        most = most.max(beside);
    }
    assert!(most > 1, "nothing ran side by side");
    assert!(world.keys("db4").is_empty());
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(world.path("report.json")).unwrap()).unwrap();
    assert_eq!(
        (
            report["version"].as_u64(),
            report["jobs"].as_array().unwrap().len()
        ),
        (Some(1), 8)
    );
    assert_eq!(report["jobs"][4]["result"], "failed");
}

#[test]
fn a_signal_ends_the_children_and_aborts_the_uploads() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let world = World::new(
            "[databases.x]\nengine = \"command\"\n\
             command = [\"sh\", \"-c\", \"head -c 60000000 /dev/urandom; sleep 300.25 & echo $! > pid; wait\"]\n",
        );
        let mut running = world
            .tapline(&["backup"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_until(|| {
            std::fs::read_to_string(world.path("pid")).is_ok_and(|pid| !pid.trim().is_empty())
        });
        wait_until(|| world.server.store().open_uploads() == 1);
        let status = Command::new("kill")
            .args([&format!("-{signal}"), &running.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
        assert_eq!(end_of(&mut running).code(), Some(code));
        world.assert_store_is_clean();
        let pid = std::fs::read_to_string(world.path("pid")).unwrap();
        let alive = || {
            std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
                .is_ok_and(|stat| !stat.contains(") Z "))
        };
        wait_until(|| !alive());
    }
}

/// What may differ between two runs because parts were on their way at other moments, in bytes. Of
/// what the larger dump has more it is less than a sixth.
pub const GROWTH: u64 = 48 << 20;

/// Four times the dump, the same memory, whatever compresses it.
#[test]
fn memory_does_not_grow_with_the_dump() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, endpoint) = server_process(&["--discard"]);
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("access", tapline::s3_server::ACCESS_KEY);
    write("secret", tapline::s3_server::SECRET_KEY);
    for compression in ["gzip", "zstd", "none"] {
        let peaks = [100, 400].map(|megabytes| {
            // Half compressible: base64 of random bytes.
            let script = format!(
                "head -c 3000000 /dev/urandom | base64 > x; for i in $(seq {}); do cat x; done",
                megabytes / 4
            );
            let level = if compression == "none" {
                ""
            } else {
                "level = 1\n"
            };
            let database = format!(
                "[databases.x]\nengine = \"command\"\ncompression = \"{compression}\"\n{level}\
                 command = [\"sh\", \"-c\", \"{script}\"]\n"
            );
            write("tapline.toml", &(store(&endpoint) + &database));
            let mut backup = Command::new(TAPLINE);
            backup
                .arg("backup")
                .current_dir(folder.path())
                .stdout(Stdio::null());
            peak_rss(backup)
        });
        println!(
            "{compression}: peak RSS {} and {} MiB",
            peaks[0] >> 20,
            peaks[1] >> 20
        );
        assert!(peaks[1] < 160 << 20, "{compression}: {peaks:?}");
        assert!(peaks[1] < peaks[0] + GROWTH, "{compression}: {peaks:?}");
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn nothing_is_written_to_disk() {
    let world = World::new(
        "[databases.x]\nengine = \"command\"\ncommand = [\"head\", \"-c\", \"30000000\", \"/dev/urandom\"]\n",
    );
    let status = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-e",
            "trace=open,openat,openat2,creat,rename,renameat,renameat2,mkdir,mkdirat",
            "-o",
            "trace",
        ])
        .args([TAPLINE, "backup"])
        .current_dir(world.folder.path())
        .stdout(Stdio::null())
        .status()
        .expect("strace is installed");
    assert!(status.success());
    let trace = std::fs::read_to_string(world.path("trace")).unwrap();
    assert!(
        trace.contains("tapline.toml"),
        "the trace is of the right process"
    );
    let writes = |line: &&str| {
        (line.contains("O_WRONLY") || line.contains("O_RDWR") || line.contains("O_CREAT") || !line.contains("open"))
            && !line.contains("\"/dev/null\"")
            && !line.contains("+++")
            && !line.contains("---")
            // A thread that the end of the process met on its way into a call that was never made.
            && !line.contains("???( <detached")
    };
    let wrote: Vec<&str> = trace
        .lines()
        .filter(|line| line.contains('('))
        .filter(writes)
        .collect();
    assert_eq!(wrote, Vec::<&str>::new());
}

#[test]
fn a_dry_run_prints_the_plan_without_secrets_and_starts_nothing() {
    let world = World::new(
        "[databases.x]\nengine = \"command\"\ncommand = [\"touch\", \"started\"]\nenv = { TOKEN = { file = \"token\" } }\n",
    );
    world.write("token", "sesame");
    let run = world.run(&["backup", "--dry-run"]);
    assert_eq!(run.code, Some(0));
    assert!(
        run.stdout.contains("TOKEN=*** touch started")
            && run.stdout.contains("s3://bucket/backups/x/")
    );
    assert!(!run.stdout.contains("sesame") && !world.path("started").exists());
    world.assert_store_is_clean();
}

/// Servers that take a connection and say nothing: none is asked only when another has had its time.
#[test]
fn a_dry_run_asks_all_servers_at_once() {
    let silent = ["a", "b", "c"].map(|name| {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        (name, server)
    });
    let mut databases = String::from("[run]\nconnect_timeout = \"10m\"\n");
    for (name, server) in &silent {
        let port = server.local_addr().unwrap().port();
        databases += &format!(
            "[databases.{name}]\nengine = \"postgres\"\nhost = \"127.0.0.1\"\nport = {port}\n"
        );
        server.set_nonblocking(true).unwrap();
    }
    let world = World::new(&databases);
    let mut running = world
        .tapline(&["backup", "--dry-run"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut asked = BTreeMap::new();
    wait_until(|| {
        for (name, server) in &silent {
            if let Ok(connection) = server.accept() {
                asked.insert(*name, connection);
            }
        }
        asked.len() == silent.len()
    });
    running.kill().unwrap();
    running.wait().unwrap();
}

#[test]
fn exit_codes_are_those_of_the_table() {
    let world = World::new("[databases.x]\nengine = \"sqlite\"\npath = \"missing.db\"\n");
    assert_eq!(world.run(&["backup"]).code, Some(1));
    assert_eq!(world.run(&["backup", "nope"]).code, Some(3));
    assert_eq!(
        world.run(&["backup", "--config", "nope.toml"]).code,
        Some(3)
    );
    assert_eq!(world.run(&["backup", "--jobs", "0"]).code, Some(2));
    assert_eq!(world.run(&["check"]).code, Some(5));
    world.write("secret", "wrong");
    assert_eq!(world.run(&["list"]).code, Some(4));
    assert_eq!(world.run(&["init"]).code, Some(3));
    assert_eq!(world.run(&["init", "other.toml"]).code, Some(0));
}

#[test]
fn without_credentials_a_backup_fails_at_once_and_says_so() {
    let world = World::new("");
    let inventory = format!(
        "[stores.s3]\nurl = \"s3://bucket\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\n\
         [databases.x]\nengine = \"command\"\ncommand = [\"echo\", \"x\"]\n",
        world.server.endpoint()
    );
    world.write("tapline.toml", inventory);
    let start = Instant::now();
    let mut backup = world.tapline(&["backup"]);
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"] {
        backup.env_remove(name);
    }
    let output = backup
        .env("HOME", world.folder.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(
        stdout.contains("credentials") && stdout.contains("access_key"),
        "{stdout}"
    );
    assert!(
        start.elapsed() < Duration::from_mins(1),
        "it was tried again for minutes"
    );
}

#[test]
fn compression_and_prefix_follow_the_flags() {
    let world = World::new("[databases.x]\nengine = \"command\"\ncommand = [\"seq\", \"1000\"]\n");
    let run = world.run(&[
        "backup",
        "--compression",
        "zstd",
        "--level",
        "19",
        "--under",
        "other/place",
    ]);
    assert_eq!(run.code, Some(0));
    let keys = world.server.store().keys();
    assert!(
        keys.iter()
            .all(|key| key.starts_with("backups/other/place/x/")),
        "{keys:?}"
    );
    assert!(
        keys.iter().any(|key| key.ends_with("/x.tar.zst")),
        "{keys:?}"
    );
    let run = world.run(&["backup", "--level", "19"]);
    assert!(run.code == Some(2) && run.stderr.contains("the levels of gzip are 1 to 9"));
    assert_eq!(world.run(&["backup", "--compression", "lz4"]).code, Some(2));
    assert_eq!(
        world.run(&["backup", "--staged-dir", "nowhere"]).code,
        Some(2)
    );
    let staged = format!("{}/nowhere", world.folder.path().display());
    world.inventory(&format!(
        "[run]\nmode = \"staged\"\n[staged]\ndir = \"{staged}\"\n\
         [databases.x]\nengine = \"command\"\ncommand = [\"seq\", \"9\"]\n"
    ));
    let run = world.run(&["backup"]);
    assert!(run.code == Some(3) && run.stderr.contains("there is no such folder"));
    assert!(!world.path("nowhere").exists());
}

#[test]
fn a_synthetic_source_and_no_store_need_no_inventory() {
    let folder = tempfile::tempdir().unwrap();
    let backup = Command::new(TAPLINE)
        .args([
            "backup",
            "--source",
            "synthetic:20MB:3",
            "--store",
            "null",
            "--report",
            "-",
        ])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(
        backup.status.success(),
        "{}",
        String::from_utf8_lossy(&backup.stderr)
    );
    let report: serde_json::Value = serde_json::from_slice(&backup.stdout).unwrap();
    let job = &report["jobs"][0];
    assert_eq!(
        (job["database"].as_str(), job["dump_bytes"].as_u64()),
        (Some("synthetic"), Some(20_000_000))
    );
    assert!(
        (5_000_000..8_000_000).contains(&job["archive_bytes"].as_u64().unwrap()),
        "{job}"
    );
    assert_eq!(job["dump_format"], "dump");
}

/// Breaks down at one operation of a backup's objects, and perhaps lets nobody list them.
struct Broken {
    at: &'static str,
    lists: bool,
    /// How often it was asked for its limits: first by the plan, then on the job's way.
    asked: AtomicUsize,
}

impl Meddler for Broken {
    async fn meet<T: Send>(
        &self,
        operation: &'static str,
        key: &str,
        _: Option<T>,
        carry_out: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let its_own = !key.starts_with(NOTES);
        assert!(!its_own || operation != self.at, "it breaks down");
        if !self.lists && operation == "list" {
            return Err(StoreError::new(ErrorKind::Denied, "AccessDenied"));
        }
        carry_out.await
    }

    fn limits(&self, limits: Limits) -> Limits {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        assert!(
            self.at != "plan" && (self.at != "way" || asked == 0),
            "it breaks down"
        );
        limits
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_panics_is_reported_and_erased_and_costs_the_others_nothing() {
    for (operation, mode, lists) in [
        ("plan", "streamed", true),
        ("plan", "staged", true),
        ("way", "streamed", true),
        ("way", "staged", true),
        ("create", "streamed", true),
        ("part", "streamed", true),
        ("part", "streamed", false),
        ("complete", "streamed", true),
        ("put", "streamed", true),
        ("part", "staged", true),
        ("part", "staged", false),
        ("put", "staged", true),
    ] {
        let store = "[stores.STORE]\nurl = \"s3://bucket/STORE\"\n";
        let database = "[databases.STORE]\nengine = \"command\"\nstore = \"STORE\"\n\
                        command = [\"head\", \"-c\", \"9000000\", \"/dev/urandom\"]\n";
        let text = ["good", "bad"].map(|name| format!("{store}{database}").replace("STORE", name));
        let text = format!(
            "[run]\nmode = \"{mode}\"\nretry_for = \"1s\"\n{}",
            text.concat()
        );
        let inventory = Inventory::parse(Path::new("tapline.toml"), &text).unwrap();
        let memory = || MemoryStore::new(Limits::S3, Some(ChecksumKind::Crc64Nvme));
        let (good, bad) = (memory(), memory());
        let stores = BTreeMap::from([
            ("good".to_owned(), Arc::new(good.clone()) as SharedStore),
            (
                "bad".to_owned(),
                Arc::new(Meddled {
                    store: bad.clone(),
                    meddler: Broken {
                        at: operation,
                        lists,
                        asked: AtomicUsize::new(0),
                    },
                }),
            ),
        ]);
        let plan = Plan::new(&inventory, stores, &[], TAPLINE.into()).unwrap();
        let run = tapline::run::run(
            Arc::new(plan),
            Arc::<Board>::default(),
            Interruption::default(),
        );
        let report = tokio::time::timeout(Duration::from_mins(1), run).await;
        let report = serde_json::to_value(report.expect("it ends")).unwrap();
        println!("{operation}, {mode}: {report:#}");
        let job = |name: &str| {
            let jobs = report["jobs"].as_array().unwrap();
            jobs.iter().find(|job| job["database"] == name).unwrap()
        };
        assert_eq!(job("good")["result"], "stored");
        assert_eq!(job("bad")["result"], "failed");
        assert!(
            job("bad")["failure"]["message"]
                .to_string()
                .contains("breaks down")
        );
        let keys: Vec<String> = bad.keys();
        let keys: Vec<_> = keys.iter().filter(|key| !key.starts_with(NOTES)).collect();
        // A manifest that was being put may still come, and its volumes stay, with a word.
        let told = job("bad")["failure"]["left"].to_string();
        if operation == "put" {
            assert!(told.contains("tapline cleanup"), "{told}");
        } else {
            assert!(!lists || told == "null", "{operation}, {mode}: {told}");
            assert_eq!((keys.len(), bad.open_uploads()), (0, 0));
        }
        assert!(!keys.iter().any(|key| key.ends_with("manifest.json")));
    }
}

/// A limit of this many bytes on the memory of whoever joins; `None` where none can be made.
fn control_group(limit: usize) -> Option<std::path::PathBuf> {
    let name = format!("tapline-test-{}", std::process::id());
    let kinds = [
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max"),
    ];
    kinds.into_iter().find_map(|(mount, file)| {
        let group = Path::new(mount).join(&name);
        std::fs::create_dir(&group).ok()?;
        if std::fs::write(group.join(file), limit.to_string()).is_ok() {
            return Some(group);
        }
        let _ = std::fs::remove_dir(&group);
        None
    })
}

#[test]
fn a_container_of_64_mib_is_enough_with_the_defaults() {
    let Some(group) = control_group(64 << 20) else {
        println!("no control group can be made here: not tried");
        return;
    };
    let mut databases = String::new();
    for n in 0..4 {
        databases += &format!(
            "[databases.db{n}]\nengine = \"command\"\n\
             command = [\"head\", \"-c\", \"120000000\", \"/dev/urandom\"]\n"
        );
    }
    let world = World::new(&databases);
    let script = "echo $$ >\"$1\"/cgroup.procs && exec \"$2\" backup --compression zstd";
    let status = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(&group)
        .arg(TAPLINE)
        .current_dir(world.folder.path())
        .stdin(Stdio::null())
        .status()
        .unwrap();
    wait_until(|| std::fs::remove_dir(&group).is_ok());
    assert_eq!(status.code(), Some(0));
    assert_eq!(world.server.store().open_uploads(), 0);
    for n in 0..4 {
        assert_eq!(world.keys(&format!("db{n}")).len(), 2);
    }
}
