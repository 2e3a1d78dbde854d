//! Entries of the shared state: keys, versions, tombstones, and which of two writes wins (section 2.3).

use std::fmt;
use std::sync::Arc;

use crate::member::MemberId;
use crate::time::{Second, Stamp, Wall};

/// Longest key in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// Longest value that any configuration may allow, in bytes.
pub const VALUE_BYTES_CEILING: usize = 16 * 1024 * 1024;
/// First byte of reserved keys (broadcasts, queries); users' keys may not begin with it.
pub const RESERVED: u8 = 0;

/// A key: 1..=512 bytes, compared bytewise.
pub type Key = Arc<[u8]>;

/// A version: the stamp of the write and its writer. The larger wins, everywhere (last writer wins).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// Hybrid logical time of the write.
    pub stamp: Stamp,
    /// Id of the writing member; breaks ties.
    pub writer: MemberId,
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Version {
    /// 32 hex digits that compare as strings like the versions they stand for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.stamp.0, self.writer.0)
    }
}

impl std::str::FromStr for Version {
    type Err = VersionParseError;
    fn from_str(s: &str) -> Result<Version, VersionParseError> {
        let half = |r| s.get(r).and_then(|h: &str| u64::from_str_radix(h, 16).ok()).ok_or(VersionParseError);
        if s.len() != 32 {
            return Err(VersionParseError);
        }
        Ok(Version { stamp: Stamp(half(0..16)?), writer: MemberId(half(16..32)?) })
    }
}

/// A string is not a version of this cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VersionParseError;

/// One key's newest known write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value; empty in a tombstone.
    pub value: Arc<[u8]>,
    /// Who wrote it, when.
    pub version: Version,
    /// The write was a delete, or the entry's lifetime ended.
    pub tombstone: bool,
    /// Lifetime in ms from the stamp; none: unlimited.
    pub ttl_ms: Option<u64>,
}

impl Entry {
    /// The second whose end turns this entry into a tombstone, if it has a lifetime.
    pub fn expiry(&self) -> Option<Second> {
        let ttl = self.ttl_ms.filter(|_| !self.tombstone)?;
        Some(Wall(self.version.stamp.wall().0.saturating_add(ttl)).second())
    }
    /// Is this one of the protocol's own entries (broadcast, query)?
    pub fn is_reserved(&self) -> bool {
        self.key.first() == Some(&RESERVED)
    }
    /// The flags byte of the wire and the digest: 1 tombstone, 2 TTL follows.
    pub fn flags(&self) -> u8 {
        u8::from(self.tombstone) | if self.ttl_ms.is_some() { 2 } else { 0 }
    }
}
