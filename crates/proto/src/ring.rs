//! A consistent-hash ring over names with weights and zones. Knows names, not members.
//!
//! Each name has `virtual_nodes x weight` points on a circle of 2^64 (Karger et al., STOC 1997); a key belongs to the name
//! of the first point at or after the key's hash. So a name that joins takes keys, one that leaves gives keys, and none
//! moves between others. With V points a name the shares deviate by 1/sqrt(V) of their mean. Points are BLAKE3, keys
//! MurmurHash3 ([`key_hash`]), which is quick wherever it runs: the same on every machine and in every version.

use core::fmt;

use crate::table::Table;

#[cfg(test)]
mod tests;

/// The most points a ring holds: 16.7 million.
pub const POINTS_MAX: usize = 1 << 24;

/// Options of a [`HashRing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// Points of a name of weight 1. Default 100; 1..=65,536.
    pub virtual_nodes: u32,
    /// Whether [`HashRing::owners`] spreads over zones. Default false.
    pub zone_aware: bool,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self { virtual_nodes: 100, zone_aware: false }
    }
}

/// One name on the ring.
#[derive(Clone, Debug, PartialEq)]
pub struct RingMember {
    /// The name; not empty.
    pub name: String,
    /// Its share relative to others. Above 0; the points are `virtual_nodes x weight`, rounded, at least 1.
    pub weight: f64,
    /// What fails together with it. All without a zone count as one.
    pub zone: Option<String>,
}

impl RingMember {
    /// A name of weight 1 without a zone.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), weight: 1.0, zone: None }
    }
}

/// What a [`HashRing`] refuses. The caller must act; the ring is unchanged.
#[derive(Clone, Debug, PartialEq)]
pub enum RingError {
    /// `virtual_nodes` is not in 1..=65,536.
    VirtualNodes(u32),
    /// A name is empty.
    EmptyName,
    /// A weight is not a finite number above 0.
    Weight {
        /// Whose weight.
        name: String,
        /// What it was.
        weight: f64,
    },
    /// The ring would hold more than [`POINTS_MAX`] points.
    TooManyPoints,
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VirtualNodes(count) => write!(f, "virtual_nodes is {count}; it must be 1 to 65536"),
            Self::EmptyName => f.write_str("the name is empty"),
            Self::Weight { name, weight } => {
                write!(f, "the weight of {name} is {weight}; it must be a finite number above 0")
            }
            Self::TooManyPoints => write!(f, "the ring would hold more than {POINTS_MAX} points"),
        }
    }
}

impl core::error::Error for RingError {}

/// A place for a name; its number stands for it in the points.
#[derive(Clone, Debug)]
struct Slot {
    member: RingMember,
    points: usize,
    zone: u32,
}

/// Names of one zone.
#[derive(Clone, Debug)]
struct Zone {
    name: Option<String>,
    members: usize,
}

/// The ring. A lookup is one hash and about two steps whatever its size; adding or removing a name is one pass over the points.
/// Equal contents give equal owners and versions whatever the order of changes.
#[derive(Clone, Debug)]
pub struct HashRing {
    options: RingOptions,
    slots: Vec<Option<Slot>>,
    /// Slot numbers in order of name.
    by_name: Vec<u32>,
    zones: Vec<Zone>,
    /// In order; equal points in order of name.
    points: Vec<u64>,
    /// The slot of each point.
    owners: Vec<u32>,
    /// For each value of the top `bits` bits the first point at or above it: about one entry per point.
    starts: Vec<u32>,
    bits: u32,
    /// Sum of the hashes of the members, which no order changes.
    contents: u128,
}

impl HashRing {
    /// An empty ring. Errors: [`RingError::VirtualNodes`].
    pub fn new(options: RingOptions) -> Result<Self, RingError> {
        if options.virtual_nodes == 0 || options.virtual_nodes > 65_536 {
            return Err(RingError::VirtualNodes(options.virtual_nodes));
        }
        Ok(Self {
            options,
            slots: Vec::new(),
            by_name: Vec::new(),
            zones: Vec::new(),
            points: Vec::new(),
            owners: Vec::new(),
            starts: Vec::new(),
            bits: 0,
            contents: 0,
        })
    }

    /// Adds a name, or gives it a new weight or zone; false if it is there just so. A change of weight keeps all points that
    /// both weights have, so it moves no more keys than it must. Errors: all but [`RingError::VirtualNodes`].
    pub fn add(&mut self, member: RingMember) -> Result<bool, RingError> {
        self.extend([member])
    }

    /// Adds many names as [`Self::add`] does, in one pass over the points; false if nothing changed. On an error none is added.
    pub fn extend(&mut self, members: impl IntoIterator<Item = RingMember>) -> Result<bool, RingError> {
        self.change(members, [])
    }

    /// Adds as [`Self::extend`] does and removes names, in one pass over the points; false if nothing changed. A name in both
    /// stays. On an error nothing changes.
    pub fn change<'a>(
        &mut self,
        members: impl IntoIterator<Item = RingMember>,
        removed: impl IntoIterator<Item = &'a str>,
    ) -> Result<bool, RingError> {
        // Of a name given twice the last holds.
        let mut changed = Table::new();
        for member in members {
            let count = self.check(&member)?;
            changed.insert(member.name.clone(), (member, count));
        }
        let mut removed: Vec<&str> = removed.into_iter().collect();
        removed.sort_unstable();
        removed.dedup();
        removed.retain(|name| self.get(name).is_some() && !changed.contains_key(*name));
        changed.retain(|name, (member, _)| self.get(name) != Some(member));
        if changed.is_empty() && removed.is_empty() {
            return Ok(false);
        }
        // What a replaced name frees is not reckoned with: the limit is far above use.
        let added = changed.values().fold(0usize, |sum, (_, count)| sum.saturating_add(*count));
        if self.points.len().saturating_add(added) > POINTS_MAX {
            return Err(RingError::TooManyPoints);
        }
        let gone: Vec<u32> = changed
            .keys()
            .map(String::as_str)
            .chain(removed)
            .filter_map(|name| self.take_slot(name))
            .collect();
        self.drop_points(&gone);
        let mut fresh = Vec::new();
        for (_, (member, _)) in changed {
            let slot = self.put_slot(member);
            if let Some(Some(held)) = self.slots.get(slot as usize) {
                fresh
                    .extend(points_of(&held.member.name, held.points).into_iter().map(|point| (point, slot)));
            }
        }
        self.merge_points(fresh);
        self.index();
        Ok(true)
    }

    /// Removes a name; false if it is not there.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(slot) = self.take_slot(name) else { return false };
        self.drop_points(&[slot]);
        self.index();
        true
    }

    /// The name a key belongs to; `None` if the ring is empty.
    #[must_use]
    pub fn owner(&self, key: &[u8]) -> Option<&str> {
        self.owner_of_hash(key_hash(key))
    }

    /// As [`Self::owner`], for a key whose [`key_hash`] is known.
    #[must_use]
    pub fn owner_of_hash(&self, hash: u64) -> Option<&str> {
        let slot = *self.owners.get(self.first_at(hash))?;
        self.slots.get(slot as usize)?.as_ref().map(|slot| slot.member.name.as_str())
    }

    /// The first `n` distinct names from the key's hash on, the owner first; all of them if there are fewer.
    ///
    /// Zone-aware, no zone is used twice while another is unused, nor a third time while another was used once, and so on:
    /// first one name of each zone in ring order, then a second of each, until there are `n`.
    #[must_use]
    pub fn owners(&self, key: &[u8], n: usize) -> Vec<&str> {
        let slots = if self.options.zone_aware && self.zones.len() > 1 {
            self.spread(key_hash(key), n)
        } else {
            self.distinct(key_hash(key)).take(n.min(self.by_name.len())).collect()
        };
        slots.into_iter().filter_map(|slot| self.slot(slot)).map(|slot| slot.member.name.as_str()).collect()
    }

    /// A hash of the contents and the options: equal rings have equal versions on every machine, whatever the order of their
    /// changes; different ones differ (but for one in 2^64).
    #[must_use]
    pub fn version(&self) -> u64 {
        let mut block = [0u8; 29];
        block[..16].copy_from_slice(&self.contents.to_le_bytes());
        block[16..24].copy_from_slice(&(self.by_name.len() as u64).to_le_bytes());
        block[24..28].copy_from_slice(&self.options.virtual_nodes.to_le_bytes());
        block[28] = u8::from(self.options.zone_aware);
        first_u64(blake3::hash(&block).as_bytes())
    }

    /// The number of names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The options it was made with.
    #[must_use]
    pub fn options(&self) -> RingOptions {
        self.options
    }

    /// The member of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&RingMember> {
        let place = self.place(name).ok()?;
        self.slot(*self.by_name.get(place)?).map(|slot| &slot.member)
    }

    /// All members in order of name.
    pub fn members(&self) -> impl Iterator<Item = &RingMember> {
        self.by_name.iter().filter_map(|slot| self.slot(*slot)).map(|slot| &slot.member)
    }

    /// The exact part of all keys that belongs to a name, 0 to 1; 0 for a name that is not there.
    #[must_use]
    pub fn share(&self, name: &str) -> f64 {
        let Some(slot) = self.place(name).ok().and_then(|place| self.by_name.get(place)) else { return 0.0 };
        let Some(mut before) = self.points.last().copied() else { return 0.0 };
        if self.points.len() == 1 {
            return 1.0;
        }
        let mut arcs = 0u128;
        for (point, owner) in self.points.iter().zip(&self.owners) {
            if owner == slot {
                arcs += u128::from(point.wrapping_sub(before));
            }
            before = *point;
        }
        arcs as f64 / 2f64.powi(64)
    }

    /// The points in order, for lookups elsewhere; equal points in order of name.
    #[must_use]
    pub fn points(&self) -> &[u64] {
        &self.points
    }

    /// For each of [`Self::points`] the place of its name in [`Self::names`].
    #[must_use]
    pub fn point_owners(&self) -> &[u32] {
        &self.owners
    }

    /// For each value of the top bits of a hash the first point at or above it; a power of two of entries, the number of
    /// points where there is none. Empty without points.
    #[must_use]
    pub fn starts(&self) -> &[u32] {
        &self.starts
    }

    /// Names by the numbers of [`Self::point_owners`]; `None` where a number is free.
    pub fn names(&self) -> impl Iterator<Item = Option<&str>> {
        self.slots.iter().map(|slot| slot.as_ref().map(|slot| slot.member.name.as_str()))
    }

    fn check(&self, member: &RingMember) -> Result<usize, RingError> {
        if member.name.is_empty() {
            return Err(RingError::EmptyName);
        }
        if !(member.weight.is_finite() && member.weight > 0.0) {
            return Err(RingError::Weight { name: member.name.clone(), weight: member.weight });
        }
        let count = self.point_count(member.weight);
        if count > POINTS_MAX { Err(RingError::TooManyPoints) } else { Ok(count) }
    }

    fn point_count(&self, weight: f64) -> usize {
        // The cast saturates.
        ((f64::from(self.options.virtual_nodes) * weight).round() as usize).max(1)
    }

    fn slot(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.by_name.binary_search_by(|slot| self.slot(*slot).map_or("", |slot| &slot.member.name).cmp(name))
    }

    fn put_slot(&mut self, member: RingMember) -> u32 {
        self.contents = self.contents.wrapping_add(contents_of(&member));
        let zone = match self.zones.iter().position(|zone| zone.members > 0 && zone.name == member.zone) {
            Some(zone) => zone,
            None => match self.zones.iter().position(|zone| zone.members == 0) {
                Some(zone) => zone,
                None => {
                    self.zones.push(Zone { name: None, members: 0 });
                    self.zones.len() - 1
                }
            },
        };
        if let Some(held) = self.zones.get_mut(zone) {
            held.name.clone_from(&member.zone);
            held.members += 1;
        }
        let points = self.point_count(member.weight);
        let name = member.name.clone();
        let held = Some(Slot { member, points, zone: zone as u32 });
        let slot = match self.slots.iter().position(Option::is_none) {
            Some(free) => {
                if let Some(place) = self.slots.get_mut(free) {
                    *place = held;
                }
                free
            }
            None => {
                self.slots.push(held);
                self.slots.len() - 1
            }
        };
        let place = self.place(&name).unwrap_or_else(|place| place);
        self.by_name.insert(place, slot as u32);
        slot as u32
    }

    fn take_slot(&mut self, name: &str) -> Option<u32> {
        let slot = self.by_name.remove(self.place(name).ok()?);
        let held = self.slots.get_mut(slot as usize)?.take()?;
        self.contents = self.contents.wrapping_sub(contents_of(&held.member));
        if let Some(zone) = self.zones.get_mut(held.zone as usize) {
            zone.members = zone.members.saturating_sub(1);
        }
        Some(slot)
    }

    fn drop_points(&mut self, slots: &[u32]) {
        if slots.is_empty() {
            return;
        }
        let mut gone = vec![false; self.slots.len()];
        for slot in slots {
            if let Some(flag) = gone.get_mut(*slot as usize) {
                *flag = true;
            }
        }
        let stays = |slot: u32| !gone.get(slot as usize).copied().unwrap_or(false);
        let mut owners = self.owners.iter();
        self.points.retain(|_| owners.next().copied().is_some_and(stays));
        self.owners.retain(|slot| stays(*slot));
    }

    /// Merges new points into those held, both in order of (point, name).
    fn merge_points(&mut self, mut fresh: Vec<(u64, u32)>) {
        let name = |slot: u32| self.slot(slot).map_or("", |slot| slot.member.name.as_str());
        fresh.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| name(a.1).cmp(name(b.1))));
        let mut points = Vec::with_capacity(self.points.len() + fresh.len());
        let mut owners = Vec::with_capacity(points.capacity());
        let mut fresh = fresh.into_iter().peekable();
        for (point, owner) in self.points.iter().zip(&self.owners) {
            while let Some(new) =
                fresh.next_if(|new| new.0 < *point || (new.0 == *point && name(new.1) < name(*owner)))
            {
                points.push(new.0);
                owners.push(new.1);
            }
            points.push(*point);
            owners.push(*owner);
        }
        for new in fresh {
            points.push(new.0);
            owners.push(new.1);
        }
        self.points = points;
        self.owners = owners;
    }

    /// Rebuilds the table of first points.
    fn index(&mut self) {
        self.starts.clear();
        if self.points.is_empty() {
            return;
        }
        self.bits = self.points.len().next_power_of_two().trailing_zeros().max(1);
        let shift = 64 - self.bits;
        self.starts.resize(1 << self.bits, 0);
        let mut next = 0;
        for (place, point) in self.points.iter().enumerate() {
            let slice = (point >> shift) as usize;
            if let Some(starts) = self.starts.get_mut(next..=slice) {
                starts.fill(place as u32);
                next = slice + 1;
            }
        }
        if let Some(rest) = self.starts.get_mut(next..) {
            rest.fill(self.points.len() as u32);
        }
    }

    /// Where the first point at or after `hash` is; at the end the circle closes.
    fn first_at(&self, hash: u64) -> usize {
        let start =
            self.starts.get((hash >> (64 - self.bits.max(1))) as usize).map_or(0, |start| *start as usize);
        let rest = self.points.get(start..).unwrap_or(&[]);
        let place = start + rest.iter().take_while(|point| **point < hash).count();
        if place < self.points.len() { place } else { 0 }
    }

    /// Slots in ring order from `hash`, each once.
    fn distinct(&self, hash: u64) -> impl Iterator<Item = u32> {
        let (before, after) = self.owners.split_at_checked(self.first_at(hash)).unwrap_or((&[], &[]));
        let mut seen = vec![false; self.slots.len()];
        after.iter().chain(before).copied().filter(move |slot| {
            seen.get_mut(*slot as usize).is_some_and(|flag| !core::mem::replace(flag, true))
        })
    }

    /// The first `n` slots when each zone is to be used as seldom as can be.
    fn spread(&self, hash: u64, n: usize) -> Vec<u32> {
        let n = n.min(self.by_name.len());
        // The least cap per zone that lets n through, and how many pass below it in every case.
        let capped = |cap: usize| self.zones.iter().map(|zone| zone.members.min(cap)).sum::<usize>();
        let Some(cap) = (1..=n).find(|cap| capped(*cap) >= n) else { return Vec::new() };
        let below = capped(cap - 1);
        let mut used = vec![0usize; self.zones.len()];
        // (round, place): a zone's first in round 1, its second in round 2, ...
        let mut picked: Vec<(usize, u32)> = Vec::with_capacity(n);
        let (mut in_full_rounds, mut in_last_round) = (0, 0);
        for slot in self.distinct(hash) {
            if in_full_rounds == below && in_last_round == n - below {
                break;
            }
            let zone = self.slot(slot).map_or(0, |slot| slot.zone as usize);
            let Some(round) = used.get_mut(zone) else { continue };
            *round += 1;
            if *round < cap {
                in_full_rounds += 1;
                picked.push((*round, slot));
            } else if *round == cap && in_last_round < n - below {
                in_last_round += 1;
                picked.push((*round, slot));
            }
        }
        // Stable: within a round the ring's order stays.
        picked.sort_by_key(|(round, _)| *round);
        picked.into_iter().map(|(_, slot)| slot).collect()
    }
}

/// The place of a key on the circle: the first 64 bits of its `MurmurHash3_x86_128` with seed 0 (Appleby 2011), the first word
/// high. Made of 32-bit words, so that JavaScript computes it as quickly.
#[must_use]
pub fn key_hash(key: &[u8]) -> u64 {
    let mut hash = [0u32; 4];
    let (blocks, tail) = key.as_chunks::<16>();
    for block in blocks {
        let [a, b, c, d] = murmur_words(block);
        let [mut h1, mut h2, mut h3, mut h4] = hash;
        h1 = (h1 ^ a).rotate_left(19).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x561c_cd1b);
        h2 = (h2 ^ b).rotate_left(17).wrapping_add(h3).wrapping_mul(5).wrapping_add(0x0bca_a747);
        h3 = (h3 ^ c).rotate_left(15).wrapping_add(h4).wrapping_mul(5).wrapping_add(0x96cd_1c35);
        h4 = (h4 ^ d).rotate_left(13).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x32ac_3b17);
        hash = [h1, h2, h3, h4];
    }
    // A word of zeros mixes to zero, so padding changes nothing.
    let mut block = [0u8; 16];
    for (to, from) in block.iter_mut().zip(tail) {
        *to = *from;
    }
    let [a, b, c, d] = murmur_words(&block);
    let length = key.len() as u32;
    let [h1, h2, h3, h4] = hash;
    let (h2, h3, h4) = (h2 ^ b ^ length, h3 ^ c ^ length, h4 ^ d ^ length);
    let h1 = (h1 ^ a ^ length).wrapping_add(h2).wrapping_add(h3).wrapping_add(h4);
    let [f1, f2, f3, f4] =
        [h1, h2.wrapping_add(h1), h3.wrapping_add(h1), h4.wrapping_add(h1)].map(murmur_last);
    let high = f1.wrapping_add(f2).wrapping_add(f3).wrapping_add(f4);
    u64::from(high) << 32 | u64::from(f2.wrapping_add(high))
}

fn murmur_words(block: &[u8; 16]) -> [u32; 4] {
    let block = u128::from_le_bytes(*block);
    let mix = |shift: u32, before: u32, turn: u32, after: u32| {
        ((block >> shift) as u32).wrapping_mul(before).rotate_left(turn).wrapping_mul(after)
    };
    let (c1, c2, c3, c4) = (0x239b_961b, 0xab0e_9789, 0x38b3_4ae5, 0xa1e3_8b93);
    [mix(0, c1, 15, c2), mix(32, c2, 16, c3), mix(64, c3, 17, c4), mix(96, c4, 18, c1)]
}

fn murmur_last(mut hash: u32) -> u32 {
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

/// The first `count` points of a name: the output stream of one hash, so a lighter weight has a prefix of a heavier one's.
fn points_of(name: &str, count: usize) -> Vec<u64> {
    let mut stream =
        blake3::Hasher::new_derive_key("hearsay 2026 ring point v1").update(name.as_bytes()).finalize_xof();
    let mut bytes = vec![0u8; count * 8];
    stream.fill(&mut bytes);
    bytes.as_chunks().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect()
}

fn contents_of(member: &RingMember) -> u128 {
    let mut hasher = blake3::Hasher::new_derive_key("hearsay 2026 ring member v1");
    hasher.update(&member.weight.to_bits().to_le_bytes());
    hasher.update(&(member.name.len() as u64).to_le_bytes());
    hasher.update(member.name.as_bytes());
    if let Some(zone) = &member.zone {
        hasher.update(&[1]);
        hasher.update(zone.as_bytes());
    }
    hasher.finalize().as_bytes().first_chunk().map_or(0, |bytes| u128::from_le_bytes(*bytes))
}

fn first_u64(hash: &[u8; 32]) -> u64 {
    hash.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
