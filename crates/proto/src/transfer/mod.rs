//! Streams between members: large records (`R6`), PULL to the end, and any message too large for a datagram.
//!
//! How the hall drives it. After each call drain [`Transfer::poll_action`] (it needs the budget and the records).
//! - `handle_stream_opened/accepted/writable/closed` of the hall: the methods of the same names here.
//! - A frame: decode; its sender must be a known member (else close the stream by [`Transfer::refuse`]); give each message to
//!   [`Transfer::handle_message`] and do with [`Delivered`] as it says.
//! - IHAVE with `large`, for each unknown id: [`Transfer::handle_announced`]. A record that came by any way:
//!   [`Transfer::handle_arrived`].
//! - `join::Action::PullStream`: [`Transfer::pull`]; [`Action::PullFailed`]: `join.handle_pull_failed`.
//! - MAIL or ANSWER over the datagram limit, HEARD (`S7`): [`Transfer::send`].
//! - [`Action::SendFrame`]: encode as one frame, `Output::Send`; at most one is under way per stream.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::budget::Budget;
use crate::config::Config;
use crate::member::MemberId;
use crate::output::StreamId;
use crate::record::{Record, RumorId, Tree};
use crate::roster::Roster;
use crate::time::{Mono, Now};
use crate::wire::{Message, Page};

/// What streams are served from: the hall implements it over store, rumors and join.
pub trait Source {
    /// The record of exactly this id with the hop to announce (that of the hot rumor, else 200).
    fn record(&mut self, id: RumorId) -> Option<(u8, Record)>;
    /// The page that starts at place `from`: at least one record unless `last`, else at most `bytes_max` bytes; members by
    /// `join.members_page`, entries by `store.page`.
    fn page(&mut self, tree: Tree, from: u64, bytes_max: usize) -> Page;
}

/// What the hall must do.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// `Output::Open`.
    Open {
        /// Even.
        stream: StreamId,
        /// To.
        to: SocketAddr,
    },
    /// Encode as one frame, `Output::Send`.
    SendFrame {
        /// On.
        stream: StreamId,
        /// What.
        message: Message,
    },
    /// `Output::Close`.
    Close {
        /// Which.
        stream: StreamId,
    },
    /// A large record could not be had from any announcer; anti-entropy will bring it.
    GaveUp {
        /// Its id.
        id: RumorId,
    },
    /// A PULL did not come to its end: call `join.handle_pull_failed`.
    PullFailed {
        /// Of which tree.
        tree: Tree,
    },
    /// A message of [`Transfer::send`] was not sent: the stream could not be opened, or broke.
    SendFailed {
        /// To whom.
        to: MemberId,
        /// The message.
        message: Message,
    },
}

/// What a message on a stream is.
#[derive(Clone, PartialEq, Debug)]
pub enum Delivered {
    /// Done with here.
    Nothing,
    /// A record that was asked for: treat it as a RECORD in a datagram (merge, hot at hop + 1).
    Record {
        /// Its hop.
        hop: u8,
        /// The record.
        record: Record,
    },
    /// A page that was asked for: `join.handle_page`, then merge.
    Page(Page),
    /// Any other kind: treat it as if it came in a datagram (MAIL, ANSWER, DONE, HEARD, CLAIMS).
    Message(Message),
}

/// Counters of this part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TransferMetrics {
    /// Streams opened by me.
    pub streams_opened: u64,
    /// Streams accepted.
    pub streams_accepted: u64,
    /// Streams refused or closed because a table was full or the peer broke the rules.
    pub streams_refused: u64,
    /// Large records received.
    pub records_received: u64,
    /// Large records sent.
    pub records_sent: u64,
    /// BUSY sent.
    pub busy_sent: u64,
    /// Large records given up.
    pub given_up: u64,
    /// PAGE frames sent.
    pub pages_sent: u64,
    /// PAGE frames received.
    pub pages_received: u64,
    /// Messages dropped: not asked for, or over a limit.
    pub dropped: u64,
}

/// The part.
pub struct Transfer {
    actions: VecDeque<Action>,
    metrics: TransferMetrics,
}

impl Transfer {
    /// No streams.
    pub fn new(config: &Config, now: Now) -> Transfer {
        let _ = (config, now);
        Transfer { actions: VecDeque::new(), metrics: TransferMetrics::default() }
    }

    /// A member announced a record that is too large for datagrams and that I lack (`R6`).
    pub fn handle_announced(&mut self, now: Now, from: MemberId, id: RumorId, roster: &Roster) {
        let _ = (now, from, id, roster);
    }

    /// A record came by any way: its transfer ends.
    pub fn handle_arrived(&mut self, now: Now, id: RumorId, roster: &Roster) {
        let _ = (now, id, roster);
    }

    /// Is a transfer of this record wanted or under way?
    pub fn is_wanted(&self, id: RumorId) -> bool {
        let _ = id;
        false
    }

    /// PULL over a stream, from this place to the end; replaces one of the same tree.
    pub fn pull(&mut self, now: Now, tree: Tree, to: MemberId, address: SocketAddr, cursor: u64) {
        let _ = (now, tree, to, address, cursor);
    }

    /// Sends a message over a stream to a known member.
    pub fn send(&mut self, now: Now, to: MemberId, message: Message, roster: &Roster) {
        let _ = (now, to, message, roster);
    }

    /// A stream of mine is connected.
    pub fn handle_opened(&mut self, now: Now, stream: StreamId) {
        let _ = (now, stream);
    }

    /// The host accepted a stream.
    pub fn handle_accepted(&mut self, now: Now, stream: StreamId, from: SocketAddr) {
        let _ = (now, stream, from);
    }

    /// The frame under way has left.
    pub fn handle_writable(&mut self, now: Now, stream: StreamId) {
        let _ = (now, stream);
    }

    /// The stream is gone.
    pub fn handle_closed(&mut self, now: Now, stream: StreamId, roster: &Roster) {
        let _ = (now, stream, roster);
    }

    /// Closes a stream whose frame was malformed or came from an unknown member.
    pub fn refuse(&mut self, now: Now, stream: StreamId, roster: &Roster) {
        let _ = (now, stream, roster);
    }

    /// A message of a frame from a known member.
    pub fn handle_message(
        &mut self,
        now: Now,
        stream: StreamId,
        from: MemberId,
        message: Message,
        roster: &Roster,
    ) -> Delivered {
        let _ = (now, stream, from, roster);
        Delivered::Message(message)
    }

    /// When [`Transfer::handle_timeout`] is due.
    pub fn deadline(&self) -> Mono {
        Mono::FAR
    }

    /// Does all that is due: retries, idle streams, tokens.
    pub fn handle_timeout(&mut self, now: Now, roster: &Roster) {
        let _ = (now, roster);
    }

    /// Next action. Records served are charged to `Class::Entries` or `Members`, pages to the part's own 10 MB/s.
    pub fn poll_action(&mut self, now: Now, budget: &mut Budget, source: &mut dyn Source) -> Option<Action> {
        let _ = (now, budget, source);
        self.actions.pop_front()
    }

    /// Counters.
    pub fn metrics(&self) -> TransferMetrics {
        self.metrics
    }
}
