//! The protocol's text: what travels between members. See [`Message`] for the kinds, [`encode_message`] and [`decode`]
//! for the bytes.
//!
//! ```text
//! datagram (plain, as this crate sees it; the host seals it):
//!   version u8 | flags u8 | label hash u16 | sender id u64 |  message*      header 12 B
//!   message  = kind u8 | length u16 | body
//! frame (stream): the same header once per frame, messages with  kind u8 | length u32 | body
//! integers little-endian, varint = LEB128 of u64, minimal;  id = u64, not 0;  counts written "*" follow from the length
//!
//! member  = name (u8 length, UTF-8) | generation u48 | id | revision varint | address | tags | incarnation varint | state u8
//! address = family u8 {4, 6} | 4 or 16 B | port u16
//! tags    = varint count | (key u8 length, UTF-8 | value u8 length, UTF-8)*   keys ascending
//! entry   = key (varint length) | value (varint length) | stamp u64 | writer id | flags u8 | ttl varint if flag 2
//! claim   = u8 (state in bits 0-3, accusers in bits 4-7) | id | incarnation varint | (id | phi u16)*
//! rumor   = bucket u16 | tag u32                                              6 B
//! range   = first u16 | last u16 | n varint | (bucket step varint, if first < last | tag u16 | version u32)*
//!
//!  1 BEAT      seq u32 clock u64 settle u8 flags u8 [members u32 entries u32 living u16]     27 B, joining 17
//!  2 ACK       seq u32 flags u8 [origin id]                                                   8 B, relayed 16
//!  3 PING      seq u32 [origin id]                                                            7 B, relayed 15
//!  4 PING_VIA  seq u32 target id                                                             15 B
//!  5 RECEIPT   seq u32                                                                        7 B
//!  6 CLAIMS    count u8 claim*                                                                4 B + 10..39 each
//!  7 RECORD    hop u8 type u8 {0 member, 1 entry} record                                      5 B + record
//!  8 IHAVE     flags u8 rumor*                                                                4 B + 6 each
//!  9 WANT      flags u8 rumor*                                                                4 B + 6 each
//! 10 HELLO     cookie u64 flags u8 member zeros                                              96 B or more
//! 11 CHALLENGE cookie u64                                                                    11 B
//! 12 WELCOME   member (id address)*                                                          up to 6 peers
//! 13 PULL      tree u8 cursor u64                                                            12 B
//! 14 PAGE      tree u8 from u64 next u64 last u8 n varint record* [members: n varint claim*]
//! 15 WALK      seq u32 tree u8 T u32 salt u32 (level u8 index u16 16 x u32)*                 16 B + 67 each
//! 16 DIFF      seq u32 tree u8 T u32 (level u8 index u16 bitmap u16 n u8 n x 16 x u32)*      12 B + 6 + 64 n each
//! 17 LIST      seq u32 tree u8 T u32 range*                                                  12 B + 5.. each
//! 18 BUSY      tree u8, or rumor                                                              4 B or 9
//! 19 POLL      flags u8 {0} rumor*                                                           4 B + 6 each
//! 20 SEEN      flags u8 {0} rumor*                                                           4 B + 6 each
//! 21 MAIL      seq u32 topic (varint length, UTF-8) payload
//! 22 DONE      seq u32                                                                        7 B
//! 23 ANSWER    query u32 status u8 payload
//! 24 HEARD     living u16 (id T u32)*                                                         5 B + 12 each
//! ```
//! The host adds a counter (8 B) and a tag (16 B) when sealed, a checksum (8 B) when not.
//!
//! A datagram or frame decodes whole or not at all. Kinds of a later version are skipped and counted. What a decoder
//! would refuse is not encoded either: [`encode_message`] writes a message whole or returns false.

mod bytes;
mod decode;
mod encode;
mod error;
mod message;
mod rules;
#[cfg(test)]
mod tests;

pub use decode::{Decoded, Limits, decode, decode_parts, peek_header};
pub use encode::{begin, claim_bytes, encode_message, label_hash, message_bytes, record_bytes};
pub use error::DecodeError;
pub use message::*;
pub use rules::{name_is_valid, tags_are_valid, writable};
