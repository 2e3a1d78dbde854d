//! Hosts, the event queue and virtual time.

mod disk;
mod drive;
mod host;
mod queue;
mod streams;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hearsay_proto::member::{Member, Tags};
use hearsay_proto::output::StreamId;
use hearsay_proto::rng::Rng;
use hearsay_proto::table::Table;
use hearsay_proto::time::{Mono, Now, Wall};
use hearsay_proto::{Config, Event, Gossip, Identity, Seed};

use crate::check::Checker;
use crate::network::Network;
pub use disk::Disk;
pub use host::{Host, News, SOCKET_BYTES, SOCKET_OVERHEAD, Stall, Told};
use queue::{Queue, What};
use streams::Conn;

/// Wall clock at the start of every simulation: 2026-01-01T00:00:00Z.
pub const EPOCH_MS: u64 = 1_767_225_600_000;
const PORT: u16 = 7946;

/// No host is at this address any more.
const NOBODY: u32 = u32::MAX;
/// While alone, seeds are resolved again after this long, then half as much again each time, up to the second.
const RESOLVE_PAUSE: Duration = Duration::from_secs(5);
const RESOLVE_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Sees every datagram sent: time, host, destination, plain bytes.
pub type Tap = Box<dyn FnMut(Mono, usize, SocketAddr, &[u8])>;

/// Hears what users are told: time, host, what.
pub type Ear = Box<dyn FnMut(Mono, usize, &Event)>;

/// The n-th address: 10.x.y.z:7946.
fn nth_address(n: usize) -> SocketAddr {
    let [_, a, b, c] = (n as u32 + 1).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, a, b, c)), PORT)
}

/// Which address this is, if it is one of ours.
fn address_number(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        IpAddr::V4(ip) if ip.octets()[0] == 10 => {
            let [_, a, b, c] = ip.octets();
            (u32::from_be_bytes([0, a, b, c]) as usize).checked_sub(1)
        }
        _ => None,
    }
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
    /// What all users were told, oldest first.
    pub log: Vec<Told>,
    /// What all users were told of broadcasts, queries, mail, confirmations and heals: when, whose user, what; oldest first.
    pub said: Vec<(Mono, u32, Event)>,
    /// Events handled.
    pub steps: u64,
    /// Sees every datagram sent.
    pub tap: Option<Tap>,
    /// Hears everything that users are told.
    pub ear: Option<Ear>,
    /// Names of members are this long at least, for large records.
    pub name_bytes: usize,
    /// Tags of members that are started without any.
    pub tags: Tags,
    /// Once set, time passes and nothing happens any more: whatever runs comes to its end soon.
    pub stop: Arc<AtomicBool>,
    config: Config,
    configs: Table<usize, Config>,
    seed: u64,
    queue: Queue,
    net_rng: Rng,
    /// Host at each address, and address of each host, by number.
    at_address: Vec<u32>,
    address_of: Vec<u32>,
    conns: Vec<Conn>,
    by_stream: Table<(usize, StreamId), (usize, bool)>,
    accepted: u64,
    trace: blake3::Hasher,
    trace_on: bool,
    buf: Vec<u8>,
}

impl World {
    /// `hosts` processes that are down, on a clean local network.
    pub fn new(seed: u64, hosts: usize, config: Config) -> World {
        let mut offsets = Rng::from_number(seed ^ 0x0ff5_e75e);
        World {
            now: Mono(0),
            network: Network::lan(hosts),
            hosts: (0..hosts).map(|_| Host::down(offsets.below(101) as i64 - 50)).collect(),
            checker: Checker::new(hosts, config.bytes_per_second_max),
            log: Vec::new(),
            said: Vec::new(),
            steps: 0,
            tap: None,
            ear: None,
            name_bytes: 0,
            tags: Tags::new(),
            stop: Arc::default(),
            config,
            configs: Table::new(),
            seed,
            queue: Queue::new(seed),
            net_rng: Rng::from_number(seed ^ 0x006e_6574),
            at_address: (0..hosts as u32).collect(),
            address_of: (0..hosts as u32).collect(),
            conns: Vec::new(),
            by_stream: Table::new(),
            accepted: 0,
            trace: blake3::Hasher::new(),
            trace_on: false,
            buf: Vec::with_capacity(2048),
        }
    }

    /// The address of a host.
    pub fn address(&self, host: usize) -> SocketAddr {
        nth_address(self.address_of[host] as usize)
    }

    /// The host at an address, if it is one of ours.
    pub fn host_at(&self, address: SocketAddr) -> Option<usize> {
        self.at_address.get(address_number(address)?).filter(|&&h| h != NOBODY).map(|&h| h as usize)
    }

    /// Two hosts change places: streams of both break, processes that are up are told their new address.
    pub fn swap_addresses(&mut self, a: usize, b: usize) {
        self.close_streams_of(a);
        self.close_streams_of(b);
        self.address_of.swap(a, b);
        for host in [a, b] {
            self.at_address[self.address_of[host] as usize] = host as u32;
        }
        for host in [a, b] {
            let address = self.address(host);
            self.command(host, |g, now| g.update_address(now, address));
        }
    }

    /// A host gets an address that nobody had: its streams break, its process is told.
    pub fn move_address(&mut self, host: usize) {
        self.close_streams_of(host);
        self.at_address[self.address_of[host] as usize] = NOBODY;
        self.address_of[host] = self.at_address.len() as u32;
        self.at_address.push(host as u32);
        let address = self.address(host);
        self.command(host, |g, now| g.update_address(now, address));
    }

    /// The host whose member has this name.
    pub fn host_named(name: &str) -> Option<u32> {
        name.trim_end_matches('-').strip_prefix('m')?.parse().ok()
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The configuration every host starts with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Gives one host a configuration of its own, from its next start on.
    pub fn configure(&mut self, host: usize, config: Config) {
        self.configs.insert(host, config);
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
        let asleep = self.hosts[host].asleep_since.map_or(Duration::ZERO, |since| self.now.since(since));
        let lag = (self.hosts[host].mono_lag + asleep).as_nanos() as u64;
        Now { mono: Mono(self.now.0.saturating_sub(lag)), wall: Wall(ms.max(0) as u64) }
    }

    /// Name of a host's member.
    pub fn name(host: usize) -> String {
        format!("m{host}")
    }

    /// Starts the process of a host under its name and tells it these hosts as seeds.
    pub fn start(&mut self, host: usize, seeds: &[usize]) {
        self.start_with(host, seeds, self.tags.clone());
    }

    /// As [`World::start`], with tags.
    pub fn start_with(&mut self, host: usize, seeds: &[usize], tags: Tags) {
        self.start_as(host, host, seeds, tags);
    }

    /// As [`World::start_with`], under the name of another host.
    pub fn start_as(&mut self, host: usize, named: usize, seeds: &[usize], tags: Tags) {
        let Some(mut gossip) = self.process(host, named, tags) else { return };
        gossip.join(self.clock(host), self.resolved(seeds));
        self.put(host, gossip, seeds);
    }

    /// Starts the first `members` hosts as a cluster that has been whole for long: views are full, records shared.
    pub fn start_whole(&mut self, members: usize) {
        let started: Vec<Gossip> =
            (0..members).filter_map(|h| self.process(h, h, self.tags.clone())).collect();
        let all: Vec<Member> = started.iter().filter_map(Gossip::me).collect();
        for (host, mut gossip) in started.into_iter().enumerate() {
            gossip.adopt(self.clock(host), &all);
            self.put(host, gossip, &[]);
        }
    }

    /// A new process of a host, which has not yet been told anything.
    fn process(&mut self, host: usize, named: usize, tags: Tags) -> Option<Gossip> {
        let runs = self.hosts[host].runs + 1;
        let mut rng = Rng::from_number(self.seed ^ (host as u64) << 20 ^ runs << 52 ^ 0x0067_6f73);
        let mut seed = [0u8; 32];
        rng.fill(&mut seed);
        let identity = Identity {
            name: format!("{:-<1$}", World::name(named), self.name_bytes),
            generation_stored: self.hosts[host].disk.as_ref().and_then(Disk::generation),
            address: self.address(host),
            tags,
        };
        let config = self.configs.get(&host).unwrap_or(&self.config).clone();
        match Gossip::new(config, identity, seed, self.clock(host)) {
            Ok(mut gossip) => {
                let now = self.clock(host);
                if let Some(disk) = &self.hosts[host].disk {
                    disk.restore(&mut gossip, now);
                    self.check_restored(host, &gossip);
                }
                Some(gossip)
            }
            Err(error) => {
                self.checker.fail(format!("start of {host} refused: {error}"));
                None
            }
        }
    }

    fn put(&mut self, host: usize, gossip: Gossip, seeds: &[usize]) {
        let h = &mut self.hosts[host];
        let runs = h.runs + 1;
        h.clear();
        h.runs = runs;
        // Each run has a budget of its own.
        h.second.1 = 0;
        h.seeds = seeds.to_vec();
        h.gossip = Some(gossip);
        self.resolve_later(host, runs, RESOLVE_PAUSE);
        self.checker.started(host);
        self.drain(host);
    }

    fn resolved(&self, seeds: &[usize]) -> Vec<Seed> {
        let of = |&s: &usize| Seed { name: World::name(s), addresses: Ok(vec![self.address(s)]) };
        seeds.iter().map(of).collect()
    }

    fn resolve_later(&mut self, host: usize, runs: u64, pause: Duration) {
        if !self.hosts[host].seeds.is_empty() {
            let resolve = What::Resolve { host: host as u32, runs, pause };
            self.queue.push(self.now + pause, resolve);
        }
    }

    /// As the runtime's chore does: while alone, seeds are resolved again, each time after a longer pause.
    fn resolve(&mut self, host: usize, runs: u64, pause: Duration) {
        let h = &self.hosts[host];
        if h.runs != runs {
            return;
        }
        let Some(gossip) = h.gossip.as_ref() else { return };
        let mut next = RESOLVE_PAUSE;
        if gossip.living() <= 1 && h.stall.is_none() {
            next = (pause * 3 / 2).min(RESOLVE_PAUSE_MAX);
            let seeds = self.resolved(&h.seeds);
            self.with(host, |g, now| g.join(now, seeds));
        }
        self.resolve_later(host, runs, next);
    }

    /// Kills the process of a host. Its kernel closes the streams.
    pub fn crash(&mut self, host: usize) {
        self.hosts[host].clear();
        self.close_streams_of(host);
    }

    /// Stops a process as SIGSTOP or a long pause does: its socket fills, its timers wait.
    pub fn pause(&mut self, host: usize) {
        self.stall(host, Stall::Cpu);
    }

    /// Lets a process stand still until [`World::resume`].
    pub fn stall(&mut self, host: usize, stall: Stall) {
        if self.hosts[host].gossip.is_some() && !self.hosts[host].is_asleep() {
            self.hosts[host].stall = Some(stall);
        }
    }

    /// Continues a stalled process: what it held back leaves, the socket is drained, then timers run.
    pub fn resume(&mut self, host: usize) {
        if self.hosts[host].is_asleep() || self.hosts[host].stall.take().is_none() {
            return;
        }
        for (to, bytes) in std::mem::take(&mut self.hosts[host].held) {
            self.carry(host, to, bytes);
        }
        if self.hosts[host].slowness.is_zero() {
            while let Some((from, bytes)) = self.hosts[host].dequeue() {
                self.deliver(host, from, &bytes);
            }
        } else {
            self.take_later(host);
        }
        if self.hosts[host].timer <= self.now {
            self.fire(host);
        }
    }

    /// The computer of a host falls asleep: nothing runs, its monotonic clock stands, what comes is lost, streams break.
    pub fn sleep(&mut self, host: usize) {
        if self.is_up(host) && !self.hosts[host].is_asleep() {
            self.stall(host, Stall::Cpu);
            self.hosts[host].asleep_since = Some(self.now);
            self.close_streams_of(host);
        }
    }

    /// It wakes: the wall clock has gone on, the monotonic one has not.
    pub fn wake(&mut self, host: usize) {
        let Some(since) = self.hosts[host].asleep_since.take() else { return };
        let slept = self.now.since(since);
        let h = &mut self.hosts[host];
        h.mono_lag += slept;
        if h.timer != Mono::FAR {
            h.timer = h.timer + slept;
        }
        self.resume(host);
        let timer = self.hosts[host].timer;
        if timer != Mono::FAR {
            self.set_timer(host, timer);
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

    /// Was [`World::stop`] set?
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
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
            if self.now.since(start) >= at_most || self.is_stopped() {
                return None;
            }
            self.run(every);
        }
    }

    /// Bytes sent by all hosts so far: datagrams as sealed, and frames.
    pub fn bytes_sent(&self) -> u64 {
        self.hosts.iter().map(|h| h.payload_bytes + h.stream_bytes).sum()
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
