//! One dump into several stores at once: each comes to its own end, and none keeps the others.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tapline::catalog::Manifest;
use tapline::s3_server::{Fault, Op};

use super::servers::{PASSWORD, Postgres};
use super::world::{Run, World};

const PATIENCE: Duration = Duration::from_secs(80);

/// A database in two stores: a bucket of the world's server, and a second place. What its dump
/// writes is counted in `dumps`.
struct Two {
    world: World,
    second: Second,
}

/// The second store.
enum Second {
    /// Another bucket of the same server.
    Bucket,
    /// A folder.
    Folder(PathBuf),
}

impl Two {
    fn new(second: Second, dump: &str, run: &str, more: &str) -> Self {
        let world = World::new("");
        let two = Self { world, second };
        two.inventory(dump, run, more);
        two
    }

    fn inventory(&self, dump: &str, run: &str, more: &str) {
        let offsite = match &self.second {
            Second::Bucket => super::world::store(&self.world.server.endpoint())
                .replace("[stores.s3]", "[stores.offsite]")
                .replace("s3://bucket/backups", "s3://bucket/offsite"),
            Second::Folder(path) => {
                format!("[stores.offsite]\nurl = \"file://{}\"\n", path.display())
            }
        };
        self.world.inventory(&format!(
            "{offsite}[run]\n{run}\n[defaults]\nstores = [\"s3\", \"offsite\"]\n{more}\n\
             [databases.x]\nengine = \"command\"\n\
             command = [\"sh\", \"-c\", \"echo 1 >> dumps; {dump}\"]\n"
        ));
    }

    /// The objects of a backup in a store, by their keys below its prefix.
    fn objects(&self, store: &str) -> Vec<(String, Vec<u8>)> {
        if let (Second::Folder(path), "offsite") = (&self.second, store) {
            let mut found = Vec::new();
            files(path, path, &mut found);
            found.retain(|(key, _)| !key.starts_with('.') && !key.starts_with('~'));
            found.sort();
            return found;
        }
        let all = self.world.server.store();
        let prefix = match store {
            "s3" => "backups/",
            _ => "offsite/",
        };
        let keys = super::world::backup_keys(&self.world.server).into_iter();
        let of_store = keys.filter_map(|key| {
            let below = key.strip_prefix(prefix)?.to_owned();
            Some((below, all.read(&key).unwrap()))
        });
        of_store.collect()
    }

    /// Whether a store has nothing, or one whole backup; everything else is a failure.
    fn holds(&self, store: &str) -> Result<bool, String> {
        let objects = self.objects(store);
        if objects.is_empty() {
            return Ok(false);
        }
        let keys: Vec<&String> = objects.iter().map(|(key, _)| key).collect();
        let manifest = objects
            .iter()
            .find(|(key, _)| key.ends_with("manifest.json"));
        let Some((_, text)) = manifest else {
            return Err(format!("{store}: no manifest, and {keys:?}"));
        };
        let manifest = Manifest::from_json(text).map_err(|error| error.to_string())?;
        for volume in &manifest.archive.volumes {
            let found = objects.iter().find(|(key, _)| key.ends_with(&volume.name));
            let size = found.map(|(_, bytes)| bytes.len() as u64);
            if size != Some(volume.size) {
                return Err(format!("{store}: {} has {size:?} bytes", volume.name));
            }
        }
        if objects.len() != manifest.keys().len() {
            return Err(format!("{store}: more than a backup: {keys:?}"));
        }
        Ok(true)
    }

    fn assert_both_hold_the_same(&self) {
        let (one, other) = (self.objects("s3"), self.objects("offsite"));
        let keys = |objects: &[(String, Vec<u8>)]| -> Vec<String> {
            objects.iter().map(|(key, _)| key.clone()).collect()
        };
        assert!(!one.is_empty());
        assert_eq!(keys(&one), keys(&other));
        for ((key, bytes), (_, same)) in one.iter().zip(&other) {
            // A signature has a number of its own, and is looked at by `verify`.
            let is_same = bytes == same || key.ends_with(".minisig");
            assert!(is_same, "{key} is another in each");
        }
        assert_eq!(self.world.server.store().open_uploads(), 0);
    }

    fn backup(&self, args: &[&str]) -> Run {
        let args = [&["backup", "--no-progress"], args].concat();
        let run = self.world.at_most(PATIENCE, &args);
        println!("{}", run.words());
        run
    }

    fn dumps(&self) -> usize {
        let dumps = std::fs::read_to_string(self.world.path("dumps"));
        dumps.unwrap_or_default().lines().count()
    }
}

fn files(root: &Path, folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(root, &path, found);
        } else {
            let key = path.strip_prefix(root).unwrap().display().to_string();
            found.push((key, std::fs::read(&path).unwrap()));
        }
    }
}

fn folder(name: &str) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join(name);
    std::fs::create_dir(&path).unwrap();
    (place, path)
}

/// Some parts of an archive that does not compress, however it is compressed.
const DUMP: &str = "head -c 30000000 /dev/urandom";

#[test]
fn one_dump_is_the_same_backup_in_both_stores() {
    let (_place, path) = folder("offsite");
    for second in [Second::Bucket, Second::Folder(path)] {
        let two = Two::new(second, DUMP, "", "compression = \"zstd\"");
        let public = two.world.age_recipient();
        let signing = two.world.run(&["keygen", "--signing", "-o", "sign.key"]);
        let more = format!(
            "encrypt_to = [\"{public}\"]\n[signatures]\n{}",
            signing.stdout
        );
        two.inventory(DUMP, "", &more);
        let run = two.backup(&["--report", "report.json"]);
        assert_eq!(run.code, Some(0));
        two.assert_both_hold_the_same();
        assert_eq!(two.dumps(), 1);
        let report = std::fs::read(two.world.path("report.json")).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        let job = &report["jobs"][0];
        assert_eq!(job["result"], "stored");
        assert_eq!(job["stores"][1]["name"], "offsite");
        assert!(
            job["stores"]
                .as_array()
                .unwrap()
                .iter()
                .all(|one| one["failure"].is_null())
        );
        // Of both together the archive is counted once.
        let size = two.world.manifest("x").archive.size;
        assert_eq!(job["archive_bytes"].as_u64(), Some(size));
        for store in ["s3", "offsite"] {
            let args = ["verify", "x", "--store", store, "--identity", "age.key"];
            assert_eq!(two.world.run(&args).code, Some(0));
        }
        let listed = two.world.run(&["list"]).stdout;
        assert!(
            listed.contains(" s3 ") && listed.contains(" offsite "),
            "{listed}"
        );
        assert_eq!(two.world.run(&["status"]).code, Some(0));
    }
}

#[test]
fn a_small_dump_is_put_into_both_stores() {
    let two = Two::new(Second::Bucket, "echo small", "", "expected_size = 6");
    assert_eq!(two.backup(&[]).code, Some(0));
    two.assert_both_hold_the_same();
    let begun = |op: Op| {
        two.world
            .server
            .log()
            .all()
            .iter()
            .filter(|one| one.op == op)
            .count()
    };
    assert_eq!(begun(Op::Create), 0);
}

#[test]
fn a_staged_backup_goes_to_both_stores() {
    let (_place, path) = folder("offsite");
    let two = Two::new(Second::Folder(path), DUMP, "", "compression = \"none\"");
    let public = two.world.age_recipient();
    two.inventory(DUMP, "", &format!("encrypt_to = [\"{public}\"]"));
    assert_eq!(two.backup(&["--mode", "staged"]).code, Some(0));
    two.assert_both_hold_the_same();
}

/// What a run is when one store of two has the backup.
fn assert_missing(run: &Run, two: &Two, there: &str, lacks: &str) {
    assert_eq!(run.code, Some(4), "{}", run.words());
    assert_eq!(two.holds(there), Ok(true));
    assert_eq!(two.holds(lacks), Ok(false));
    let words = run.words();
    assert!(words.contains("copy missing"), "{words}");
    assert!(
        words.contains(&format!("stored in {there}; {lacks} failed")),
        "{words}"
    );
    assert!(words.contains("tapline copy x@"), "{words}");
}

#[test]
fn a_store_that_refuses_is_dropped_and_a_copy_brings_it_in_line() {
    for (there, lacks, prefix) in [("s3", "offsite", "offsite/"), ("offsite", "s3", "backups/")] {
        let two = Two::new(Second::Bucket, DUMP, "retry_for = \"2s\"", "");
        let refuse = || {
            let rule = two.world.server.faults().on(Op::Part);
            rule.key(prefix).meets(Fault::Denied);
        };
        refuse();
        let run = two.backup(&[]);
        assert_missing(&run, &two, there, lacks);
        assert_eq!(two.world.server.store().open_uploads(), 0);
        two.world.server.faults().clear();

        let status = two.world.run(&["status"]);
        assert_eq!(status.code, Some(5), "a store has none");
        assert!(
            status.words().contains(&format!("--to {lacks}")),
            "{}",
            status.words()
        );
        let copied = two.world.run(&["copy", "--all", "--to", lacks]);
        assert_eq!(copied.code, Some(0), "{}", copied.words());
        two.assert_both_hold_the_same();
        assert_eq!(two.world.run(&["status"]).code, Some(0));
        assert_eq!(two.dumps(), 1);
        let nothing = two.world.run(&["copy", "--all", "--to", lacks]);
        assert_eq!(nothing.code, Some(0), "{}", nothing.words());
    }
}

/// A second S3 server that is not there: nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn with_endpoint(two: &Two, endpoint: &str) {
    let file = two.world.path("tapline.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let (first, rest) = text.split_once("[stores.offsite]").unwrap();
    let own = two.world.server.endpoint();
    let rest = rest.replacen(&own, endpoint, 1);
    std::fs::write(&file, format!("{first}[stores.offsite]{rest}")).unwrap();
}

#[test]
fn a_dead_store_costs_a_run_its_patience_once_however_many_databases_there_are() {
    let wait = "wait_for_store = \"3s\"\nretry_for = \"10m\"\njobs = 1";
    for order in ["[\"s3\", \"offsite\"]", "[\"offsite\", \"s3\"]"] {
        let two = Two::new(Second::Bucket, DUMP, wait, "");
        // Of a small one nothing is sent before it is committed.
        let small = |number: u32| {
            format!(
                "[databases.y{number}]\nengine = \"command\"\nstores = {order}\n\
                 command = [\"echo\", \"small\"]\nexpected_size = 6\n"
            )
        };
        let many: String = (0..20).map(small).collect();
        let file = two.world.path("tapline.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}stores = {order}\n{many}")).unwrap();
        with_endpoint(&two, &nobody());
        let start = Instant::now();
        let args = ["backup", "--no-progress"];
        let run = two.world.at_most(Duration::from_mins(4), &args);
        let took = start.elapsed();
        assert_eq!(run.code, Some(4), "{}", run.words());
        let words = run.words();
        assert!(
            words.contains("21 of 21 stored, 21 copy missing"),
            "{words}"
        );
        assert!(words.contains("left out: "), "{words}");
        // 15 s for the lease, 3 for the first backup, 10 to take away what is left: once, and not for
        // each, which were twelve minutes.
        assert!(took < Duration::from_mins(3), "{took:?}");
        assert_eq!(two.objects("s3").len(), 42);
        assert_eq!(two.dumps(), 1);
    }
}

#[test]
fn a_store_that_comes_back_is_used_by_the_databases_that_come_after() {
    let two = Two::new(Second::Bucket, "", "", "");
    // The second to run waits for the file `go`.
    let dump = "echo 1 >> dumps; \
                [ $(wc -l < dumps) != 2 ] || while [ ! -e go ]; do sleep 0.1; done; echo x";
    let one = |name: &str| {
        format!(
            "[databases.{name}]\nengine = \"command\"\nexpected_size = 2\n\
             command = [\"sh\", \"-c\", \"{dump}\"]\n"
        )
    };
    let file = two.world.path("tapline.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let (stores, _) = text.split_once("[run]").unwrap();
    std::fs::write(
        &file,
        format!(
            "{stores}[run]\nwait_for_store = \"1s\"\njobs = 1\n[defaults]\n\
             stores = [\"s3\", \"offsite\"]\n{}",
            ["a", "b", "c"].map(one).concat()
        ),
    )
    .unwrap();
    let faults = two.world.server.faults();
    faults.on_any().key("offsite/").meets(Fault::InternalError);
    let said = std::fs::File::create(two.world.path("said")).unwrap();
    let mut backup = two.world.tapline(&["-v", "backup", "--no-progress"]);
    let mut backup = backup
        .stdout(said.try_clone().unwrap())
        .stderr(said)
        .spawn()
        .unwrap();
    let said = || std::fs::read_to_string(two.world.path("said")).unwrap();
    super::world::wait_until(|| two.dumps() == 2);
    assert!(!said().contains("answers again"), "{}", said());
    faults.clear();
    super::world::wait_until(|| said().contains("the store answers again"));
    two.world.write("go", "");
    let code = super::world::end_of(&mut backup).code();
    assert_eq!(code, Some(4), "{}", said());
    assert!(
        said().contains("3 of 3 stored, 2 copy missing"),
        "{}",
        said()
    );
    assert!(said().contains("left out: "), "{}", said());
    let lacks = two.objects("s3").len() - two.objects("offsite").len();
    assert_eq!((two.objects("s3").len(), lacks), (6, 4), "{}", said());
}

/// Rows that no compression makes small, of so many MB about.
fn rows(server: &Postgres, megabytes: u32) {
    server.sql("postgres", "create database shop");
    server.sql(
        "shop",
        &format!(
            "create table t as select g as id, (select string_agg(md5(random()::text), '') \
               from generate_series(1, 30) where g > 0) as note \
             from generate_series(1, {megabytes}000) g"
        ),
    );
}

#[test]
fn a_dump_by_several_sessions_goes_on_when_one_of_its_stores_dies_in_the_middle() {
    let server = Postgres::start();
    rows(&server, 40);
    let digest = "select count(*), md5(string_agg(note, '' order by id)) from t";
    let expected = server.sql("shop", digest);
    let database = format!(
        "[databases.x]\nengine = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\n\
         user = \"admin\"\npassword = {{ file = \"password\" }}\ndatabase = \"shop\"\nparallel = 2\n",
        server.port()
    );
    for (there, lacks, prefix) in [("s3", "offsite", "offsite/"), ("offsite", "s3", "backups/")] {
        for fault in [Fault::Denied, Fault::CutBefore, Fault::Stalled] {
            let run = "memory = \"48MiB\"\njobs = 1\nwait_for_store = \"5s\"";
            let two = Two::new(Second::Bucket, "", run, "compression = \"none\"");
            let file = two.world.path("tapline.toml");
            let text = std::fs::read_to_string(&file).unwrap();
            let (before, _) = text.split_once("[databases.x]").unwrap();
            let public = two.world.age_recipient();
            let lock = format!("encrypt_to = [\"{public}\"]\n");
            std::fs::write(&file, format!("{before}{lock}{database}")).unwrap();
            two.world.write("password", PASSWORD);
            // Its first three parts, of some ten, arrive.
            let faults = two.world.server.faults();
            faults.on(Op::Part).key(prefix).from(4).meets(fault);
            let run = two.backup(&[]);
            assert_missing(&run, &two, there, lacks);
            faults.clear();
            assert_eq!(two.world.server.store().open_uploads(), 0, "{fault:?}");
            let copied = two.world.run(&["copy", "x", "--to", lacks]);
            assert_eq!(copied.code, Some(0), "{}", copied.words());
            two.assert_both_hold_the_same();
            let args = [
                "restore",
                "x",
                "--to",
                "back",
                "--overwrite",
                "--yes",
                "--store",
                lacks,
                "--identity",
                "age.key",
                "--jobs",
                "2",
            ];
            let back = two.world.run(&args);
            assert_eq!(back.code, Some(0), "{}", back.words());
            assert_eq!(server.sql("back", digest), expected);
        }
    }
}

#[test]
fn a_slow_store_is_dropped_when_the_others_have_waited_for_it_long_enough() {
    let two = Two::new(
        Second::Bucket,
        "head -c 60000000 /dev/urandom",
        "memory = \"48MiB\"\nwait_for_store = \"2s\"",
        "",
    );
    let slow = Fault::SlowBody {
        bytes_per_second: 100_000,
    };
    two.world
        .server
        .faults()
        .on(Op::Part)
        .key("offsite/")
        .meets(slow);
    let start = Instant::now();
    let run = two.backup(&[]);
    assert_missing(&run, &two, "s3", "offsite");
    assert!(run.words().contains("wait_for_store"), "{}", run.words());
    // All of it would take ten minutes.
    let took = start.elapsed();
    assert!(took < Duration::from_mins(2), "{took:?}");
}

#[test]
fn a_slow_store_that_is_waited_for_gets_all_of_it() {
    let two = Two::new(
        Second::Bucket,
        "head -c 30000000 /dev/urandom",
        "memory = \"48MiB\"\nwait_for_store = \"10m\"",
        "",
    );
    let slow = Fault::SlowBody {
        bytes_per_second: 4_000_000,
    };
    two.world
        .server
        .faults()
        .on(Op::Part)
        .key("offsite/")
        .meets(slow);
    assert_eq!(two.backup(&[]).code, Some(0));
    two.assert_both_hold_the_same();
}

#[test]
fn an_outage_of_both_stores_is_waited_for_as_one_of_a_single_store_is() {
    let two = Two::new(
        Second::Bucket,
        DUMP,
        "wait_for_store = \"1s\"\nretry_for = \"1m\"",
        "",
    );
    let faults = two.world.server.faults();
    // Each store's first tries: some seconds of them.
    faults
        .on(Op::Part)
        .key("offsite/")
        .times(12)
        .meets(Fault::SlowDown);
    faults
        .on(Op::Part)
        .key("backups/")
        .times(12)
        .meets(Fault::SlowDown);
    let run = two.backup(&[]);
    assert_eq!(run.code, Some(0), "{}", run.words());
    two.assert_both_hold_the_same();
}

/// A disk of 6 MiB for an archive of 30 MB.
#[test]
fn a_full_disk_as_second_store_leaves_nothing_there_and_a_backup_in_the_first() {
    let (_place, path) = folder("offsite");
    let two = Two::new(Second::Folder(path.clone()), DUMP, "", "");
    let script = "mount -t tmpfs -o size=6M none \"$1\" && \"$0\" backup --no-progress; code=$?; \
                  find \"$1\" -type f -not -path '*/~tapline/*'; exit $code";
    let mut full = std::process::Command::new("unshare");
    full.args([
        "--mount",
        "--map-root-user",
        "sh",
        "-c",
        script,
        super::world::TAPLINE,
    ])
    .arg(&path)
    .current_dir(two.world.folder.path());
    let full = Run::from(full.output().unwrap());
    let left = path.display().to_string() + "/";
    assert!(!full.stdout.contains(&left), "{}", full.words());
    assert_missing(&full, &two, "s3", "offsite");
}

#[test]
fn a_dump_that_fails_leaves_nothing_in_either_store() {
    let (_place, path) = folder("offsite");
    let two = Two::new(Second::Folder(path), &format!("{DUMP}; exit 1"), "", "");
    assert_eq!(two.backup(&[]).code, Some(1));
    assert_eq!(
        (two.holds("s3"), two.holds("offsite")),
        (Ok(false), Ok(false))
    );
    assert_eq!(two.world.server.store().open_uploads(), 0);
}

#[test]
fn each_store_keeps_by_its_own_rules() {
    let two = Two::new(
        Second::Bucket,
        "echo x",
        "prune_after_backup = true",
        "keep_last = 1",
    );
    let file = two.world.path("tapline.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("[stores.offsite]\n", "[stores.offsite]\nkeep_last = 3\n");
    std::fs::write(&file, text).unwrap();
    for _ in 0..4 {
        assert_eq!(two.backup(&[]).code, Some(0));
        // Ids have seconds.
        std::thread::sleep(Duration::from_millis(1100));
    }
    assert_eq!(two.objects("s3").len(), 2);
    assert_eq!(two.objects("offsite").len(), 6);
    let shown = two.world.run(&["prune", "--confirm"]);
    assert_eq!(shown.code, Some(0));
    assert_eq!(
        (two.objects("s3").len(), two.objects("offsite").len()),
        (2, 6)
    );
    // What its rules would not keep is not copied.
    assert_eq!(
        two.world.run(&["copy", "--all", "--to", "s3"]).code,
        Some(0)
    );
    assert_eq!(two.objects("s3").len(), 2);
}

#[test]
fn a_restore_takes_the_store_that_has_the_newest_and_another_where_one_is_away() {
    let two = Two::new(Second::Bucket, "echo first", "retry_for = \"1s\"", "");
    assert_eq!(two.backup(&[]).code, Some(0));
    std::thread::sleep(Duration::from_millis(1100));
    two.inventory("echo second", "retry_for = \"1s\"", "");
    two.world
        .server
        .faults()
        .on(Op::Put)
        .key("backups/")
        .meets(Fault::Denied);
    assert_eq!(two.backup(&[]).code, Some(4));
    two.world.server.faults().clear();
    let restored = two.world.run(&["restore", "x", "--output", "newest"]);
    assert_eq!(restored.code, Some(0), "{}", restored.words());
    assert_eq!(
        std::fs::read_to_string(two.world.path("newest")).unwrap(),
        "second\n"
    );

    // The older one is in both, and one of them is away.
    let id = two.objects("s3")[0].0.split('/').nth(1).unwrap().to_owned();
    two.world
        .server
        .faults()
        .on_any()
        .key("backups/")
        .meets(Fault::InternalError);
    let old = two
        .world
        .run(&["restore", &format!("x@{id}"), "--output", "older"]);
    assert_eq!(old.code, Some(0), "{}", old.words());
    assert_eq!(
        std::fs::read_to_string(two.world.path("older")).unwrap(),
        "first\n"
    );
    // Which is the newest is not known then.
    let newest = two.world.run(&["restore", "x", "--output", "unknown"]);
    assert_eq!(newest.code, Some(4), "{}", newest.words());
    let named = two
        .world
        .run(&["restore", "x", "--store", "offsite", "--output", "named"]);
    assert_eq!(named.code, Some(0), "{}", named.words());
}

#[test]
fn two_runs_of_a_database_in_two_stores_are_one_at_a_time() {
    let two = Two::new(Second::Bucket, "sleep 15; echo x", "", "");
    let begin = || -> Child {
        let mut command = two.world.tapline(&["backup", "--no-progress"]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut runs = [begin(), begin()];
    let codes = runs.each_mut().map(|run| run.wait().unwrap().code());
    assert_eq!(two.dumps(), 1, "{codes:?}");
    assert_eq!(
        super::world::leases(&two.world.server),
        Vec::<String>::new()
    );
    two.assert_both_hold_the_same();
}
