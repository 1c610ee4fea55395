//! What makes a database well, or not.

use std::time::Duration;

use super::{Health, LastBackup};
use crate::catalog::Manifest;
use crate::units;

/// Of `expect_every` a twelfth more is no delay: 26 hours for one a day.
const SLACK: u32 = 12;
/// Timers and clocks are no better than this.
const LEAST_SLACK: Duration = Duration::from_mins(1);

pub(super) fn judge(
    store: &str,
    flaws: &[String],
    last: Option<&LastBackup>,
    max_age: Option<Duration>,
) -> (Health, Option<String>) {
    match (flaws, last, max_age) {
        ([], None, _) => (
            Health::Missing,
            Some(format!("has no backup in store {store}")),
        ),
        ([], Some(last), Some(limit)) if last.age_seconds > limit.as_secs() => {
            let (age, limit) = (words(last.age_seconds), words(limit.as_secs()));
            let why = format!(
                "its last good backup, {}, is {age} old, and at most {limit} are expected",
                last.backup_id
            );
            (Health::TooOld, Some(why))
        }
        ([], Some(_), _) => (Health::Good, None),
        (flaws, None, _) => {
            let why = format!("has no good backup in store {store}: {}", flaws.join("; "));
            (Health::Damaged, Some(why))
        }
        (flaws, Some(last), _) => {
            let (id, age) = (&last.backup_id, words(last.age_seconds));
            let flaws = flaws.join("; ");
            let why = format!("{flaws}; its last good backup, {id}, is {age} old");
            (Health::Damaged, Some(why))
        }
    }
}

/// How old a last backup may become when one is begun `every` so often and takes about as long as
/// the last one `took`: until the next is complete, the last one's age goes on.
pub(super) fn longest_wait(every: Duration, took: Duration) -> Duration {
    every + took + (every / SLACK).max(LEAST_SLACK)
}

/// What is odd about a backup after the one before.
pub(super) fn change(last: &Manifest, before: &Manifest) -> Option<String> {
    if let (Some(one), Some(other)) = (&last.source, &before.source)
        && !one.is_same_source(other)
    {
        return Some(format!(
            "its two last backups are of different sources, {} and {}",
            before.backup_id, last.backup_id
        ));
    }
    let dumps = last.dump_size().zip(before.dump_size());
    let what = if dumps.is_some() { "dump" } else { "archive" };
    let (now, then) = dumps.unwrap_or((last.archive.size, before.archive.size));
    (now <= then / 2 && then > 0).then(|| {
        format!(
            "its {what} shrank from {} to {}",
            units::size(then),
            units::size(now)
        )
    })
}

pub(super) fn seconds(signed: i64) -> u64 {
    u64::try_from(signed).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
pub(super) fn words(seconds: u64) -> String {
    units::time(seconds as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn a_daily_backup_may_be_26_hours_old_and_as_long_as_it_takes() {
        let none = Duration::ZERO;
        assert_eq!(longest_wait(DAY, none), Duration::from_hours(26));
        assert_eq!(
            longest_wait(DAY, Duration::from_hours(3)),
            Duration::from_hours(29)
        );
        let minutes = Duration::from_mins(5);
        assert_eq!(longest_wait(minutes, none), Duration::from_mins(6));
    }

    #[test]
    fn half_of_a_dump_is_a_warning_and_a_little_less_is_none() {
        let of = |size| {
            let id = "20260101T000000Z-aaaaaa".parse().unwrap();
            let mut manifest = Manifest::sample("shop", &id);
            manifest.entries[0].size = size;
            manifest
        };
        assert!(change(&of(50), &of(100)).is_some_and(|words| words.contains("100 B to 50 B")));
        assert_eq!(change(&of(51), &of(100)), None);
        assert_eq!(change(&of(0), &of(0)), None);
    }
}
