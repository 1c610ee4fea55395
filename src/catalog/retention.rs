//! Which backups of one database to keep: [`plan`], from a policy and when the backups began alone.
//!
//! - `last` keeps the newest N.
//! - `hourly`, `daily`, `weekly`, `monthly` and `yearly` keep the newest backup of each of the N
//!   most recent hours, days, … that have one, in UTC; weeks are those of ISO 8601. A time without
//!   backups uses up nothing.
//! - `within` keeps what began at most so long before the newest, and not before now: a database
//!   whose backups have stopped loses nothing more.
//! - A backup stays when any rule keeps it, and the newest always does. No rule at all keeps
//!   everything.
//! - One from the future stays and takes no other's place: a clock is wrong, and nobody knows whose.
//!
//! Only good backups are given to [`plan`], so that a broken one never takes the place of one that
//! can be restored.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::{DateTime, date};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanFieldwise};

/// A policy: the rules that are set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Keep the newest N.
    pub last: Option<NonZeroU32>,
    /// Keep the newest of each of N hours.
    pub hourly: Option<NonZeroU32>,
    /// Keep the newest of each of N days.
    pub daily: Option<NonZeroU32>,
    /// Keep the newest of each of N weeks.
    pub weekly: Option<NonZeroU32>,
    /// Keep the newest of each of N months.
    pub monthly: Option<NonZeroU32>,
    /// Keep the newest of each of N years.
    pub yearly: Option<NonZeroU32>,
    /// Keep what is at most so much older than the newest.
    pub within: Option<Within>,
}

impl Retention {
    /// For how many days a backup is kept at most, where the rules say a time.
    pub fn longest_days(&self) -> Option<u32> {
        let days = |count: Option<NonZeroU32>, each| Some(count?.get().saturating_mul(each));
        let hours = self.hourly.map(|hours| hours.get().div_ceil(24));
        let within = self.within.map(|within| {
            // Months and years at their longest: a leap year that ends with August.
            let end = date(2028, 8, 31).at(0, 0, 0, 0);
            let hours = end.duration_since(within.before(end)).as_hours();
            u32::try_from(hours.unsigned_abs().div_ceil(24)).unwrap_or(u32::MAX)
        });
        let all = [
            hours,
            days(self.daily, 1),
            days(self.weekly, 7),
            days(self.monthly, 31),
            days(self.yearly, 366),
            within,
        ];
        all.into_iter().flatten().max()
    }
}

/// What keeps a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// It is the newest.
    Newest,
    /// The policy is empty.
    NoPolicy,
    /// `keep_last`
    Last,
    /// `keep_hourly`
    Hourly,
    /// `keep_daily`
    Daily,
    /// `keep_weekly`
    Weekly,
    /// `keep_monthly`
    Monthly,
    /// `keep_yearly`
    Yearly,
    /// `keep_within`
    Within,
    /// It began in the future.
    Future,
}

/// Applies `policy` to the good backups of one database, of which it is told when they began,
/// ascending. Says of each, in the same order, which rules keep it; with none it is to be removed.
pub fn plan(policy: &Retention, begun: &[Timestamp], now: Timestamp) -> Vec<Vec<Rule>> {
    let (past, future) = begun.split_at(begun.partition_point(|begun| *begun <= now));
    let mut counted = policy.counted();
    let newest = past.last().map(|newest| civil(*newest));
    let within = policy.within.zip(newest);
    let oldest_within = within.map(|(within, newest)| within.before(newest));
    let mut kept_by = vec![vec![Rule::Future]; future.len()];
    for (age, begun) in past.iter().rev().enumerate() {
        let begun = civil(*begun);
        let mut rules = Vec::new();
        if age == 0 {
            rules.push(Rule::Newest);
        }
        if policy.is_empty() {
            rules.push(Rule::NoPolicy);
        }
        let counted = counted.iter_mut();
        rules.extend(counted.filter_map(|counted| counted.keeps(age, begun)));
        if oldest_within.is_some_and(|oldest| begun >= oldest) {
            rules.push(Rule::Within);
        }
        kept_by.push(rules);
    }
    kept_by.reverse();
    kept_by
}

fn civil(time: Timestamp) -> DateTime {
    TimeZone::UTC.to_datetime(time)
}

/// A rule with a number, and what it has kept so far, from the newest on.
struct Counted {
    rule: Rule,
    left: u32,
    latest: Option<(i64, i64)>,
}

impl Counted {
    fn keeps(&mut self, age: usize, begun: DateTime) -> Option<Rule> {
        let period = period(self.rule, age, begun);
        if self.left == 0 || self.latest == Some(period) {
            return None;
        }
        self.left -= 1;
        self.latest = Some(period);
        Some(self.rule)
    }
}

/// Of which hour, day, … a backup is; for `keep_last` each is of its own.
fn period(rule: Rule, age: usize, begun: DateTime) -> (i64, i64) {
    let (year, day) = (begun.year().into(), i64::from(begun.day_of_year()));
    match rule {
        Rule::Hourly => (year, day * 24 + i64::from(begun.hour())),
        Rule::Daily => (year, day),
        Rule::Weekly => {
            let week = begun.date().iso_week_date();
            (week.year().into(), week.week().into())
        }
        Rule::Monthly => (year, begun.month().into()),
        Rule::Yearly => (year, 0),
        Rule::Last | Rule::Newest | Rule::NoPolicy | Rule::Within | Rule::Future => {
            (0, i64::try_from(age).unwrap_or(i64::MAX))
        }
    }
}

impl Retention {
    /// Whether no rule is set, so that everything is kept.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn counted(&self) -> Vec<Counted> {
        self.numbers()
            .map(|(rule, left)| Counted {
                rule,
                left,
                latest: None,
            })
            .collect()
    }

    /// The rules with a number that are set.
    fn numbers(&self) -> impl Iterator<Item = (Rule, u32)> {
        let rules = [
            (Rule::Last, self.last),
            (Rule::Hourly, self.hourly),
            (Rule::Daily, self.daily),
            (Rule::Weekly, self.weekly),
            (Rule::Monthly, self.monthly),
            (Rule::Yearly, self.yearly),
        ];
        rules
            .into_iter()
            .filter_map(|(rule, number)| Some((rule, number?.get())))
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let within = self
            .within
            .map(|within| format!("{} {:#}", Rule::Within, within.0.0));
        let rules: Vec<String> = self
            .numbers()
            .map(|(rule, number)| format!("{rule} {number}"))
            .chain(within)
            .collect();
        f.write_str(&rules.join(", "))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Newest => "newest",
            Rule::NoPolicy => "no policy",
            Rule::Last => "last",
            Rule::Hourly => "hourly",
            Rule::Daily => "daily",
            Rule::Weekly => "weekly",
            Rule::Monthly => "monthly",
            Rule::Yearly => "yearly",
            Rule::Within => "within",
            Rule::Future => "a clock that is ahead",
        })
    }
}

/// A length of time by the calendar, in UTC, such as `30d` or `1y 6mo`; an hour or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within(SpanFieldwise);

impl Within {
    /// The time that is so long before `time`.
    fn before(self, time: DateTime) -> DateTime {
        // No backup is older than the calendar.
        time.checked_sub(self.0.0).unwrap_or(DateTime::MIN)
    }
}

impl FromStr for Within {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span: Span = text.parse().map_err(|_| {
            "not a time; write one such as 12h, 30d, 6w, 18mo or \"1y 6mo\"".to_owned()
        })?;
        // Who writes 6m for six months would lose nearly everything.
        match span.to_duration(date(1, 1, 1)) {
            Ok(length) if length >= SignedDuration::from_hours(1) => Ok(Self(span.fieldwise())),
            Ok(_) => Err("must be an hour or more; m is minutes, and months are mo".into()),
            Err(_) => Err("is longer than the calendar; leave it out to keep everything".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::catalog::BackupId;

    const PERIODS: [Rule; 5] = [
        Rule::Hourly,
        Rule::Daily,
        Rule::Weekly,
        Rule::Monthly,
        Rule::Yearly,
    ];

    fn only(rule: Rule, number: u32) -> Retention {
        let mut policy = Retention::default();
        *slot(&mut policy, rule) = NonZeroU32::new(number);
        policy
    }

    fn slot(policy: &mut Retention, rule: Rule) -> &mut Option<NonZeroU32> {
        match rule {
            Rule::Last => &mut policy.last,
            Rule::Hourly => &mut policy.hourly,
            Rule::Daily => &mut policy.daily,
            Rule::Weekly => &mut policy.weekly,
            Rule::Monthly => &mut policy.monthly,
            Rule::Yearly => &mut policy.yearly,
            Rule::Newest | Rule::NoPolicy | Rule::Within | Rule::Future => {
                panic!("{rule} has no number")
            }
        }
    }

    fn kept(policy: &Retention, good: &[BackupId]) -> Vec<BackupId> {
        let kept_by = plan(policy, &times(good), Timestamp::MAX);
        let all = good.iter().zip(kept_by);
        let kept = all.filter(|(_, kept_by)| !kept_by.is_empty());
        kept.map(|(id, _)| id.clone()).collect()
    }

    fn times(good: &[BackupId]) -> Vec<Timestamp> {
        good.iter().map(BackupId::time).collect()
    }

    fn ids(times: &[&str]) -> Vec<BackupId> {
        times
            .iter()
            .map(|time| format!("{time}-aaaaaa").parse().unwrap())
            .collect()
    }

    /// The name of a period as the calendar writes it, by other means than [`period`].
    fn written(rule: Rule, id: &BackupId) -> String {
        let format = match rule {
            Rule::Hourly => "%Y-%m-%d %H",
            Rule::Daily => "%Y-%m-%d",
            Rule::Weekly => "%G-W%V",
            Rule::Monthly => "%Y-%m",
            _ => "%Y",
        };
        id.time().strftime(format).to_string()
    }

    /// Whether a rule keeps `good[at]`, in the words of the docs, slowly.
    fn says(policy: &Retention, rule: Rule, good: &[BackupId], at: usize) -> bool {
        let newer = &good[at + 1..];
        match rule {
            Rule::Newest => newer.is_empty(),
            Rule::NoPolicy => *policy == Retention::default(),
            Rule::Last => policy
                .last
                .is_some_and(|last| newer.len() < last.get() as usize),
            Rule::Within => policy.within.is_some_and(|within| {
                let newest = good.last().unwrap().time().to_zoned_datetime(TimeZone::UTC);
                good[at].time().to_zoned_datetime(TimeZone::UTC) >= newest - within.0.0
            }),
            _ => slot(&mut policy.clone(), rule).is_some_and(|number| {
                let periods: BTreeSet<String> = newer.iter().map(|id| written(rule, id)).collect();
                !periods.contains(&written(rule, &good[at]))
                    && periods.len() < number.get() as usize
            }),
        }
    }

    prop_compose! {
        /// Backups over six years: some minutes apart, some months.
        fn backups()(gaps in prop::collection::vec(prop_oneof![0..7200i64, 0..200_000i64, 0..5_000_000i64], 0..60)) -> Vec<BackupId> {
            let mut time = 1_700_000_000;
            let ids: BTreeSet<BackupId> = gaps.into_iter().map(|gap| {
                time += gap;
                BackupId::at(Timestamp::from_second(time).unwrap())
            }).collect();
            ids.into_iter().collect()
        }
    }

    prop_compose! {
        fn policy()(
            numbers in prop::array::uniform6(prop::option::of(1..40u32)),
            within in prop::option::of((1..3000i64, prop_oneof![Just("h"), Just("d"), Just("w")])),
        ) -> Retention {
            let [last, hourly, daily, weekly, monthly, yearly] = numbers.map(|number| number.and_then(NonZeroU32::new));
            let within = within.map(|(number, unit)| format!("{number}{unit}").parse().unwrap());
            Retention { last, hourly, daily, weekly, monthly, yearly, within }
        }
    }

    proptest! {
        #[test]
        fn every_decision_is_what_the_words_of_the_rules_say(policy in policy(), good in backups()) {
            let kept_by = plan(&policy, &times(&good), Timestamp::MAX);
            prop_assert_eq!(kept_by.len(), good.len());
            for (at, kept_by) in kept_by.iter().enumerate() {
                for rule in [Rule::Newest, Rule::NoPolicy, Rule::Last, Rule::Within].into_iter().chain(PERIODS) {
                    prop_assert_eq!(kept_by.contains(&rule), says(&policy, rule, &good, at), "{} {}", rule, &good[at]);
                }
            }
        }

        #[test]
        fn the_newest_is_kept_and_pruning_again_removes_nothing(policy in policy(), good in backups()) {
            let once = kept(&policy, &good);
            prop_assert_eq!(once.last(), good.last());
            prop_assert_eq!(&kept(&policy, &once), &once);
        }

        #[test]
        fn what_is_from_the_future_stays_and_takes_nobodys_place(policy in policy(), good in backups(), past in 0..60usize) {
            let times = times(&good);
            let now = times.get(past).copied().unwrap_or(Timestamp::MIN);
            let past = times.partition_point(|time| *time <= now);
            let kept_by = plan(&policy, &times, now);
            prop_assert_eq!(&kept_by[..past], plan(&policy, &times[..past], Timestamp::MAX));
            prop_assert!(kept_by[past..].iter().all(|kept_by| *kept_by == [Rule::Future]));
        }

        #[test]
        fn a_larger_policy_keeps_no_less(policy in policy(), good in backups(), more in 1..50u32) {
            let before = kept(&policy, &good);
            for rule in PERIODS.into_iter().chain([Rule::Last]) {
                let mut larger = policy;
                let number = slot(&mut larger, rule);
                // A rule that is added to an empty policy takes something away: that one kept all.
                if number.is_none() && policy == Retention::default() {
                    continue;
                }
                *number = NonZeroU32::new(number.map_or(0, NonZeroU32::get) + more);
                let after = kept(&larger, &good);
                prop_assert!(before.iter().all(|id| after.contains(id)), "{} {:?}", rule, larger);
            }
        }

        #[test]
        fn a_rule_alone_keeps_as_many_as_it_says(good in backups(), number in 1..40u32) {
            prop_assert_eq!(kept(&only(Rule::Last, number), &good).len(), good.len().min(number as usize));
            for rule in PERIODS {
                let periods: BTreeSet<String> = good.iter().map(|id| written(rule, id)).collect();
                prop_assert_eq!(kept(&only(rule, number), &good).len(), periods.len().min(number as usize), "{}", rule);
            }
            prop_assert_eq!(kept(&Retention::default(), &good), good);
        }
    }

    #[test]
    fn within_is_measured_by_the_calendar_from_the_newest() {
        let good = ids(&[
            "20240229T120000Z",
            "20240331T115959Z",
            "20240331T120000Z",
            "20240430T120000Z",
        ]);
        let within = |text: &str| Retention {
            within: Some(text.parse().unwrap()),
            ..Retention::default()
        };
        assert_eq!(
            kept(&within("1mo"), &good).len(),
            3,
            "a month before 30 April is 30 March"
        );
        assert_eq!(kept(&within("30d"), &good).len(), 2);
        assert_eq!(
            kept(&within("2mo"), &good).len(),
            4,
            "there is no 30 February: the 29th"
        );
        assert_eq!(kept(&within("1y 6mo"), &good).len(), 4);
        assert_eq!(kept(&within("9000y"), &good).len(), 4);
    }

    #[test]
    fn weeks_are_those_of_iso_8601() {
        // Sunday, 31 December 2023 ends week 52; Monday, 30 December 2024 begins the first week of
        // 2025.
        let good = ids(&[
            "20231231T000000Z",
            "20240101T000000Z",
            "20241230T000000Z",
            "20250101T000000Z",
        ]);
        assert_eq!(
            kept(&only(Rule::Weekly, 2), &good),
            good[1..2]
                .iter()
                .chain(&good[3..])
                .cloned()
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_policy_is_shown_by_its_rules() {
        let within = "1y 6mo".parse().ok();
        assert_eq!(
            Retention {
                within,
                ..only(Rule::Daily, 7)
            }
            .to_string(),
            "daily 7, within 1y 6mo"
        );
    }

    #[test]
    fn a_time_is_an_hour_or_more() {
        for text in ["12h", "30d", "6w", "1y 6mo", "2 months", "P1Y"] {
            assert!(text.parse::<Within>().is_ok(), "{text}");
        }
        for (text, why) in [
            ("6m", "months are mo"),
            ("-3d", "an hour or more"),
            ("soon", "30d"),
            ("0d", "an hour"),
        ] {
            let error = text.parse::<Within>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
