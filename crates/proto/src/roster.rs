//! Who is in the cluster, what is believed of each, whom to pick next (section 2.1).
//!
//! One slot per name. The static part is shared (`Arc<Profile>`), so that ten thousand views in one simulator cost
//! [`SLOT_BYTES_MAX`] each; indexes hold slot numbers only. The member tree is one wrapping sum of the living members'
//! elements, kept up to date; its levels are built when a session asks (at most 16,384 hashes).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;

use crate::member::{
    Generation, INCARNATION_JUMP_MAX, Incarnation, Liveness, Member, MemberId, Profile, live_wins,
};
use crate::merkle::MerkleTree;
use crate::record::{RecordHasher, RumorId};
use crate::rng::Rng;
use crate::table::{Set, Table};
use crate::time::{Mono, Now, Wall};

/// Bound on the memory of one slot in one view, profiles apart.
pub const SLOT_BYTES_MAX: usize = 48;
/// A generation further ahead of the own wall clock is refused (section 2.1).
pub const GENERATION_AHEAD_MAX: Duration = Duration::from_secs(86_400);
/// Retired ids remembered; beyond, the smallest id (a random one) is forgotten.
const RETIRED_MAX: usize = 4_096;

struct Slot {
    profile: Arc<Profile>,
    incarnation: Incarnation,
    /// Position in `living`, or `GONE`.
    place: u32,
    liveness: Liveness,
}

const GONE: u32 = u32::MAX;

/// What merging a member record did.
#[derive(Clone, PartialEq, Debug)]
pub enum Merged {
    /// A name seen for the first time.
    New,
    /// A known name under a new id: the old one is retired.
    Replaced {
        /// The retired id.
        old: MemberId,
        /// What was believed of it.
        was: Liveness,
    },
    /// The known id: what changed.
    Updated {
        /// Address or tags are newer.
        profile: bool,
        /// The live part is newer; the liveness it had before.
        live: Option<Liveness>,
    },
    /// Nothing new.
    Unchanged,
    /// Belongs to a run older than the known one (a retired id): its successor may be told.
    Stale,
    /// My own name under another id, which wins over mine (`J2`).
    MyName,
    /// Refused: peer fault.
    Refused(Refusal),
}

/// Why a record was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Generation too far in the future.
    GenerationAhead,
    /// Incarnation jump too large.
    IncarnationJump,
    /// The table is full of living members.
    Full,
    /// Id zero or my own id from elsewhere.
    Id,
}

/// The members known to one member, itself included.
pub struct Roster {
    hasher: RecordHasher,
    mix: u64,
    me: MemberId,
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_id: HashTable<u32>,
    by_name: HashTable<u32>,
    by_rumor: Option<Table<RumorId, u32>>,
    living: Vec<u32>,
    /// Dead and left members, since when.
    gone: Table<MemberId, Mono>,
    /// The same by time: who is forgotten next.
    gone_by: Set<(Mono, MemberId)>,
    dead: usize,
    /// Forgotten for lack of room, not told yet.
    evicted: Vec<Member>,
    retired: Table<MemberId, u32>,
    sum: u128,
    alive: usize,
    changes: u64,
    members_max: usize,
    forget_after: Duration,
}

fn mix_u64(key: u64, v: u64) -> u64 {
    let m = u128::from(v ^ key) * 0x9E37_79B9_7F4A_7C15_u128;
    (m as u64) ^ ((m >> 64) as u64)
}

fn mix_bytes(key: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(mix_u64(key, bytes.len() as u64), |h, chunk| {
        let mut word = [0u8; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix_u64(h, u64::from_le_bytes(word))
    })
}

impl Roster {
    /// A roster holding only its owner. `mix` seeds the index hashes.
    pub fn new(
        hasher: RecordHasher,
        me: Member,
        mix: u64,
        members_max: usize,
        forget_after: Duration,
    ) -> Roster {
        let mut roster = Roster {
            hasher,
            mix,
            me: me.id(),
            slots: Vec::new(),
            free: Vec::new(),
            by_id: HashTable::new(),
            by_name: HashTable::new(),
            by_rumor: None,
            living: Vec::new(),
            gone: Table::new(),
            gone_by: Set::new(),
            dead: 0,
            evicted: Vec::new(),
            retired: Table::new(),
            sum: 0,
            alive: 0,
            changes: 0,
            members_max,
            forget_after,
        };
        roster.insert(Mono(0), me);
        roster
    }

    /// Hashes of records.
    pub fn hasher(&self) -> &RecordHasher {
        &self.hasher
    }

    /// Own id.
    pub fn my_id(&self) -> MemberId {
        self.me
    }

    /// Own record.
    pub fn me(&self) -> Member {
        self.get(self.me).unwrap_or_else(|| self.member(0))
    }

    /// Counter that grows with every change of any slot.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    fn find(&self, id: MemberId) -> Option<u32> {
        self.by_id.find(mix_u64(self.mix, id.0), |&s| self.slots[s as usize].profile.id == id).copied()
    }

    fn find_name(&self, name: &str) -> Option<u32> {
        self.by_name
            .find(mix_bytes(self.mix, name.as_bytes()), |&s| &*self.slots[s as usize].profile.name == name)
            .copied()
    }

    fn member(&self, slot: u32) -> Member {
        let s = &self.slots[slot as usize];
        Member { profile: s.profile.clone(), incarnation: s.incarnation, liveness: s.liveness }
    }

    /// The member of this id, whatever its liveness.
    pub fn get(&self, id: MemberId) -> Option<Member> {
        self.find(id).map(|s| self.member(s))
    }

    /// The static part of the member of this id, without a copy.
    pub fn profile(&self, id: MemberId) -> Option<&Arc<Profile>> {
        self.find(id).map(|s| &self.slots[s as usize].profile)
    }

    /// The live part of the member of this id.
    pub fn live(&self, id: MemberId) -> Option<(Incarnation, Liveness)> {
        self.find(id).map(|s| (self.slots[s as usize].incarnation, self.slots[s as usize].liveness))
    }

    /// Liveness of the member of this id.
    pub fn liveness(&self, id: MemberId) -> Option<Liveness> {
        self.live(id).map(|(_, l)| l)
    }

    /// Known, and alive or suspect?
    pub fn is_living(&self, id: MemberId) -> bool {
        self.liveness(id).is_some_and(Liveness::is_living)
    }

    /// Known and alive?
    pub fn is_alive(&self, id: MemberId) -> bool {
        self.liveness(id) == Some(Liveness::Alive)
    }

    /// The member of this name.
    pub fn by_name(&self, name: &str) -> Option<Member> {
        self.find_name(name).map(|s| self.member(s))
    }

    /// Was this id replaced by a newer run of its name? Then that run's record.
    pub fn successor(&self, id: MemberId) -> Option<Member> {
        self.retired.get(&id).map(|&s| self.member(s))
    }

    /// Does the record of any member but mine name this address? Looks at all of them.
    pub fn is_at(&self, address: SocketAddr) -> bool {
        self.slots.iter().any(|s| {
            s.profile.address == address && s.profile.id != self.me && s.profile.id != MemberId::NONE
        })
    }

    /// Living members (alive or suspect), self included.
    pub fn living(&self) -> usize {
        self.living.len()
    }

    /// Alive members, self included.
    pub fn alive(&self) -> usize {
        self.alive
    }

    /// Dead members remembered.
    pub fn dead(&self) -> usize {
        self.dead
    }

    /// Left members remembered.
    pub fn left(&self) -> usize {
        self.gone.len() - self.dead()
    }

    /// All members of any liveness, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = Member> + '_ {
        (0..self.slots.len() as u32)
            .filter(|&s| self.slots[s as usize].profile.id != MemberId::NONE)
            .map(|s| self.member(s))
    }

    /// Ids of the living, in no particular order, self included.
    pub fn living_ids(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.living.iter().map(|&s| self.slots[s as usize].profile.id)
    }

    /// Ids of dead members.
    pub fn dead_ids(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.gone.keys().copied().filter(|&id| self.liveness(id) == Some(Liveness::Dead))
    }

    /// Up to `count` distinct random living members for which `fit` holds, never oneself.
    pub fn pick(&self, rng: &mut Rng, count: usize, fit: impl Fn(MemberId) -> bool) -> Vec<MemberId> {
        let n = self.living.len();
        let mut picked: Vec<MemberId> = Vec::with_capacity(count);
        if count == 0 || n == 0 {
            return picked;
        }
        let ok = |id: MemberId| id != self.me && fit(id);
        if n > 4 * (count + 2) {
            for _ in 0..8 * count {
                let id = self.slots[self.living[rng.below(n)] as usize].profile.id;
                if !picked.contains(&id) && ok(id) {
                    picked.push(id);
                    if picked.len() == count {
                        return picked;
                    }
                }
            }
        }
        for at in rng.distinct(n, n.min(4_096)) {
            let id = self.slots[self.living[at] as usize].profile.id;
            if picked.len() == count {
                break;
            }
            if !picked.contains(&id) && ok(id) {
                picked.push(id);
            }
        }
        picked
    }

    /// Up to `count` distinct random alive members, never oneself, none of `except`.
    pub fn pick_alive(&self, rng: &mut Rng, count: usize, except: &[MemberId]) -> Vec<MemberId> {
        self.pick(rng, count, |id| self.is_alive(id) && !except.contains(&id))
    }

    /// Up to `count` distinct random living members, never oneself.
    pub fn pick_living(&self, rng: &mut Rng, count: usize) -> Vec<MemberId> {
        self.pick(rng, count, |_| true)
    }

    /// A random dead member.
    pub fn pick_dead(&self, rng: &mut Rng) -> Option<MemberId> {
        let dead: Vec<MemberId> = self.dead_ids().collect();
        dead.get(rng.below(dead.len())).copied()
    }

    fn element(&self, slot: u32) -> u128 {
        let s = &self.slots[slot as usize];
        let hash = self.hasher.profile_hash(&s.profile);
        self.hasher.member_element(s.profile.id, hash, s.incarnation.0)
    }

    /// Live root of the member tree: a hash of the sum of the living members' elements.
    pub fn root(&self) -> u32 {
        self.hasher.key().root(0, self.sum)
    }

    /// Sum of the living members' elements.
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// The member tree with all its levels, built now; for a session.
    pub fn tree(&self) -> MerkleTree {
        let mut tree = MerkleTree::new();
        tree.bulk(self.living.iter().map(|&s| {
            let place = self.hasher.place(self.slots[s as usize].profile.name.as_bytes());
            (RecordHasher::bucket(place), self.element(s))
        }));
        tree
    }

    fn insert(&mut self, now: Mono, member: Member) {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot {
                    profile: member.profile.clone(),
                    incarnation: Incarnation(0),
                    place: GONE,
                    liveness: Liveness::Dead,
                });
                (self.slots.len() - 1) as u32
            }
        };
        let s = &mut self.slots[slot as usize];
        s.profile = member.profile;
        s.incarnation = member.incarnation;
        s.liveness = Liveness::Dead;
        s.place = GONE;
        self.index(slot);
        self.enter(slot, member.liveness, now);
        self.changes += 1;
    }

    fn index(&mut self, slot: u32) {
        let (slots, mix) = (&self.slots, self.mix);
        let id_hash = |&s: &u32| mix_u64(mix, slots[s as usize].profile.id.0);
        let name_hash = |&s: &u32| mix_bytes(mix, slots[s as usize].profile.name.as_bytes());
        self.by_id.insert_unique(id_hash(&slot), slot, id_hash);
        self.by_name.insert_unique(name_hash(&slot), slot, name_hash);
        self.index_rumor(slot);
    }

    fn index_rumor(&mut self, slot: u32) {
        if let Some(index) = &mut self.by_rumor {
            index.insert(self.hasher.member_rumor(&self.slots[slot as usize].profile), slot);
        }
    }

    /// Builds the index of rumor ids, once; views that never hear of a record by its id do without.
    pub fn index_rumors(&mut self) {
        if self.by_rumor.is_none() {
            self.by_rumor = Some(Table::new());
            for slot in 0..self.slots.len() as u32 {
                if self.slots[slot as usize].profile.id != MemberId::NONE {
                    self.index_rumor(slot);
                }
            }
        }
    }

    /// The member whose record has this rumor id; needs [`Roster::index_rumors`].
    pub fn find_rumor(&self, id: RumorId) -> Option<Member> {
        self.by_rumor.as_ref().and_then(|index| index.get(&id)).map(|&slot| self.member(slot))
    }

    fn unindex(&mut self, slot: u32) {
        let p = self.slots[slot as usize].profile.clone();
        if let Some(index) = &mut self.by_rumor {
            index.remove(&self.hasher.member_rumor(&p));
        }
        if let Ok(found) = self.by_id.find_entry(mix_u64(self.mix, p.id.0), |&s| s == slot) {
            found.remove();
        }
        if let Ok(found) = self.by_name.find_entry(mix_bytes(self.mix, p.name.as_bytes()), |&s| s == slot) {
            found.remove();
        }
    }

    /// Puts a slot that counts nowhere under `liveness`.
    fn enter(&mut self, slot: u32, liveness: Liveness, since: Mono) {
        self.slots[slot as usize].liveness = liveness;
        if liveness.is_living() {
            self.slots[slot as usize].place = self.living.len() as u32;
            self.living.push(slot);
            self.sum = self.sum.wrapping_add(self.element(slot));
            self.alive += usize::from(liveness == Liveness::Alive);
        } else {
            let id = self.slots[slot as usize].profile.id;
            self.gone.insert(id, since);
            self.gone_by.insert((since, id));
            self.dead += usize::from(liveness == Liveness::Dead);
        }
    }

    /// Takes a slot out of every count.
    fn exit(&mut self, slot: u32) {
        let (place, liveness, id) = {
            let s = &self.slots[slot as usize];
            (s.place, s.liveness, s.profile.id)
        };
        if place != GONE {
            self.sum = self.sum.wrapping_sub(self.element(slot));
            self.alive -= usize::from(liveness == Liveness::Alive);
            self.living.swap_remove(place as usize);
            if let Some(&moved) = self.living.get(place as usize) {
                self.slots[moved as usize].place = place;
            }
            self.slots[slot as usize].place = GONE;
        } else if let Some(since) = self.gone.remove(&id) {
            self.gone_by.remove(&(since, id));
            self.dead -= usize::from(liveness == Liveness::Dead);
        }
    }

    fn change(&mut self, now: Mono, slot: u32, edit: impl FnOnce(&mut Slot) -> Liveness) {
        self.exit(slot);
        let liveness = edit(&mut self.slots[slot as usize]);
        self.enter(slot, liveness, now);
        self.changes += 1;
    }

    fn swap_profile(&mut self, now: Mono, slot: u32, profile: Arc<Profile>) {
        if let Some(index) = &mut self.by_rumor {
            index.remove(&self.hasher.member_rumor(&self.slots[slot as usize].profile));
        }
        self.change(now, slot, |s| {
            s.profile = profile;
            s.liveness
        });
        self.index_rumor(slot);
    }

    /// Merges a record by the rule of section 2.1. State 3 (dead) is never merged: such a record counts as alive at its
    /// incarnation for a new slot, and leaves the live part of a known one alone.
    pub fn merge(&mut self, now: Now, record: &Member) -> Merged {
        let p = &record.profile;
        if p.id == MemberId::NONE {
            return Merged::Refused(Refusal::Id);
        }
        let ahead = Wall(now.wall.0.saturating_add(GENERATION_AHEAD_MAX.as_millis() as u64));
        if p.generation.0 > ahead.0 || p.generation > Generation::MAX {
            return Merged::Refused(Refusal::GenerationAhead);
        }
        let liveness = if record.liveness == Liveness::Dead { Liveness::Alive } else { record.liveness };
        let Some(slot) = self.find_name(&p.name) else {
            if self.find(p.id).is_some() {
                return Merged::Refused(Refusal::Id);
            }
            if record.incarnation.0 > INCARNATION_JUMP_MAX {
                return Merged::Refused(Refusal::IncarnationJump);
            }
            if !self.make_room() {
                return Merged::Refused(Refusal::Full);
            }
            self.insert(now.mono, Member { liveness, ..record.clone() });
            return Merged::New;
        };
        let known = self.slots[slot as usize].profile.clone();
        if known.id != p.id {
            if self.find(p.id).is_some() {
                return Merged::Refused(Refusal::Id);
            }
            if (p.generation, p.id) < (known.generation, known.id) {
                return Merged::Stale;
            }
            if known.id == self.me {
                return Merged::MyName;
            }
            if record.incarnation.0 > INCARNATION_JUMP_MAX {
                return Merged::Refused(Refusal::IncarnationJump);
            }
            let was = self.slots[slot as usize].liveness;
            self.exit(slot);
            self.unindex(slot);
            let s = &mut self.slots[slot as usize];
            s.profile = p.clone();
            s.incarnation = record.incarnation;
            self.index(slot);
            self.enter(slot, liveness, now.mono);
            self.changes += 1;
            self.retire(known.id, slot);
            return Merged::Replaced { old: known.id, was };
        }
        if p.id == self.me {
            return Merged::Unchanged;
        }
        let profile = p.revision > known.revision;
        if profile {
            self.swap_profile(now.mono, slot, p.clone());
        }
        let live = match self.merge_live(now.mono, p.id, record.incarnation, record.liveness) {
            Ok(live) => live,
            Err(refusal) if !profile => return Merged::Refused(refusal),
            Err(_) => None,
        };
        if profile || live.is_some() { Merged::Updated { profile, live } } else { Merged::Unchanged }
    }

    /// Merges a live part: alive, suspect and left by (incarnation, state); a dead one changes nothing. Returns the
    /// liveness before, if anything changed. Unknown ids change nothing.
    ///
    /// A member held dead comes back only with a higher incarnation, or left at the same.
    ///
    /// # Errors
    /// [`Refusal::IncarnationJump`] if the incarnation is over 65,536 above the known one.
    pub fn merge_live(
        &mut self,
        now: Mono,
        id: MemberId,
        incarnation: Incarnation,
        liveness: Liveness,
    ) -> Result<Option<Liveness>, Refusal> {
        let Some(slot) = self.find(id).filter(|_| id != self.me && liveness != Liveness::Dead) else {
            return Ok(None);
        };
        let (known, was) = (self.slots[slot as usize].incarnation, self.slots[slot as usize].liveness);
        if incarnation.0 > known.0.saturating_add(INCARNATION_JUMP_MAX) {
            return Err(Refusal::IncarnationJump);
        }
        if !live_wins(incarnation, liveness, known, was) {
            return Ok(None);
        }
        self.change(now, slot, |s| {
            s.incarnation = incarnation;
            liveness
        });
        Ok(Some(was))
    }

    /// The detector's verdict on a member at its present incarnation (`D10`, `D11`, `D14`): dead; or alive again (`D14`
    /// taken back). Returns the liveness before if that changed.
    pub fn set_liveness(&mut self, now: Mono, id: MemberId, liveness: Liveness) -> Option<Liveness> {
        let slot = self.find(id).filter(|_| id != self.me)?;
        let was = self.slots[slot as usize].liveness;
        if was == liveness {
            return None;
        }
        self.change(now, slot, |_| liveness);
        Some(was)
    }

    /// Changes the own record: refute, leave, new tags or address.
    pub fn update_me(&mut self, now: Mono, edit: impl FnOnce(&mut Member)) {
        let Some(slot) = self.find(self.me) else { return };
        let mut me = self.member(slot);
        edit(&mut me);
        self.swap_profile(now, slot, me.profile);
        self.change(now, slot, |s| {
            s.incarnation = me.incarnation;
            me.liveness
        });
    }

    /// Takes a new identity under the own name (`J2`, `S7`): the old id is retired.
    pub fn renew_me(&mut self, now: Mono, generation: Generation, id: MemberId) {
        let Some(slot) = self.find(self.me) else { return };
        let old = self.me;
        self.exit(slot);
        self.unindex(slot);
        let s = &mut self.slots[slot as usize];
        let mut profile = (*s.profile).clone();
        profile.generation = generation;
        profile.id = id;
        profile.revision = 0;
        s.profile = Arc::new(profile);
        s.incarnation = Incarnation(0);
        self.me = id;
        self.index(slot);
        self.enter(slot, Liveness::Alive, now);
        self.changes += 1;
        self.retire(old, slot);
    }

    fn retire(&mut self, old: MemberId, slot: u32) {
        if self.retired.len() >= RETIRED_MAX {
            self.retired.pop_first();
        }
        self.retired.insert(old, slot);
    }

    /// Is this id known to have been replaced?
    pub fn is_retired(&self, id: MemberId) -> bool {
        self.retired.contains_key(&id)
    }

    fn make_room(&mut self) -> bool {
        if self.slots.len() - self.free.len() < self.members_max {
            return true;
        }
        let Some(&(_, oldest)) = self.gone_by.first() else { return false };
        self.evicted.extend(self.get(oldest));
        self.forget(oldest);
        true
    }

    /// Forgets a dead or left member.
    fn forget(&mut self, id: MemberId) {
        let Some(slot) = self.find(id) else { return };
        self.exit(slot);
        self.unindex(slot);
        self.retired.retain(|_, s| *s != slot);
        let s = &mut self.slots[slot as usize];
        let mut empty = (*s.profile).clone();
        empty.id = MemberId::NONE;
        empty.name = Arc::from("");
        s.profile = Arc::new(empty);
        self.free.push(slot);
        self.changes += 1;
    }

    /// When the next dead or left member is due to be forgotten; at once if one was, for lack of room.
    pub fn deadline(&self) -> Mono {
        if !self.evicted.is_empty() {
            return Mono(0);
        }
        self.gone_by.first().map_or(Mono::FAR, |&(since, _)| since + self.forget_after)
    }

    /// Forgets every dead or left member whose time is over; returns them, and those forgotten for lack of room.
    pub fn handle_timeout(&mut self, now: Mono) -> Vec<Member> {
        let mut forgotten = std::mem::take(&mut self.evicted);
        while let Some(&(since, id)) = self.gone_by.first()
            && since + self.forget_after <= now
        {
            forgotten.extend(self.get(id));
            self.forget(id);
        }
        forgotten
    }

    /// Compares every index and sum with a rebuild.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn audit(&self) -> Result<(), String> {
        let sum = self.living.iter().fold(0u128, |sum, &s| sum.wrapping_add(self.element(s)));
        if sum != self.sum {
            return Err("member sum differs from a rebuild".into());
        }
        let used =
            (0..self.slots.len() as u32).filter(|&s| self.slots[s as usize].profile.id != MemberId::NONE);
        let mut alive = 0;
        let mut count = 0;
        for slot in used {
            let s = &self.slots[slot as usize];
            count += 1;
            alive += usize::from(s.liveness == Liveness::Alive);
            if self.find(s.profile.id) != Some(slot) || self.find_name(&s.profile.name) != Some(slot) {
                return Err(format!("{} is not indexed", s.profile.name));
            }
            if s.liveness.is_living() != (self.living.get(s.place as usize) == Some(&slot))
                || s.liveness.is_living() == self.gone.contains_key(&s.profile.id)
            {
                return Err(format!("{} counts in the wrong list", s.profile.name));
            }
        }
        if count != self.living.len() + self.gone.len() || alive != self.alive {
            return Err(format!(
                "{count} slots, {} living, {} gone, {alive} alive",
                self.living.len(),
                self.gone.len()
            ));
        }
        let dead = self.gone.keys().filter(|&&id| self.liveness(id) == Some(Liveness::Dead)).count();
        let by_time = self.gone.iter().all(|(&id, &since)| self.gone_by.contains(&(since, id)));
        if dead != self.dead || !by_time || self.gone.len() != self.gone_by.len() {
            return Err(format!("{dead} dead, counted {}; or not in order of time", self.dead));
        }
        if count > self.members_max {
            return Err(format!("{count} members over the limit"));
        }
        Ok(())
    }

    /// When was this dead or left member declared so?
    pub fn gone_since(&self, id: MemberId) -> Option<Mono> {
        self.gone.get(&id).copied()
    }
}

#[cfg(test)]
mod tests;
