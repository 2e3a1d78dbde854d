//! The members' [`Replica`], from the roster: the living, compared live.

use super::Found;
use crate::member::{Claim, Incarnation, Liveness, MemberId};
use crate::merkle::{FANOUT, HashKey, MerkleTree};
use crate::record::{Record, RecordHasher, RumorId};
use crate::replica::{Offer, Replica};
use crate::roster::Roster;
use crate::table::Table;
use crate::wire::ListTag;

/// Hashes of one member's static part, kept from view to view.
#[derive(Clone, Copy, Debug)]
struct Hashes {
    revision: u64,
    place: u64,
    profile: u64,
    rumor: RumorId,
}

#[derive(Clone, Copy, Debug)]
struct Living {
    id: MemberId,
    incarnation: Incarnation,
    rumor: RumorId,
}

/// The living members as a tree, built when a session asks and kept until the roster changes.
#[derive(Debug, Default)]
pub struct MemberIndex {
    /// [`Roster::changes`] of the last build.
    built: Option<u64>,
    hashes: Table<MemberId, Hashes>,
    tree: MerkleTree,
    /// In order of bucket, tag, version.
    living: Table<ListTag, Living>,
}

fn living_tag(place: u64, version: u32) -> ListTag {
    ListTag { bucket: RecordHasher::bucket(place), tag: RecordHasher::tag(place), version }
}

impl MemberIndex {
    /// Empty.
    pub fn new() -> MemberIndex {
        MemberIndex::default()
    }

    fn build(&mut self, roster: &Roster) {
        if self.built == Some(roster.changes()) {
            return;
        }
        self.built = Some(roster.changes());
        let hasher = roster.hasher();
        if self.hashes.len() > 2 * roster.living() + 64 {
            self.hashes.retain(|id, _| roster.is_living(*id));
        }
        self.living.clear();
        let mut elements = Vec::with_capacity(roster.living());
        for id in roster.living_ids() {
            let (Some(profile), Some((incarnation, _))) = (roster.profile(id), roster.live(id)) else {
                continue;
            };
            let known = self.hashes.get(&id).copied().filter(|h| h.revision == profile.revision);
            let hashes = known.unwrap_or_else(|| Hashes {
                revision: profile.revision,
                place: hasher.place(profile.name.as_bytes()),
                profile: hasher.profile_hash(profile),
                rumor: hasher.member_rumor(profile),
            });
            self.hashes.insert(id, hashes);
            let element = hasher.member_element(id, hashes.profile, incarnation.0);
            elements.push((RecordHasher::bucket(hashes.place), element));
            let version = hasher.member_version(id, hashes.profile, incarnation.0);
            let living = Living { id, incarnation, rumor: hashes.rumor };
            self.living.insert(living_tag(hashes.place, version), living);
        }
        self.tree = MerkleTree::new();
        self.tree.bulk(elements);
    }

    /// The view of now.
    pub fn view<'a>(&'a mut self, roster: &'a Roster) -> MemberView<'a> {
        self.build(roster);
        MemberView { index: self, key: roster.hasher().key() }
    }

    /// Looks a living member up by rumor id (its record) or by its version in a LIST (what `S6` says of it).
    pub fn find(&mut self, roster: &Roster, id: RumorId) -> Option<Found> {
        self.build(roster);
        let first = ListTag { bucket: id.bucket, tag: 0, version: 0 };
        let last = ListTag { bucket: id.bucket, tag: u16::MAX, version: u32::MAX };
        let mut bucket = self.living.range(first..=last);
        bucket.find_map(|(tag, living)| {
            if living.rumor == id {
                roster.get(living.id).map(|member| Found::Record(Record::Member(member)))
            } else if tag.version == id.tag {
                Some(Found::Offer(living.offer()))
            } else {
                None
            }
        })
    }
}

impl Living {
    fn offer(&self) -> Offer {
        let claim = Claim::plain(self.id, self.incarnation, Liveness::Alive);
        Offer { id: self.rumor, large: false, claim: Some(claim) }
    }
}

/// The living members of one moment.
pub struct MemberView<'a> {
    index: &'a MemberIndex,
    key: &'a HashKey,
}

impl Replica for MemberView<'_> {
    fn count(&self) -> usize {
        self.index.tree.len()
    }

    fn digests(&self, salt: u32, level: u8, index: u16) -> Option<[u32; FANOUT]> {
        self.index.tree.digests(self.key, salt, level, index, &|_, _| 0)
    }

    fn list(&self, first: u16, last: u16) -> Vec<ListTag> {
        let first = ListTag { bucket: first, tag: 0, version: 0 };
        let last = ListTag { bucket: last, tag: u16::MAX, version: u32::MAX };
        self.index.living.range(first..=last).map(|(tag, _)| *tag).collect()
    }

    fn moved_on(&self, _bucket: u16, _tag: u16) -> bool {
        false
    }

    fn offer(&self, tag: &ListTag) -> Option<Offer> {
        self.index.living.get(tag).map(Living::offer)
    }
}
