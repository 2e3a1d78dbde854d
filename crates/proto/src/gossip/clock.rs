//! How far the own wall clock is off those of the members that beat me (section 2.3).

use std::time::Duration;

use super::Gossip;
use crate::member::MemberId;
use crate::output::Event;
use crate::table::Table;
use crate::time::{Mono, Now};
use crate::wire::Beat;

/// Own clock's distance from the partners' median that is told, and below which it may be told again.
const CLOCK_OFF_MS: u64 = 10_000;
const CLOCK_FINE_MS: u64 = 5_000;
/// Members whose clocks are compared; the one not heard for longest makes room.
pub(super) const DRIFTS_MAX: usize = 64;
/// Changes below this leave a member's distance as it is, and the median uncomputed.
const DRIFT_STEP_MS: u64 = 50;
/// A member that has not beaten me for so many periods goes when another begins to.
const PERIODS_MAX: u32 = 10;

struct Drift {
    at: Mono,
    off_ms: i64,
}

/// Own wall clock minus that of each member that beats me.
#[derive(Default)]
pub(super) struct Clock {
    drifts: Table<MemberId, Drift>,
    median_ms: i64,
    told: bool,
}

impl Clock {
    /// Own wall clock minus the median of the others', ms; 0 without others.
    pub(super) fn off_ms(&self) -> i64 {
        self.median_ms
    }

    /// Members whose clocks are compared.
    pub(super) fn len(&self) -> usize {
        self.drifts.len()
    }

    #[cfg(test)]
    pub(super) fn knows(&self, id: MemberId) -> bool {
        self.drifts.contains_key(&id)
    }

    /// The member is gone: its clock counts no more.
    pub(super) fn forget(&mut self, id: MemberId) {
        if self.drifts.remove(&id).is_some() {
            self.median();
        }
    }

    fn median(&mut self) {
        let mut all: Vec<i64> = self.drifts.values().map(|d| d.off_ms).collect();
        all.sort_unstable();
        self.median_ms = all.get(all.len() / 2).copied().unwrap_or(0);
    }

    fn note(&mut self, now: Mono, from: MemberId, off_ms: i64, keep: Duration) {
        if let Some(drift) = self.drifts.get_mut(&from) {
            drift.at = now;
            if drift.off_ms.abs_diff(off_ms) < DRIFT_STEP_MS {
                return;
            }
            drift.off_ms = off_ms;
        } else {
            self.drifts.retain(|_, drift| drift.at + keep > now);
            if self.drifts.len() >= DRIFTS_MAX {
                let oldest = self.drifts.iter().min_by_key(|(_, d)| d.at).map(|(id, _)| *id);
                oldest.and_then(|id| self.drifts.remove(&id));
            }
            self.drifts.insert(from, Drift { at: now, off_ms });
        }
        self.median();
    }
}

impl Gossip {
    /// A BEAT of an edge tells the sender's clock; the user is told once when mine is over 10 s off.
    pub(super) fn note_drift(&mut self, now: Now, from: MemberId, beat: &Beat) {
        if beat.once {
            return;
        }
        let off_ms = (now.wall.0 as i64).saturating_sub(beat.clock.wall().0 as i64);
        let keep = self.config.detector.beat_period * PERIODS_MAX;
        self.clock.note(now.mono, from, off_ms, keep);
        let off_ms = self.clock.off_ms();
        if off_ms.unsigned_abs() > CLOCK_OFF_MS && !self.clock.told {
            self.clock.told = true;
            self.tell(Event::ClockOff { off_ms });
        } else if off_ms.unsigned_abs() < CLOCK_FINE_MS {
            self.clock.told = false;
        }
    }
}
