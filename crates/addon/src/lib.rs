//! The binding between the runtime and JavaScript: it converts and decides nothing.
//!
//! Whatever can be slow crosses as packed bytes that JavaScript decodes (`ts/packed.ts` is the other end of
//! [`convert`]'s writer); what happens is queued in a bounded ring that JavaScript drains ([`events`]). Nothing here
//! returns a promise: a start, a leave and a stop end as events, so no pending promise can hold or outlive a thread.
#![deny(clippy::indexing_slicing)]

mod cluster;
mod convert;
mod events;
mod simulate;
mod talk;
mod tools;

use napi_derive::napi;

pub use cluster::NativeCluster;
pub use convert::{JsError, PhiSettings, StartOptions};
pub use simulate::{NativeSimulation, SimulationSettings};
pub use tools::{NativeMerkle, NativePhi, NativeRing, RingEntry, RingTable};

/// Version of this addon; the TypeScript layer refuses another than its own.
#[napi]
pub fn native_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
