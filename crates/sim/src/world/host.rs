//! One simulated process and what its user was told.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hearsay_proto::member::Member;
use hearsay_proto::time::Mono;
use hearsay_proto::{Event, Gossip};
use serde::{Deserialize, Serialize};

/// Bytes a host's socket keeps (Linux's usual `rmem_default`).
pub const SOCKET_BYTES: usize = 212_992;
/// What a kernel charges to a socket for each datagram beside its bytes.
pub const SOCKET_OVERHEAD: usize = 640;

/// What a user was told of a member. Joins and updates are not kept: they would be most of the memory of a large world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// Accused.
    Suspected,
    /// Alive again from suspect.
    Refuted,
    /// Declared dead.
    Died,
    /// Alive again from dead.
    Revived,
    /// Left by its own will.
    Left,
    /// No longer remembered.
    Forgotten,
    /// Another process lives under this host's name.
    Conflict,
}

/// One entry of the log: which host was told what of which.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// When.
    pub at: Mono,
    /// Whose user.
    pub host: u32,
    /// Of which host's member.
    pub subject: u32,
    /// What.
    pub news: News,
}

/// The news in an event, and of whom.
pub(super) fn news(event: &Event) -> Option<(News, &Member)> {
    Some(match event {
        Event::MemberSuspected(m) => (News::Suspected, m),
        Event::MemberRefuted(m) => (News::Refuted, m),
        Event::MemberDied(m) => (News::Died, m),
        Event::MemberRevived(m) => (News::Revived, m),
        Event::MemberLeft(m) => (News::Left, m),
        Event::MemberForgotten(m) => (News::Forgotten, m),
        Event::NameConflict { other } => (News::Conflict, other),
        _ => return None,
    })
}

/// Is it of broadcasts, queries, mail or confirmations, or a heal's account?
pub(super) fn is_talk(event: &Event) -> bool {
    matches!(
        event,
        Event::BroadcastReceived { .. }
            | Event::BroadcastsLagged { .. }
            | Event::MailReceived { .. }
            | Event::MailEnded { .. }
            | Event::QueryReceived { .. }
            | Event::AnswerReceived { .. }
            | Event::QueryEnded { .. }
            | Event::Confirmed { .. }
            | Event::PartitionHealed(_)
    )
}

/// How a process stands still.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stall {
    /// Nothing runs; at the end the socket is drained, then timers run.
    Cpu,
    /// Timers run, but nothing is received, and what is sent leaves only at the end.
    Io,
}

/// One simulated process.
pub struct Host {
    /// The state machine; none while the process is down.
    pub gossip: Option<Gossip>,
    /// Own wall clock minus the true one, ms.
    pub clock_offset_ms: i64,
    /// How far the own monotonic clock is behind virtual time: the sum of all sleeps.
    pub mono_lag: Duration,
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
    /// The same with the bytes of frames.
    pub second_with_streams: (u64, u64),
    /// Most of these in any second.
    pub busiest_with_streams: u64,
    /// Datagrams its full socket dropped.
    pub socket_dropped: u64,
    /// Bytes its socket keeps; default [`SOCKET_BYTES`].
    pub socket_bytes_max: usize,
    /// Time it takes to handle one datagram; zero is none.
    pub slowness: Duration,
    pub(super) asleep_since: Option<Mono>,
    /// What survives its processes; none: nothing does.
    pub disk: Option<super::Disk>,
    pub(super) seeds: Vec<usize>,
    pub(super) stall: Option<Stall>,
    pub(super) socket: std::collections::VecDeque<(SocketAddr, Rc<[u8]>)>,
    pub(super) socket_bytes: usize,
    pub(super) takes: bool,
    pub(super) held: Vec<(SocketAddr, Rc<[u8]>)>,
    pub(super) timer: Mono,
    pub(super) scheduled: Mono,
    pub(super) runs: u64,
}

impl Host {
    pub(super) fn down(clock_offset_ms: i64) -> Host {
        Host {
            gossip: None,
            clock_offset_ms,
            mono_lag: Duration::ZERO,
            asleep_since: None,
            datagrams: 0,
            payload_bytes: 0,
            stream_bytes: 0,
            second: (0, 0),
            busiest_second: 0,
            second_with_streams: (0, 0),
            busiest_with_streams: 0,
            socket_dropped: 0,
            socket_bytes_max: SOCKET_BYTES,
            slowness: Duration::ZERO,
            disk: None,
            seeds: Vec::new(),
            stall: None,
            socket: std::collections::VecDeque::new(),
            socket_bytes: 0,
            takes: false,
            held: Vec::new(),
            timer: Mono::FAR,
            scheduled: Mono::FAR,
            runs: 0,
        }
    }

    /// Does it receive nothing at present?
    pub fn is_stalled(&self) -> bool {
        self.stall.is_some()
    }

    /// Does its computer sleep? Then what comes to it is lost.
    pub fn is_asleep(&self) -> bool {
        self.asleep_since.is_some()
    }

    pub(super) fn holds_sends(&self) -> bool {
        self.stall == Some(Stall::Io)
    }

    pub(super) fn timers_run(&self) -> bool {
        self.stall != Some(Stall::Cpu)
    }

    /// Puts a datagram into the socket, or drops it when that is full.
    pub(super) fn enqueue(&mut self, from: SocketAddr, bytes: Rc<[u8]>) {
        let charge = bytes.len() + SOCKET_OVERHEAD;
        if self.socket_bytes + charge > self.socket_bytes_max {
            self.socket_dropped += 1;
            return;
        }
        self.socket_bytes += charge;
        self.socket.push_back((from, bytes));
    }

    pub(super) fn dequeue(&mut self) -> Option<(SocketAddr, Rc<[u8]>)> {
        let (from, bytes) = self.socket.pop_front()?;
        self.socket_bytes -= bytes.len() + SOCKET_OVERHEAD;
        Some((from, bytes))
    }

    pub(super) fn clear(&mut self) {
        if let Some(disk) = &mut self.disk {
            disk.crash();
        }
        self.gossip = None;
        self.timer = Mono::FAR;
        self.stall = None;
        self.asleep_since = None;
        self.socket.clear();
        self.socket_bytes = 0;
        self.held.clear();
    }
}
