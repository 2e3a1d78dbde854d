//! Streams between hosts: connect, frames in order, room for one frame at a time, close.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hearsay_proto::output::StreamId;
use hearsay_proto::time::Mono;
use hearsay_proto::wire::HEADER_BYTES;

use super::World;
use super::queue::What;

/// A kernel gives up on a peer that does not answer (shortened from minutes).
const BROKEN_AFTER: Duration = Duration::from_secs(5);
/// A lost segment comes again after this.
const RETRANSMIT: Duration = Duration::from_millis(200);
const SEGMENT_BYTES: usize = 1_400;
/// Headers of TCP and IP.
const SEGMENT_OVERHEAD: usize = 52;
/// Kind of a PAGE.
const PAGE: u8 = 14;

/// One direction's end of a connection.
#[derive(Clone, Copy)]
pub(super) struct End {
    pub host: usize,
    pub runs: u64,
    pub stream: StreamId,
    pub open: bool,
    pub free_at: Mono,
    /// When the last frame of this end arrives: no later one comes before it.
    pub arrives_at: Mono,
}

pub(super) struct Conn {
    pub ends: [End; 2],
    /// Frames under way from each end: they come in this order, whatever holds them up.
    pub frames: [VecDeque<Rc<[u8]>>; 2],
}

impl World {
    pub(super) fn open_stream(&mut self, host: usize, stream: StreamId, to: SocketAddr) {
        let delay = self.network.draw_delay(&mut self.net_rng) * 2;
        let runs = self.hosts[host].runs;
        self.queue.push(self.now + delay, What::Connect { from: host, stream, to, runs });
    }

    pub(super) fn connect(&mut self, from: usize, stream: StreamId, to: SocketAddr, runs: u64) {
        if self.hosts[from].gossip.is_none() || self.hosts[from].runs != runs {
            return;
        }
        let reachable = |&t: &usize| self.network.connected(from, t) && self.network.connected(t, from);
        let Some(target) = self.host_at(to).filter(reachable) else {
            self.queue.push(self.now + BROKEN_AFTER, What::OpenFailed { host: from, stream, runs });
            return;
        };
        if self.hosts[target].gossip.is_none() {
            let refused = self.now + Duration::from_millis(1);
            self.queue.push(refused, What::OpenFailed { host: from, stream, runs });
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
            arrives_at: Mono(0),
        };
        let ends = [end(from, stream, runs), end(target, odd, self.hosts[target].runs)];
        self.conns.push(Conn { ends, frames: Default::default() });
        self.by_stream.insert((from, stream), (conn, true));
        self.by_stream.insert((target, odd), (conn, false));
        let source = self.address(from);
        self.with(target, |g, now| g.handle_stream_accepted(now, odd, source));
        self.with(from, |g, now| g.handle_stream_opened(now, stream));
    }

    pub(super) fn send_frame(&mut self, host: usize, stream: StreamId, plain: &[u8]) {
        self.hosts[host].stream_bytes += plain.len() as u64;
        // Pages have a rate of their own; everything else counts against the budget.
        let segments = plain.len() / SEGMENT_BYTES + 1;
        let is_page = plain.get(HEADER_BYTES) == Some(&PAGE);
        self.account(host, plain.len() + self.config.seal_bytes + segments * SEGMENT_OVERHEAD, is_page);
        let Some(&(conn, forward)) = self.by_stream.get(&(host, stream)) else { return };
        let mut delay = self.network.draw_delay(&mut self.net_rng);
        let peer = self.conns[conn].ends[usize::from(forward)].host;
        for _ in 0..plain.len() / SEGMENT_BYTES + 1 {
            if self.network.draw_lost(&mut self.net_rng, host, peer) {
                delay += RETRANSMIT;
            }
        }
        let rate = self.network.stream_rate(host);
        let transfer = Duration::from_secs_f64(plain.len() as f64 / rate);
        let own = &mut self.conns[conn].ends[usize::from(!forward)];
        let free = own.free_at.max(self.now) + transfer;
        own.free_at = free;
        let arrives = (free + delay).max(Mono(own.arrives_at.0 + 1));
        own.arrives_at = arrives;
        let bytes: Rc<[u8]> = Rc::from(plain);
        self.queue.push(free, What::Writable { conn, forward });
        self.conns[conn].frames[usize::from(!forward)].push_back(bytes);
        self.queue.push(arrives, What::Frame { conn, forward });
    }

    pub(super) fn frame(&mut self, conn: usize, forward: bool) {
        let end = self.conns[conn].ends[usize::from(forward)];
        let sender = self.conns[conn].ends[usize::from(!forward)].host;
        let connected = self.network.connected(sender, end.host);
        if connected && (self.hosts[end.host].is_stalled() || self.hosts[sender].holds_sends()) {
            let later = self.now + Duration::from_millis(50);
            self.queue.push(later, What::Frame { conn, forward });
            return;
        }
        let Some(bytes) = self.conns[conn].frames[usize::from(!forward)].pop_front() else { return };
        self.note(3, end.host, sender as u64, &bytes);
        if !connected {
            let later = self.now + BROKEN_AFTER;
            self.queue.push(later, What::Closed { conn, forward });
            self.queue.push(later, What::Closed { conn, forward: !forward });
        } else if end.open && self.hosts[end.host].runs == end.runs {
            self.with(end.host, |g, now| g.handle_frame(now, end.stream, &bytes));
        }
    }

    pub(super) fn writable(&mut self, conn: usize, forward: bool) {
        let end = self.conns[conn].ends[usize::from(!forward)];
        if self.hosts[end.host].is_stalled() {
            let later = self.now + Duration::from_millis(50);
            self.queue.push(later, What::Writable { conn, forward });
        } else if end.open && self.hosts[end.host].runs == end.runs {
            self.with(end.host, |g, now| g.handle_stream_writable(now, end.stream));
        }
    }

    pub(super) fn close_stream(&mut self, host: usize, stream: StreamId) {
        let Some((conn, forward)) = self.by_stream.remove(&(host, stream)) else { return };
        self.conns[conn].ends[usize::from(!forward)].open = false;
        let delay = self.network.draw_delay(&mut self.net_rng);
        let own = &self.conns[conn].ends[usize::from(!forward)];
        let after = (own.arrives_at + Duration::from_nanos(1)).max(own.free_at.max(self.now) + delay);
        self.queue.push(after, What::Closed { conn, forward });
    }

    pub(super) fn close_streams_of(&mut self, host: usize) {
        let own = (host, StreamId(0))..=(host, StreamId(u64::MAX));
        let gone: Vec<StreamId> = self.by_stream.range(own).map(|(&(_, s), _)| s).collect();
        for stream in gone {
            self.close_stream(host, stream);
        }
    }

    pub(super) fn closed(&mut self, conn: usize, forward: bool) {
        let end = &mut self.conns[conn].ends[usize::from(forward)];
        let was = std::mem::replace(&mut end.open, false);
        let end = *end;
        if was && self.by_stream.remove(&(end.host, end.stream)).is_some() {
            self.with(end.host, |g, now| g.handle_stream_closed(now, end.stream));
        }
    }
}
