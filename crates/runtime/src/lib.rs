//! The host of one hearsay member: sockets, clock, entropy, keys, seeds and the task that drives
//! [`hearsay_proto::Gossip`].
//!
//! [`start()`] gives a [`Handle`]; a [`Listener`] is told what happens. All clusters of a process share one thread.
#![forbid(unsafe_code)]

mod chores;
mod driver;
mod error;
mod faults;
mod handle;
mod metrics;
mod process;
mod resolve;
mod rest;
mod seal;
mod socket;
mod start;
mod storage;
mod stream;
mod talk;

pub use error::Error;
pub use faults::{DELAY_MAX, Faults, Way};
pub use handle::{Handle, Listener, Options, SCAN_CHUNK_MAX};
pub use metrics::{HostMetrics, Metrics};
pub use process::spawn;
pub use start::start;

pub use hearsay_proto as proto;
