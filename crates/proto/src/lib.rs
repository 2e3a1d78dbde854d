//! The hearsay protocol.
