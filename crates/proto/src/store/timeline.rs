//! What each key showed at the end of each recent second (`S1`): the ring of per-second sums behind settled roots, and the
//! change log behind views.
//!
//! A key shows the greatest of all forms that began by then. So an older version that arrives after a newer one is written
//! into the past where it belongs: members that got the same entries have the same roots, whatever the order of arrival.

use crate::entry::Version;
use crate::merkle::Delta;
use crate::record::{RecordHasher, RumorId};
use crate::table::{Set, Table};
use crate::time::{CLOCK_AHEAD_MAX, Second};

/// Seconds of sums kept: the longest settle time and [`crate::time::CLOCK_AHEAD_MAX`], and some.
pub(super) const RING_SECS: u32 = 75;

/// A version passes through these.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Phase {
    Live,
    Tombstone,
    /// Removed for good, not counted.
    Gone,
}

/// What a key shows: one phase of one version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Form {
    pub version: Version,
    pub phase: Phase,
    pub tag: u32,
    sum: [u64; 2],
}

impl Form {
    pub fn new(version: Version, phase: Phase, tag: u32, sum: u128) -> Form {
        let sum = if phase == Phase::Gone { 0 } else { sum };
        Form { version, phase, tag, sum: [sum as u64, (sum >> 64) as u64] }
    }

    /// The larger wins.
    pub fn order(&self) -> (Version, Phase) {
        (self.version, self.phase)
    }

    pub fn sum(&self) -> u128 {
        u128::from(self.sum[0]) | u128::from(self.sum[1]) << 64
    }

    pub fn counts(&self) -> bool {
        self.phase != Phase::Gone
    }
}

fn sum_of(form: Option<&Form>) -> u128 {
    form.map_or(0, Form::sum)
}

#[derive(Clone, Copy)]
struct Change {
    before: Option<Form>,
    after: Form,
    /// Tag of the version that `after` replaced within the second.
    within: u32,
}

/// The ring and the change log.
pub(super) struct Timeline {
    ring: Table<u32, u128>,
    log: Table<(u64, u32), Change>,
    by_second: Set<(u32, u64)>,
    log_max: usize,
    /// Seconds that the log spans.
    span: u32,
    /// Changes of this second and earlier are not in the log.
    horizon: u32,
    /// Latest second of a change that did not fit the log.
    lost: u32,
}

impl Timeline {
    pub fn new(log_max: usize, settle_secs: u8) -> Timeline {
        Timeline {
            ring: Table::new(),
            log: Table::new(),
            by_second: Set::new(),
            log_max,
            span: (u32::from(settle_secs) + 11).clamp(14, RING_SECS - 1),
            horizon: 0,
            lost: 0,
        }
    }

    /// Forgets what lies too far back.
    pub fn trim(&mut self, now: Second) {
        // After a clock that was ahead: changes from here on are in the log again.
        let newest = now.plus(CLOCK_AHEAD_MAX.as_secs() as u32).0;
        (self.horizon, self.lost) = (self.horizon.min(newest), self.lost.min(newest));
        self.horizon = self.horizon.max(now.minus(self.span).0);
        while let Some(&(second, place)) = self.by_second.first().filter(|(s, _)| *s <= self.horizon) {
            self.by_second.remove(&(second, place));
            self.log.remove(&(place, second));
        }
        let oldest = now.minus(RING_SECS).0;
        while self.ring.first_key_value().is_some_and(|(&s, _)| s < oldest) {
            self.ring.pop_first();
        }
    }

    /// The changes of a key within the log, each with its second.
    fn past(&self, place: u64) -> impl Iterator<Item = (u32, &Change)> {
        let later = self.log.range((place, 0)..);
        later.take_while(move |((p, _), _)| *p == place).map(|((_, second), change)| (*second, change))
    }

    /// Did this key change within the log? Else whatever is older than what it shows is out of sight.
    pub fn touches(&self, place: u64) -> bool {
        self.past(place).next().is_some()
    }

    /// The last form of a key that changed within the log.
    pub fn last(&self, place: u64) -> Option<Form> {
        self.past(place).last().map(|(_, c)| c.after)
    }

    /// Writes forms into a key's past, each from its second on. `current`: what the key has shown last before this.
    pub fn book(&mut self, place: u64, current: Option<Form>, forms: &[(u32, Form)]) {
        let old: Vec<(u32, Change)> = self.past(place).map(|(s, c)| (s, *c)).collect();
        for (second, change) in &old {
            self.log.remove(&(place, *second));
            self.by_second.remove(&(*second, place));
            self.add(*second, change.after.sum(), sum_of(change.before.as_ref()), false);
        }
        let whole = old.last().is_none_or(|(_, c)| {
            Some(c.after) == current || (!c.after.counts() && current.is_none_or(|f| !f.counts()))
        });
        let mut events: Vec<(u32, Form, u32)> = old.iter().map(|(s, c)| (*s, c.after, c.within)).collect();
        let mut base = old.first().map_or(current, |(_, c)| c.before);
        if !whole {
            // A change of this key once found the log full: what is left of its past stays in the ring only.
            for (second, change) in &old {
                self.add(*second, change.after.sum(), sum_of(change.before.as_ref()), true);
                self.lost = self.lost.max(*second);
            }
            events.clear();
            base = current;
        }
        for (second, form) in forms {
            let hidden = |(s, f, _): &(u32, Form, u32)| s <= second && f.order() >= form.order();
            if base.is_some_and(|f| f.order() >= form.order()) || events.iter().any(hidden) {
                continue;
            }
            let within = events.iter().find(|(s, _, _)| s == second).map_or(form.tag, |(_, f, _)| f.tag);
            events.retain(|(s, f, _)| s < second || f.order() > form.order());
            let at = events.partition_point(|(s, _, _)| s < second);
            events.insert(at, (*second, *form, within));
        }
        let mut before = base;
        for (second, after, within) in events {
            self.add(second, after.sum(), sum_of(before.as_ref()), true);
            if second > self.horizon {
                if self.log.len() < self.log_max {
                    self.log.insert((place, second), Change { before, after, within });
                    self.by_second.insert((second, place));
                } else {
                    self.lost = self.lost.max(second);
                }
            }
            before = Some(after);
        }
    }

    fn add(&mut self, second: u32, after: u128, before: u128, book: bool) {
        let net = after.wrapping_sub(before);
        let sum = self.ring.or_default(second);
        *sum = if book { sum.wrapping_add(net) } else { sum.wrapping_sub(net) };
    }

    /// Sum of what changed after second T.
    pub fn sum_after(&self, settled: Second) -> u128 {
        self.ring.range(settled.0.saturating_add(1)..).fold(0, |sum, (_, s)| sum.wrapping_add(*s))
    }

    /// Does the log hold every change after T?
    pub fn reaches(&self, settled: Second) -> bool {
        settled.0 >= self.horizon && settled.0 >= self.lost
    }

    pub fn is_full(&self) -> bool {
        self.log.len() >= self.log_max
    }

    /// What to undo for a view at T: the sums, and what each changed key showed then.
    pub fn undo(&self, settled: Second) -> (Delta, Table<u64, Option<Form>>) {
        let from = (settled.0.saturating_add(1), 0);
        let mut then = Table::new();
        let mut changes = Vec::new();
        for &(second, place) in self.by_second.range(from..) {
            let Some(change) = self.log.get(&(place, second)) else { continue };
            let counted = |f: &Form| f.counts().then(|| f.sum());
            let bucket = RecordHasher::bucket(place);
            changes.push((bucket, change.before.as_ref().and_then(counted), counted(&change.after)));
            then.or_insert_with(place, || change.before.filter(Form::counts));
        }
        (Delta::new(changes), then)
    }

    /// The place of a key that showed this version within the log.
    pub fn find(&self, id: RumorId) -> Option<u64> {
        let first = u64::from(id.bucket) << 48;
        self.log
            .range((first, 0)..=(first | u64::MAX >> 16, u32::MAX))
            .find(|(_, c)| {
                c.after.tag == id.tag || c.within == id.tag || c.before.is_some_and(|f| f.tag == id.tag)
            })
            .map(|((place, _), _)| *place)
    }

    pub fn heap_bytes(&self) -> usize {
        self.ring.len() * 40 + self.log.len() * (size_of::<Change>() + 2 * 24 + 16)
    }
}
