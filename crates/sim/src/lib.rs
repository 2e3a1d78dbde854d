//! The hearsay protocol in virtual time: N state machines, one seeded network, recorded faults, invariants at every step.
//!
//! [`world::World`] is the twin of the runtime's driver: it feeds the same [`hearsay_proto::Gossip`] and drains the same
//! outputs. Two runs of one seed give byte-identical traces.

pub mod ablation;
pub mod acceptance;
pub mod baseline;
pub mod check;
pub mod deletes;
pub mod fault;
pub mod lean;
pub mod network;
pub mod papers;
pub mod phi_paper;
pub mod scenario;
pub mod simulate;
pub mod stats;
pub mod svg;
pub mod swarm;
pub mod world;

pub use network::{Loss, Network};
pub use world::{Host, News, Stall, World};
