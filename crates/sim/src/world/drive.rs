//! The driver: the simulator's twin of the runtime's. One input, then outputs until `Wait`.

use std::net::SocketAddr;
use std::rc::Rc;

use hearsay_proto::budget::DATAGRAM_OVERHEAD;
use hearsay_proto::time::{Mono, Now};
use hearsay_proto::{Gossip, Output};

use super::queue::What;
use super::{Told, World, host};

impl World {
    pub(super) fn drain(&mut self, host: usize) {
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
                    let lag = self.hosts[host].mono_lag;
                    self.set_timer(host, if at == Mono::FAR { at } else { at + lag });
                    break;
                }
                Output::Transmit { to } => self.transmit(host, to, &buf),
                Output::Event(event) => {
                    self.checker.told(host, self.now, &event);
                    if let Some(ear) = self.ear.as_mut() {
                        ear(self.now, host, &event);
                    }
                    if let Some((news, member)) = host::news(&event) {
                        let subject = World::host_named(member.name()).unwrap_or(u32::MAX);
                        self.log.push(Told { at: self.now, host: host as u32, subject, news });
                    } else if host::is_talk(&event) {
                        self.said.push((self.now, host as u32, event));
                    }
                }
                Output::Open { stream, to } => self.open_stream(host, stream, to),
                Output::Send { stream } => self.send_frame(host, stream, &buf),
                Output::Close { stream } => self.close_stream(host, stream),
                Output::Persist(batch) => self.save(host, batch),
            }
        }
        self.buf = buf;
        self.checker.stepped(host, &self.hosts[host]);
    }

    /// One event per host waits in the queue, the earliest; a later deadline is set when that one comes.
    pub(super) fn set_timer(&mut self, host: usize, at: Mono) {
        let h = &mut self.hosts[host];
        h.timer = at;
        if at < h.scheduled {
            h.scheduled = at;
            self.queue.push(at, What::Timer(host as u32));
        }
    }

    /// Bytes of pages (`streamed`) are counted apart: they have a rate of their own.
    pub(super) fn account(&mut self, host: usize, wire_bytes: usize, streamed: bool) {
        let second = self.now.0 / 1_000_000_000;
        let h = &mut self.hosts[host];
        if h.second_with_streams.0 != second {
            h.second_with_streams = (second, 0);
        }
        h.second_with_streams.1 += wire_bytes as u64;
        h.busiest_with_streams = h.busiest_with_streams.max(h.second_with_streams.1);
        if streamed {
            return;
        }
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
        self.account(from, sealed + DATAGRAM_OVERHEAD, false);
        let h = &mut self.hosts[from];
        h.datagrams += 1;
        h.payload_bytes += sealed as u64;
        if let Some(tap) = self.tap.as_mut() {
            tap(self.now, from, to, plain);
        }
        let bytes: Rc<[u8]> = Rc::from(plain);
        if h.holds_sends() {
            h.held.push((to, bytes));
        } else {
            self.carry(from, to, bytes);
        }
    }

    /// Puts a datagram on the network.
    pub(super) fn carry(&mut self, from: usize, to: SocketAddr, bytes: Rc<[u8]>) {
        let wire_bytes = bytes.len() + self.config.seal_bytes + DATAGRAM_OVERHEAD;
        let Some(queueing) = self.network.enter_uplink(self.now, from, wire_bytes) else { return };
        let Some(target) = self.host_at(to) else { return };
        if target != from && !self.network.connected(from, target) {
            return;
        }
        if self.network.draw_lost(&mut self.net_rng, from, target) {
            return;
        }
        let copies =
            1 + u32::from(self.network.duplicate > 0.0 && self.net_rng.chance(self.network.duplicate));
        let source = self.address(from);
        for _ in 0..copies {
            let mut delay = queueing + self.network.draw_delay(&mut self.net_rng);
            if self.network.reorder > 0.0 && self.net_rng.chance(self.network.reorder) {
                delay += self.net_rng.up_to(self.network.reorder_by);
            }
            let datagram = What::Datagram { to: target as u32, from: source, bytes: bytes.clone() };
            self.queue.push(self.now + delay, datagram);
        }
    }

    pub(super) fn fire(&mut self, host: usize) {
        let now = self.clock(host);
        self.hosts[host].timer = Mono::FAR;
        if let Some(gossip) = self.hosts[host].gossip.as_mut() {
            gossip.handle_timeout(now);
            self.drain(host);
        }
    }

    pub(super) fn deliver(&mut self, host: usize, from: SocketAddr, bytes: &[u8]) {
        let now = self.clock(host);
        if let Some(gossip) = self.hosts[host].gossip.as_mut() {
            gossip.handle_datagram(now, from, bytes);
            self.drain(host);
        }
    }

    pub(super) fn with(&mut self, host: usize, act: impl FnOnce(&mut Gossip, Now)) {
        self.steps += 1;
        self.command(host, act);
    }

    pub(super) fn note(&mut self, kind: u8, a: usize, b: u64, bytes: &[u8]) {
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
        let next = if self.is_stopped() { None } else { self.queue.pop(until) };
        let Some((at, what)) = next else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(at);
        match what {
            What::Timer(host) => self.timer(host as usize, at),
            What::Datagram { to, from, bytes } => self.datagram(to as usize, from, bytes),
            What::Take(host) => self.take(host as usize),
            What::Connect { from, stream, to, runs } => self.connect(from, stream, to, runs),
            What::Frame { conn, forward } => self.frame(conn, forward),
            What::Writable { conn, forward } => self.writable(conn, forward),
            What::Closed { conn, forward } => self.closed(conn, forward),
            What::Resolve { host, runs, pause } => self.resolve(host as usize, runs, pause),
            What::Saved { host, runs, seq } => self.saved(host as usize, runs, seq),
            What::OpenFailed { host, stream, runs } => {
                if self.hosts[host].runs == runs {
                    self.with(host, |g, now| g.handle_stream_closed(now, stream));
                }
            }
        }
        true
    }

    fn timer(&mut self, host: usize, at: Mono) {
        let h = &mut self.hosts[host];
        if h.scheduled != at {
            return;
        }
        h.scheduled = Mono::FAR;
        if h.timer > self.now {
            let later = h.timer;
            if later != Mono::FAR {
                self.set_timer(host, later);
            }
        } else if h.timers_run() {
            self.steps += 1;
            self.note(1, host, 0, &[]);
            self.fire(host);
        }
    }

    fn datagram(&mut self, to: usize, from: SocketAddr, bytes: Rc<[u8]>) {
        self.steps += 1;
        self.note(2, to, self.host_at(from).unwrap_or(0) as u64, &bytes);
        let h = &mut self.hosts[to];
        if h.gossip.is_none() || h.is_asleep() {
            return;
        }
        if h.is_stalled() || !h.slowness.is_zero() || !h.socket.is_empty() {
            h.enqueue(from, bytes);
            self.take_later(to);
        } else {
            self.deliver(to, from, &bytes);
        }
    }

    /// A slow host takes its next datagram after the time it needs for one.
    pub(super) fn take_later(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        if !h.takes && !h.is_stalled() && !h.socket.is_empty() {
            h.takes = true;
            self.queue.push(self.now + h.slowness, What::Take(host as u32));
        }
    }

    fn take(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        h.takes = false;
        if h.is_stalled() {
            return;
        }
        if let Some((from, bytes)) = h.dequeue() {
            self.deliver(host, from, &bytes);
        }
        self.take_later(host);
    }
}
