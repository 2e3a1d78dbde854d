//! The entries, packed in pages in order of place: few allocations, and a range of buckets lies together.
//!
//! ```text
//! row: place u64 | tag u32 | stamp u64 | writer u64 | meta u16 | value length u16 | [ttl u64] | key | value
//! meta = key length (10 bits) | tombstone | ttl follows | value kept apart
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use super::is_reserved;
use super::journal::Journal;
use crate::entry::{Entry, Version};
use crate::member::MemberId;
use crate::record::{RecordHasher, RumorId};
use crate::time::Stamp;

/// A page is split beyond this.
const PAGE_BYTES: usize = 4 * 1024;
/// A page below this joins its neighbour if both fit well.
const PAGE_BYTES_MIN: usize = 512;
/// Spare room a growing page takes at a time.
const STEP_BYTES: usize = 256;
/// Values from this length on are kept apart, shared with whoever reads them.
const LARGE_BYTES: usize = 1024;
const HEAD_BYTES: usize = 32;
const KEY_MASK: u16 = 0x3ff;
const TOMBSTONE: u16 = 0x400;
const TTL: u16 = 0x800;
const LARGE: u16 = 0x1000;

/// One entry as it lies in its page.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub place: u64,
    /// Version tag, as in its rumor id.
    pub tag: u32,
    pub version: Version,
    pub tombstone: bool,
    pub ttl_ms: Option<u64>,
    pub key: &'a [u8],
    value: &'a [u8],
    apart: Option<&'a Arc<[u8]>>,
}

impl Row<'_> {
    pub fn rumor(&self) -> RumorId {
        RumorId { bucket: RecordHasher::bucket(self.place), tag: self.tag }
    }

    pub fn bytes(&self) -> usize {
        self.key.len() + self.apart.map_or(self.value.len(), |v| v.len())
    }

    pub fn entry(&self) -> Arc<Entry> {
        Arc::new(Entry {
            key: Arc::from(self.key),
            value: self.apart.cloned().unwrap_or_else(|| Arc::from(self.value)),
            version: self.version,
            tombstone: self.tombstone,
            ttl_ms: self.ttl_ms,
        })
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

/// Place and length of the row that begins here.
fn head(bytes: &[u8]) -> Option<(u64, usize)> {
    let meta = u16_at(bytes, 28)?;
    let ttl = if meta & TTL != 0 { 8 } else { 0 };
    let len = HEAD_BYTES + ttl + usize::from(meta & KEY_MASK) + usize::from(u16_at(bytes, 30)?);
    Some((u64_at(bytes, 0)?, len))
}

/// Where a place's row is, or where it belongs: offset and length (0: not there).
fn seek(page: &[u8], place: u64) -> (usize, usize) {
    let mut at = 0;
    while let Some((here, len)) = page.get(at..).and_then(head) {
        if here >= place {
            return (at, if here == place { len } else { 0 });
        }
        at += len;
    }
    (at, 0)
}

/// All entries by place. A place stands for its key: two keys of one place cannot both be held.
#[derive(Default)]
pub(super) struct Pages {
    /// By the smallest place that belongs there; the first is 0.
    pages: BTreeMap<u64, Vec<u8>>,
    apart: BTreeMap<u64, Arc<[u8]>>,
    rows: usize,
    /// Rows of users that changed, if somebody saves them.
    pub journal: Option<Journal>,
}

impl Pages {
    pub fn rows(&self) -> usize {
        self.rows
    }

    fn parse<'a>(&'a self, bytes: &'a [u8]) -> Option<(Row<'a>, usize)> {
        let (place, len) = head(bytes)?;
        let bytes = bytes.get(..len)?;
        let meta = u16_at(bytes, 28)?;
        let tag = u32::from_le_bytes(*bytes.get(8..12)?.first_chunk()?);
        let (ttl_ms, at) =
            if meta & TTL != 0 { (u64_at(bytes, HEAD_BYTES), HEAD_BYTES + 8) } else { (None, HEAD_BYTES) };
        let (key, value) = bytes.get(at..)?.split_at_checked(usize::from(meta & KEY_MASK))?;
        let row = Row {
            place,
            tag,
            version: Version { stamp: Stamp(u64_at(bytes, 12)?), writer: MemberId(u64_at(bytes, 20)?) },
            tombstone: meta & TOMBSTONE != 0,
            ttl_ms,
            key,
            value,
            apart: if meta & LARGE != 0 { self.apart.get(&place) } else { None },
        };
        Some((row, len))
    }

    pub fn get(&self, place: u64) -> Option<Row<'_>> {
        let (_, page) = self.pages.range(..=place).next_back()?;
        let (at, len) = seek(page, place);
        if len == 0 {
            return None;
        }
        page.get(at..).and_then(|bytes| self.parse(bytes)).map(|(row, _)| row)
    }

    /// Rows from the first place to the last, inclusive, in order of place.
    pub fn range(&self, first: u64, last: u64) -> impl Iterator<Item = Row<'_>> {
        let from = self.pages.range(..=first).next_back().map_or(0, |(&place, _)| place);
        self.pages
            .range(from..)
            .take_while(move |(place, _)| **place <= last)
            .flat_map(move |(_, page)| {
                let mut at = seek(page, first).0;
                std::iter::from_fn(move || {
                    let (row, len) = page.get(at..).and_then(|bytes| self.parse(bytes))?;
                    at += len;
                    Some(row)
                })
            })
            .take_while(move |row| row.place <= last)
    }

    /// Puts an entry in its place, instead of what is there.
    pub fn put(&mut self, place: u64, tag: u32, entry: &Entry) {
        if let Some(journal) = self.journal.as_mut().filter(|_| !entry.is_reserved()) {
            journal.note(place, false);
        }
        let large = entry.value.len() >= LARGE_BYTES;
        let value: &[u8] = if large { &[] } else { &entry.value };
        let mut row = Vec::with_capacity(HEAD_BYTES + 8 + entry.key.len() + value.len());
        row.extend_from_slice(&place.to_le_bytes());
        row.extend_from_slice(&tag.to_le_bytes());
        row.extend_from_slice(&entry.version.stamp.0.to_le_bytes());
        row.extend_from_slice(&entry.version.writer.0.to_le_bytes());
        let flag = |on: bool, bit: u16| if on { bit } else { 0 };
        let meta = (entry.key.len() as u16 & KEY_MASK)
            | flag(entry.tombstone, TOMBSTONE)
            | flag(entry.ttl_ms.is_some(), TTL)
            | flag(large, LARGE);
        row.extend_from_slice(&meta.to_le_bytes());
        row.extend_from_slice(&(value.len() as u16).to_le_bytes());
        if let Some(ttl) = entry.ttl_ms {
            row.extend_from_slice(&ttl.to_le_bytes());
        }
        row.extend_from_slice(&entry.key);
        row.extend_from_slice(value);
        if large {
            self.apart.insert(place, entry.value.clone());
        } else {
            self.apart.remove(&place);
        }
        self.replace(place, &row);
    }

    /// Takes the entry of a place out.
    pub fn remove(&mut self, place: u64) {
        if self.journal.is_some()
            && self.get(place).is_some_and(|row| !is_reserved(row.key))
            && let Some(journal) = &mut self.journal
        {
            journal.note(place, true);
        }
        self.apart.remove(&place);
        self.replace(place, &[]);
        self.join(place);
    }

    fn replace(&mut self, place: u64, row: &[u8]) {
        if self.pages.is_empty() {
            self.pages.insert(0, Vec::new());
        }
        let Some((_, page)) = self.pages.range_mut(..=place).next_back() else { return };
        let (at, old) = seek(page, place);
        self.rows = self.rows + usize::from(!row.is_empty()) - usize::from(old > 0);
        let (end, more) = (page.len(), row.len().saturating_sub(old));
        if page.capacity() - end < more {
            page.reserve_exact(more + STEP_BYTES);
        }
        page.resize(end + more, 0);
        page.copy_within(at + old..end, at + row.len());
        page.truncate(end + row.len() - old);
        if let Some(slot) = page.get_mut(at..at + row.len()) {
            slot.copy_from_slice(row);
        }
        if page.len() <= PAGE_BYTES {
            return;
        }
        let mut middle = 0;
        while let Some((_, len)) = page.get(middle..).and_then(head) {
            if middle > 0 && middle + len > page.len() / 2 {
                break;
            }
            middle += len;
        }
        if let Some((first, _)) = page.get(middle..).and_then(head) {
            let upper = page.split_off(middle);
            page.shrink_to(middle + STEP_BYTES);
            self.pages.insert(first, upper);
        }
    }

    /// Appends a page that has become small to the one before it.
    fn join(&mut self, place: u64) {
        let Some((&first, page)) = self.pages.range(..=place).next_back() else { return };
        let len = page.len();
        if first == 0 || len > PAGE_BYTES_MIN {
            return;
        }
        let fits = |before: &Vec<u8>| before.len() + len <= PAGE_BYTES * 3 / 4;
        if !self.pages.range(..first).next_back().is_some_and(|(_, before)| fits(before)) {
            return;
        }
        let page = self.pages.remove(&first).unwrap_or_default();
        if let Some((_, before)) = self.pages.range_mut(..first).next_back() {
            before.reserve_exact(page.len());
            before.extend_from_slice(&page);
        }
    }

    pub fn heap_bytes(&self) -> usize {
        let pages: usize = self.pages.values().map(|p| p.capacity() + 48).sum();
        let apart: usize = self.apart.values().map(|v| v.len() + 16 + 40).sum();
        pages + apart
    }
}
