//! The hall: the only place that sees all parts; every input enters and every output leaves here.
//!
//! - `mod.rs` state, construction and the turn: inputs, time, outputs
//! - `inbound.rs` routes messages to parts
//! - `claims.rs` liveness: claims, refutation, what follows from a change of a member
//! - `clock.rs` how far the own clock is off
//! - `heal.rs` what a heal cost and brought
//! - `keep.rs` the disk: batches, what is saved, what is read at a start
//! - `records.rs` records: merging, rumors of what is new
//! - `absent.rs` what a long absence costs (`S7`)
//! - `actions.rs` does what parts ask for
//! - `outbound.rs` packs messages into datagrams and frames within the budget
//! - `commands.rs` what users ask and read
//! - `talk.rs` broadcasts, queries, mail and confirmations

mod absent;
mod actions;
mod claims;
mod clock;
mod commands;
mod heal;
mod inbound;
mod keep;
mod outbound;
mod records;
mod talk;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::absence::Absence;
use crate::budget::Budget;
use crate::config::Config;
pub use crate::config::Seed;
use crate::confirm::Confirm;
use crate::detector::Detector;
use crate::entry::{Key, Version};
use crate::join::Join;
use crate::member::{
    Generation, Incarnation, Liveness, Member, MemberId, NAME_BYTES_MAX, Profile, TAGS_BYTES_MAX, Tags,
    tags_bytes,
};
use crate::metrics::{DetectorMetrics, RumorMetrics, SyncMetrics, TalkMetrics, Traffic};
use crate::output::{CallError, Event, Output, StreamId};
use crate::persist::Persist;
use crate::record::RecordHasher;
use crate::rng::Rng;
use crate::roster::Roster;
use crate::rumors::Rumors;
use crate::store::Store;
use crate::sync::Sync;
use crate::sync::members::MemberIndex;
use crate::table::Table;
use crate::talk::Talk;
use crate::time::{Mono, Now, Second};
use crate::transfer::Transfer;
use crate::wire::{self, Roots};

use heal::Heal;
use outbound::{Outbox, Ready};

/// Who a member is at start.
#[derive(Clone, PartialEq, Debug)]
pub struct Identity {
    /// 1..=128 bytes of printable UTF-8.
    pub name: String,
    /// Largest generation this name is known to have used before; the new one is max(that + 1, wall clock ms).
    pub generation_stored: Option<Generation>,
    /// Address others should use.
    pub address: SocketAddr,
    /// Tags.
    pub tags: Tags,
}

/// How far a leave has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leave {
    No,
    Spreading { until: Mono },
    Done,
}

/// When something was last done for a member; bounded, the oldest goes when full.
#[derive(Default)]
struct Times(Table<MemberId, Mono>);

/// Most members whose last notice or successor's record is remembered (section 7).
const TIMES_MAX: usize = 1_024;

impl Times {
    /// Notes `now` for `id` if nothing was noted within `gap` before.
    fn due(&mut self, id: MemberId, now: Mono, gap: std::time::Duration) -> bool {
        if self.0.get(&id).is_some_and(|&last| last + gap > now) {
            return false;
        }
        if self.0.len() >= TIMES_MAX && !self.0.contains_key(&id) {
            let oldest = self.0.iter().min_by_key(|(_, at)| **at).map(|(id, _)| *id);
            oldest.and_then(|id| self.0.remove(&id));
        }
        self.0.insert(id, now);
        true
    }
}

/// One member's protocol state machine: inputs are `handle_*`, commands imperative, outputs [`Gossip::poll_output`].
/// After each input or command, poll until [`Output::Wait`].
pub struct Gossip {
    config: Config,
    label: u16,
    rng: Rng,
    roster: Roster,
    detector: Detector,
    rumors: Rumors,
    store: Store,
    sync: Sync,
    index: MemberIndex,
    absence: Absence,
    /// Users' entries dropped by `S7` that have not come back yet.
    dropped: Table<Key, Version>,
    join: Join,
    transfer: Transfer,
    talk: Talk,
    confirm: Confirm,
    persist: Persist,
    budget: Budget,
    outbox: Outbox,
    ready: VecDeque<Ready>,
    traffic: Traffic,
    hall: HallCounters,
    /// `D13`: last claim sent to a member held suspect, dead or left.
    notices: Times,
    /// Last successor's record sent to a retired id.
    successors: Times,
    /// Last CHALLENGE to a known member that sends from another address than its record says.
    moved: Times,
    /// Members held dead within the last minute and living again.
    revived: Table<MemberId, Mono>,
    /// Time, T and roots of the BEATs under way, by sequence number.
    beaten: Table<(MemberId, u32), (Mono, Second, Roots)>,
    clock: clock::Clock,
    heal: Heal,
    leave: Leave,
    joined_at: Option<Mono>,
    /// When somebody held dead last came back, or I refuted that I am.
    back_at: Option<Mono>,
    conflicted: bool,
}

/// Counters of things only the hall sees.
#[derive(Clone, Copy, Default)]
struct HallCounters {
    refuted_self: u64,
    revived: u64,
    deaths: u64,
    records_new: u64,
    records_known: u64,
}

impl Gossip {
    /// A member alone in its cluster. `seed` is 32 bytes of the host's entropy.
    ///
    /// # Errors
    /// [`CallError`] for a wrong configuration, name or tags.
    pub fn new(config: Config, identity: Identity, seed: [u8; 32], now: Now) -> Result<Gossip, CallError> {
        config.check().map_err(CallError::Config)?;
        check_name(&identity.name)?;
        check_tags(&identity.tags)?;
        let mut rng = Rng::from_seed(seed);
        let stored = identity.generation_stored.map_or(0, |g| g.0.saturating_add(1));
        let profile = Profile {
            name: Arc::from(identity.name),
            generation: Generation(stored.max(now.wall.0).min(Generation::MAX.0)),
            id: MemberId(rng.u64().max(1)),
            revision: 0,
            address: identity.address,
            tags: identity.tags,
        };
        let me =
            Member { profile: Arc::new(profile), incarnation: Incarnation(0), liveness: Liveness::Alive };
        let hasher = RecordHasher::new(&config.label);
        let limits = config.limits;
        let mix = rng.u64();
        Ok(Gossip {
            label: wire::label_hash(&config.label),
            roster: Roster::new(hasher.clone(), me, mix, limits.members_max, config.forget_dead_after),
            detector: Detector::new(&config.detector, config.rtt_initial, now, &mut rng),
            rumors: Rumors::new(&config),
            store: Store::new(&config, hasher),
            sync: Sync::new(&config, &mut rng),
            index: MemberIndex::new(),
            absence: Absence::new(&config, now),
            dropped: Table::new(),
            join: Join::new(&config, now, &mut rng),
            transfer: Transfer::new(&config, now),
            talk: Talk::new(&config, now),
            confirm: Confirm::new(now),
            persist: Persist::new(now, &config),
            budget: Budget::new(config.bytes_per_second_max, now.mono),
            outbox: Outbox::default(),
            ready: VecDeque::new(),
            traffic: Traffic::default(),
            hall: HallCounters::default(),
            notices: Times::default(),
            successors: Times::default(),
            moved: Times::default(),
            revived: Table::new(),
            beaten: Table::new(),
            clock: clock::Clock::default(),
            heal: Heal::default(),
            leave: Leave::No,
            joined_at: None,
            back_at: None,
            conflicted: false,
            rng,
            config,
        })
    }

    /// Nothing is sent or taken in any more: left for good, or stopped by a name conflict.
    fn is_over(&self) -> bool {
        self.conflicted || self.leave == Leave::Done
    }

    /// The time of the last [`Output::Wait`] has come, or any later moment.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.is_over() {
            return;
        }
        let (roster, rng) = (&self.roster, &mut self.rng);
        if self.detector.deadline() <= now.mono {
            self.detector.handle_timeout(now, roster, rng);
        }
        if self.join.deadline() <= now.mono {
            self.join.handle_timeout(now, roster, rng);
        }
        if self.transfer.deadline() <= now.mono {
            self.transfer.handle_timeout(now, roster);
        }
        if self.talk.deadline() <= now.mono {
            self.talk_timeout(now);
        }
        if self.confirm.deadline() <= now.mono {
            self.confirm.handle_timeout(now, &self.roster, &mut self.rng);
        }
        if self.rumors.deadline() <= now.mono {
            self.rumors.set_rtt(self.detector.rtt_max_recent(now));
            self.rumors.handle_timeout(now, &self.roster, &mut self.rng);
        }
        if self.sync.deadline() <= now.mono {
            self.sync_timeout(now);
        }
        if self.store.deadline() <= now.mono {
            self.expire(now);
        }
        if self.roster.deadline() <= now.mono {
            for member in self.roster.handle_timeout(now.mono) {
                self.retire(now, member.id());
                self.tell(Event::MemberForgotten(member));
            }
        }
        if self.heal.deadline() <= now.mono {
            self.end_heal(now);
        }
        if let Leave::Spreading { until } = self.leave
            && until <= now.mono
        {
            self.leave = Leave::Done;
            self.tell(Event::LeaveEnded);
        }
    }

    /// Earliest time at which anything is due.
    fn deadline(&self) -> Mono {
        if self.is_over() {
            return Mono::FAR;
        }
        let leave = match self.leave {
            Leave::Spreading { until } => until,
            _ => Mono::FAR,
        };
        [
            self.detector.deadline(),
            self.join.deadline(),
            self.transfer.deadline(),
            self.talk.deadline(),
            self.confirm.deadline(),
            self.rumors.deadline(),
            self.sync.deadline(),
            self.store.deadline(),
            self.roster.deadline(),
            self.heal.deadline(),
            self.persist.deadline(self.store.unsaved().1),
            leave,
        ]
        .into_iter()
        .min()
        .unwrap_or(Mono::FAR)
    }

    /// The next thing to do. The bytes of a `Transmit` or `Send` are in `buf`, which is cleared first.
    pub fn poll_output(&mut self, now: Now, buf: &mut Vec<u8>) -> Output {
        buf.clear();
        // A part whose deadline stays in the past would spin: after a few passes it waits for the next millisecond.
        let mut passes = 0;
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return ready.into_output(buf);
            }
            if self.is_over() {
                return Output::Wait(Mono::FAR);
            }
            self.run_actions(now);
            if !self.ready.is_empty() || self.pack(now) || self.pack_batch(now) {
                continue;
            }
            let due = self.deadline();
            if due > now.mono {
                return Output::Wait(due);
            }
            passes += 1;
            if passes > 8 {
                return Output::Wait(now.mono + std::time::Duration::from_millis(1));
            }
            self.handle_timeout(now);
        }
    }

    fn tell(&mut self, event: Event) {
        self.ready.push_back(Ready::Event(event));
    }

    /// A stream opened by [`Output::Open`] is connected.
    pub fn handle_stream_opened(&mut self, now: Now, stream: StreamId) {
        if !self.is_over() {
            self.transfer.handle_opened(now, stream);
        }
    }

    /// The host accepted a stream and named it with an odd id.
    pub fn handle_stream_accepted(&mut self, now: Now, stream: StreamId, from: SocketAddr) {
        if self.is_over() {
            self.ready.push_back(Ready::Close(stream));
        } else {
            self.transfer.handle_accepted(now, stream, from);
        }
    }

    /// The last frame of this stream has left; there is room for one more.
    pub fn handle_stream_writable(&mut self, now: Now, stream: StreamId) {
        if !self.is_over() {
            self.transfer.handle_writable(now, stream);
        }
    }

    /// The stream failed to open, broke, or was closed by the peer.
    pub fn handle_stream_closed(&mut self, now: Now, stream: StreamId) {
        if !self.is_over() {
            self.transfer.handle_closed(now, stream, &self.roster);
        }
    }

    /// Counters of the detector with what the hall adds.
    fn detector_metrics(&self) -> DetectorMetrics {
        DetectorMetrics {
            refuted_self: self.hall.refuted_self,
            revived: self.hall.revived,
            deaths: self.hall.deaths,
            ..self.detector.metrics()
        }
    }

    fn rumor_metrics(&self) -> RumorMetrics {
        RumorMetrics {
            records_new: self.hall.records_new,
            records_known: self.hall.records_known,
            ..self.rumors.metrics()
        }
    }

    fn talk_metrics(&self) -> TalkMetrics {
        let [polls_sent, seen_received] = self.confirm.counts();
        TalkMetrics { polls_sent, seen_received, ..self.talk.metrics() }
    }

    /// What sessions moved over streams counts like what they moved in datagrams.
    fn sync_metrics(&self) -> SyncMetrics {
        let (metrics, streams) = (self.sync.metrics(), self.transfer.metrics());
        SyncMetrics {
            records_received: metrics.records_received + streams.repair_records_received,
            records_sent: metrics.records_sent + streams.repair_records_sent,
            bytes_received: metrics.bytes_received + streams.repair_bytes_received,
            bytes_sent: metrics.bytes_sent + streams.repair_bytes_sent,
            ..metrics
        }
    }
}

impl Gossip {
    /// Tables of the hall that peers can fill, against their limits.
    fn audit_tables(&self) -> Result<(), String> {
        let [notices, successors, moved] = [&self.notices, &self.successors, &self.moved].map(|t| t.0.len());
        let tables = [
            ("notices", notices, TIMES_MAX),
            ("successors", successors, TIMES_MAX),
            ("moved", moved, TIMES_MAX),
            ("revived", self.revived.len(), TIMES_MAX),
            ("beaten", self.beaten.len(), inbound::BEATEN_CEILING),
            ("clocks", self.clock.len(), clock::DRIFTS_MAX),
            ("outbox", self.outbox.len(), outbound::OUTBOX_MAX),
            ("waits for confirmation", self.confirm.len(), crate::confirm::WAITERS_MAX),
        ];
        let heard = self.absence.tables().into_iter();
        let unmatched = ("unmatched members", self.absence.unmatched(), self.config.limits.members_max);
        match tables.into_iter().chain(heard).chain([unmatched]).find(|(_, len, max)| len > max) {
            Some((name, len, max)) => Err(format!("{name} holds {len}, more than {max}")),
            None => self.outbox.audit(),
        }
    }
}

fn check_name(name: &str) -> Result<(), CallError> {
    let printable = !name.chars().any(char::is_control);
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && printable { Ok(()) } else { Err(CallError::Name) }
}

fn check_tags(tags: &Tags) -> Result<(), CallError> {
    let bytes = tags_bytes(tags);
    let short = tags.iter().all(|(k, v)| k.len() <= 255 && v.len() <= 255);
    if bytes <= TAGS_BYTES_MAX && short {
        Ok(())
    } else {
        Err(CallError::Tags { bytes, bytes_max: TAGS_BYTES_MAX })
    }
}
