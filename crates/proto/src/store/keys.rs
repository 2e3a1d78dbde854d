//! The order of users' live keys: chunks of places, sorted by the keys that the pages hold for them.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::pages::{Pages, Row};

const CHUNK_MAX: usize = 256;
/// Spare places a growing chunk takes at a time.
const STEP: usize = 16;

/// Live keys of users in order. Every place in it is held by the pages.
#[derive(Default)]
pub(super) struct Keys {
    /// By a key not above the chunk's first and above all before it; the first is empty.
    chunks: BTreeMap<Box<[u8]>, Vec<u64>>,
    len: usize,
}

fn key_of(pages: &Pages, place: u64) -> &[u8] {
    pages.get(place).map_or(&[], |row| row.key)
}

impl Keys {
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds a key that the pages hold at this place.
    pub fn insert(&mut self, key: &[u8], place: u64, pages: &Pages) {
        if self.chunks.is_empty() {
            self.chunks.insert(Box::default(), Vec::new());
        }
        let last = self.chunks.last_key_value().is_some_and(|(first, _)| **first <= *key);
        let Some((_, chunk)) =
            self.chunks.range_mut::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()
        else {
            return;
        };
        let at = chunk.partition_point(|&p| key_of(pages, p) < key);
        if chunk.get(at) == Some(&place) {
            return;
        }
        self.len += 1;
        if last && at == chunk.len() && at >= CHUNK_MAX {
            self.chunks.insert(key.into(), vec![place]);
            return;
        }
        if chunk.len() == chunk.capacity() {
            chunk.reserve_exact(STEP);
        }
        chunk.insert(at, place);
        if chunk.len() > CHUNK_MAX {
            let upper = chunk.split_off(CHUNK_MAX / 2);
            chunk.shrink_to(CHUNK_MAX / 2 + STEP);
            if let Some(&first) = upper.first() {
                self.chunks.insert(key_of(pages, first).into(), upper);
            }
        }
    }

    /// Takes a key out; the pages still hold it.
    pub fn remove(&mut self, key: &[u8], pages: &Pages) {
        let found = self.chunks.range_mut::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        let Some((first, chunk)) = found else { return };
        let at = chunk.partition_point(|&p| key_of(pages, p) < key);
        if chunk.get(at).is_some_and(|&p| key_of(pages, p) == key) {
            chunk.remove(at);
            self.len -= 1;
            if chunk.is_empty() && !first.is_empty() {
                let first = first.clone();
                self.chunks.remove(&first);
            }
        }
    }

    /// Rows whose key begins with `prefix` and lies above `after`, in order of key.
    pub fn scan<'a>(
        &'a self,
        pages: &'a Pages,
        prefix: &'a [u8],
        after: Option<&'a [u8]>,
    ) -> impl Iterator<Item = Row<'a>> {
        let from = after.map_or(prefix, |after| after.max(prefix));
        let chunk = self.chunks.range::<[u8], _>((Bound::Unbounded, Bound::Included(from))).next_back();
        let start: &[u8] = chunk.map_or(&[], |(first, _)| first);
        self.chunks
            .range::<[u8], _>((Bound::Included(start), Bound::Unbounded))
            .flat_map(move |(first, chunk)| {
                let at = if **first > *from {
                    0
                } else {
                    chunk.partition_point(|&p| {
                        let key = key_of(pages, p);
                        key < from || after == Some(key)
                    })
                };
                chunk.get(at..).unwrap_or(&[])
            })
            .filter_map(move |&place| pages.get(place))
            .take_while(move |row| row.key.starts_with(prefix))
    }

    pub fn heap_bytes(&self) -> usize {
        self.chunks.iter().map(|(first, chunk)| first.len() + chunk.capacity() * 8 + 56).sum()
    }
}
