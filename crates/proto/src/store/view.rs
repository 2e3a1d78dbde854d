//! The store as of second T: the tree less the changes after T; keys changed since show what they showed then.

use super::pages::{Pages, Row};
use super::timeline::Form;
use crate::merkle::{Delta, FANOUT, HashKey, MerkleTree};
use crate::record::{RecordHasher, RumorId};
use crate::replica::{Offer, Replica};
use crate::table::Table;
use crate::wire::ListTag;

pub(super) struct View<'a> {
    pub pages: &'a Pages,
    pub tree: &'a MerkleTree,
    pub key: &'a HashKey,
    pub delta: Delta,
    /// Keys changed after T, with what they showed at T.
    pub then: Table<u64, Option<Form>>,
    /// Key and value bytes beyond which a RECORD may not fit a datagram.
    pub small_bytes_max: usize,
}

fn span(first: u16, last: u16) -> (u64, u64) {
    (u64::from(first) << 48, u64::from(last) << 48 | u64::MAX >> 16)
}

fn list_tag(place: u64, version: u32) -> ListTag {
    ListTag { bucket: RecordHasher::bucket(place), tag: RecordHasher::tag(place), version }
}

impl View<'_> {
    fn rows(&self, bucket: u16, tag: u16) -> impl Iterator<Item = Row<'_>> {
        let first = u64::from(bucket) << 48 | u64::from(tag) << 32;
        self.pages.range(first, first | u64::from(u32::MAX))
    }
}

impl Replica for View<'_> {
    fn count(&self) -> usize {
        self.tree.len().saturating_add_signed(self.delta.count().saturating_neg())
    }

    fn digests(&self, salt: u32, level: u8, index: u16) -> Option<[u32; FANOUT]> {
        self.tree.digests(self.key, salt, level, index, &|level, index| self.delta.sum(level, index))
    }

    fn list(&self, first: u16, last: u16) -> Vec<ListTag> {
        let (first, last) = span(first, last);
        let mut tags: Vec<ListTag> = self
            .pages
            .range(first, last)
            .filter(|row| !self.then.contains_key(&row.place))
            .map(|row| list_tag(row.place, row.tag))
            .collect();
        tags.extend(
            self.then
                .range(first..=last)
                .filter_map(|(&place, form)| form.as_ref().map(|f| list_tag(place, f.tag))),
        );
        tags.sort_unstable();
        tags
    }

    fn moved_on(&self, bucket: u16, tag: u16) -> bool {
        let first = u64::from(bucket) << 48 | u64::from(tag) << 32;
        self.then.range(first..=first | u64::from(u32::MAX)).next().is_some()
    }

    fn offer(&self, tag: &ListTag) -> Option<Offer> {
        let row = self.rows(tag.bucket, tag.tag).find(|row| row.tag == tag.version)?;
        let id = RumorId { bucket: tag.bucket, tag: row.tag };
        Some(Offer { id, large: row.bytes() > self.small_bytes_max, claim: None })
    }
}
