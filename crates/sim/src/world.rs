//! Hosts, the event queue and virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use hearsay_proto::budget::DATAGRAM_OVERHEAD;
use hearsay_proto::member::{Generation, Tags};
use hearsay_proto::output::StreamId;
use hearsay_proto::rng::Rng;
use hearsay_proto::time::{Mono, Now, Wall};
use hearsay_proto::{Config, Event, Gossip, Identity, Output, Seed};

use crate::check::Checker;
use crate::network::Network;

/// Wall clock at the start of every simulation: 2026-01-01T00:00:00Z.
pub const EPOCH_MS: u64 = 1_767_225_600_000;
const PORT: u16 = 7946;
/// Bytes a paused host's socket keeps (Linux's usual `rmem_default`).
const SOCKET_BYTES_MAX: usize = 212_992;

/// Address of a host by its index: 10.x.y.z:7946.
pub fn address(host: usize) -> SocketAddr {
    let [_, a, b, c] = (host as u32 + 1).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, a, b, c)), PORT)
}

/// Index of the host of an address, if it is one of ours.
pub fn host_at(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        IpAddr::V4(ip) if ip.octets()[0] == 10 => {
            let [_, a, b, c] = ip.octets();
            (u32::from_be_bytes([0, a, b, c]) as usize).checked_sub(1)
        }
        _ => None,
    }
}

/// One event a host's user was told, with its time.
#[derive(Clone, Debug)]
pub struct Told {
    /// When.
    pub at: Mono,
    /// What.
    pub event: Event,
}

/// One simulated process.
pub struct Host {
    /// The state machine; none while the process is down.
    pub gossip: Option<Gossip>,
    /// Everything its user was told, oldest first.
    pub told: Vec<Told>,
    /// Own wall clock minus the true one, ms.
    pub clock_offset_ms: i64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Bytes of datagrams as sealed, IP and UDP headers not counted.
    pub payload_bytes: u64,
    /// Bytes of frames.
    pub stream_bytes: u64,
    /// Bytes with headers in the current second, and which second that is.
    pub second: (u64, u64),
    /// Most bytes with headers in any second.
    pub busiest_second: u64,
    paused: bool,
    socket: Vec<(SocketAddr, Rc<[u8]>)>,
    socket_bytes: usize,
    timer: Mono,
    runs: u64,
}

enum What {
    Timer(usize),
    Datagram { to: usize, from: SocketAddr, bytes: Rc<[u8]> },
    Connect { from: usize, stream: StreamId, to: SocketAddr, runs: u64 },
    Frame { conn: usize, forward: bool, bytes: Rc<[u8]> },
    Writable { conn: usize, forward: bool },
    Closed { conn: usize, forward: bool },
    OpenFailed { host: usize, stream: StreamId, runs: u64 },
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

/// One direction's end of a connection.
#[derive(Clone, Copy)]
struct End {
    host: usize,
    runs: u64,
    stream: StreamId,
    open: bool,
    free_at: Mono,
}

struct Conn {
    ends: [End; 2],
}

/// N hosts, one network, one queue.
pub struct World {
    /// Virtual time since the start.
    pub now: Mono,
    /// The network and its faults.
    pub network: Network,
    /// Every process.
    pub hosts: Vec<Host>,
    /// Invariants.
    pub checker: Checker,
    config: Config,
    seed: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    ties: u64,
    net_rng: Rng,
    tie_rng: Rng,
    conns: Vec<Conn>,
    by_stream: BTreeMap<(usize, StreamId), (usize, bool)>,
    accepted: u64,
    trace: blake3::Hasher,
    trace_on: bool,
    /// Events handled.
    pub steps: u64,
    buf: Vec<u8>,
}

impl World {
    /// `hosts` processes that are down, on a clean local network.
    pub fn new(seed: u64, hosts: usize, config: Config) -> World {
        let mut offsets = Rng::from_number(seed ^ 0x0ff5_e75e);
        World {
            now: Mono(0),
            network: Network::lan(hosts),
            hosts: (0..hosts)
                .map(|_| Host {
                    gossip: None,
                    told: Vec::new(),
                    clock_offset_ms: offsets.below(101) as i64 - 50,
                    datagrams: 0,
                    payload_bytes: 0,
                    stream_bytes: 0,
                    second: (0, 0),
                    busiest_second: 0,
                    paused: false,
                    socket: Vec::new(),
                    socket_bytes: 0,
                    timer: Mono::FAR,
                    runs: 0,
                })
                .collect(),
            checker: Checker::new(hosts, config.bytes_per_second_max),
            config,
            seed,
            queue: BinaryHeap::new(),
            ties: 0,
            net_rng: Rng::from_number(seed ^ 0x006e_6574),
            tie_rng: Rng::from_number(seed ^ 0x0074_6965),
            conns: Vec::new(),
            by_stream: BTreeMap::new(),
            accepted: 0,
            trace: blake3::Hasher::new(),
            trace_on: false,
            steps: 0,
            buf: Vec::with_capacity(2048),
        }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The configuration every host starts with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Hashes every step from now on; see [`World::trace`].
    pub fn record_trace(&mut self) {
        self.trace_on = true;
    }

    /// Hash of every step so far: time, kind, hosts, bytes.
    pub fn trace(&self) -> String {
        self.trace.finalize().to_hex().to_string()
    }

    /// The time as this host's clocks show it.
    pub fn clock(&self, host: usize) -> Now {
        let ms = (EPOCH_MS + self.now.0 / 1_000_000) as i64 + self.hosts[host].clock_offset_ms;
        Now { mono: self.now, wall: Wall(ms.max(0) as u64) }
    }

    /// Name of a host's member.
    pub fn name(host: usize) -> String {
        format!("m{host}")
    }

    /// Starts the process of a host under its name and tells it these hosts as seeds.
    pub fn start(&mut self, host: usize, seeds: &[usize]) {
        self.start_with(host, seeds, Tags::new());
    }

    /// As [`World::start`], with tags.
    pub fn start_with(&mut self, host: usize, seeds: &[usize], tags: Tags) {
        let now = self.clock(host);
        let runs = self.hosts[host].runs + 1;
        let mut rng = Rng::from_number(self.seed ^ (host as u64) << 20 ^ runs << 52 ^ 0x0067_6f73);
        let mut seed = [0u8; 32];
        rng.fill(&mut seed);
        let identity = Identity {
            name: World::name(host),
            generation_stored: None::<Generation>,
            address: address(host),
            tags,
        };
        let mut gossip = match Gossip::new(self.config.clone(), identity, seed, now) {
            Ok(gossip) => gossip,
            Err(error) => {
                self.checker.fail(format!("start of {host} refused: {error}"));
                return;
            }
        };
        let seeds = seeds
            .iter()
            .map(|&s| Seed { name: World::name(s), addresses: Ok(vec![address(s)]) })
            .collect::<Vec<_>>();
        gossip.join(now, seeds);
        let h = &mut self.hosts[host];
        h.runs = runs;
        h.paused = false;
        h.gossip = Some(gossip);
        self.checker.started(host);
        self.drain(host);
    }

    /// Kills the process of a host. Its kernel closes the streams.
    pub fn crash(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        h.gossip = None;
        h.timer = Mono::FAR;
        h.paused = false;
        h.socket.clear();
        h.socket_bytes = 0;
        let gone: Vec<(StreamId, (usize, bool))> = self
            .by_stream
            .range((host, StreamId(0))..=(host, StreamId(u64::MAX)))
            .map(|(&(_, s), &c)| (s, c))
            .collect();
        for (stream, (conn, forward)) in gone {
            self.close(host, stream, conn, forward);
        }
    }

    /// Stops a process as SIGSTOP or a long pause does: its socket fills, its timers wait.
    pub fn pause(&mut self, host: usize) {
        self.hosts[host].paused = true;
    }

    /// Continues a paused process: first the socket is drained, then timers run.
    pub fn resume(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        h.paused = false;
        h.socket_bytes = 0;
        for (from, bytes) in std::mem::take(&mut h.socket) {
            self.deliver(host, from, &bytes);
        }
        if self.hosts[host].timer <= self.now {
            self.fire(host);
        }
    }

    /// Steps a host's wall clock.
    pub fn step_clock(&mut self, host: usize, by_ms: i64) {
        self.hosts[host].clock_offset_ms += by_ms;
    }

    /// Is the process up (paused or not)?
    pub fn is_up(&self, host: usize) -> bool {
        self.hosts[host].gossip.is_some()
    }

    /// The state machine of a host that is up.
    pub fn gossip(&self, host: usize) -> Option<&Gossip> {
        self.hosts[host].gossip.as_ref()
    }

    /// One command on a host's state machine, and what follows from it; none if the process is down.
    pub fn command<T>(&mut self, host: usize, act: impl FnOnce(&mut Gossip, Now) -> T) -> Option<T> {
        let now = self.clock(host);
        let result = act(self.hosts[host].gossip.as_mut()?, now);
        self.drain(host);
        Some(result)
    }

    fn push(&mut self, at: Mono, what: What) {
        self.ties += 1;
        // Random high bits: events of one instant run in an order that the seed decides.
        let tie = u64::from(self.tie_rng.u32()) << 32 | (self.ties & 0xffff_ffff);
        self.queue.push(Reverse(Scheduled { at, tie, what }));
    }

    fn drain(&mut self, host: usize) {
        let now = self.clock(host);
        let mut buf = std::mem::take(&mut self.buf);
        let mut rounds = 0u32;
        while let Some(gossip) = self.hosts[host].gossip.as_mut() {
            rounds += 1;
            if rounds > 1_000_000 {
                self.checker.fail(format!("host {host}: outputs do not end"));
                break;
            }
            match gossip.poll_output(now, &mut buf) {
                Output::Wait(at) => {
                    if at <= now.mono {
                        self.checker.fail(format!("host {host}: waits for {at:?} at {:?}", now.mono));
                        break;
                    }
                    let h = &mut self.hosts[host];
                    if h.timer != at {
                        h.timer = at;
                        if at != Mono::FAR {
                            self.push(at, What::Timer(host));
                        }
                    }
                    break;
                }
                Output::Transmit { to } => self.transmit(host, to, &buf),
                Output::Event(event) => {
                    self.checker.told(host, self.now, &event);
                    self.hosts[host].told.push(Told { at: now.mono, event });
                }
                Output::Open { stream, to } => {
                    let delay = self.network.draw_delay(&mut self.net_rng) * 2;
                    let runs = self.hosts[host].runs;
                    self.push(self.now + delay, What::Connect { from: host, stream, to, runs });
                }
                Output::Send { stream } => self.send_frame(host, stream, &buf),
                Output::Close { stream } => {
                    if let Some(&(conn, forward)) = self.by_stream.get(&(host, stream)) {
                        self.close(host, stream, conn, forward);
                    }
                }
            }
        }
        self.buf = buf;
        self.checker.stepped(host, &self.hosts[host]);
    }

    fn account(&mut self, host: usize, wire_bytes: usize) {
        let second = self.now.0 / 1_000_000_000;
        let h = &mut self.hosts[host];
        if h.second.0 != second {
            h.second = (second, 0);
        }
        h.second.1 += wire_bytes as u64;
        h.busiest_second = h.busiest_second.max(h.second.1);
    }

    fn transmit(&mut self, from: usize, to: SocketAddr, plain: &[u8]) {
        let sealed = plain.len() + self.config.seal_bytes;
        if sealed > self.config.limits.datagram_bytes_max {
            self.checker.fail(format!("host {from}: datagram of {sealed} B"));
        }
        self.account(from, sealed + DATAGRAM_OVERHEAD);
        self.hosts[from].datagrams += 1;
        self.hosts[from].payload_bytes += sealed as u64;
        let Some(target) = host_at(to).filter(|&t| t < self.hosts.len()) else { return };
        if target != from && !self.network.connected(from, target) {
            return;
        }
        if self.network.draw_lost(&mut self.net_rng, from, target) {
            return;
        }
        let bytes: Rc<[u8]> = Rc::from(plain);
        let copies =
            1 + u32::from(self.network.duplicate > 0.0 && self.net_rng.chance(self.network.duplicate));
        for _ in 0..copies {
            let mut delay = self.network.draw_delay(&mut self.net_rng);
            if self.network.reorder > 0.0 && self.net_rng.chance(self.network.reorder) {
                delay += self.net_rng.up_to(self.network.reorder_by);
            }
            self.push(
                self.now + delay,
                What::Datagram { to: target, from: address(from), bytes: bytes.clone() },
            );
        }
    }

    fn send_frame(&mut self, host: usize, stream: StreamId, plain: &[u8]) {
        self.hosts[host].stream_bytes += plain.len() as u64;
        let Some(&(conn, forward)) = self.by_stream.get(&(host, stream)) else { return };
        let segments = plain.len() / 1400 + 1;
        let mut delay = self.network.draw_delay(&mut self.net_rng);
        let peer = self.conns[conn].ends[usize::from(forward)].host;
        for _ in 0..segments {
            if self.network.draw_lost(&mut self.net_rng, host, peer) {
                delay += Duration::from_millis(200);
            }
        }
        let transfer = Duration::from_secs_f64(plain.len() as f64 / self.network.stream_bytes_per_second);
        let own = &mut self.conns[conn].ends[usize::from(!forward)];
        let free = own.free_at.max(self.now) + transfer;
        own.free_at = free;
        let bytes: Rc<[u8]> = Rc::from(plain);
        self.push(free, What::Writable { conn, forward });
        self.push(free + delay, What::Frame { conn, forward, bytes });
    }

    fn close(&mut self, host: usize, stream: StreamId, conn: usize, forward: bool) {
        self.by_stream.remove(&(host, stream));
        self.conns[conn].ends[usize::from(!forward)].open = false;
        let delay = self.network.draw_delay(&mut self.net_rng);
        let after = self.conns[conn].ends[usize::from(!forward)].free_at.max(self.now) + delay;
        self.push(after, What::Closed { conn, forward });
    }

    fn fire(&mut self, host: usize) {
        let now = self.clock(host);
        self.hosts[host].timer = Mono::FAR;
        if let Some(gossip) = self.hosts[host].gossip.as_mut() {
            gossip.handle_timeout(now);
            self.drain(host);
        }
    }

    fn deliver(&mut self, host: usize, from: SocketAddr, bytes: &[u8]) {
        let now = self.clock(host);
        if let Some(gossip) = self.hosts[host].gossip.as_mut() {
            gossip.handle_datagram(now, from, bytes);
            self.drain(host);
        }
    }

    fn note(&mut self, kind: u8, a: usize, b: u64, bytes: &[u8]) {
        if self.trace_on {
            self.trace.update(&self.now.0.to_le_bytes());
            self.trace.update(&[kind]);
            self.trace.update(&(a as u64).to_le_bytes());
            self.trace.update(&b.to_le_bytes());
            self.trace.update(bytes);
        }
    }

    /// Handles the next event; false if there is none before `until`, where time then stands.
    pub fn step(&mut self, until: Mono) -> bool {
        match self.queue.peek() {
            Some(Reverse(next)) if next.at <= until => {}
            _ => {
                self.now = self.now.max(until);
                return false;
            }
        }
        let Some(Reverse(next)) = self.queue.pop() else { return false };
        self.now = self.now.max(next.at);
        match next.what {
            What::Timer(host) => {
                if self.hosts[host].timer == next.at && !self.hosts[host].paused {
                    self.steps += 1;
                    self.note(1, host, 0, &[]);
                    self.fire(host);
                }
            }
            What::Datagram { to, from, bytes } => {
                self.steps += 1;
                self.note(2, to, host_at(from).unwrap_or(0) as u64, &bytes);
                let h = &mut self.hosts[to];
                if h.gossip.is_none() {
                } else if h.paused {
                    if h.socket_bytes + bytes.len() <= SOCKET_BYTES_MAX {
                        h.socket_bytes += bytes.len();
                        h.socket.push((from, bytes));
                    }
                } else {
                    self.deliver(to, from, &bytes);
                }
            }
            What::Connect { from, stream, to, runs } => self.connect(from, stream, to, runs),
            What::Frame { conn, forward, bytes } => {
                let end = self.conns[conn].ends[usize::from(forward)];
                let sender = self.conns[conn].ends[usize::from(!forward)].host;
                self.note(3, end.host, sender as u64, &bytes);
                if !self.network.connected(sender, end.host) {
                    self.push(self.now + Duration::from_secs(5), What::Closed { conn, forward });
                    self.push(self.now + Duration::from_secs(5), What::Closed { conn, forward: !forward });
                } else if end.open && self.hosts[end.host].runs == end.runs {
                    if self.hosts[end.host].paused {
                        let later = self.now + Duration::from_millis(50);
                        self.push(later, What::Frame { conn, forward, bytes });
                    } else {
                        self.with(end.host, |g, now| g.handle_frame(now, end.stream, &bytes));
                    }
                }
            }
            What::Writable { conn, forward } => {
                let end = self.conns[conn].ends[usize::from(!forward)];
                if end.open && self.hosts[end.host].runs == end.runs {
                    self.with(end.host, |g, now| g.handle_stream_writable(now, end.stream));
                }
            }
            What::Closed { conn, forward } => {
                let end = &mut self.conns[conn].ends[usize::from(forward)];
                let was = std::mem::replace(&mut end.open, false);
                let end = *end;
                if was && self.by_stream.remove(&(end.host, end.stream)).is_some() {
                    self.with(end.host, |g, now| g.handle_stream_closed(now, end.stream));
                }
            }
            What::OpenFailed { host, stream, runs } => {
                if self.hosts[host].runs == runs {
                    self.with(host, |g, now| g.handle_stream_closed(now, stream));
                }
            }
        }
        true
    }

    fn with(&mut self, host: usize, act: impl FnOnce(&mut Gossip, Now)) {
        self.steps += 1;
        self.command(host, act);
    }

    fn connect(&mut self, from: usize, stream: StreamId, to: SocketAddr, runs: u64) {
        if self.hosts[from].gossip.is_none() || self.hosts[from].runs != runs {
            return;
        }
        let target = host_at(to).filter(|&t| t < self.hosts.len());
        let Some(target) =
            target.filter(|&t| self.network.connected(from, t) && self.network.connected(t, from))
        else {
            self.push(self.now + Duration::from_secs(5), What::OpenFailed { host: from, stream, runs });
            return;
        };
        if self.hosts[target].gossip.is_none() {
            self.push(self.now + Duration::from_millis(1), What::OpenFailed { host: from, stream, runs });
            return;
        }
        self.accepted += 1;
        let odd = StreamId(self.accepted * 2 + 1);
        let conn = self.conns.len();
        let end = |host: usize, stream: StreamId, runs: u64| End {
            host,
            runs,
            stream,
            open: true,
            free_at: Mono(0),
        };
        self.conns.push(Conn { ends: [end(from, stream, runs), end(target, odd, self.hosts[target].runs)] });
        self.by_stream.insert((from, stream), (conn, true));
        self.by_stream.insert((target, odd), (conn, false));
        self.with(target, |g, now| g.handle_stream_accepted(now, odd, address(from)));
        self.with(from, |g, now| g.handle_stream_opened(now, stream));
    }

    /// Runs for this long.
    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    /// Runs until `done` holds, looked at each `every`, or `at_most` has passed; the time it took.
    pub fn run_until(
        &mut self,
        at_most: Duration,
        every: Duration,
        mut done: impl FnMut(&World) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        loop {
            if done(self) {
                return Some(self.now.since(start));
            }
            if self.now.since(start) >= at_most {
                return None;
            }
            self.run(every);
        }
    }

    /// Indices of hosts that are up.
    pub fn up(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.hosts.len()).filter(|&h| self.is_up(h))
    }

    /// Do all hosts that are up count each other, and nobody else, as living?
    pub fn views_full(&self) -> bool {
        let up = self.up().count();
        self.up().all(|h| self.gossip(h).is_some_and(|g| g.living() == up))
    }

    /// Do all hosts that are up have the same root?
    pub fn roots_equal(&self) -> bool {
        let mut roots = self.up().filter_map(|h| self.gossip(h).map(Gossip::root));
        let first = roots.next();
        roots.all(|r| Some(r) == first)
    }
}
