//! The life of an entry: live, tombstone, gone; and what follows from one entry taking another's place.

use std::sync::Arc;

use super::pages::Row;
use super::timeline::{Form, Phase};
use super::{Store, is_reserved};
use crate::entry::{Entry, Version};
use crate::record::RecordHasher;
use crate::time::Wall;

fn second(ms: u64) -> u32 {
    Wall(ms).second().0
}

/// What the life of an entry depends on.
#[derive(Clone, Copy)]
pub(super) struct Life {
    pub reserved: bool,
    pub tombstone: bool,
    pub version: Version,
    pub ttl_ms: Option<u64>,
}

impl Life {
    pub fn of(entry: &Entry) -> Life {
        Life {
            reserved: entry.is_reserved(),
            tombstone: entry.tombstone,
            version: entry.version,
            ttl_ms: entry.ttl_ms,
        }
    }

    pub fn of_row(row: &Row<'_>) -> Life {
        Life {
            reserved: is_reserved(row.key),
            tombstone: row.tombstone,
            version: row.version,
            ttl_ms: row.ttl_ms,
        }
    }

    pub fn stamp_ms(self) -> u64 {
        self.version.stamp.wall().0
    }

    pub fn phase(self) -> Phase {
        if self.tombstone { Phase::Tombstone } else { Phase::Live }
    }
}

impl Store {
    /// When the present phase of an entry began, wall ms.
    pub(super) fn began_ms(&self, life: Life) -> u64 {
        let ttl = life.ttl_ms.filter(|_| life.tombstone).unwrap_or(0);
        life.stamp_ms().saturating_add(ttl)
    }

    /// When the present phase of an entry ends, wall ms.
    pub(super) fn end_ms(&self, life: Life) -> Option<u64> {
        let (stamp, ttl) = (life.stamp_ms(), life.ttl_ms);
        if life.reserved {
            Some(stamp.saturating_add(self.retention_ms))
        } else if life.tombstone {
            Some(stamp.saturating_add(self.tombstone_lifetime_ms.max(ttl.unwrap_or(0))))
        } else {
            ttl.map(|ttl| stamp.saturating_add(ttl))
        }
    }

    pub(super) fn form_of(&self, name: &[u8; 32], life: Life) -> Form {
        let flags = u8::from(life.tombstone) | if life.ttl_ms.is_some() { 2 } else { 0 };
        let sum = self.hasher.entry_element_of(name, life.version, flags, life.ttl_ms);
        Form::new(life.version, life.phase(), self.hasher.entry_tag_of(name, life.version), sum)
    }

    /// The phases of an entry up to its present one, or all, each with the second it begins in.
    pub(super) fn phases(&self, key: &[u8], life: Life, all: bool) -> Vec<(u32, Form)> {
        let name = self.hasher.entry_name(key);
        let mut phases = Vec::with_capacity(3);
        if life.tombstone && life.ttl_ms.is_some() {
            let live = Life { tombstone: false, ..life };
            phases.push((second(live.stamp_ms()), self.form_of(&name, live)));
        }
        let mut last = life;
        phases.push((second(self.began_ms(life)), self.form_of(&name, life)));
        if all && !life.reserved && !life.tombstone && life.ttl_ms.is_some() {
            last = Life { tombstone: true, ..life };
            phases.push((second(self.began_ms(last)), self.form_of(&name, last)));
        }
        if let Some(end) = self.end_ms(last).filter(|_| all) {
            let gone = Form::new(life.version, Phase::Gone, self.hasher.entry_tag_of(&name, life.version), 0);
            phases.push((second(end), gone));
        }
        phases
    }

    /// Puts an entry that wins in its place, with all that follows from it.
    pub(super) fn accept(&mut self, place: u64, entry: &Arc<Entry>) {
        let life = Life::of(entry);
        let mut forms = self.phases(&entry.key, life, false);
        let (Some(&(began, _)), Some(&(_, form))) = (forms.first(), forms.last()) else { return };
        let bucket = RecordHasher::bucket(place);
        let held = self.pages.get(place).map(|row| (Life::of_row(&row), row.bytes()));
        let mut current = None;
        let mut listed = false;
        if let Some((held, bytes)) = held {
            let old = self.form_of(&self.hasher.entry_name(&entry.key), held);
            current = Some(old);
            listed = !held.tombstone && !held.reserved;
            let over = self.end_ms(held).is_some_and(|end| second(end) <= began);
            if over && held.version < life.version {
                // What it replaces had ended before this was written, but nobody had looked yet.
                forms.splice(0..0, self.phases(&entry.key, held, true));
            }
            self.tree.replace(bucket, old.sum(), form.sum());
            self.count(held, bytes, false);
        } else {
            self.tree.add(bucket, form.sum());
        }
        if listed && entry.tombstone {
            self.keys.remove(&entry.key, place);
        }
        self.pages.put(place, form.tag, entry);
        if !listed && !entry.tombstone && !life.reserved {
            self.keys.insert(&entry.key, place, &self.pages);
        }
        self.count(life, entry.key.len() + entry.value.len(), true);
        if let Some(end) = held.and_then(|(held, _)| self.end_ms(held)) {
            self.due.remove(&(end, place));
        }
        if let Some(end) = self.end_ms(life) {
            self.due.insert((end, place));
        }
        self.timeline.book(place, current, &forms);
    }

    fn count(&mut self, life: Life, bytes: usize, enters: bool) {
        let one = usize::from(life.tombstone);
        if enters {
            self.bytes += bytes;
            self.tombstones += one;
        } else {
            self.bytes -= bytes;
            self.tombstones -= one;
        }
        self.refused &= enters;
    }

    /// Ends phases that end before this wall ms, the earliest first: at most so many.
    pub(super) fn end_before(&mut self, limit_ms: u64, most: usize) {
        for _ in 0..most {
            let Some(&(end, place)) = self.due.first().filter(|(end, _)| *end < limit_ms) else { return };
            self.due.remove(&(end, place));
            let Some(row) = self.pages.get(place) else { continue };
            let (life, bytes) = (Life::of_row(&row), row.bytes());
            if life.tombstone || life.reserved {
                let form = self.form_of(&self.hasher.entry_name(row.key), life);
                self.pages.remove(place);
                self.tree.remove(RecordHasher::bucket(place), form.sum());
                self.count(life, bytes, false);
                let gone = Form::new(life.version, Phase::Gone, form.tag, 0);
                self.timeline.book(place, Some(form), &[(second(end), gone)]);
            } else {
                let tombstone = buried(&row.entry());
                self.accept(place, &tombstone);
                self.expired.push(tombstone);
            }
        }
    }
}

/// The tombstone that an entry becomes when its lifetime ends: same version, same lifetime.
pub(super) fn buried(entry: &Entry) -> Arc<Entry> {
    Arc::new(Entry { key: entry.key.clone(), value: Arc::default(), tombstone: true, ..*entry })
}
