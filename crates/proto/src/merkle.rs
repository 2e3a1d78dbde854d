//! placeholder until the tools branch lands

/// Key of all hashes of one cluster.
#[derive(Clone, Debug)]
pub struct HashKey([u8; 32]);

impl HashKey {
    /// From the label.
    pub fn derive(label: &str) -> HashKey {
        HashKey(blake3::derive_key("hearsay 2026 element v1", label.as_bytes()))
    }
    /// Keyed hash of any bytes.
    pub fn hash(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.0, bytes)
    }
    /// 128-bit element of a 64-byte block.
    pub fn element(&self, block: &[u8; 64]) -> u128 {
        let h = blake3::keyed_hash(&self.0, block);
        u128::from_le_bytes(h.as_bytes()[..16].try_into().unwrap_or([0; 16]))
    }
    /// Root of a tree with this total, under a salt.
    pub fn root(&self, salt: u32, total: u128) -> u32 {
        let mut block = [0u8; 64];
        block[0] = 9;
        block[4..8].copy_from_slice(&salt.to_le_bytes());
        block[8..24].copy_from_slice(&total.to_le_bytes());
        self.element(&block) as u32
    }
}

/// Sums of elements by bucket, in 16-ary levels.
#[derive(Clone, Debug, Default)]
pub struct MerkleTree;

impl MerkleTree {
    /// Empty.
    pub fn new() -> MerkleTree {
        MerkleTree
    }
    /// Adds many elements with their buckets.
    pub fn bulk(&mut self, elements: impl Iterator<Item = (u16, u128)>) {
        elements.for_each(drop);
    }
}
