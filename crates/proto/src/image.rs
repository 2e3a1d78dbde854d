//! What a member keeps on disk, and how it travels there and back: rows, and batches of them.
//!
//! An image is a set of rows, one per place or name: the own one, what was heard of members, one per member met, one per user's
//! key (tombstones included). Broadcasts and queries are not kept: they live for a minute and nobody is told of those before its start.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::entry::Entry;
use crate::member::{Generation, Incarnation, Liveness, MemberId};
use crate::time::{Second, Stamp, Wall};

/// What a member must know of itself after a restart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Own {
    /// Its name.
    pub name: Arc<str>,
    /// Its run; the next is larger, whatever the clock says (section 2.1).
    pub generation: Generation,
    /// Id of the run.
    pub id: MemberId,
    /// Incarnation within the run.
    pub incarnation: Incarnation,
    /// The hybrid clock: nothing later was issued or seen when this was written.
    pub clock: Stamp,
    /// When this was written, by the own wall clock.
    pub seen: Wall,
}

/// Another member, as far as it helps to find it again (`J4`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acquaintance {
    /// Its name, the row's key.
    pub name: Arc<str>,
    /// Its run.
    pub generation: Generation,
    /// Id of the run.
    pub id: MemberId,
    /// Incarnation within the run.
    pub incarnation: Incarnation,
    /// What was believed of it.
    pub liveness: Liveness,
    /// Where it was reached.
    pub address: SocketAddr,
}

/// One row written or removed. What is read at a start is a sequence of the writing kinds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// The own row.
    Own(Own),
    /// What was heard of every member (`S7`), the own run included.
    Heard(Vec<(MemberId, Second)>),
    /// A member met.
    Member(Acquaintance),
    /// No longer remembered.
    NoMember(Arc<str>),
    /// The newest version of a key, by the place of the key ([`crate::record::RecordHasher::place`]).
    Entry {
        /// Its place.
        place: u64,
        /// The entry.
        entry: Arc<Entry>,
    },
    /// Nothing is held at this place any more.
    NoEntry {
        /// Which.
        place: u64,
    },
}

/// Rows to be written as one: all or, after a crash, none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// For `handle_persisted`.
    pub seq: u64,
    /// The rows; none twice.
    pub writes: Vec<Write>,
}
