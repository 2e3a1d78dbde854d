//! Messages to bytes.

use super::bytes::{Count, Sink};
use super::message::*;
use super::rules;
use crate::entry::Entry;
use crate::member::{Claim, Member};
use crate::record::{Record, RumorId, Tree};
use crate::time::Second;

/// Hash of a cluster label, as headers carry it.
pub fn label_hash(label: &str) -> u16 {
    let hash = blake3::derive_key("hearsay 2026 label v1", label.as_bytes());
    u16::from_le_bytes([hash[0], hash[1]])
}

impl Header {
    /// A header of this build's version without flags.
    pub fn new(label: u16, sender: crate::member::MemberId) -> Header {
        Header { version: WIRE_VERSION, flags: 0, label, sender }
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0u8; HEADER_BYTES];
        let [version, flags, label_low, label_high, sender @ ..] = &mut bytes;
        *version = self.version;
        *flags = self.flags;
        [*label_low, *label_high] = self.label.to_le_bytes();
        *sender = self.sender.0.to_le_bytes();
        bytes
    }
}

/// Begins a datagram or frame: clears `buf` and writes the header. Messages follow by [`encode_message`].
pub fn begin(header: &Header, buf: &mut Vec<u8>) {
    buf.clear();
    buf.extend_from_slice(&header.encode());
}

/// Appends one message with its kind and length.
///
/// Returns false and leaves `buf` as it was if the message cannot be carried: it breaks a rule of the wire (see
/// [`super::writable`]) or its body exceeds the length field. So a fault of the caller costs one message, not the datagram.
pub fn encode_message(message: &Message, buf: &mut Vec<u8>, framing: Framing) -> bool {
    let bytes = body_bytes(message);
    let fits = match framing {
        Framing::Datagram => u16::try_from(bytes).is_ok(),
        Framing::Frame => u32::try_from(bytes).is_ok(),
    };
    if !fits || !rules::writable(message) {
        return false;
    }
    buf.reserve(framing.head_bytes() + bytes);
    buf.u8(kind(message));
    match framing {
        Framing::Datagram => buf.u16(bytes as u16),
        Framing::Frame => buf.u32(bytes as u32),
    }
    body(message, buf);
    true
}

/// Bytes of a message in a datagram, kind and length included: exact, nothing is allocated. In a frame it takes two more.
pub fn message_bytes(message: &Message) -> usize {
    Framing::Datagram.head_bytes() + body_bytes(message)
}

/// Bytes of a claim within CLAIMS or a PAGE.
pub fn claim_bytes(claim: &Claim) -> usize {
    let mut count = Count::default();
    put_claim(claim, &mut count);
    count.0
}

/// Bytes of a record within a PAGE; a RECORD takes five more.
pub fn record_bytes(record: &Record) -> usize {
    let mut count = Count::default();
    put_record(record, &mut count);
    count.0
}

fn body_bytes(message: &Message) -> usize {
    let mut count = Count::default();
    body(message, &mut count);
    count.0
}

pub(super) mod kinds {
    pub const BEAT: u8 = 1;
    pub const ACK: u8 = 2;
    pub const PING: u8 = 3;
    pub const PING_VIA: u8 = 4;
    pub const RECEIPT: u8 = 5;
    pub const CLAIMS: u8 = 6;
    pub const RECORD: u8 = 7;
    pub const IHAVE: u8 = 8;
    pub const WANT: u8 = 9;
    pub const HELLO: u8 = 10;
    pub const CHALLENGE: u8 = 11;
    pub const WELCOME: u8 = 12;
    pub const PULL: u8 = 13;
    pub const PAGE: u8 = 14;
    pub const WALK: u8 = 15;
    pub const DIFF: u8 = 16;
    pub const LIST: u8 = 17;
    pub const BUSY: u8 = 18;
    pub const POLL: u8 = 19;
    pub const SEEN: u8 = 20;
    pub const MAIL: u8 = 21;
    pub const DONE: u8 = 22;
    pub const ANSWER: u8 = 23;
    pub const HEARD: u8 = 24;
    pub const PART: u8 = 25;
}

fn kind(message: &Message) -> u8 {
    match message {
        Message::Beat(_) => kinds::BEAT,
        Message::Ack { .. } => kinds::ACK,
        Message::Ping { .. } => kinds::PING,
        Message::PingVia { .. } => kinds::PING_VIA,
        Message::Receipt { .. } => kinds::RECEIPT,
        Message::Claims(_) => kinds::CLAIMS,
        Message::Record { .. } => kinds::RECORD,
        Message::IHave { .. } => kinds::IHAVE,
        Message::Want { .. } => kinds::WANT,
        Message::Hello { .. } => kinds::HELLO,
        Message::Challenge { .. } => kinds::CHALLENGE,
        Message::Welcome { .. } => kinds::WELCOME,
        Message::Pull { .. } => kinds::PULL,
        Message::Page(_) => kinds::PAGE,
        Message::Walk { .. } => kinds::WALK,
        Message::Diff { .. } => kinds::DIFF,
        Message::List { .. } => kinds::LIST,
        Message::Busy { .. } => kinds::BUSY,
        Message::Poll(_) => kinds::POLL,
        Message::Seen(_) => kinds::SEEN,
        Message::Mail { .. } => kinds::MAIL,
        Message::Done { .. } => kinds::DONE,
        Message::Answer { .. } => kinds::ANSWER,
        Message::Heard { .. } => kinds::HEARD,
        Message::Part { .. } => kinds::PART,
    }
}

fn bit(set: bool, bit: u8) -> u8 {
    u8::from(set) << bit
}

fn put_member(member: &Member, out: &mut impl Sink) {
    let p = &member.profile;
    out.short(&p.name);
    out.u48(p.generation.0);
    out.u64(p.id.0);
    out.varint(p.revision);
    out.address(p.address);
    out.varint(p.tags.len() as u64);
    for (key, value) in &p.tags {
        out.short(key);
        out.short(value);
    }
    out.varint(member.incarnation.0);
    out.u8(member.liveness as u8);
}

fn put_entry(entry: &Entry, out: &mut impl Sink) {
    out.long(&entry.key);
    out.long(&entry.value);
    out.u64(entry.version.stamp.0);
    out.u64(entry.version.writer.0);
    out.u8(entry.flags());
    if let Some(ttl) = entry.ttl_ms {
        out.varint(ttl);
    }
}

fn put_record(record: &Record, out: &mut impl Sink) {
    match record {
        Record::Member(m) => put_member(m, out),
        Record::Entry(e) => put_entry(e, out),
    }
}

fn put_claim(claim: &Claim, out: &mut impl Sink) {
    out.u8(claim.liveness as u8 | (claim.accusers.len() as u8) << 4);
    out.u64(claim.id.0);
    out.varint(claim.incarnation.0);
    for accuser in &claim.accusers {
        out.u64(accuser.id.0);
        out.u16(accuser.phi64);
    }
}

fn put_ids(flags: u8, ids: &[RumorId], out: &mut impl Sink) {
    out.u8(flags);
    for id in ids {
        put_rumor(*id, out);
    }
}

fn put_rumor(id: RumorId, out: &mut impl Sink) {
    out.u16(id.bucket);
    out.u32(id.tag);
}

fn put_session(seq: u32, tree: Tree, settled: Second, out: &mut impl Sink) {
    out.u32(seq);
    out.u8(tree as u8);
    out.u32(settled.0);
}

fn put_range(range: &ListRange, out: &mut impl Sink) {
    out.u16(range.first);
    out.u16(range.last);
    out.varint(range.tags.len() as u64);
    let mut before = range.first;
    for tag in &range.tags {
        if range.first != range.last {
            out.varint(u64::from(tag.bucket.wrapping_sub(before)));
            before = tag.bucket;
        }
        out.u16(tag.tag);
        out.u32(tag.version);
    }
}

fn put_beat(beat: &Beat, out: &mut impl Sink) {
    out.u32(beat.seq);
    out.u64(beat.clock.0);
    out.u8(beat.settle_secs);
    out.u8(bit(beat.once, 0) | bit(beat.deaf, 1) | bit(beat.roots.is_none(), 2));
    if let Some(roots) = beat.roots {
        out.u32(roots.members);
        out.u32(roots.entries);
        out.u16(roots.living);
    }
}

fn body(message: &Message, out: &mut impl Sink) {
    match message {
        Message::Beat(beat) => put_beat(beat, out),
        Message::Ack { seq, flags, origin } => {
            out.u32(*seq);
            let compared = (flags.members as u8) << 2 | (flags.entries as u8) << 4;
            out.u8(bit(flags.to_beat, 0) | bit(flags.watched, 1) | compared);
            if let Some(id) = origin {
                out.u64(id.0);
            }
        }
        Message::Ping { seq, origin } => {
            out.u32(*seq);
            if let Some(id) = origin {
                out.u64(id.0);
            }
        }
        Message::PingVia { seq, target } => {
            out.u32(*seq);
            out.u64(target.0);
        }
        Message::Receipt { seq } | Message::Done { seq } => out.u32(*seq),
        Message::Claims(claims) => {
            out.u8(claims.len() as u8);
            claims.iter().for_each(|c| put_claim(c, out));
        }
        Message::Record { hop, record } => {
            out.u8(*hop);
            out.u8(match record {
                Record::Member(_) => Tree::Members as u8,
                Record::Entry(_) => Tree::Entries as u8,
            });
            put_record(record, out);
        }
        Message::IHave { repair, large, ids } | Message::Want { repair, large, ids } => {
            put_ids(bit(*repair, 0) | bit(*large, 1), ids, out);
        }
        Message::Hello { cookie, spread, member } => {
            out.u64(*cookie);
            out.u8(u8::from(*spread));
            put_member(member, out);
            let mut count = Count(8 + 1);
            put_member(member, &mut count);
            for _ in count.0..HELLO_BODY_BYTES {
                out.u8(0);
            }
        }
        Message::Challenge { cookie } => out.u64(*cookie),
        Message::Welcome { member, peers } => {
            put_member(member, out);
            for (id, address) in peers {
                out.u64(id.0);
                out.address(*address);
            }
        }
        Message::Pull { tree, cursor } => {
            out.u8(*tree as u8);
            out.u64(*cursor);
        }
        Message::Page(page) => {
            out.u8(page.tree as u8);
            out.u64(page.from);
            out.u64(page.next);
            out.u8(u8::from(page.last));
            out.varint(page.records.len() as u64);
            page.records.iter().for_each(|r| put_record(r, out));
            if page.tree == Tree::Members {
                out.varint(page.claims.len() as u64);
                page.claims.iter().for_each(|c| put_claim(c, out));
            }
        }
        Message::Walk { seq, tree, settled, salt, items } => {
            put_session(*seq, *tree, *settled, out);
            out.u32(*salt);
            for item in items {
                out.u8(item.level);
                out.u16(item.index);
                item.children.iter().for_each(|d| out.u32(*d));
            }
        }
        Message::Diff { seq, tree, settled, items } => {
            put_session(*seq, *tree, *settled, out);
            for item in items {
                out.u8(item.level);
                out.u16(item.index);
                out.u16(item.bitmap);
                out.u8(item.children.len() as u8);
                item.children.iter().flatten().for_each(|d| out.u32(*d));
            }
        }
        Message::List { seq, tree, settled, ranges } => {
            put_session(*seq, *tree, *settled, out);
            ranges.iter().for_each(|r| put_range(r, out));
        }
        Message::Busy { tree, id } => {
            if let Some(tree) = tree {
                out.u8(*tree as u8);
            }
            if let Some(id) = id {
                put_rumor(*id, out);
            }
        }
        Message::Poll(ids) | Message::Seen(ids) => put_ids(0, ids, out),
        Message::Mail { seq, topic, payload } => {
            out.u32(*seq);
            out.long(topic.as_bytes());
            out.put(payload);
        }
        Message::Answer { query, status, payload } => {
            out.u32(*query);
            out.u8(*status as u8);
            out.put(payload);
        }
        Message::Part { last, bytes } => {
            out.u8(u8::from(*last));
            out.put(bytes);
        }
        Message::Heard { living, table } => {
            out.u16(*living);
            for (id, second) in table {
                out.u64(id.0);
                out.u32(second.0);
            }
        }
    }
}

/// Least bytes of a HELLO's body.
pub(super) const HELLO_BODY_BYTES: usize = HELLO_BYTES - 3;
