//! Text for people: sizes, times, tables, and stdout that may be closed.

use std::io::Write;

pub(super) use crate::units::{rate, ratio, size, time};

use comfy_table::{Table, presets};

use super::exit::Exit;

use crate::catalog::BackupId;

/// Writes to stdout; a reader that has gone (`tapline list | head`) is no error. Any other failure
/// ends the program: what it was asked to tell cannot be told.
pub(super) fn out(text: &str) {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("tapline: cannot write to stdout: {error}");
            std::process::exit(Exit::Failed as i32);
        }
        _ => {}
    }
}

/// When a backup began, in UTC.
pub(super) fn begun(id: &BackupId) -> String {
    id.time().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A plain table, columns aligned.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect();
    lines.concat()
}
