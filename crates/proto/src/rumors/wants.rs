//! Asking for what was only announced (`R4`), and telling what was known already (feedback of Demers' variants).

use std::time::Duration;

use super::content;
use crate::member::MemberId;
use crate::record::RumorId;
use crate::table::{Set, Table};
use crate::time::Mono;
use crate::wire::Message;

/// Times a WANT is repeated, each after W. Doubling the wait instead costs a third of the time to the last of 100 members at
/// 20 % loss (361 ms for 281 ms) and gains nothing under overload.
const TRIES: u8 = 3;
/// Longer round trips count as this.
const RTT_MAX: Duration = Duration::from_secs(60);
/// Ids of SEEN that may wait.
const SEEN_MAX: usize = 4_096;

struct Want {
    target: MemberId,
    tries: u8,
    due: Mono,
}

/// What waits for one member.
#[derive(Default)]
struct Outgoing {
    wants: Vec<RumorId>,
    seen: Vec<RumorId>,
}

/// One datagram of WANT and SEEN.
pub(super) struct Asks {
    pub to: MemberId,
    pub messages: Vec<Message>,
    pub bytes: usize,
    pub wants: usize,
}

/// Pending WANTs and what is to be sent for them.
pub(super) struct Wants {
    pending: Table<RumorId, Want>,
    due: Set<(Mono, RumorId)>,
    outbox: Table<MemberId, Outgoing>,
    seen_waiting: usize,
    max: usize,
    wait: Duration,
    /// When the outbox may be tried again.
    pub tokens_at: Mono,
}

impl Wants {
    pub fn new(max: usize, rtt: Duration) -> Wants {
        let mut wants = Wants {
            pending: Table::new(),
            due: Set::new(),
            outbox: Table::new(),
            seen_waiting: 0,
            max,
            wait: Duration::ZERO,
            tokens_at: Mono(0),
        };
        wants.set_rtt(rtt);
        wants
    }

    /// W = 1.1 x recent maximum + 20 ms.
    pub fn set_rtt(&mut self, rtt_max: Duration) {
        self.wait = rtt_max.min(RTT_MAX).mul_f64(1.1) + Duration::from_millis(20);
    }

    pub fn announce(&mut self, now: Mono, from: MemberId, id: RumorId) {
        if let Some(want) = self.pending.get_mut(&id) {
            want.target = from;
        } else if self.pending.len() < self.max {
            let due = now + self.wait;
            self.pending.insert(id, Want { target: from, tries: 0, due });
            self.due.insert((due, id));
            self.ask(from, id);
        }
    }

    fn ask(&mut self, target: MemberId, id: RumorId) {
        let outgoing = self.outbox.or_default(target);
        // While tokens lack, the times of repeats pass without anything having left.
        if !outgoing.wants.contains(&id) {
            outgoing.wants.push(id);
        }
    }

    /// Known ids, to be told to `to`; dropped when too many wait.
    pub fn tell_known(&mut self, to: MemberId, known: &[RumorId]) {
        if !known.is_empty() && self.seen_waiting + known.len() <= SEEN_MAX {
            self.seen_waiting += known.len();
            self.outbox.or_default(to).seen.extend_from_slice(known);
        }
    }

    pub fn end(&mut self, id: RumorId) {
        if let Some(want) = self.pending.remove(&id) {
            self.due.remove(&(want.due, id));
        }
    }

    pub fn len(&self) -> usize {
        self.pending.len()
    }

    pub fn deadline(&self) -> Mono {
        self.due.first().map_or(Mono::FAR, |(due, _)| *due)
    }

    /// Repeats what is due; returns how many were given up.
    pub fn handle_timeout(&mut self, now: Mono) -> u64 {
        let mut given_up = 0;
        while let Some(&(due, id)) = self.due.first().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, id));
            let Some(want) = self.pending.get_mut(&id) else { continue };
            if want.tries >= TRIES {
                self.pending.remove(&id);
                given_up += 1;
                continue;
            }
            want.tries += 1;
            want.due = now + self.wait;
            let target = want.target;
            self.due.insert((want.due, id));
            self.ask(target, id);
        }
        given_up
    }

    pub fn outbox_is_empty(&self) -> bool {
        self.outbox.is_empty()
    }

    /// What one member is to be told, up to `room` bytes. WANTs that ended in the meantime are left out.
    pub fn poll(&mut self, room: usize) -> Option<Asks> {
        loop {
            let (&to, outgoing) = self.outbox.first_mut()?;
            let pending = &self.pending;
            outgoing.wants.retain(|id| pending.contains_key(id));
            let wants = split(&mut outgoing.wants, content::ids_that_fit(room));
            let wants_bytes = if wants.is_empty() { 0 } else { content::ids_bytes(wants.len()) };
            let seen = split(&mut outgoing.seen, content::ids_that_fit(room.saturating_sub(wants_bytes)));
            let seen_bytes = if seen.is_empty() { 0 } else { content::ids_bytes(seen.len()) };
            self.seen_waiting = self.seen_waiting.saturating_sub(seen.len());
            if outgoing.wants.is_empty() && outgoing.seen.is_empty() {
                self.outbox.remove(&to);
            }
            let asked = wants.len();
            let mut messages = Vec::with_capacity(2);
            if asked > 0 {
                messages.push(Message::Want { repair: false, large: false, ids: wants });
            }
            if !seen.is_empty() {
                messages.push(Message::Seen(seen));
            }
            if !messages.is_empty() {
                return Some(Asks { to, messages, bytes: wants_bytes + seen_bytes, wants: asked });
            }
        }
    }
}

/// Takes the first `count`.
fn split(ids: &mut Vec<RumorId>, count: usize) -> Vec<RumorId> {
    let rest = ids.split_off(count.min(ids.len()));
    std::mem::replace(ids, rest)
}
