//! What a person at a terminal of 80 columns sees.

use std::process::Command;

use super::world::{TAPLINE, World, tool};

/// What `tapline ARGS` writes to a terminal of 24 rows and 80 columns, control sequences and all.
fn shown(world: &World, args: &str, variables: &[(&str, &str)]) -> String {
    // Who may read a secret is warned of in a line of the log.
    let terminal = format!("chmod 600 access secret; stty rows 24 cols 80; {TAPLINE} {args}");
    let mut script = Command::new("script");
    script
        .args(["-qec", &terminal])
        .arg("/dev/null")
        .current_dir(world.folder.path())
        .env_remove("COLUMNS")
        .env_remove("NO_COLOR")
        .env("TERM", "xterm-256color")
        .envs(variables.iter().copied());
    let shown = String::from_utf8(tool(&mut script)).unwrap();
    println!("$ {args}\n{shown}");
    shown
}

/// The control sequences of a text, each with its last letter, and the text between them.
fn sequences(text: &str) -> Vec<(String, char, &str)> {
    let mut found = Vec::new();
    for piece in text.split("\x1b[").skip(1) {
        let end = piece.find(char::is_alphabetic).expect("a whole sequence");
        let letter = piece[end..].chars().next().unwrap();
        found.push((piece[..end].to_owned(), letter, &piece[end + 1..]));
    }
    found
}

fn has_colour(text: &str) -> bool {
    let all = sequences(text);
    all.iter()
        .any(|(what, kind, _)| *kind == 'm' && !matches!(what.as_str(), "" | "0"))
}

#[test]
fn progress_of_fifty_jobs_stays_within_24_rows_and_80_columns_with_percent_and_time_left() {
    let long = "with_a_name_that_has_no_end_".repeat(3);
    let jobs: Vec<String> = (0..50)
        .map(|number| {
            format!(
                "[databases.{long}{number}]\ncommand = [\"sh\", \"-c\", \"seq 100000; sleep 5\"]\n"
            )
        })
        .collect();
    let world = World::new(&format!(
        "[run]\njobs = 50\nmemory = \"1GiB\"\n\
         [defaults]\nengine = \"command\"\nexpected_size = \"1MB\"\n{}",
        jobs.concat()
    ));
    let shown = shown(&world, "backup", &[]);
    let rows = sequences(&shown).into_iter().filter(|one| one.1 == 'A');
    let highest = rows.map(|(rows, ..)| rows.parse().unwrap_or(1)).max();
    assert!(highest.is_some_and(|rows: u32| rows < 24), "{highest:?}");
    // Rows that are full follow each other without a break.
    let begins = |row: &str| {
        let known = ["total ", "with_a_n", " DATABASE "];
        known.iter().any(|word| row.starts_with(word))
    };
    for (.., text) in sequences(&shown) {
        for line in text.split(['\r', '\n']) {
            let letters: Vec<char> = line.chars().collect();
            for row in letters.chunks(80).skip(1) {
                let row: String = row.iter().collect();
                assert!(begins(&row) || row.trim().is_empty(), "{row:?} of {line:?}");
            }
        }
    }
    assert!(shown.contains("total ") && shown.contains(" of 50 done"));
    assert!(
        shown.contains("%  ") && shown.contains(" left  "),
        "percent and time left"
    );
    assert!(shown.contains("50 of 50 stored"));
}

#[test]
fn no_color_is_no_colour_anywhere() {
    let world = World::new("[databases.x]\nengine = \"command\"\ncommand = [\"seq\", \"9\"]\n");
    let talk = ("RUST_LOG", "tapline=info");
    assert!(has_colour(&shown(&world, "backup", &[talk])));
    for args in [
        "backup",
        "list",
        "status",
        "backup --help",
        "list --nowhere || true",
    ] {
        let shown = shown(&world, args, &[talk, ("NO_COLOR", "1")]);
        assert!(!has_colour(&shown), "{args}");
    }
}

#[test]
fn every_table_has_lines_of_80_columns_at_most() {
    let long = format!("{}_orders", "a_name_without_end_".repeat(4));
    let world = World::new(&format!(
        "[defaults]\nengine = \"command\"\nkeep_last = 1\n\
         [databases.shop]\ncommand = [\"seq\", \"1000\"]\n\
         [databases.{long}]\ncommand = [\"seq\", \"99\"]\n"
    ));
    for args in [
        "backup --dry-run",
        "backup --no-progress",
        "list",
        "status",
        "prune",
        "cleanup",
        "check",
    ] {
        let shown = shown(&world, args, &[]);
        for line in shown.lines().flat_map(|line| line.split('\r')) {
            let mut plain = line.split("\x1b[").next().unwrap().to_owned();
            plain.extend(sequences(line).into_iter().map(|(.., text)| text));
            // A name or an address that is longer is data, and is not cut where it stands by itself.
            let words = plain
                .split_whitespace()
                .map(|word| word.chars().count())
                .max();
            let is_data = words.is_some_and(|longest| longest > 60);
            assert!(is_data || plain.chars().count() <= 80, "{args}: {plain}");
        }
    }
}
