//! One stream as this side sees it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::budget::Class;
use crate::member::MemberId;
use crate::output::StreamId;
use crate::record::{RumorId, Tree};
use crate::table::Set;
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

/// What is leaving, whole or piece by piece.
pub(super) struct Sending {
    pub(super) message: Message,
    /// A record: which.
    pub(super) record: Option<RumorId>,
    /// It is passed on while it comes.
    pub(super) relay: Option<Relay>,
    /// A message of `Transfer::send`: to whom.
    pub(super) to: Option<MemberId>,
    pub(super) class: Class,
    /// Encoded, if it leaves in pieces.
    pub(super) bytes: Vec<u8>,
    /// How many of them have left.
    pub(super) at: usize,
}

impl Sending {
    /// Bytes left of what leaves in pieces.
    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }
}

/// Where a record that is passed on while it comes stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Relay {
    /// More is to come on this stream.
    From(StreamId),
    /// No more will come.
    Broken,
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
    pub(super) sending: Option<Sending>,
    /// Pieces received of a message that is not whole yet.
    pub(super) parts: Vec<u8>,
    /// The record they are of, if only one was asked for when the first came.
    pub(super) coming: Option<RumorId>,
    /// When it last sent something that is paid for, as a number: the one that waits longest is next.
    pub(super) turn: u64,
    /// A PULL I serve: tree and next place.
    pub(super) pull_out: Option<(Tree, u64)>,
    /// Records I asked for here.
    pub(super) asked: Set<RumorId>,
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
            sending: None,
            parts: Vec::new(),
            coming: None,
            turn: 0,
            pull_out: None,
            asked: Set::new(),
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
        let leaving = matches!(&self.sending, Some(s) if s.record.is_some());
        waiting + usize::from(self.sending_record || leaving)
    }

    /// Does this message wait here, or is it leaving? MAIL and ANSWER are sent again while they are not acknowledged.
    pub(super) fn has(&self, message: &Message) -> bool {
        let same = |other: &Message| match (message, other) {
            (Message::Mail { seq: a, .. }, Message::Mail { seq: b, .. }) => a == b,
            (Message::Answer { query: a, .. }, Message::Answer { query: b, .. }) => a == b,
            _ => false,
        };
        self.out.iter().any(|o| matches!(o, Out::Push { message, .. } if same(message)))
            || self.sending.as_ref().is_some_and(|s| s.to.is_some() && same(&s.message))
    }

    /// Bytes left of what is leaving in pieces.
    pub(super) fn left(&self) -> usize {
        self.sending.as_ref().map_or(0, Sending::left)
    }

    /// Nothing to send and nothing asked for.
    pub(super) fn is_idle(&self) -> bool {
        !self.in_flight
            && self.out.is_empty()
            && self.sending.is_none()
            && self.pull_out.is_none()
            && self.asked.is_empty()
    }
}
