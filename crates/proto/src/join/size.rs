//! Bytes of what this part sends, so that pages fit their datagram.

use crate::member::{Claim, Member, tags_bytes};

/// Kind, length, tree, from, next, last, and the two counts at their longest.
pub(super) const PAGE_OVERHEAD_BYTES: usize = 3 + 1 + 8 + 8 + 1 + 2 * 5;
/// A CHALLENGE.
pub(super) const CHALLENGE_BYTES: usize = 11;

fn varint(v: u64) -> usize {
    (64 - (v | 1).leading_zeros() as usize).div_ceil(7)
}

/// A member record with its type byte in a page.
pub(super) fn member(m: &Member) -> usize {
    let p = &m.profile;
    let address = if p.address.is_ipv4() { 7 } else { 19 };
    let tags = varint(p.tags.len() as u64) + tags_bytes(&p.tags);
    1 + 1 + p.name.len() + 6 + 8 + varint(p.revision) + address + tags + varint(m.incarnation.0) + 1
}

/// A claim.
pub(super) fn claim(c: &Claim) -> usize {
    1 + 8 + varint(c.incarnation.0) + 10 * c.accusers.len()
}

/// A WELCOME with this many peers.
pub(super) fn welcome(m: &Member, peers: usize) -> usize {
    3 + member(m) + 1 + peers * (8 + 19)
}
