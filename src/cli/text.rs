//! Text for people: sizes, times, tables.

pub(super) use crate::units::{count, rate, ratio, size, time};

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::catalog::BackupId;

/// A result for programs.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("only string keys") + "\n"
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
