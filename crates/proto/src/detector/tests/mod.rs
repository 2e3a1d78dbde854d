//! One detector against a scripted world: members that answer, or only through relays, or not at all.

mod cluster;
mod edges;
mod probe;
mod suspicion;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::Config;
use crate::member::{Accuser, Generation, Incarnation, Member, Profile, Tags};
use crate::record::RecordHasher;
use crate::time::Wall;
use crate::wire::Compared;

pub(super) const MS: fn(u64) -> Duration = Duration::from_millis;
const RTT: Duration = Duration::from_millis(2);

#[derive(Clone, Debug)]
enum Input {
    Ack { from: MemberId, seq: u32, flags: AckFlags },
    Receipt { from: MemberId, seq: u32 },
}

pub(super) struct World {
    pub d: Detector,
    pub roster: Roster,
    pub rng: Rng,
    pub now: Now,
    pub log: Vec<(Mono, Action)>,
    inputs: BTreeMap<(Mono, u64), Input>,
    count: u64,
    /// Members that answer nothing.
    pub down: BTreeSet<MemberId>,
    /// Members that answer only through relays.
    pub cut: BTreeSet<MemberId>,
    /// What ACKs to PINGs say.
    pub watched: bool,
    /// Relays that are alive but reach nobody.
    pub receipts_lost: bool,
}

pub(super) fn id(n: u64) -> MemberId {
    MemberId(n)
}

pub(super) fn member(n: u64, generation: u64, id: u64) -> Member {
    let profile = Profile {
        name: Arc::from(format!("m{n}")),
        generation: Generation(generation),
        id: MemberId(id),
        revision: 0,
        address: SocketAddr::from(([127, 0, 0, 1], n as u16)),
        tags: Tags::new(),
    };
    Member { profile: Arc::new(profile), incarnation: Incarnation(0), liveness: Liveness::Alive }
}

impl World {
    /// A world of `n` members with the ids 1..=n; mine is 1.
    pub fn new(n: u64, change: impl FnOnce(&mut Config)) -> World {
        let mut config = Config::lan();
        change(&mut config);
        let mut rng = Rng::from_number(n);
        let now = Now { mono: Mono(1_000_000_000), wall: Wall(1_700_000_000_000) };
        let hasher = RecordHasher::new("test");
        let roster = Roster::new(hasher, member(1, 1, 1), 7, 16_384, Duration::from_secs(86_400));
        let d = Detector::new(&config.detector, config.rtt_initial, now, &mut rng);
        let mut world = World {
            d,
            roster,
            rng,
            now,
            log: Vec::new(),
            inputs: BTreeMap::new(),
            count: 0,
            down: BTreeSet::new(),
            cut: BTreeSet::new(),
            watched: true,
            receipts_lost: false,
        };
        (2..=n).for_each(|n| world.join(n));
        world
    }

    /// The same, started.
    pub fn started(n: u64) -> World {
        let mut world = World::new(n, |_| {});
        world.start();
        world
    }

    pub fn start(&mut self) {
        self.d.start(self.now, &self.roster, &mut self.rng);
        self.drain();
    }

    pub fn join(&mut self, n: u64) {
        self.roster.merge(self.now, &member(n, 1, n));
        self.changed(id(n));
    }

    pub fn restart(&mut self, n: u64, new: u64) {
        self.roster.merge(self.now, &member(n, 2, new));
        self.changed(id(n));
        self.changed(id(new));
    }

    pub fn changed(&mut self, id: MemberId) {
        self.d.handle_member(self.now, id, &self.roster, &mut self.rng);
        self.drain();
    }

    pub fn set(&mut self, id: MemberId, liveness: Liveness) {
        self.roster.set_liveness(self.now.mono, id, liveness);
        self.changed(id);
    }

    pub fn refute(&mut self, n: u64, incarnation: u64) {
        let _ = self.roster.merge_live(self.now.mono, id(n), Incarnation(incarnation), Liveness::Alive);
        self.changed(id(n));
    }

    pub fn suspect(&mut self, n: u64, incarnation: u64, accusers: &[u64]) -> News {
        let accusers = accusers.iter().map(|&a| Accuser::new(id(a), a as f64)).collect();
        let claim =
            Claim { id: id(n), incarnation: Incarnation(incarnation), liveness: Liveness::Suspect, accusers };
        self.hear(&claim)
    }

    fn hear(&mut self, claim: &Claim) -> News {
        let news = self.d.handle_suspicion(self.now, claim, &self.roster, &mut self.rng);
        if news != News::Old {
            let _ = self.roster.merge_live(self.now.mono, claim.id, claim.incarnation, Liveness::Suspect);
            self.changed(claim.id);
        }
        self.drain();
        news
    }

    pub fn report_dead(&mut self, n: u64, incarnation: u64, by: u64) -> DeathNews {
        let claim = Claim {
            id: id(n),
            incarnation: Incarnation(incarnation),
            liveness: Liveness::Dead,
            accusers: vec![Accuser::new(id(by), 0.0)],
        };
        let news = self.d.handle_death_report(self.now, &claim, &self.roster, &mut self.rng);
        self.drain();
        news
    }

    pub fn beat(&mut self, from: u64, seq: u32) -> bool {
        self.beat_with(from, seq, false, false)
    }

    pub fn beat_with(&mut self, from: u64, seq: u32, once: bool, deaf: bool) -> bool {
        let beat = Beat { seq, clock: Default::default(), settle_secs: 3, once, deaf, roots: None };
        self.d.handle_heard(self.now, id(from));
        let watched = self.d.handle_beat(self.now, id(from), &beat, &self.roster);
        self.drain();
        watched
    }

    pub fn ack(&mut self, from: u64, seq: u32, to_beat: bool, watched: bool) -> AckMatch {
        let flags = AckFlags { to_beat, watched, members: Compared::Not, entries: Compared::Not };
        self.d.handle_heard(self.now, id(from));
        let matched = self.d.handle_ack(self.now, id(from), seq, &flags, None, &self.roster);
        self.drain();
        matched
    }

    /// Plays the hall: does what the actions ask, lets the world answer.
    pub fn drain(&mut self) {
        while let Some(action) = self.d.poll_action() {
            self.log.push((self.now.mono, action.clone()));
            match action {
                Action::Beat { to, seq, .. } => self.answer(to, seq, true),
                Action::Send { to, message: Message::Ping { seq, origin: None } } => {
                    self.answer(to, seq, false)
                }
                Action::Send { to, message: Message::PingVia { seq, target } } => self.relay(to, seq, target),
                Action::Send { .. } | Action::ContactDue | Action::Remind { .. } => {}
                Action::Accuse { id, phi } => {
                    let Some((incarnation, _)) = self.roster.live(id) else { continue };
                    let accusers = vec![Accuser::new(self.roster.my_id(), phi)];
                    self.hear(&Claim { id, incarnation, liveness: Liveness::Suspect, accusers });
                }
                Action::Declare { id } | Action::DeclareAlone { id } => self.set(id, Liveness::Dead),
                Action::UndoAlone { id } => self.set(id, Liveness::Alive),
            }
        }
    }

    fn input(&mut self, after: Duration, input: Input) {
        self.count += 1;
        self.inputs.insert((self.now.mono + after, self.count), input);
    }

    fn answer(&mut self, from: MemberId, seq: u32, to_beat: bool) {
        if !self.down.contains(&from) && !self.cut.contains(&from) {
            let watched = to_beat || self.watched;
            let flags = AckFlags { to_beat, watched, members: Compared::Not, entries: Compared::Not };
            self.input(RTT, Input::Ack { from, seq, flags });
        }
    }

    fn relay(&mut self, relay: MemberId, seq: u32, target: MemberId) {
        if self.down.contains(&relay) || self.receipts_lost {
            return;
        }
        self.input(RTT, Input::Receipt { from: relay, seq });
        if !self.down.contains(&target) {
            let flags = AckFlags { watched: self.watched, ..AckFlags::default() };
            self.input(RTT * 2, Input::Ack { from: relay, seq, flags });
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Ack { from, seq, flags } => {
                self.d.handle_heard(self.now, from);
                self.d.handle_ack(self.now, from, seq, &flags, None, &self.roster);
            }
            Input::Receipt { from, seq } => {
                self.d.handle_heard(self.now, from);
                self.d.handle_receipt(self.now, from, seq);
            }
        }
    }

    fn set_now(&mut self, to: Mono) {
        let step = to - self.now.mono;
        self.now = Now { mono: to, wall: Wall(self.now.wall.0 + step.as_millis() as u64) };
    }

    /// Lets time pass with everything due on time.
    pub fn run(&mut self, time: Duration) {
        let end = self.now.mono + time;
        loop {
            let input = self.inputs.first_key_value().map_or(Mono::FAR, |((at, _), _)| *at);
            let due = self.d.deadline().max(self.now.mono);
            let next = input.min(due);
            if next > end {
                break;
            }
            self.set_now(next);
            if input <= due {
                let (_, input) = self.inputs.pop_first().unwrap();
                self.take(input);
            } else {
                self.d.handle_timeout(self.now, &self.roster, &mut self.rng);
            }
            self.drain();
        }
        self.set_now(end);
    }

    /// Time passes and nothing runs: a stall. Inputs that came meanwhile are taken first, then the timers.
    pub fn stall(&mut self, time: Duration) {
        self.set_now(self.now.mono + time);
        while let Some(first) = self.inputs.first_entry().filter(|e| e.key().0 <= self.now.mono) {
            let input = first.remove();
            self.take(input);
        }
        self.drain();
    }

    /// Runs until `stop` holds, at most a minute; the time it took.
    pub fn run_until(&mut self, stop: impl Fn(&Action) -> bool) -> Duration {
        let (began, logged) = (self.now.mono, self.log.len());
        for _ in 0..60_000 {
            self.run(MS(1));
            if self.log[logged..].iter().any(|(_, a)| stop(a)) {
                return self.now.mono - began;
            }
        }
        panic!("never; log: {:?}", &self.log[logged..]);
    }

    /// What was logged since entry `from` and fits.
    pub fn logged(&self, from: usize, fits: impl Fn(&Action) -> bool) -> Vec<(Mono, Action)> {
        self.log[from..].iter().filter(|(_, a)| fits(a)).cloned().collect()
    }

    pub fn partners(&self) -> BTreeSet<MemberId> {
        self.d.partners().collect()
    }

    /// Beats of edges to this member: times and numbers.
    pub fn beats_to(&self, from: usize, whom: MemberId) -> Vec<(Mono, u32)> {
        let mut beats = Vec::new();
        for (at, action) in &self.log[from..] {
            if let Action::Beat { to, seq, once: false, .. } = action
                && *to == whom
            {
                beats.push((*at, *seq));
            }
        }
        beats
    }

    pub fn contacts(&self, from: usize) -> Vec<(Mono, MemberId, u32)> {
        let mut contacts = Vec::new();
        for (at, action) in &self.log[from..] {
            if let Action::Beat { to, seq, once: true, .. } = action {
                contacts.push((*at, *to, *seq));
            }
        }
        contacts
    }
}

pub(super) fn is_ping(action: &Action, whom: MemberId) -> bool {
    matches!(action, Action::Send { to, message: Message::Ping { origin: None, .. } } if *to == whom)
}

pub(super) fn is_via(action: &Action, whom: MemberId) -> bool {
    matches!(action, Action::Send { message: Message::PingVia { target, .. }, .. } if *target == whom)
}

pub(super) fn is_claims(action: &Action, whom: MemberId) -> bool {
    matches!(action, Action::Send { to, message: Message::Claims(_) } if *to == whom)
}

pub(super) fn is_accuse(action: &Action, whom: MemberId) -> bool {
    matches!(action, Action::Accuse { id, .. } if *id == whom)
}
