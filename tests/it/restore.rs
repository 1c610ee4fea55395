//! What was backed up comes back equal, by this program alone; and what is not whole is never
//! presented as good.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tapline::archive::Compression;
use tapline::archive::Cores;
use tapline::catalog::{BackupId, Manifest};
use tapline::dump::ToolCommand;
use tapline::job::{Interruption, Job, Layout, back_up};
use tapline::restore::{RestoreError, Stored, Target, restore};
use tapline::s3_server::{Fault, Op};
use tapline::store::memory::MemoryStore;
use tapline::store::retry::RetryPolicy;
use tapline::store::{Checksum, ChecksumKind, Limits, SharedStore};
use tokio_util::sync::CancellationToken;

use super::servers::{Mariadb, PASSWORD, Postgres};
use super::world::{TAPLINE, World, end_of, peak_rss, store, wait_until};

/// The key of the only archive of `database`.
fn archive_key(world: &World, database: &str) -> String {
    world
        .keys(database)
        .into_iter()
        .find(|key| key.contains(".tar"))
        .expect("a backup")
}

/// Where an archive is damaged.
#[derive(Clone, Copy)]
enum Place {
    Middle,
    /// In what closes the archive: whoever loads it has got all but the last of a dump in which
    /// nothing is wrong.
    End,
}

/// Flips a bit of an archive, and makes the store forget what it knew of the object.
fn damage(world: &World, database: &str, place: Place) {
    let key = archive_key(world, database);
    let mut bytes = world.server.store().read(&key).unwrap();
    let at = match place {
        Place::Middle => bytes.len() / 2,
        Place::End => bytes.len() - 6,
    };
    bytes[at] ^= 1;
    world.server.store().overwrite(&key, bytes.into());
}

/// Makes the manifest of `database` say something else.
pub fn forge(world: &World, database: &str, change: impl FnOnce(&mut serde_json::Value)) {
    let key = world
        .keys(database)
        .into_iter()
        .find(|key| key.ends_with("manifest.json"))
        .unwrap();
    let mut manifest = serde_json::from_slice(&world.server.store().read(&key).unwrap()).unwrap();
    change(&mut manifest);
    world
        .server
        .store()
        .overwrite(&key, manifest.to_string().into());
}

/// The same, with a manifest that knows the damaged bytes' checksum: the damage is found only where
/// it is read. In the middle of a script its client may be the first to make no sense of it.
fn damage_deeply(world: &World, database: &str, place: Place) {
    damage(world, database, place);
    let bytes = world
        .server
        .store()
        .read(&archive_key(world, database))
        .unwrap();
    let crc = Checksum::of(ChecksumKind::Crc64Nvme, &bytes).to_base64();
    forge(world, database, |manifest| {
        manifest["archive"]["volumes"][0]["crc64nvme"] = crc.into();
    });
}

#[test]
fn postgres_comes_back_equal_and_a_failed_restore_leaves_what_was_there() {
    const NAME: &str = r#"it's "größe" =x"#;
    let server = Postgres::start();
    server.sql(
        "postgres",
        &format!("create database \"{}\"", NAME.replace('"', "\"\"")),
    );
    server.sql(
        NAME,
        "create table t as select g as id, md5(g::text) || E'\\u00e4\\n\\t\\\\' as note from generate_series(1, 60000) g;
         alter table t add primary key (id); create schema s; create table s.u (x int references t); insert into s.u values (7);
         create view v as select count(*) from t; create type mood as enum ('good'); select lo_from_bytea(0, 'large')",
    );
    let name = NAME.replace('"', "\\\"");
    let login = format!(
        "[defaults]\nengine = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\n\
         password = {{ file = \"password\" }}\ndatabase = \"{name}\"\n",
        server.port()
    );
    let world = World::new(&format!(
        "{login}[databases.plain]\n[databases.custom]\nformat = \"custom\"\ncompression = \"zstd\"\n\
         [databases.roles]\nglobals = true\n"
    ));
    world.write("password", PASSWORD);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let contents =
        "select md5(string_agg(t::text, '|' order by id)), (select * from v), (select x from s.u),
                    (select count(*) from pg_largeobject_metadata) from t";
    let original = server.sql(NAME, contents);

    for source in ["plain", "custom"] {
        let copy = format!("copy 'of' {source}");
        // Not there: it is made. Full: refused. Told to: replaced.
        assert_eq!(world.run(&["restore", source, "--to", &copy]).code, Some(0));
        assert_eq!(server.sql(&copy, contents), original);
        server.sql(&copy, "insert into t values (0, 'new')");
        let refused = world.run(&["restore", source, "--to", &copy]);
        assert!(refused.code == Some(1) && refused.stderr.contains("--overwrite"));
        assert_ne!(server.sql(&copy, contents), original);
        assert_eq!(
            world
                .run(&[
                    "restore",
                    &format!("{source}@LATEST"),
                    "--to",
                    &copy,
                    "--overwrite"
                ])
                .code,
            Some(0)
        );
        assert_eq!(server.sql(&copy, contents), original);
        let drill = world.run(&["verify", source, "--drill"]);
        assert!(drill.code == Some(0) && drill.stdout.contains("2 tables"));

        server.sql(&copy, "insert into t values (0, 'precious')");
        damage_deeply(&world, source, Place::End);
        let failed = world.run(&["restore", source, "--to", &copy, "--overwrite"]);
        assert!(failed.code == Some(5) && failed.stderr.contains("was not restored"));
        assert_eq!(
            server.sql(&copy, "select note from t where id = 0").trim(),
            "precious"
        );
        let failed = world.run(&["restore", source, "--to", "never made"]);
        assert_eq!(failed.code, Some(5));
        assert_eq!(world.run(&["verify", source, "--drill"]).code, Some(5));
    }
    let left =
        "select count(*) from pg_database where datname like 'tapline%' or datname = 'never made'";
    assert_eq!(server.sql("postgres", left).trim(), "0");

    // Into another server, told by a URL; a password in it is refused.
    let other = Postgres::start_with(&[]);
    let url = format!("postgres://admin@127.0.0.1:{}/shop", other.port());
    assert_eq!(world.run(&["backup", "plain"]).code, Some(0));
    assert_eq!(
        world
            .run(&[
                "restore",
                "plain",
                "--to",
                &url,
                "--password-file",
                "password"
            ])
            .code,
        Some(0)
    );
    assert_eq!(other.sql("shop", contents), original);
    let shown = world.run(&[
        "restore",
        "plain",
        "--to",
        "postgres://admin:sesame@127.0.0.1/shop",
    ]);
    assert!(shown.code == Some(3) && !shown.stderr.contains("sesame"));
    server.sql("postgres", "create role somebody");
    assert_eq!(world.run(&["backup", "roles"]).code, Some(0));
    let url = format!("postgres://admin@127.0.0.1:{}/postgres", other.port());
    let latest = world.run(&[
        "restore",
        "roles",
        "--to",
        &url,
        "--password-file",
        "password",
    ]);
    assert!(
        latest.code == Some(0) && latest.stderr.contains("already exists"),
        "psql's words about admin are shown"
    );
    assert_eq!(
        other
            .sql(
                "postgres",
                "select count(*) from pg_roles where rolname = 'somebody'"
            )
            .trim(),
        "1"
    );

    // A dump that the client refuses: its words, and nothing of it.
    other.sql("postgres", "create role nobody login password 'guest'");
    other.sql("postgres", "create database closed");
    world.write("guest", "guest\n");
    let url = format!("postgres://nobody@127.0.0.1:{}/closed", other.port());
    let denied = world.run(&["restore", "plain", "--to", &url, "--password-file", "guest"]);
    assert!(
        denied.code == Some(1) && denied.stderr.contains("permission denied"),
        "the client's own words"
    );
    let denied = world.run(&["restore", "roles", "--to", &url, "--password-file", "guest"]);
    assert!(
        denied.code == Some(1) && denied.stderr.contains("permission denied"),
        "no role was made"
    );
    assert_eq!(
        other
            .sql(
                "closed",
                "select count(*) from pg_tables where schemaname = 'public'"
            )
            .trim(),
        "0"
    );
}

#[test]
fn a_restore_that_is_killed_leaves_a_postgres_database_as_it_was() {
    let server = Postgres::start();
    server.sql("postgres", "create database shop");
    server.sql(
        "shop",
        "create table t as select g as id, md5(g::text) as note from generate_series(1, 400000) g",
    );
    let world = World::new(&format!(
        "[databases.shop]\nengine = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\n\
         password = {{ file = \"password\" }}\n",
        server.port()
    ));
    world.write("password", PASSWORD);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    server.sql("shop", "insert into t values (0, 'precious')");
    // Once in the middle of the rows; the client sees its input end, and nobody who could end it.
    let mut running = world
        .tapline(&["restore", "shop", "--overwrite"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    server.wait_for_copy();
    running.kill().unwrap();
    running.wait().unwrap();
    wait_until(|| {
        let others = "select count(*) from pg_stat_activity where datname like 'shop%'";
        server.sql("postgres", others).trim() == "0"
    });
    assert_eq!(
        server
            .sql("shop", "select count(*), min(note) from t where id = 0")
            .trim(),
        "1|precious"
    );
    assert_eq!(
        server.sql("shop", "select count(*) from t").trim(),
        "400001"
    );
}

#[test]
fn mariadb_comes_back_equal() {
    const NAME: &str = "it's größe x";
    let server = Mariadb::start();
    server.sql(&format!(
        "create database `{NAME}`; use `{NAME}`; create table t (id int primary key, note text, data blob);
         insert into t select seq, concat(md5(seq), 'ä\\n\\r\\'\"'), unhex(concat(md5(seq), '00FF0A')) from seq_1_to_40000;
         create view v as select count(*) c from t; create procedure p() select 42;
         create trigger tr before insert on t for each row set new.note = 'triggered';"
    ));
    let world = World::new(&format!(
        "[defaults]\nengine = \"mariadb\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\n\
         password = {{ file = \"password\" }}\ndatabase = \"{NAME}\"\n[databases.gzip]\n[databases.zstd]\ncompression = \"zstd\"\n\
         [databases.all]\ndatabase = \"*\"\n",
        server.port()
    ));
    world.write("password", PASSWORD);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let contents = |database: &str| {
        server.sql(&format!(
            "set group_concat_max_len = 1000000000; use `{database}`;
             select md5(group_concat(id, note, hex(data) order by id separator '|')), (select c from v) from t; call p()"
        ))
    };
    for (n, source) in ["gzip", "zstd", &format!("all/{NAME}")]
        .into_iter()
        .enumerate()
    {
        let copy = format!("copy `of` {n}");
        assert_eq!(world.run(&["restore", source, "--to", &copy]).code, Some(0));
        let quoted = copy.replace('`', "``");
        assert_eq!(contents(&quoted), contents(NAME));
        server.sql(&format!("use `{quoted}`; create table extra (x int)"));
        assert_eq!(world.run(&["restore", source, "--to", &copy]).code, Some(1));
        assert_eq!(
            world
                .run(&["restore", source, "--to", &copy, "--overwrite"])
                .code,
            Some(0)
        );
        assert_eq!(contents(&quoted), contents(NAME));
        let drill = world.run(&["verify", source, "--drill"]);
        assert!(drill.code == Some(0) && drill.stdout.contains("1 table"));
    }
    damage_deeply(&world, "gzip", Place::End);
    let failed = world.run(&["restore", "gzip", "--to", "never made"]);
    assert_eq!(failed.code, Some(5));
    // Nothing is replaced by a backup that is no good; in place, nothing is emptied for it.
    let args = ["restore", "gzip", "--to", "copy `of` 0", "--overwrite"];
    assert_eq!(world.run(&args).code, Some(5));
    let in_place = world.run(&[args.as_slice(), &["--in-place"]].concat());
    assert_eq!(in_place.code, Some(5));
    assert_eq!(contents("copy ``of`` 0"), contents(NAME));
    let left = "select count(*) from information_schema.schemata where schema_name like 'tapline%' or schema_name like 'never%'";
    assert_eq!(server.sql(left).trim(), "0");
}

#[test]
fn sqlite_comes_back_equal_and_no_wal_of_the_old_file_survives() {
    let world = World::new(
        "[databases.gzip]\nengine = \"sqlite\"\npath = \"app.db\"\n\
         [databases.zstd]\nengine = \"sqlite\"\npath = \"app.db\"\ncompression = \"zstd\"\n",
    );
    let fill = |path: &Path, rows: u32| {
        let database = rusqlite::Connection::open(path).unwrap();
        database.pragma_update(None, "journal_mode", "wal").unwrap();
        database
            .pragma_update(None, "wal_autocheckpoint", 0)
            .unwrap();
        database
            .execute_batch(&format!(
                "create table if not exists t (x, y); with recursive c(x) as (select 1 union all select x + 1 from c where x < {rows})
                 insert into t select x, hex(randomblob(20)) from c"
            ))
            .unwrap();
        database
    };
    fill(&world.path("app.db"), 50_000)
        .pragma_update(None, "wal_checkpoint", "truncate")
        .unwrap();
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let image = std::fs::read(world.path("app.db")).unwrap();
    for source in ["gzip", "zstd"] {
        let copy = world.path(&format!("copy of {source}.db"));
        let to = copy.display().to_string();
        assert_eq!(world.run(&["restore", source, "--to", &to]).code, Some(0));
        assert!(std::fs::read(&copy).unwrap() == image);
        // A program that was killed leaves a WAL behind.
        let open = fill(&copy, 10);
        let wal = std::fs::read(format!("{to}-wal")).unwrap();
        drop(open);
        std::fs::write(format!("{to}-wal"), wal).unwrap();
        assert_eq!(world.run(&["restore", source, "--to", &to]).code, Some(1));
        assert_eq!(
            world
                .run(&["restore", source, "--to", &to, "--overwrite"])
                .code,
            Some(0)
        );
        assert!(
            std::fs::read(&copy).unwrap() == image && !Path::new(&format!("{to}-wal")).exists()
        );
        let drill = world.run(&["verify", source, "--drill"]);
        assert!(drill.code == Some(0) && drill.stdout.contains("1 table"));
    }
    damage_deeply(&world, "gzip", Place::Middle);
    let failed = world.run(&["restore", "gzip", "--overwrite"]);
    assert_eq!(failed.code, Some(5));
    assert!(
        std::fs::read(world.path("app.db")).unwrap() == image,
        "the old file is as it was"
    );
    let names = std::fs::read_dir(world.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert!(
        !names
            .into_iter()
            .any(|name| name.to_string_lossy().starts_with(".tapline-")),
        "nothing is left beside"
    );
}

fn command(script: &str, restore: &str) -> String {
    format!(
        "[defaults]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", '''{script}''']\n\
         restore = [\"sh\", \"-c\", '''{restore}''']\n[databases.x]\n[databases.zstd]\ncompression = \"zstd\"\n\
         [databases.none]\ncompression = \"none\"\n"
    )
}

#[test]
fn a_command_stdout_and_a_file_take_a_dump_and_none_takes_a_broken_one_for_whole() {
    let world = World::new(&command("cat dump", "cat > restored"));
    let mut dump = vec![0; 9_000_000];
    fastrand::Rng::with_seed(3).fill(&mut dump);
    world.write("dump", &dump);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    // What its target holds only a command knows: nothing is replaced unasked.
    world.write("restored", "precious");
    let refused = world.run(&["restore", "x"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("--overwrite lets it"));
    assert_eq!(std::fs::read(world.path("restored")).unwrap(), b"precious");
    for name in ["x", "zstd", "none"] {
        assert_eq!(world.run(&["restore", name, "--overwrite"]).code, Some(0));
        assert!(
            std::fs::read(world.path("restored")).unwrap() == dump,
            "{name}"
        );
        let Output { status, stdout, .. } = world
            .tapline(&["restore", name, "--stdout"])
            .output()
            .unwrap();
        assert!(status.success() && stdout == dump, "{name}");
        assert_eq!(
            world.run(&["restore", name, "--output", "file"]).code,
            Some(0)
        );
        assert!(std::fs::read(world.path("file")).unwrap() == dump, "{name}");
        assert_eq!(
            world.run(&["restore", name, "--output", "file"]).code,
            Some(1),
            "it exists"
        );
        std::fs::remove_file(world.path("file")).unwrap();

        for place in [Place::End, Place::Middle] {
            damage_deeply(&world, name, place);
            // A file takes at once what a pipe has taken when its writer is long over.
            let run = world
                .tapline(&["restore", name, "--stdout"])
                .stdout(std::fs::File::create(world.path("given")).unwrap())
                .output()
                .unwrap();
            let given = std::fs::read(world.path("given")).unwrap();
            let stderr = String::from_utf8(run.stderr).unwrap();
            assert_eq!(run.status.code(), Some(5), "{name}: {stderr}");
            assert!(given.len() < dump.len(), "{name}: all of it");
            if let Place::End = place {
                // It was read to its end, and what it ends with was held back.
                let near = dump.len() - given.len() < 2_000_000;
                assert!(near && dump.starts_with(&given), "{name}: {}", given.len());
            }
            let found = ["damaged near byte", "SHA-256"];
            assert!(found.iter().any(|word| stderr.contains(word)), "{stderr}");
        }
        assert_eq!(
            world.run(&["restore", name, "--output", "file"]).code,
            Some(5)
        );
        assert!(!world.path("file").exists());
    }
}

#[test]
fn a_client_that_fails_is_a_failure_with_its_last_words() {
    for (restore, words) in [
        ("head -c 10 >&2; exit 3", "exited with status 3"),
        (
            "cat > /dev/null; echo no room left >&2; exit 4",
            "no room left",
        ),
        ("exec 0<&-; exit 0", "exited before it had read"),
    ] {
        let world = World::new(&command("head -c 9000000 /dev/urandom", restore));
        assert_eq!(world.run(&["backup", "x"]).code, Some(0));
        let run = world.run(&["restore", "x", "--overwrite"]);
        assert!(run.code == Some(1) && run.stderr.contains(words), "{words}");
    }
}

#[test]
fn a_client_that_takes_nothing_is_given_up_after_stall_timeout() {
    let databases = command("head -c 9000000 /dev/urandom", "exec sleep 1234.125");
    let world = World::new(&databases);
    assert_eq!(world.run(&["backup", "x"]).code, Some(0));
    world.inventory(&format!("[run]\nstall_timeout = \"5s\"\n{databases}"));
    let run = world.at_most(Duration::from_secs(100), &["restore", "x", "--overwrite"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let words = "(stall_timeout): it waited for the target to take what it was given";
    assert!(run.stderr.contains(words), "{}", run.stderr);
}

#[test]
fn an_interrupted_restore_ends_its_client_before_the_end_of_its_input() {
    let world = World::new(&command(
        "head -c 9000000 /dev/urandom",
        "echo $$ > pid; cat > /dev/null && sleep 300; touch ended",
    ));
    assert_eq!(world.run(&["backup", "x"]).code, Some(0));
    let mut running = world
        .tapline(&["restore", "x", "--overwrite"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(|| {
        std::fs::read_to_string(world.path("pid")).is_ok_and(|pid| !pid.trim().is_empty())
    });
    assert!(
        Command::new("kill")
            .args(["-TERM", &running.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(end_of(&mut running).code(), Some(143));
    let pid = std::fs::read_to_string(world.path("pid")).unwrap();
    let alive = || {
        std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
            .is_ok_and(|stat| !stat.contains(") Z "))
    };
    wait_until(|| !alive());
    assert!(!world.path("ended").exists());
}

/// Backs up `dump` into a store that keeps no checksums.
pub async fn stored(dump: &Path, compression: Compression) -> (MemoryStore, Manifest) {
    let store = MemoryStore::new(
        Limits {
            min_part: 20_000,
            max_part: 20_000,
            max_parts: 5,
            in_order: false,
            connections: None,
        },
        None,
    );
    let command = ToolCommand::new("cat").args([dump.display().to_string()]);
    let layout = Layout {
        segment: 8192,
        workers: 2,
        feeds: 1,
        part: 20_000,
        in_flight: 2,
        max_parts: 5,
        expected: None,
        memory: 0,
    };
    let codec = (compression, compression.levels().1);
    let job = Job::of_command("x", command, codec, Arc::new(store.clone()), layout);
    let interruption = Interruption::default();
    let committed = back_up(Arc::new(job), BackupId::now(), &Cores::all(), &interruption).await;
    (store, committed.unwrap().manifest)
}

async fn read(store: &MemoryStore, manifest: &Manifest, to: &Path) -> Result<(), RestoreError> {
    let store: SharedStore = Arc::new(store.clone());
    let retry = RetryPolicy::lasting(Duration::from_millis(100));
    let stored = Arc::new(Stored {
        store,
        manifest: manifest.clone(),
        retry,
        identities: Arc::default(),
        progress: Arc::default(),
    });
    restore(
        stored,
        Target::file(to, true).unwrap(),
        &CancellationToken::new(),
    )
    .await
}

#[test]
fn any_flipped_byte_any_cut_and_any_missing_volume_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (dump, back) = (folder.path().join("dump"), folder.path().join("back"));
    let mut random = fastrand::Rng::with_seed(11);
    let lines: Vec<String> = (0..60_000)
        .map(|n| format!("{n} {}", random.u32(..9999)))
        .collect();
    let text = lines.join("\n");
    std::fs::write(&dump, &text).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
        let (store, manifest) = runtime.block_on(stored(&dump, compression));
        let keys: Vec<String> = manifest
            .keys()
            .into_iter()
            .filter(|key| !key.ends_with("manifest.json"))
            .collect();
        assert!(keys.len() > 1, "several volumes");
        let originals: Vec<Vec<u8>> = keys.iter().map(|key| store.read(key).unwrap()).collect();
        for _ in 0..200 {
            let volume = random.usize(..keys.len());
            let mut bytes = originals[volume].clone();
            let at = random.usize(..bytes.len());
            bytes[at] ^= random.u8(1..);
            store.overwrite(&keys[volume], bytes.clone().into());
            let error = runtime
                .block_on(read(&store, &manifest, &back))
                .expect_err("a flipped byte");
            assert!(matches!(error, RestoreError::Damaged(_)), "{error}");
            // Also when the volume's own checksum is right, if the byte means anything: the archive
            // checks itself.
            let mut forged = manifest.clone();
            forged.archive.volumes[volume].crc64nvme =
                Checksum::of(ChecksumKind::Crc64Nvme, &bytes).to_base64();
            if runtime.block_on(read(&store, &forged, &back)).is_ok() {
                assert!(
                    std::fs::read_to_string(&back).unwrap() == text,
                    "byte {at} of volume {volume}, {compression:?}"
                );
                std::fs::remove_file(&back).unwrap();
            }
            store.overwrite(&keys[volume], originals[volume].clone().into());
        }
        // Shorter than the manifest says, and a manifest that knows it.
        let last = keys.len() - 1;
        let cut = &originals[last][..originals[last].len() / 2];
        store.overwrite(&keys[last], cut.to_vec().into());
        let error = runtime
            .block_on(read(&store, &manifest, &back))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&keys[last]) && error.contains("bytes"),
            "{error}"
        );
        let mut forged = manifest.clone();
        forged.archive.volumes[last].size = cut.len() as u64;
        forged.archive.volumes[last].crc64nvme =
            Checksum::of(ChecksumKind::Crc64Nvme, cut).to_base64();
        let error = runtime
            .block_on(read(&store, &forged, &back))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("ends too early") || error.contains("incomplete frame"),
            "{error}"
        );
        // Longer.
        let longer = [&originals[last][..], b"more"].concat();
        store.overwrite(&keys[last], longer.clone().into());
        forged.archive.volumes[last].size = longer.len() as u64;
        forged.archive.volumes[last].crc64nvme =
            Checksum::of(ChecksumKind::Crc64Nvme, &longer).to_base64();
        runtime
            .block_on(read(&store, &forged, &back))
            .expect_err("something follows");
        store.overwrite(&keys[last], originals[last].clone().into());
        runtime.block_on(read(&store, &manifest, &back)).unwrap();
        std::fs::remove_file(&back).unwrap();
        runtime
            .block_on(tapline::store::Store::delete(&store, &keys[1]))
            .unwrap();
        let error = runtime
            .block_on(read(&store, &manifest, &back))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&keys[1]) && error.contains("missing"),
            "{error}"
        );
        assert!(!back.exists());
    }
}

#[test]
fn verify_says_what_is_wrong_where() {
    let world = World::new(&command("head -c 3000000 /dev/urandom", "cat"));
    assert_eq!(world.run(&["verify"]).code, Some(5), "there is nothing yet");
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert_eq!(world.run(&["backup", "x"]).code, Some(0));
    let lines = |run: &super::world::Run, start: &str| {
        run.stdout
            .lines()
            .filter(|line| line.starts_with(start))
            .count()
    };
    let latest = world.run(&["verify"]);
    assert_eq!((latest.code, lines(&latest, "ok    ")), (Some(0), 3));
    for args in [
        ["verify", "--all"].as_slice(),
        &["verify", "--all", "--quick"],
        &["verify", "--all", "--drill"],
    ] {
        let all = world.run(args);
        assert_eq!((all.code, lines(&all, "ok    ")), (Some(0), 4));
    }
    assert_eq!(
        world
            .run(&["verify", "--all", "x", "--quick"])
            .stdout
            .lines()
            .count(),
        2
    );

    let key = archive_key(&world, "zstd");
    let mut bytes = world.server.store().read(&key).unwrap();
    bytes.pop();
    world.server.store().overwrite(&key, bytes.into());
    let short = world.run(&["verify", "zstd", "--quick"]);
    assert!(
        short.code == Some(5)
            && short.stdout.contains("FAIL  zstd@")
            && short.stdout.contains("its manifest says")
    );
    damage(&world, "none", Place::Middle);
    let quick = world.run(&["verify", "none", "--quick"]);
    assert!(quick.code == Some(5) && quick.stdout.contains("its checksum in the store"));
    assert_eq!(world.run(&["verify", "none"]).code, Some(5));
    let all = world.run(&["verify", "--all"]);
    assert_eq!(
        (all.code, lines(&all, "FAIL  "), lines(&all, "ok    ")),
        (Some(5), 2, 2)
    );

    forge(&world, "none", |manifest| manifest["format"] = 99.into());
    let newer = world.run(&["verify", "--all"]);
    assert!(newer.code == Some(5) && newer.stdout.contains("use a newer tapline"));
    forge(&world, "none", |manifest| {
        manifest["format"] = 1.into();
        manifest["archive"]["volumes"][0]["size"] = u64::MAX.into();
        manifest["archive"]["size"] = u64::MAX.into();
    });
    assert_eq!(world.run(&["verify", "none"]).code, Some(5));
    world
        .server
        .store()
        .overwrite(&world.keys("zstd")[0], "not a manifest".into());
    assert_eq!(
        world.run(&["restore", "zstd", "--stdout"]).code,
        Some(5),
        "its manifest is damaged"
    );
    assert_eq!(world.run(&["restore", "nobody"]).code, Some(6));
    let misspelt = world.run(&["restore", "x@yesterday"]);
    assert!(misspelt.code == Some(6) && misspelt.stderr.contains("of x there are"));
}

#[test]
fn an_archive_that_somebody_else_wrote_is_refused() {
    let world = World::new(&command("echo hello", "cat > restored"));
    assert_eq!(world.run(&["backup", "x"]).code, Some(0));
    world.write("x.dump", "hello\n");
    let tar = super::world::tool(
        Command::new("tar")
            .args(["czf", "-", "x.dump"])
            .current_dir(world.folder.path()),
    );
    let key = archive_key(&world, "x");
    forge(&world, "x", |manifest| {
        manifest["archive"]["volumes"][0]["crc64nvme"] =
            Checksum::of(ChecksumKind::Crc64Nvme, &tar)
                .to_base64()
                .into();
        manifest["archive"]["volumes"][0]["size"] = tar.len().into();
        manifest["archive"]["size"] = tar.len().into();
    });
    world.server.store().overwrite(&key, tar.into());
    let run = world.run(&["restore", "x", "--overwrite"]);
    assert!(run.code == Some(5) && run.stderr.contains("not one that tapline writes"));
}

#[test]
fn a_connection_cut_every_5_mb_does_not_stop_a_restore() {
    let world = World::new(&command("head -c 40000000 /dev/urandom", "sha256sum > sum"));
    assert_eq!(world.run(&["backup", "x"]).code, Some(0));
    let faults = world.server.faults();
    faults.on(Op::Get).times(3).meets(Fault::SlowDown);
    faults
        .on(Op::Get)
        .key("tar.gz")
        .meets(Fault::CutReply { after: 5_000_000 });
    assert_eq!(world.run(&["restore", "x", "--overwrite"]).code, Some(0));
    let sum = std::fs::read_to_string(world.path("sum")).unwrap();
    assert!(sum.starts_with(&world.manifest("x").entries[0].sha256));
    // Without a single byte there is an end to patience.
    faults.clear();
    faults.on(Op::Get).meets(Fault::SlowDown);
    let inventory = std::fs::read_to_string(world.path("tapline.toml")).unwrap();
    world.write(
        "tapline.toml",
        format!("[run]\nretry_for = \"1s\"\n{inventory}"),
    );
    let run = world.run(&["restore", "x", "--output", "never"]);
    assert!(run.code == Some(4) && !world.path("never").exists());
}

#[test]
fn memory_of_a_restore_does_not_grow_with_the_dump() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, endpoint) = super::world::server_process(&[]);
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("access", tapline::s3_server::ACCESS_KEY);
    write("secret", tapline::s3_server::SECRET_KEY);
    let mut peaks = std::collections::HashMap::<&str, Vec<u64>>::new();
    for megabytes in [100, 400] {
        let script = format!(
            "head -c 3000000 /dev/urandom | base64 > x; for i in $(seq {}); do cat x; done",
            megabytes / 4
        );
        write(
            "tapline.toml",
            &(store(&endpoint) + &command(&script, "cat > /dev/null")),
        );
        let tapline = |args: &[&str]| {
            let mut command = Command::new(TAPLINE);
            command
                .args(args)
                .current_dir(folder.path())
                .stdout(Stdio::null());
            command
        };
        for name in ["x", "zstd"] {
            let backup = ["backup", name, "--level", "1"];
            assert!(tapline(&backup).status().unwrap().success());
            let peak = peak_rss(tapline(&["restore", name, "--overwrite"]));
            println!(
                "{megabytes} MB of dump, {name}: peak RSS {} MiB",
                peak >> 20
            );
            peaks.entry(name).or_default().push(peak);
        }
    }
    for (name, peaks) in peaks {
        assert!(peaks[1] < 160 << 20, "{name}: {peaks:?}");
        assert!(
            peaks[1] < peaks[0] + super::runs::GROWTH,
            "{name}: {peaks:?}"
        );
    }
    server.kill().unwrap();
    server.wait().unwrap();
}
