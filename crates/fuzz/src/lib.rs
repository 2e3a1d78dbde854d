//! Any bytes and any sequence of inputs against the protocol, on stable Rust.
//!
//! A [`targets::Target`] is a plain function over bytes that panics when a promise is broken. [`harness::hunt`] runs it over
//! seeded inputs: valid ones, damaged ones, arbitrary ones. A libFuzzer entry may call the same functions.
#![expect(clippy::panic, reason = "a target panics when a promise is broken")]

pub mod harness;
pub mod machine;
pub mod maker;
pub mod mutate;
pub mod targets;
