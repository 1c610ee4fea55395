//! What shows and measures a run: the timeline, and `tapline bench`.

use super::world::World;

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
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(world.path("report.json")).unwrap()).unwrap();
    assert!(report["resources"]["cpu_seconds_user"].as_f64().unwrap() > 0.0);
    assert!(report["resources"]["peak_rss"].as_u64().unwrap() > 1 << 20);
    assert_eq!(report["resources"]["peak_temp_disk"], 0);
    let spans = report["jobs"][0]["busy"].as_array().unwrap();
    assert!(spans.iter().all(|span| span["worker"].as_u64().unwrap() < 2) && spans[0]["step"] == "dump");

    let run = world.run(&["backup", "--timeline=run.png"]);
    assert!(run.code == Some(2) && run.stderr.contains(".svg or .html"));
}
