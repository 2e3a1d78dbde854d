//! The protocol's text: what travels between members. See [`Message`] for the kinds and [`codec`] for the bytes.
//!
//! ```text
//! datagram (plain, as this crate sees it; the host seals it):
//!   version u8 | flags u8 | label hash u16 | sender id u64 |  message*      header 12 B
//!   message  = kind u8 | length u16 | body
//! frame (stream): the same header once per frame, messages with  kind u8 | length u32 | body
//! integers little-endian, varint = LEB128
//! ```
//! The host adds a counter (8 B) and a tag (16 B) when sealed, a checksum (8 B) when not.

mod message;

pub use message::*;
