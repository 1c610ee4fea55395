//! What is due, and when: plain data, which is told the time and asks nobody.
//!
//! A chore is due when the last moment of its schedule is later than its **mark**: the begin of what
//! was done last. So one that was missed while nothing ran is done once, and at once; and a clock
//! that jumps, a machine that sleeps, an hour that comes twice make no difference but when it is
//! looked at. All marks come from the store, where every host sees them; a chore without a mark is
//! not due, because nothing is known of it yet.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::config::{Inventory, Schedule};

/// Before something is tried again that failed for a reason that may pass; it doubles from there.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_mins(5);
/// No pause is longer.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(1);
/// So often one is tried again that may not be worth it.
const TRIES: u32 = 3;
/// Before one that another host is at is looked at again.
const WHEN_BUSY: SignedDuration = SignedDuration::from_mins(1);
/// A mark may be so much in the future before it is taken for that of a wrong clock.
const FUTURE: SignedDuration = SignedDuration::from_hours(1);

/// What there is to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chore {
    /// Back up a database of the inventory.
    Backup(String),
    /// Read back its latest backup.
    Verify(String),
    /// Restore it into a scratch database.
    Drill(String),
    /// Remove the backups that no rule keeps.
    Prune,
    /// Remove what never became a backup.
    Cleanup,
}

impl Chore {
    /// In a word or two.
    pub fn describe(&self) -> String {
        match self {
            Self::Backup(name) => format!("backup of {name}"),
            Self::Verify(name) => format!("verify of {name}"),
            Self::Drill(name) => format!("drill of {name}"),
            Self::Prune => "prune".into(),
            Self::Cleanup => "cleanup".into(),
        }
    }
}

/// What became of a chore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, or failed in a way that the same again would not mend.
    Over,
    /// It failed because the store is away: it is tried again until it is done.
    Away,
    /// It failed for a reason that may pass: it is tried again [`TRIES`] times.
    Failed,
    /// Another host is at it.
    Busy,
}

/// A chore that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// What is to be done.
    pub chore: Chore,
    /// Since when.
    pub since: Timestamp,
}

/// All chores.
#[derive(Debug, Clone, Default)]
pub struct Agenda {
    items: Vec<Item>,
}

#[derive(Debug, Clone)]
struct Item {
    chore: Chore,
    schedule: Schedule,
    mark: Option<Timestamp>,
    /// Since when the one that is being done is due, and when it was begun.
    running: Option<(Timestamp, Timestamp)>,
    /// Not before then, and how often it has failed.
    pause: Option<(Timestamp, u32)>,
}

impl Agenda {
    /// The chores of an inventory, none of them with a mark.
    pub fn new(inventory: &Inventory) -> Self {
        let mut items = Vec::new();
        let mut add = |chore, schedule: &Option<Schedule>| {
            if let Some(schedule) = schedule {
                items.push(Item {
                    chore,
                    schedule: schedule.clone(),
                    mark: None,
                    running: None,
                    pause: None,
                });
            }
        };
        for entry in &inventory.databases {
            let name = || entry.name.clone();
            add(Chore::Backup(name()), &entry.schedule);
            add(Chore::Verify(name()), &inventory.serve.verify);
            add(Chore::Drill(name()), &inventory.serve.drill);
        }
        add(Chore::Prune, &inventory.serve.prune);
        add(Chore::Cleanup, &inventory.serve.cleanup);
        Self { items }
    }

    /// Takes over what the agenda of the inventory before knows of the same chores.
    pub fn follow(&mut self, before: &Agenda) {
        for item in &mut self.items {
            let known = before.items.iter().find(|known| known.chore == item.chore);
            if let Some(known) = known {
                item.mark = known.mark;
                item.running = known.running;
                item.pause = known.pause;
            }
        }
    }

    /// Whether there is nothing to do at any time.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// When a chore is due next: now, for what waits for its turn. `None` when it has no schedule, or
    /// is being done.
    pub fn next_of(&self, chore: &Chore, now: Timestamp) -> Option<Timestamp> {
        let mut items = self.items.iter();
        items.find(|item| item.chore == *chore)?.next(now)
    }

    /// The chores of which nothing is known yet.
    pub fn without_mark(&self) -> impl Iterator<Item = &Chore> {
        let items = self.items.iter().filter(|item| item.mark.is_none());
        items.map(|item| &item.chore)
    }

    /// What the store knows of a chore: when it was begun last. The later of two marks counts, as
    /// long as it is not of a future that no clock should know.
    pub fn learn(&mut self, chore: &Chore, mark: Timestamp, now: Timestamp) {
        let mark = sensible(mark, now);
        for item in self.items.iter_mut().filter(|item| item.chore == *chore) {
            item.mark = item.mark.max(Some(mark));
        }
    }

    /// What is due now. It counts as being done from now on.
    pub fn due(&mut self, now: Timestamp) -> Vec<Due> {
        let mut due = Vec::new();
        for item in &mut self.items {
            item.mend(now);
            if let Some(since) = item.since(now) {
                item.running = Some((since, now));
                let chore = item.chore.clone();
                due.push(Due { chore, since });
            }
        }
        due
    }

    /// Somebody asks for a chore, which counts as being done from now on, whether it has a schedule
    /// or not; `false` when it is being done.
    pub fn take_up(&mut self, chore: &Chore, now: Timestamp) -> bool {
        let Some(item) = self.items.iter_mut().find(|item| item.chore == *chore) else {
            return true;
        };
        let is_free = item.running.is_none();
        if is_free {
            item.running = Some((now, now));
        }
        is_free
    }

    /// A chore that was due is over.
    pub fn end(&mut self, chore: &Chore, outcome: Outcome, now: Timestamp) {
        let mut items = self.items.iter_mut();
        let Some(item) = items.find(|item| item.chore == *chore) else {
            return;
        };
        let Some((since, began)) = item.running.take() else {
            return;
        };
        let failed = item.pause.map_or(0, |(_, failed)| failed);
        item.pause = match outcome {
            Outcome::Over => {
                item.mark = item.mark.max(Some(began.max(since)));
                None
            }
            Outcome::Busy => Some((now + WHEN_BUSY, failed)),
            Outcome::Failed if failed >= TRIES => {
                item.mark = item.mark.max(Some(began.max(since)));
                None
            }
            Outcome::Failed | Outcome::Away => {
                let pause = FIRST_PAUSE.saturating_mul(1 << failed.min(8));
                Some((now + pause.min(LONGEST_PAUSE), failed + 1))
            }
        };
    }

    /// When something is due next, if nothing changes until then.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        self.items.iter().filter_map(|item| item.next(now)).min()
    }
}

impl Item {
    /// A clock that was set back makes nothing wait for what is over.
    fn mend(&mut self, now: Timestamp) {
        self.mark = self.mark.map(|mark| sensible(mark, now));
        self.pause = self
            .pause
            .filter(|(until, _)| *until <= now + LONGEST_PAUSE);
    }

    /// Since when it is due, when it may be done now.
    fn since(&self, now: Timestamp) -> Option<Timestamp> {
        let mark = self.mark?;
        let is_free = self.running.is_none() && self.pause.is_none_or(|(until, _)| until <= now);
        let latest = self.schedule.latest(now)?;
        (is_free && latest > mark).then_some(latest)
    }

    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let mark = self.mark?;
        if self.running.is_some() {
            return None;
        }
        let is_overdue = self
            .schedule
            .latest(now)
            .is_some_and(|latest| latest > mark);
        match self.pause {
            Some((until, _)) if is_overdue => Some(until.max(now)),
            None if is_overdue => Some(now),
            _ => self.schedule.next(now.max(mark)),
        }
    }
}

fn sensible(mark: Timestamp, now: Timestamp) -> Timestamp {
    if mark > now + FUTURE { now } else { mark }
}

/// How long a loop may sleep until `next`: not so long that a clock which is set, or a machine which
/// slept, would not be noticed.
pub fn nap(next: Option<Timestamp>, now: Timestamp) -> Duration {
    const LONGEST: Duration = Duration::from_secs(20);
    let until = next.map(|next| next.duration_since(now).unsigned_abs());
    match (until, next) {
        (Some(_), Some(next)) if next <= now => Duration::ZERO,
        (Some(until), _) => until.min(LONGEST),
        (None, _) => LONGEST,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);
    const MINUTE: SignedDuration = SignedDuration::from_mins(1);

    fn inventory(more: &str) -> Inventory {
        let text = format!(
            "[stores.s]\nurl = \"s3://bucket/p\"\n[defaults]\nengine = \"command\"\n\
             command = [\"x\"]\nschedule = \"0 2 * * *\"\ntime_zone = \"Europe/Berlin\"\n\
             [databases.shop]\n{more}"
        );
        Inventory::parse(Path::new("t.toml"), &text).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Lets `agenda` live from `from` to `to`, looking at it every so often; what was done when, each
    /// taking as long as `outcome` says and coming to what it says.
    fn live(
        agenda: &mut Agenda,
        (from, to): (Timestamp, Timestamp),
        step: SignedDuration,
        mut outcome: impl FnMut(Timestamp) -> (SignedDuration, Outcome),
    ) -> Vec<Timestamp> {
        let (mut now, mut done) = (from, Vec::new());
        let mut running: Option<(Timestamp, Chore, Outcome)> = None;
        while now < to {
            if let Some((until, chore, came)) = running.take_if(|(until, ..)| *until <= now) {
                assert!(until <= now);
                agenda.end(&chore, came, now);
            }
            for due in agenda.due(now) {
                assert!(running.is_none(), "twice at once");
                let (takes, came) = outcome(now);
                if came == Outcome::Over {
                    done.push(now);
                }
                running = Some((now + takes, due.chore, came));
            }
            now += step;
        }
        done
    }

    fn good(_: Timestamp) -> (SignedDuration, Outcome) {
        (MINUTE, Outcome::Over)
    }

    fn shop() -> Chore {
        Chore::Backup("shop".into())
    }

    fn marked(mark: &str, now: &str) -> Agenda {
        let mut agenda = Agenda::new(&inventory(""));
        agenda.learn(&shop(), at(mark), at(now));
        agenda
    }

    #[test]
    fn a_year_has_a_backup_for_each_of_its_nights() {
        let (from, to) = (at("2026-01-01T12:00:00Z"), at("2027-01-01T12:00:00Z"));
        let mut agenda = marked("2026-01-01T01:00:00Z", "2026-01-01T12:00:00Z");
        let done = live(&mut agenda, (from, to), 5 * MINUTE, good);
        assert_eq!(done.len(), 365);
        let mut days: Vec<_> = done
            .iter()
            .map(|at| at.in_tz("Europe/Berlin").unwrap().date())
            .collect();
        days.dedup();
        assert_eq!(days.len(), 365);
    }

    #[test]
    fn what_is_not_known_is_not_due_and_what_was_missed_is_due_once() {
        let now = at("2026-06-10T12:00:00Z");
        let mut agenda = Agenda::new(&inventory(""));
        assert_eq!((agenda.due(now), agenda.next(now)), (Vec::new(), None));
        agenda.learn(&shop(), at("2026-06-05T00:00:00Z"), now);
        assert_eq!(agenda.next(now), Some(now));
        let due = agenda.due(now);
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].since, at("2026-06-10T00:00:00Z"));
        assert_eq!(agenda.due(now + HOUR), Vec::new(), "it is being done");
        agenda.end(&shop(), Outcome::Over, now + HOUR);
        assert_eq!(agenda.due(now + 2 * HOUR), Vec::new());
        assert_eq!(agenda.next(now), Some(at("2026-06-11T00:00:00Z")));
    }

    #[test]
    fn a_store_that_is_away_for_an_hour_costs_no_night() {
        let mut agenda = marked("2026-06-09T00:00:00Z", "2026-06-09T12:00:00Z");
        let away = at("2026-06-10T00:00:00Z")..at("2026-06-10T01:00:00Z");
        let (from, to) = (at("2026-06-09T12:00:00Z"), at("2026-06-12T12:00:00Z"));
        let mut tries = 0;
        let done = live(&mut agenda, (from, to), MINUTE, |now| {
            tries += 1;
            // For a quarter of an hour a job asks it again.
            if away.contains(&now) {
                (15 * MINUTE, Outcome::Away)
            } else {
                good(now)
            }
        });
        assert_eq!(done.len(), 3);
        assert!(done[0] < away.end + HOUR, "{done:?}");
        assert!(tries < 8, "{tries} tries");
    }

    #[test]
    fn what_fails_by_itself_is_tried_again_three_times_and_then_the_next_night() {
        let mut agenda = marked("2026-06-09T00:00:00Z", "2026-06-09T12:00:00Z");
        let (from, to) = (at("2026-06-09T12:00:00Z"), at("2026-06-11T12:00:00Z"));
        let mut tries = Vec::new();
        let done = live(&mut agenda, (from, to), MINUTE, |now| {
            tries.push(now);
            (MINUTE, Outcome::Failed)
        });
        assert_eq!((done.len(), tries.len()), (0, 8), "{tries:?}");
        assert!(tries[3] < at("2026-06-10T01:00:00Z") && tries[4] >= at("2026-06-11T00:00:00Z"));
    }

    #[test]
    fn clocks_that_jump_neither_lose_a_backup_for_good_nor_make_two_at_once() {
        // Set back by a little, by an hour, by a day, and ahead by a day, at every hour of a night.
        for jump in [-1, -60, -24 * 60, 24 * 60] {
            for hour in 0..24 {
                let from = at("2026-06-09T12:00:00Z");
                let mut agenda = marked("2026-06-09T00:00:00Z", "2026-06-09T12:00:00Z");
                let before = from + hour * HOUR;
                let mut done = live(&mut agenda, (from, before), MINUTE, good);
                let after = before + jump * MINUTE;
                let until = at("2026-06-13T12:00:00Z");
                // What ran at the jump ends.
                agenda.end(&shop(), Outcome::Over, after);
                done.extend(live(&mut agenda, (after, until), MINUTE, good));
                for night in ["2026-06-12", "2026-06-13"] {
                    let of = |at: &&Timestamp| at.to_string().starts_with(night);
                    assert_eq!(done.iter().filter(of).count(), 1, "{jump} {hour}: {done:?}");
                }
                assert!((3..=5).contains(&done.len()), "{jump} {hour}: {done:?}");
            }
        }
    }

    #[test]
    fn a_mark_of_a_future_does_not_stop_backups_until_then() {
        let now = at("2026-06-10T12:00:00Z");
        let mut agenda = Agenda::new(&inventory(""));
        agenda.learn(&shop(), at("2030-01-01T00:00:00Z"), now);
        assert_eq!(agenda.next(now), Some(at("2026-06-11T00:00:00Z")));
    }

    #[test]
    fn another_hosts_backup_is_looked_at_again_and_counts_when_it_is_known() {
        let now = at("2026-06-10T00:00:00Z");
        let mut agenda = marked("2026-06-09T00:00:00Z", "2026-06-10T00:00:00Z");
        assert_eq!(agenda.due(now).len(), 1);
        agenda.end(&shop(), Outcome::Busy, now);
        assert_eq!(agenda.due(now + MINUTE / 2), Vec::new());
        assert_eq!(
            agenda.clone().due(now + MINUTE).len(),
            1,
            "it may have been killed"
        );
        agenda.learn(&shop(), now + SignedDuration::from_secs(1), now + MINUTE);
        assert_eq!(agenda.due(now + MINUTE), Vec::new());
    }

    #[test]
    fn a_new_inventory_forgets_nothing_of_what_is_in_both() {
        let now = at("2026-06-10T00:00:00Z");
        let mut before = marked("2026-06-09T00:00:00Z", "2026-06-10T00:00:00Z");
        assert_eq!(before.due(now).len(), 1);
        let mut agenda = Agenda::new(&inventory("[databases.events]\n"));
        agenda.follow(&before);
        assert_eq!(
            agenda.due(now + MINUTE),
            Vec::new(),
            "shop is being backed up"
        );
        let unknown: Vec<_> = agenda.without_mark().cloned().collect();
        assert_eq!(unknown, [Chore::Backup("events".into())]);
        agenda.end(&shop(), Outcome::Over, now + HOUR);
        assert_eq!(agenda.next(now + HOUR), Some(at("2026-06-11T00:00:00Z")));
    }
}
