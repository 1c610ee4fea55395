//! What is wrong in an inventory is named with file, line, key, and the fix.

use std::num::NonZeroU32;

use super::*;
use crate::catalog::Retention;

const STORE: &str = "[stores.s]\nurl = \"s3://bucket/p\"\n";

fn error(text: &str) -> String {
    Inventory::parse(Path::new("t.toml"), text)
        .expect_err(text)
        .to_string()
}

#[test]
fn a_lock_that_outlasts_the_rules_is_said() {
    let warnings = |days: u32, rules: &str| {
        let lock = format!("object_lock = {{ mode = \"governance\", days = {days} }}\n");
        let entry = "[databases.x]\nengine = \"sqlite\"\npath = \"x\"\n";
        let text = format!("{STORE}{lock}{entry}{rules}");
        Inventory::parse(Path::new("t.toml"), &text)
            .unwrap()
            .warnings
    };
    for (days, rules, is_said) in [
        (14, "keep_daily = 14\n", false),
        (15, "keep_daily = 14\n", true),
        (15, "keep_daily = 14\nkeep_weekly = 4\n", false),
        (31, "keep_within = \"1mo\"\n", false),
        (32, "keep_within = \"1mo\"\n", true),
        (2, "keep_hourly = 24\n", true),
        // Everything stays, or nobody knows how long.
        (900, "", false),
        (900, "keep_last = 1\n", false),
    ] {
        let said = warnings(days, rules);
        assert_eq!(
            said.iter().any(|said| said.contains("object_lock")),
            is_said,
            "{days} {rules}"
        );
    }
}

#[test]
fn the_template_is_a_valid_inventory() {
    let inventory = Inventory::parse(Path::new("tapline.toml"), crate::config::TEMPLATE).unwrap();
    assert!(!inventory.databases.is_empty());
}

#[test]
fn defaults_are_overridden_and_what_does_not_fit_an_engine_is_left_out_of_them() {
    let text = format!(
        "{STORE}[defaults]\nengine = \"postgres\"\nhost = \"h\"\npassword = {{ env = \"P\" }}\nlevel = 9\n\
         [databases.b]\nlevel = 1\n[databases.a]\nengine = \"sqlite\"\npath = \"x.db\"\n[databases.c]\ndatabase = \"*\"\n"
    );
    let inventory = Inventory::parse(Path::new("/etc/t.toml"), &text).unwrap();
    let [b, a, c] = inventory.databases.as_slice() else {
        panic!("three, in the file's order")
    };
    assert_eq!(
        (b.name.as_str(), b.level, b.host.as_deref()),
        ("b", 1, Some("h"))
    );
    assert_eq!(
        (a.level, a.host.as_deref(), a.password.clone()),
        (9, None, None)
    );
    assert_eq!(a.path.as_deref(), Some(Path::new("/etc/x.db")));
    assert_eq!(
        c.database,
        Selection::All {
            exclude: Vec::new()
        }
    );
    assert_eq!(inventory.select(&["c/shop".into()]).unwrap().len(), 1);
    assert!(
        inventory
            .select(&["nope".into()])
            .unwrap_err()
            .to_string()
            .contains("b, a, c")
    );
}

#[test]
fn each_retention_rule_has_its_own_default() {
    let text = format!(
        "{STORE}[defaults]\nengine = \"sqlite\"\npath = \"x\"\nkeep_last = 3\nkeep_within = \"1y 6mo\"\n\
         [databases.a]\nkeep_daily = 7\n[databases.b]\nkeep_last = 9\n"
    );
    let inventory = Inventory::parse(Path::new("t.toml"), &text).unwrap();
    let [a, b] = inventory.databases.as_slice() else {
        panic!("two")
    };
    let within = "1y 6mo".parse().ok();
    let defaults = Retention {
        last: NonZeroU32::new(3),
        within,
        ..Retention::default()
    };
    assert_eq!(
        a.retention,
        Retention {
            daily: NonZeroU32::new(7),
            ..defaults
        }
    );
    assert_eq!(
        b.retention,
        Retention {
            last: NonZeroU32::new(9),
            ..defaults
        }
    );
}

#[test]
fn what_is_wrong_is_named_with_file_line_key_and_fix() {
    let sqlite = "[databases.x]\nengine = \"sqlite\"\npath = \"x\"\n";
    let cases = [
        (
            format!("{STORE}{sqlite}passwrod = \"secret\"\n"),
            "t.toml:6: databases.x.passwrod",
            "`password`",
        ),
        (
            format!("{STORE}{sqlite}host = \"h\"\n"),
            "t.toml:6: databases.x.host",
            "remove it",
        ),
        (
            format!("{STORE}{sqlite}level = 40\n"),
            "t.toml:6: databases.x.level",
            "1 to 9",
        ),
        (
            format!("{STORE}{sqlite}expected_size = \"much\"\n"),
            "t.toml:6: databases.x.expected_size",
            "512MiB",
        ),
        (
            format!("{STORE}{sqlite}{sqlite}"),
            "t.toml:6:",
            "stands twice",
        ),
        (
            format!("{STORE}{sqlite}store = \"t\"\n"),
            "t.toml:6: databases.x.store",
            "there are: s",
        ),
        (
            format!("{STORE}{sqlite}compression = \"xz\"\n"),
            "t.toml:6: databases.x.compression",
            "zstd",
        ),
        (
            format!("{STORE}{sqlite}keep_daily = 0\n"),
            "t.toml:6: databases.x.keep_daily",
            "leave it out",
        ),
        (
            format!("{STORE}{sqlite}keep_within = \"6m\"\n"),
            "t.toml:6: databases.x.keep_within",
            "months are mo",
        ),
        (
            format!("{STORE}{sqlite}file_name = \"a/b\"\n"),
            "t.toml:6: databases.x.file_name",
            "slash",
        ),
        (
            format!("{STORE}[databases.x]\nengine = \"oracle\"\n"),
            "t.toml:4: databases.x.engine",
            "postgres",
        ),
        (
            format!("{STORE}[databases.x]\n"),
            "t.toml:3: databases.x",
            "engine is missing",
        ),
        (
            format!("{STORE}[databases.x]\nengine = \"command\"\n"),
            "t.toml:3: databases.x",
            "command is missing",
        ),
        (
            format!("{STORE}[databases.x]\nengine = \"mysql\"\npassword = \"secret\"\n"),
            "t.toml:5: databases.x.password",
            "{ env = \"NAME\" }",
        ),
        (
            format!("{STORE}[run]\njobs = 0\n{sqlite}"),
            "t.toml:4: run.jobs",
            "1 or more",
        ),
        (
            format!("{STORE}[run]\nretry_for = \"soon\"\n{sqlite}"),
            "t.toml:4: run.retry_for",
            "15m",
        ),
        (
            format!("[stores.s]\nurl = \"s3://bucket\"\nendpoint = \"s3.example.com\"\n{sqlite}"),
            "t.toml:3: stores.s.endpoint",
            "https://",
        ),
        (
            format!(
                "{STORE}[databases.a]\nengine = \"mysql\"\ndatabase = \"*\"\n[databases.\"a/x\"]\nengine = \"mysql\"\n"
            ),
            "t.toml:6: databases.a/x",
            "rename",
        ),
        (
            format!("[stores.s]\nurl = \"ftp://x\"\n{sqlite}"),
            "t.toml:2: stores.s.url",
            "s3://BUCKET/PREFIX, or file:///FOLDER",
        ),
        (sqlite.to_owned(), "t.toml:1: databases.x", "[stores.NAME]"),
        (
            format!("{STORE}[run]\njobs_per_host = 9000000000000000000\n{sqlite}"),
            "t.toml:4: run.jobs_per_host",
            "at most 65535",
        ),
        (
            format!("{STORE}[staged]\nqueue = 9000000000000000000\n{sqlite}"),
            "t.toml:4: staged.queue",
            "at most 65535",
        ),
        (
            format!("{STORE}[run]\nmemory = \"16EiB\"\n{sqlite}"),
            "t.toml:4: run.memory",
            "more than there is",
        ),
        (
            format!("{STORE}[run]\nmemory = [1]\n{sqlite}"),
            "t.toml:4: run.memory",
            "must be a size",
        ),
        (
            format!("{STORE}[run]\nmax_upload_rate = \"fast\"\n{sqlite}"),
            "t.toml:4: run.max_upload_rate",
            "20 MB/s",
        ),
        (
            format!("{STORE}max_upload_rate = \"9 kB/s\"\n{sqlite}"),
            "t.toml:3: stores.s.max_upload_rate",
            "below 10 kB/s",
        ),
        (
            format!("{STORE}provider = \"azure\"\n{sqlite}"),
            "t.toml:3: stores.s.provider",
            "must be one of aws, b2, ceph",
        ),
        (
            format!("{STORE}object_lock = {{ mode = \"forever\", days = 1 }}\n{sqlite}"),
            "t.toml:3: stores.s.object_lock.mode",
            "governance",
        ),
        (
            format!("{STORE}object_lock = {{ mode = \"compliance\", days = 0 }}\n{sqlite}"),
            "t.toml:3: stores.s.object_lock.days",
            "36500",
        ),
        (
            format!("{STORE}[run]\nretry_for = \"9999999999h\"\n{sqlite}"),
            "t.toml:4: run.retry_for",
            "ten years",
        ),
        (
            format!("{STORE}[run]\nprune_after_backup = true\n{sqlite}"),
            "t.toml: run",
            "keep_daily",
        ),
        (
            format!("{STORE}[run]\njobs = \"4\"\n{sqlite}"),
            "t.toml:4: run.jobs",
            "whole number",
        ),
        (
            format!("{STORE}[runs]\njobs = 4\n{sqlite}"),
            "t.toml:3: runs",
            "did you mean `run`?",
        ),
        (
            format!("{STORE}{sqlite}file_name = \"..\"\n"),
            "t.toml:6: databases.x.file_name",
            "neither",
        ),
        (
            format!("{STORE}[databases.x]\nengine = \"mysql\"\nport = 0\n"),
            "t.toml:5: databases.x.port",
            "1 to 65535",
        ),
        (
            format!("{STORE}[databases.x]\nengine = \"mysql\"\nport = 70000\n"),
            "t.toml:5: databases.x.port",
            "1 to 65535",
        ),
        (
            format!(
                "{STORE}[databases.x]\nengine = \"mysql\"\ndatabase = \"y\"\nexclude = [\"z\"]\n"
            ),
            "t.toml:6: databases.x.exclude",
            "goes with database = \"*\"",
        ),
        (
            format!(
                "{STORE}[databases.x]\nengine = \"mysql\"\ndatabase = \"*\"\nexclude = [\"*z\"]\n"
            ),
            "t.toml:6: databases.x.exclude",
            "at the end",
        ),
        (
            format!(
                "{STORE}[databases.\"{}\"]\nengine = \"mysql\"\n",
                "ü".repeat(100)
            ),
            "t.toml:3: databases.ü",
            "shorter name",
        ),
        (
            format!("{STORE}[stores.t]\nurl = \"s3://bucket/p/\"\n{sqlite}store = \"s\"\n"),
            "t.toml:3: stores.t",
            "same place as stores.s",
        ),
    ];
    for (text, place, fix) in cases {
        let error = error(&text);
        assert!(
            error.starts_with(place) && error.contains(fix),
            "{text}\n→ {error}"
        );
        assert!(
            !error.contains("secret\"") && !error.contains("= \"secret"),
            "{error}"
        );
    }
}

#[test]
fn a_name_whose_keys_would_be_longer_than_a_store_takes_is_refused() {
    let inventory = |prefix: &str, letter: &str, count: usize| {
        let name = letter.repeat(count);
        let text = format!(
            "[stores.s]\nurl = \"s3://bucket{prefix}\"\n[databases.\"{name}\"]\n\
             engine = \"command\"\ncommand = [\"true\"]\n"
        );
        Inventory::parse(Path::new("t.toml"), &text).map(|_| ())
    };
    assert!(inventory("", "x", 200).is_ok());
    // Two bytes, which are six in a key, and that twice.
    assert!(inventory("", "ß", 75).is_ok());
    for (prefix, letter, count) in [
        (String::new(), "ß", 90),
        (format!("/{}", "p".repeat(200)), "ß", 75),
    ] {
        let error = inventory(&prefix, letter, count).unwrap_err().to_string();
        assert!(error.contains("1024"), "{error}");
    }
}

#[test]
fn a_store_is_a_bucket_and_a_prefix_that_there_can_be() {
    let store = |url: &str, more: &str| {
        let text = format!("[stores.s]\nurl = \"{url}\"\n{more}");
        Inventory::parse(Path::new("t.toml"), &text).map(|_| ())
    };
    let elsewhere = "endpoint = \"http://h:9\"\n";
    for (url, more) in [
        ("s3://my.bucket-1", ""),
        ("s3://bucket/a/b/", ""),
        ("s3://My_Bucket", elsewhere),
    ] {
        assert!(store(url, more).is_ok(), "{url}");
    }
    for url in [
        "s3://my bucket",
        "s3://My_Bucket",
        "s3://key:sesame@bucket",
        "s3://bu",
        "s3://-bucket",
        "s3://bucket/../x",
        "s3://bucket/a//b",
        "s3://bucket/x?y",
        "s3://bucket/x#y",
        "s3:///x",
    ] {
        let error = store(url, "").expect_err(url).to_string();
        assert!(error.starts_with("t.toml:2: stores.s.url: "), "{error}");
        assert!(!error.contains("sesame"), "{error}");
    }
    for endpoint in [
        "https://me:sesame@h",
        "ftp://h",
        "https://h?x",
        "https://",
        "http://h:0",
    ] {
        let error = store("s3://bucket", &format!("endpoint = \"{endpoint}\"\n"))
            .expect_err(endpoint)
            .to_string();
        assert!(
            error.starts_with("t.toml:3: stores.s.endpoint: "),
            "{error}"
        );
        assert!(!error.contains("sesame"), "{error}");
    }
    // An endpoint of the bucket's own has the bucket twice: what is put there is in no listing.
    for endpoint in [
        "http://h:9/bucket",
        "https://bucket.s3.eu-west-1.amazonaws.com",
        "https://id.r2.cloudflarestorage.com/bucket/",
    ] {
        let error = store("s3://bucket/x", &format!("endpoint = \"{endpoint}\"\n"));
        let error = error.expect_err(endpoint).to_string();
        assert!(error.contains("has the bucket in it"), "{error}");
    }
    for endpoint in [
        "https://bucket.example.com",
        "https://h/bucket/v1",
        "https://h/s3",
    ] {
        let read = store("s3://bucket", &format!("endpoint = \"{endpoint}\"\n"));
        assert!(read.is_ok(), "{endpoint}: {read:?}");
    }
    let error = store("s3://bucket", "region = \"\"\n").unwrap_err();
    assert!(
        error.to_string().contains("is empty; leave it out"),
        "{error}"
    );
}

#[test]
fn an_inventory_without_databases_reads_but_has_none_to_select() {
    let inventory = Inventory::parse(Path::new("t.toml"), STORE).unwrap();
    for names in [Vec::new(), vec!["x".to_owned()]] {
        let error = inventory.select(&names).unwrap_err().to_string();
        assert!(
            error.starts_with("t.toml") && error.contains("[databases.NAME]"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn secrets_come_from_files_and_commands_without_their_line_break() {
    use secrecy::ExposeSecret;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p"), "sesame\n").unwrap();
    let path = folder.path().join("t.toml");
    let resolve = async |secret: &str| {
        let text = format!("{STORE}[databases.x]\nengine = \"mysql\"\npassword = {secret}\n");
        let inventory = Inventory::parse(&path, &text).unwrap();
        let secret = inventory.databases[0].password.clone().unwrap();
        secret
            .resolve(Duration::from_secs(5))
            .await
            .map(|secret| secret.expose_secret().to_owned())
    };
    assert_eq!(resolve("{ file = \"p\" }").await.unwrap(), "sesame");
    assert_eq!(
        resolve("{ command = [\"echo\", \"open\"] }").await.unwrap(),
        "open"
    );
    for (missing, why) in [
        (
            "{ env = \"TAPLINE_NO_SUCH\" }",
            "TAPLINE_NO_SUCH is not set",
        ),
        ("{ file = \"q\" }", "cannot read"),
        ("{ command = [\"false\"] }", "exit status: 1"),
        ("{ command = [\"true\"] }", "empty"),
    ] {
        let error = resolve(missing).await.unwrap_err().to_string();
        assert!(
            error.contains(":5: databases.x.password") && error.contains(why),
            "{error}"
        );
    }
}

#[test]
fn places_of_many_databases_cost_no_more_each_than_those_of_few() {
    use std::fmt::Write;
    let took = |databases: usize| {
        let mut text = STORE.to_owned();
        for number in 0..databases {
            let _ = write!(
                text,
                "[databases.x{number}]\nengine = \"command\"\ncommand = [\"seq\", \"9\"]\n"
            );
        }
        let once = || {
            let start = std::time::Instant::now();
            Inventory::parse(Path::new("t.toml"), &text).unwrap();
            start.elapsed()
        };
        (0..3).map(|_| once()).min().unwrap()
    };
    let (few, many) = (took(500), took(10_000));
    // Twenty times as many; four hundred times as long where each is looked for from the top.
    assert!(many < 100 * few, "{few:?} for 500, {many:?} for 10,000");
}
