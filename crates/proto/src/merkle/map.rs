//! A map with a Merkle root.

use std::sync::OnceLock;

/// Entries a leaf holds before it splits.
const LEAF_MAX: usize = 16;
/// Nibbles in a key's hash: a leaf this deep no longer splits.
const DEPTH_MAX: usize = 64;

/// A map from byte strings to hashes of byte strings with a 32-byte root: equal maps have equal roots whatever the order of
/// their changes, and different maps different roots, as far as BLAKE3 is collision-resistant (no key, any content).
///
/// It is a 16-ary trie over the hash of the key. A subtree of at most 16 entries is one leaf, so its shape follows from its
/// content alone. Hashes are computed when asked for and kept until something below changes: a change costs the path, about
/// log16(n) nodes. Values are not stored, only their hashes.
#[derive(Clone, Debug, Default)]
pub struct MerkleMap {
    root: Node,
    len: usize,
}

/// What [`MerkleMap::diff`] found and what it cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Keys held by one side only, or with different values, in byte order.
    pub keys: Vec<Vec<u8>>,
    /// Pairs of node digests compared: a walk over differing nodes, not the whole tree.
    pub compared: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    key_hash: [u8; 32],
    value_hash: [u8; 32],
    key: Box<[u8]>,
}

#[derive(Clone, Debug)]
struct Node {
    digest: OnceLock<[u8; 32]>,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    /// In order of key hash.
    Leaf(Vec<Entry>),
    Inner {
        count: usize,
        children: Box<[Node; 16]>,
    },
}

impl Default for Node {
    fn default() -> Self {
        Self::leaf(Vec::new())
    }
}

impl MerkleMap {
    /// An empty map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key's value; false if it had this value already.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> bool {
        let entry = Entry { key_hash: hash(key), value_hash: hash(value), key: key.into() };
        let change = self.root.set(entry, 0);
        self.len += usize::from(change == Change::Added);
        change != Change::None
    }

    /// Removes a key; false if it was not there.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        let removed = self.root.delete(&hash(key), 0);
        self.len -= usize::from(removed);
        removed
    }

    /// Whether the key is there.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.root.contains(&hash(key))
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The root digest.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        *self.root.digest()
    }

    /// The keys in which the two maps differ, found by walking down the nodes whose digests differ.
    #[must_use]
    pub fn diff(&self, other: &Self) -> Diff {
        let mut diff = Diff::default();
        self.root.diff(&other.root, &mut diff);
        diff.keys.sort_unstable();
        diff
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    Replaced,
    Added,
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// The child of a node at `depth` on the way to a key.
fn slot(key_hash: &[u8; 32], depth: usize) -> usize {
    let byte = key_hash.get(depth / 2).copied().unwrap_or(0);
    usize::from(if depth.is_multiple_of(2) { byte >> 4 } else { byte & 15 })
}

impl Node {
    fn leaf(entries: Vec<Entry>) -> Self {
        Self { digest: OnceLock::new(), content: Content::Leaf(entries) }
    }

    /// The node of these entries at this depth, which are in order of key hash.
    fn of(entries: Vec<Entry>, depth: usize) -> Self {
        if entries.len() <= LEAF_MAX || depth >= DEPTH_MAX {
            return Self::leaf(entries);
        }
        let count = entries.len();
        let mut parts: [Vec<Entry>; 16] = Default::default();
        for entry in entries {
            if let Some(part) = parts.get_mut(slot(&entry.key_hash, depth)) {
                part.push(entry);
            }
        }
        let children = Box::new(parts.map(|part| Self::of(part, depth + 1)));
        Self { digest: OnceLock::new(), content: Content::Inner { count, children } }
    }

    fn count(&self) -> usize {
        match &self.content {
            Content::Leaf(entries) => entries.len(),
            Content::Inner { count, .. } => *count,
        }
    }

    /// The first byte keeps leaves and inner nodes apart; both are of whole 32-byte hashes, so no two inputs run together.
    fn digest(&self) -> &[u8; 32] {
        self.digest.get_or_init(|| {
            let mut hasher = blake3::Hasher::new();
            match &self.content {
                Content::Leaf(entries) => {
                    hasher.update(&[0]);
                    for entry in entries {
                        hasher.update(&entry.key_hash).update(&entry.value_hash);
                    }
                }
                Content::Inner { children, .. } => {
                    hasher.update(&[1]);
                    for child in children.iter() {
                        hasher.update(child.digest());
                    }
                }
            }
            *hasher.finalize().as_bytes()
        })
    }

    fn set(&mut self, entry: Entry, depth: usize) -> Change {
        let change = match &mut self.content {
            Content::Leaf(entries) => match entries.binary_search_by(|e| e.key_hash.cmp(&entry.key_hash)) {
                Ok(place) => match entries.get_mut(place) {
                    Some(old) if old.value_hash != entry.value_hash => {
                        old.value_hash = entry.value_hash;
                        Change::Replaced
                    }
                    _ => Change::None,
                },
                Err(place) => {
                    entries.insert(place, entry);
                    if entries.len() > LEAF_MAX && depth < DEPTH_MAX {
                        let entries = core::mem::take(entries);
                        *self = Self::of(entries, depth);
                    }
                    Change::Added
                }
            },
            Content::Inner { count, children } => {
                let child = children.get_mut(slot(&entry.key_hash, depth));
                let change = child.map_or(Change::None, |child| child.set(entry, depth + 1));
                *count += usize::from(change == Change::Added);
                change
            }
        };
        if change != Change::None {
            self.digest = OnceLock::new();
        }
        change
    }

    fn delete(&mut self, key_hash: &[u8; 32], depth: usize) -> bool {
        let removed = match &mut self.content {
            Content::Leaf(entries) => {
                let place = entries.binary_search_by(|e| e.key_hash.cmp(key_hash));
                place.map(|place| entries.remove(place)).is_ok()
            }
            Content::Inner { count, children } => {
                let child = children.get_mut(slot(key_hash, depth));
                let removed = child.is_some_and(|child| child.delete(key_hash, depth + 1));
                *count -= usize::from(removed);
                removed
            }
        };
        if removed {
            self.digest = OnceLock::new();
            if matches!(self.content, Content::Inner { count, .. } if count <= LEAF_MAX) {
                let mut entries = Vec::with_capacity(LEAF_MAX);
                self.drain(&mut entries);
                self.content = Content::Leaf(entries);
            }
        }
        removed
    }

    /// Moves all entries out, in order of key hash.
    fn drain(&mut self, into: &mut Vec<Entry>) {
        match &mut self.content {
            Content::Leaf(entries) => into.append(entries),
            Content::Inner { children, .. } => children.iter_mut().for_each(|child| child.drain(into)),
        }
    }

    fn contains(&self, key_hash: &[u8; 32]) -> bool {
        let mut node = self;
        for depth in 0..=DEPTH_MAX {
            match &node.content {
                Content::Leaf(entries) => {
                    return entries.binary_search_by(|e| e.key_hash.cmp(key_hash)).is_ok();
                }
                Content::Inner { children, .. } => match children.get(slot(key_hash, depth)) {
                    Some(child) => node = child,
                    None => return false,
                },
            }
        }
        false
    }

    fn visit<'a>(&'a self, into: &mut Vec<&'a Entry>) {
        match &self.content {
            Content::Leaf(entries) => into.extend(entries),
            Content::Inner { children, .. } => children.iter().for_each(|child| child.visit(into)),
        }
    }

    fn diff(&self, other: &Self, diff: &mut Diff) {
        diff.compared += 1;
        if self.digest() == other.digest() {
            return;
        }
        if let (Content::Inner { children: ours, .. }, Content::Inner { children: theirs, .. }) =
            (&self.content, &other.content)
        {
            ours.iter().zip(theirs.iter()).for_each(|(a, b)| a.diff(b, diff));
            return;
        }
        // One side is a leaf: what both hold in this range, in order of key hash.
        let mut ours = Vec::with_capacity(self.count());
        let mut theirs = Vec::with_capacity(other.count());
        self.visit(&mut ours);
        other.visit(&mut theirs);
        let (mut ours, mut theirs) = (ours.into_iter().peekable(), theirs.into_iter().peekable());
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (Some(a), Some(b)) => a.key_hash.cmp(&b.key_hash),
                (Some(_), None) => core::cmp::Ordering::Less,
                (None, Some(_)) => core::cmp::Ordering::Greater,
                (None, None) => return,
            };
            let a = if order.is_le() { ours.next() } else { None };
            let b = if order.is_ge() { theirs.next() } else { None };
            if a.map(|e| e.value_hash) != b.map(|e| e.value_hash)
                && let Some(entry) = a.or(b)
            {
                diff.keys.push(entry.key.to_vec());
            }
        }
    }
}
