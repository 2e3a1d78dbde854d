//! The hearsay protocol.
#![forbid(unsafe_code)]

pub mod phi;
