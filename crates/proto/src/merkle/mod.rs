//! Hash trees: what two replicas compare to find the records that differ. Knows hashes, not records.
//!
//! [`MerkleTree`] is the tree of the protocol (`S1`-`S4`): 2^16 buckets by keyed hash of the record's name, each the sum of
//! the keyed hashes of its elements, under 16-ary levels of sums. [`MerkleMap`] is the stand-alone map with a
//! collision-resistant root that floor 4 offers as `MerkleTree`.
//!
//! # Why sums are safe here
//! A sum of hashes modulo 2^128 is not collision-resistant by itself: who knows the hash function can search for sets of equal
//! sum (Wagner's generalized birthday attack). Here every element hash is keyed with the cluster's [`HashKey`]; outsiders are
//! kept out by the seal and members are honest (crash-tolerant, not Byzantine), so nobody searches, and two different sets
//! have equal sums with probability 2^-128. In return an update costs one hash and a few additions, nothing is hashed lazily,
//! and a past state is the present one minus what changed since. On the wire a node is a u32 of its sum, keyed and salted per
//! session: a miss of 2^-32 is found under the next salt, so an equal digest never hides a difference for good.

mod key;
mod map;
mod tree;

#[cfg(test)]
mod tests;

pub use key::HashKey;
pub use map::{Diff, MerkleMap};
pub use tree::{
    BUCKETS, Delta, FANOUT, LEVEL_MAX, MerkleTree, bucket_range, differing, list_level, node_exists,
};
