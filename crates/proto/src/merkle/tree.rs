//! The tree of sums.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::HashKey;

/// Buckets, the nodes of the deepest level.
pub const BUCKETS: usize = 1 << 16;
/// Children of a node.
pub const FANOUT: usize = 16;
/// The deepest level; level `l` has 16^l nodes, level 0 is the total.
pub const LEVEL_MAX: u8 = 4;

/// Whether a tree has this node: `level <= 4` and `index < 16^level`. Check it for nodes named by a peer.
#[must_use]
pub fn node_exists(level: u8, index: u16) -> bool {
    level <= LEVEL_MAX && usize::from(index) < nodes(level)
}

/// The buckets under a node. A node that does not exist (see [`node_exists`]) is taken as the one it wraps around to.
#[must_use]
pub fn bucket_range(level: u8, index: u16) -> RangeInclusive<u16> {
    let level = level.min(LEVEL_MAX);
    let width = BUCKETS >> (4 * u32::from(level));
    let first = (usize::from(index) & (nodes(level) - 1)) * width;
    first as u16..=(first + width - 1) as u16
}

/// The level at which a walk over `n` records lists records instead of going deeper (`S4`): 0 for n <= 220, else the
/// smallest with at most 16 records a node, at most 4.
#[must_use]
pub fn list_level(n: usize) -> u8 {
    if n <= 220 {
        return 0;
    }
    (0..LEVEL_MAX).find(|level| n <= FANOUT * nodes(*level)).unwrap_or(LEVEL_MAX)
}

/// Which children differ between two answers to the same question: bit `i` for child `i`, the bitmap of DIFF.
#[must_use]
pub fn differing(ours: &[u32; FANOUT], theirs: &[u32; FANOUT]) -> u16 {
    ours.iter().zip(theirs).enumerate().fold(0, |bits, (i, (a, b))| bits | (u16::from(a != b) << i))
}

fn nodes(level: u8) -> usize {
    1 << (4 * u32::from(level.min(LEVEL_MAX)))
}

/// Index at `level` of the node above `bucket`.
fn above(level: u8, bucket: u16) -> usize {
    usize::from(bucket) >> (4 * u32::from(LEVEL_MAX - level.min(LEVEL_MAX)))
}

/// Where the bucket sums are: sparse while few, an array once every bucket is likely to be used.
#[derive(Clone, Debug)]
enum Bottom {
    Sparse(BTreeMap<u16, u128>),
    Dense(Vec<u128>),
}

impl Bottom {
    fn change(&mut self, bucket: u16, amount: u128) {
        match self {
            Self::Sparse(sums) => {
                let sum = sums.entry(bucket).or_insert(0);
                *sum = sum.wrapping_add(amount);
                if *sum == 0 {
                    sums.remove(&bucket);
                }
            }
            Self::Dense(sums) => {
                if let Some(sum) = sums.get_mut(usize::from(bucket)) {
                    *sum = sum.wrapping_add(amount);
                }
            }
        }
    }

    fn for_each(&self, mut visit: impl FnMut(u16, u128)) {
        match self {
            Self::Sparse(sums) => sums.iter().for_each(|(bucket, sum)| visit(*bucket, *sum)),
            Self::Dense(sums) => {
                (0..=u16::MAX)
                    .zip(sums)
                    .filter(|(_, sum)| **sum != 0)
                    .for_each(|(bucket, sum)| visit(bucket, *sum));
            }
        }
    }
}

/// Wrapping 128-bit sums of elements in 2^16 buckets under 16-ary levels (`S4`). See the module on why sums.
///
/// Adding or removing costs one addition per level. Memory follows the number of elements N: level `l` gets an array once
/// N > 16^l and loses it below a quarter of that; below 65,537 elements the buckets are a sorted map of those in use. At
/// 10^6 elements the whole tree takes 1.1 MB. Every sum can be asked for at any N and is the same for the same elements,
/// whatever came before.
#[derive(Clone, Debug)]
pub struct MerkleTree {
    len: usize,
    total: u128,
    /// Arrays of levels 1, 2, 3 (one behind the other), as many as N asks for.
    middle: Vec<Vec<u128>>,
    bottom: Bottom,
}

impl Default for MerkleTree {
    fn default() -> Self {
        Self::new()
    }
}

impl MerkleTree {
    /// An empty tree; it holds no memory.
    #[must_use]
    pub fn new() -> Self {
        Self { len: 0, total: 0, middle: Vec::new(), bottom: Bottom::Sparse(BTreeMap::new()) }
    }

    /// Adds an element to a bucket.
    pub fn add(&mut self, bucket: u16, element: u128) {
        self.len += 1;
        self.change(bucket, element);
        if self.levels() < LEVEL_MAX && self.len > nodes(self.levels() + 1) {
            self.grow();
        }
    }

    /// Removes an element that was added to this bucket before. The tree cannot check that it was.
    pub fn remove(&mut self, bucket: u16, element: u128) {
        self.len = self.len.saturating_sub(1);
        self.change(bucket, element.wrapping_neg());
        if self.len < nodes(self.levels()) / 4 && self.levels() > 0 {
            self.shrink();
        }
    }

    /// Replaces an element of a bucket by another: one pass instead of two.
    pub fn replace(&mut self, bucket: u16, old: u128, new: u128) {
        self.change(bucket, new.wrapping_sub(old));
    }

    /// Adds many elements; the levels above the buckets are computed once at the end.
    pub fn bulk(&mut self, elements: impl IntoIterator<Item = (u16, u128)>) {
        let elements = elements.into_iter();
        if self.len.saturating_add(elements.size_hint().0) > nodes(LEVEL_MAX) {
            self.densify();
        }
        for (bucket, element) in elements {
            self.len += 1;
            self.total = self.total.wrapping_add(element);
            self.bottom.change(bucket, element);
            if self.len == nodes(LEVEL_MAX) + 1 {
                self.densify();
            }
        }
        self.middle.clear();
        while self.levels() < LEVEL_MAX && self.len > nodes(self.levels() + 1) {
            self.grow();
        }
    }

    /// Removes everything and gives the memory back.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The sum of all elements: level 0.
    #[must_use]
    pub fn total(&self) -> u128 {
        self.total
    }

    /// The deepest level with an array of its own.
    #[must_use]
    pub fn levels(&self) -> u8 {
        match self.bottom {
            Bottom::Dense(_) if self.middle.len() == 3 => LEVEL_MAX,
            _ => self.middle.len() as u8,
        }
    }

    /// The sum of the elements under a node; 0 for a node that does not exist.
    #[must_use]
    pub fn sum(&self, level: u8, index: u16) -> u128 {
        if !node_exists(level, index) {
            return 0;
        }
        if level == 0 {
            return self.total;
        }
        if let Some(sums) = self.middle.get(usize::from(level) - 1) {
            return sums.get(usize::from(index)).copied().unwrap_or(0);
        }
        let range = bucket_range(level, index);
        match &self.bottom {
            Bottom::Sparse(sums) => sums.range(range).fold(0, |sum, (_, s)| sum.wrapping_add(*s)),
            Bottom::Dense(sums) => sums
                .get(usize::from(*range.start())..=usize::from(*range.end()))
                .unwrap_or(&[])
                .iter()
                .fold(0, |sum, s| sum.wrapping_add(*s)),
        }
    }

    /// The 16 digests of a node's children, as WALK and DIFF carry them, or `None` for a node that does not exist or is a
    /// bucket. `undo(level, index)` is what a child's sum holds that the view to compare does not: the net of all changes
    /// after T for entries (see [`Delta`]), 0 for members.
    #[must_use]
    pub fn digests(
        &self,
        key: &HashKey,
        salt: u32,
        level: u8,
        index: u16,
        undo: &dyn Fn(u8, u16) -> u128,
    ) -> Option<[u32; FANOUT]> {
        if !node_exists(level, index) || level >= LEVEL_MAX {
            return None;
        }
        let mut child = index << 4;
        Some(core::array::from_fn(|_| {
            let sum = self.sum(level + 1, child).wrapping_sub(undo(level + 1, child));
            let digest = key.node(salt, level + 1, child, sum);
            child = child.wrapping_add(1);
            digest
        }))
    }

    /// The heap the tree holds, in bytes. The sorted map is an estimate: 32 B a bucket, its blocks being two thirds full.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let middle: usize = self.middle.iter().map(|sums| sums.capacity() * size_of::<u128>()).sum();
        let bottom = match &self.bottom {
            Bottom::Sparse(sums) => sums.len() * 32,
            Bottom::Dense(sums) => sums.capacity() * size_of::<u128>(),
        };
        self.middle.capacity() * size_of::<Vec<u128>>() + middle + bottom
    }

    fn change(&mut self, bucket: u16, amount: u128) {
        self.total = self.total.wrapping_add(amount);
        for (level, sums) in (1..).zip(&mut self.middle) {
            if let Some(sum) = sums.get_mut(above(level, bucket)) {
                *sum = sum.wrapping_add(amount);
            }
        }
        self.bottom.change(bucket, amount);
    }

    /// Allocates the next level and distributes the buckets over it.
    fn grow(&mut self) {
        let level = self.middle.len() as u8 + 1;
        if level == LEVEL_MAX {
            self.densify();
            return;
        }
        let mut sums = vec![0u128; nodes(level)];
        self.bottom.for_each(|bucket, amount| {
            if let Some(sum) = sums.get_mut(above(level, bucket)) {
                *sum = sum.wrapping_add(amount);
            }
        });
        self.middle.push(sums);
    }

    /// Gives the deepest array back.
    fn shrink(&mut self) {
        if self.levels() < LEVEL_MAX {
            self.middle.pop();
            return;
        }
        let mut sparse = BTreeMap::new();
        self.bottom.for_each(|bucket, sum| {
            sparse.insert(bucket, sum);
        });
        self.bottom = Bottom::Sparse(sparse);
    }

    fn densify(&mut self) {
        if matches!(self.bottom, Bottom::Dense(_)) {
            return;
        }
        let mut dense = vec![0u128; BUCKETS];
        self.bottom.for_each(|bucket, sum| {
            if let Some(place) = dense.get_mut(usize::from(bucket)) {
                *place = sum;
            }
        });
        self.bottom = Bottom::Dense(dense);
    }
}

/// The net of a few changes to a tree, to be taken back from its sums: what a settled view undoes (section 2.3).
///
/// Built once per view from the changes after T; then any node's share costs two binary searches.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// Buckets in order, each with the sum of all up to and including it.
    running: Vec<(u16, u128)>,
    /// Elements added less elements removed.
    count: isize,
}

impl Delta {
    /// From changes (bucket, element removed, element added); `None` is no element.
    #[must_use]
    pub fn new(changes: impl IntoIterator<Item = (u16, Option<u128>, Option<u128>)>) -> Self {
        let mut running: Vec<(u16, u128)> = Vec::new();
        let mut count = 0isize;
        for (bucket, removed, added) in changes {
            running.push((bucket, added.unwrap_or(0).wrapping_sub(removed.unwrap_or(0))));
            count = count.saturating_add(isize::from(added.is_some()) - isize::from(removed.is_some()));
        }
        running.sort_unstable_by_key(|(bucket, _)| *bucket);
        running.dedup_by(|(bucket, sum), (kept, total)| {
            let same = bucket == kept;
            if same {
                *total = total.wrapping_add(*sum);
            }
            same
        });
        let mut total = 0u128;
        for (_, sum) in &mut running {
            total = total.wrapping_add(*sum);
            *sum = total;
        }
        Self { running, count }
    }

    /// What the changes added to a node's sum. Fits [`MerkleTree::digests`] as `&|level, index| delta.sum(level, index)`.
    #[must_use]
    pub fn sum(&self, level: u8, index: u16) -> u128 {
        if !node_exists(level, index) {
            return 0;
        }
        let range = bucket_range(level, index);
        let before = self.up_to(self.running.partition_point(|(bucket, _)| bucket < range.start()));
        let through = self.up_to(self.running.partition_point(|(bucket, _)| bucket <= range.end()));
        through.wrapping_sub(before)
    }

    /// What the changes added to the total.
    #[must_use]
    pub fn total(&self) -> u128 {
        self.up_to(self.running.len())
    }

    /// What the changes added to the number of elements.
    #[must_use]
    pub fn count(&self) -> isize {
        self.count
    }

    fn up_to(&self, places: usize) -> u128 {
        places.checked_sub(1).and_then(|last| self.running.get(last)).map_or(0, |(_, sum)| *sum)
    }
}
