//! What is replicated: member records and entries; their hashes for buckets, digests and rumor ids.

use std::net::IpAddr;
use std::sync::Arc;

use crate::entry::{Entry, Version};
use crate::member::{Member, MemberId, Profile};
use crate::merkle::HashKey;

/// Either kind of record.
#[derive(Clone, PartialEq, Debug)]
pub enum Record {
    /// A member record.
    Member(Member),
    /// An entry.
    Entry(Arc<Entry>),
}

/// Which of the two trees.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Tree {
    /// Member records of the living.
    Members = 0,
    /// Settled entries.
    Entries = 1,
}

impl Tree {
    /// From its number on the wire.
    pub fn from_wire(n: u8) -> Option<Tree> {
        match n {
            0 => Some(Tree::Members),
            1 => Some(Tree::Entries),
            _ => None,
        }
    }
}

/// Six-byte id of one version of one record: bucket and version tag (section 3). Member and entry ids share the space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RumorId {
    /// First 16 bits of the keyed hash of key or name.
    pub bucket: u16,
    /// Entry: hash of key, stamp, writer. Member: hash of name, generation, revision.
    pub tag: u32,
}

/// Keyed hashes of records. All depend on the cluster's label only, so that rotating keys changes none of them.
#[derive(Clone, Debug)]
pub struct RecordHasher {
    key: HashKey,
}

fn short(b: &[u8; 32]) -> u64 {
    u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
}

/// The 64-byte digest input of an element: a 32-byte hash of its name or key, then fixed fields.
fn block(domain: u8, name: &[u8; 32], fields: &[u64]) -> [u8; 64] {
    let mut block = [0u8; 64];
    block[0] = domain;
    block[1..24].copy_from_slice(&name[..23]);
    for (slot, field) in block[24..].chunks_exact_mut(8).zip(fields) {
        slot.copy_from_slice(&field.to_le_bytes());
    }
    block
}

impl RecordHasher {
    /// For the cluster of this label.
    pub fn new(label: &str) -> RecordHasher {
        RecordHasher { key: HashKey::new(label) }
    }

    /// The key under which everything is hashed.
    pub fn key(&self) -> &HashKey {
        &self.key
    }

    /// 64-bit place of a key or name: order of PAGEs; its first 16 bits are the bucket.
    pub fn place(&self, name: &[u8]) -> u64 {
        self.key.name(name)
    }

    /// Bucket of a place.
    pub fn bucket(place: u64) -> u16 {
        (place >> 48) as u16
    }

    /// 16 bits of a place that tell records of one bucket apart in a LIST.
    pub fn tag(place: u64) -> u16 {
        (place >> 32) as u16
    }

    /// Long hash of an entry's key, from which its elements and version tags are made.
    pub fn entry_name(&self, key: &[u8]) -> [u8; 32] {
        self.key.long(key)
    }

    /// Element of an entry: key, stamp, writer, flags.
    pub fn entry_element(&self, entry: &Entry) -> u128 {
        let name = self.entry_name(&entry.key);
        self.entry_element_of(&name, entry.version, entry.flags(), entry.ttl_ms)
    }

    /// Element of an entry given in parts, its key as [`RecordHasher::entry_name`].
    pub fn entry_element_of(&self, name: &[u8; 32], v: Version, flags: u8, ttl_ms: Option<u64>) -> u128 {
        self.key.element(&block(2, name, &[v.stamp.0, v.writer.0, u64::from(flags), ttl_ms.unwrap_or(0)]))
    }

    /// Version tag of an entry given in parts: the tag of its [`RumorId`].
    pub fn entry_tag_of(&self, name: &[u8; 32], v: Version) -> u32 {
        self.key.element(&block(3, name, &[v.stamp.0, v.writer.0])) as u32
    }

    /// Hash of everything static in a member record; cached by whoever holds many.
    pub fn profile_hash(&self, p: &Profile) -> u64 {
        let mut bytes = Vec::with_capacity(256);
        bytes.push(1);
        bytes.push(p.name.len() as u8);
        bytes.extend_from_slice(p.name.as_bytes());
        for field in [p.generation.0, p.id.0, p.revision] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        match p.address.ip() {
            IpAddr::V4(ip) => {
                bytes.push(4);
                bytes.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                bytes.push(6);
                bytes.extend_from_slice(&ip.octets());
            }
        }
        bytes.extend_from_slice(&p.address.port().to_le_bytes());
        for (k, v) in &p.tags {
            bytes.push(k.len() as u8);
            bytes.extend_from_slice(k.as_bytes());
            bytes.push(v.len() as u8);
            bytes.extend_from_slice(v.as_bytes());
        }
        short(&self.key.long(&bytes))
    }

    /// Element of a member: all that is hashed of it (section 2.1), by its [`RecordHasher::profile_hash`].
    pub fn member_element(&self, id: MemberId, profile_hash: u64, incarnation: u64) -> u128 {
        self.key.element(&block(1, &[0; 32], &[id.0, profile_hash, incarnation]))
    }

    /// Rumor id of an entry.
    pub fn entry_rumor(&self, entry: &Entry) -> RumorId {
        let tag = self.entry_tag_of(&self.entry_name(&entry.key), entry.version);
        RumorId { bucket: RecordHasher::bucket(self.place(&entry.key)), tag }
    }

    /// Rumor id of a member record: name, generation, revision.
    pub fn member_rumor(&self, p: &Profile) -> RumorId {
        let name = self.key.long(p.name.as_bytes());
        let tag = self.key.element(&block(4, &name, &[p.generation.0, p.revision])) as u32;
        RumorId { bucket: RecordHasher::bucket(self.place(p.name.as_bytes())), tag }
    }

    /// Version tag of a member in a LIST: a hash of all that is hashed of it.
    pub fn member_version(&self, id: MemberId, profile_hash: u64, incarnation: u64) -> u32 {
        self.member_element(id, profile_hash, incarnation) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Stamp;

    #[test]
    fn a_rumor_id_lies_in_the_bucket_of_its_place() {
        let hasher = RecordHasher::new("test");
        let entry = Entry {
            key: Arc::from(&b"key"[..]),
            value: Arc::from(&b"value"[..]),
            version: Version { stamp: Stamp(7), writer: MemberId(9) },
            tombstone: false,
            ttl_ms: None,
        };
        assert_eq!(hasher.entry_rumor(&entry).bucket, RecordHasher::bucket(hasher.place(b"key")));
        let other = Entry { version: Version { stamp: Stamp(8), writer: MemberId(9) }, ..entry.clone() };
        assert_ne!(hasher.entry_rumor(&entry), hasher.entry_rumor(&other));
        assert_ne!(hasher.entry_element(&entry), hasher.entry_element(&other));
    }
}
