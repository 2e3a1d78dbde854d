//! Packing: messages queued for one address share datagrams; rumors' parcels are encoded once and sent to each peer.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Gossip;
use crate::budget::{Class, DATAGRAM_OVERHEAD};
use crate::member::{Claim, MemberId};
use crate::output::{Event, Output, StreamId};
use crate::time::Now;
use crate::wire::{self, Framing, HEADER_BYTES, Header, Message};

/// Messages waiting for a datagram; beyond this they are dropped and counted as overload.
const OUTBOX_MAX: usize = 16_384;

/// One message on its way out.
pub(super) struct Post {
    to: SocketAddr,
    message: Message,
    class: Class,
}

/// Messages that wait to be packed, oldest first.
#[derive(Default)]
pub(super) struct Outbox(VecDeque<Post>);

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
        Header::new(self.label, self.roster.my_id())
    }

    /// Queues a message for an address.
    pub(super) fn post_to(&mut self, to: SocketAddr, message: Message, class: Class) {
        if self.outbox.0.len() >= OUTBOX_MAX {
            self.traffic.dropped_overload += 1;
            return;
        }
        self.outbox.0.push_back(Post { to, message, class });
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
        while self.outbox.0.iter().any(|post| post.to == address) {
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
        if let Some(first) = self.outbox.0.front() {
            let to = first.to;
            self.pack_for(now, to);
            return true;
        }
        let parcel = self.rumors.poll_datagram(now, &self.roster, &mut self.budget, &mut self.rng);
        let Some(parcel) = parcel else { return false };
        let mut bytes = Vec::new();
        wire::begin(&self.header(), &mut bytes);
        for message in &parcel.messages {
            wire::encode_message(message, &mut bytes, Framing::Datagram);
        }
        let bytes: Arc<[u8]> = Arc::from(bytes);
        for id in parcel.to {
            if let Some(to) = self.roster.profile(id).map(|p| p.address) {
                self.count_sent(&bytes);
                self.ready.push_back(Ready::Datagram(to, bytes.clone()));
            }
        }
        true
    }

    fn count_sent(&mut self, plain: &[u8]) {
        self.traffic.datagrams_sent += 1;
        self.traffic.bytes_sent += (plain.len() + self.config.seal_bytes) as u64;
    }

    /// Packs what is queued for `to` into one datagram; what does not fit stays queued.
    fn pack_for(&mut self, now: Now, to: SocketAddr) {
        let room = self.config.room();
        let mut taken: Vec<Message> = Vec::new();
        let mut used = 0;
        let mut class = Class::Repair;
        let mut rest = VecDeque::with_capacity(self.outbox.0.len());
        for post in std::mem::take(&mut self.outbox.0) {
            let bytes = wire::message_bytes(&post.message);
            if post.to != to || used + bytes > room {
                if bytes > room {
                    self.traffic.dropped_overload += 1;
                } else {
                    rest.push_back(post);
                }
                continue;
            }
            // What may not be held back takes the rest of its datagram along.
            class = match (class, post.class) {
                (Class::Detector, _) | (_, Class::Detector) => Class::Detector,
                (Class::Members, _) | (_, Class::Members) => Class::Members,
                (Class::Entries, _) | (_, Class::Entries) => Class::Entries,
                _ => Class::Repair,
            };
            used += bytes;
            taken.push(post.message);
        }
        self.outbox.0 = rest;
        if taken.is_empty() {
            return;
        }
        let wire_bytes = used + HEADER_BYTES + self.config.seal_bytes + DATAGRAM_OVERHEAD;
        if !self.budget.try_spend(now.mono, class, wire_bytes) {
            self.traffic.dropped_overload += 1;
            return;
        }
        taken.sort_by_key(rank);
        let mut bytes = Vec::with_capacity(used + HEADER_BYTES);
        wire::begin(&self.header(), &mut bytes);
        for message in merge_claims(taken) {
            wire::encode_message(&message, &mut bytes, Framing::Datagram);
        }
        self.count_sent(&bytes);
        self.ready.push_back(Ready::Datagram(to, Arc::from(bytes)));
    }

    /// Encodes one frame for a stream.
    pub(super) fn send_frame(&mut self, stream: StreamId, message: &Message) {
        let mut bytes = Vec::new();
        wire::begin(&self.header(), &mut bytes);
        wire::encode_message(message, &mut bytes, Framing::Frame);
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
