//! One stream as this side sees it.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use crate::member::MemberId;
use crate::record::{RumorId, Tree};
use crate::time::Mono;
use crate::wire::Message;

/// What waits to be sent.
pub(super) enum Out {
    /// WANT, PULL, BUSY: small, not charged.
    Control(Message),
    /// A record, read when its turn comes; `repair`: a session asked for it.
    Record { id: RumorId, repair: bool },
    /// A message of `Transfer::send`.
    Push { to: MemberId, message: Message },
}

/// A stream, opening or open.
pub(super) struct Stream {
    pub(super) address: SocketAddr,
    /// Sender of its first frame; all others must be of the same.
    pub(super) peer: Option<MemberId>,
    /// Opened by me.
    pub(super) mine: bool,
    pub(super) open: bool,
    /// A frame is under way.
    pub(super) in_flight: bool,
    /// It is a record.
    pub(super) sending_record: bool,
    pub(super) out: VecDeque<Out>,
    /// A PULL I serve: tree and next place.
    pub(super) pull_out: Option<(Tree, u64)>,
    /// Records I asked for here.
    pub(super) asked: BTreeSet<RumorId>,
    pub(super) active_at: Mono,
}

impl Stream {
    pub(super) fn new(now: Mono, address: SocketAddr, mine: bool) -> Stream {
        Stream {
            address,
            peer: None,
            mine,
            open: !mine,
            in_flight: false,
            sending_record: false,
            out: VecDeque::new(),
            pull_out: None,
            asked: BTreeSet::new(),
            active_at: now,
        }
    }

    /// Something was asked for; the time to open is not prolonged.
    pub(super) fn touch(&mut self, now: Mono) {
        if self.open {
            self.active_at = now;
        }
    }

    /// Records served here, waiting or under way.
    pub(super) fn records_out(&self) -> usize {
        let waiting = self.out.iter().filter(|o| matches!(o, Out::Record { .. })).count();
        waiting + usize::from(self.sending_record)
    }

    /// Nothing to send and nothing asked for.
    pub(super) fn is_idle(&self) -> bool {
        !self.in_flight && self.out.is_empty() && self.pull_out.is_none() && self.asked.is_empty()
    }
}
