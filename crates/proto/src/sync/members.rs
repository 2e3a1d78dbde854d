//! The members' [`Replica`], from the roster.

use super::{Found, Offer, Replica};
use crate::member::Claim;
use crate::merkle::{FANOUT, MerkleTree};
use crate::record::RumorId;
use crate::roster::Roster;
use crate::wire::ListTag;

/// The living members as a tree, built from the roster and kept until the roster changes.
#[derive(Debug, Default)]
pub struct MemberIndex {}

impl MemberIndex {
    /// Empty.
    pub fn new() -> MemberIndex {
        MemberIndex::default()
    }

    /// The view of now.
    pub fn view<'a>(&'a mut self, roster: &'a Roster) -> MemberView<'a> {
        let _ = roster;
        MemberView { tree: MerkleTree::new(), _index: self }
    }

    /// Looks a member up by rumor id (its record) or by its version in a LIST (what `S6` says of it).
    pub fn find(&mut self, roster: &Roster, id: RumorId) -> Option<Found> {
        let _ = (roster, id, Claim::plain);
        None
    }
}

/// The living members of one moment.
pub struct MemberView<'a> {
    tree: MerkleTree,
    _index: &'a MemberIndex,
}

impl Replica for MemberView<'_> {
    fn count(&self) -> usize {
        self.tree.len()
    }
    fn digests(&self, _salt: u32, _level: u8, _index: u16) -> Option<[u32; FANOUT]> {
        None
    }
    fn list(&self, _first: u16, _last: u16) -> Vec<ListTag> {
        Vec::new()
    }
    fn moved_on(&self, _bucket: u16, _tag: u16) -> bool {
        false
    }
    fn offer(&self, _tag: &ListTag) -> Option<Offer> {
        None
    }
}
