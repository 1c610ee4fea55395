//! Text for people: sizes, times, tables, and stdout that may be closed.

use std::io::Write;

use comfy_table::{Table, presets};

use super::exit::Exit;

use crate::catalog::BackupId;

/// Writes to stdout; a reader that has gone (`tapline list | head`) is no error. Any other failure ends the program: what it was
/// asked to tell cannot be told.
pub(super) fn out(text: &str) {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("tapline: cannot write to stdout: {error}");
            std::process::exit(Exit::Failed as i32);
        }
        _ => {}
    }
}

/// `1.5 GiB`
pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}

/// `3.4 s`, `12 min 5 s`, `2 h 3 min`
pub(super) fn time(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and whole seconds")]
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

/// Bytes a second, in MB/s.
#[expect(clippy::cast_precision_loss, reason = "for display")]
pub(super) fn rate(bytes: u64, seconds: f64) -> String {
    if seconds > 0.0 { format!("{:.1}", bytes as f64 / seconds / 1e6) } else { "-".into() }
}

/// Dump to archive, `3.5`.
#[expect(clippy::cast_precision_loss, reason = "for display")]
pub(super) fn ratio(dump: u64, archive: u64) -> String {
    if archive > 0 { format!("{:.2}", dump as f64 / archive as f64) } else { "-".into() }
}

/// When a backup began, in UTC.
pub(super) fn begun(id: &BackupId) -> String {
    id.time().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A plain table, columns aligned.
pub(super) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_long_as_they_need_to_be() {
        assert_eq!([time(3.44), time(725.0), time(7400.0)], ["3.4 s", "12 min 5 s", "2 h 3 min"]);
    }
}
