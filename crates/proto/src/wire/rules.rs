//! What a message may hold. The decoder and the encoder ask the same functions.

use super::error::DecodeError;
use super::message::*;
use crate::entry::{Entry, KEY_BYTES_MAX, VALUE_BYTES_CEILING};
use crate::member::{ACCUSERS_MAX, Claim, Generation, Liveness, Member, MemberId, NAME_BYTES_MAX};
use crate::member::{TAGS_BYTES_MAX, Tags, tags_bytes};
use crate::record::{Record, Tree};

/// May this be a member's name: 1..=128 bytes of UTF-8 without control characters?
pub fn name_is_valid(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// May these be a member's tags: at most 512 bytes encoded (two length bytes each), keys and values of at most 255 bytes?
pub fn tags_are_valid(tags: &Tags) -> bool {
    tags_bytes(tags) <= TAGS_BYTES_MAX && tags.iter().all(|(k, v)| k.len() <= 255 && v.len() <= 255)
}

/// Does the wire carry this message as it stands? If not, [`super::encode_message`] writes nothing of it. (What does not
/// fit a datagram's u16 length may still fit a frame.)
pub fn writable(message: &Message) -> bool {
    check(message).is_ok()
}

pub(super) type Checked = Result<(), DecodeError>;

fn must(ok: bool, error: DecodeError) -> Checked {
    if ok { Ok(()) } else { Err(error) }
}

fn id(id: MemberId) -> Checked {
    must(id != MemberId::NONE, DecodeError::Id)
}

/// Accusers: alive none; suspect one or two, distinct; dead one; left none, or the member that says so (`S6`).
pub(super) fn claim(claim: &Claim) -> Checked {
    id(claim.id)?;
    claim.accusers.iter().try_for_each(|a| id(a.id))?;
    let count = claim.accusers.len();
    let ok = match claim.liveness {
        Liveness::Alive => count == 0,
        Liveness::Suspect => (1..=ACCUSERS_MAX).contains(&count),
        Liveness::Dead => count == 1,
        Liveness::Left => count <= 1,
    };
    let distinct = match claim.accusers.as_slice() {
        [a, b] => a.id != b.id,
        _ => true,
    };
    must(ok && distinct, DecodeError::Claim)
}

/// A member record; RECORD and PAGE carry alive, suspect and left only (section 2.1).
pub(super) fn member(member: &Member) -> Checked {
    let p = &member.profile;
    must(name_is_valid(&p.name), DecodeError::Name)?;
    must(p.generation <= Generation::MAX, DecodeError::Enumeration)?;
    id(p.id)?;
    must(tags_are_valid(&p.tags), DecodeError::Tags)?;
    must(member.liveness != Liveness::Dead, DecodeError::Liveness)
}

/// Longest value of this entry, when users' values end at `value_bytes_max`.
pub(super) fn value_max(key: &[u8], value_bytes_max: usize) -> usize {
    let reserved = key.first() == Some(&crate::entry::RESERVED);
    value_bytes_max.saturating_add(if reserved { RESERVED_EXTRA_BYTES } else { 0 })
}

pub(super) fn entry(entry: &Entry, value_bytes_max: usize) -> Checked {
    must((1..=KEY_BYTES_MAX).contains(&entry.key.len()), DecodeError::Key)?;
    must(entry.value.len() <= value_max(&entry.key, value_bytes_max), DecodeError::Value)?;
    must(!entry.tombstone || entry.value.is_empty(), DecodeError::Value)?;
    id(entry.version.writer)
}

pub(super) fn record(record: &Record, value_bytes_max: usize) -> Checked {
    match record {
        Record::Member(m) => member(m),
        Record::Entry(e) => entry(e, value_bytes_max),
    }
}

/// A position with children: levels 0..=3 of the 16-ary tree over 65,536 buckets.
pub(super) fn position(level: u8, index: u16) -> Checked {
    let ok = level <= WALK_LEVEL_MAX && u32::from(index) < 1u32 << (4 * u32::from(level.min(WALK_LEVEL_MAX)));
    must(ok, DecodeError::Position)
}

pub(super) fn diff(item: &DiffItem) -> Checked {
    position(item.level, item.index)?;
    must(item.children.len() <= item.bitmap.count_ones() as usize, DecodeError::Position)
}

pub(super) fn range(range: &ListRange) -> Checked {
    must(range.first <= range.last, DecodeError::Position)?;
    must(range.tags.is_sorted(), DecodeError::Order)?;
    must(range.tags.iter().all(|t| (range.first..=range.last).contains(&t.bucket)), DecodeError::Order)
}

fn check(message: &Message) -> Checked {
    match message {
        Message::Ack { flags, origin, .. } => {
            origin.map_or(Ok(()), id)?;
            must(flags.entries != Compared::Far, DecodeError::Flags)
        }
        Message::Ping { origin, .. } => origin.map_or(Ok(()), id),
        Message::PingVia { target, .. } => id(*target),
        Message::Claims(claims) => {
            must(claims.len() <= CLAIMS_MAX, DecodeError::Truncated)?;
            claims.iter().try_for_each(claim)
        }
        Message::Record { record: r, .. } => record(r, VALUE_BYTES_CEILING),
        Message::Hello { member: m, .. } => member(m),
        Message::Welcome { member: m, peers } => {
            member(m)?;
            must(peers.len() <= PEERS_MAX, DecodeError::Peers)?;
            peers.iter().try_for_each(|(i, _)| id(*i))
        }
        Message::Page(p) => {
            p.records.iter().try_for_each(|r| {
                let tree = if matches!(r, Record::Member(_)) { Tree::Members } else { Tree::Entries };
                must(tree == p.tree, DecodeError::Enumeration)?;
                record(r, VALUE_BYTES_CEILING)
            })?;
            must(p.tree == Tree::Members || p.claims.is_empty(), DecodeError::Claim)?;
            p.claims.iter().try_for_each(claim)
        }
        Message::Walk { items, .. } => items.iter().try_for_each(|i| position(i.level, i.index)),
        Message::Diff { items, .. } => items.iter().try_for_each(diff),
        Message::List { ranges, .. } => ranges.iter().try_for_each(range),
        Message::Busy { tree, id } => must(tree.is_some() != id.is_some(), DecodeError::Enumeration),
        Message::Mail { topic, payload, .. } => {
            must(topic.len() <= TOPIC_BYTES_MAX, DecodeError::Topic)?;
            must(payload.len() <= VALUE_BYTES_CEILING, DecodeError::Value)
        }
        Message::Answer { payload, .. } => must(payload.len() <= VALUE_BYTES_CEILING, DecodeError::Value),
        Message::Heard { table, .. } => table.iter().try_for_each(|(i, _)| id(*i)),
        Message::Beat(_)
        | Message::Receipt { .. }
        | Message::IHave { .. }
        | Message::Want { .. }
        | Message::Challenge { .. }
        | Message::Pull { .. }
        | Message::Poll(_)
        | Message::Seen(_)
        | Message::Part { .. }
        | Message::Done { .. } => Ok(()),
    }
}
