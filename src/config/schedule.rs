//! When something is due: a cron expression in a time zone, spread by a jitter.
//!
//! Daylight saving time as Vixie's cron has it: what falls into the hour that is left out is due
//! right after it, what falls into the hour that comes twice is due once, in the first; expressions
//! with a `*` or a step in minutes or hours follow the clock instead.

use std::cmp::Ordering;
use std::time::Duration;

use croner::errors::CronError;
use croner::{CivilDate, CivilDateTime, CivilTime, Cron, CronDateTime, Resolution, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ZonedDateTime};
use sha2::{Digest, Sha256};

/// When something is due.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    /// How much later than by the clock.
    late: SignedDuration,
}

impl Schedule {
    /// The schedule of `text`, a cron expression. Within `jitter`, `whose` says how late it is: each
    /// database has a time of its own, the same on every host and after every start.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str, zone: TimeZone, jitter: Duration, whose: &str) -> Result<Self, String> {
        let cron: Cron = text.parse().map_err(|error: CronError| error.to_string())?;
        let late = share(whose, jitter);
        let schedule = Self { cron, zone, late };
        match schedule.next(Timestamp::now()) {
            Some(_) => Ok(schedule),
            None => Err("is never due".into()),
        }
    }

    /// The expression.
    pub fn text(&self) -> &str {
        self.cron.as_str()
    }

    /// The first moment after `now` at which it is due.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let next = self
            .cron
            .find_next_occurrence(&self.by_the_clock(now)?, false);
        next.ok()?.0.timestamp().checked_add(self.late).ok()
    }

    /// The last moment until `now` at which it was due.
    pub fn latest(&self, now: Timestamp) -> Option<Timestamp> {
        let clock = self.by_the_clock(now)?;
        let latest = self.cron.find_previous_occurrence(&clock, true);
        latest.ok()?.0.timestamp().checked_add(self.late).ok()
    }

    fn by_the_clock(&self, now: Timestamp) -> Option<Moment> {
        let clock = now.checked_sub(self.late).ok()?;
        Some(Moment(clock.to_zoned_datetime(self.zone.clone())))
    }
}

/// The share of a jitter that falls to a name.
fn share(whose: &str, jitter: Duration) -> SignedDuration {
    let hash = Sha256::digest(whose);
    let hash = hash
        .first_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let share = Duration::from_secs(hash.checked_rem(jitter.as_secs()).unwrap_or_default());
    SignedDuration::try_from(share).unwrap_or_default()
}

/// A moment for the cron crate, which has a trait for whatever tells the time.
#[derive(Debug, Clone)]
struct Moment(ZonedDateTime);

fn part<T: TryFrom<u32>>(value: u32) -> Result<T, CronError> {
    T::try_from(value).map_err(|_| CronError::InvalidDate)
}

fn unsigned(value: i8) -> u32 {
    u32::from(value.unsigned_abs())
}

impl CronDateTime for Moment {
    fn to_civil(&self) -> CivilDateTime {
        let time = &self.0;
        CivilDateTime::new(
            CivilDate::from_parts_unchecked(
                i32::from(time.year()),
                unsigned(time.month()),
                unsigned(time.day()),
            ),
            CivilTime::from_parts_unchecked(
                unsigned(time.hour()),
                unsigned(time.minute()),
                unsigned(time.second()),
            ),
        )
    }

    fn civil_weekday(&self) -> Weekday {
        Weekday::from_days_from_sunday(unsigned(self.0.weekday().to_sunday_zero_offset()))
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let invalid = |_: jiff::Error| CronError::InvalidTime;
        let year = i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?;
        let civil = jiff::civil::DateTime::new(
            year,
            part(civil.month())?,
            part(civil.day())?,
            part(civil.hour())?,
            part(civil.minute())?,
            part(civil.second())?,
            0,
        );
        let zone = self.0.time_zone();
        let found = zone.to_ambiguous_zoned_datetime(civil.map_err(invalid)?);
        Ok(match found.offset() {
            AmbiguousOffset::Unambiguous { .. } => {
                Resolution::Single(Self(found.unambiguous().map_err(invalid)?))
            }
            AmbiguousOffset::Fold { .. } => {
                let earlier = found.clone().earlier().map_err(invalid)?;
                Resolution::Ambiguous(Self(earlier), Self(found.later().map_err(invalid)?))
            }
            AmbiguousOffset::Gap { .. } => Resolution::Gap,
        })
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        let moved = self.0.checked_add(SignedDuration::from_secs(seconds));
        moved.ok().map(Self)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.timestamp().cmp(&other.0.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin(text: &str, jitter: Duration) -> Schedule {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        Schedule::new(text, zone, jitter, "shop").unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_night_has_one_backup_whatever_the_clocks_do() {
        let schedule = berlin("30 2 * * *", Duration::ZERO);
        // 2026-03-29: 02:00 becomes 03:00. 2026-10-25: 03:00 becomes 02:00.
        for (from, due) in [
            ("2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),
            ("2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"),
            ("2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
            ("2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
        ] {
            assert_eq!(schedule.next(at(from)), Some(at(due)), "after {from}");
        }
        for (now, latest) in [
            ("2026-03-29T12:00:00Z", "2026-03-29T01:00:00Z"),
            ("2026-03-29T00:59:59Z", "2026-03-28T01:30:00Z"),
            ("2026-10-25T01:30:00Z", "2026-10-25T00:30:00Z"),
            ("2026-10-25T12:00:00Z", "2026-10-25T00:30:00Z"),
        ] {
            assert_eq!(schedule.latest(at(now)), Some(at(latest)), "at {now}");
        }
    }

    #[test]
    fn the_last_moment_and_the_next_are_of_one_list() {
        let jitters = [
            Duration::ZERO,
            Duration::from_mins(7),
            Duration::from_hours(3),
        ];
        for text in [
            "0 2 * * *",
            "*/20 * * * *",
            "15 4 1 * *",
            "0 0 * * 0",
            "30 2 29 2 *",
        ] {
            for jitter in jitters {
                let schedule = berlin(text, jitter);
                let mut now = at("2026-03-27T00:00:00Z");
                for _ in 0..40 {
                    let next = schedule.next(now).unwrap();
                    assert!(next > now, "{text}");
                    assert_eq!(schedule.latest(next), Some(next), "{text} {jitter:?} {now}");
                    // Nothing is due between one and the next.
                    let before = next - SignedDuration::from_secs(1);
                    if before > now {
                        assert_eq!(
                            schedule.latest(before),
                            schedule.latest(now),
                            "{text} {now}"
                        );
                    }
                    now = next;
                }
            }
        }
    }

    #[test]
    fn each_database_has_its_share_of_a_jitter() {
        let hour = Duration::from_hours(1);
        let of = |whose| Schedule::new("0 2 * * *", TimeZone::UTC, hour, whose).unwrap();
        let due = |whose| of(whose).next(at("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(due("shop"), due("shop"));
        assert_ne!(due("shop"), due("events"));
        for whose in ["shop", "events", "a", "b", ""] {
            let late = due(whose).duration_since(at("2026-01-01T02:00:00Z"));
            assert!(!late.is_negative() && late < SignedDuration::from_hours(1));
        }
        assert_eq!(share("shop", Duration::ZERO), SignedDuration::ZERO);
    }

    #[test]
    fn what_is_no_schedule_or_never_comes_is_refused() {
        for text in [
            "",
            "0 2 * *",
            "61 * * * *",
            "0 2 30 2 *",
            "noon",
            "0 0 2 * * * * *",
        ] {
            let refused = Schedule::new(text, TimeZone::UTC, Duration::ZERO, "x");
            assert!(refused.is_err(), "{text}");
        }
        assert!(Schedule::new("@daily", TimeZone::UTC, Duration::ZERO, "x").is_ok());
    }
}
