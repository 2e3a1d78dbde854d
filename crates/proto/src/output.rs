//! All that can ever leave the protocol.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::entry::{Entry, Version};
use crate::image::Batch;
use crate::member::Member;
use crate::time::Mono;
use crate::wire::AnswerStatus;

/// A stream between two members. Even ids are opened by the protocol, odd ones are named by the host at accept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u64);

/// What the host must do next. After [`Output::Wait`] there is nothing more until the next input.
#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    /// Seal the buffer and send it as one datagram.
    Transmit {
        /// To.
        to: SocketAddr,
    },
    /// Connect a stream; answer with `handle_stream_opened` or `handle_stream_closed`.
    Open {
        /// Name of the stream.
        stream: StreamId,
        /// To.
        to: SocketAddr,
    },
    /// Seal the buffer and send it as one frame. At most one frame is under way per stream: the next follows
    /// `handle_stream_writable`.
    Send {
        /// On.
        stream: StreamId,
    },
    /// Close after what was sent.
    Close {
        /// Which.
        stream: StreamId,
    },
    /// Save these rows, all or none, and answer with `handle_persisted` once they would survive a loss of power. At most one
    /// batch is under way; what changes meanwhile is gathered, each key once.
    Persist(Batch),
    /// Tell the user.
    Event(Event),
    /// Nothing to do until this time.
    Wait(Mono),
}

/// Why an entry changed under a watcher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ChangeKind {
    /// New value.
    Set = 0,
    /// Deleted.
    Delete = 1,
    /// Its lifetime ended.
    Expire = 2,
}

/// A change of the local replica.
#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The new state of the key.
    pub entry: Arc<Entry>,
    /// Name of the writer, if still known.
    pub origin: Option<Arc<str>>,
}

/// What a heal cost and brought, at this member.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Healed {
    /// Names of those that came back.
    pub members: Vec<Arc<str>>,
    /// Entries received by anti-entropy, large ones included.
    pub keys_received: u64,
    /// Entries sent likewise.
    pub keys_sent: u64,
    /// Bytes of datagrams and frames both ways for anti-entropy.
    pub bytes: u64,
    /// From the first to the end, in ms.
    pub duration_ms: u64,
}

/// What a user said, as part of what it travelled in; cheap to clone.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Payload {
    bytes: Arc<[u8]>,
    start: usize,
}

impl Payload {
    /// The bytes from `start` on.
    pub fn new(bytes: Arc<[u8]>, start: usize) -> Payload {
        Payload { bytes, start }
    }
}

impl std::ops::Deref for Payload {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} B", self.len())
    }
}

/// What users are told. Past tense.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// A name seen first, or with a higher generation.
    MemberJoined(Member),
    /// Accused.
    MemberSuspected(Member),
    /// Alive again from suspect.
    MemberRefuted(Member),
    /// Declared dead.
    MemberDied(Member),
    /// Left by its own will.
    MemberLeft(Member),
    /// New tags or address.
    MemberUpdated(Member),
    /// Alive again from dead, with the same generation.
    MemberRevived(Member),
    /// The forgetting time of a dead or left member is over.
    MemberForgotten(Member),
    /// The local replica changed.
    StateChanged(Change),
    /// A partition healed.
    PartitionHealed(Healed),
    /// A seed did not answer or does not resolve.
    SeedFailed {
        /// As the user wrote it.
        seed: String,
        /// Why.
        error: String,
    },
    /// Somebody answered, or each seed was tried, or the time is over: start may resolve.
    JoinEnded {
        /// A seed answered.
        joined: bool,
    },
    /// Another member lives under my name; this one stops.
    NameConflict {
        /// The other.
        other: Member,
    },
    /// Away too long: old entries were dropped (`S7`).
    Rejoined {
        /// How many.
        dropped: u64,
    },
    /// The own wall clock is over 10 s off the median of the partners'.
    ClockOff {
        /// Own minus median, ms.
        off_ms: i64,
    },
    /// The leave has spread; the host may stop.
    LeaveEnded,
    /// A broadcast of a topic subscribed to, in the order of its sender's numbers.
    BroadcastReceived {
        /// Name of the sender.
        from: Arc<str>,
        /// Topic.
        topic: Arc<str>,
        /// What it says.
        payload: Payload,
    },
    /// Broadcasts of one sender did not come, whatever their topics; later ones were delivered.
    BroadcastsLagged {
        /// Name of the sender, if a later one told it.
        from: Option<Arc<str>>,
        /// How many.
        dropped: u64,
    },
    /// Mail of a topic subscribed to.
    MailReceived {
        /// Name of the sender.
        from: Arc<str>,
        /// Topic.
        topic: Arc<str>,
        /// What it says.
        payload: Payload,
    },
    /// An own mail arrived, or its time is over.
    MailEnded {
        /// Number that `send` returned.
        number: u32,
        /// Its receiver's process has it.
        delivered: bool,
    },
    /// A query of a topic that is responded to here: answer it by `Gossip::answer`.
    QueryReceived {
        /// Names it for the answer.
        query: u64,
        /// Name of the asker.
        from: Arc<str>,
        /// Topic.
        topic: Arc<str>,
        /// What is asked.
        payload: Payload,
    },
    /// An answer to an own query; members without a responder are left out.
    AnswerReceived {
        /// Number that `query` returned.
        query: u32,
        /// Name of who answers.
        from: Arc<str>,
        /// `Ok`, or `Error` with the text in the payload.
        status: AnswerStatus,
        /// The answer.
        payload: Arc<[u8]>,
    },
    /// All have answered, or the time is over.
    QueryEnded {
        /// Number that `query` returned.
        query: u32,
        /// Names of those who were asked and did not answer.
        silent: Vec<Arc<str>>,
    },
    /// As many as were asked for hold the version, or the time is over.
    Confirmed {
        /// Number that `spread` or `reached` returned.
        waiter: u64,
        /// How many hold it; for `reached` self included.
        count: u64,
        /// How many were asked for.
        of: u64,
    },
}

/// One change of a key as a caller sees it after `set` or `delete`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// The version written.
    pub version: Version,
    /// More is written than the budget lets out: see [`crate::rumors::Rumors::backlogged`].
    pub backlogged: bool,
}

/// A broadcast as its caller sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Its number among the sender's.
    pub number: u32,
    /// The version of its entry.
    pub version: Version,
    /// More is written than the budget lets out: see [`crate::rumors::Rumors::backlogged`].
    pub backlogged: bool,
}

/// A caller's fault, returned by a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallError {
    /// Key empty, too long, or reserved.
    Key {
        /// Bytes given.
        bytes: usize,
        /// Limit.
        bytes_max: usize,
    },
    /// The key begins with U+0000.
    ReservedKey,
    /// Value or payload too long.
    Value {
        /// Bytes given.
        bytes: usize,
        /// Limit.
        bytes_max: usize,
    },
    /// Payload too long.
    Payload {
        /// Bytes given.
        bytes: usize,
        /// Limit.
        bytes_max: usize,
    },
    /// Topic empty or too long.
    Topic {
        /// Bytes given.
        bytes: usize,
        /// Limit.
        bytes_max: usize,
    },
    /// So many are under way already.
    TooMany {
        /// Of what.
        what: &'static str,
        /// Limit.
        max: usize,
    },
    /// No version of this key is known.
    UnknownKey,
    /// Tags too long once encoded.
    Tags {
        /// Bytes given.
        bytes: usize,
        /// Limit.
        bytes_max: usize,
    },
    /// Name empty, too long, or with control characters.
    Name,
    /// The store is full.
    StoreFull,
    /// No such member.
    UnknownMember,
    /// Too many lasting watch edges.
    TooManyObserved {
        /// Limit.
        max: usize,
    },
    /// The member has left.
    Left,
    /// Configuration out of range.
    Config(crate::config::ConfigError),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CallError::Key { bytes, bytes_max } => {
                write!(f, "key must have 1..{bytes_max} bytes, got {bytes}")
            }
            CallError::ReservedKey => f.write_str("key must not begin with U+0000"),
            CallError::Value { bytes, bytes_max } => {
                write!(f, "value must have at most {bytes_max} bytes, got {bytes}")
            }
            CallError::Payload { bytes, bytes_max } => {
                write!(f, "payload must have at most {bytes_max} bytes, got {bytes}")
            }
            CallError::Topic { bytes, bytes_max } => {
                write!(f, "topic must have 1..{bytes_max} bytes, got {bytes}")
            }
            CallError::TooMany { what, max } => write!(f, "at most {max} {what} at once"),
            CallError::UnknownKey => f.write_str("no version of the key is known"),
            CallError::Tags { bytes, bytes_max } => {
                write!(f, "tags must have at most {bytes_max} bytes encoded, got {bytes}")
            }
            CallError::Name => f.write_str("name must be 1..128 bytes of printable UTF-8"),
            CallError::StoreFull => f.write_str("the store is full"),
            CallError::UnknownMember => f.write_str("no such member"),
            CallError::TooManyObserved { max } => write!(f, "at most {max} members can be observed"),
            CallError::Left => f.write_str("this member has left"),
            CallError::Config(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for CallError {}
