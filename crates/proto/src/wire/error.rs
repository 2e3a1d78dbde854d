//! Why bytes are refused.

use std::fmt;

macro_rules! errors {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a datagram or frame was refused as a whole: always the sender's fault, or damage on the way.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum DecodeError { $($(#[$doc])* $variant,)* }

        impl DecodeError {
            /// All causes.
            pub const ALL: &[DecodeError] = &[$(DecodeError::$variant,)*];

            /// Stable name of the cause, for metrics and logs.
            pub fn name(self) -> &'static str {
                match self { $(DecodeError::$variant => $name,)* }
            }
        }
    };
}

errors! {
    /// Shorter than a header.
    Header = "header",
    /// Another version of the wire format.
    Version = "version",
    /// A message, field or count reaches beyond the end.
    Truncated = "truncated",
    /// Bytes are left in a body.
    Trailing = "trailing",
    /// More messages than [`crate::wire::MESSAGES_MAX`].
    Messages = "messages",
    /// A varint is not minimal, or exceeds 64 bits.
    Varint = "varint",
    /// An undefined bit of a message's flags is set.
    Flags = "flags",
    /// An undefined number of a tree, state, status, record type or boolean.
    Enumeration = "enumeration",
    /// A member id is zero.
    Id = "id",
    /// An address family other than 4 and 6.
    Address = "address",
    /// Text is not UTF-8.
    Utf8 = "utf8",
    /// A name is empty, too long or not printable.
    Name = "name",
    /// Tags are too long, not ascending or not unique.
    Tags = "tags",
    /// A key is empty or too long.
    Key = "key",
    /// A value or payload is too long, or a tombstone has one.
    Value = "value",
    /// A topic is too long.
    Topic = "topic",
    /// A claim's accusers do not go with its state, or one is named twice.
    Claim = "claim",
    /// A member record says dead: deaths travel as claims.
    Liveness = "liveness",
    /// More peers than [`crate::wire::PEERS_MAX`].
    Peers = "peers",
    /// A tree position, range or bitmap that cannot be.
    Position = "position",
    /// Tags of a LIST out of order or outside their range.
    Order = "order",
    /// Padding of a HELLO is not zero, or not as long as it must be.
    Padding = "padding",
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed bytes: {}", self.name())
    }
}

impl std::error::Error for DecodeError {}
