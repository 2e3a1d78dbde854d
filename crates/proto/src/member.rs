//! Members: identity, the record each member owns, claims about its liveness, and which of two claims wins (section 2.1,
//! 2.2).

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Longest member name in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 128;
/// Most bytes of encoded tags: for each tag two length bytes, key and value.
pub const TAGS_BYTES_MAX: usize = 512;
/// An incarnation further than this above the known one is refused (section 2.1).
pub const INCARNATION_JUMP_MAX: u64 = 65_536;

/// Random 64-bit id a process takes at start; stands for (name, generation) in every message. Zero means none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MemberId(pub u64);

impl MemberId {
    /// No member.
    pub const NONE: MemberId = MemberId(0);
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Which run of a name this is: max(stored + 1, wall clock ms) at start; 48 bits travel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Generation(pub u64);

impl Generation {
    /// Largest generation that the wire can carry.
    pub const MAX: Generation = Generation((1 << 48) - 1);
}

/// Raised by its owner alone, to refute and to leave.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The next one.
    pub fn next(self) -> Incarnation {
        Incarnation(self.0.saturating_add(1))
    }
}

/// What is believed of a member. The numbers order claims of one incarnation and travel on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Liveness {
    /// Answers, as far as is known.
    Alive = 1,
    /// Accused; may refute until its patience has run out.
    Suspect = 2,
    /// Declared dead; remembered and knocked at.
    Dead = 3,
    /// Went by its own will; remembered, not knocked at.
    Left = 4,
}

impl Liveness {
    /// Alive or suspect.
    pub fn is_living(self) -> bool {
        matches!(self, Liveness::Alive | Liveness::Suspect)
    }
    /// From its number on the wire.
    pub fn from_wire(n: u8) -> Option<Liveness> {
        match n {
            1 => Some(Liveness::Alive),
            2 => Some(Liveness::Suspect),
            3 => Some(Liveness::Dead),
            4 => Some(Liveness::Left),
            _ => None,
        }
    }
}

/// A member's tags, sorted by key.
pub type Tags = BTreeMap<String, String>;

/// Bytes that `tags` take on the wire, without their count.
pub fn tags_bytes(tags: &Tags) -> usize {
    tags.iter().map(|(k, v)| 2 + k.len() + v.len()).sum()
}

/// The static part of a member record: written by its owner, shared by all views of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// Name, the slot's key: 1..=128 bytes of printable UTF-8.
    pub name: Arc<str>,
    /// Which run of the name.
    pub generation: Generation,
    /// Random id of this run.
    pub id: MemberId,
    /// Raised with each change of address or tags.
    pub revision: u64,
    /// Where datagrams and streams reach it.
    pub address: SocketAddr,
    /// Free-form tags; `zone` is one of them.
    pub tags: Tags,
}

/// One member as a view holds it: the static part and the live part, which merge independently.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Static part.
    pub profile: Arc<Profile>,
    /// Incarnation of the live part.
    pub incarnation: Incarnation,
    /// State of the live part.
    pub liveness: Liveness,
}

impl Member {
    /// Its id.
    pub fn id(&self) -> MemberId {
        self.profile.id
    }
    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.profile.name
    }
    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.profile.address
    }
}

/// Does the live part `(a, la)` win over `(b, lb)`? Only alive, suspect and left merge so; dead is a report (`D12`).
pub fn live_wins(a: Incarnation, la: Liveness, b: Incarnation, lb: Liveness) -> bool {
    (a, la) > (b, lb)
}

/// One accuser in a claim: who, and the phi it measured.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Accuser {
    /// The accuser's id.
    pub id: MemberId,
    /// Its phi at the accusation in 1/64, saturated at 65,535.
    pub phi64: u16,
}

impl Accuser {
    /// From a phi value; not-a-number counts as zero.
    pub fn new(id: MemberId, phi: f64) -> Accuser {
        Accuser { id, phi64: (phi * 64.0).clamp(0.0, 65_535.0) as u16 }
    }
    /// The phi as a number.
    pub fn phi(self) -> f64 {
        f64::from(self.phi64) / 64.0
    }
}

/// Most accusers a claim carries (`c`, section 4).
pub const ACCUSERS_MAX: usize = 2;

/// The live part of a member record on its own (section 2.2): 11 B alive or left, 21 B with one accuser, 31 B with two.
#[derive(Clone, PartialEq, Debug)]
pub struct Claim {
    /// About whom.
    pub id: MemberId,
    /// Which incarnation.
    pub incarnation: Incarnation,
    /// What is claimed.
    pub liveness: Liveness,
    /// Suspect: one or two accusers. Dead: the member that says so. Else none.
    pub accusers: Vec<Accuser>,
}

impl Claim {
    /// A claim without accusers: alive or left.
    pub fn plain(id: MemberId, incarnation: Incarnation, liveness: Liveness) -> Claim {
        Claim { id, incarnation, liveness, accusers: Vec::new() }
    }
}
