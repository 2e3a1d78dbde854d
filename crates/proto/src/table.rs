//! Ordered tables and sets, small in code: of some seventy tables each with types of its own, a B-tree would be compiled for
//! each. Here the order is kept by code without types, keys by code that knows the key alone, rows in a plain vector.
//!
//! A lookup takes O(log n) comparisons. An insertion or removal moves at most 256 numbers of four bytes, and now and then one
//! pointer for each 256 rows; so up to about 10^6 rows it costs what it does in a B-tree. Iteration is in the order of keys.
//! A table holds at most 2^32 rows; what fills it has its own limit.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::mem;
use std::ops::{Bound, RangeBounds};
use std::slice;

/// Slots in one run at most.
const RUN_MAX: usize = 256;
/// Rows that an emptied table keeps room for, so that one that comes and goes costs no allocation.
const ROOM_KEPT: usize = 16;

/// A position in the order.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    run: usize,
    at: usize,
}

/// Numbers of slots in the order of the keys they hold, in runs; none is empty unless it is the only one.
#[derive(Clone, Default)]
struct Order {
    runs: Vec<Vec<u32>>,
}

impl Order {
    fn run(&self, run: usize) -> &[u32] {
        self.runs.get(run).map_or(&[], Vec::as_slice)
    }

    fn slot(&self, place: Place) -> u32 {
        self.runs[place.run][place.at]
    }

    fn set(&mut self, place: Place, slot: u32) {
        self.runs[place.run][place.at] = slot;
    }

    #[inline(never)]
    fn insert(&mut self, mut place: Place, slot: u32) {
        if self.runs.is_empty() {
            self.runs.push(Vec::new());
        }
        if self.runs[place.run].len() == RUN_MAX {
            // What comes in order leaves full runs behind.
            let cut = if place.at == RUN_MAX { RUN_MAX } else { RUN_MAX / 2 };
            let rest = self.runs[place.run].split_off(cut);
            self.runs.insert(place.run + 1, rest);
            if place.at > RUN_MAX / 2 {
                place = Place { run: place.run + 1, at: place.at - cut };
            }
        }
        self.runs[place.run].insert(place.at, slot);
    }

    #[inline(never)]
    fn remove(&mut self, place: Place) {
        let (before, after) = self.runs.split_at_mut(place.run + 1);
        let run = &mut before[place.run];
        run.remove(place.at);
        trim(run);
        if let Some(next) = after.first_mut()
            && run.len() + next.len() <= RUN_MAX / 2
        {
            run.append(next);
            self.runs.remove(place.run + 1);
        } else if run.is_empty() && self.runs.len() > 1 {
            self.runs.remove(place.run);
        }
        trim(&mut self.runs);
    }

    /// Slots from one place up to another.
    #[inline(never)]
    fn between(&self, from: Place, to: Place) -> Slots<'_> {
        let last = if from.run < to.run { &self.run(to.run)[..to.at] } else { &[] };
        let first = self.run(from.run);
        let first = if from.run == to.run { first.get(from.at..to.at) } else { first.get(from.at..) };
        let runs = self.runs.get(from.run + 1..to.run).unwrap_or_default();
        Slots { first: first.unwrap_or_default().iter(), runs: runs.iter(), last }
    }

    fn all(&self) -> Slots<'_> {
        Slots { first: [].iter(), runs: self.runs.iter(), last: &[] }
    }
}

/// Slots in order.
#[derive(Clone)]
struct Slots<'a> {
    first: slice::Iter<'a, u32>,
    runs: slice::Iter<'a, Vec<u32>>,
    last: &'a [u32],
}

impl Slots<'_> {
    /// The first slot of the next run.
    #[inline(never)]
    fn turn(&mut self) -> Option<usize> {
        self.first = match self.runs.next() {
            Some(run) => run.iter(),
            None => mem::take(&mut self.last).iter(),
        };
        self.first.next().map(|slot| *slot as usize)
    }
}

impl Iterator for Slots<'_> {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        match self.first.next() {
            Some(slot) => Some(*slot as usize),
            None => self.turn(),
        }
    }
}

/// A table that had many rows must not hold their memory for ever.
fn trim<T>(rows: &mut Vec<T>) {
    if rows.capacity() > ROOM_KEPT.max(4 * rows.len()) {
        rows.shrink_to(2 * rows.len());
    }
}

/// Keys by slot. The last key fills the slot of one that leaves, and the rows of a table move with it.
#[derive(Clone)]
struct Index<K> {
    keys: Vec<K>,
    order: Order,
}

impl<K: Ord> Index<K> {
    /// How the key in this slot compares to another.
    #[inline(always)]
    fn compare<Q: Ord + ?Sized>(&self, slot: u32, key: &Q) -> Ordering
    where
        K: Borrow<Q>,
    {
        self.keys[slot as usize].borrow().cmp(key)
    }

    /// The place of a key, else the place it would have.
    #[inline(never)]
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<Place, Place>
    where
        K: Borrow<Q>,
    {
        let runs = &self.order.runs;
        let (mut run, mut end) = (0, runs.len());
        while end - run > 1 {
            let middle = (run + end) / 2;
            match self.compare(runs[middle][0], key) {
                Ordering::Greater => end = middle,
                _ => run = middle,
            }
        }
        let slots = self.order.run(run);
        let (mut at, mut end) = (0, slots.len());
        while at < end {
            let middle = (at + end) / 2;
            match self.compare(slots[middle], key) {
                Ordering::Less => at = middle + 1,
                Ordering::Equal => return Ok(Place { run, at: middle }),
                Ordering::Greater => end = middle,
            }
        }
        Err(Place { run, at })
    }

    #[inline(never)]
    fn slot<Q: Ord + ?Sized>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        if self.keys.is_empty() {
            return None;
        }
        self.find(key).ok().map(|place| self.order.slot(place) as usize)
    }

    /// The slot of this key, a new one after all others if there was none.
    #[inline(never)]
    fn enter(&mut self, key: K) -> usize {
        match self.find(&key) {
            Ok(place) => self.order.slot(place) as usize,
            Err(place) => {
                let slot = self.keys.len();
                self.order.insert(place, slot as u32);
                self.keys.push(key);
                slot
            }
        }
    }

    #[inline(never)]
    fn take(&mut self, place: Place) -> (usize, K) {
        let slot = self.order.slot(place);
        if let Some(Ok(last)) = self.keys.last().map(|last| self.find(last)) {
            self.order.set(last, slot);
        }
        self.order.remove(place);
        let key = self.keys.swap_remove(slot as usize);
        trim(&mut self.keys);
        (slot as usize, key)
    }

    #[inline(never)]
    fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<(usize, K)>
    where
        K: Borrow<Q>,
    {
        if self.keys.is_empty() {
            return None;
        }
        self.find(key).ok().map(|place| self.take(place))
    }

    #[inline(never)]
    fn pop_first(&mut self) -> Option<(usize, K)> {
        (!self.keys.is_empty()).then(|| self.take(Place { run: 0, at: 0 }))
    }

    /// Removes the keys of these slots, and sorts them as the rows are to be taken: from the last on.
    #[inline(never)]
    fn remove_slots(&mut self, slots: &mut [usize]) {
        slots.sort_unstable_by(|a, b| b.cmp(a));
        for &slot in slots.iter() {
            if let Ok(place) = self.find(&self.keys[slot]) {
                self.take(place);
            }
        }
    }

    fn first(&self) -> Option<usize> {
        self.order.runs.first().and_then(|run| run.first()).map(|slot| *slot as usize)
    }

    #[inline(never)]
    fn range(&self, from: Bound<&K>, to: Bound<&K>) -> Slots<'_> {
        let either = |found: Result<Place, Place>| found.unwrap_or_else(|place| place);
        let after = |found: Result<Place, Place>| match found {
            Ok(place) => Place { at: place.at + 1, ..place },
            Err(place) => place,
        };
        let from = match from {
            Bound::Unbounded => Place { run: 0, at: 0 },
            Bound::Included(key) => either(self.find(key)),
            Bound::Excluded(key) => after(self.find(key)),
        };
        let to = match to {
            Bound::Unbounded => Place { run: self.order.runs.len(), at: 0 },
            Bound::Included(key) => after(self.find(key)),
            Bound::Excluded(key) => either(self.find(key)),
        };
        self.order.between(from, to)
    }
}

impl<K> Default for Index<K> {
    fn default() -> Index<K> {
        Index { keys: Vec::new(), order: Order::default() }
    }
}

/// A map in the order of its keys, as a `BTreeMap` is.
#[derive(Clone)]
pub struct Table<K, V> {
    index: Index<K>,
    rows: Vec<V>,
}

impl<K: Ord, V> Table<K, V> {
    /// Empty; allocates nothing.
    pub fn new() -> Table<K, V> {
        Table::default()
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// No rows?
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Forgets all rows, and gives their memory back.
    pub fn clear(&mut self) {
        *self = Table::default();
    }

    /// The row of this key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.index.slot(key).and_then(|slot| self.rows.get(slot))
    }

    /// The row of this key, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.index.slot(key).and_then(|slot| self.rows.get_mut(slot))
    }

    /// Is there a row of this key?
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.index.slot(key).is_some()
    }

    /// Puts a row under this key; returns the one it replaces.
    pub fn insert(&mut self, key: K, row: V) -> Option<V> {
        let slot = self.index.enter(key);
        match self.rows.get_mut(slot) {
            Some(old) => Some(mem::replace(old, row)),
            None => {
                self.rows.push(row);
                None
            }
        }
    }

    /// The row of this key, made by `new` if there was none.
    pub fn or_insert_with(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        let slot = self.index.enter(key);
        if slot == self.rows.len() {
            self.rows.push(new());
        }
        &mut self.rows[slot]
    }

    /// The row of this key, a default one if there was none.
    pub fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.or_insert_with(key, V::default)
    }

    /// Takes the row of this key out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.index.remove(key).map(|(slot, _)| self.take(slot))
    }

    fn take(&mut self, slot: usize) -> V {
        let row = self.rows.swap_remove(slot);
        trim(&mut self.rows);
        row
    }

    /// The first key and its row.
    pub fn first_key_value(&self) -> Option<(&K, &V)> {
        self.index.first().map(|slot| (&self.index.keys[slot], &self.rows[slot]))
    }

    /// The first key and its row, to be changed.
    pub fn first_mut(&mut self) -> Option<(&K, &mut V)> {
        self.index.first().map(|slot| (&self.index.keys[slot], &mut self.rows[slot]))
    }

    /// Takes the first row out.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        self.index.pop_first().map(|(slot, key)| (key, self.take(slot)))
    }

    /// Keys and rows in the order of keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter { slots: self.index.order.all(), keys: &self.index.keys, rows: &self.rows }
    }

    /// Keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        SetIter { slots: self.index.order.all(), keys: &self.index.keys }
    }

    /// Rows in the order of keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        SetIter { slots: self.index.order.all(), keys: &self.rows }
    }

    /// Rows in no particular order.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.rows.iter_mut()
    }

    /// Keys and rows of this range in the order of keys.
    pub fn range(&self, range: impl RangeBounds<K>) -> Iter<'_, K, V> {
        let slots = self.index.range(range.start_bound(), range.end_bound());
        Iter { slots, keys: &self.index.keys, rows: &self.rows }
    }

    /// Calls `each` with all rows in the order of keys.
    pub fn for_each_mut(&mut self, mut each: impl FnMut(&K, &mut V)) {
        for slot in self.index.order.all() {
            each(&self.index.keys[slot], &mut self.rows[slot]);
        }
    }

    /// Keeps the rows for which `keep` holds; it is asked in the order of keys.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        let mut gone = Vec::new();
        for slot in self.index.order.all() {
            if !keep(&self.index.keys[slot], &mut self.rows[slot]) {
                gone.push(slot);
            }
        }
        self.index.remove_slots(&mut gone);
        for slot in gone {
            self.take(slot);
        }
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Table<K, V> {
        Table { index: Index::default(), rows: Vec::new() }
    }
}

impl<K: Ord + fmt::Debug, V: fmt::Debug> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<K: Ord, V: PartialEq> PartialEq for Table<K, V> {
    fn eq(&self, other: &Table<K, V>) -> bool {
        self.len() == other.len() && self.iter().eq(other)
    }
}

impl<K: Ord, V: Eq> Eq for Table<K, V> {}

impl<K: Ord, V> Extend<(K, V)> for Table<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, rows: I) {
        for (key, row) in rows {
            self.insert(key, row);
        }
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Table<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(rows: I) -> Table<K, V> {
        let mut table = Table::default();
        table.extend(rows);
        table
    }
}

impl<'a, K: Ord, V> IntoIterator for &'a Table<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

impl<K: Ord, V> IntoIterator for Table<K, V> {
    type Item = (K, V);
    type IntoIter = IntoIter<K, V>;

    fn into_iter(self) -> IntoIter<K, V> {
        IntoIter(self)
    }
}

/// What was a [`Table`], in the order of keys.
pub struct IntoIter<K, V>(Table<K, V>);

impl<K: Ord, V> Iterator for IntoIter<K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        self.0.pop_first()
    }
}

/// Keys and rows of a [`Table`] in the order of keys.
#[derive(Clone)]
pub struct Iter<'a, K, V> {
    slots: Slots<'a>,
    keys: &'a [K],
    rows: &'a [V],
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<(&'a K, &'a V)> {
        let slot = self.slots.next()?;
        Some((self.keys.get(slot)?, self.rows.get(slot)?))
    }
}

/// An ordered set, as a `BTreeSet` is.
#[derive(Clone)]
pub struct Set<K>(Index<K>);

impl<K: Ord> Set<K> {
    /// Empty; allocates nothing.
    pub fn new() -> Set<K> {
        Set::default()
    }

    /// Members.
    pub fn len(&self) -> usize {
        self.0.keys.len()
    }

    /// No members?
    pub fn is_empty(&self) -> bool {
        self.0.keys.is_empty()
    }

    /// Forgets all members, and gives their memory back.
    pub fn clear(&mut self) {
        *self = Set::default();
    }

    /// Is this one a member?
    pub fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.slot(key).is_some()
    }

    /// The member that equals this.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&K>
    where
        K: Borrow<Q>,
    {
        self.0.slot(key).and_then(|slot| self.0.keys.get(slot))
    }

    /// Adds a member; false if it was one.
    pub fn insert(&mut self, key: K) -> bool {
        let before = self.len();
        self.0.enter(key) == before
    }

    /// Takes a member out; false if it was none.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.remove(key).is_some()
    }

    /// The first member.
    pub fn first(&self) -> Option<&K> {
        self.0.first().and_then(|slot| self.0.keys.get(slot))
    }

    /// Takes the first member out.
    pub fn pop_first(&mut self) -> Option<K> {
        self.0.pop_first().map(|(_, key)| key)
    }

    /// Takes all members of another set over.
    pub fn append(&mut self, other: &mut Set<K>) {
        self.extend(mem::take(&mut other.0).keys);
    }

    /// Members of this range in order.
    pub fn range(&self, range: impl RangeBounds<K>) -> SetIter<'_, K> {
        let slots = self.0.range(range.start_bound(), range.end_bound());
        SetIter { slots, keys: &self.0.keys }
    }

    /// Members in order.
    pub fn iter(&self) -> SetIter<'_, K> {
        SetIter { slots: self.0.order.all(), keys: &self.0.keys }
    }
}

impl<K> Default for Set<K> {
    fn default() -> Set<K> {
        Set(Index::default())
    }
}

impl<K: Ord + fmt::Debug> fmt::Debug for Set<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self).finish()
    }
}

impl<K: Ord> PartialEq for Set<K> {
    fn eq(&self, other: &Set<K>) -> bool {
        self.len() == other.len() && self.iter().eq(other)
    }
}

impl<K: Ord> Extend<K> for Set<K> {
    fn extend<I: IntoIterator<Item = K>>(&mut self, keys: I) {
        for key in keys {
            self.0.enter(key);
        }
    }
}

impl<K: Ord> FromIterator<K> for Set<K> {
    fn from_iter<I: IntoIterator<Item = K>>(keys: I) -> Set<K> {
        let mut set = Set::default();
        set.extend(keys);
        set
    }
}

impl<'a, K: Ord> IntoIterator for &'a Set<K> {
    type Item = &'a K;
    type IntoIter = SetIter<'a, K>;

    fn into_iter(self) -> SetIter<'a, K> {
        self.iter()
    }
}

/// Members of a [`Set`] in order.
#[derive(Clone)]
pub struct SetIter<'a, K> {
    slots: Slots<'a>,
    keys: &'a [K],
}

impl<'a, K> Iterator for SetIter<'a, K> {
    type Item = &'a K;

    fn next(&mut self) -> Option<&'a K> {
        self.slots.next().and_then(|slot| self.keys.get(slot))
    }
}

#[cfg(test)]
mod tests;
