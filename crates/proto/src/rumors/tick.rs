//! The tick (`R3`): while something is hot, claims whole and ids to a few random peers, until a rumor has had its rounds.

use std::time::Duration;

use super::content::Content;
use super::demers::{Outcome, Rule};
use super::flush::add;
use super::hot::What;
use super::{Pending, Rumors};
use crate::budget::{Budget, Class};
use crate::config::{Interest, Mode};
use crate::rng::Rng;
use crate::roster::Roster;
use crate::time::Mono;

/// Rumors younger than this are left out: their flush is still under way.
const YOUNG: Duration = Duration::from_millis(50);
/// With feedback a rumor goes cold after this many rounds, whatever was answered: answers may be lost for ever.
const ROUNDS_MAX: u32 = 64;

/// The next point of the fixed phase after `now`.
pub(super) fn next(now: Mono, phase: Duration, interval: Duration) -> Mono {
    let interval = (interval.as_nanos() as u64).max(1);
    let phase = phase.as_nanos() as u64 % interval;
    let passed = (now.0 % interval + interval - phase) % interval;
    Mono(now.0.saturating_add(interval - passed))
}

impl Rumors {
    /// Chooses peers and what to tell them. What the last tick could not send for lack of tokens is among it, and first.
    pub(super) fn start_tick(&mut self, now: Mono, roster: &Roster, rng: &mut Rng) {
        self.tick_number += 1;
        if self.hot.is_empty() {
            self.tick_due = Mono::FAR;
            return;
        }
        self.tick_due = next(now, self.phase.unwrap_or_default(), self.gossip.interval);
        self.tick_peers = roster.pick_living(rng, self.gossip.fanout);
        let before = Mono(now.0.saturating_sub(YOUNG.as_nanos() as u64));
        for lane in 0..self.lanes.len() {
            let mut numbers = self.hot.for_tick(lane, before);
            if let Interest::Demers { feedback, loss, k } = self.gossip.interest {
                let rule = Rule { feedback, loss, k };
                numbers.retain(|&number| !self.goes_cold(number, rule, rng));
            }
            numbers.reverse();
            self.lanes[lane].tick = numbers;
        }
    }

    /// Judges what the contacts of the last tick brought (Demers' variants) and removes a rumor that lost interest.
    fn goes_cold(&mut self, number: u64, rule: Rule, rng: &mut Rng) -> bool {
        let pushed = self.gossip.mode == Mode::Push;
        let Some(hot) = self.hot.get_mut(number).filter(|hot| !matches!(hot.what, What::Claim(_))) else {
            return false;
        };
        let outcome = if !rule.feedback {
            if hot.contacts > 0 { Outcome::Useless } else { Outcome::Nothing }
        } else if hot.wants > 0 || (pushed && hot.seen < hot.contacts) {
            // A payload that nobody says he had was news.
            Outcome::Useful
        } else if hot.seen > 0 {
            Outcome::Useless
        } else {
            Outcome::Nothing
        };
        (hot.contacts, hot.wants, hot.seen) = (0, 0, 0);
        let cold = rule.cycle(&mut hot.count, outcome, rng) || hot.rounds >= ROUNDS_MAX;
        if cold {
            self.hot.remove(number);
        }
        cold
    }

    /// One datagram of the running tick.
    pub(super) fn build_tick(&mut self, lane: usize, now: Mono, budget: &mut Budget) -> Pending {
        let mut content = Content::new(self.room);
        self.fill_tick(&mut content, lane);
        let entries_may_ride = lane == 0
            && self.lanes[1].pending.is_none()
            && budget.available(now, Class::Entries) >= (self.room + self.overhead) * self.tick_peers.len();
        if entries_may_ride {
            self.fill_tick(&mut content, 1);
        }
        Pending { to: self.tick_peers.clone(), content, class: self.lanes[lane].class }
    }

    fn fill_tick(&mut self, content: &mut Content, lane: usize) {
        let whole = self.gossip.mode == Mode::Push;
        let demers = matches!(self.gossip.interest, Interest::Demers { .. });
        while let Some(&number) = self.lanes[lane].tick.last() {
            let contacts = self.tick_peers.len() as u32;
            let rounds = self.spread.rounds;
            if let Some(hot) = self.hot.get_mut(number).filter(|hot| hot.flushed) {
                if !add(content, hot, whole) {
                    return;
                }
                hot.rounds += 1;
                hot.contacts += contacts;
                let adaptive = !demers || matches!(hot.what, What::Claim(_));
                if adaptive && hot.rounds >= rounds {
                    self.hot.remove(number);
                }
            }
            self.lanes[lane].tick.pop();
        }
    }
}
