//! `tapline status`: a line for each database, and a word about each that is not well.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jiff::Timestamp;

use super::args::StatusOptions;
use super::exit::{Exit, Failure};
use super::{Session, console, text};
use crate::access::open_patient_stores;
use crate::catalog::Record;
use crate::upkeep::metrics::prometheus;
use crate::upkeep::status::{Health, LastBackup, Standing, Status, status as look};

pub(super) async fn status(
    session: &mut Session,
    options: &StatusOptions,
) -> Result<Exit, Failure> {
    let inventory = session.inventory()?;
    let work = async {
        let stores = open_patient_stores(&inventory, None).await?;
        let (names, now) = (&options.names, Timestamp::now());
        Ok(look(&inventory, &stores, names, options.max_age, now).await?)
    };
    let status = session.signals.unless(work).await?;
    if options.json {
        console::out(&text::json(&status));
    } else {
        show(&status);
    }
    let written = options
        .prometheus
        .as_ref()
        .map_or(Ok(()), |file| replace(file, &prometheus(&status)));
    if let Err(failure) = &written {
        console::error(failure);
    }
    Ok(match exit(&status) {
        Exit::Good if written.is_err() => Exit::Untold,
        exit => exit,
    })
}

/// What is known to be wrong comes before what is not known.
fn exit(status: &Status) -> Exit {
    let any = |wrong: fn(Health) -> bool| {
        let mut all = status.databases.iter();
        all.any(|one| wrong(one.health))
    };
    if any(|health| !matches!(health, Health::Good | Health::Unknown)) {
        Exit::Check
    } else if any(|health| health == Health::Unknown) {
        Exit::Store
    } else {
        Exit::Good
    }
}

fn show(status: &Status) {
    let header = [
        "DATABASE",
        "LAST BACKUP",
        "AGE",
        "DUMP",
        "BEFORE",
        "READ BACK",
        "STATE",
    ];
    console::remark(&text::table_of_names(
        header,
        status.databases.iter().map(|one| row(one, status.asked)),
    ));
    let mut lines = String::new();
    for one in &status.databases {
        if let Some(why) = &one.why {
            lines += &format!("FAIL  {}  {why}\n", one.database);
        }
        for warning in &one.warnings {
            lines += &format!("warn  {}  {warning}\n", one.database);
        }
    }
    for remark in &status.remarks {
        lines += &format!("warn  {remark}\n");
    }
    if !lines.is_empty() {
        console::remark("\n");
        console::out(&lines);
    }
}

fn row(one: &Standing, asked: Timestamp) -> [String; 7] {
    let nothing = || "-".to_owned();
    let of_last = |words: fn(&LastBackup) -> String| one.last.as_ref().map_or_else(nothing, words);
    [
        one.database.clone(),
        of_last(|last| text::begun(&last.backup_id)),
        of_last(|last| age(last.age_seconds)),
        of_last(|last| last.dump_bytes.map_or_else(|| "-".into(), text::size)),
        one.previous_dump_bytes.map_or_else(nothing, text::size),
        one.read_back()
            .map_or_else(nothing, |read| text::time(since(read, asked))),
        state(one),
    ]
}

fn since(record: &Record, asked: Timestamp) -> f64 {
    asked.duration_since(record.ended).as_secs_f64().max(0.0)
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
fn age(seconds: u64) -> String {
    text::time(seconds as f64)
}

fn state(one: &Standing) -> String {
    let health = match one.health {
        Health::Good => "good",
        Health::TooOld => "too old",
        Health::Damaged => "damaged",
        Health::Missing => "none",
        Health::Unknown => "unknown",
    };
    match &one.open {
        Some(open) if open.alive => format!("{health}, running"),
        _ => health.to_owned(),
    }
}

/// Writes a file that is never seen half written. Its collector runs as another user, so all may
/// read it; a name without `.prom` is none of its business.
fn replace(file: &Path, text: &str) -> Result<(), Failure> {
    let folder = file.parent().filter(|folder| *folder != Path::new(""));
    let write = || {
        let mut half = tempfile::Builder::new()
            .prefix(".tapline-")
            .permissions(std::fs::Permissions::from_mode(0o644))
            .tempfile_in(folder.unwrap_or(Path::new(".")))?;
        half.write_all(text.as_bytes())?;
        half.persist(file).map_err(|error| error.error)
    };
    let failed = |error: std::io::Error| {
        let why = format!("cannot write {}: {error}", file.display());
        Failure::new(Exit::Untold, why).step("metrics")
    };
    write().map(drop).map_err(failed)
}
