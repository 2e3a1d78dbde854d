//! What a session sees of the records: one tree, as of one view.

use crate::member::Claim;
use crate::merkle::FANOUT;
use crate::record::{RumorId, Tree};
use crate::time::{Now, Second};
use crate::wire::ListTag;

/// What is known of an announced version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// Nothing.
    No,
    /// Held.
    Yes,
    /// Held until lately; this version has replaced it.
    Replaced {
        /// The newer version.
        newer: RumorId,
    },
}

/// What a responder says of one record the asker lacks (`S5`, `S6`).
#[derive(Clone, PartialEq, Debug)]
pub struct Offer {
    /// Id for IHAVE.
    pub id: RumorId,
    /// Its RECORD does not fit a datagram: announced as such (`R6`).
    pub large: bool,
    /// Members: the alive claim that goes with it.
    pub claim: Option<Claim>,
}

/// One tree as of one view: entries settled at T, or the living members.
pub trait Replica {
    /// Records in the view.
    fn count(&self) -> usize;
    /// Salted digests of a position's 16 children; none if there is no such position.
    fn digests(&self, salt: u32, level: u8, index: u16) -> Option<[u32; FANOUT]>;
    /// Records of a range of buckets, in order of bucket, tag, version.
    fn list(&self, first: u16, last: u16) -> Vec<ListTag>;
    /// Was the record at this bucket and tag written again after the view? Then it is left to a later one.
    fn moved_on(&self, bucket: u16, tag: u16) -> bool;
    /// What to say of a record of [`Replica::list`] to one who lacks it.
    fn offer(&self, tag: &ListTag) -> Option<Offer>;
}

/// Both trees of a member, at any view; the hall implements it over store and roster.
pub trait Replicas {
    /// Own root of a tree: of members live (`settled` is ignored), of entries as of `settled`; none if that is no longer (or
    /// not yet) known.
    fn root(&mut self, now: Now, tree: Tree, settled: Second) -> Option<u32>;
    /// A view; none: BUSY.
    fn view(&mut self, now: Now, tree: Tree, settled: Second) -> Option<Box<dyn Replica + '_>>;
}
