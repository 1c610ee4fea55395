//! The baseline: the same backups by way of files, the order of its steps, and nothing left of its
//! files.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::servers::{Mariadb, PASSWORD, Postgres};
use super::world::{World, end_of, tool, untar, wait_until};

/// A folder for the staged files of a world's runs.
fn staged(world: &World, more: &str, databases: &str) {
    std::fs::create_dir_all(world.path("staged")).unwrap();
    world.inventory(&format!(
        "[run]\nmode = \"staged\"\n[staged]\ndir = \"staged\"\n{more}\n{databases}"
    ));
}

fn files_left(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(world.path("staged")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn postgres_by_way_of_a_directory_comes_back_equal_to_the_streamed() {
    let server = Postgres::start();
    server.sql("postgres", "create database shop");
    server.sql(
        "shop",
        "create table t as select g as id, md5(g::text) as note from generate_series(1, 60000) g;
         alter table t add primary key (id); create table u (x int references t); insert into u values (7);
         create view v as select count(*) from t; select lo_from_bytea(0, 'large')",
    );
    let databases = format!(
        "[defaults]\nengine = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\n\
         password = {{ file = \"password\" }}\n[databases.shop]\n[databases.zstd]\ndatabase = \"shop\"\ncompression = \"zstd\"\n\
         [databases.roles]\nglobals = true\n",
        server.port()
    );
    let world = World::new("");
    world.write("password", PASSWORD);
    staged(&world, "parallel = 2", &databases);
    let contents =
        "select md5(string_agg(t::text, '|' order by id)), (select * from v), (select x from u),
                    (select count(*) from pg_largeobject_metadata) from t";
    let original = server.sql("shop", contents);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert_eq!(world.manifest("shop").dump_format, "directory");
    assert_eq!(world.run(&["verify"]).code, Some(0));
    for (source, copy) in [("shop", "copy"), ("zstd", "second")] {
        assert_eq!(world.run(&["restore", source, "--to", copy]).code, Some(0));
        assert_eq!(server.sql(copy, contents), original);
        server.sql(copy, "delete from u");
        assert_eq!(world.run(&["restore", source, "--to", copy]).code, Some(1));
        assert_eq!(
            world
                .run(&["restore", source, "--to", copy, "--overwrite"])
                .code,
            Some(0)
        );
        assert_eq!(server.sql(copy, contents), original);
    }
    let drill = world.run(&["verify", "shop", "--drill"]);
    assert!(drill.code == Some(0) && drill.stdout.contains("2 tables"));

    // Stock tools alone, from the archive.
    let folder = world.path("by hand");
    std::fs::create_dir(&folder).unwrap();
    tool(
        Command::new("tar")
            .arg("xf")
            .arg(world.download("shop"))
            .arg("-C")
            .arg(&folder),
    );
    server.sql("postgres", "create database third");
    tool(
        server
            .client("pg_restore", "third")
            .args(["--exit-on-error", "--dbname=third"])
            .arg(folder.join("shop")),
    );
    assert_eq!(server.sql("third", contents), original);
    // The folder, by this program.
    assert_eq!(world.run(&["restore", "shop", "--stdout"]).code, Some(2));
    assert_eq!(
        world.run(&["restore", "shop", "--output", "out"]).code,
        Some(0)
    );
    assert!(world.path("out/toc.dat").is_file());
    assert_eq!(
        world.run(&["restore", "shop", "--output", "out"]).code,
        Some(1)
    );

    // And a zip.
    staged(&world, "container = \"zip\"", &databases);
    assert_eq!(
        world.run(&["backup", "zstd"]).code,
        Some(3),
        "a zip has no zstd"
    );
    assert_eq!(world.run(&["backup", "shop"]).code, Some(0));
    assert_eq!(
        world.run(&["restore", "shop", "--to", "fourth"]).code,
        Some(0)
    );
    assert_eq!(server.sql("fourth", contents), original);

    // A streamed one of the same database.
    assert_eq!(
        world.run(&["backup", "shop", "--mode", "streamed"]).code,
        Some(0)
    );
    assert_eq!(
        world.run(&["restore", "shop", "--to", "fifth"]).code,
        Some(0)
    );
    assert_eq!(server.sql("fifth", contents), original);
    assert_eq!(files_left(&world), Vec::<String>::new());
}

#[test]
fn mariadb_by_way_of_a_file_for_each_table_comes_back_equal() {
    let server = Mariadb::start();
    server.sql(
        "create database shop; use shop; create table a (id int primary key, note text);
         insert into a select seq, concat(md5(seq), '\\n-- Table structure for table `x`\\n') from seq_1_to_30000;
         create table b (x int); insert into b values (7); create view v as select count(*) c from a;
         create procedure p() select 42; create trigger tr before insert on b for each row set new.x = 1;",
    );
    let databases = format!(
        "[databases.shop]\nengine = \"mariadb\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\n\
         password = {{ file = \"password\" }}\n",
        server.port()
    );
    let world = World::new("");
    world.write("password", PASSWORD);
    let contents = |database: &str| {
        server.sql(&format!(
            "set group_concat_max_len = 1000000000; use {database};
             select md5(group_concat(id, note order by id separator '|')), (select x from b), (select c from v) from a; call p()"
        ))
    };
    for (container, copy) in [("tar", "copy"), ("zip", "second")] {
        staged(&world, &format!("container = \"{container}\""), &databases);
        assert_eq!(world.run(&["backup"]).code, Some(0));
        assert_eq!(world.run(&["restore", "shop", "--to", copy]).code, Some(0));
        assert_eq!(contents(copy), contents("shop"));
    }
    let keys = world.keys("shop");
    let key = keys
        .iter()
        .find(|key| key.ends_with("manifest.json"))
        .unwrap();
    let manifest: Value = serde_json::from_slice(&world.server.store().read(key).unwrap()).unwrap();
    let names: Vec<&str> = manifest["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names[..3],
        ["shop/0000-schema.sql", "shop/0001-a.sql", "shop/0002-b.sql"],
        "{names:?}"
    );
    assert_eq!(files_left(&world), Vec::<String>::new());
}

#[test]
fn one_file_in_every_container_and_compression_is_what_stock_tools_and_restore_say() {
    let world = World::new("");
    let mut dump = vec![0; 9_000_001];
    fastrand::Rng::with_seed(5).fill(&mut dump[..4_000_000]);
    world.write("dump", &dump);
    let databases = "[defaults]\nengine = \"command\"\ncommand = [\"cat\", \"dump\"]\nfile_name = \"x.bin\"\n\
                     [databases.gzip]\n[databases.zstd]\ncompression = \"zstd\"\n[databases.none]\ncompression = \"none\"\n";
    staged(&world, "", databases);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    for name in ["gzip", "zstd", "none"] {
        assert!(untar(&world.download(name)) == dump, "{name}");
        assert_eq!(
            world
                .run(&["restore", name, "--output", "file", "--overwrite"])
                .code,
            Some(0)
        );
        assert!(std::fs::read(world.path("file")).unwrap() == dump, "{name}");
    }
    staged(&world, "container = \"zip\"", databases);
    for name in ["gzip", "none"] {
        assert_eq!(world.run(&["backup", name]).code, Some(0));
        let key = world
            .keys(name)
            .into_iter()
            .rfind(|key| key.contains(".zip"))
            .unwrap();
        let archive = world.server.store().read(&key).unwrap();
        world.write("x.zip", &archive);
        let script = "import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read('x.bin'))";
        assert!(
            tool(
                Command::new("python3")
                    .args(["-c", script])
                    .arg(world.path("x.zip"))
            ) == dump,
            "{name}"
        );
        let named = format!("{name}@{}", key.split('/').nth(2).unwrap());
        assert_eq!(
            world
                .run(&["restore", &named, "--output", "file", "--overwrite"])
                .code,
            Some(0)
        );
        assert!(std::fs::read(world.path("file")).unwrap() == dump, "{name}");
        let mut damaged = archive;
        let middle = damaged.len() / 3;
        damaged[middle] ^= 4;
        world.server.store().overwrite(&key, damaged.into());
        assert_eq!(world.run(&["verify", &named]).code, Some(5));
    }
    assert_eq!(files_left(&world), Vec::<String>::new());
}

/// The spans of one step of each database, in order: database, start, end.
fn spans(report: &Value, step: &str) -> Vec<(String, f64, f64)> {
    let mut spans = Vec::new();
    for job in report["jobs"].as_array().unwrap() {
        for span in job["busy"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|span| span["step"] == step)
        {
            let at = |key: &str| span[key].as_f64().unwrap();
            spans.push((
                job["database"].as_str().unwrap().to_owned(),
                at("start"),
                at("end"),
            ));
        }
    }
    spans.sort_by(|a, b| a.1.total_cmp(&b.1));
    spans
}

#[test]
fn the_steps_of_six_databases_overlap_and_the_first_is_never_idle() {
    let mut databases = String::from("[defaults]\nengine = \"command\"\nlevel = 9\n");
    for n in 1..=6 {
        databases += &format!(
            "[databases.db{n}]\ncommand = [\"sh\", \"-c\", \"sleep 0.5; head -c 6000000 /dev/urandom\"]\n"
        );
    }
    let world = World::new("");
    staged(&world, "dump = 1\narchive = 1\nupload = 1", &databases);
    let run = world.run(&["backup", "--report", "report.json", "--timeline"]);
    assert_eq!(run.code, Some(0));
    let rows: Vec<&str> = run
        .stdout
        .lines()
        .filter(|line| line.contains(" 1 ") && !line.contains("db"))
        .collect();
    assert!(
        rows.iter().any(|row| row.starts_with("dump 1"))
            && rows.iter().any(|row| row.starts_with("upload 1")),
        "{rows:?}"
    );
    let report: Value =
        serde_json::from_slice(&std::fs::read(world.path("report.json")).unwrap()).unwrap();
    let [dumps, archives, uploads] = ["dump", "encode", "upload"].map(|step| spans(&report, step));
    assert_eq!(
        (dumps.len(), archives.len(), uploads.len()),
        (6, 6, 6),
        "a span for each step of each database"
    );

    for ((dump, archive), upload) in dumps.iter().zip(&archives).zip(&uploads) {
        assert!(
            dump.0 == archive.0 && archive.0 == upload.0,
            "first come, first served"
        );
        assert!(
            dump.2 <= archive.1 && archive.2 <= upload.1,
            "the order of {} held",
            dump.0
        );
    }
    // By the clock of its own work, which a busy machine slows down as well.
    let (busy, idle) = dumps.windows(2).fold((0.0, 0.0), |(busy, idle), pair| {
        let gap = pair[1].1 - pair[0].2;
        assert!(gap >= 0.0, "{} was dumped beside {}", pair[1].0, pair[0].0);
        (busy + pair[0].2 - pair[0].1, idle + gap)
    });
    assert!(
        idle < busy / 2.0,
        "the dump worker was idle for {idle} s, and busy for {busy} s"
    );
    let overlaps = |a: &[(String, f64, f64)], b: &[(String, f64, f64)]| {
        a.iter()
            .any(|a| b.iter().any(|b| a.0 != b.0 && a.1 < b.2 && b.1 < a.2))
    };
    assert!(
        overlaps(&dumps, &archives),
        "one database is archived while another is dumped"
    );
    assert!(
        overlaps(&dumps, &uploads) || overlaps(&archives, &uploads),
        "one is uploaded meanwhile"
    );
    assert!(report["resources"]["peak_temp_disk"].as_u64().unwrap() >= 6_000_000);
    assert_eq!(report["mode"], "staged");
    assert_eq!(files_left(&world), Vec::<String>::new());
}

#[test]
fn whatever_ends_a_run_no_file_and_no_upload_is_left() {
    // While it dumps, and while it uploads to a store that does not answer.
    for (script, fault) in [
        (
            "echo $$ >>tools; head -c 9000000 /dev/urandom; sleep 300 & echo $! >>tools; wait",
            false,
        ),
        ("head -c 9000000 /dev/urandom", true),
    ] {
        let world = World::new("");
        staged(
            &world,
            "",
            &format!(
                "[databases.x]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\n"
            ),
        );
        if fault {
            world
                .server
                .faults()
                .on(tapline::s3_server::Op::Part)
                .meets(tapline::s3_server::Fault::SlowDown);
        }
        let mut running = world
            .tapline(&["backup"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let size = || tapline::scratch::occupied(&world.path("staged"));
        wait_until(|| {
            if fault {
                world.server.store().open_uploads() == 1
            } else {
                size() >= 8_000_000
            }
        });
        assert!(
            Command::new("kill")
                .args(["-TERM", &running.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(end_of(&mut running).code(), Some(143));
        assert_eq!(files_left(&world), Vec::<String>::new());
        world.assert_store_is_clean();
        // Each tool has said its number; none of them is alive.
        for tool in std::fs::read_to_string(world.path("tools"))
            .unwrap_or_default()
            .lines()
        {
            let stat = || std::fs::read_to_string(format!("/proc/{tool}/stat"));
            wait_until(|| stat().map_or(true, |stat| stat.contains(") Z ")));
        }
    }
    // A dump that fails, and one that there is no room for.
    for (script, more, words) in [
        (
            "head -c 9000000 /dev/urandom; echo no luck >&2; exit 3",
            "",
            "no luck",
        ),
        ("echo x", "expected_size = \"900PB\"\n", "MiB are free"),
    ] {
        let world = World::new("");
        let database = format!(
            "[databases.x]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\n{more}"
        );
        staged(&world, "", &database);
        let run = world.run(&["backup"]);
        assert!(run.code == Some(1) && run.stdout.contains(words), "{words}");
        assert_eq!(files_left(&world), Vec::<String>::new());
        world.assert_store_is_clean();
    }
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next_and_a_running_ones_files_are_not() {
    let world = World::new("");
    let slow = "[databases.x]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", \"head -c 9000000 /dev/urandom; sleep 300.75\"]\n";
    let quick = "[databases.y]\nengine = \"command\"\ncommand = [\"echo\", \"y\"]\n";
    staged(&world, "", &format!("{slow}{quick}"));
    let start = || {
        let before = files_left(&world).len();
        let running = world
            .tapline(&["backup", "x"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_until(|| files_left(&world).len() > before);
        running
    };
    let age = |folder: &str| {
        let status = Command::new("touch")
            .args(["-d", "1 hour ago"])
            .arg(world.path("staged").join(folder))
            .status();
        assert!(status.unwrap().success());
    };
    let mut killed = start();
    std::thread::sleep(Duration::from_millis(300));
    killed.kill().unwrap();
    killed.wait().unwrap();
    let abandoned = files_left(&world).remove(0);
    let mut running = start();
    let held = files_left(&world)
        .into_iter()
        .find(|name| *name != abandoned)
        .unwrap();
    age(&abandoned);
    age(&held);
    assert_eq!(world.run(&["backup", "y"]).code, Some(0));
    assert_eq!(files_left(&world), [held]);
    assert!(
        Command::new("kill")
            .args(["-TERM", &running.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    running.wait().unwrap();
    assert_eq!(files_left(&world), Vec::<String>::new());
}
