//! One baseline member: memberlist's rules for probing, suspicion, refutation and broadcast.

use std::collections::BTreeMap;
use std::time::Duration;

use hearsay_proto::rng::Rng;
use hearsay_proto::time::Mono;

use super::{Kind, Out, Packet, Rumor, Settings, bytes};

/// What a view holds of a member. Forgotten ones were dead for longer than `gossip_to_the_dead`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Answers.
    Alive,
    /// Accused.
    Suspect,
    /// Declared dead.
    Dead,
    /// No longer in the list.
    Forgotten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    Probe,
    ProbeTimeout { seq: u32 },
    ProbeEnd { seq: u32 },
    RelayTimeout { seq: u32 },
    Gossip,
    PushPull,
    Suspicion { subject: u32, since: Mono },
}

#[derive(Clone, Copy, Debug)]
struct View {
    liveness: Liveness,
    incarnation: u32,
    changed: Mono,
}

#[derive(Clone, Debug)]
struct Suspicion {
    since: Mono,
    ends: Mono,
    needed: u32,
    least: Duration,
    most: Duration,
    accusers: Vec<u32>,
}

impl Suspicion {
    /// max - (max - min) log(c + 1) / log(k + 1), where c further accusers of k are known (Lifeguard, LHA-Suspicion).
    fn lasts(&self) -> Duration {
        if self.needed == 0 {
            return self.least;
        }
        let confirmed = (self.accusers.len() as u32 - 1).min(self.needed);
        let share = f64::from(confirmed + 1).ln() / f64::from(self.needed + 1).ln();
        self.most - (self.most - self.least).mul_f64(share.min(1.0))
    }
}

#[derive(Clone, Debug)]
struct Probe {
    seq: u32,
    target: u32,
    ends: Mono,
    nacks_expected: u32,
    nacks: u32,
    tcp_answered: bool,
}

#[derive(Clone, Copy, Debug)]
struct Relay {
    asker: u32,
    asker_seq: u32,
}

#[derive(Clone, Copy, Debug)]
struct Queued {
    rumor: Rumor,
    sent: u32,
    number: u64,
}

/// One member.
pub struct Member {
    id: u32,
    incarnation: u32,
    score: u32,
    view: Vec<View>,
    living: usize,
    known: usize,
    ring: Vec<u32>,
    next: usize,
    probe: Option<Probe>,
    probe_waits: bool,
    relays: BTreeMap<u32, Relay>,
    seq: u32,
    queue: Vec<Queued>,
    queued: u64,
    suspicions: BTreeMap<u32, Suspicion>,
}

/// 30 s x (ceil(log2 n - log2 32) + 1) above 32 members.
pub(super) fn push_pull_period(settings: &Settings, members: usize) -> Duration {
    let scale = if members <= 32 { 1 } else { ((members as f64).log2() - 5.0).ceil() as u32 + 1 };
    settings.push_pull_interval * scale
}

impl Member {
    pub(super) fn new(id: u32, members: usize) -> Member {
        Member {
            id,
            incarnation: 1,
            score: 0,
            view: vec![View { liveness: Liveness::Alive, incarnation: 1, changed: Mono(0) }; members],
            living: members,
            known: members,
            ring: Vec::new(),
            next: 0,
            probe: None,
            probe_waits: false,
            relays: BTreeMap::new(),
            seq: 0,
            queue: Vec::new(),
            queued: 0,
            suspicions: BTreeMap::new(),
        }
    }

    /// Members held alive or suspect, itself included.
    pub fn living(&self) -> usize {
        self.living
    }

    /// What it holds of a member.
    pub fn sees(&self, member: usize) -> Liveness {
        self.view[member].liveness
    }

    pub(super) fn states(&self) -> Vec<(u32, Liveness, u32)> {
        self.view
            .iter()
            .enumerate()
            .filter(|(_, v)| v.liveness != Liveness::Forgotten)
            .map(|(i, v)| (i as u32, v.liveness, v.incarnation))
            .collect()
    }

    pub(super) fn merge(
        &mut self,
        settings: &Settings,
        now: Mono,
        states: &[(u32, Liveness, u32)],
        out: &mut Out,
    ) {
        for &(subject, liveness, incarnation) in states {
            // A death that comes by exchange is only a suspicion by the receiver.
            let liveness = if liveness == Liveness::Dead { Liveness::Suspect } else { liveness };
            self.learn(settings, now, Rumor { subject, liveness, incarnation, from: self.id }, out);
        }
    }

    pub(super) fn handle_tcp_answer(&mut self, seq: u32) {
        if let Some(probe) = self.probe.as_mut().filter(|p| p.seq == seq) {
            probe.tcp_answered = true;
        }
    }

    pub(super) fn handle_packet(
        &mut self,
        settings: &Settings,
        now: Mono,
        rng: &mut Rng,
        packet: Packet,
        out: &mut Out,
    ) {
        let Packet { from, kind, seq, rumors, .. } = packet;
        match kind {
            Kind::Ping => self.send(settings, from, Kind::Ack, seq, None, out),
            Kind::IndirectPing { target } => {
                self.seq += 1;
                let own = self.seq;
                self.relays.insert(own, Relay { asker: from, asker_seq: seq });
                self.send(settings, target, Kind::Ping, own, None, out);
                out.timers.push((now + settings.probe_timeout, Timer::RelayTimeout { seq: own }));
            }
            Kind::Ack => {
                if let Some(relay) = self.relays.remove(&seq) {
                    self.send(settings, relay.asker, Kind::Ack, relay.asker_seq, None, out);
                } else if self.probe.as_ref().is_some_and(|p| p.seq == seq) {
                    self.score = self.score.saturating_sub(1);
                    self.end_probe(settings, now, rng, out);
                }
            }
            Kind::Nack => {
                if let Some(probe) = self.probe.as_mut().filter(|p| p.seq == seq) {
                    probe.nacks += 1;
                }
            }
            Kind::Gossip => {}
        }
        for rumor in rumors {
            self.learn(settings, now, rumor, out);
        }
    }

    pub(super) fn handle_timer(
        &mut self,
        settings: &Settings,
        now: Mono,
        rng: &mut Rng,
        timer: Timer,
        out: &mut Out,
    ) {
        match timer {
            Timer::Probe => {
                out.timers.push((now + settings.probe_interval, Timer::Probe));
                if self.probe.is_some() {
                    self.probe_waits = true;
                } else {
                    self.start_probe(settings, now, rng, out);
                }
            }
            Timer::ProbeTimeout { seq } => self.ask_relays(settings, rng, seq, out),
            Timer::ProbeEnd { seq } => self.fail_probe(settings, now, rng, seq, out),
            Timer::RelayTimeout { seq } => {
                if let Some(relay) = self.relays.remove(&seq) {
                    self.send(settings, relay.asker, Kind::Nack, relay.asker_seq, None, out);
                }
            }
            Timer::Gossip => {
                out.timers.push((now + settings.gossip_interval, Timer::Gossip));
                self.gossip(settings, now, rng, out);
            }
            Timer::PushPull => {
                out.timers.push((now + push_pull_period(settings, self.known), Timer::PushPull));
                out.exchange_with = self.pick(rng, 1, |v| is_living(v.liveness)).first().copied();
            }
            Timer::Suspicion { subject, since } => {
                let Some(suspicion) = self.suspicions.get(&subject).filter(|s| s.since == since) else {
                    return;
                };
                if now < suspicion.ends {
                    return;
                }
                let incarnation = self.view[subject as usize].incarnation;
                let dead = Rumor { subject, liveness: Liveness::Dead, incarnation, from: self.id };
                self.learn(settings, now, dead, out);
            }
        }
    }

    fn start_probe(&mut self, settings: &Settings, now: Mono, rng: &mut Rng, out: &mut Out) {
        for _ in 0..=self.view.len() {
            let Some(&target) = self.ring.get(self.next) else {
                self.reset_ring(settings, now, rng);
                if self.ring.is_empty() {
                    return;
                }
                continue;
            };
            self.next += 1;
            let view = self.view[target as usize];
            if !is_living(view.liveness) {
                continue;
            }
            self.seq += 1;
            let seq = self.seq;
            let ends = now + settings.probe_interval * (self.score + 1);
            self.probe = Some(Probe { seq, target, ends, nacks_expected: 0, nacks: 0, tcp_answered: false });
            // The suspected member is told at once (Lifeguard, buddy system).
            let buddy = (view.liveness == Liveness::Suspect).then_some(Rumor {
                subject: target,
                liveness: Liveness::Suspect,
                incarnation: view.incarnation,
                from: self.id,
            });
            self.send(settings, target, Kind::Ping, seq, buddy, out);
            out.timers.push((now + settings.probe_timeout, Timer::ProbeTimeout { seq }));
            out.timers.push((ends, Timer::ProbeEnd { seq }));
            return;
        }
    }

    fn reset_ring(&mut self, settings: &Settings, now: Mono, rng: &mut Rng) {
        for view in &mut self.view {
            if view.liveness == Liveness::Dead && now.since(view.changed) > settings.gossip_to_the_dead {
                view.liveness = Liveness::Forgotten;
                self.known -= 1;
            }
        }
        let id = self.id;
        self.ring = (0..self.view.len() as u32)
            .filter(|&m| m != id && self.view[m as usize].liveness != Liveness::Forgotten)
            .collect();
        for i in (1..self.ring.len()).rev() {
            let j = rng.below(i + 1);
            self.ring.swap(i, j);
        }
        self.next = 0;
    }

    fn ask_relays(&mut self, settings: &Settings, rng: &mut Rng, seq: u32, out: &mut Out) {
        let Some((target, ends)) = self.probe.as_ref().filter(|p| p.seq == seq).map(|p| (p.target, p.ends))
        else {
            return;
        };
        let relays = self.pick_but(rng, settings.indirect_checks, target, |v| v.liveness == Liveness::Alive);
        for &relay in &relays {
            self.send(settings, relay, Kind::IndirectPing { target }, seq, None, out);
        }
        if let Some(probe) = self.probe.as_mut() {
            probe.nacks_expected = relays.len() as u32;
        }
        if settings.tcp {
            out.tcp_ping = Some((target, seq, ends));
        }
    }

    fn fail_probe(&mut self, settings: &Settings, now: Mono, rng: &mut Rng, seq: u32, out: &mut Out) {
        let Some(probe) = self.probe.as_ref().filter(|p| p.seq == seq).cloned() else { return };
        if probe.tcp_answered {
            self.score = self.score.saturating_sub(1);
        } else {
            let missed =
                if probe.nacks_expected > 0 { probe.nacks_expected.saturating_sub(probe.nacks) } else { 1 };
            self.score = (self.score + missed).min(settings.awareness_max - 1);
            let incarnation = self.view[probe.target as usize].incarnation;
            let suspect =
                Rumor { subject: probe.target, liveness: Liveness::Suspect, incarnation, from: self.id };
            self.learn(settings, now, suspect, out);
        }
        self.end_probe(settings, now, rng, out);
    }

    fn end_probe(&mut self, settings: &Settings, now: Mono, rng: &mut Rng, out: &mut Out) {
        self.probe = None;
        // The ticker keeps one tick for a receiver that was busy.
        if std::mem::take(&mut self.probe_waits) {
            self.start_probe(settings, now, rng, out);
        }
    }

    fn gossip(&mut self, settings: &Settings, now: Mono, rng: &mut Rng, out: &mut Out) {
        if self.queue.is_empty() {
            return;
        }
        let dead_within = settings.gossip_to_the_dead;
        let peers = self.pick(rng, settings.gossip_nodes, |v| {
            is_living(v.liveness) || (v.liveness == Liveness::Dead && now.since(v.changed) <= dead_within)
        });
        for peer in peers {
            if self.queue.is_empty() {
                return;
            }
            self.send(settings, peer, Kind::Gossip, 0, None, out);
        }
    }

    /// Sends a packet with as many waiting broadcasts as have room: the least sent first, among them the newest.
    fn send(
        &mut self,
        settings: &Settings,
        to: u32,
        kind: Kind,
        seq: u32,
        first: Option<Rumor>,
        out: &mut Out,
    ) {
        let mut packet = Packet { from: self.id, to, kind, seq, rumors: Vec::from_iter(first) };
        if !self.queue.is_empty() {
            let limit = settings.retransmit_mult * ((self.known as f64 + 1.0).log10().ceil() as u32);
            let room = (bytes::PACKET_MAX - packet.bytes().max(bytes::COMPOUND)) / bytes::RUMOR;
            self.queue.sort_unstable_by_key(|q| (q.sent, u64::MAX - q.number));
            for queued in self.queue.iter_mut().take(room) {
                packet.rumors.push(queued.rumor);
                queued.sent += 1;
            }
            self.queue.retain(|q| q.sent < limit);
        }
        out.packets.push(packet);
    }

    fn broadcast(&mut self, rumor: Rumor) {
        self.queue.retain(|q| q.rumor.subject != rumor.subject);
        self.queued += 1;
        self.queue.push(Queued { rumor, sent: 0, number: self.queued });
    }

    fn pick(&self, rng: &mut Rng, count: usize, fits: impl Fn(&View) -> bool) -> Vec<u32> {
        self.pick_but(rng, count, self.id, fits)
    }

    /// memberlist draws up to 3 n times and takes what fits.
    fn pick_but(&self, rng: &mut Rng, count: usize, but: u32, fits: impl Fn(&View) -> bool) -> Vec<u32> {
        let mut picked = Vec::with_capacity(count);
        for _ in 0..3 * self.view.len() {
            if picked.len() == count {
                break;
            }
            let at = rng.below(self.view.len());
            let m = at as u32;
            if m != self.id && m != but && !picked.contains(&m) && fits(&self.view[at]) {
                picked.push(m);
            }
        }
        picked
    }

    fn change(&mut self, now: Mono, subject: u32, liveness: Liveness, incarnation: u32, out: &mut Out) {
        let view = &mut self.view[subject as usize];
        match (is_living(view.liveness), is_living(liveness)) {
            (true, false) => self.living -= 1,
            (false, true) => self.living += 1,
            _ => {}
        }
        if view.liveness == Liveness::Forgotten {
            self.known += 1;
        }
        if view.liveness != liveness {
            view.changed = now;
            out.told.push((subject, liveness));
        }
        view.liveness = liveness;
        view.incarnation = incarnation;
        if liveness != Liveness::Suspect {
            self.suspicions.remove(&subject);
        }
    }

    fn learn(&mut self, settings: &Settings, now: Mono, rumor: Rumor, out: &mut Out) {
        let Rumor { subject, liveness, incarnation, from } = rumor;
        if subject == self.id {
            if liveness != Liveness::Alive && incarnation >= self.incarnation {
                self.incarnation = incarnation + 1;
                self.score = (self.score + 1).min(settings.awareness_max - 1);
                self.view[subject as usize].incarnation = self.incarnation;
                self.broadcast(Rumor {
                    subject,
                    liveness: Liveness::Alive,
                    incarnation: self.incarnation,
                    from: self.id,
                });
            }
            return;
        }
        let view = self.view[subject as usize];
        let unknown = view.liveness == Liveness::Forgotten;
        match liveness {
            Liveness::Alive => {
                if unknown || incarnation > view.incarnation {
                    self.change(now, subject, Liveness::Alive, incarnation, out);
                    self.broadcast(rumor);
                }
            }
            Liveness::Suspect => {
                if unknown || incarnation < view.incarnation {
                    return;
                }
                if let Some(suspicion) = self.suspicions.get_mut(&subject) {
                    let enough = suspicion.accusers.len() as u32 > suspicion.needed;
                    if !enough && !suspicion.accusers.contains(&from) {
                        suspicion.accusers.push(from);
                        suspicion.ends = (suspicion.since + suspicion.lasts()).max(now);
                        let timer = Timer::Suspicion { subject, since: suspicion.since };
                        out.timers.push((suspicion.ends, timer));
                        self.broadcast(rumor);
                    }
                    return;
                }
                if view.liveness != Liveness::Alive {
                    return;
                }
                self.change(now, subject, Liveness::Suspect, incarnation, out);
                self.broadcast(rumor);
                let n = self.known as f64;
                let least =
                    settings.probe_interval.mul_f64(f64::from(settings.suspicion_mult) * n.log10().max(1.0));
                let wanted = settings.suspicion_mult - 2;
                let needed = if self.known.saturating_sub(2) < wanted as usize { 0 } else { wanted };
                let mut suspicion = Suspicion {
                    since: now,
                    ends: now,
                    needed,
                    least,
                    most: least * settings.suspicion_max_mult,
                    accusers: vec![from],
                };
                suspicion.ends = now + suspicion.lasts();
                out.timers.push((suspicion.ends, Timer::Suspicion { subject, since: now }));
                self.suspicions.insert(subject, suspicion);
            }
            Liveness::Dead => {
                if unknown || incarnation < view.incarnation || view.liveness == Liveness::Dead {
                    return;
                }
                self.change(now, subject, Liveness::Dead, incarnation, out);
                self.broadcast(rumor);
            }
            Liveness::Forgotten => {}
        }
    }
}

fn is_living(liveness: Liveness) -> bool {
    matches!(liveness, Liveness::Alive | Liveness::Suspect)
}
