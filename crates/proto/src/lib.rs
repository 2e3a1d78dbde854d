//! The hearsay protocol: cluster membership, failure detection and shared state by gossip, as one deterministic state
//! machine. No socket, no clock, no entropy, no thread: time, randomness and bytes are arguments.
//!
//! The host (the `hearsay-runtime` crate, or the simulator) feeds [`gossip::Gossip`] with datagrams, frames and timeouts
//! and drains [`output::Output`] until it says `Wait`. The rules are numbered in this crate's README.
#![forbid(unsafe_code)]

pub mod absence;
pub mod budget;
pub mod config;
pub mod confirm;
pub mod detector;
pub mod entry;
pub mod gossip;
pub mod image;
pub mod join;
pub mod member;
pub mod merkle;
pub mod metrics;
pub mod output;
pub mod persist;
pub mod phi;
pub mod record;
pub mod replica;
pub mod ring;
pub mod rng;
pub mod roster;
pub mod rumors;
pub mod store;
pub mod sync;
pub mod table;
pub mod talk;
pub mod time;
pub mod transfer;
pub mod wire;

pub use config::Config;
pub use gossip::{Gossip, Identity, Seed};
pub use output::{CallError, Event, Output};
