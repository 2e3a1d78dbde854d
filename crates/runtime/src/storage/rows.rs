//! Rows as bytes, numbers little-endian. The body of a batch is rows, one behind the other.
//!
//! ```text
//! row          tag u8 | key length u16 | value length u32 | key | value
//! 1 own        no key -> generation u64 | id u64 | incarnation u64 | clock u64 | seen u64 | name
//! 2 heard      no key -> (id u64 | second u32)*
//! 3 member     name -> generation u64 | id u64 | incarnation u64 | liveness u8 | family u8 (4, 6) | ip | port u16
//! 4 entry      place u64 -> stamp u64 | writer u64 | flags u8 (1 tombstone, 2 ttl) | [ttl u64] | key length u16 | key | value
//! 5 no member  name ->       6 no entry  place u64 ->
//! ```

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use hearsay_proto::entry::{Entry, KEY_BYTES_MAX, Version};
use hearsay_proto::image::{Acquaintance, Own, Write};
use hearsay_proto::member::{Generation, Incarnation, Liveness, MemberId, NAME_BYTES_MAX};
use hearsay_proto::time::{Second, Stamp, Wall};

const OWN: u8 = 1;
const HEARD: u8 = 2;
const MEMBER: u8 = 3;
const ENTRY: u8 = 4;
const NO_MEMBER: u8 = 5;
const NO_ENTRY: u8 = 6;

/// Reads fields from the front.
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

/// A row in the body of a batch.
pub(super) struct Row<'a> {
    tag: u8,
    key: &'a [u8],
    value: &'a [u8],
    /// All of it.
    pub(super) bytes: &'a [u8],
}

impl<'a> Row<'a> {
    /// Takes a row from the front of a body.
    fn take(body: &mut &'a [u8]) -> Option<Row<'a>> {
        let mut r = Reader(body);
        let (tag, key_bytes, value_bytes) = (r.u8()?, r.u16()?, r.u32()?);
        let (key, value) = (r.take(key_bytes.into())?, r.take(value_bytes.try_into().ok()?)?);
        let bytes = &body[..body.len() - r.0.len()];
        *body = r.0;
        Some(Row { tag, key, value, bytes })
    }

    /// The row as it was written; `None` if it is none.
    pub(super) fn parse(&self) -> Option<Write> {
        match (self.tag, self.key) {
            (OWN, []) => own(self.value).map(Write::Own),
            (HEARD, []) => heard(self.value),
            (MEMBER, key) => member(key, self.value),
            (ENTRY, key) => entry(key, self.value),
            _ => None,
        }
    }
}

/// Does something with each row of a batch whose body begins at this place of the file. `None`: the rest is no row.
pub(super) fn each(at: u64, body: &[u8], mut act: impl FnMut(u64, &Row<'_>) -> Option<()>) -> Option<()> {
    let mut rest = body;
    while !rest.is_empty() {
        let at = at + (body.len() - rest.len()) as u64;
        act(at, &Row::take(&mut rest)?)?;
    }
    Some(())
}

/// Which rows of a file hold: the last of every key, where it was not removed. Each is known by its place.
#[derive(Default)]
pub(super) struct Index {
    own: Option<(u64, Write)>,
    heard: Option<(u64, Write)>,
    members: HashMap<Box<[u8]>, u64>,
    entries: HashMap<u64, u64, BuildHasherDefault<AsIs>>,
}

/// A place is a hash already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, place: u64) {
        self.0 = place;
    }
}

impl Index {
    /// Takes note of the next row; `None` if it is none.
    pub(super) fn note(&mut self, at: u64, row: &Row<'_>) -> Option<()> {
        match row.tag {
            OWN => self.own = Some((at, row.parse()?)),
            HEARD => self.heard = Some((at, row.parse()?)),
            MEMBER => drop(self.members.insert(row.key.into(), at)),
            NO_MEMBER => drop(self.members.remove(row.key)),
            ENTRY => drop(self.entries.insert(place(row.key)?, at)),
            NO_ENTRY => drop(self.entries.remove(&place(row.key)?)),
            _ => return None,
        }
        Some(())
    }

    /// The rows of which there is one each: the own one, then what was heard.
    pub(super) fn single(&self) -> Vec<Write> {
        [&self.own, &self.heard].into_iter().flatten().map(|(_, row)| row.clone()).collect()
    }

    /// Does this row hold?
    pub(super) fn has(&self, at: u64, row: &Row<'_>) -> bool {
        let held = match row.tag {
            OWN => self.own.as_ref().map(|(at, _)| at),
            HEARD => self.heard.as_ref().map(|(at, _)| at),
            MEMBER => self.members.get(row.key),
            ENTRY => place(row.key).and_then(|place| self.entries.get(&place)),
            _ => None,
        };
        held == Some(&at)
    }
}

fn place(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_le_bytes)
}

/// Adds a row to a body.
pub(super) fn put(write: &Write, out: &mut Vec<u8>) {
    match write {
        Write::Own(own) => put_row(OWN, &[], out, |out| put_own(own, out)),
        Write::Heard(table) => put_row(HEARD, &[], out, |out| put_heard(table, out)),
        Write::Member(member) => {
            put_row(MEMBER, member.name.as_bytes(), out, |out| put_member(member, out));
        }
        Write::NoMember(name) => put_row(NO_MEMBER, name.as_bytes(), out, |_| {}),
        Write::Entry { place, entry } => {
            put_row(ENTRY, &place.to_le_bytes(), out, |out| put_entry(entry, out));
        }
        Write::NoEntry { place } => put_row(NO_ENTRY, &place.to_le_bytes(), out, |_| {}),
    }
}

fn put_row(tag: u8, key: &[u8], out: &mut Vec<u8>, value: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    out.extend_from_slice(&(key.len() as u16).to_le_bytes());
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(key);
    let value_at = out.len();
    value(out);
    let length = (out.len() - value_at) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

fn words(out: &mut Vec<u8>, words: &[u64]) {
    words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
}

fn name(bytes: &[u8]) -> Option<Arc<str>> {
    let text = std::str::from_utf8(bytes).ok()?;
    (1..=NAME_BYTES_MAX).contains(&text.len()).then(|| Arc::from(text))
}

fn put_own(own: &Own, out: &mut Vec<u8>) {
    words(out, &[own.generation.0, own.id.0, own.incarnation.0, own.clock.0, own.seen.0]);
    out.extend_from_slice(own.name.as_bytes());
}

fn own(row: &[u8]) -> Option<Own> {
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

fn put_heard(table: &[(MemberId, Second)], out: &mut Vec<u8>) {
    for (id, second) in table {
        out.extend_from_slice(&id.0.to_le_bytes());
        out.extend_from_slice(&second.0.to_le_bytes());
    }
}

fn heard(row: &[u8]) -> Option<Write> {
    let mut r = Reader(row);
    let mut table = Vec::with_capacity(row.len() / 12);
    while r.end().is_none() {
        table.push((MemberId(r.u64()?), Second(r.u32()?)));
    }
    Some(Write::Heard(table))
}

fn put_member(member: &Acquaintance, out: &mut Vec<u8>) {
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

fn member(key: &[u8], row: &[u8]) -> Option<Write> {
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

fn put_entry(entry: &Entry, out: &mut Vec<u8>) {
    words(out, &[entry.version.stamp.0, entry.version.writer.0]);
    out.push(entry.flags());
    words(out, entry.ttl_ms.as_slice());
    out.extend_from_slice(&(entry.key.len() as u16).to_le_bytes());
    out.extend_from_slice(&entry.key);
    out.extend_from_slice(&entry.value);
}

fn entry(key: &[u8], row: &[u8]) -> Option<Write> {
    let place = place(key)?;
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
