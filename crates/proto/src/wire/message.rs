//! The kinds of messages (section 3).

use std::net::SocketAddr;
use std::sync::Arc;

use crate::entry::Entry;
use crate::member::{Claim, Member, MemberId};
use crate::record::{Record, RumorId, Tree};
use crate::time::{Second, Stamp};

/// Version of the wire format spoken by this build.
pub const WIRE_VERSION: u8 = 1;
/// Bytes of the plain header.
pub const HEADER_BYTES: usize = 12;
/// Hop count of a record that is not to be pushed on as payload.
pub const HOP_COLD: u8 = 255;

/// Least bytes of a HELLO, kind and length included: it is padded with zeros, so that no answer is larger (`J6`).
pub const HELLO_BYTES: usize = 96;
/// Most claims in one CLAIMS.
pub const CLAIMS_MAX: usize = 255;
/// Most peers in a WELCOME.
pub const PEERS_MAX: usize = 6;
/// Most messages in one datagram or frame, skipped ones included.
pub const MESSAGES_MAX: usize = 16_384;
/// Longest topic of a MAIL in bytes.
pub const TOPIC_BYTES_MAX: usize = 256;
/// Deepest level a WALK or DIFF may name: its children are the buckets.
pub const WALK_LEVEL_MAX: u8 = 3;
/// Bytes by which the value of a reserved entry (broadcast, query) may exceed the longest value of users: name, topic and
/// numbers around a payload.
pub const RESERVED_EXTRA_BYTES: usize = 1_024;

/// Whether messages stand in a datagram or in a frame of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// Message lengths are u16.
    Datagram,
    /// Message lengths are u32.
    Frame,
}

impl Framing {
    /// Bytes of kind and length before each body.
    pub fn head_bytes(self) -> usize {
        match self {
            Framing::Datagram => 3,
            Framing::Frame => 5,
        }
    }
}

/// Flag of [`Header`]: the sender counts feedback (Demers' variants) and wants a SEEN for each record or id that it tells as a
/// rumor and that was known.
pub const HEADER_FEEDBACK: u8 = 1;

/// Header of a datagram or frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Wire version.
    pub version: u8,
    /// Bit flags: [`HEADER_FEEDBACK`]; unknown ones are ignored.
    pub flags: u8,
    /// Hash of the cluster label: packets of other clusters are dropped.
    pub label: u16,
    /// Id of the sending member; zero if it has none.
    pub sender: MemberId,
}

/// Result of comparing one tree (`S1`), as an ACK carries it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Compared {
    /// One side joins, or the store is full.
    #[default]
    Not = 0,
    /// Same roots.
    Equal = 1,
    /// Different roots.
    Differ = 2,
    /// Members only: the living counts lie far apart.
    Far = 3,
}

/// Flags of an ACK.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AckFlags {
    /// It answers a BEAT, not a PING.
    pub to_beat: bool,
    /// The answering member keeps a watch record of the asker.
    pub watched: bool,
    /// Comparison of the member roots; `Not` in answers to PINGs.
    pub members: Compared,
    /// Comparison of the entry roots; never `Far`.
    pub entries: Compared,
}

/// Roots of a BEAT; a joining member sends none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Roots {
    /// Live root of the member tree.
    pub members: u32,
    /// Root of the entries settled at T = second(clock) - settle seconds.
    pub entries: u32,
    /// Living members known, self included, saturated.
    pub living: u16,
}

/// A heartbeat: 27 B, 17 B while joining.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beat {
    /// Sequence number of the edge, or of the request when `once`.
    pub seq: u32,
    /// Sender's hybrid clock.
    pub clock: Stamp,
    /// Sender's settle time S in whole seconds.
    pub settle_secs: u8,
    /// A contact or confirmation: feeds no window.
    pub once: bool,
    /// The sender has received nothing for long (`D15`).
    pub deaf: bool,
    /// None while joining.
    pub roots: Option<Roots>,
}

/// One tree position and the sender's digests of its 16 children.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalkItem {
    /// Level of the position; 0 is the root.
    pub level: u8,
    /// Index within the level.
    pub index: u16,
    /// Salted digests of its children.
    pub children: [u32; 16],
}

/// Answer for one position: which children differ, and the responder's digests of the children of each of those.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiffItem {
    /// Level of the position asked about.
    pub level: u8,
    /// Its index.
    pub index: u16,
    /// Bit i: child i differs.
    pub bitmap: u16,
    /// For each set bit from low to high: the responder's 16 digests of that child. May be shorter than the bitmap says
    /// when the answer was cut off; those are asked again.
    pub children: Vec<[u32; 16]>,
}

/// One record in a LIST: 16 bits of its place and 32 of its version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ListTag {
    /// Bucket; on the wire the step from the one before, and nothing where the range has one bucket only.
    pub bucket: u16,
    /// [`crate::record::RecordHasher::tag`] of the place.
    pub tag: u16,
    /// Version tag: of a [`RumorId`] for entries, `member_version` for members.
    pub version: u32,
}

/// All records of the sender in a range of buckets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListRange {
    /// First bucket.
    pub first: u16,
    /// Last bucket, inclusive.
    pub last: u16,
    /// In order of bucket, tag, version.
    pub tags: Vec<ListTag>,
}

/// A page of records in order of their place.
#[derive(Clone, PartialEq, Debug)]
pub struct Page {
    /// Which records.
    pub tree: Tree,
    /// Place this page starts at (inclusive).
    pub from: u64,
    /// Place the next page starts at.
    pub next: u64,
    /// No more follow.
    pub last: bool,
    /// The records.
    pub records: Vec<Record>,
    /// Members only: running suspicions.
    pub claims: Vec<Claim>,
}

/// Status of an ANSWER.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum AnswerStatus {
    /// The payload is the answer.
    Ok = 0,
    /// No responder there.
    None = 1,
    /// The responder failed; the payload is its message.
    Error = 2,
}

/// What travels. Sizes in the comments include the three bytes of kind and length.
#[derive(Clone, PartialEq, Debug)]
pub enum Message {
    /// 27 B (17 joining). Answered by ACK at once.
    Beat(Beat),
    /// 8 B; relayed 16 B with the origin it is to be passed to.
    Ack {
        /// Of the BEAT or PING.
        seq: u32,
        /// What it says.
        flags: AckFlags,
        /// Relayed: for whom.
        origin: Option<MemberId>,
    },
    /// 7 B; relayed 15 B.
    Ping {
        /// Sequence number of the asker.
        seq: u32,
        /// Relayed: for whom the relay asks.
        origin: Option<MemberId>,
    },
    /// 15 B: please ping the target for me.
    PingVia {
        /// Sequence number of the asker.
        seq: u32,
        /// Whom.
        target: MemberId,
    },
    /// 7 B: the relay has the request.
    Receipt {
        /// Of the PING_VIA.
        seq: u32,
    },
    /// 4 B + 11, 21 or 31 B each with two bytes of incarnation (one byte less below 128). At most [`CLAIMS_MAX`].
    Claims(Vec<Claim>),
    /// 5 B + record.
    Record {
        /// Hops from the origin, [`HOP_COLD`]: not to be pushed on.
        hop: u8,
        /// The record.
        record: Record,
    },
    /// 4 B + 6 B each: records the sender has.
    IHave {
        /// Sent by an anti-entropy session.
        repair: bool,
        /// Too large for datagrams: ask over a stream.
        large: bool,
        /// Which.
        ids: Vec<RumorId>,
    },
    /// 4 B + 6 B each: records the sender wants.
    Want {
        /// Sent by an anti-entropy session.
        repair: bool,
        /// Asked over a stream.
        large: bool,
        /// Which.
        ids: Vec<RumorId>,
    },
    /// Padded to 96 B.
    Hello {
        /// From a CHALLENGE; 0 = none yet.
        cookie: u64,
        /// Make my record a rumor (`J2`).
        spread: bool,
        /// The sender's own record.
        member: Member,
    },
    /// 11 B.
    Challenge {
        /// To be sent back in HELLO.
        cookie: u64,
    },
    /// About 150 B.
    Welcome {
        /// The sender's own record.
        member: Member,
        /// Up to six random living members.
        peers: Vec<(MemberId, SocketAddr)>,
    },
    /// 12 B: pages, please.
    Pull {
        /// Which tree.
        tree: Tree,
        /// Place to start at.
        cursor: u64,
    },
    /// Records in order of place, all of the page's tree.
    Page(Page),
    /// 16 B + 67 B each. Levels up to [`WALK_LEVEL_MAX`].
    Walk {
        /// Of the session.
        seq: u32,
        /// Which tree.
        tree: Tree,
        /// View the session compares; members: 0.
        settled: Second,
        /// Fresh per session.
        salt: u32,
        /// Positions and digests.
        items: Vec<WalkItem>,
    },
    /// Answer to WALK: 12 B + per position 6 B + 64 B for each child.
    Diff {
        /// Of the WALK.
        seq: u32,
        /// Which tree.
        tree: Tree,
        /// Its view.
        settled: Second,
        /// Per position asked.
        items: Vec<DiffItem>,
    },
    /// The asker's records in ranges that differ: 12 B + per range 5 B + per record 6 B and a step of bucket (none in a
    /// range of one bucket, mostly 1 or 2 B else).
    List {
        /// Of the session.
        seq: u32,
        /// Which tree.
        tree: Tree,
        /// Its view.
        settled: Second,
        /// The ranges.
        ranges: Vec<ListRange>,
    },
    /// Ask later, or another: 4 B with a tree, 9 B with an id. Exactly one of the two is given.
    Busy {
        /// A session of this tree.
        tree: Option<Tree>,
        /// The refused transfer; in a datagram a version asked for that is gone.
        id: Option<RumorId>,
    },
    /// 4 B + 6 B each: which of these do you hold (in that version or newer)?
    Poll(Vec<RumorId>),
    /// 4 B + 6 B each: these.
    Seen(Vec<RumorId>),
    /// A payload for one member.
    Mail {
        /// Deduplicates with the sender.
        seq: u32,
        /// Topic.
        topic: Arc<str>,
        /// Payload.
        payload: Arc<[u8]>,
    },
    /// 7 B: MAIL or ANSWER arrived.
    Done {
        /// Of the MAIL, or the query number of the ANSWER.
        seq: u32,
    },
    /// Answer to a query.
    Answer {
        /// Number of the query.
        query: u32,
        /// Kind of answer.
        status: AnswerStatus,
        /// The answer.
        payload: Arc<[u8]>,
    },
    /// 4 B + bytes: the next piece of a message that leaves in turns, on a stream (`R6`). The pieces up to the last one are a
    /// message with its kind and length as in a frame; other messages may come between them.
    Part {
        /// The message is whole now.
        last: bool,
        /// The piece.
        bytes: Arc<[u8]>,
    },
    /// 5 B + 12 B each: when entries were last known equal (`S7`). The sender's own id stands three times: how far back it goes,
    /// since when it or its source has been up, now.
    Heard {
        /// Living members the sender knows.
        living: u16,
        /// Per member.
        table: Vec<(MemberId, Second)>,
    },
}

impl Message {
    /// A record message of an entry.
    pub fn entry(hop: u8, entry: Arc<Entry>) -> Message {
        Message::Record { hop, record: Record::Entry(entry) }
    }
    /// A record message of a member.
    pub fn member(hop: u8, member: Member) -> Message {
        Message::Record { hop, record: Record::Member(member) }
    }
}
