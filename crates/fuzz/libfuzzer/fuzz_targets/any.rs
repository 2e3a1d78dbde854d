//! One entry for every target: `HEARSAY_FUZZ_TARGET` names it.
#![no_main]

use std::sync::LazyLock;

use hearsay_fuzz::targets::TARGETS;

static RUN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("HEARSAY_FUZZ_TARGET").unwrap_or_default();
    let target = TARGETS.iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("HEARSAY_FUZZ_TARGET={name} names no target")).run
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| RUN(data));
