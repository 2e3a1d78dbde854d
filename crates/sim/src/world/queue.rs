//! The event queue: a heap on (time, tie), ties broken by the seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hearsay_proto::output::StreamId;
use hearsay_proto::rng::Rng;
use hearsay_proto::time::Mono;

/// What happens next.
pub(super) enum What {
    Timer(u32),
    Datagram {
        to: u32,
        from: SocketAddr,
        bytes: Rc<[u8]>,
    },
    /// A slow host takes the next datagram from its socket.
    Take(u32),
    Connect {
        from: usize,
        stream: StreamId,
        to: SocketAddr,
        runs: u64,
    },
    /// The next frame of this direction is there.
    Frame {
        conn: usize,
        forward: bool,
    },
    Writable {
        conn: usize,
        forward: bool,
    },
    Closed {
        conn: usize,
        forward: bool,
    },
    /// A host that is alone resolves its seeds anew.
    Resolve {
        host: u32,
        runs: u64,
        pause: Duration,
    },
    /// A batch is on the disk.
    Saved {
        host: u32,
        runs: u64,
        seq: u64,
    },
    OpenFailed {
        host: usize,
        stream: StreamId,
        runs: u64,
    },
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

/// All that is to happen.
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<Scheduled>>,
    ties: u64,
    rng: Rng,
}

impl Queue {
    pub(super) fn new(seed: u64) -> Queue {
        Queue { heap: BinaryHeap::new(), ties: 0, rng: Rng::from_number(seed ^ 0x0074_6965) }
    }

    pub(super) fn push(&mut self, at: Mono, what: What) {
        self.ties += 1;
        // Random high bits: events of one instant run in an order that the seed decides.
        let tie = u64::from(self.rng.u32()) << 32 | (self.ties & 0xffff_ffff);
        self.heap.push(Reverse(Scheduled { at, tie, what }));
    }

    /// The next event, if it is due at `until` or before.
    pub(super) fn pop(&mut self, until: Mono) -> Option<(Mono, What)> {
        if self.heap.peek()?.0.at > until {
            return None;
        }
        self.heap.pop().map(|Reverse(next)| (next.at, next.what))
    }
}
