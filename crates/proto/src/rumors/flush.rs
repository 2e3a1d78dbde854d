//! The flush (`R2`): news leaves shortly after its birth, to a few random peers, the same content to each; much payload is
//! striped.

use super::content::Content;
use super::hot::{CLAIMS, Hot, QUEUES, What};
use super::{Pending, Rumors};
use crate::budget::{Budget, Class};
use crate::config::Gossip;
use crate::member::MemberId;
use crate::rng::Rng;
use crate::roster::Roster;
use crate::time::Mono;

/// More datagrams of payload than this are striped.
const STRIPE_FROM_DATAGRAMS: usize = 4;

/// What is under way for members' news (0) or users' entries (1).
pub(super) struct Lane {
    pub class: Class,
    due: Mono,
    last: Option<Mono>,
    active: bool,
    peers: Vec<MemberId>,
    striped: bool,
    /// A datagram had to wait for tokens since the peers were chosen.
    pub stalled: bool,
    pub pending: Option<Pending>,
    pub tokens_at: Mono,
    /// Rumors that the running tick has still to tell, last first.
    pub tick: Vec<u64>,
    pub ticks_turn: bool,
}

impl Lane {
    pub fn new(class: Class) -> Lane {
        Lane {
            class,
            due: Mono::FAR,
            last: None,
            active: false,
            peers: Vec::new(),
            striped: false,
            stalled: false,
            pending: None,
            tokens_at: Mono::FAR,
            tick: Vec::new(),
            ticks_turn: false,
        }
    }

    /// If no flush is due: at max(now + U(0, jitter), last flush + gap).
    pub fn schedule(&mut self, now: Mono, gossip: &Gossip, rng: &mut Rng) {
        if self.due == Mono::FAR && !self.active {
            let after_gap = self.last.map_or(Mono(0), |last| last + gossip.flush_gap);
            self.due = after_gap.max(now + rng.up_to(gossip.flush_jitter));
        }
    }

    pub fn is_due(&self, now: Mono) -> bool {
        now >= self.due
    }

    /// Flushes now instead of somewhat later, along with the other lane.
    pub fn hasten(&mut self, now: Mono) {
        if self.due != Mono::FAR {
            self.due = now;
        }
    }

    pub fn deadline(&self) -> Mono {
        if self.pending.is_some() { self.tokens_at } else { self.due }
    }
}

impl Rumors {
    /// Starts the flush of a lane that is due, ends one that has nothing left. True: there is something to build.
    pub(super) fn flush_is_ready(&mut self, lane: usize, now: Mono, roster: &Roster, rng: &mut Rng) -> bool {
        let waiting = self.hot.is_waiting(lane);
        let payload = self.hot.payload_waiting(lane);
        let state = &mut self.lanes[lane];
        if !waiting {
            if state.active {
                state.last = Some(now);
                state.active = false;
            }
            state.due = Mono::FAR;
            return false;
        }
        if !state.active && now < state.due {
            return false;
        }
        // A flush that had to wait for tokens goes on like a new one.
        if !state.active || state.stalled {
            state.active = true;
            state.stalled = false;
            state.due = Mono::FAR;
            state.peers = roster.pick_living(rng, self.gossip.flush_peers);
            state.striped = payload > STRIPE_FROM_DATAGRAMS * self.room;
        }
        true
    }

    /// One datagram of a running flush.
    pub(super) fn build_flush(
        &mut self,
        lane: usize,
        now: Mono,
        budget: &mut Budget,
        rng: &mut Rng,
    ) -> Pending {
        let mut content = Content::new(self.room);
        let class = self.lanes[lane].class;
        let peers = self.lanes[lane].peers.clone();
        if lane == 0 {
            self.fill_claims(&mut content);
        }
        if self.lanes[lane].striped && !content.has_claims() {
            let (whole, ids) = QUEUES[lane];
            let older_ids = match (self.hot.first_waiting(whole), self.hot.first_waiting(ids)) {
                (Some(payload), Some(id)) => id < payload,
                (None, _) => true,
                (_, None) => false,
            };
            if older_ids {
                self.fill_queue(&mut content, ids);
                return Pending { to: peers, content, class };
            }
            let full = !self.fill_queue(&mut content, whole);
            if full {
                let one = rng.below(peers.len());
                return Pending { to: peers.into_iter().skip(one).take(1).collect(), content, class };
            }
        }
        self.fill_by_age(&mut content, lane);
        let entries_may_ride = lane == 0
            && self.lanes[1].pending.is_none()
            && self.hot.payload_waiting(1) <= STRIPE_FROM_DATAGRAMS * self.room
            && budget.available(now, Class::Entries) >= (self.room + self.overhead) * peers.len();
        if entries_may_ride && self.hot.is_waiting(1) {
            self.fill_by_age(&mut content, 1);
            self.lanes[1].last = Some(now);
        }
        Pending { to: peers, content, class }
    }

    fn fill_claims(&mut self, content: &mut Content) {
        self.fill_queue(content, CLAIMS);
    }

    /// Payloads and ids of a lane, oldest first, as long as they fit.
    fn fill_by_age(&mut self, content: &mut Content, lane: usize) {
        let (whole, ids) = QUEUES[lane];
        let (mut payloads_fit, mut ids_fit) = (true, true);
        loop {
            let payload = self.hot.first_waiting(whole).filter(|_| payloads_fit);
            let id = self.hot.first_waiting(ids).filter(|_| ids_fit);
            match (payload, id) {
                (None, None) => return,
                (Some(p), i) if i.is_none_or(|i| p < i) => payloads_fit = self.add_first(content, p),
                (_, Some(i)) => ids_fit = self.add_first(content, i),
                (Some(_), None) => return,
            }
        }
    }

    /// False: the next of the queue did not fit.
    fn fill_queue(&mut self, content: &mut Content, queue: usize) -> bool {
        while let Some(number) = self.hot.first_waiting(queue) {
            if !self.add_first(content, number) {
                return false;
            }
        }
        true
    }

    fn add_first(&mut self, content: &mut Content, number: u64) -> bool {
        let fits = self.hot.get(number).is_none_or(|hot| add(content, hot, hot.whole));
        if fits {
            self.metrics.hot_dropped += self.hot.flushed(number);
        }
        fits
    }
}

/// Adds a rumor to a datagram, with its payload or as an id; claims always whole.
pub(super) fn add(content: &mut Content, hot: &Hot, whole: bool) -> bool {
    match &hot.what {
        What::Claim(claim) => content.add_claim(claim),
        What::Record(record, _) if whole && !hot.large => {
            content.fits_record(hot.bytes) && content.add_record(hot.hop, record.clone(), hot.bytes)
        }
        What::Record(_, id) => content.add_id(*id, hot.large),
    }
}
