//! Real databases go in, and what stock tools take out of the archive is equal to them.

use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use tapline::catalog::Manifest;

use super::servers::{Mariadb, PASSWORD, Postgres};
use super::world::{Run, World, tool, untar};

/// Runs `tapline backup` and watches every process's command line for the password meanwhile.
fn backup_watched(world: &World) -> Run {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for process in std::fs::read_dir("/proc").unwrap().flatten() {
                    let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                    assert!(
                        !contains(&line, PASSWORD),
                        "{}",
                        String::from_utf8_lossy(&line)
                    );
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let run = world.run(&["backup", "-vv", "--report", "report.json"]);
        over.store(true, Ordering::Relaxed);
        watch.join().unwrap();
        let report = std::fs::read_to_string(world.path("report.json")).unwrap_or_default();
        for text in [&run.stdout, &run.stderr, &report] {
            assert!(!text.contains(PASSWORD), "a secret is shown");
        }
        for key in world
            .server
            .store()
            .keys()
            .into_iter()
            .filter(|key| key.ends_with("manifest.json"))
        {
            assert!(!contains(
                &world.server.store().read(&key).unwrap(),
                PASSWORD
            ));
        }
        run
    })
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn postgres_databases_load_back_equal() {
    const NAME: &str = r#"it's "größe" =x"#;
    let server = Postgres::start();
    let quoted = NAME.replace('"', "\"\"");
    server.sql("postgres", &format!("create database \"{quoted}\""));
    server.sql("postgres", "create database empty");
    server.sql("postgres", "create database copy");
    server.sql("postgres", "create role somebody");
    server.sql(
        NAME,
        "create table t as select g as id, md5(g::text) || E'\\u00e4\\n\\t\\\\' as note,
           decode(md5(g::text) || '00ff0a', 'hex') as data from generate_series(1, 60000) g;
         alter table t add primary key (id); create view v as select count(*) from t;
         create function f() returns int language sql as 'select 42';",
    );
    let login = format!(
        "[defaults]\nengine = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\n\
         password = {{ file = \"password\" }}\n",
        server.port()
    );
    let name = NAME.replace('"', "\\\"");
    let world = World::new(&format!(
        "{login}[databases.odd]\ndatabase = \"{name}\"\n\
         [databases.custom]\ndatabase = \"{name}\"\nformat = \"custom\"\ncompression = \"zstd\"\n\
         [databases.all]\ndatabase = \"*\"\nexclude = [\"post*\", \"copy\"]\n[databases.roles]\nglobals = true\n"
    ));
    world.write("password", PASSWORD);
    let check = world.run(&["check", "--quiet"]);
    assert_eq!(check.code, Some(0));
    assert_eq!(backup_watched(&world).code, Some(0));
    assert!(world.run(&["list"]).stdout.contains(&format!("all/{NAME}")));
    for absent in ["all/nada", "all/copy"] {
        let run = world.run(&["backup", absent]);
        assert!(
            run.code == Some(3) && run.stdout.contains("no such database"),
            "{absent}"
        );
    }

    let contents =
        "select md5(string_agg(t::text, '|' order by id)), (select f()), (select * from v) from t";
    let original = server.sql(NAME, contents);
    let dump = untar(&world.download("odd"));
    assert_eq!(world.manifest("odd").entries[0].name, format!("{NAME}.sql"));
    world.write("dump.sql", &dump);
    let load = server
        .client("psql", "copy")
        .args(["-Xq", "-v", "ON_ERROR_STOP=1"])
        .stdin(File::open(world.path("dump.sql")).unwrap())
        .output()
        .unwrap();
    assert!(
        load.status.success(),
        "{}",
        String::from_utf8_lossy(&load.stderr)
    );
    assert_eq!(server.sql("copy", contents), original);

    world.write("custom.dump", untar(&world.download("custom")));
    server.sql("postgres", "create database second");
    tool(
        server
            .client("pg_restore", "second")
            .args(["--dbname=second", "--exit-on-error"])
            .arg(world.path("custom.dump")),
    );
    assert_eq!(server.sql("second", contents), original);

    assert!(
        String::from_utf8(untar(&world.download("roles")))
            .unwrap()
            .contains("CREATE ROLE somebody")
    );
    assert!(contains(
        &untar(&world.download("all/empty")),
        "PostgreSQL database dump complete"
    ));
    assert_eq!(world.keys(&format!("all/{NAME}")).len(), 2);
    assert!(
        world.keys("all/copy").is_empty(),
        "what is excluded is not there"
    );
}

#[test]
fn a_wrong_password_fails_with_the_servers_words_and_leaves_nothing() {
    let server = Postgres::start();
    let world = World::new(&format!(
        "[databases.postgres]\nengine = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\n\
         password = {{ env = \"WRONG\" }}\n",
        server.port()
    ));
    assert_eq!(
        world.run(&["backup"]).code,
        Some(3),
        "a missing secret is found before anything starts"
    );
    let output = world
        .tapline(&["backup"])
        .env("WRONG", "wrong")
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        contains(&output.stdout, "password authentication failed"),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    world.assert_store_is_clean();
}

#[test]
fn mariadb_databases_load_back_equal() {
    const NAME: &str = "it's größe x";
    let server = Mariadb::start();
    server.sql(&format!(
        "create database `{NAME}`; create database empty; create database copy; use `{NAME}`;
         create table t (id int primary key, note text, data blob) character set utf8mb4;
         insert into t select seq, concat(md5(seq), 'ä\\n\\'\"'), unhex(concat(md5(seq), '00FF0A')) from seq_1_to_40000;
         create view v as select count(*) c from t; create procedure p() select 42;
         create trigger tr before insert on t for each row set new.note = 'triggered';"
    ));
    let world = World::new(&format!(
        "[defaults]\nengine = \"mariadb\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\n\
         password = {{ file = \"password\" }}\n\
         [databases.odd]\ndatabase = \"{NAME}\"\n[databases.all]\ndatabase = \"*\"\nexclude = [\"copy\"]\n",
        server.port()
    ));
    world.write("password", PASSWORD);
    assert_eq!(world.run(&["check"]).code, Some(0));
    assert_eq!(backup_watched(&world).code, Some(0));
    world.write("dump.sql", untar(&world.download("odd")));
    let load = server
        .client()
        .arg("copy")
        .stdin(File::open(world.path("dump.sql")).unwrap())
        .output()
        .unwrap();
    assert!(
        load.status.success(),
        "{}",
        String::from_utf8_lossy(&load.stderr)
    );
    let contents = |database: &str| {
        server.sql(&format!(
            "set group_concat_max_len = 1000000000; use `{database}`;
             select md5(group_concat(id, note, hex(data) order by id separator '|')), (select c from v) from t; call p();
             insert into t values (0, 'x', ''); select note from t where id = 0; delete from t where id = 0;"
        ))
    };
    assert_eq!(contents("copy"), contents(NAME));
    assert!(contains(
        &untar(&world.download("all/empty")),
        "Dump completed"
    ));
}

#[test]
fn every_stock_reader_reads_a_sqlite_archive_in_every_compression() {
    let world = World::new(
        "[defaults]\nengine = \"sqlite\"\npath = \"größe it's.db\"\n[databases.gzip]\n\
         [databases.zstd]\ncompression = \"zstd\"\n[databases.none]\ncompression = \"none\"\n",
    );
    let path = world.path("größe it's.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    database.pragma_update(None, "journal_mode", "wal").unwrap();
    database
        .execute_batch(
            "create table t (x, y); with recursive c(x) as (select 1 union all select x + 1 from c where x < 300000)
             insert into t select x, hex(randomblob(20)) from c; pragma wal_checkpoint(truncate)",
        )
        .unwrap();
    assert_eq!(world.run(&["backup", "--jobs", "1"]).code, Some(0));
    let image = std::fs::read(&path).unwrap();
    assert!(
        image.len() > (2 * 4) << 20,
        "larger than two segments: {}",
        image.len()
    );
    for name in ["gzip", "zstd", "none"] {
        let archive = world.download(name);
        assert!(untar(&archive) == image, "GNU tar, {name}");
        assert!(
            tool(Command::new("bsdtar").arg("xOf").arg(&archive)) == image,
            "bsdtar, {name}"
        );
        let Manifest { entries, .. } = world.manifest(name);
        assert_eq!(entries[0].size, image.len() as u64);
        std::fs::rename(&archive, world.path(name)).unwrap();
    }
    let script = "import sys, tarfile\nt = tarfile.open(fileobj=sys.stdin.buffer, mode='r|gz')\n\
                  for m in t: sys.stdout.buffer.write(t.extractfile(m).read())";
    let python = Command::new("python3")
        .args(["-c", script])
        .stdin(File::open(world.path("gzip")).unwrap())
        .output()
        .unwrap();
    assert!(
        python.status.success() && python.stdout == image,
        "{}",
        String::from_utf8_lossy(&python.stderr)
    );
    // The archive's own tar says what it holds, and complains of nothing.
    let quiet = Command::new("tar")
        .arg("tvf")
        .arg(world.path("gzip"))
        .output()
        .unwrap();
    assert!(
        quiet.status.success() && quiet.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&quiet.stderr)
    );
}

fn entry(engine: &str, name: &str, port: u16, keys: &str) -> String {
    format!(
        "[databases.{name}]\nengine = \"{engine}\"\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"admin\"\n\
         password = {{ file = \"password\" }}\n{keys}\n"
    )
}

#[test]
fn options_that_change_what_a_dump_is_are_refused_by_the_inventory() {
    for (engine, option) in [
        ("postgres", "-Fc"),
        ("postgres", "--create"),
        ("postgres", "--file=x"),
        ("postgres", "otherdb"),
        ("mariadb", "--result-file=x"),
        ("mysql", "--password=sesame"),
    ] {
        let world = World::new(&entry(engine, "x", 1, &format!("options = [\"{option}\"]")));
        let run = world.run(&["backup"]);
        assert_eq!(run.code, Some(3), "{option}");
        assert!(run.stderr.contains("databases.x.options"));
        assert!(!run.stderr.contains("sesame"));
    }
}

#[test]
fn check_finds_what_would_fail_in_postgres() {
    let server = Postgres::start();
    server.sql("postgres", "create database shop");
    server.sql(
        "shop",
        "create table secrets (id int); create role reader login password 'x';
         create table rows (id int); alter table rows enable row level security;
         grant select on rows to reader",
    );
    let world = World::new("");
    world.write("password", PASSWORD);
    world.write("reader", "x");
    let check = |keys: &str| {
        world.inventory(&entry("postgres", "shop", server.port(), keys));
        world.run(&["check"])
    };
    assert_eq!(check("options = [\"--no-owner\"]").code, Some(0));
    let unknown = check("options = [\"--foo\"]");
    assert!(unknown.code != Some(0) && unknown.stdout.contains("--foo"));
    let patterns = "database = \"*\"\nexclude = [\"shop\", \"shpo*\"]";
    world.inventory(&entry("postgres", "all", server.port(), patterns));
    let idle = world.run(&["check"]);
    assert!(
        idle.stdout
            .contains("`exclude` has \"shpo*\", which fits none")
    );
    let tools = check("tools = \"/nowhere\"");
    assert!(tools.code != Some(0) && tools.stdout.contains("/nowhere/"));
    world.write("tapline.toml", {
        let text = std::fs::read_to_string(world.path("tapline.toml")).unwrap();
        text.replace("\"admin\"", "\"reader\"")
            .replace("{ file = \"password\" }", "{ file = \"reader\" }")
            .replace("tools = \"/nowhere\"", "")
    });
    let reader = world.run(&["check"]);
    assert!(reader.code != Some(0) && reader.stdout.contains("secrets"));
    server.sql("shop", "grant select on secrets to reader");
    let secured = world.run(&["check"]);
    assert!(secured.stdout.contains("row security") && secured.stdout.contains("rows"));
}

#[test]
fn check_says_what_a_mariadb_dump_will_lack() {
    let server = Mariadb::start();
    server.sql(
        "create database shop; create table shop.t (id int) engine = innodb;
         create user reader@'%' identified by 'x'; grant select on shop.* to reader@'%'",
    );
    let world = World::new("");
    world.write("password", PASSWORD);
    let check = |keys: &str| {
        world.inventory(&entry("mariadb", "shop", server.port(), keys));
        world.run(&["check"])
    };
    let good = check("options = [\"--skip-comments\"]");
    assert_eq!(good.code, Some(0));
    assert!(!good.stdout.contains("lacks") && !good.stdout.contains("transactions"));
    let unknown = check("options = [\"--foo\"]");
    assert!(unknown.code != Some(0) && unknown.stdout.contains("foo"));
    server.sql("create table shop.old (id int) engine = myisam");
    assert!(check("").stdout.contains("such as old"));
    // A store that is away for longer than the server waits for its reader.
    assert!(good.stdout.contains("net_write_timeout is 60 s"));
    server.sql("set global net_write_timeout = 900");
    assert!(!check("").stdout.contains("net_write_timeout"));
    // Views that no dump gets past.
    server.sql(
        "create view shop.good as select id from shop.t; create table shop.g (a int);
         create view shop.broken as select a from shop.g; drop table shop.g",
    );
    let broken = check("");
    assert!(
        broken.code != Some(0)
            && broken
                .stdout
                .contains("1 views, such as broken, read what is gone")
    );
    assert_eq!(world.run(&["backup"]).code, Some(1));
    let left_out = "options = [\"--ignore-table=shop.broken\"]";
    assert_eq!(check(left_out).code, Some(0));
    assert_eq!(world.run(&["backup"]).code, Some(0));
    world.write("password", "x");
    world.write("tapline.toml", {
        let text = std::fs::read_to_string(world.path("tapline.toml")).unwrap();
        text.replace("\"admin\"", "\"reader\"")
    });
    let reader = world.run(&["check"]).stdout;
    assert!(reader.contains("lacks SHOW VIEW, TRIGGER, EVENT"));
}

#[test]
fn a_row_that_is_larger_than_the_tools_own_packet_is_dumped() {
    let server = Mariadb::start();
    server.sql("set global max_allowed_packet = 1 << 30");
    server.sql(
        "create database shop; create table shop.t (x longblob); insert into shop.t values (repeat('x', 30 << 20))",
    );
    let world = World::new(&entry("mariadb", "shop", server.port(), ""));
    world.write("password", PASSWORD);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert!(untar(&world.download("shop")).len() > 60 << 20);
}

#[test]
fn postgres_is_trusted_by_its_certificate_everywhere() {
    let server = Postgres::start();
    let make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x \
                -addext subjectAltName=IP:127.0.0.1 -keyout server.key -out server.crt 2>/dev/null";
    server.sql("postgres", &format!("copy (select 1) to program '{make}'"));
    let certificate = server.sql("postgres", "select pg_read_file('server.crt')");
    server.sql("postgres", "create database shop");
    server.sql("shop", "create table t as select 1 as x");
    let world = World::new("");
    world.write("password", PASSWORD);
    world.write("ca.pem", certificate);
    let trusting = "sslmode = \"verify-full\"\nsslrootcert = \"ca.pem\"";
    let inventory = |keys: &str| {
        world.inventory(&entry("postgres", "shop", server.port(), keys));
        world.run(&["backup"])
    };
    let plain = inventory(trusting);
    assert!(
        plain.code == Some(1) && plain.stdout.contains("SSL"),
        "the server has none yet"
    );
    server.sql("postgres", "alter system set ssl = on");
    server.sql("postgres", "select pg_reload_conf()");
    super::world::wait_until(|| inventory(trusting).code == Some(0));
    assert_eq!(world.run(&["check"]).code, Some(0));
    assert_eq!(
        world.run(&["restore", "shop", "--to", "copy"]).code,
        Some(0)
    );
    let url = |ca: &str| {
        let (port, ca) = (server.port(), world.path(ca));
        let ca = ca.display();
        format!("postgres://admin@127.0.0.1:{port}/{{}}?sslmode=verify-full&sslrootcert={ca}")
    };
    let to = |ca: &str, name: &str| {
        let url = url(ca).replace("{}", name);
        world.run(&[
            "restore",
            "shop",
            "--to",
            &url,
            "--password-file",
            "password",
        ])
    };
    assert_eq!(to("ca.pem", "third").code, Some(0));
    // Somebody else's certificate.
    world.write("other.pem", {
        tool(Command::new("openssl").args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=y",
            "-keyout",
            "/dev/null",
        ]))
    });
    assert!(to("other.pem", "fourth").code != Some(0));
    assert!(inventory("sslmode = \"verify-full\"\nsslrootcert = \"other.pem\"").code == Some(1));
    assert!(world.run(&["check"]).code != Some(0));
    assert_eq!(inventory("sslmode = \"always\"").code, Some(3));
}

#[test]
fn mariadb_without_tls_is_refused_when_tls_is_required() {
    let server = Mariadb::start();
    server.sql("create database shop");
    let world = World::new(&entry(
        "mariadb",
        "shop",
        server.port(),
        "ssl_mode = \"disabled\"",
    ));
    world.write("password", PASSWORD);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    world.inventory(&entry(
        "mariadb",
        "shop",
        server.port(),
        "ssl_mode = \"required\"",
    ));
    for args in [
        &["check"][..],
        &["backup"],
        &["restore", "shop", "--to", "copy"],
    ] {
        let run = world.run(args);
        assert!(
            run.code != Some(0) && (run.stdout + &run.stderr).contains("SSL"),
            "{args:?}"
        );
    }
}

#[test]
fn a_server_says_who_it_is() {
    let (postgres, mariadb) = (Postgres::start(), Mariadb::start());
    let world = World::new(&format!(
        "{}{}[databases.file]\nengine = \"sqlite\"\npath = \"x.db\"\n",
        entry("postgres", "p", postgres.port(), "database = \"postgres\""),
        entry("mariadb", "m", mariadb.port(), "database = \"mysql\"")
    ));
    world.write("password", PASSWORD);
    let inventory = tapline::config::Inventory::load(&world.path("tapline.toml")).unwrap();
    let identity = |name: &str| {
        let database = inventory
            .databases
            .iter()
            .find(|one| one.name == name)
            .unwrap();
        world.block_on(async {
            let access = tapline::access::access(database, &inventory.run, "tapline".into());
            tapline::engine::open(database, access.await.unwrap())
                .identity()
                .await
        })
    };
    let said = postgres.sql(
        "postgres",
        "select system_identifier from pg_control_system()",
    );
    assert_eq!(identity("p").server.as_deref(), Some(said.trim()));
    let (one, again, file) = (identity("m"), identity("m"), identity("file"));
    assert!(one.server.is_some() && one.is_same_source(&again));
    let path = std::fs::canonicalize(world.folder.path())
        .unwrap()
        .join("x.db");
    assert_eq!(file.database, Some(path.display().to_string()));
    let text = serde_json::to_string(&[one, identity("p"), file]).unwrap();
    assert!(!text.contains(PASSWORD) && !text.contains("s3:cr"));
}
