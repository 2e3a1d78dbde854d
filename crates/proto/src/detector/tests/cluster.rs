//! Many detectors on a lossy network with an idealised rumor: each claim reaches every other member 20 to 220 ms later.
//! It shows that the rules work together; the simulator of the whole protocol measures them.

use super::*;

enum Wire {
    Message(Message),
    Beat(Beat),
    Rumor(Claim),
}

struct Peer {
    d: Detector,
    roster: Roster,
    up: bool,
    starts: Mono,
}

struct Cluster {
    members: BTreeMap<MemberId, Peer>,
    events: BTreeMap<(Mono, u64), (MemberId, MemberId, Wire)>,
    timers: BTreeSet<(Mono, MemberId)>,
    timer_of: BTreeMap<MemberId, Mono>,
    now: Now,
    rng: Rng,
    loss: f64,
    count: u64,
    datagrams: u64,
    accusations: Vec<(Mono, MemberId)>,
    deaths: Vec<(Mono, MemberId, MemberId)>,
}

impl Cluster {
    fn new(n: u64, loss: f64, seed: u64) -> Cluster {
        let config = Config::lan();
        let mut rng = Rng::from_number(seed);
        let now = Now { mono: Mono(1_000_000_000), wall: Wall(1_700_000_000_000) };
        // Odd and even ids, spread.
        let ids: Vec<u64> = (0..n).map(|_| rng.u64() | 1 << 40).collect();
        let mut members = BTreeMap::new();
        for (at, &me) in ids.iter().enumerate() {
            let own = member(at as u64 + 1, 1, me);
            let mut roster =
                Roster::new(RecordHasher::new("test"), own, 7, 16_384, Duration::from_secs(86_400));
            for (other, &id) in ids.iter().enumerate().filter(|(other, _)| *other != at) {
                roster.merge(now, &member(other as u64 + 1, 1, id));
            }
            let d = Detector::new(&config.detector, config.rtt_initial, now, &mut rng);
            members.insert(id(me), Peer { d, roster, up: true, starts: now.mono });
        }
        let mut cluster = Cluster {
            members,
            events: BTreeMap::new(),
            timers: BTreeSet::new(),
            timer_of: BTreeMap::new(),
            now,
            rng,
            loss,
            count: 0,
            datagrams: 0,
            accusations: Vec::new(),
            deaths: Vec::new(),
        };
        let all: Vec<MemberId> = cluster.members.keys().copied().collect();
        for &id in &all {
            // They start within two seconds, not in phase.
            let step = cluster.rng.up_to(MS(2_000));
            if let Some(peer) = cluster.members.get_mut(&id) {
                peer.starts = now.mono + step;
            }
            cluster.set_timer(id);
        }
        cluster
    }

    fn post(&mut self, from: MemberId, to: MemberId, wire: Wire) {
        let delay = match &wire {
            Wire::Rumor(_) => MS(20) + self.rng.up_to(MS(200)),
            _ => {
                self.datagrams += 1;
                if self.rng.chance(self.loss) {
                    return;
                }
                Duration::from_micros(150) + self.rng.up_to(Duration::from_micros(300))
            }
        };
        self.count += 1;
        self.events.insert((self.now.mono + delay, self.count), (from, to, wire));
    }

    fn spread(&mut self, from: MemberId, claim: &Claim) {
        let others: Vec<MemberId> = self.members.keys().copied().filter(|&m| m != from).collect();
        others.into_iter().for_each(|to| self.post(from, to, Wire::Rumor(claim.clone())));
    }

    fn with<T>(&mut self, me: MemberId, act: impl FnOnce(&mut Peer, Now, &mut Rng) -> T) -> Option<T> {
        let member = self.members.get_mut(&me).filter(|m| m.up)?;
        let mut rng = self.rng.clone();
        let out = act(member, self.now, &mut rng);
        self.rng = rng;
        Some(out)
    }

    fn hear_claim(&mut self, me: MemberId, claim: &Claim) {
        if claim.id == me {
            let alive = self.with(me, |m, now, _| {
                let mine = m.roster.me().incarnation;
                if claim.liveness == Liveness::Alive || claim.incarnation < mine {
                    return None;
                }
                m.roster.update_me(now.mono, |r| r.incarnation = claim.incarnation.next());
                Some(Claim::plain(me, claim.incarnation.next(), Liveness::Alive))
            });
            if let Some(Some(alive)) = alive {
                self.spread(me, &alive);
            }
            return;
        }
        let hot = self.with(me, |m, now, rng| {
            let (known, liveness) = m.roster.live(claim.id)?;
            match claim.liveness {
                Liveness::Suspect if liveness.is_living() && claim.incarnation >= known => {
                    if m.d.handle_suspicion(now, claim, &m.roster, rng) == News::Old {
                        return None;
                    }
                    let hot = m.d.claim_of(claim.id);
                    let _ = m.roster.merge_live(now.mono, claim.id, claim.incarnation, Liveness::Suspect);
                    m.d.handle_member(now, claim.id, &m.roster, rng);
                    hot
                }
                Liveness::Dead if liveness.is_living() => {
                    m.d.handle_death_report(now, claim, &m.roster, rng);
                    None
                }
                Liveness::Alive => {
                    let _ = m.roster.merge_live(now.mono, claim.id, claim.incarnation, Liveness::Alive);
                    m.d.handle_member(now, claim.id, &m.roster, rng);
                    None
                }
                _ => None,
            }
        });
        // Only the first accusation and a second accuser of my own are spread: the ideal rumor reaches all.
        if let Some(Some(hot)) = hot
            && hot.accusers.iter().any(|a| a.id == me)
        {
            self.spread(me, &hot);
        }
    }

    fn take(&mut self, from: MemberId, me: MemberId, wire: Wire) {
        match wire {
            Wire::Rumor(claim) => self.hear_claim(me, &claim),
            Wire::Beat(beat) => {
                let watched = self.with(me, |m, now, _| {
                    m.d.handle_heard(now, from);
                    m.d.handle_beat(now, from, &beat, &m.roster)
                });
                if let Some(watched) = watched {
                    let flags = AckFlags { to_beat: true, watched, ..AckFlags::default() };
                    let ack = Message::Ack { seq: beat.seq, flags, origin: None };
                    self.post(me, from, Wire::Message(ack));
                }
            }
            Wire::Message(Message::Claims(claims)) => {
                claims.iter().for_each(|c| self.hear_claim(me, c));
            }
            Wire::Message(message) => {
                self.with(me, |m, now, _| {
                    m.d.handle_heard(now, from);
                    match message {
                        Message::Ack { seq, flags, origin } => {
                            m.d.handle_ack(now, from, seq, &flags, origin, &m.roster);
                        }
                        Message::Ping { seq, origin } => m.d.handle_ping(now, from, seq, origin, &m.roster),
                        Message::PingVia { seq, target } => {
                            m.d.handle_ping_via(now, from, seq, target, &m.roster);
                        }
                        Message::Receipt { seq } => m.d.handle_receipt(now, from, seq),
                        _ => {}
                    }
                });
            }
        }
        self.drain(me);
    }

    fn drain(&mut self, me: MemberId) {
        while let Some(Some(action)) = self.with(me, |m, _, _| m.d.poll_action()) {
            match action {
                Action::Send { to, message } => self.post(me, to, Wire::Message(message)),
                Action::Beat { to, seq, once, deaf } => {
                    let beat =
                        Beat { seq, clock: Default::default(), settle_secs: 3, once, deaf, roots: None };
                    self.post(me, to, Wire::Beat(beat));
                }
                Action::Accuse { id, phi } => {
                    self.accusations.push((self.now.mono, id));
                    let claim = self.with(me, |m, _, _| Claim {
                        id,
                        incarnation: m.roster.live(id).map_or(Incarnation(0), |l| l.0),
                        liveness: Liveness::Suspect,
                        accusers: vec![Accuser::new(me, phi)],
                    });
                    if let Some(claim) = claim {
                        self.hear_claim(me, &claim);
                        self.post(me, id, Wire::Message(Message::Claims(vec![claim])));
                    }
                }
                Action::Remind { id } => {
                    if let Some(claim) = self.members[&me].d.claim_of(id) {
                        self.spread(me, &claim);
                    }
                }
                Action::Declare { id } | Action::DeclareAlone { id } => {
                    self.deaths.push((self.now.mono, me, id));
                    self.with(me, |m, now, rng| {
                        m.roster.set_liveness(now.mono, id, Liveness::Dead);
                        m.d.handle_member(now, id, &m.roster, rng);
                    });
                    let incarnation = self.members[&me].roster.live(id).map_or(Incarnation(0), |l| l.0);
                    if matches!(action, Action::Declare { .. }) {
                        let accusers = vec![Accuser::new(me, 0.0)];
                        self.spread(me, &Claim { id, incarnation, liveness: Liveness::Dead, accusers });
                    }
                }
                Action::UndoAlone { id } => {
                    self.with(me, |m, now, rng| {
                        m.roster.set_liveness(now.mono, id, Liveness::Alive);
                        m.d.handle_member(now, id, &m.roster, rng);
                    });
                }
                Action::ContactDue => {
                    self.with(me, |m, now, rng| {
                        if let Some(target) = m.d.contact_target(&m.roster, rng) {
                            m.d.contact(now, target);
                        }
                    });
                }
            }
        }
        self.set_timer(me);
    }

    fn set_timer(&mut self, me: MemberId) {
        let due = self.members.get(&me).filter(|m| m.up).map_or(Mono::FAR, |m| m.d.deadline().min(m.starts));
        if let Some(old) = self.timer_of.insert(me, due) {
            self.timers.remove(&(old, me));
        }
        self.timers.insert((due, me));
    }

    fn run(&mut self, time: Duration) {
        let end = self.now.mono + time;
        loop {
            let input = self.events.first_key_value().map_or(Mono::FAR, |((at, _), _)| *at);
            let (due, me) = self.timers.first().copied().unwrap();
            let next = input.min(due);
            if next > end {
                break;
            }
            self.now.mono = self.now.mono.max(next);
            if input <= due {
                let (_, (from, to, wire)) = self.events.pop_first().unwrap();
                self.take(from, to, wire);
            } else {
                self.with(me, |m, now, rng| {
                    if m.starts <= now.mono {
                        m.starts = Mono::FAR;
                        m.d.start(now, &m.roster, rng);
                    } else {
                        m.d.handle_timeout(now, &m.roster, rng);
                    }
                });
                self.drain(me);
            }
        }
        self.now.mono = end;
    }

    fn crash(&mut self, at: usize) -> MemberId {
        let id = self.members.iter().filter(|(_, m)| m.up).nth(at).map(|(id, _)| *id).unwrap();
        self.members.get_mut(&id).unwrap().up = false;
        self.set_timer(id);
        id
    }
}

/// Times of the first accusation and of the last death in a view, for crashes in one cluster; no other member dies.
fn crashes(n: u64, loss: f64, count: usize, seed: u64) -> Vec<(Duration, Duration)> {
    let mut cluster = Cluster::new(n, loss, seed);
    cluster.run(MS(60_000));
    let mut times = Vec::new();
    for _ in 0..count {
        let step = cluster.rng.up_to(MS(4_000));
        cluster.run(MS(6_000) + step);
        let began = cluster.now.mono;
        let (accusations, deaths) = (cluster.accusations.len(), cluster.deaths.len());
        let at = cluster.rng.below(cluster.members.values().filter(|m| m.up).count());
        let victim = cluster.crash(at);
        cluster.run(MS(16_000));
        let accused = cluster.accusations[accusations..].iter().find(|(_, who)| *who == victim);
        let dead: Vec<_> = cluster.deaths[deaths..].iter().filter(|(_, _, who)| *who == victim).collect();
        let know: BTreeSet<MemberId> = dead.iter().map(|(_, by, _)| *by).collect();
        assert!(cluster.members.iter().all(|(id, m)| !m.up || know.contains(id)), "all living members know");
        times.push((accused.unwrap().0 - began, dead.iter().map(|(at, _, _)| *at).max().unwrap() - began));
    }
    let wrong = cluster.deaths.iter().filter(|(_, _, who)| cluster.members[who].up).count();
    assert_eq!(wrong, 0, "false deaths");
    times
}

#[test]
fn an_idle_cluster_sends_two_and_a_half_datagrams_a_second_and_accuses_nobody() {
    for n in [20, 100] {
        let mut cluster = Cluster::new(n, 0.0, n);
        cluster.run(MS(10_000));
        let before = cluster.datagrams;
        cluster.run(MS(300_000));
        let rate = (cluster.datagrams - before) as f64 / 300.0 / n as f64;
        println!("n {n}: {rate} datagrams per second");
        assert!((2.3..2.5).contains(&rate), "{rate}");
        assert!(cluster.accusations.is_empty() && cluster.deaths.is_empty());
    }
}

#[test]
fn each_pair_has_one_edge_while_few_live() {
    for n in [2u64, 3, 5, 8] {
        let mut cluster = Cluster::new(n, 0.0, n);
        cluster.run(MS(10_000));
        let edges: usize = cluster.members.values().map(|m| m.d.partners().count()).sum();
        assert_eq!(edges as u64, n * (n - 1) / 2);
        let before = cluster.datagrams;
        cluster.run(MS(100_000));
        let rate = (cluster.datagrams - before) as f64 / 100.0;
        // One BEAT and one ACK per pair in h.
        let expected = (n * (n - 1) / 2) as f64;
        assert!((rate / expected - 1.0).abs() < 0.02, "{rate}");
    }
}

/// Section 8 of the protocol: 200 crashes per cell, ten (two) in each cluster of 100 (10).
#[test]
fn crashes_are_known_to_all_within_the_acceptance_times() {
    for (n, loss, first_ms, last_ms, p99_ms) in [
        (10, 0.0, 1_600, 5_800, 7_000),
        (10, 0.3, 1_600, 6_000, 8_000),
        (100, 0.05, 1_500, 5_800, 6_900),
        (100, 0.3, 1_500, 6_000, 7_800),
    ] {
        let each: usize = if n == 10 { 2 } else { 10 };
        let times: Vec<_> = (0..200 / each).flat_map(|seed| crashes(n, loss, each, seed as u64)).collect();
        let mut firsts: Vec<Duration> = times.iter().map(|t| t.0).collect();
        let mut lasts: Vec<Duration> = times.iter().map(|t| t.1).collect();
        firsts.sort();
        lasts.sort();
        let figures = (firsts[100], lasts[100], lasts[197]);
        println!("n {n} loss {loss}: first accusation, last member knows, p99: {figures:?}");
        assert!(figures.0 <= MS(first_ms) && figures.1 <= MS(last_ms) && figures.2 <= MS(p99_ms));
    }
}

#[test]
fn loss_alone_kills_nobody() {
    for loss in [0.2, 0.3] {
        let mut cluster = Cluster::new(50, loss, 5);
        cluster.run(MS(720_000));
        let suspicions = cluster.accusations.len();
        println!(
            "50 members, 10 member-hours, loss {loss}: {suspicions} accusations, {} deaths",
            cluster.deaths.len()
        );
        assert!(cluster.deaths.is_empty());
        assert!(suspicions as f64 <= if loss < 0.25 { 5.0 } else { 60.0 });
    }
}
