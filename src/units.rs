//! Sizes, times and rates in the words that a person reads.

/// `1.5 GiB`
pub fn size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}

/// `3.4 s`, `12 min 5 s`, `2 h 3 min`, `3 d 4 h`
pub fn time(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and whole seconds"
    )]
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..172_800 => format!("{} h {} min", whole / 3600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3600 % 24),
    }
}

/// Bytes a second, in MB/s.
#[expect(clippy::cast_precision_loss, reason = "for display")]
pub fn rate(bytes: u64, seconds: f64) -> String {
    if seconds > 0.0 {
        format!("{:.1}", bytes as f64 / seconds / 1e6)
    } else {
        "-".into()
    }
}

/// Dump to archive, `3.5`.
#[expect(clippy::cast_precision_loss, reason = "for display")]
pub fn ratio(dump: u64, archive: u64) -> String {
    if archive > 0 {
        format!("{:.2}", dump as f64 / archive as f64)
    } else {
        "-".into()
    }
}

/// `1 backup`, `2 backups`
pub fn count(number: impl TryInto<u64>, noun: &str) -> String {
    match number.try_into() {
        Ok(1) => format!("1 {noun}"),
        Ok(number) => format!("{number} {noun}s"),
        Err(_) => format!("many {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_not_many() {
        assert_eq!(
            [0_u64, 1, 2].map(|number| count(number, "job")),
            ["0 jobs", "1 job", "2 jobs"]
        );
    }

    #[test]
    fn times_are_as_long_as_they_need_to_be() {
        assert_eq!(
            [3.44, 725.0, 7400.0, 90_000.0, 273_600.0].map(time),
            ["3.4 s", "12 min 5 s", "2 h 3 min", "25 h 0 min", "3 d 4 h"]
        );
    }
}
