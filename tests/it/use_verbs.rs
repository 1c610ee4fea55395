//! What the commands say and which exit code they give, to people and to programs.

use serde_json::Value;
use tapline::s3_server::{Fault, Op};

use super::prune::{id, put_backup};
use super::world::{Run, World};

const SHOP: &str = "[databases.shop]\nengine = \"command\"\ncommand = [\"seq\", \"1000\"]\n";
/// A server's databases, and one that stands for itself.
const FAN_OUT: &str = "[defaults]\nkeep_last = 1\n\
    [databases.all]\nengine = \"postgres\"\nhost = \"127.0.0.1\"\ndatabase = \"*\"\n\
    [databases.shop]\nengine = \"command\"\ncommand = [\"seq\", \"1000\"]\n";

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap()
}

#[test]
fn verify_is_not_ok_while_a_database_of_the_inventory_has_no_backup() {
    let world = World::new(&format!(
        "{SHOP}[databases.new]\nengine = \"command\"\ncommand = [\"true\"]\n\
         [databases.all]\nengine = \"mariadb\"\ndatabase = \"*\"\n"
    ));
    assert_eq!(world.run(&["backup", "shop"]).code, Some(0));
    for flags in [
        &["verify"][..],
        &["verify", "--quick"],
        &["verify", "--drill", "-q"],
    ] {
        let run = world.run(flags);
        assert_eq!(run.code, Some(5), "{flags:?}");
        for missing in ["FAIL  new  has no backup", "FAIL  all  has no backup"] {
            assert!(run.stdout.contains(missing), "{flags:?}: {missing}");
        }
    }
    assert_eq!(world.run(&["verify", "shop"]).code, Some(0));
    let run = world.run(&["verify", "--json"]);
    assert_eq!(run.code, Some(5));
    let report = json(&run);
    assert_eq!(report["backups"][0]["result"], "ok");
    assert_eq!(report["backups"][0]["proof"]["how"], "read");
    assert_eq!(report["missing"][1]["database"], "all");
}

#[test]
fn a_store_that_refuses_is_no_damaged_backup() {
    let world = World::new(SHOP);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    // The manifest is read; the archive is not.
    for op in [Op::Get, Op::Head] {
        let faults = world.server.faults();
        faults.on(op).key("tar.gz").meets(Fault::Denied);
    }
    let run = world.run(&["verify", "--json"]);
    assert_eq!(run.code, Some(4));
    assert_eq!(json(&run)["backups"][0]["kind"], "store");
}

#[test]
fn the_name_of_a_whole_server_stands_for_its_databases_everywhere() {
    let world = World::new(FAN_OUT);
    for (database, day) in [
        ("all/a", "1"),
        ("all/a", "2"),
        ("all/b", "1"),
        ("allx", "1"),
    ] {
        put_backup(&world, database, &id(&format!("2026010{day}T000000Z")));
    }
    let run = world.run(&["list", "all"]);
    assert_eq!(run.code, Some(0));
    assert_eq!(run.stdout.matches("all/a").count(), 2);
    assert!(run.stdout.contains("all/b") && !run.stdout.contains("allx"));
    let report = json(&world.run(&["verify", "all", "--quick", "--json"]));
    let verified: Vec<&str> = report["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|backup| backup["database"].as_str().unwrap())
        .collect();
    assert_eq!(verified, ["all/a", "all/b"]);
    let report = json(&world.run(&["prune", "all", "--json"]));
    let verdicts: Vec<&str> = report["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|backup| backup["verdict"].as_str().unwrap())
        .collect();
    assert_eq!(verdicts, ["remove", "keep", "keep"]);
}

#[test]
fn a_name_that_leads_nowhere_is_6_whatever_is_asked_of_it() {
    let world = World::new(SHOP);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    for args in [
        &["list", "nowhere"][..],
        &["show", "nowhere"],
        &["verify", "nowhere"],
        &["restore", "nowhere", "--stdout"],
        &["prune", "nowhere", "--keep-last", "1"],
    ] {
        assert_eq!(world.run(args).code, Some(6), "{args:?}");
    }
    for args in [&["list", "--store", "x"][..], &["verify", "--store", "x"]] {
        assert_eq!(world.run(args).code, Some(3), "{args:?}");
    }
    let run = world.run(&["-c", "/dev/null", "list"]);
    assert!(run.code == Some(3) && run.stderr.contains("[stores.NAME]"));
    let run = world.run(&["show", "shop@foo"]);
    assert!(run.code == Some(6) && !run.stderr.contains("LATEST"));
    assert!(run.stderr.contains("no backup shop@foo in") && run.stderr.contains("of shop there"));
}

#[test]
fn what_looks_like_a_file_is_not_taken_for_a_database() {
    let world = World::new(SHOP);
    let run = world.run(&["backup", "--timeline", "f.svg"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("--timeline=f.svg"));
}

#[test]
fn a_bucket_alone_is_enough_to_get_a_backup_back() {
    let world = World::new(SHOP);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let endpoint = world.server.endpoint();
    std::fs::remove_file(world.path("tapline.toml")).unwrap();
    let run = |args: &[&str]| {
        let output = world
            .tapline(args)
            .args(["--endpoint", &endpoint, "--region", "us-east-1"])
            .env("AWS_ACCESS_KEY_ID", tapline::s3_server::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", tapline::s3_server::SECRET_KEY)
            .env("HOME", world.folder.path())
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stdout}{stderr}");
        stdout
    };
    let from = ["--from", "s3://bucket/backups"];
    assert!(run(&["list", "s3://bucket/backups"]).contains("shop"));
    assert!(run(&["show", "shop", from[0], from[1]]).contains("aws s3 cp --endpoint-url"));
    assert!(run(&["verify", from[0], from[1]]).contains("ok    shop@"));
    let dump = run(&["restore", "shop", "-o", "-", from[0], from[1]]);
    assert!(dump.starts_with("1\n2\n") && dump.ends_with("1000\n"));
    let wrong = world.run(&["list", "s3://no bucket"]);
    assert!(wrong.code == Some(3) && wrong.stderr.contains("its bucket is none"));
}

#[test]
fn an_empty_variable_says_nothing_and_a_wrong_one_is_named() {
    let world = World::new(SHOP);
    let mut backup = world.tapline(&["backup"]);
    for name in [
        "JOBS",
        "JOBS_PER_HOST",
        "MEMORY",
        "RETRY_FOR",
        "MODE",
        "CONFIG",
        "LOG_FORMAT",
    ] {
        backup.env(format!("TAPLINE_{name}"), "");
    }
    assert_eq!(backup.status().unwrap().code(), Some(0));
    let wrong = world
        .tapline(&["backup"])
        .env("TAPLINE_JOBS", "many")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let words = String::from_utf8_lossy(&wrong.stderr);
    assert!(words.contains("TAPLINE_JOBS"), "{words}");
    assert!(
        words.contains("write a whole number from 1 to 65535"),
        "{words}"
    );
    assert!(!words.contains("found in string"), "{words}");
}

#[test]
fn init_writes_where_it_is_told() {
    let world = World::new("");
    let run = world.run(&["init", "-c", "mine.toml"]);
    assert_eq!(run.code, Some(0));
    assert!(run.stdout.contains("tapline -c mine.toml check"));
    let run = world.run(&["init", "-"]);
    assert_eq!(run.code, Some(0));
    assert_eq!(
        std::fs::read_to_string(world.path("mine.toml")).unwrap(),
        run.stdout
    );
    assert!(!world.path("-").exists());
}

#[test]
fn a_dash_is_stdout() {
    let world = World::new(SHOP);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    let run = world.run(&["restore", "shop", "-o", "-"]);
    assert_eq!(run.code, Some(0));
    assert!(run.stdout.starts_with("1\n2\n") && run.stdout.ends_with("1000\n"));
    assert!(!world.path("-").exists());
}

#[test]
fn check_tries_what_a_backup_will_ask_of_the_store() {
    let world = World::new(SHOP);
    let run = world.run(&["check", "--json"]);
    assert_eq!(run.code, Some(0));
    let steps = [
        "put", "begin", "part", "complete", "head", "read", "list", "uploads", "abort", "delete",
    ];
    for what in steps {
        let report = json(&run);
        let findings = report["findings"].as_array().unwrap();
        assert!(
            findings
                .iter()
                .any(|finding| finding["what"] == what && finding["result"] == "ok"),
            "{what}"
        );
    }
    world.assert_store_is_clean();
    let faults = world.server.faults();
    faults.on(Op::Complete).meets(Fault::Denied);
    let run = world.run(&["check"]);
    assert_eq!(run.code, Some(5));
    let words = "FAIL  store s3 complete: no backup without it, which takes s3:PutObject";
    assert!(run.stdout.contains(words), "{}", run.stdout);
    world.assert_store_is_clean();
    // It gives the whole object whatever is asked for: there would be no restore.
    faults.clear();
    faults.on(Op::Get).meets(Fault::RangeIgnored);
    let run = world.run(&["check"]);
    assert!(run.code == Some(5) && run.stdout.contains("FAIL  store s3 read: "));
    // A key that may only write makes backups.
    faults.clear();
    faults.on(Op::Get).meets(Fault::Denied);
    faults.on(Op::Head).meets(Fault::Denied);
    faults.on(Op::List).meets(Fault::Denied);
    let run = world.run(&["check"]);
    assert_eq!(run.code, Some(0));
    for words in [
        "warn  store s3 head: these credentials may not, which takes s3:GetObject",
        "warn  store s3 read: these credentials may not, which takes s3:GetObject",
        "warn  store s3 list: these credentials may not, which takes s3:ListBucket",
        "there is no restore, verify or prune from here",
    ] {
        assert!(run.stdout.contains(words), "{}", run.stdout);
    }
}

#[test]
fn cleanup_speaks_json() {
    let world = World::new(SHOP);
    world
        .server
        .store()
        .overwrite("backups/stranger", "x".into());
    let run = world.run(&["cleanup", "--json"]);
    assert_eq!(run.code, Some(0));
    let report = json(&run);
    assert_eq!(report["confirmed"], false);
    assert_eq!(report["stores"][0]["foreign"], 1);
}

#[test]
fn check_is_not_green_where_every_backup_fails() {
    for section in [
        "[run]\nmemory = \"1KB\"\n",
        "[staged]\ncontainer = \"zip\"\n[run]\nmode = \"staged\"\n",
    ] {
        let world = World::new(&format!("{section}{SHOP}compression = \"zstd\"\n"));
        let run = world.run(&["check"]);
        assert_eq!(run.code, Some(5), "{section}");
        assert!(
            run.stdout.contains("FAIL  database shop plan: "),
            "{section}"
        );
    }
}

#[test]
fn a_run_ends_with_the_code_of_what_failed() {
    let both = format!("{SHOP}[databases.bad]\nengine = \"command\"\ncommand = [\"false\"]\n");
    let world = World::new(&both);
    world.server.faults().on(Op::Create).meets(Fault::Denied);
    let run = |names: &[&str]| {
        let args = [&["backup", "--retry-for", "1s"], names].concat();
        world.run(&args).code
    };
    assert_eq!(run(&["shop"]), Some(4));
    world.server.faults().clear();
    assert_eq!(run(&["bad"]), Some(1));
    assert_eq!(run(&[]), Some(1));
    let run = world.run(&["backup", "--memory", "1KB"]);
    assert_eq!(run.code, Some(3));
}

#[test]
fn a_table_fits_into_80_columns_and_its_result_is_in_sight() {
    let name = format!("{}_orders", "a_name_without_end_".repeat(5));
    let world = World::new(&format!(
        "{SHOP}[databases.{name}]\nengine = \"command\"\ncommand = [\"seq\", \"99\"]\n"
    ));
    for args in [
        &["backup", "--no-progress"][..],
        &["list"],
        &["prune", "--keep-last=1"],
    ] {
        let output = world.tapline(args).env("COLUMNS", "80").output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{stdout}");
        let too_long = stdout.lines().find(|line| line.chars().count() > 80);
        assert_eq!(too_long, None, "{stdout}");
        assert!(
            stdout.contains("a_name") && stdout.contains("orders"),
            "{stdout}"
        );
    }
    // Into a file or a pipe a name goes whole.
    assert!(world.run(&["list"]).stdout.contains(&name));
}

#[test]
fn every_verb_that_has_a_result_tells_it_to_programs() {
    let disk = "[stores.disk]\nurl = \"file:///FOLDER/disk\"\n";
    let world = World::new("");
    std::fs::create_dir(world.path("disk")).unwrap();
    let folder = world.folder.path().display().to_string();
    let disk = disk.replace("/FOLDER", &folder);
    world.inventory(&format!(
        "{disk}[defaults]\nstore = \"s3\"\nkeep_last = 1\n{SHOP}"
    ));
    let verbs: [(&[&str], &str); 13] = [
        (&["backup", "--report", "-", "-q"], "/jobs/0/backup_id"),
        (&["list", "--json"], "/backups/0/backup_id"),
        (&["show", "shop", "--json"], "/archive/size"),
        (&["status", "--json"], "/databases/0/health"),
        (&["verify", "--json"], "/backups/0/result"),
        (
            &["restore", "shop", "-o", "a", "--json", "--dry-run"],
            "/replaces",
        ),
        (&["restore", "shop", "-o", "a", "--json"], "/bytes"),
        (
            &["copy", "shop", "--to", "disk", "--json"],
            "/copies/0/result",
        ),
        (
            &["copy", "shop", "--to", "disk", "--json"],
            "/copies/0/result",
        ),
        (&["copy", "--all", "--to", "disk", "--json"], "/copies"),
        (&["prune", "--json"], "/backups/0/verdict"),
        (&["cleanup", "--json"], "/stores/0/foreign"),
        (&["check", "--json"], "/findings/0/result"),
    ];
    for (args, place) in verbs {
        let run = world.run(args);
        assert_eq!(run.code, Some(0), "{args:?}");
        assert!(json(&run).pointer(place).is_some(), "{args:?}: {place}");
    }
    let both = world.run(&["restore", "shop", "-o", "-", "--json"]);
    assert_eq!((both.code, both.stdout.as_str()), (Some(2), ""));
    // What fails is in it, too.
    let keys = world.keys("shop");
    let volume = keys.iter().find(|key| key.ends_with(".tar.gz")).unwrap();
    let mut bytes = world.server.store().read(volume).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    world.server.store().overwrite(volume, bytes.into());
    std::fs::remove_dir_all(world.path("disk/shop")).unwrap();
    let run = world.run(&["copy", "shop", "--to", "disk", "--json", "--store", "s3"]);
    assert_eq!(run.code, Some(5));
    let report = json(&run);
    assert_eq!(report["copies"][0]["result"], "failed");
    assert_eq!(report["copies"][0]["failure"]["exit_code"], 5);
}

#[test]
fn a_report_says_of_each_job_when_where_and_by_what_it_was_done() {
    let bad = "[databases.bad]\nengine = \"command\"\ncommand = [\"false\"]\n";
    let world = World::new(&format!("{SHOP}{bad}"));
    let run = world.run(&["backup", "--report", "-"]);
    assert_eq!(run.code, Some(1));
    let report = json(&run);
    for place in [
        "/started",
        "/seconds",
        "/host",
        "/tapline",
        "/jobs/0/started",
        "/jobs/0/seconds",
        "/jobs/0/backup_id",
        "/jobs/0/store",
        "/jobs/0/dump_bytes",
        "/jobs/1/failure/kind",
    ] {
        assert!(
            report.pointer(place).is_some_and(|value| !value.is_null()),
            "{place}: {report:#}"
        );
    }
    assert_eq!(report["exit_code"], 1);
    // And the log's line of a backup that is stored names it and its place.
    let run = world.run(&["backup", "shop", "--log-format", "json"]);
    let lines = run.stderr.lines();
    let mut lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let stored = lines.find(|line| line["fields"]["message"] == "backup stored");
    let fields = &stored.unwrap()["fields"];
    let id = fields["backup_id"].as_str().unwrap();
    let keys = world.keys("shop");
    assert!(keys.iter().any(|key| key.contains(id)), "{id}: {keys:?}");
    assert_eq!(fields["store"], "s3://bucket/backups");
}
