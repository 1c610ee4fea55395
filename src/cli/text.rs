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

/// A name is cut to no fewer letters.
const SHORTEST: usize = 10;

/// A table whose first column holds names, which are cut where a terminal is too narrow for all.
pub(super) fn table_of_names<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut rows: Vec<[String; N]> = rows.into_iter().collect();
    if let Some(columns) = columns() {
        let widest = |at: usize| {
            let cells = rows.iter().map(|row| row[at].chars().count());
            cells
                .max()
                .unwrap_or_default()
                .max(header[at].chars().count())
        };
        // Every column has a space on both sides; the last one's is not printed.
        let others: usize = (1..N).map(widest).sum::<usize>() + 2 * N - 1;
        let room = columns.saturating_sub(others).max(SHORTEST);
        for row in &mut rows {
            row[0] = cut(&row[0], room);
        }
    }
    table(header, rows)
}

/// How wide stdout is, when that matters: `COLUMNS`, or the terminal's own width.
fn columns() -> Option<usize> {
    let said = std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.parse().ok());
    said.or_else(|| {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
    })
}

/// A line for a person, broken between words where a terminal is too narrow for it; what follows
/// stands `indent` further in.
pub(super) fn broken(line: &str, indent: usize) -> String {
    let Some(columns) = columns() else {
        return format!("{line}\n");
    };
    let mut broken = String::new();
    let mut width = 0;
    for (at, word) in line.split(' ').enumerate() {
        let length = word.chars().count();
        if at > 0 && !word.is_empty() && width + 1 + length > columns && width > indent {
            broken.push('\n');
            broken.push_str(&" ".repeat(indent));
            width = indent;
        } else if at > 0 {
            broken.push(' ');
            width += 1;
        }
        broken.push_str(word);
        width += length;
    }
    broken.push('\n');
    broken
}

/// A name of at most `room` letters: its beginning and its end, which tell more than its middle.
pub(super) fn cut(name: &str, room: usize) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= room {
        return name.to_owned();
    }
    let tail = room.saturating_sub(1) / 2;
    let head = room.saturating_sub(1 + tail);
    let (head, tail) = (&letters[..head], &letters[letters.len() - tail..]);
    head.iter().chain(&['…']).chain(tail).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_keeps_its_ends() {
        assert_eq!(cut("all/a_very_long_name", 11), "all/a…_name");
        assert_eq!(cut("größe", 5), "größe");
    }
}
