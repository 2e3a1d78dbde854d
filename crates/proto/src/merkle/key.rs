//! The keyed hashes of a cluster.

/// The key of all hashes that members compare: of elements, names, versions and nodes.
///
/// Derived from the cluster's label alone, so that a change of the cluster's secret keys changes no hash. Each use has a key of
/// its own: an element never equals a node or a name. The hash is BLAKE3 keyed; inputs up to 64 bytes cost one block.
#[derive(Clone)]
pub struct HashKey {
    element: [u8; 32],
    name: [u8; 32],
    tag: [u8; 32],
    long: [u8; 32],
    node: [u8; 32],
}

impl HashKey {
    /// The key of the cluster with this label.
    #[must_use]
    pub fn new(label: &str) -> Self {
        Self {
            element: blake3::derive_key("hearsay 2026 element v1", label.as_bytes()),
            name: blake3::derive_key("hearsay 2026 name v1", label.as_bytes()),
            tag: blake3::derive_key("hearsay 2026 tag v1", label.as_bytes()),
            long: blake3::derive_key("hearsay 2026 long v1", label.as_bytes()),
            node: blake3::derive_key("hearsay 2026 node v1", label.as_bytes()),
        }
    }

    /// The element that stands for a record in a tree: the hash of its 64-byte digest input.
    #[must_use]
    pub fn element(&self, block: &[u8; 64]) -> u128 {
        first_u128(&blake3::keyed_hash(&self.element, block))
    }

    /// The hash of a record's name or key, which orders records (section 2.1).
    #[must_use]
    pub fn name(&self, name: &[u8]) -> u64 {
        first_u64(&blake3::keyed_hash(&self.name, name))
    }

    /// The bucket of a record: the first 16 bits of [`Self::name`], so that buckets keep its order.
    #[must_use]
    pub fn bucket(&self, name: &[u8]) -> u16 {
        Self::bucket_of(self.name(name))
    }

    /// The bucket of a record whose name hash is known.
    #[must_use]
    pub fn bucket_of(name_hash: u64) -> u16 {
        (name_hash >> 48) as u16
    }

    /// A u32 that stands for a version of a record in rumor ids and LISTs. Different inputs are equal with probability 2^-32.
    #[must_use]
    pub fn tag(&self, bytes: &[u8]) -> u32 {
        first_u64(&blake3::keyed_hash(&self.tag, bytes)) as u32
    }

    /// A 256-bit hash of input of any length, to bind in the 64 bytes of [`Self::element`] what does not fit them.
    #[must_use]
    pub fn long(&self, bytes: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.long, bytes).as_bytes()
    }

    /// What a node with this sum looks like on the wire under `salt`: one block.
    #[must_use]
    pub fn node(&self, salt: u32, level: u8, index: u16, sum: u128) -> u32 {
        let mut block = [0u8; 23];
        block[..4].copy_from_slice(&salt.to_le_bytes());
        block[4] = level;
        block[5..7].copy_from_slice(&index.to_le_bytes());
        block[7..].copy_from_slice(&sum.to_le_bytes());
        first_u64(&blake3::keyed_hash(&self.node, &block)) as u32
    }

    /// The root in BEATs: [`Self::node`] of level 0, for a total taken from [`super::MerkleTree::total`], less what is not
    /// settled. The salt of entries is T (section 2.3), of members 0.
    #[must_use]
    pub fn root(&self, salt: u32, total: u128) -> u32 {
        self.node(salt, 0, 0, total)
    }
}

impl core::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HashKey")
    }
}

fn first_u64(hash: &blake3::Hash) -> u64 {
    let (bytes, _) = hash.as_bytes().split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*bytes)
}

fn first_u128(hash: &blake3::Hash) -> u128 {
    let (bytes, _) = hash.as_bytes().split_first_chunk().unwrap_or((&[0; 16], &[]));
    u128::from_le_bytes(*bytes)
}
