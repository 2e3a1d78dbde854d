//! Records that others announced in repair and that are missing here (`S5`, `R4`): asked for a few hundred at a time, again when
//! no answer comes, at the back of the queue when none comes for long.

use std::collections::VecDeque;
use std::time::Duration;

use crate::member::MemberId;
use crate::record::RumorId;
use crate::table::{Set, Table};
use crate::time::Mono;

/// Repeats of a WANT before it goes to the back of the queue.
const TRIES: u32 = 3;
/// Times at the back of the queue before it is forgotten, if nothing at all arrives for [`IDLE`].
const TRIPS: u8 = 2;
const IDLE: Duration = Duration::from_secs(5);

struct Pending {
    peer: MemberId,
    deadline: Mono,
    tries: u32,
    trips: u8,
}

/// WANTs to send: to whom, which.
pub(super) type Asks = Table<MemberId, Vec<RumorId>>;

pub(super) struct Needs {
    pending_max: usize,
    queue_max: usize,
    queue: VecDeque<(RumorId, u8)>,
    queued: Table<RumorId, MemberId>,
    pending: Table<RumorId, Pending>,
    deadlines: Set<(Mono, RumorId)>,
    open: Table<MemberId, usize>,
    last_arrived: Mono,
    pub dropped: u64,
}

impl Needs {
    pub fn new(pending_max: usize, queue_max: usize) -> Needs {
        Needs {
            pending_max: pending_max.max(2),
            queue_max,
            queue: VecDeque::new(),
            queued: Table::new(),
            pending: Table::new(),
            deadlines: Set::new(),
            open: Table::new(),
            last_arrived: Mono(0),
            dropped: 0,
        }
    }

    /// How many records of this peer are outstanding.
    pub fn open(&self, peer: MemberId) -> usize {
        self.open.get(&peer).copied().unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.queued.is_empty()
    }

    fn count(&mut self, peer: MemberId, more: bool) {
        let open = self.open.or_default(peer);
        *open = if more { *open + 1 } else { open.saturating_sub(1) };
        if *open == 0 {
            self.open.remove(&peer);
        }
    }

    /// Already asked for or waiting? Then this announcer becomes the target.
    fn retarget(&mut self, peer: MemberId, id: RumorId) -> bool {
        let old = match (self.pending.get_mut(&id), self.queued.get_mut(&id)) {
            (Some(pending), _) => std::mem::replace(&mut pending.peer, peer),
            (None, Some(target)) => std::mem::replace(target, peer),
            (None, None) => return false,
        };
        self.count(old, false);
        self.count(peer, true);
        true
    }

    /// Queues what is not under way.
    pub fn add(&mut self, peer: MemberId, ids: &[RumorId]) {
        for &id in ids {
            if self.retarget(peer, id) {
                continue;
            }
            if self.queued.len() >= self.queue_max {
                self.dropped += 1;
                continue;
            }
            self.queue.push_back((id, 0));
            self.queued.insert(id, peer);
            self.count(peer, true);
        }
    }

    /// What may be asked of this peer in the message now being written; the rest is queued.
    pub fn admit(&mut self, now: Mono, wait: Duration, peer: MemberId, ids: &[RumorId]) -> Vec<RumorId> {
        let mut asked = Vec::new();
        for &id in ids {
            if self.queue.is_empty() && self.pending.len() < self.pending_max && !self.retarget(peer, id) {
                self.count(peer, true);
                self.start(id, Pending { peer, deadline: now + wait, tries: 0, trips: 0 });
                asked.push(id);
            } else {
                self.add(peer, &[id]);
            }
        }
        asked
    }

    fn start(&mut self, id: RumorId, pending: Pending) {
        self.deadlines.insert((pending.deadline, id));
        self.pending.insert(id, pending);
    }

    /// Takes from the queue when less than half of what may be pending is, so that WANTs carry many ids.
    pub fn pump(&mut self, now: Mono, wait: Duration) -> Asks {
        let mut asks = Asks::new();
        if self.pending.len() > self.pending_max / 2 {
            return asks;
        }
        while self.pending.len() < self.pending_max {
            let Some((id, trips)) = self.queue.pop_front() else { break };
            let Some(peer) = self.queued.remove(&id) else { continue };
            self.start(id, Pending { peer, deadline: now + wait, tries: 0, trips });
            asks.or_default(peer).push(id);
        }
        asks
    }

    /// A record came: whose it was to send, if it was asked for or waiting.
    pub fn arrived(&mut self, now: Mono, id: RumorId) -> Option<MemberId> {
        let peer = match self.pending.remove(&id) {
            Some(pending) => {
                self.deadlines.remove(&(pending.deadline, id));
                pending.peer
            }
            None => self.queued.remove(&id)?,
        };
        self.last_arrived = now;
        self.count(peer, false);
        Some(peer)
    }

    /// This peer does not have it: true if it was asked. Whoever announced it since is still asked.
    pub fn refused(&mut self, now: Mono, peer: MemberId, id: RumorId) -> bool {
        let asked = self.pending.get(&id).map(|p| p.peer).or(self.queued.get(&id).copied());
        asked == Some(peer) && self.arrived(now, id).is_some()
    }

    pub fn deadline(&self) -> Mono {
        self.deadlines.first().map_or(Mono::FAR, |(at, _)| *at)
    }

    /// WANTs to repeat.
    pub fn handle_timeout(&mut self, now: Mono, wait: Duration) -> Asks {
        let mut asks = Asks::new();
        while let Some(&(at, id)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, id));
            let Some(mut pending) = self.pending.remove(&id) else { continue };
            if pending.tries < TRIES {
                pending.tries += 1;
                pending.deadline = now + wait * (1 << pending.tries);
                asks.or_default(pending.peer).push(id);
                self.start(id, pending);
            } else if pending.trips < TRIPS || now.since(self.last_arrived) < IDLE {
                self.queue.push_back((id, pending.trips.saturating_add(1)));
                self.queued.insert(id, pending.peer);
            } else {
                self.count(pending.peer, false);
            }
        }
        asks
    }

    /// Forgets what this peer was to send.
    pub fn forget(&mut self, peer: MemberId) {
        let gone: Vec<RumorId> =
            self.pending.iter().filter(|(_, p)| p.peer == peer).map(|(id, _)| *id).collect();
        for id in gone {
            if let Some(pending) = self.pending.remove(&id) {
                self.deadlines.remove(&(pending.deadline, id));
            }
        }
        self.queued.retain(|_, target| *target != peer);
        let queued = &self.queued;
        self.queue.retain(|(id, _)| queued.contains_key(id));
        self.open.remove(&peer);
    }
}
