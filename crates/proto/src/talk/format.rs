//! Keys and values of the reserved entries: broadcasts and queries (section 2.3).
//!
//! ```text
//! key       0x00 | 'b' or 'q' | writer id u64 | number u32
//! broadcast name (u8 length, UTF-8) | topic (u16 length, UTF-8) | first u32 | payload
//! query     name | topic | timeout ms u32 | n u16 | n x (key u8 length, UTF-8 | value u8 length, UTF-8) | payload
//! ```

use crate::entry::{Entry, RESERVED};
use crate::member::{MemberId, Tags};
use crate::wire::TOPIC_BYTES_MAX;

/// Kind of a reserved entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Delivered to whoever subscribes.
    Broadcast,
    /// Answered by whoever its filter matches.
    Query,
}

impl Kind {
    fn letter(self) -> u8 {
        match self {
            Kind::Broadcast => b'b',
            Kind::Query => b'q',
        }
    }
}

/// Bytes of a reserved key.
pub const KEY_BYTES: usize = 14;

/// Key of a writer's number.
pub fn key(kind: Kind, writer: MemberId, number: u32) -> [u8; KEY_BYTES] {
    let mut key = [RESERVED; KEY_BYTES];
    key[1] = kind.letter();
    key[2..10].copy_from_slice(&writer.0.to_le_bytes());
    key[10..].copy_from_slice(&number.to_le_bytes());
    key
}

/// What a reserved key says; none if it is malformed or does not name its writer.
pub fn parse_key(entry: &Entry) -> Option<(Kind, u32)> {
    let bytes: &[u8; KEY_BYTES] = entry.key.as_ref().try_into().ok()?;
    let kind = match bytes {
        [RESERVED, b'b', ..] => Kind::Broadcast,
        [RESERVED, b'q', ..] => Kind::Query,
        _ => return None,
    };
    let mut reader = Reader { bytes, at: 2 };
    let writer = MemberId(u64::from_le_bytes(reader.array()?));
    let number = u32::from_le_bytes(reader.array()?);
    (writer == entry.version.writer && !entry.tombstone).then_some((kind, number))
}

/// A broadcast's value taken apart.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Broadcast<'a> {
    /// Name of the sender.
    pub name: &'a str,
    /// Topic.
    pub topic: &'a str,
    /// First number the sender still retained when it sent this.
    pub first: u32,
    /// Where the payload begins.
    pub payload_at: usize,
}

/// A query's value taken apart.
#[derive(Clone, PartialEq, Debug)]
pub struct Query<'a> {
    /// Name of the asker.
    pub name: &'a str,
    /// Topic.
    pub topic: &'a str,
    /// How long it waits.
    pub timeout_ms: u32,
    /// Tags that a member must have to answer.
    pub filter: Tags,
    /// Where the payload begins.
    pub payload_at: usize,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn short(&mut self) -> Option<&'a str> {
        let [length] = self.array()?;
        std::str::from_utf8(self.take(usize::from(length))?).ok()
    }

    fn topic(&mut self) -> Option<&'a str> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        let topic = std::str::from_utf8(self.take(length)?).ok()?;
        (1..=TOPIC_BYTES_MAX).contains(&length).then_some(topic)
    }
}

fn put_short(text: &str, out: &mut Vec<u8>) {
    out.push(u8::try_from(text.len()).unwrap_or(0));
    out.extend_from_slice(text.as_bytes());
}

fn put_head(name: &str, topic: &str, out: &mut Vec<u8>) {
    put_short(name, out);
    out.extend_from_slice(&u16::try_from(topic.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(topic.as_bytes());
}

/// Value of a broadcast. Name and topic are within their limits.
pub fn broadcast(name: &str, topic: &str, first: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(7 + name.len() + topic.len() + payload.len());
    put_head(name, topic, &mut out);
    out.extend_from_slice(&first.to_le_bytes());
    out.extend_from_slice(payload);
    out
}

/// Takes a broadcast's value apart.
pub fn parse_broadcast(value: &[u8]) -> Option<Broadcast<'_>> {
    let mut reader = Reader { bytes: value, at: 0 };
    let (name, topic) = (reader.short()?, reader.topic()?);
    let first = u32::from_le_bytes(reader.array()?);
    Some(Broadcast { name, topic, first, payload_at: reader.at })
}

/// Value of a query. Name, topic and tags are within their limits.
pub fn query(name: &str, topic: &str, timeout_ms: u32, filter: &Tags, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + name.len() + topic.len() + payload.len());
    put_head(name, topic, &mut out);
    out.extend_from_slice(&timeout_ms.to_le_bytes());
    out.extend_from_slice(&u16::try_from(filter.len()).unwrap_or(0).to_le_bytes());
    for (key, value) in filter {
        put_short(key, &mut out);
        put_short(value, &mut out);
    }
    out.extend_from_slice(payload);
    out
}

/// Takes a query's value apart.
pub fn parse_query(value: &[u8]) -> Option<Query<'_>> {
    let mut reader = Reader { bytes: value, at: 0 };
    let (name, topic) = (reader.short()?, reader.topic()?);
    let timeout_ms = u32::from_le_bytes(reader.array()?);
    let count = u16::from_le_bytes(reader.array()?);
    let mut filter = Tags::new();
    for _ in 0..count {
        filter.insert(reader.short()?.to_owned(), reader.short()?.to_owned());
    }
    Some(Query { name, topic, timeout_ms, filter, payload_at: reader.at })
}

/// Does a member with these tags pass this filter: has it each of the filter's tags with the same value?
pub fn passes(filter: &Tags, tags: &Tags) -> bool {
    filter.iter().all(|(key, value)| tags.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::entry::Version;
    use crate::time::Stamp;

    #[test]
    fn values_come_back_whole_and_cut_ones_not_at_all() {
        let filter = Tags::from([("role".into(), "db".into()), ("zone".into(), "é".into())]);
        let bytes = query("asker", "disk", 2_000, &filter, b"payload");
        let parsed = parse_query(&bytes).unwrap();
        assert_eq!((parsed.name, parsed.topic, parsed.timeout_ms), ("asker", "disk", 2_000));
        assert_eq!(parsed.filter, filter);
        assert_eq!(&bytes[parsed.payload_at..], b"payload");
        for cut in 0..parsed.payload_at {
            assert_eq!(parse_query(&bytes[..cut]), None, "cut at {cut}");
        }
        let bytes = broadcast("sender", "t", 7, b"");
        let parsed = parse_broadcast(&bytes).unwrap();
        assert_eq!((parsed.name, parsed.topic, parsed.first, parsed.payload_at), ("sender", "t", 7, 14));
        for cut in 0..bytes.len() {
            assert_eq!(parse_broadcast(&bytes[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_key_names_the_writer_of_its_entry() {
        let entry = |writer| Entry {
            key: Arc::from(&key(Kind::Query, MemberId(5), 9)[..]),
            value: Arc::default(),
            version: Version { stamp: Stamp(1), writer },
            tombstone: false,
            ttl_ms: None,
        };
        assert_eq!(parse_key(&entry(MemberId(5))), Some((Kind::Query, 9)));
        assert_eq!(parse_key(&entry(MemberId(6))), None);
    }

    #[test]
    fn a_filter_wants_each_of_its_tags() {
        let tags = |pairs: &[(&str, &str)]| -> Tags {
            pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
        };
        assert!(passes(&tags(&[]), &tags(&[])));
        assert!(passes(&tags(&[("a", "1")]), &tags(&[("a", "1"), ("b", "2")])));
        assert!(!passes(&tags(&[("a", "1"), ("c", "3")]), &tags(&[("a", "1"), ("b", "2")])));
        assert!(!passes(&tags(&[("a", "2")]), &tags(&[("a", "1")])));
    }
}
