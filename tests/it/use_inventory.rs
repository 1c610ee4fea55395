//! An inventory that makes no sense: what is said of it, and what never is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;
use tapline::config::Inventory;

use super::world::World;

const KEYS: [&str; 43] = [
    "provider",
    "max_upload_rate",
    "object_lock",
    "mode",
    "jobs",
    "jobs_per_host",
    "memory",
    "retry_for",
    "stall_timeout",
    "prune_after_backup",
    "dir",
    "queue",
    "container",
    "url",
    "endpoint",
    "region",
    "path_style",
    "sse",
    "checksum",
    "max_parts",
    "access_key",
    "secret_key",
    "engine",
    "host",
    "port",
    "socket",
    "user",
    "password",
    "database",
    "exclude",
    "globals",
    "format",
    "options",
    "path",
    "command",
    "env",
    "file_name",
    "compression",
    "level",
    "store",
    "expected_size",
    "keep_daily",
    "keep_within",
];
const TABLES: [&str; 7] = [
    "run",
    "staged",
    "stores.s",
    "defaults",
    "databases.a",
    "databases.b",
    "nonsense",
];

/// A value with a marker in it: good TOML and bad, of every kind, at one line and at several.
fn value(marker: &str, shape: usize) -> String {
    let shapes = [
        format!("\"{marker}\""),
        format!("'{marker}'"),
        marker.to_owned(),
        format!("\"{marker}"),
        format!("{marker}\""),
        format!("\"\"\"\n{marker}\n\"\"\" x"),
        format!("\"\"\"\n{marker}"),
        format!("'''{marker}''' = 1"),
        format!("[\"{marker}\", 1]"),
        format!("[\"{marker}\""),
        format!("{{ env = \"{marker}\" }}"),
        format!("{{ env = \"{marker}\", file = \"{marker}\" }}"),
        format!("{{ x = \"{marker}\" }}"),
        format!("{{ env = [\"{marker}\"] }}"),
        format!("{{ command = [\"{marker}\", 1] }}"),
        format!("\"TOKEN={marker}\""),
        format!("\"s3://{marker}:{marker}@bucket/{marker}?{marker}\""),
        format!("\"https://{marker}:{marker}@host\""),
        format!("12{marker}"),
        format!("2026-01-01{marker}"),
        format!("\"\\{marker}\""),
        format!("\"a\" \"{marker}\""),
        format!("\"expected {marker}\""),
        format!("true{marker}"),
    ];
    shapes[shape % shapes.len()].clone()
}

fn line() -> impl Strategy<Value = String> {
    let table = prop::sample::select(&TABLES[..]).prop_map(|name| format!("[{name}]"));
    let good = prop::sample::select(vec![
        "engine = \"postgres\"",
        "engine = \"sqlite\"",
        "path = \"x\"",
        "url = \"s3://bucket\"",
    ]);
    let marked = (
        prop::sample::select(&KEYS[..]),
        any::<bool>(),
        "[a-z]{0,3}",
        0..24usize,
    );
    let marked = marked.prop_map(|(key, misspelt, tail, shape)| {
        let key = if misspelt {
            format!("{key}{tail}")
        } else {
            key.to_owned()
        };
        format!("{key} = {}", value(&format!("sesame{tail}"), shape))
    });
    prop_oneof![2 => table, 1 => good.prop_map(str::to_owned), 4 => marked]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_error_has_a_value_of_the_file_in_it(lines in prop::collection::vec(line(), 1..9)) {
        if let Err(error) = Inventory::parse(Path::new("t.toml"), &lines.join("\n")) {
            let error = error.to_string();
            prop_assert!(!error.contains("sesame"), "{error}");
            // Nor has it a parser's words.
            for words in ["invalid type", " expected ", "untagged", "u16", "usize", "data did not"] {
                prop_assert!(!error.contains(words), "{error}");
            }
            prop_assert!(error.starts_with("t.toml:"), "{error}");
        }
    }
}

#[test]
fn every_key_with_every_value_is_refused_without_a_word_of_it() {
    for table in TABLES {
        for key in KEYS {
            for shape in 0..24 {
                let text = format!(
                    "[stores.t]\nurl = \"s3://bucket\"\n[{table}]\n{key} = {}\n",
                    value("sesame", shape)
                );
                if let Err(error) = Inventory::parse(Path::new("t.toml"), &text) {
                    assert!(!error.to_string().contains("sesame"), "{text}\n{error}");
                }
            }
        }
    }
}

#[test]
fn files_that_others_may_write_or_read_are_warned_about() {
    let world = World::new(
        "[databases.x]\nengine = \"command\"\ncommand = [\"seq\", \"9\"]\nenv = { T = { file = \"token\" } }\n",
    );
    world.write("token", "sesame");
    let mode = |name: &str, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(world.path(name), permissions).unwrap();
    };
    for name in ["tapline.toml", "secret", "token"] {
        mode(name, 0o600);
    }
    let run = world.run(&["check"]);
    assert!(run.code == Some(0) && !run.stdout.contains("chmod"));
    mode("tapline.toml", 0o666);
    mode("token", 0o644);
    let run = world.run(&["check"]);
    assert!(run.stdout.contains("warn  inventory access: "));
    assert!(run.stdout.contains("chmod o-w") && run.stdout.contains("chmod o-rw"));
    let run = world.run(&["backup"]);
    assert!(run.code == Some(0) && run.stderr.contains("can be written by everybody"));
}

#[test]
fn an_inventory_without_an_end_is_refused_while_it_is_small() {
    let world = World::new("");
    let run = world.run(&["list", "--config", "/dev/zero"]);
    assert!(
        run.code == Some(3) && run.stderr.contains("more than 64 MiB"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_word_that_is_not_utf_8_names_nothing_and_is_no_panic() {
    let world = World::new("");
    for before in [
        &["backup"][..],
        &["--log-format", "json", "backup", "--no-such"],
    ] {
        let mut command = world.tapline(before);
        let run = command
            .arg(OsStr::from_bytes(b"\xff\xfe"))
            .output()
            .unwrap();
        assert_eq!(run.status.code(), Some(2), "{run:?}");
    }
}

#[test]
fn huge_numbers_are_errors_and_never_panics() {
    let world = World::new("");
    for (table, key) in [
        ("run", "jobs"),
        ("run", "jobs_per_host"),
        ("run", "memory"),
        ("staged", "queue"),
        ("staged", "upload"),
        ("databases.x", "expected_size"),
        ("databases.x", "keep_last"),
    ] {
        for number in ["9000000000000000000", "99999999999999999999", "-1", "0"] {
            let set = |name: &str| {
                if name == table {
                    format!("{key} = {number}\n")
                } else {
                    String::new()
                }
            };
            world.inventory(&format!(
                "[run]\n{}[staged]\n{}[databases.x]\nengine = \"command\"\ncommand = [\"true\"]\n{}",
                set("run"), set("staged"), set("databases.x")
            ));
            let run = world.run(&["backup", "--dry-run"]);
            assert_eq!(run.code, Some(3), "{table}.{key} = {number}");
            assert!(run.stderr.contains(&format!("{table}.{key}")) || number.len() > 19);
        }
    }
    world.inventory("[run]\nmemory = \"2PiB\"\n");
    let run = world.run(&["backup", "--dry-run"]);
    assert!(run.code == Some(3) && run.stderr.contains("run.memory"));
    for flag in ["--memory=16EiB", "--retry-for=99999999999h", "--jobs=70000"] {
        assert_eq!(world.run(&["backup", flag]).code, Some(2), "{flag}");
    }
}
