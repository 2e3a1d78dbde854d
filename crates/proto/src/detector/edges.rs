//! Edges and their records: whom I beat, who beats me, what silence means (`D1`-`D4`).

use std::time::Duration;

use super::contacts::REQUEST_BIT;
use super::rtt::Rtt;
use super::{Action, Detector, OBSERVED_MAX, TooMany};
use crate::config::{self, DetectorRule};
use crate::member::MemberId;
use crate::phi::ArrivalWindow;
use crate::rng::Rng;
use crate::roster::Roster;
use crate::table::{Set, Table};
use crate::time::Mono;

/// A step of an edge's sequence numbers above this is no sample: the edge was chosen anew, or its beats changed their pace.
const STEP_MAX: u32 = 256;
/// The step by which the sender says so.
const RESTART: u32 = 512;
/// Sequence numbers of edges lack the bit of requests.
const SEQ_MASK: u32 = !REQUEST_BIT;
/// Half of their range: a larger step is a step back.
const SEQ_HALF: u32 = 1 << 30;
/// BEATs of an edge whose ACK is still recognised.
const SENT: usize = 4;

fn step(from: u32, to: u32) -> u32 {
    to.wrapping_sub(from) & SEQ_MASK
}

/// What I know of the arrivals from one member on one edge (`D3`).
#[derive(Debug)]
pub(super) struct Record {
    last: Mono,
    probe_ended: Mono,
    seq: Option<u32>,
    window: ArrivalWindow,
    limit: Duration,
    /// A probe of the member began since the last arrival.
    probed: bool,
    pub(super) rtt: Option<Rtt>,
}

impl Record {
    fn new(now: Mono, config: &config::Detector) -> Record {
        let h = config.beat_period;
        let window = ArrivalWindow::with_prior(config.window_size, h, h / 10);
        let mut record =
            Record { last: now, probe_ended: now, seq: None, window, limit: h, probed: false, rtt: None };
        record.set_limit(config);
        record
    }

    fn set_limit(&mut self, config: &config::Detector) {
        let limit = self.window.timeout(config.model, config.min_std_dev, config.threshold);
        self.limit = limit.unwrap_or(config.beat_period);
    }

    /// A BEAT or the ACK of one arrived. Its interval over the step of `seq` is a sample unless it ended a probed silence or
    /// one over the limit (a stall of mine keeps the probe from starting), belongs to the burst that follows a stall, or
    /// `seq` is old, known, or far ahead.
    fn arrive(&mut self, now: Mono, seq: u32, config: &config::Detector) {
        if let Some(known) = self.seq {
            let step = step(known, seq);
            if step == 0 || step >= SEQ_HALF {
                return;
            }
            let interval = now - self.last;
            let burst = interval < config.beat_period / 8;
            if step <= STEP_MAX && !self.probed && !burst && now <= self.silent_at() {
                self.window.push(interval / step);
                self.set_limit(config);
            }
        }
        self.seq = Some(seq);
        self.last = now;
        self.probed = false;
    }

    /// When its silence starts a probe (`D4`).
    fn silent_at(&self) -> Mono {
        self.last.max(self.probe_ended) + self.limit
    }

    fn phi(&self, now: Mono, config: &config::Detector) -> f64 {
        self.window.phi(now - self.last, config.model, config.min_std_dev)
    }

    #[cfg(test)]
    pub(super) fn samples(&self) -> usize {
        self.window.len()
    }

    #[cfg(test)]
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }
}

/// An edge I chose.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) id: MemberId,
    /// By rule `D1`; else only by `observe`.
    chosen: bool,
    lasting: bool,
    pub(super) record: Record,
    seq: u32,
    /// The next interval will not be h: its BEAT steps by [`RESTART`].
    restart: bool,
    sent: [(u32, Mono); SENT],
    /// The first BEAT must be acknowledged by then.
    ack_by: Option<Mono>,
    /// Probes in a row that were answered only through relays.
    relayed: u8,
}

impl Edge {
    fn next_seq(&mut self, now: Mono) -> u32 {
        self.seq = self.seq.wrapping_add(if self.restart { RESTART } else { 1 }) & SEQ_MASK;
        self.restart = false;
        self.sent.rotate_right(1);
        self.sent[0] = (self.seq, now);
        self.seq
    }

    fn last_sent(&self) -> Mono {
        self.sent[0].1
    }

    /// When the BEAT of this number was sent, if its ACK has not come yet.
    fn take_sent(&mut self, seq: u32) -> Option<Mono> {
        let sent = self.sent.iter_mut().find(|(s, _)| *s == seq && seq != 0)?;
        sent.0 = 0;
        Some(sent.1)
    }
}

/// All edges of a member.
#[derive(Debug)]
pub(super) struct Edges {
    /// In turn; `turn` is next.
    list: Vec<Edge>,
    turn: usize,
    next_beat: Mono,
    /// Members that beat me.
    watched: Table<MemberId, Record>,
    observed: Set<MemberId>,
    /// Above the numbers of every edge that ended.
    seq_base: u32,
    /// Living when all were chosen; 0: not yet.
    living_at_choice: usize,
    every_pair: bool,
    /// Answered twice only through relays.
    replace: Option<MemberId>,
}

impl Edges {
    pub(super) fn new(rng: &mut Rng) -> Edges {
        Edges {
            list: Vec::new(),
            turn: 0,
            next_beat: Mono::FAR,
            watched: Table::new(),
            observed: Set::new(),
            seq_base: rng.u32() & SEQ_MASK,
            living_at_choice: 0,
            every_pair: false,
            replace: None,
        }
    }

    pub(super) fn get(&self, id: MemberId) -> Option<&Edge> {
        self.list.iter().find(|e| e.id == id)
    }

    fn get_mut(&mut self, id: MemberId) -> Option<&mut Edge> {
        self.list.iter_mut().find(|e| e.id == id)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.list.iter().map(|e| e.id)
    }

    pub(super) fn has_record(&self, id: MemberId) -> bool {
        self.get(id).is_some() || self.watched.contains_key(&id)
    }

    #[cfg(test)]
    pub(super) fn watched_record(&self, id: MemberId) -> Option<&Record> {
        self.watched.get(&id)
    }

    fn records(&self) -> impl Iterator<Item = &Record> {
        self.list.iter().map(|e| &e.record).chain(self.watched.values())
    }

    fn records_of(&mut self, id: MemberId) -> impl Iterator<Item = &mut Record> {
        let chosen = self.list.iter_mut().filter(move |e| e.id == id).map(|e| &mut e.record);
        chosen.chain(self.watched.get_mut(&id))
    }

    /// A probe of this member begins.
    pub(super) fn probe_began(&mut self, id: MemberId) {
        self.records_of(id).for_each(|r| r.probed = true);
    }

    /// A probe or suspicion of this member has ended: its silence counts from now (`D4`).
    pub(super) fn probe_ended(&mut self, now: Mono, id: MemberId) {
        self.records_of(id).for_each(|r| r.probe_ended = now);
    }

    pub(super) fn drop_watched(&mut self, id: MemberId) {
        self.watched.remove(&id);
    }

    /// The least phi of this member's records.
    pub(super) fn phi(&self, now: Mono, id: MemberId, config: &config::Detector) -> Option<f64> {
        let chosen = self.get(id).map(|e| e.record.phi(now, config));
        let watched = self.watched.get(&id).map(|r| r.phi(now, config));
        match (chosen, watched) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(super) fn rtt_of(&self, id: MemberId) -> Option<Rtt> {
        let chosen = self.get(id).and_then(|e| e.record.rtt);
        chosen.or_else(|| self.watched.get(&id).and_then(|r| r.rtt))
    }

    /// The round trip of the edge with the largest smoothed one.
    pub(super) fn rtt_largest(&self) -> Option<Rtt> {
        self.records().filter_map(|r| r.rtt).max_by_key(|r| r.srtt())
    }

    pub(super) fn rtt_sample(&mut self, id: MemberId, sample: Duration) {
        self.records_of(id).for_each(|r| Rtt::add(&mut r.rtt, sample));
    }

    /// A direct answer of this partner: the way to it is open.
    pub(super) fn direct_answer(&mut self, id: MemberId) {
        if let Some(edge) = self.get_mut(id) {
            edge.ack_by = None;
            edge.relayed = 0;
        }
    }

    /// A probe of this partner was answered only through a relay; the second time running it is replaced (`D1`).
    pub(super) fn relayed_answer(&mut self, id: MemberId) {
        let every_pair = self.every_pair;
        let Some(edge) = self.get_mut(id) else { return };
        edge.relayed = edge.relayed.saturating_add(1);
        if edge.relayed >= 2 && edge.chosen && !every_pair {
            self.replace = Some(id);
        }
    }

    /// The pace of all beats changes: the next interval of each edge is no sample.
    fn restart_all(&mut self) {
        self.list.iter_mut().for_each(|e| e.restart = true);
    }

    fn remove(&mut self, id: MemberId) {
        let Some(at) = self.list.iter().position(|e| e.id == id) else { return };
        let edge = self.list.remove(at);
        if step(self.seq_base, edge.seq) < SEQ_HALF {
            self.seq_base = edge.seq;
        }
        if at < self.turn {
            self.turn -= 1;
        }
        if self.turn >= self.list.len() {
            self.turn = 0;
        }
        if self.list.is_empty() {
            self.next_beat = Mono::FAR;
        }
        self.restart_all();
    }
}

/// When every pair is an edge: does `me` choose it? The smaller id if the lowest bits are equal, else the larger (`D1`).
pub(super) fn chooses(me: MemberId, other: MemberId) -> bool {
    if (me.0 ^ other.0) & 1 == 0 { me < other } else { me > other }
}

impl Detector {
    pub(super) fn start_edges(&mut self, now: Mono, roster: &Roster, rng: &mut Rng) {
        self.stop_edges();
        self.edges.living_at_choice = 0;
        self.choose_edges(now, roster, rng);
    }

    pub(super) fn stop_edges(&mut self) {
        let ids: Vec<MemberId> = self.edges.ids().collect();
        ids.into_iter().for_each(|id| self.edges.remove(id));
        self.edges.replace = None;
    }

    /// A new edge is last in turn; its first BEAT leaves at once (`D2`).
    fn add_edge(&mut self, now: Mono, id: MemberId, chosen: bool, lasting: bool) {
        let edges = &mut self.edges;
        edges.restart_all();
        edges.seq_base = edges.seq_base.wrapping_add(RESTART) & SEQ_MASK;
        let edge = Edge {
            id,
            chosen,
            lasting,
            record: Record::new(now, &self.config),
            seq: edges.seq_base,
            restart: false,
            sent: [(0, Mono::default()); SENT],
            ack_by: None,
            relayed: 0,
        };
        edges.list.insert(edges.turn.min(edges.list.len()), edge);
        edges.turn = (edges.turn + 1) % edges.list.len();
        edges.next_beat = edges.next_beat.min(now + self.config.beat_period / edges.list.len() as u32);
        self.first_beat(now, id);
    }

    /// The first BEAT to a partner must be acknowledged within the probe time.
    pub(super) fn first_beat(&mut self, now: Mono, id: MemberId) {
        let ack_by = now + self.probe_time(id);
        let deaf = self.is_deaf(now);
        let unasked = self.config.lacks(DetectorRule::FirstBeat);
        let Some(edge) = self.edges.get_mut(id) else { return };
        edge.ack_by = Some(ack_by).filter(|_| !unasked);
        let seq = edge.next_seq(now);
        edge.restart = true;
        self.actions.push_back(Action::Beat { to: id, seq, once: false, deaf });
    }

    /// Makes the edges what `D1` wants them to be; cheap when they are.
    pub(super) fn choose_edges(&mut self, now: Mono, roster: &Roster, rng: &mut Rng) {
        if !self.running {
            return;
        }
        let gone: Vec<MemberId> = self.edges.ids().filter(|&id| !roster.is_living(id)).collect();
        gone.into_iter().for_each(|id| self.edges.remove(id));
        let living = roster.living();
        let k = self.config.partners;
        if living <= self.config.observe_all_up_to {
            self.edges.every_pair = true;
            self.edges.living_at_choice = living;
            let me = roster.my_id();
            for edge in &mut self.edges.list {
                edge.chosen = chooses(me, edge.id);
            }
            for id in roster.living_ids().filter(|&id| id != me && chooses(me, id)) {
                if self.edges.get(id).is_none() {
                    self.add_edge(now, id, true, false);
                }
            }
        } else {
            let first = self.edges.living_at_choice == 0;
            let anew = living >= self.edges.living_at_choice.saturating_mul(2)
                && (first || !self.config.lacks(DetectorRule::NewChoice));
            if anew {
                self.edges.living_at_choice = living;
            }
            let mut chosen: Vec<MemberId> =
                self.edges.list.iter().filter(|e| e.chosen).map(|e| e.id).collect();
            if anew || self.edges.every_pair {
                self.edges.every_pair = false;
                let picks = if anew {
                    let lasting: Vec<MemberId> =
                        self.edges.list.iter().filter(|e| e.lasting).map(|e| e.id).collect();
                    roster.pick_alive(rng, k, &lasting)
                } else {
                    rng.distinct(k, chosen.len())
                        .into_iter()
                        .filter_map(|at| chosen.get(at).copied())
                        .collect()
                };
                self.edges.list.iter_mut().for_each(|e| e.chosen = picks.contains(&e.id));
                for &id in &picks {
                    if self.edges.get(id).is_none() {
                        self.add_edge(now, id, true, false);
                    }
                }
                chosen = picks;
            }
            if chosen.len() < k {
                let except: Vec<MemberId> = self.edges.ids().collect();
                for id in roster.pick_alive(rng, k - chosen.len(), &except) {
                    self.add_edge(now, id, true, false);
                }
            }
        }
        let missing: Vec<MemberId> = self.edges.observed.iter().copied().collect();
        for id in missing {
            match self.edges.get_mut(id) {
                Some(edge) => edge.lasting = true,
                None if roster.is_living(id) && id != roster.my_id() => self.add_edge(now, id, false, true),
                None => {}
            }
        }
        self.drop_unwanted();
    }

    fn drop_unwanted(&mut self) {
        let unwanted: Vec<MemberId> =
            self.edges.list.iter().filter(|e| !e.chosen && !e.lasting).map(|e| e.id).collect();
        unwanted.into_iter().for_each(|id| self.edges.remove(id));
    }

    /// Replaces a partner that answered twice running only through relays, if there is another to take.
    fn replace_relayed(&mut self, now: Mono, roster: &Roster, rng: &mut Rng) {
        let Some(old) = self.edges.replace.take() else { return };
        let except: Vec<MemberId> = self.edges.ids().collect();
        let pick = roster.pick_alive(rng, 1, &except).pop();
        let Some(edge) = self.edges.get_mut(old) else { return };
        edge.relayed = 0;
        if let Some(new) = pick {
            edge.chosen = false;
            self.drop_unwanted();
            self.add_edge(now, new, true, false);
        }
    }

    pub(super) fn add_observed(&mut self, now: Mono, id: MemberId, roster: &Roster) -> Result<(), TooMany> {
        if !self.edges.observed.contains(&id) && self.edges.observed.len() >= OBSERVED_MAX {
            return Err(TooMany);
        }
        self.edges.observed.insert(id);
        match self.edges.get_mut(id) {
            Some(edge) => edge.lasting = true,
            None if self.running && roster.is_living(id) && id != roster.my_id() => {
                self.add_edge(now, id, false, true);
            }
            None => {}
        }
        Ok(())
    }

    pub(super) fn remove_observed(&mut self, id: MemberId) {
        self.edges.observed.remove(&id);
        if let Some(edge) = self.edges.get_mut(id) {
            edge.lasting = false;
        }
        self.drop_unwanted();
    }

    /// A lasting edge follows the name of a retired id to its successor; a forgotten member loses it.
    pub(super) fn follow_observed(&mut self, id: MemberId, roster: &Roster) {
        if roster.live(id).is_none()
            && self.edges.observed.remove(&id)
            && let Some(next) = roster.successor(id)
        {
            self.edges.observed.insert(next.id());
        }
    }

    /// Feeds the record of a member that beats me, if there is room for one; says whether there is a record.
    pub(super) fn feed_watched(&mut self, now: Mono, from: MemberId, seq: u32, roster: &Roster) -> bool {
        let watched = &mut self.edges.watched;
        if !watched.contains_key(&from) {
            if watched.len() >= super::WATCHED_MAX || !roster.is_living(from) {
                return false;
            }
            watched.insert(from, Record::new(now, &self.config));
        }
        if let Some(record) = watched.get_mut(&from) {
            record.arrive(now, seq & SEQ_MASK, &self.config);
        }
        true
    }

    pub(super) fn is_watched(&self, id: MemberId) -> bool {
        self.edges.watched.contains_key(&id)
    }

    /// The ACK of an edge's BEAT: feeds the record, returns when the BEAT was sent.
    pub(super) fn feed_edge(&mut self, now: Mono, from: MemberId, seq: u32) -> Option<Mono> {
        let edge = self.edges.get_mut(from)?;
        let at = edge.take_sent(seq)?;
        edge.record.arrive(now, seq, &self.config);
        Some(at)
    }

    pub(super) fn edges_deadline(&self) -> Mono {
        if self.edges.replace.is_some() {
            return Mono::default();
        }
        let acks = self.edges.list.iter().filter_map(|e| e.ack_by);
        let chosen = self.edges.list.iter().map(|e| (e.id, &e.record));
        let watched = self.edges.watched.iter().map(|(id, r)| (*id, r));
        let silences =
            chosen.chain(watched).filter(|(id, _)| !self.is_under_doubt(*id)).map(|(_, r)| r.silent_at());
        acks.chain(silences).chain([self.edges.next_beat]).min().unwrap_or(Mono::FAR)
    }

    /// The BEAT that is due (`D2`), and the silences that start a probe (`D4`).
    pub(super) fn run_edges(&mut self, now: Mono, roster: &Roster, rng: &mut Rng) {
        self.replace_relayed(now, roster, rng);
        self.run_beat(now, rng);
        let mut silent: Vec<MemberId> = Vec::new();
        for edge in &mut self.edges.list {
            if edge.ack_by.is_some_and(|at| at <= now) {
                edge.ack_by = None;
                silent.push(edge.id);
            }
        }
        let chosen = self.edges.list.iter().map(|e| (e.id, &e.record));
        let watched = self.edges.watched.iter().map(|(id, r)| (*id, r));
        silent.extend(chosen.chain(watched).filter(|(_, r)| r.silent_at() <= now).map(|(id, _)| id));
        for id in silent {
            if !self.is_under_doubt(id) {
                self.probe_living(now, id, roster);
            }
        }
    }

    fn run_beat(&mut self, now: Mono, rng: &mut Rng) {
        if now < self.edges.next_beat {
            return;
        }
        let h = self.config.beat_period;
        let deaf = self.is_deaf(now);
        let edges = &mut self.edges;
        let count = edges.list.len();
        // After a stall of mine no edge keeps its pace.
        let late = now - edges.next_beat > h / 8;
        if late {
            edges.restart_all();
        }
        let Some(edge) = edges.list.get_mut(edges.turn) else {
            edges.next_beat = Mono::FAR;
            return;
        };
        let (to, seq) = (edge.id, edge.next_seq(now));
        edges.turn = (edges.turn + 1) % count;
        edges.next_beat = now + rng.jitter(h / count as u32, 0.02);
        if let Some(next) = edges.list.get(edges.turn).filter(|_| !late) {
            // When edges were removed, none waits much longer than h for its turn.
            if edges.next_beat > next.last_sent() + h.mul_f64(1.04) {
                edges.next_beat = (next.last_sent() + h).max(now);
            }
        }
        self.actions.push_back(Action::Beat { to, seq, once: false, deaf });
    }
}
