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
    chunks: BTreeMap<Box<[u8]>, Chunk>,
    len: usize,
}

/// Neighbours in the order of keys. Four bytes from where they begin to differ lie here, so that a search seldom reads keys from
/// the pages, where each is a walk through cold memory.
#[derive(Default)]
struct Chunk {
    /// All its keys begin so.
    common: Box<[u8]>,
    /// Of each key the four bytes that follow, missing ones being 0.
    heads: Vec<u32>,
    places: Vec<u64>,
}

fn key_of(pages: &Pages, place: u64) -> &[u8] {
    pages.get(place).map_or(&[], |row| row.key)
}

fn shared_bytes(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn head(key: &[u8], common: usize) -> u32 {
    let byte = |at: usize| u32::from(key.get(common + at).copied().unwrap_or(0));
    byte(0) << 24 | byte(1) << 16 | byte(2) << 8 | byte(3)
}

impl Chunk {
    /// Where the keys lie that have this key's head, if it belongs among them.
    fn alike(&self, key: &[u8]) -> (usize, usize) {
        if !key.starts_with(&self.common) {
            let at = if *key < *self.common { 0 } else { self.places.len() };
            return (at, at);
        }
        let head = head(key, self.common.len());
        (self.heads.partition_point(|&h| h < head), self.heads.partition_point(|&h| h <= head))
    }

    /// How many of its keys lie below this one.
    fn below(&self, key: &[u8], pages: &Pages) -> usize {
        let (from, to) = self.alike(key);
        let alike = self.places.get(from..to).unwrap_or_default();
        from + alike.partition_point(|&place| key_of(pages, place) < key)
    }

    /// Puts a key before the one at `at`.
    fn insert(&mut self, at: usize, key: &[u8], place: u64) {
        let shared = if self.places.is_empty() { key.len() } else { shared_bytes(&self.common, key) };
        if self.places.is_empty() {
            self.common = key.into();
        } else if shared < self.common.len() {
            // The bytes that are common no longer become the heads' first.
            let lost = self.common.get(shared..).unwrap_or_default();
            let first = head(lost, 0);
            let kept = |h: u32| h.checked_shr(8 * lost.len() as u32).unwrap_or(0);
            self.heads.iter_mut().for_each(|h| *h = first | kept(*h));
            self.common = self.common.get(..shared).unwrap_or_default().into();
        }
        if self.places.len() == self.places.capacity() {
            self.places.reserve_exact(STEP);
            self.heads.reserve_exact(STEP);
        }
        self.heads.insert(at, head(key, self.common.len()));
        self.places.insert(at, place);
    }

    /// Gives its upper half away.
    fn split(&mut self, pages: &Pages) -> Chunk {
        let middle = CHUNK_MAX / 2;
        let mut upper = Chunk {
            common: self.common.clone(),
            heads: self.heads.split_off(middle),
            places: self.places.split_off(middle),
        };
        self.heads.shrink_to(middle + STEP);
        self.places.shrink_to(middle + STEP);
        self.narrow(pages);
        upper.narrow(pages);
        upper
    }

    /// Takes the heads from further on, if the keys have more in common by now.
    fn narrow(&mut self, pages: &Pages) {
        let (Some(&first), Some(&last)) = (self.places.first(), self.places.last()) else { return };
        let first = key_of(pages, first);
        let shared = shared_bytes(first, key_of(pages, last));
        if shared > self.common.len() {
            self.common = first.get(..shared).unwrap_or_default().into();
            let heads = self.places.iter().map(|&place| head(key_of(pages, place), shared));
            self.heads = heads.collect();
        }
    }
}

impl Keys {
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds a key that the pages hold at this place.
    pub fn insert(&mut self, key: &[u8], place: u64, pages: &Pages) {
        if self.chunks.is_empty() {
            self.chunks.insert(Box::default(), Chunk::default());
        }
        let last = self.chunks.last_key_value().is_some_and(|(first, _)| **first <= *key);
        let Some((_, chunk)) =
            self.chunks.range_mut::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()
        else {
            return;
        };
        let at = chunk.below(key, pages);
        if chunk.places.get(at) == Some(&place) {
            return;
        }
        self.len += 1;
        if last && at == chunk.places.len() && at >= CHUNK_MAX {
            let mut next = Chunk::default();
            next.insert(0, key, place);
            self.chunks.insert(key.into(), next);
            return;
        }
        chunk.insert(at, key, place);
        if chunk.places.len() > CHUNK_MAX {
            let upper = chunk.split(pages);
            if let Some(&first) = upper.places.first() {
                self.chunks.insert(key_of(pages, first).into(), upper);
            }
        }
    }

    /// Takes out a key that the pages hold at this place.
    pub fn remove(&mut self, key: &[u8], place: u64) {
        let found = self.chunks.range_mut::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        let Some((first, chunk)) = found else { return };
        let (from, to) = chunk.alike(key);
        let Some(at) = chunk.places.get(from..to).and_then(|alike| alike.iter().position(|&p| p == place))
        else {
            return;
        };
        chunk.places.remove(from + at);
        chunk.heads.remove(from + at);
        self.len -= 1;
        if chunk.places.is_empty() && !first.is_empty() {
            let first = first.clone();
            self.chunks.remove(&first);
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
                let at = if **first > *from { 0 } else { chunk.below(from, pages) };
                chunk.places.get(at..).unwrap_or_default()
            })
            .filter_map(move |&place| pages.get(place))
            .skip_while(move |row| after == Some(row.key))
            .take_while(move |row| row.key.starts_with(prefix))
    }

    pub fn heap_bytes(&self) -> usize {
        let mut bytes = 0;
        for (first, chunk) in &self.chunks {
            bytes += first.len() + chunk.common.len() + size_of::<Box<[u8]>>() + size_of::<Chunk>() + 16;
            bytes += chunk.places.capacity() * 8 + chunk.heads.capacity() * 4;
        }
        bytes
    }
}
