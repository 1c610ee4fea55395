//! What shows and measures a run: the timeline, and `tapline bench`.

use std::process::Command;

use super::world::{TAPLINE, World, end_of, wait_until};

#[test]
fn a_timeline_shows_each_database_as_a_letter_and_as_a_bar() {
    let mut databases = String::from("[run]\njobs = 2\n");
    for name in ["shop", "events", "users"] {
        databases += &format!(
            "[databases.{name}]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", \"seq 100000; sleep 0.2\"]\n"
        );
    }
    let world = World::new(&databases);
    let run = world.run(&["backup", "--timeline"]);
    assert_eq!(run.code, Some(0));
    assert!(run.stdout.contains("\nA shop   B events   C users\n"));
    for row in ["\ndump 1 ", "\ndump 2 ", "\narchive 1 ", "\nupload 1 "] {
        assert!(run.stdout.contains(row), "no row {row:?}");
    }

    let run = world.run(&["backup", "--timeline=run.svg", "--report", "report.json"]);
    assert_eq!(run.code, Some(0));
    let svg = std::fs::read_to_string(world.path("run.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("3 databases streamed in"));
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(world.path("report.json")).unwrap()).unwrap();
    assert!(report["resources"]["cpu_seconds_user"].as_f64().unwrap() > 0.0);
    assert!(report["resources"]["peak_rss"].as_u64().unwrap() > 1 << 20);
    assert_eq!(report["resources"]["peak_temp_disk"], 0);
    let spans = report["jobs"][0]["busy"].as_array().unwrap();
    assert!(
        spans
            .iter()
            .all(|span| span["worker"].as_u64().unwrap() < 2)
            && spans[0]["step"] == "dump"
    );

    let run = world.run(&["backup", "--timeline=run.png"]);
    assert!(run.code == Some(2) && run.stderr.contains(".svg or .html"));
}

fn json(text: &[u8]) -> serde_json::Value {
    serde_json::from_slice(text).unwrap()
}

#[test]
fn a_bench_without_database_or_store_measures_every_run() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Command::new(TAPLINE)
        .args([
            "bench",
            "--source",
            "synthetic:20MiB:3",
            "--store",
            "null",
            "--modes",
            "streamed",
            "--runs",
            "2",
        ])
        .args([
            "--json",
            "-",
            "--plot",
            "bench.svg",
            "--compression",
            "zstd",
            "--dir",
            ".",
        ])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8(bench.stderr).unwrap();
    assert!(bench.status.success(), "{stderr}");
    assert!(
        stderr.contains("STREAMED") && stderr.contains("peak temp disk"),
        "{stderr}"
    );
    let json = json(&bench.stdout);
    assert_eq!(
        (
            json["version"].as_u64(),
            json["asked"]["compression"].as_str()
        ),
        (Some(1), Some("zstd"))
    );
    let [mode] = json["modes"].as_array().unwrap().as_slice() else {
        panic!("one mode")
    };
    let runs = mode["runs"].as_array().unwrap();
    assert_eq!((mode["mode"].as_str(), runs.len()), (Some("streamed"), 2));
    for run in runs {
        assert_eq!(run["dump_bytes"], 20 << 20);
        assert_eq!(run["peak_temp_disk"], 0);
        assert!(
            run["wall_seconds"].as_f64().unwrap() > 0.0
                && run["cpu_seconds"].as_f64().unwrap() > 0.0
        );
        assert!(run["peak_rss"].as_u64().unwrap() > 1 << 20);
        assert!((1 << 20..20 << 20).contains(&run["archive_bytes"].as_i64().unwrap()));
    }
    let wall = &mode["measures"]["wall_seconds"];
    assert!(
        wall["min"].as_f64() <= wall["median"].as_f64()
            && wall["median"].as_f64() <= wall["max"].as_f64()
    );
    assert!(
        std::fs::read_to_string(folder.path().join("bench.svg"))
            .unwrap()
            .starts_with("<svg")
    );
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["bench.svg"], "the scratch folder is gone");
}

#[test]
fn a_bench_compares_pairs_and_leaves_nothing_in_the_store() {
    let world = World::new(
        "[databases.x]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", '''head -c 3000000 /dev/zero > $TMPDIR/used; \
         sleep 0.2; seq 200000''']\n",
    );
    let other = "backups/other/20261123T180327Z-k3f9ax/other.tar.gz";
    world.server.store().overwrite(other, "untouched".into());
    let run = world.run(&[
        "bench",
        "--modes",
        "streamed,streamed",
        "--runs",
        "2",
        "--no-warmup",
        "--json",
        "b.json",
    ]);
    assert_eq!(run.code, Some(0));
    assert!(run.stdout.contains("STREAMED/STREAMED"));
    let json = json(&std::fs::read(world.path("b.json")).unwrap());
    assert!(json["ratios"]["wall_seconds"]["median"].as_f64().unwrap() > 0.0);
    assert_eq!(json["ratios"]["dump_bytes"]["max"], 1.0);
    // What the dump tool put into the temp folder was seen from outside.
    let disk = json["modes"][0]["runs"][0]["peak_temp_disk"]
        .as_u64()
        .unwrap();
    assert!((3_000_000..4_000_000).contains(&disk), "{disk}");
    assert_eq!(world.server.store().keys(), [other]);
    assert_eq!(world.server.store().open_uploads(), 0);
}

#[test]
fn a_failed_run_ends_the_bench_with_its_words() {
    let world = World::new(
        "[databases.x]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", \"echo no luck >&2; exit 9\"]\n",
    );
    let run = world.run(&["bench", "--modes", "streamed", "--dir", "."]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr
            .contains("a streamed run exited with status 1: x: dump: sh exited with status 9")
    );
    assert!(run.stderr.contains("no luck"));
    world.assert_store_is_clean();
    let left = std::fs::read_dir(world.folder.path()).unwrap();
    assert!(
        !left
            .map(|entry| entry.unwrap().file_name())
            .any(|name| name.to_string_lossy().contains("bench"))
    );
    assert_eq!(
        world
            .run(&["bench", "--modes", "streamed,staged,streamed"])
            .code,
        Some(2)
    );
    assert_eq!(world.run(&["bench", "--plot", "b.png"]).code, Some(2));
}

#[test]
fn an_interrupted_bench_leaves_nothing() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let world = World::new(
            "[databases.x]\nengine = \"command\"\n\
             command = [\"sh\", \"-c\", \"head -c 60000000 /dev/urandom; exec sleep 300.5\"]\n",
        );
        let mut running = world
            .tapline(&["bench", "--modes", "streamed", "--dir", "."])
            .spawn()
            .unwrap();
        wait_until(|| world.server.store().open_uploads() == 1);
        let status = Command::new("kill")
            .args([&format!("-{signal}"), &running.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
        assert_eq!(end_of(&mut running).code(), Some(code));
        world.assert_store_is_clean();
        let left = std::fs::read_dir(world.folder.path()).unwrap();
        assert!(
            !left
                .map(|entry| entry.unwrap().file_name())
                .any(|name| name.to_string_lossy().contains("bench"))
        );
    }
}
