//! Which places changed since they were last taken for the disk: each once, in the order of its first change.

use std::collections::VecDeque;

use crate::table::Set;

/// Places to be saved. Without one, nothing is noted.
#[derive(Default)]
pub(super) struct Journal {
    queue: VecDeque<u64>,
    waiting: Set<u64>,
    noted: u64,
    taken: u64,
    /// Removals beyond so many places are not noted: what a restart then finds is past its end, and goes.
    removals_max: usize,
}

impl Journal {
    pub fn new(removals_max: usize) -> Journal {
        Journal { removals_max, ..Journal::default() }
    }

    /// The row of this place changed, or (`removed`) is gone.
    pub fn note(&mut self, place: u64, removed: bool) {
        if removed && self.waiting.len() >= self.removals_max && !self.waiting.contains(&place) {
            return;
        }
        if self.waiting.insert(place) {
            self.queue.push_back(place);
            self.noted += 1;
        }
    }

    /// The place that has waited longest.
    pub fn take(&mut self) -> Option<u64> {
        let place = self.queue.pop_front()?;
        self.waiting.remove(&place);
        self.taken += 1;
        Some(place)
    }

    /// Places noted and taken so far. What is noted now has been taken when `taken` has come to today's `noted`.
    pub fn counts(&self) -> (u64, u64) {
        (self.noted, self.taken)
    }
}
