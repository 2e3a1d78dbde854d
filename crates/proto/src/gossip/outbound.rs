//! Packing: messages queued for one address share datagrams; rumors' parcels are encoded once and sent to each peer.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Gossip;
use crate::budget::{Class, DATAGRAM_OVERHEAD};
use crate::image::Batch;
use crate::member::{Claim, MemberId};
use crate::output::{Event, Output, StreamId};
use crate::table::Table;
use crate::time::Now;
use crate::wire::{self, Framing, HEADER_BYTES, HEADER_FEEDBACK, Header, Message};

/// Messages waiting for a datagram; beyond this they are dropped and counted as overload.
pub(super) const OUTBOX_MAX: usize = 16_384;

/// One message on its way out.
struct Post {
    message: Message,
    bytes: usize,
    class: Class,
}

/// Messages that wait to be packed: by address, oldest first, the addresses in turn.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: Table<SocketAddr, VecDeque<Post>>,
    /// Whose turn it is. One that has nothing waiting any more is passed over.
    turns: VecDeque<SocketAddr>,
    len: usize,
}

impl Outbox {
    fn push(&mut self, to: SocketAddr, post: Post) {
        let posts = self.waiting.or_default(to);
        if posts.is_empty() {
            self.turns.push_back(to);
        }
        posts.push_back(post);
        self.len += 1;
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn audit(&self) -> Result<(), String> {
        let len: usize = self.waiting.values().map(VecDeque::len).sum();
        let turns = self.waiting.iter().all(|(to, posts)| !posts.is_empty() && self.turns.contains(to));
        if len == self.len && turns {
            Ok(())
        } else {
            Err(format!("outbox: {len} wait, {} counted", self.len))
        }
    }

    fn has(&self, to: SocketAddr) -> bool {
        self.waiting.contains_key(&to)
    }

    /// Whose datagram is next.
    fn next(&mut self) -> Option<SocketAddr> {
        while let Some(to) = self.turns.pop_front() {
            if self.has(to) {
                return Some(to);
            }
        }
        None
    }

    /// The oldest messages for `to` that fit one datagram together; if there are more, its turn comes again.
    fn take(&mut self, to: SocketAddr, room: usize) -> Vec<Post> {
        let Some(posts) = self.waiting.get_mut(&to) else { return Vec::new() };
        let mut used = 0;
        let fits = |post: &&Post| {
            used += post.bytes;
            used <= room
        };
        let count = posts.iter().take_while(fits).count().max(1);
        let taken: Vec<Post> = posts.drain(..count).collect();
        self.len -= taken.len();
        if posts.is_empty() {
            self.waiting.remove(&to);
        } else {
            self.turns.push_back(to);
        }
        taken
    }
}

/// An output with its bytes.
pub(super) enum Ready {
    /// A datagram.
    Datagram(SocketAddr, Arc<[u8]>),
    /// A frame.
    Frame(StreamId, Vec<u8>),
    /// Open a stream.
    Open(StreamId, SocketAddr),
    /// Close a stream.
    Close(StreamId),
    /// Save.
    Persist(Batch),
    /// Tell the user.
    Event(Event),
}

impl Ready {
    /// As the host sees it.
    pub(super) fn into_output(self, buf: &mut Vec<u8>) -> Output {
        match self {
            Ready::Datagram(to, bytes) => {
                buf.extend_from_slice(&bytes);
                Output::Transmit { to }
            }
            Ready::Frame(stream, bytes) => {
                buf.extend_from_slice(&bytes);
                Output::Send { stream }
            }
            Ready::Open(stream, to) => Output::Open { stream, to },
            Ready::Close(stream) => Output::Close { stream },
            Ready::Persist(batch) => Output::Persist(batch),
            Ready::Event(event) => Output::Event(event),
        }
    }
}

/// Messages share a datagram in the order records, ids, claims, wants; what needs an answer at once comes first.
fn rank(message: &Message) -> u8 {
    match message {
        Message::Beat(_) | Message::Ack { .. } | Message::Ping { .. } | Message::PingVia { .. } => 0,
        Message::Record { .. } | Message::Page(_) => 1,
        Message::IHave { .. } => 2,
        Message::Claims(_) => 3,
        Message::Want { .. } => 4,
        _ => 0,
    }
}

impl Gossip {
    fn header(&self) -> Header {
        let flags = if self.rumors.wants_feedback() { HEADER_FEEDBACK } else { 0 };
        Header { flags, ..Header::new(self.label, self.roster.my_id()) }
    }

    /// Queues a message for an address. One too long for any datagram is dropped, as one too many is.
    pub(super) fn post_to(&mut self, to: SocketAddr, message: Message, class: Class) {
        let bytes = wire::message_bytes(&message);
        if self.outbox.len >= OUTBOX_MAX || bytes > self.config.room() {
            self.traffic.dropped_overload += 1;
            return;
        }
        self.outbox.push(to, Post { message, bytes, class });
    }

    /// Queues a message for a member, at the address in its record.
    pub(super) fn post(&mut self, to: MemberId, message: Message, class: Class) {
        if let Some(address) = self.roster.profile(to).map(|p| p.address)
            && to != self.roster.my_id()
        {
            self.post_to(address, message, class);
        }
    }

    /// Queues messages that must share one datagram. They fit [`crate::Config::room`].
    pub(super) fn post_together(&mut self, now: Now, to: MemberId, messages: Vec<Message>, class: Class) {
        let Some(address) = self.roster.profile(to).map(|p| p.address) else { return };
        // What waits for the same address goes first, so that nothing splits the group.
        while self.outbox.has(address) {
            self.pack_for(now, address);
        }
        for message in messages {
            self.post_to(address, message, class);
        }
        self.pack_for(now, address);
    }

    /// Queues claims for one member directly (`D7`, `D13`): charged to members, never held back.
    pub(super) fn post_claim(&mut self, to: MemberId, claim: Claim) {
        self.post(to, Message::Claims(vec![claim]), Class::Detector);
    }

    /// Makes datagrams of what is queued; false if there was nothing to send.
    pub(super) fn pack(&mut self, now: Now) -> bool {
        if let Some(to) = self.outbox.next() {
            self.pack_for(now, to);
            return true;
        }
        let parcel = self.rumors.poll_datagram(now, &self.roster, &mut self.budget, &mut self.rng);
        let Some(parcel) = parcel else { return false };
        let Some(bytes) = self.encode(parcel.messages) else { return true };
        for id in parcel.to {
            if let Some(to) = self.roster.profile(id).map(|p| p.address) {
                self.transmit(to, bytes.clone());
            }
        }
        true
    }

    /// A plain datagram of these messages; what the wire cannot carry is left out and counted. None if nothing is left.
    fn encode(&mut self, messages: Vec<Message>) -> Option<Arc<[u8]>> {
        let mut bytes = Vec::with_capacity(self.config.limits.datagram_bytes_max);
        wire::begin(&self.header(), &mut bytes);
        for message in merge_claims(messages) {
            if !wire::encode_message(&message, &mut bytes, Framing::Datagram) {
                self.traffic.dropped_overload += 1;
            }
        }
        (bytes.len() > HEADER_BYTES).then(|| Arc::from(bytes))
    }

    fn transmit(&mut self, to: SocketAddr, plain: Arc<[u8]>) {
        self.traffic.datagrams_sent += 1;
        self.traffic.bytes_sent += (plain.len() + self.config.seal_bytes) as u64;
        self.ready.push_back(Ready::Datagram(to, plain));
    }

    /// Packs what is queued for `to` into one datagram; what does not fit stays queued.
    fn pack_for(&mut self, now: Now, to: SocketAddr) {
        let posts = self.outbox.take(to, self.config.room());
        // What may not be held back takes the rest of its datagram along.
        let rank_of = |class: Class| match class {
            Class::Detector => 0,
            Class::Members => 1,
            Class::Entries => 2,
            Class::Repair => 3,
        };
        let Some(class) = posts.iter().map(|post| post.class).min_by_key(|&c| rank_of(c)) else { return };
        let used: usize = posts.iter().map(|post| post.bytes).sum();
        let wire_bytes = used + HEADER_BYTES + self.config.seal_bytes + DATAGRAM_OVERHEAD;
        if !self.budget.try_spend(now.mono, class, wire_bytes) {
            self.traffic.dropped_overload += 1;
            return;
        }
        let mut messages: Vec<Message> = posts.into_iter().map(|post| post.message).collect();
        messages.sort_by_key(rank);
        if let Some(bytes) = self.encode(messages) {
            self.transmit(to, bytes);
        }
    }

    /// Encodes one frame for a stream. A message that the wire cannot carry costs the stream: its peer waits for it.
    pub(super) fn send_frame(&mut self, now: Now, stream: StreamId, message: &Message) {
        let mut bytes = Vec::new();
        wire::begin(&self.header(), &mut bytes);
        if !wire::encode_message(message, &mut bytes, Framing::Frame) {
            self.traffic.dropped_overload += 1;
            self.transfer.refuse(now, stream, &self.roster);
            return;
        }
        self.traffic.frames_sent += 1;
        self.traffic.frame_bytes_sent += bytes.len() as u64;
        self.ready.push_back(Ready::Frame(stream, bytes));
    }
}

/// One CLAIMS message for all claims of a datagram, none twice.
fn merge_claims(messages: Vec<Message>) -> Vec<Message> {
    let mut merged: Vec<Message> = Vec::with_capacity(messages.len());
    for message in messages {
        match (merged.last_mut(), message) {
            (Some(Message::Claims(known)), Message::Claims(more)) if known.len() + more.len() <= 255 => {
                for claim in more {
                    if !known.contains(&claim) {
                        known.push(claim);
                    }
                }
            }
            (_, message) => merged.push(message),
        }
    }
    merged
}
