//! Encrypted backups of every engine, in a bucket and in a folder, read by other programs: age and
//! rage, and what they encrypt, by tapline.

use std::path::{Path, PathBuf};
use std::process::Command;

use tapline::catalog::Manifest;
use tapline::store::{Checksum, ChecksumKind};

use super::servers::{Mariadb, PASSWORD, Postgres};
use super::world::{Run, World, tool, untar};

fn good(run: &Run) {
    assert_eq!(run.code, Some(0), "{}", run.words());
}

/// The file of the only backup of `database` in a folder that ends so.
fn file_in(folder: &Path, database: &str, end: &str) -> PathBuf {
    let backups = std::fs::read_dir(folder.join(database)).unwrap();
    let backup = backups.last().unwrap().unwrap().path();
    let files = std::fs::read_dir(backup).unwrap().flatten();
    let mut files = files.map(|file| file.path());
    let fits = |file: &PathBuf| file.to_str().unwrap().ends_with(end);
    files.find(fits).unwrap()
}

/// The readers that are installed: age always, rage where it is (`cargo install rage`).
fn readers() -> Vec<&'static str> {
    let is_there = |name: &&str| Command::new(name).arg("--version").output().is_ok();
    let found: Vec<&str> = ["age", "rage"].into_iter().filter(is_there).collect();
    println!("read by {found:?}");
    assert!(found.contains(&"age"));
    found
}

/// Lets a stock program read the archive of `database` in the folder, and encrypt what it has read
/// anew, in place of ours: what is restored then has been through its hands in both directions.
fn by_other_hands(world: &World, program: &str, public: &str, folder: &Path, database: &str) {
    let archive = file_in(folder, database, ".age");
    let sealed = std::fs::read(&archive).unwrap();
    assert!(sealed.starts_with(b"age-encryption.org/v1\n"));
    let mut decrypt = Command::new(program);
    let decrypt = decrypt.arg("-d").arg("-i").arg(world.path("age.key"));
    world.write("plain", tool(decrypt.arg(&archive)));
    // Stock tar takes the dump out of it.
    assert!(untar(&world.path("plain")).len() > 100_000, "{database}");
    std::fs::remove_file(&archive).unwrap();
    let mut encrypt = Command::new(program);
    let encrypt = encrypt.args(["-r", public, "-o"]).arg(&archive);
    tool(encrypt.arg(world.path("plain")));
    let theirs = std::fs::read(&archive).unwrap();
    assert!(theirs != sealed);
    let file = file_in(folder, database, "/manifest.json");
    let mut manifest = Manifest::from_json(&std::fs::read(&file).unwrap()).unwrap();
    std::fs::write(&file, fitted(&mut manifest, &theirs)).unwrap();
}

/// The manifest as it is of an archive of these bytes.
fn fitted(manifest: &mut Manifest, archive: &[u8]) -> Vec<u8> {
    let volume = &mut manifest.archive.volumes[0];
    volume.size = archive.len() as u64;
    volume.crc64nvme = Checksum::of(ChecksumKind::Crc64Nvme, archive).to_base64();
    volume.digest = None;
    manifest.archive.size = volume.size;
    manifest.to_json()
}

/// All rows of an SQLite database.
fn rows_of(file: &Path) -> Vec<(i64, String)> {
    let file = rusqlite::Connection::open(file).unwrap();
    let mut all = file.prepare("select id, note from t order by id").unwrap();
    let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

#[test]
fn every_engine_comes_back_from_a_bucket_and_a_folder_streamed_and_staged_and_parallel() {
    let (postgres, mariadb) = (Postgres::start(), Mariadb::start());
    postgres.sql("postgres", "create database shop");
    postgres.sql(
        "shop",
        "create table t (id int, note text); \
         insert into t select g, repeat(md5(g::text), 9) from generate_series(1, 60000) g",
    );
    mariadb.sql(
        "create database events; use events; create table t (id int, note text); \
         insert into t select seq, repeat(md5(seq), 9) from seq_1_to_20000",
    );
    let world = World::new("");
    let public = world.age_recipient();
    let nas = world.path("nas");
    std::fs::create_dir(&nas).unwrap();
    world.write("password", PASSWORD);
    let sqlite = rusqlite::Connection::open(world.path("app.db")).unwrap();
    sqlite
        .execute_batch(
            "create table t (id int, note text); \
             with recursive n (x) as (select 1 union all select x + 1 from n where x < 20000) \
             insert into t select x, hex(randomblob(90)) from n",
        )
        .unwrap();
    drop(sqlite);
    let server = |engine: &str, port: u16, database: &str| {
        format!(
            "engine = \"{engine}\"\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"admin\"\n\
             password = {{ file = \"password\" }}\ndatabase = \"{database}\"\n"
        )
    };
    world.inventory(&format!(
        "[stores.nas]\nurl = \"file://{}\"\n\
         [defaults]\nstores = [\"s3\", \"nas\"]\nencrypt_to = [\"{public}\"]\n\
         [databases.shop]\n{}[databases.wide]\nparallel = 2\n{}[databases.events]\n{}\
         [databases.app]\nengine = \"sqlite\"\npath = \"app.db\"\n\
         [databases.x]\nengine = \"command\"\ncommand = [\"seq\", \"30000\"]\n",
        nas.display(),
        server("postgres", postgres.port(), "shop"),
        server("postgres", postgres.port(), "shop"),
        server("mariadb", mariadb.port(), "events"),
    ));
    let all = ["shop", "wide", "events", "app", "x"];
    let identity = ["--identity", "age.key"];
    for mode in ["streamed", "staged"] {
        good(&world.run(&["backup", "--mode", mode]));
        for store in ["s3", "nas"] {
            let drill = [&["verify", "--drill", "--store", store][..], &identity].concat();
            good(&world.run(&drill));
        }
        let restore = |args: &[&str]| {
            let more = ["--overwrite", "--yes", "--store", "nas"];
            good(&world.run(&[&["restore"], args, &more, &identity].concat()));
        };
        for reader in readers() {
            for name in all {
                by_other_hands(&world, reader, &public, &nas, name);
            }
            restore(&["shop", "--to", "copy"]);
            restore(&["wide", "--to", "wide_copy"]);
            restore(&["events", "--to", "events_copy"]);
            restore(&["app", "--to", "copy.db"]);
            let of_command = ["restore", "x", "--output", "x.back", "--store", "nas"];
            good(&world.run(&[&of_command[..], &identity].concat()));
            let digest = "select count(*), md5(string_agg(note, '' order by id)) from t";
            let shop = postgres.sql("shop", digest);
            assert!(shop.starts_with("60000"));
            assert_eq!(postgres.sql("copy", digest), shop, "{mode}, {reader}");
            assert_eq!(postgres.sql("wide_copy", digest), shop, "{mode}, {reader}");
            let sum = |name: &str| {
                mariadb
                    .sql(&format!("checksum table {name}.t"))
                    .replace(name, "")
            };
            assert_eq!(sum("events_copy"), sum("events"), "{mode}, {reader}");
            assert_eq!(
                rows_of(&world.path("copy.db")),
                rows_of(&world.path("app.db"))
            );
            let back = std::fs::read_to_string(world.path("x.back")).unwrap();
            assert_eq!(back.lines().count(), 30000);
            // The next ones are to be new.
            std::fs::remove_file(world.path("x.back")).unwrap();
            std::fs::remove_file(world.path("copy.db")).unwrap();
            for name in ["copy", "wide_copy"] {
                postgres.sql("postgres", &format!("drop database {name}"));
            }
            mariadb.sql("drop database events_copy");
        }
        // The next one is to be the only one.
        std::fs::remove_dir_all(&nas).unwrap();
        std::fs::create_dir(&nas).unwrap();
    }
}

/// Sizes of archives whose last piece of 64 KiB is full, one byte less, and one more.
#[test]
fn age_and_rage_read_what_we_encrypt_and_we_what_they_do() {
    for size in [1, 63_000, 64_000, 128_000, 1_000_000] {
        let world = World::new("");
        let public = world.age_recipient();
        let script = format!("head -c {size} /dev/zero | tr '\\0' x");
        world.inventory(&format!(
            "[databases.x]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", {}]\n\
             compression = \"none\"\nencrypt_to = [\"{public}\"]\n",
            toml::Value::from(script)
        ));
        good(&world.run(&["backup"]));
        let sealed = world.download("x");
        let keys = world.keys("x");
        let key_of = |end: &str| keys.iter().find(|key| key.ends_with(end)).unwrap();
        for reader in readers() {
            let mut age = Command::new(reader);
            let age = age
                .arg("-d")
                .arg("-i")
                .arg(world.path("age.key"))
                .arg(&sealed);
            let plain = tool(age);
            world.write("plain", &plain);
            assert_eq!(untar(&world.path("plain")), "x".repeat(size).into_bytes());
            // Their file in place of ours, and cut at every edge that a piece can have.
            for length in [plain.len(), plain.len() - 1, 65_536, 65_537] {
                if length > plain.len() {
                    continue;
                }
                world.write("cut", &plain[..length]);
                let mut age = Command::new(reader);
                let age = age.args(["-r", &public, "-o"]).arg(world.path("theirs"));
                tool(age.arg(world.path("cut")));
                let theirs = std::fs::read(world.path("theirs")).unwrap();
                let _ = std::fs::remove_file(world.path("theirs"));
                let manifest = fitted(&mut world.manifest("x"), &theirs);
                let store = world.server.store();
                store.overwrite(key_of("/manifest.json"), manifest.into());
                store.overwrite(key_of(".age"), theirs.into());
                let verified = world.run(&["verify", "x", "--identity", "age.key"]);
                let is_whole = length == plain.len();
                assert_eq!(
                    verified.code == Some(0),
                    is_whole,
                    "{reader}, {size}, {length}"
                );
            }
        }
    }
}

/// Age's protocol of plugins, spoken by a program of the tests.
#[test]
fn a_plugin_of_ages_locks_and_opens() {
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/age-plugin-xor");
    let world = World::new("");
    std::fs::create_dir(world.path("bin")).unwrap();
    std::fs::copy(&plugin, world.path("bin/age-plugin-xor")).unwrap();
    world.executable("bin/age-plugin-xor");
    let pair = tool(Command::new(world.path("bin/age-plugin-xor")).arg("--pair"));
    let pair = String::from_utf8(pair).unwrap();
    let (public, private) = pair.trim().split_once('\n').unwrap();
    world.write("plugin.key", format!("{private}\n"));
    world.inventory(&format!(
        "[databases.x]\nengine = \"command\"\ncommand = [\"seq\", \"1000\"]\n\
         encrypt_to = [\"{public}\"]\n"
    ));
    let path = format!(
        "{}:{}",
        world.path("bin").display(),
        std::env::var("PATH").unwrap()
    );
    let run = |args: &[&str]| {
        let mut command = world.tapline(args);
        Run::from(command.env("PATH", &path).output().unwrap())
    };
    good(&run(&["check"]));
    good(&run(&["backup"]));
    let back = run(&["restore", "x", "--stdout", "--identity", "plugin.key"]);
    assert_eq!(back.stdout.lines().count(), 1000, "{}", back.words());
    // Without the plugin nobody is locked out in silence, and nothing is stored unlocked.
    let mut without = world.tapline(&["backup"]);
    let without = Run::from(without.output().unwrap());
    assert_ne!(without.code, Some(0));
    assert!(
        without.words().contains("age-plugin-xor"),
        "{}",
        without.words()
    );
    for reader in readers() {
        let mut age = Command::new(reader);
        let age = age.arg("-d").arg("-i").arg(world.path("plugin.key"));
        world.write(
            "plain",
            tool(age.arg(world.download("x")).env("PATH", &path)),
        );
        assert_eq!(untar(&world.path("plain")).len(), 3893);
    }
}

#[test]
fn flipped_bits_in_a_folder_are_each_found() {
    let world = World::new("");
    let public = world.age_recipient();
    let nas = world.path("nas");
    std::fs::create_dir(&nas).unwrap();
    world.inventory(&format!(
        "[stores.nas]\nurl = \"file://{}\"\n[databases.x]\nstore = \"nas\"\n\
         engine = \"command\"\ncommand = [\"seq\", \"40000\"]\nencrypt_to = [\"{public}\"]\n",
        nas.display()
    ));
    for mode in ["streamed", "staged"] {
        std::fs::remove_dir_all(&nas).unwrap();
        std::fs::create_dir(&nas).unwrap();
        good(&world.run(&["backup", "--mode", mode]));
        let (archive, manifest) = (file_in(&nas, "x", ".age"), file_in(&nas, "x", "t.json"));
        let whole = std::fs::read(&archive).unwrap();
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..50 {
            let mut bytes = whole.clone();
            let at = random.usize(..bytes.len());
            bytes[at] ^= 1 << random.u8(..8);
            let text = std::fs::read(&manifest).unwrap();
            let mut forged = Manifest::from_json(&text).unwrap();
            std::fs::write(&manifest, fitted(&mut forged, &bytes)).unwrap();
            std::fs::write(&archive, bytes).unwrap();
            let read = world.quietly(&["verify", "x", "--identity", "age.key"]);
            assert!(
                [Some(3), Some(5)].contains(&read.code),
                "byte {at}: {}",
                read.words()
            );
        }
    }
}
