//! Everything kept in step with the entries, compared with a rebuild from the pages.

use super::life::Life;
use super::{Store, is_reserved};
use crate::merkle::{LEVEL_MAX, MerkleTree};
use crate::record::RecordHasher;

impl Store {
    /// Compares tree, counts and lifetimes with a rebuild from the entries: two hashes an entry, for simulators and fuzzers.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn audit(&self) -> Result<(), String> {
        let (mut rows, mut bytes, mut tombstones, mut listed, mut ending) = (0, 0, 0, 0, 0);
        let mut elements = Vec::with_capacity(self.pages.rows());
        let mut from = None;
        for row in self.pages.range(0, u64::MAX) {
            let life = Life::of_row(&row);
            let form = self.form_of(&self.hasher.entry_name(row.key), life);
            if from.is_some_and(|before| before >= row.place) || self.hasher.place(row.key) != row.place {
                return Err(format!("the entry at {:016x} is out of place", row.place));
            }
            if form.tag != row.tag {
                return Err(format!("the entry at {:016x} has a wrong tag", row.place));
            }
            from = Some(row.place);
            rows += 1;
            bytes += row.bytes();
            tombstones += usize::from(row.tombstone);
            listed += usize::from(!row.tombstone && !is_reserved(row.key));
            if let Some(end) = self.end_ms(life) {
                ending += 1;
                if !self.due.contains(&(end, row.place)) {
                    return Err(format!("the entry at {:016x} would not end", row.place));
                }
            }
            elements.push((RecordHasher::bucket(row.place), form.sum()));
        }
        let counted = (rows, bytes, tombstones, listed, ending);
        let kept = (self.pages.rows(), self.bytes, self.tombstones, self.keys.len(), self.due.len());
        if counted != kept {
            return Err(format!("rows, bytes, tombstones, keys, lifetimes: {kept:?}, counted {counted:?}"));
        }
        let mut tree = MerkleTree::new();
        tree.bulk(elements.iter().copied());
        let differs = |&(bucket, _): &(u16, u128)| {
            (0..=LEVEL_MAX).any(|level| {
                let index = (u32::from(bucket) >> (4 * u32::from(LEVEL_MAX - level))) as u16;
                tree.sum(level, index) != self.tree.sum(level, index)
            })
        };
        if tree.len() != self.tree.len() || tree.total() != self.tree.total() || elements.iter().any(differs)
        {
            return Err("the entry tree differs from a rebuild".into());
        }
        Ok(())
    }
}
