//! Bytes to messages: strict, bounded, whole or not at all.

use std::net::SocketAddr;
use std::sync::Arc;

use super::bytes::Reader;
use super::encode::{HELLO_BODY_BYTES, kinds};
use super::error::DecodeError;
use super::message::*;
use super::rules;
use crate::entry::{Entry, KEY_BYTES_MAX, Version};
use crate::member::{
    ACCUSERS_MAX, Accuser, Claim, Generation, Incarnation, Liveness, Member, MemberId, Profile,
    TAGS_BYTES_MAX, Tags,
};
use crate::record::{Record, RumorId, Tree};
use crate::time::{Second, Stamp};

type Decode<T> = Result<T, DecodeError>;

/// What the receiver allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest value or payload in bytes (`limits.valueBytesMax`).
    pub value_bytes_max: usize,
}

/// A decoded datagram or frame.
#[derive(Clone, PartialEq, Debug)]
pub struct Decoded {
    /// Its header.
    pub header: Header,
    /// The messages of kinds this build knows, in order.
    pub messages: Vec<Message>,
    /// How many messages of unknown kinds were skipped.
    pub skipped: usize,
}

/// Reads the header alone.
///
/// # Errors
/// [`DecodeError::Header`] if it is too short, [`DecodeError::Version`] if it is of another version.
pub fn peek_header(bytes: &[u8]) -> Result<Header, DecodeError> {
    Header::decode(bytes)
}

impl Header {
    /// Reads a header from the front of `bytes`.
    ///
    /// # Errors
    /// As [`peek_header`].
    pub fn decode(bytes: &[u8]) -> Result<Header, DecodeError> {
        let mut reader = Reader::new(bytes.get(..HEADER_BYTES).ok_or(DecodeError::Header)?);
        let (version, flags) = (reader.u8()?, reader.u8()?);
        if version != WIRE_VERSION {
            return Err(DecodeError::Version);
        }
        Ok(Header { version, flags, label: reader.u16()?, sender: MemberId(reader.u64()?) })
    }
}

/// Decodes a plain datagram or frame. The label is not looked at.
///
/// Nothing is allocated for a count before as many bytes as it needs are seen to be there, so memory stays in proportion to
/// `bytes`.
///
/// # Errors
/// [`DecodeError`]: then nothing of it is to be used.
pub fn decode(bytes: &[u8], limits: &Limits, framing: Framing) -> Result<Decoded, DecodeError> {
    let header = Header::decode(bytes)?;
    let mut reader = Reader::new(bytes.get(HEADER_BYTES..).unwrap_or_default());
    let (mut messages, mut skipped) = (Vec::new(), 0usize);
    while !reader.is_empty() {
        if messages.len() + skipped == MESSAGES_MAX {
            return Err(DecodeError::Messages);
        }
        let kind = reader.u8()?;
        let length = match framing {
            Framing::Datagram => usize::from(reader.u16()?),
            Framing::Frame => usize::try_from(reader.u32()?).map_err(|_| DecodeError::Truncated)?,
        };
        let mut body = Reader::new(reader.take(length)?);
        match message(kind, &mut body, limits)? {
            Some(message) => {
                body.end()?;
                messages.push(message);
            }
            None => skipped += 1,
        }
    }
    Ok(Decoded { header, messages, skipped })
}

/// Decodes one message with its kind and length as in a frame: what the pieces of [`Message::Part`] make. None if its kind is
/// unknown.
///
/// # Errors
/// [`DecodeError`]: it is to be dropped.
pub fn decode_parts(bytes: &[u8], limits: &Limits) -> Result<Option<Message>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let kind = reader.u8()?;
    let length = usize::try_from(reader.u32()?).map_err(|_| DecodeError::Truncated)?;
    let mut body = Reader::new(reader.take(length)?);
    reader.end()?;
    let decoded = message(kind, &mut body, limits)?;
    if decoded.is_some() {
        body.end()?;
    }
    Ok(decoded)
}

fn message(kind: u8, r: &mut Reader<'_>, limits: &Limits) -> Decode<Option<Message>> {
    Ok(Some(match kind {
        kinds::BEAT => Message::Beat(beat(r)?),
        kinds::ACK => {
            let seq = r.u32()?;
            let flags = ack_flags(r.u8()?)?;
            Message::Ack { seq, flags, origin: origin(r)? }
        }
        kinds::PING => Message::Ping { seq: r.u32()?, origin: origin(r)? },
        kinds::PING_VIA => Message::PingVia { seq: r.u32()?, target: r.id()? },
        kinds::RECEIPT => Message::Receipt { seq: r.u32()? },
        kinds::CLAIMS => {
            let count = usize::from(r.u8()?);
            Message::Claims(claims(r, count)?)
        }
        kinds::RECORD => {
            let hop = r.u8()?;
            let tree = tree(r)?;
            Message::Record { hop, record: record(r, tree, limits)? }
        }
        kinds::IHAVE => {
            let flags = flags(r, 0b11)?;
            Message::IHave { repair: flags & 1 != 0, large: flags & 2 != 0, ids: ids(r)? }
        }
        kinds::WANT => {
            let flags = flags(r, 0b11)?;
            Message::Want { repair: flags & 1 != 0, large: flags & 2 != 0, ids: ids(r)? }
        }
        kinds::HELLO => hello(r)?,
        kinds::CHALLENGE => Message::Challenge { cookie: r.u64()? },
        kinds::WELCOME => Message::Welcome { member: member(r)?, peers: peers(r)? },
        kinds::PULL => Message::Pull { tree: tree(r)?, cursor: r.u64()? },
        kinds::PAGE => Message::Page(page(r, limits)?),
        kinds::WALK => {
            let (seq, tree, settled) = session(r)?;
            Message::Walk { seq, tree, settled, salt: r.u32()?, items: walk_items(r)? }
        }
        kinds::DIFF => {
            let (seq, tree, settled) = session(r)?;
            Message::Diff { seq, tree, settled, items: diff_items(r)? }
        }
        kinds::LIST => {
            let (seq, tree, settled) = session(r)?;
            let mut ranges = Vec::new();
            while !r.is_empty() {
                ranges.push(range(r)?);
            }
            Message::List { seq, tree, settled, ranges }
        }
        kinds::BUSY if r.left() == 1 => Message::Busy { tree: Some(tree(r)?), id: None },
        kinds::BUSY => Message::Busy { tree: None, id: Some(rumor(r)?) },
        kinds::POLL => {
            flags(r, 0)?;
            Message::Poll(ids(r)?)
        }
        kinds::SEEN => {
            flags(r, 0)?;
            Message::Seen(ids(r)?)
        }
        kinds::MAIL => {
            let seq = r.u32()?;
            let topic = Reader::text(r.long(TOPIC_BYTES_MAX, DecodeError::Topic)?)?;
            Message::Mail { seq, topic: topic.into(), payload: payload(r, limits)? }
        }
        kinds::DONE => Message::Done { seq: r.u32()? },
        kinds::ANSWER => {
            let query = r.u32()?;
            let status = match r.u8()? {
                0 => AnswerStatus::Ok,
                1 => AnswerStatus::None,
                2 => AnswerStatus::Error,
                _ => return Err(DecodeError::Enumeration),
            };
            Message::Answer { query, status, payload: payload(r, limits)? }
        }
        kinds::PART => Message::Part { last: r.bool()?, bytes: r.rest().into() },
        kinds::HEARD => Message::Heard { living: r.u16()?, table: heard(r)? },
        _ => return Ok(None),
    }))
}

/// A flags byte of which only the bits of `known` are defined.
fn flags(r: &mut Reader<'_>, known: u8) -> Decode<u8> {
    let flags = r.u8()?;
    if flags & !known != 0 { Err(DecodeError::Flags) } else { Ok(flags) }
}

fn tree(r: &mut Reader<'_>) -> Decode<Tree> {
    Tree::from_wire(r.u8()?).ok_or(DecodeError::Enumeration)
}

/// The origin of a relayed PING or ACK, if the body goes on.
fn origin(r: &mut Reader<'_>) -> Decode<Option<MemberId>> {
    if r.is_empty() { Ok(None) } else { r.id().map(Some) }
}

fn beat(r: &mut Reader<'_>) -> Decode<Beat> {
    let (seq, clock, settle_secs) = (r.u32()?, Stamp(r.u64()?), r.u8()?);
    let flags = flags(r, 0b111)?;
    let roots = match flags & 4 {
        0 => Some(Roots { members: r.u32()?, entries: r.u32()?, living: r.u16()? }),
        _ => None,
    };
    Ok(Beat { seq, clock, settle_secs, once: flags & 1 != 0, deaf: flags & 2 != 0, roots })
}

fn ack_flags(flags: u8) -> Decode<AckFlags> {
    let members = match flags >> 2 & 3 {
        0 => Compared::Not,
        1 => Compared::Equal,
        2 => Compared::Differ,
        _ => Compared::Far,
    };
    let entries = match flags >> 4 {
        0 => Compared::Not,
        1 => Compared::Equal,
        2 => Compared::Differ,
        _ => return Err(DecodeError::Flags),
    };
    Ok(AckFlags { to_beat: flags & 1 != 0, watched: flags & 2 != 0, members, entries })
}

fn claims(r: &mut Reader<'_>, count: usize) -> Decode<Vec<Claim>> {
    if count > r.left() / CLAIM_BYTES_MIN {
        return Err(DecodeError::Truncated);
    }
    let mut claims = Vec::with_capacity(count);
    for _ in 0..count {
        claims.push(claim(r)?);
    }
    Ok(claims)
}

/// State and count, id, incarnation.
const CLAIM_BYTES_MIN: usize = 10;

fn claim(r: &mut Reader<'_>) -> Decode<Claim> {
    let head = r.u8()?;
    let liveness = Liveness::from_wire(head & 15).ok_or(DecodeError::Enumeration)?;
    let count = usize::from(head >> 4);
    if count > ACCUSERS_MAX {
        return Err(DecodeError::Claim);
    }
    let (id, incarnation) = (r.id()?, Incarnation(r.varint()?));
    let mut accusers = Vec::new();
    for _ in 0..count {
        accusers.push(Accuser { id: r.id()?, phi64: r.u16()? });
    }
    let claim = Claim { id, incarnation, liveness, accusers };
    rules::claim(&claim)?;
    Ok(claim)
}

fn tags(r: &mut Reader<'_>) -> Decode<Tags> {
    let count = r.count(2)?;
    let mut bytes = 0usize;
    let mut tags = Tags::new();
    for _ in 0..count {
        let (key, value) = (r.short()?, r.short()?);
        bytes += 2 + key.len() + value.len();
        let ascending = tags.last_key_value().is_none_or(|(last, _)| last.as_str() < key);
        if bytes > TAGS_BYTES_MAX || !ascending {
            return Err(DecodeError::Tags);
        }
        tags.insert(key.to_owned(), value.to_owned());
    }
    Ok(tags)
}

fn member(r: &mut Reader<'_>) -> Decode<Member> {
    let profile = Profile {
        name: r.short()?.into(),
        generation: Generation(r.u48()?),
        id: r.id()?,
        revision: r.varint()?,
        address: r.address()?,
        tags: tags(r)?,
    };
    let incarnation = Incarnation(r.varint()?);
    let liveness = Liveness::from_wire(r.u8()?).ok_or(DecodeError::Enumeration)?;
    let member = Member { profile: Arc::new(profile), incarnation, liveness };
    rules::member(&member)?;
    Ok(member)
}

fn entry(r: &mut Reader<'_>, limits: &Limits) -> Decode<Entry> {
    let key = r.long(KEY_BYTES_MAX, DecodeError::Key)?;
    let value = r.long(rules::value_max(key, limits.value_bytes_max), DecodeError::Value)?;
    let version = Version { stamp: Stamp(r.u64()?), writer: r.id()? };
    let flags = flags(r, 0b11)?;
    let ttl_ms = if flags & 2 != 0 { Some(r.varint()?) } else { None };
    let entry = Entry { key: key.into(), value: value.into(), version, tombstone: flags & 1 != 0, ttl_ms };
    rules::entry(&entry, limits.value_bytes_max)?;
    Ok(entry)
}

fn record(r: &mut Reader<'_>, tree: Tree, limits: &Limits) -> Decode<Record> {
    Ok(match tree {
        Tree::Members => Record::Member(member(r)?),
        Tree::Entries => Record::Entry(Arc::new(entry(r, limits)?)),
    })
}

fn hello(r: &mut Reader<'_>) -> Decode<Message> {
    let length = r.left();
    let message = Message::Hello { cookie: r.u64()?, spread: r.bool()?, member: member(r)? };
    let used = length - r.left();
    let padding = r.rest();
    if padding.len() != HELLO_BODY_BYTES.saturating_sub(used) || padding.iter().any(|&b| b != 0) {
        return Err(DecodeError::Padding);
    }
    Ok(message)
}

fn peers(r: &mut Reader<'_>) -> Decode<Vec<(MemberId, SocketAddr)>> {
    let mut peers = Vec::new();
    while !r.is_empty() {
        if peers.len() == PEERS_MAX {
            return Err(DecodeError::Peers);
        }
        peers.push((r.id()?, r.address()?));
    }
    Ok(peers)
}

/// Least bytes of a record: an entry with a key of one byte and no value.
const RECORD_BYTES_MIN: usize = 20;

fn page(r: &mut Reader<'_>, limits: &Limits) -> Decode<Page> {
    let tree = tree(r)?;
    let (from, next, last) = (r.u64()?, r.u64()?, r.bool()?);
    let count = r.count(RECORD_BYTES_MIN)?;
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        records.push(record(r, tree, limits)?);
    }
    let claims = match tree {
        Tree::Members => {
            let count = r.count(CLAIM_BYTES_MIN)?;
            claims(r, count)?
        }
        Tree::Entries => Vec::new(),
    };
    Ok(Page { tree, from, next, last, records, claims })
}

fn session(r: &mut Reader<'_>) -> Decode<(u32, Tree, Second)> {
    Ok((r.u32()?, tree(r)?, Second(r.u32()?)))
}

fn digests(r: &mut Reader<'_>) -> Decode<[u32; 16]> {
    let mut digests = [0u32; 16];
    for digest in &mut digests {
        *digest = r.u32()?;
    }
    Ok(digests)
}

fn walk_items(r: &mut Reader<'_>) -> Decode<Vec<WalkItem>> {
    let mut items = Vec::with_capacity(r.left() / 67);
    while !r.is_empty() {
        let (level, index) = (r.u8()?, r.u16()?);
        rules::position(level, index)?;
        items.push(WalkItem { level, index, children: digests(r)? });
    }
    Ok(items)
}

fn diff_items(r: &mut Reader<'_>) -> Decode<Vec<DiffItem>> {
    let mut items = Vec::new();
    while !r.is_empty() {
        let (level, index, bitmap) = (r.u8()?, r.u16()?, r.u16()?);
        let count = usize::from(r.u8()?);
        if count > r.left() / 64 {
            return Err(DecodeError::Truncated);
        }
        let mut children = Vec::with_capacity(count);
        for _ in 0..count {
            children.push(digests(r)?);
        }
        let item = DiffItem { level, index, bitmap, children };
        rules::diff(&item)?;
        items.push(item);
    }
    Ok(items)
}

fn range(r: &mut Reader<'_>) -> Decode<ListRange> {
    let (first, last) = (r.u16()?, r.u16()?);
    let stepped = first != last;
    let count = r.count(6 + usize::from(stepped))?;
    let mut tags = Vec::with_capacity(count);
    let mut bucket = first;
    for _ in 0..count {
        if stepped {
            let step = u16::try_from(r.varint()?).map_err(|_| DecodeError::Order)?;
            bucket = bucket.checked_add(step).ok_or(DecodeError::Order)?;
        }
        tags.push(ListTag { bucket, tag: r.u16()?, version: r.u32()? });
    }
    let range = ListRange { first, last, tags };
    rules::range(&range)?;
    Ok(range)
}

fn rumor(r: &mut Reader<'_>) -> Decode<RumorId> {
    Ok(RumorId { bucket: r.u16()?, tag: r.u32()? })
}

fn ids(r: &mut Reader<'_>) -> Decode<Vec<RumorId>> {
    let mut ids = Vec::with_capacity(r.left() / 6);
    while !r.is_empty() {
        ids.push(rumor(r)?);
    }
    Ok(ids)
}

fn payload(r: &mut Reader<'_>, limits: &Limits) -> Decode<Arc<[u8]>> {
    if r.left() > limits.value_bytes_max {
        return Err(DecodeError::Value);
    }
    Ok(r.rest().into())
}

fn heard(r: &mut Reader<'_>) -> Decode<Vec<(MemberId, Second)>> {
    let mut table = Vec::with_capacity(r.left() / 12);
    while !r.is_empty() {
        table.push((r.id()?, Second(r.u32()?)));
    }
    Ok(table)
}
