//! Invariants, looked at on every step (sampled where a look costs more than the step).

use hearsay_proto::Event;
use hearsay_proto::member::{Incarnation, Liveness, MemberId};
use hearsay_proto::table::Table;
use hearsay_proto::time::Mono;

use crate::world::Host;

/// Steps of one host between two full audits of its state against a rebuild, at least; large worlds: 4 per member.
const AUDIT_EVERY: u64 = 512;

/// What one host's user was told of one member.
#[derive(Clone, Copy, Debug)]
struct Belief {
    incarnation: Incarnation,
    liveness: Liveness,
}

/// Collects violations; the first ones name host and time.
pub struct Checker {
    /// Violations, oldest first, at most a hundred.
    pub failures: Vec<String>,
    /// Only what differs from alive at incarnation 0, which binds nothing: an idle world keeps none.
    beliefs: Vec<Table<MemberId, Belief>>,
    own: Vec<(MemberId, Incarnation)>,
    steps: Vec<u64>,
    second_bytes_max: u64,
    audit_every: u64,
    /// Audits made.
    pub audits: u64,
}

impl Checker {
    /// For this many hosts under this budget per second.
    pub fn new(hosts: usize, bytes_per_second_max: u64) -> Checker {
        Checker {
            failures: Vec::new(),
            beliefs: vec![Table::new(); hosts],
            own: vec![(MemberId::NONE, Incarnation(0)); hosts],
            steps: vec![0; hosts],
            second_bytes_max: bytes_per_second_max * 13 / 10,
            audit_every: AUDIT_EVERY.max(4 * hosts as u64),
            audits: 0,
        }
    }

    /// Audits a host each so many of its steps: an audit takes a microsecond a record.
    pub fn audit_each(&mut self, steps: u64) {
        self.audit_every = steps.max(AUDIT_EVERY);
    }

    /// Notes a violation.
    pub fn fail(&mut self, what: String) {
        if self.failures.len() < 100 {
            self.failures.push(what);
        }
    }

    /// A process started afresh: what its predecessor believed does not bind it.
    pub fn started(&mut self, host: usize) {
        self.beliefs[host].clear();
        self.own[host] = (MemberId::NONE, Incarnation(0));
    }

    /// A host's user was told something: states move only as section 2.1 allows.
    pub fn told(&mut self, host: usize, at: Mono, event: &Event) {
        let (member, liveness) = match event {
            Event::MemberJoined(m) | Event::MemberUpdated(m) => (m, m.liveness),
            Event::MemberSuspected(m) => (m, Liveness::Suspect),
            Event::MemberRefuted(m) | Event::MemberRevived(m) => (m, Liveness::Alive),
            Event::MemberDied(m) => (m, Liveness::Dead),
            Event::MemberLeft(m) => (m, Liveness::Left),
            Event::MemberForgotten(m) => {
                self.beliefs[host].remove(&m.id());
                return;
            }
            _ => return,
        };
        let new = Belief { incarnation: member.incarnation, liveness };
        let old = if new.incarnation == Incarnation(0) && liveness == Liveness::Alive {
            self.beliefs[host].get_mut(&member.id()).map(|known| std::mem::replace(known, new))
        } else {
            self.beliefs[host].insert(member.id(), new)
        };
        let Some(old) = old else { return };
        let name = member.name();
        if new.incarnation < old.incarnation {
            self.fail(format!("host {host} at {at:?}: incarnation of {name} fell from {old:?} to {new:?}"));
        }
        let came_back = matches!(event, Event::MemberRefuted(_) | Event::MemberRevived(_));
        // Alone (D14) may take a death back at the same incarnation: it was never published.
        if came_back && old.liveness == Liveness::Suspect && new.incarnation <= old.incarnation {
            self.fail(format!("host {host} at {at:?}: {name} came back at the same incarnation {old:?}"));
        }
        if matches!(event, Event::MemberSuspected(_)) && old.liveness == Liveness::Dead {
            self.fail(format!("host {host} at {at:?}: {name} suspected while dead"));
        }
    }

    /// A host handled an input and drained its outputs.
    pub fn stepped(&mut self, index: usize, host: &Host) {
        let Some(gossip) = host.gossip.as_ref() else { return };
        self.steps[index] += 1;
        if host.second.1 > self.second_bytes_max {
            self.fail(format!(
                "host {index}: {} bytes in second {}, at most {} allowed",
                host.second.1, host.second.0, self.second_bytes_max
            ));
        }
        if self.steps[index].is_multiple_of(self.audit_every) {
            self.audits += 1;
            if let Err(error) = gossip.audit() {
                self.fail(format!("host {index}: {error}"));
            }
        }
        if let Some(me) = gossip.me() {
            let (id, known) = self.own[index];
            if id == me.id() && me.incarnation < known {
                self.fail(format!("host {index}: own incarnation fell to {:?}", me.incarnation));
            }
            self.own[index] = (me.id(), me.incarnation);
        }
    }
}
