//! Rows as bytes. Numbers are little-endian but for the place, whose order is the order of rows.
//!
//! ```text
//! meta     "schema" -> u32      "label" -> UTF-8
//!          "own" -> generation u64 | id u64 | incarnation u64 | clock u64 | seen u64 | name
//!          "heard" -> (id u64 | second u32)*
//! members  name -> generation u64 | id u64 | incarnation u64 | liveness u8 | family u8 (4, 6) | ip | port u16
//! entries  place u64 -> stamp u64 | writer u64 | flags u8 (1 tombstone, 2 ttl) | [ttl u64] | key length u16 | key | value
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use hearsay_proto::entry::{Entry, KEY_BYTES_MAX, Version};
use hearsay_proto::image::{Acquaintance, Own, Write};
use hearsay_proto::member::{Generation, Incarnation, Liveness, MemberId, NAME_BYTES_MAX};
use hearsay_proto::time::{Second, Stamp, Wall};

/// Reads a row from its front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(head)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.first_chunk().copied()
    }
    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

fn words(out: &mut Vec<u8>, words: &[u64]) {
    words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
}

fn name(bytes: &[u8]) -> Option<Arc<str>> {
    let text = std::str::from_utf8(bytes).ok()?;
    (1..=NAME_BYTES_MAX).contains(&text.len()).then(|| Arc::from(text))
}

pub(super) fn put_own(own: &Own, out: &mut Vec<u8>) {
    words(out, &[own.generation.0, own.id.0, own.incarnation.0, own.clock.0, own.seen.0]);
    out.extend_from_slice(own.name.as_bytes());
}

pub(super) fn own(row: &[u8]) -> Option<Own> {
    let mut r = Reader(row);
    Some(Own {
        generation: Generation(r.u64()?),
        id: MemberId(r.u64()?),
        incarnation: Incarnation(r.u64()?),
        clock: Stamp(r.u64()?),
        seen: Wall(r.u64()?),
        name: name(r.rest())?,
    })
}

pub(super) fn put_heard(table: &[(MemberId, Second)], out: &mut Vec<u8>) {
    for (id, second) in table {
        out.extend_from_slice(&id.0.to_le_bytes());
        out.extend_from_slice(&second.0.to_le_bytes());
    }
}

pub(super) fn heard(row: &[u8]) -> Option<Write> {
    let mut r = Reader(row);
    let mut table = Vec::with_capacity(row.len() / 12);
    while r.end().is_none() {
        table.push((MemberId(r.u64()?), Second(r.u32()?)));
    }
    Some(Write::Heard(table))
}

pub(super) fn put_member(member: &Acquaintance, out: &mut Vec<u8>) {
    words(out, &[member.generation.0, member.id.0, member.incarnation.0]);
    out.push(member.liveness as u8);
    match member.address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&member.address.port().to_le_bytes());
}

pub(super) fn member(key: &[u8], row: &[u8]) -> Option<Write> {
    let mut r = Reader(row);
    let (generation, id, incarnation) = (Generation(r.u64()?), MemberId(r.u64()?), Incarnation(r.u64()?));
    let liveness = Liveness::from_wire(r.u8()?)?;
    let ip: IpAddr = match r.u8()? {
        4 => Ipv4Addr::from(r.array::<4>()?).into(),
        6 => Ipv6Addr::from(r.array::<16>()?).into(),
        _ => return None,
    };
    let address = SocketAddr::new(ip, r.u16()?);
    r.end()?;
    Some(Write::Member(Acquaintance { name: name(key)?, generation, id, incarnation, liveness, address }))
}

pub(super) fn put_entry(entry: &Entry, out: &mut Vec<u8>) {
    words(out, &[entry.version.stamp.0, entry.version.writer.0]);
    out.push(entry.flags());
    words(out, entry.ttl_ms.as_slice());
    out.extend_from_slice(&(entry.key.len() as u16).to_le_bytes());
    out.extend_from_slice(&entry.key);
    out.extend_from_slice(&entry.value);
}

pub(super) fn entry(key: &[u8], row: &[u8]) -> Option<Write> {
    let place = u64::from_be_bytes(*key.first_chunk().filter(|_| key.len() == 8)?);
    let mut r = Reader(row);
    let version = Version { stamp: Stamp(r.u64()?), writer: MemberId(r.u64()?) };
    let flags = r.u8().filter(|flags| flags & !3 == 0)?;
    let ttl_ms = if flags & 2 != 0 { Some(r.u64()?) } else { None };
    let key_bytes = usize::from(r.u16()?);
    let key = r.take(key_bytes).filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()))?;
    let (value, tombstone) = (r.rest(), flags & 1 != 0);
    if tombstone && !value.is_empty() {
        return None;
    }
    let entry = Entry { key: Arc::from(key), value: Arc::from(value), version, tombstone, ttl_ms };
    Some(Write::Entry { place, entry: Arc::new(entry) })
}
