//! The baseline: SWIM with the Lifeguard extensions as memberlist runs it on a LAN, in the same network model.
//!
//! Rules and defaults are memberlist's (`state.go`, `suspicion.go`, `awareness.go`, `DefaultLANConfig`). Bytes come from the
//! sizes of its encoded messages, not from an encoder. Every view starts full. The state exchange over a stream is
//! instantaneous and never lost, which favours the baseline. The stream ping beside the relays loses segments as datagrams
//! do; without it (`tcp` false) the model is the one whose false suspicions have a closed form.

mod measure;
mod member;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use hearsay_proto::rng::Rng;
use hearsay_proto::time::Mono;

pub use measure::{CrashFigures, crash, false_suspicions_theory, split};
pub use member::{Liveness, Member};

use crate::network::Network;
use member::Timer;

/// Bytes of the encoded messages, as measured on memberlist 0.7 (a ping and its ack make 88 B each second).
mod bytes {
    pub const PING: usize = 58;
    pub const ACK: usize = 30;
    pub const NACK: usize = 12;
    pub const INDIRECT_PING: usize = 76;
    /// One suspect, alive or dead message with its length in a compound packet.
    pub const RUMOR: usize = 60;
    /// Header of a compound packet.
    pub const COMPOUND: usize = 2;
    /// One member in a state exchange.
    pub const STATE: usize = 60;
    /// Largest packet.
    pub const PACKET_MAX: usize = 1_400;
}

/// memberlist's `DefaultLANConfig`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Probe interval; 1 s.
    pub probe_interval: Duration,
    /// Time until relays are asked; 500 ms.
    pub probe_timeout: Duration,
    /// Relays; 3.
    pub indirect_checks: usize,
    /// Suspicion lasts at least this x max(1, log10 n) probe intervals; 4.
    pub suspicion_mult: u32,
    /// The longest suspicion is this many times the shortest; 6.
    pub suspicion_max_mult: u32,
    /// The health score stays below this; 8.
    pub awareness_max: u32,
    /// Gossip tick; 200 ms.
    pub gossip_interval: Duration,
    /// Peers per tick; 3.
    pub gossip_nodes: usize,
    /// The dead still get gossip for this long, then they are forgotten; 30 s.
    pub gossip_to_the_dead: Duration,
    /// Each broadcast is sent this x ceil(log10(n + 1)) times; 4.
    pub retransmit_mult: u32,
    /// State exchange, below 33 members; 30 s.
    pub push_pull_interval: Duration,
    /// A stream ping runs beside the relays.
    pub tcp: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(500),
            indirect_checks: 3,
            suspicion_mult: 4,
            suspicion_max_mult: 6,
            awareness_max: 8,
            gossip_interval: Duration::from_millis(200),
            gossip_nodes: 3,
            gossip_to_the_dead: Duration::from_secs(30),
            retransmit_mult: 4,
            push_pull_interval: Duration::from_secs(30),
            tcp: true,
        }
    }
}

/// A statement about a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rumor {
    subject: u32,
    liveness: Liveness,
    incarnation: u32,
    from: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ping,
    Ack,
    Nack,
    IndirectPing { target: u32 },
    Gossip,
}

#[derive(Clone, Debug)]
struct Packet {
    from: u32,
    to: u32,
    kind: Kind,
    seq: u32,
    rumors: Vec<Rumor>,
}

impl Packet {
    fn bytes(&self) -> usize {
        let own = match self.kind {
            Kind::Ping => bytes::PING,
            Kind::Ack => bytes::ACK,
            Kind::Nack => bytes::NACK,
            Kind::IndirectPing { .. } => bytes::INDIRECT_PING,
            Kind::Gossip => 0,
        };
        own + if self.rumors.is_empty() { 0 } else { bytes::COMPOUND + self.rumors.len() * bytes::RUMOR }
    }
}

/// What one member wants done after an input.
#[derive(Default)]
struct Out {
    packets: Vec<Packet>,
    timers: Vec<(Mono, Timer)>,
    tcp_ping: Option<(u32, u32, Mono)>,
    exchange_with: Option<u32>,
    told: Vec<(u32, Liveness)>,
}

enum What {
    Packet(Packet),
    Timer { member: u32, timer: Timer },
    TcpAnswered { member: u32, seq: u32 },
}

struct Scheduled {
    at: Mono,
    tie: u64,
    what: What,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.tie) == (other.at, other.tie)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.tie).cmp(&(other.at, other.tie))
    }
}

/// A change in one member's view.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// When.
    pub at: Mono,
    /// In whose view.
    pub member: u32,
    /// Of whom.
    pub subject: u32,
    /// To what.
    pub liveness: Liveness,
}

/// A cluster of the baseline in virtual time.
pub struct Cluster {
    /// Virtual time.
    pub now: Mono,
    /// The network and its faults.
    pub network: Network,
    /// Every change of every view, oldest first.
    pub told: Vec<Told>,
    /// Bytes of datagrams without IP and UDP headers.
    pub payload_bytes: u64,
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes of state exchanges.
    pub exchange_bytes: u64,
    settings: Settings,
    members: Vec<Member>,
    up: Vec<bool>,
    queue: BinaryHeap<Reverse<Scheduled>>,
    ties: u64,
    rng: Rng,
    net_rng: Rng,
}

impl Cluster {
    /// Members with full views, their timers at random phases.
    pub fn new(seed: u64, members: usize, settings: Settings) -> Cluster {
        let mut cluster = Cluster {
            now: Mono(0),
            network: Network::lan(members),
            told: Vec::new(),
            payload_bytes: 0,
            datagrams: 0,
            exchange_bytes: 0,
            members: (0..members).map(|id| Member::new(id as u32, members)).collect(),
            up: vec![true; members],
            queue: BinaryHeap::new(),
            ties: 0,
            rng: Rng::from_number(seed ^ 0x6261_7365),
            net_rng: Rng::from_number(seed ^ 0x6261_6e65),
            settings,
        };
        for member in 0..members as u32 {
            for (timer, period) in [
                (Timer::Probe, cluster.settings.probe_interval),
                (Timer::Gossip, cluster.settings.gossip_interval),
                (Timer::PushPull, member::push_pull_period(&cluster.settings, members)),
            ] {
                let at = cluster.now + cluster.rng.up_to(period);
                cluster.push(at, What::Timer { member, timer });
            }
        }
        cluster
    }

    /// Ends a member's process.
    pub fn crash(&mut self, member: usize) {
        self.up[member] = false;
    }

    /// Members that are up.
    pub fn up(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.up.len()).filter(|&m| self.up[m])
    }

    /// One member's state.
    pub fn member(&self, index: usize) -> &Member {
        &self.members[index]
    }

    /// Does everybody that is up hold exactly those that are up as living?
    pub fn views_full(&self) -> bool {
        let up = self.up().count();
        self.up().all(|m| self.members[m].living() == up)
    }

    fn push(&mut self, at: Mono, what: What) {
        self.ties += 1;
        self.queue.push(Reverse(Scheduled { at, tie: self.ties, what }));
    }

    /// Runs for this long.
    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(Reverse(next)) = self.queue.peek() {
            if next.at > until {
                break;
            }
            let Some(Reverse(next)) = self.queue.pop() else { break };
            self.now = self.now.max(next.at);
            self.handle(next.what);
        }
        self.now = until;
    }

    /// Runs until `done`, looked at each 100 ms, or this long has passed; the time it took.
    pub fn run_until(&mut self, at_most: Duration, done: impl Fn(&Cluster) -> bool) -> Option<Duration> {
        let start = self.now;
        while !done(self) {
            if self.now.since(start) >= at_most {
                return None;
            }
            self.run(Duration::from_millis(100));
        }
        Some(self.now.since(start))
    }

    fn handle(&mut self, what: What) {
        let mut out = Out::default();
        let member = match &what {
            What::Packet(packet) => packet.to,
            What::Timer { member, .. } | What::TcpAnswered { member, .. } => *member,
        };
        if !self.up[member as usize] {
            return;
        }
        let (settings, rng, now) = (&self.settings, &mut self.rng, self.now);
        let m = &mut self.members[member as usize];
        match what {
            What::Packet(packet) => m.handle_packet(settings, now, rng, packet, &mut out),
            What::Timer { timer, .. } => m.handle_timer(settings, now, rng, timer, &mut out),
            What::TcpAnswered { seq, .. } => m.handle_tcp_answer(seq),
        }
        self.carry_out(member, out);
    }

    fn carry_out(&mut self, member: u32, out: Out) {
        for (subject, liveness) in out.told {
            self.told.push(Told { at: self.now, member, subject, liveness });
        }
        for (at, timer) in out.timers {
            self.push(at, What::Timer { member, timer });
        }
        for packet in out.packets {
            self.payload_bytes += packet.bytes() as u64;
            self.datagrams += 1;
            let (from, to) = (packet.from as usize, packet.to as usize);
            if !self.network.connected(from, to) || self.network.draw_lost(&mut self.net_rng, from, to) {
                continue;
            }
            let at = self.now + self.network.draw_delay(&mut self.net_rng);
            self.push(at, What::Packet(packet));
        }
        if let Some((target, seq, deadline)) = out.tcp_ping {
            self.tcp_ping(member, target, seq, deadline);
        }
        if let Some(peer) = out.exchange_with {
            self.exchange(member, peer);
        }
    }

    /// SYN, SYN-ACK, question, answer; a lost SYN comes again after 1 s, a lost segment after 200 ms.
    fn tcp_ping(&mut self, member: u32, target: u32, seq: u32, deadline: Mono) {
        let (from, to) = (member as usize, target as usize);
        if !self.up[to] || !self.network.connected(from, to) || !self.network.connected(to, from) {
            return;
        }
        let mut at = self.now;
        for (a, b, again_ms) in [(from, to, 1_000), (to, from, 1_000), (from, to, 200), (to, from, 200)] {
            let mut wait = Duration::from_millis(again_ms);
            while self.network.draw_lost(&mut self.net_rng, a, b) {
                at = at + wait;
                wait *= 2;
                if at > deadline {
                    return;
                }
            }
            at = at + self.network.draw_delay(&mut self.net_rng);
        }
        if at < deadline {
            self.push(at, What::TcpAnswered { member, seq });
        }
    }

    fn exchange(&mut self, member: u32, peer: u32) {
        let (a, b) = (member as usize, peer as usize);
        if !self.up[b] || !self.network.connected(a, b) || !self.network.connected(b, a) {
            return;
        }
        let (of_a, of_b) = (self.members[a].states(), self.members[b].states());
        self.exchange_bytes += ((of_a.len() + of_b.len()) * bytes::STATE) as u64;
        for (target, states) in [(member, of_b), (peer, of_a)] {
            let mut out = Out::default();
            let m = &mut self.members[target as usize];
            m.merge(&self.settings, self.now, &states, &mut out);
            self.carry_out(target, out);
        }
    }
}
