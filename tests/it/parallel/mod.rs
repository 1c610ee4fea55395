//! A PostgreSQL database that several sessions dump at once is the same database.

mod restore;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::servers::{PASSWORD, Postgres};
use super::world::{World, tool, wait_until};

/// An inventory of one server; `store` is said of the store, and `entries` follow the defaults.
fn world(server: &Postgres, store: &str, entries: &str) -> World {
    let world = World::new(&format!(
        "{store}[defaults]\nengine = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\n\
         password = {{ file = \"password\" }}\ndatabase = \"shop\"\n{entries}",
        server.port()
    ));
    world.write("password", PASSWORD);
    world
}

fn database(server: &Postgres, text: &str) {
    server.sql("postgres", "create database shop");
    let mut psql = server.client("psql", "shop");
    psql.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-c", text]);
    tool(psql.stdout(Stdio::null()));
}

/// All that is in a database, in words that do not depend on the order of rows.
fn content(server: &Postgres, database: &str) -> String {
    let schema = tool(server.client("pg_dump", database).args(["--schema-only"]));
    let schema = String::from_utf8(schema).unwrap();
    let lines = schema.lines().filter(|line| !line.contains("restrict "));
    let mut words = lines.collect::<Vec<_>>().join("\n");
    words += &server.sql(
        database,
        r"select format('%I.%I ', nspname, relname) || (xpath('/row/x/text()', query_to_xml(format(
            'select count(*) || md5(coalesce(string_agg(md5(t::text), '''' order by md5(t::text)), '''')) as x
             from only %I.%I t', nspname, relname), false, true, '')))[1]
          from pg_class c join pg_namespace n on n.oid = relnamespace
          where relkind in ('r', 'm') and nspname !~ '^pg_' and nspname <> 'information_schema' order by 1",
    );
    words += &server.sql(
        database,
        "select schemaname || sequencename, coalesce(last_value, -1) from pg_sequences order by 1;
         select oid, md5(lo_get(oid)) from pg_largeobject_metadata order by 1;
         select evtname from pg_event_trigger",
    );
    words
}

fn same(one: &str, other: &str, what: &str) {
    for (one, other) in one.lines().zip(other.lines()) {
        assert_eq!(one, other, "{what}");
    }
    assert_eq!(one.lines().count(), other.lines().count(), "{what}");
}

/// The names of the files in an archive.
fn files(archive: &Path, how: &str) -> Vec<String> {
    let listed = tool(Command::new("tar").arg(format!("{how}tf")).arg(archive));
    let listed = String::from_utf8(listed).unwrap();
    listed.lines().map(str::to_owned).collect()
}

fn load(server: &Postgres, database: &str, script: &Path) {
    server.sql(
        "postgres",
        &format!("create database {database} template template0"),
    );
    let mut psql = server.client("psql", database);
    psql.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f"]);
    tool(psql.arg(script));
}

#[test]
fn what_several_sessions_dump_is_what_one_does() {
    let server = Postgres::start();
    server.sql("postgres", "create database shop");
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/parallel/corpus.sql");
    let mut psql = server.client("psql", "shop");
    tool(psql.args([
        "-Xq",
        "-o",
        "/dev/null",
        "-v",
        "ON_ERROR_STOP=1",
        "-f",
        corpus,
    ]));
    // Little memory, so that segments are small and rows are longer.
    let world = world(
        &server,
        "max_parts = 2\n",
        "[run]\nmemory = \"40MiB\"\njobs = 1\n[databases.serial]\n[databases.gzip]\nparallel = 3\n\
         [databases.zstd]\nparallel = 2\ncompression = \"zstd\"\n\
         [databases.none]\nparallel = 4\ncompression = \"none\"\n",
    );
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let serial = world.manifest("serial");
    assert!(serial.parallel.is_none());
    let expected = content(&server, "shop");
    assert!(expected.contains("hstore") && expected.lines().count() > 500);
    server.sql("postgres", "create database \"from serial\"");
    assert_eq!(
        world
            .run(&["restore", "serial", "--to", "from serial", "--overwrite"])
            .code,
        Some(0)
    );
    // What no dump gives back, such as the rows of unlogged tables on a standby, is not expected.
    let expected = {
        let restored = content(&server, "from serial");
        same(&expected, &restored, "serial");
        restored
    };
    for (name, how) in [("gzip", "z"), ("zstd", "--zstd -"), ("none", "")] {
        let manifest = world.manifest(name);
        let parallel = manifest.parallel.expect("by several sessions");
        assert_eq!(manifest.entries.len(), 1);
        let archive = world.download(name);
        let how = if how.starts_with("--") {
            "-I zstd"
        } else {
            how
        };
        let listed = if how == "-I zstd" {
            let plain = world.path("plain.tar");
            let unpacked = tool(Command::new("zstd").args(["-dcf"]).arg(&archive));
            std::fs::write(&plain, unpacked).unwrap();
            files(&plain, "")
        } else {
            files(&archive, how)
        };
        assert_eq!(listed.len() as u64, parallel.files);
        assert_eq!(listed[0], "shop/0-pre-data.sql");
        assert!(listed.last().unwrap().starts_with("shop/2-post-data"));
        let of = |table: &str| listed.iter().filter(|name| name.contains(table)).count();
        assert!(
            of("/1-data/public.orders.") > 3 && of("/1-data/rest.") > 3,
            "{listed:?}"
        );
        assert!(of("public.toasted.") > 3 && of(".part0002.") > 0 && of("public.bloated.") == 0);
        assert!(of("Odd%20%22schema%22%2Ex%2A.a%2Eb") > 0);
        // Files of one script stand next to each other.
        for (at, name) in listed.iter().enumerate() {
            if let Some((script, part)) = name.rsplit_once(".part0") {
                let before = &listed[at - 1];
                assert!(before.starts_with(script), "{before} {name} {part}");
            }
        }
        assert_eq!(world.run(&["verify", name]).code, Some(0));
        let to = format!("from_{name}");
        // One session or several, it is the same.
        let jobs = if name == "gzip" { "1" } else { "3" };
        let restore = ["restore", name, "--to", &to, "--jobs", jobs];
        assert_eq!(world.run(&restore).code, Some(0));
        same(&expected, &content(&server, &to), name);
        let shown = world.run(&["show", name]).stdout;
        assert!(shown.contains("3 sessions") || name != "gzip", "{shown}");
    }
    assert!(
        world.manifest("none").archive.volumes.len() > 2,
        "parts run out"
    );
    // By hand, as `show` says, and by --output: the same script.
    let archive = world.download("gzip");
    let by_hand = tool(Command::new("tar").arg("xzOf").arg(&archive));
    world.write("by-hand.sql", &by_hand);
    assert_eq!(
        world
            .run(&["restore", "gzip", "--output", "output.sql"])
            .code,
        Some(0)
    );
    assert!(std::fs::read(world.path("output.sql")).unwrap() == by_hand);
    assert_eq!(
        world.manifest("gzip").dump_size(),
        Some(by_hand.len() as u64)
    );
    load(&server, "by_hand", &world.path("by-hand.sql"));
    same(&expected, &content(&server, "by_hand"), "by hand");
    let drill = world.run(&["verify", "gzip", "--drill"]);
    assert_eq!(drill.code, Some(0));
}

/// A database whose tables are copied in parts, and a store that takes its time.
fn slow_world(server: &Postgres, entries: &str) -> World {
    database(
        server,
        "create table orders as select g as id, md5(g::text) || repeat('o', 60) as note
           from generate_series(1, 300000) g;
         create index by_note on orders (note);
         create table events as select g as id, md5(g::text) as note from generate_series(1, 200000) g",
    );
    let entries = format!("[run]\nmemory = \"24MiB\"\n{entries}");
    let world = world(server, "", &entries);
    world.server.link().slow(4 << 20);
    world
}

/// Sessions of a dump that is under way.
const OURS: &str = "application_name like 'tapline ________'";

fn wait_for_copies(server: &Postgres) {
    let copies = format!(
        "select count(*) > 1 from pg_stat_activity where {OURS} and query like 'copy (select%'"
    );
    wait_until(|| server.sql("postgres", &copies).trim() == "t");
}

fn background(server: &Postgres, sql: &str) -> Child {
    let mut psql = server.client("psql", "shop");
    let psql = psql.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-c", sql]);
    psql.stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn whoever_waits_to_change_a_table_meanwhile_neither_stops_nor_fails_the_dump() {
    let server = Postgres::start();
    let entries = "[databases.shop]\nparallel = 3\ncompression = \"none\"\n";
    let world = slow_world(&server, entries);
    let backup = world
        .tapline(&["backup", "--stall-timeout", "60s"])
        .stdout(Stdio::null())
        .spawn();
    let mut backup = backup.unwrap();
    wait_for_copies(&server);
    let mut alter = background(&server, "alter table orders add column late int");
    let mut reindex = background(&server, "reindex index by_note");
    let waits = "select count(*) from pg_locks where not granted";
    wait_until(|| server.sql("postgres", waits).trim() != "0");
    // Nobody who looks at the processes learns the password.
    let lines = tool(Command::new("ps").args(["-eww", "-o", "args"]));
    let lines = String::from_utf8_lossy(&lines);
    assert!(lines.contains("VERBOSITY=verbose -f -") && !lines.contains(PASSWORD));
    assert!(backup.try_wait().unwrap().is_none(), "it is in the middle");
    assert!(backup.wait().unwrap().success());
    assert!(alter.wait().unwrap().success() && reindex.wait().unwrap().success());
    let script = world.run(&["restore", "shop", "--stdout"]).stdout;
    assert!(!script.contains("late integer"));
    let rows = script.lines().filter(|line| line.ends_with("oooo")).count();
    assert_eq!(rows, 300_000);

    // One who tries again and again stands between the sessions while they begin.
    world.server.link().slow(100 << 20);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let tries = "set lock_timeout = '400ms'; alter table orders add column x int;
                             alter table orders drop column x";
                let _ = background(&server, tries).wait();
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        for _ in 0..3 {
            let run = world.run(&["backup", "--stall-timeout", "60s"]);
            stop.store(run.code != Some(0), Ordering::Relaxed);
            assert_eq!(run.code, Some(0));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_session_that_is_lost_fails_the_job_and_leaves_nothing() {
    let server = Postgres::start();
    let entries = "[databases.shop]\nparallel = 2\ncompression = \"none\"\n";
    let world = slow_world(&server, entries);
    for (what, which) in [
        ("copier", "query like 'copy (select%'"),
        (
            "keeper",
            "query like 'with ours%' or query like '%pg_stat_clear_snapshot%' or query like 'show %'",
        ),
    ] {
        let args = ["backup", "--stall-timeout", "60s"];
        let mut backup = world.tapline(&args).stderr(Stdio::piped()).spawn().unwrap();
        wait_for_copies(&server);
        let end = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where {OURS} and ({which}) limit 1"
        );
        assert_eq!(server.sql("postgres", &end).trim(), "t", "{what}");
        assert!(!backup.wait().unwrap().success(), "{what}");
        world.assert_store_is_clean();
        let ours = format!("select count(*) from pg_stat_activity where {OURS}");
        wait_until(|| server.sql("postgres", &ours).trim() == "0");
    }
}

#[test]
fn sessions_see_one_instant_while_others_write() {
    let runs = std::env::var("TAPLINE_PARALLEL_RUNS").map_or(3, |runs| runs.parse().unwrap());
    let server = Postgres::start();
    database(
        &server,
        "create table giving as select g as id, 1000::bigint as n, repeat('g', 80) as pad
           from generate_series(1, 20000) g;
         create table taking as select g as id, 0::bigint as n, repeat('t', 80) as pad
           from generate_series(1, 20000) g;
         alter table giving add primary key (id); alter table taking add primary key (id);
         create table moves (id int, x text);
         create procedure churn(seed int) language plpgsql as $$
         declare who int; begin
           for i in 1..2000000000 loop
             who := 1 + (i::bigint * 7919 + seed * 104729) % 20000;
             update giving set n = n - 1 where id = who;
             update taking set n = n + 1 where id = 20001 - who;
             insert into moves values (i, repeat('m', 60));
             commit;
           end loop; end $$;
         create procedure come_and_go() language plpgsql as $$ begin
           for i in 1..2000000000 loop
             execute format('create table made_%s as select 1 as x', i); commit;
             perform pg_sleep(0.2);
             if i % 10 = 0 then execute format('drop table made_%s', i - 5); commit; end if;
           end loop; end $$",
    );
    let entries = "[databases.shop]\nparallel = 3\ncompression = \"zstd\"\n";
    let world = world(&server, "", entries);
    let calls = ["call churn(1)", "call churn(2)", "call come_and_go()"];
    let mut writers = calls.map(|call| background(&server, call));
    wait_until(|| {
        server
            .sql("shop", "select count(*) > 20000 from moves")
            .trim()
            == "t"
    });
    let mut seen = Vec::new();
    for run in 0..runs {
        let backup = world.quietly(&["backup"]);
        assert_eq!(backup.code, Some(0), "run {run}: {}", backup.words());
        let script = world.quietly(&["restore", "shop", "--stdout"]).stdout;
        let (mut giving, mut taking, mut moves) = (0, 0, 0_i64);
        for line in script.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields.as_slice() {
                [_, n, pad] if pad.starts_with("ggg") => giving += n.parse::<i64>().unwrap(),
                [_, n, pad] if pad.starts_with("ttt") => taking += n.parse::<i64>().unwrap(),
                [_, pad] if pad.starts_with("mmm") => moves += 1,
                _ => {}
            }
        }
        assert_eq!((giving + taking, taking), (20_000_000, moves), "run {run}");
        seen.push(moves);
    }
    for writer in &mut writers {
        // Each goes on for longer than any test.
        assert!(
            writer.try_wait().unwrap().is_none(),
            "there were writers all the time"
        );
        writer.kill().unwrap();
        writer.wait().unwrap();
    }
    println!("{runs} runs, {seen:?} moves");
    assert!(seen.is_sorted() && (runs == 1 || seen.first() < seen.last()));
}

#[test]
fn a_pooler_that_hands_sessions_about_is_refused_in_words() {
    let server = Postgres::start();
    server.sql(
        "postgres",
        "create role pool superuser login password 'guest'",
    );
    database(
        &server,
        "create table t as select g from generate_series(1, 100000) g",
    );
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let ini = folder.path().join("pgbouncer.ini");
    let run = |mode: &str| {
        std::fs::write(
            &ini,
            format!(
                "[databases]\nshop = host=127.0.0.1 port={} user=pool password=guest\n\
                 postgres = host=127.0.0.1 port={} user=pool password=guest\n[pgbouncer]\n\
                 listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n\
                 pool_mode = {mode}\nignore_startup_parameters = extra_float_digits\n",
                server.port(),
                server.port()
            ),
        )
        .unwrap();
        let mut pooler = Command::new("setpriv");
        pooler.args(["--pdeathsig", "KILL"]);
        if rustix::process::geteuid().is_root() {
            pooler.args([
                "--reuid",
                "postgres",
                "--regid",
                "postgres",
                "--clear-groups",
            ]);
        }
        let pooler = pooler.args(["/usr/sbin/pgbouncer", "-q"]).arg(&ini).spawn();
        let mut pooler = pooler.expect("pgbouncer is installed");
        wait_until(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        let world = World::new(&format!(
            "[databases.shop]\nengine = \"postgres\"\nhost = \"127.0.0.1\"\nport = {port}\n\
             user = \"pool\"\nparallel = 2\n"
        ));
        let run = world.run(&["backup"]);
        pooler.kill().unwrap();
        pooler.wait().unwrap();
        if run.code != Some(0) {
            world.assert_store_is_clean();
        }
        run
    };
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let refused = run("transaction");
    assert!(refused.code != Some(0) && refused.stderr.contains("pgbouncer's transaction mode"));
    assert_eq!(run("session").code, Some(0));
}
