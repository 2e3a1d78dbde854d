//! Runs a target over seeded inputs and cuts a failing one down.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::maker::Maker;

/// An input that made a target panic.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// Seed of the run.
    pub seed: u64,
    /// Which case of the run.
    pub case: u32,
    /// The input, cut down as far as it still fails.
    pub input: Vec<u8>,
    /// What the panic said, and where.
    pub message: String,
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex: String = self.input.iter().map(|b| format!("{b:02x}")).collect();
        write!(
            f,
            "seed {} case {}: {}\ninput ({} B): {hex}",
            self.seed,
            self.case,
            self.message,
            self.input.len()
        )
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `run` on `input`; the panic's message if it panics. Panics of the calling thread are not printed meanwhile.
pub fn attempt(run: fn(&[u8]), input: &[u8]) -> Result<(), String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if QUIET.get() {
                let place = info.location().map(ToString::to_string).unwrap_or_default();
                PLACE.with(|p| *p.borrow_mut() = place);
            } else {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(|| run(input)));
    QUIET.set(false);
    result.map_err(|payload| {
        let text = payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_default();
        PLACE.with(|place| format!("{text} at {}", place.borrow()))
    })
}

/// Tries that cutting down may take.
const CUTS_MAX: usize = 2_000;

fn cut_down(run: fn(&[u8]), mut input: Vec<u8>, mut message: String) -> (Vec<u8>, String) {
    let mut tries = 0;
    let mut length = input.len() / 2;
    while length > 0 && tries < CUTS_MAX {
        let mut at = 0;
        while at < input.len() && tries < CUTS_MAX {
            let mut shorter = input.clone();
            shorter.drain(at..(at + length).min(input.len()));
            tries += 1;
            match attempt(run, &shorter) {
                Err(m) => (input, message) = (shorter, m),
                Ok(()) => at += length,
            }
        }
        length /= 2;
    }
    (input, message)
}

/// Runs `run` over `cases` inputs made by `make`. Each case has its own seed, so that one can be run alone.
///
/// # Errors
/// The first [`Failure`], cut down.
pub fn hunt(
    run: fn(&[u8]),
    make: fn(&mut Maker) -> Vec<u8>,
    seed: u64,
    cases: u32,
) -> Result<(), Box<Failure>> {
    for case in 0..cases {
        let mut maker = Maker::new(seed.wrapping_mul(1 << 32).wrapping_add(u64::from(case)));
        let input = make(&mut maker);
        if let Err(message) = attempt(run, &input) {
            let (input, message) = cut_down(run, input, message);
            return Err(Box::new(Failure { seed, case, input, message }));
        }
    }
    Ok(())
}

/// A number from the environment: `HEARSAY_FUZZ_CASES` multiplies the cases, `HEARSAY_FUZZ_SEED` seeds.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
