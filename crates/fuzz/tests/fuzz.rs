//! The targets over seeded inputs, and the canary that must fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use hearsay_fuzz::harness::{attempt, hunt, setting};
use hearsay_fuzz::machine::{Reach, pair, single};
use hearsay_fuzz::maker::Maker;
use hearsay_fuzz::targets::{TARGETS, Target, canary, datagrams, decode_datagram, scripts};

fn hold(name: &str) {
    let target: &Target = TARGETS.iter().find(|t| t.name == name).unwrap();
    let cases = u64::from(target.cases) * setting("HEARSAY_FUZZ_CASES", 1);
    let cases = u32::try_from(cases).unwrap();
    if let Err(failure) = hunt(target.run, target.make, setting("HEARSAY_FUZZ_SEED", 1), cases) {
        panic!("{name}: {failure:?}");
    }
}

#[test]
fn decoding_any_datagram_is_total_and_canonical() {
    hold("decode_datagram");
}

#[test]
fn decoding_any_frame_is_total_and_canonical() {
    hold("decode_frame");
}

#[test]
fn arbitrary_messages_survive_the_way() {
    hold("round_trip");
}

#[test]
fn a_member_survives_any_inputs() {
    hold("gossip_inputs");
}

#[test]
fn two_members_survive_any_network() {
    hold("gossip_pair");
}

#[test]
fn the_harness_finds_the_planted_bug_and_cuts_it_down() {
    let failure = hunt(canary, datagrams, 1, 2_000).unwrap_err();
    assert!(failure.input.len() <= 16, "{failure:?}");
    assert!(failure.message.contains("out of range"), "{failure:?}");
    assert_eq!(attempt(canary, &failure.input), Err(failure.message.clone()), "a failure repeats");
    assert_eq!(attempt(decode_datagram, &failure.input), Ok(()), "the real decoder has no such bug");
    assert_eq!(hunt(canary, datagrams, 1, 2_000).unwrap_err(), failure, "equal seeds find equal failures");
}

#[test]
fn inputs_are_neither_all_valid_nor_all_refused() {
    use hearsay_proto::wire::{DecodeError, Framing, Limits, decode};
    let mut valid = 0;
    let mut causes = std::collections::BTreeSet::new();
    for seed in 0..60_000 {
        let bytes = datagrams(&mut Maker::new(seed));
        match decode(&bytes, &Limits { value_bytes_max: 800 }, Framing::Datagram) {
            Ok(_) => valid += 1,
            Err(error) => _ = causes.insert(error),
        }
    }
    assert!((15_000..45_000).contains(&valid), "{valid}");
    let missed: Vec<_> = DecodeError::ALL.iter().filter(|e| !causes.contains(e)).collect();
    assert!(missed.iter().all(|e| matches!(e, DecodeError::Messages)), "{missed:?}");
}

/// Over 250 scripts: runs that end with others known; runs that end with keys; datagrams of known members; frames; suspicions
/// and deaths.
fn reach(run: fn(&[u8]) -> Reach) -> [u64; 5] {
    (0..250).map(|seed| run(&scripts(&mut Maker::new(seed)))).fold([0; 5], |sum, r| {
        let of = [u64::from(r.members > 1), u64::from(r.keys > 0), r.datagrams, r.frames, r.deaths];
        std::array::from_fn(|i| sum[i] + of[i])
    })
}

#[test]
fn scripts_get_deep() {
    let [members, _, datagrams, frames, deaths] = reach(single);
    println!("single: {members} {datagrams} {frames} {deaths}");
    assert!(members > 150 && datagrams > 1_000 && frames > 500 && deaths > 200);
    let [members, _, datagrams, _, deaths] = reach(pair);
    println!("pair: {members} {datagrams} {deaths}");
    assert!(members > 100 && datagrams > 1_500 && deaths > 30);
}

#[test]
fn scripts_write_and_replicate_keys() {
    let keys = [reach(single)[1], reach(pair)[1]];
    println!("keys: {keys:?}");
    assert!(keys[0] > 50 && keys[1] > 20, "{keys:?}");
}

/// Inputs that once broke a promise, by target.
const FOUND: &[(&str, &str)] = &[
    // A founder that was told to join sent HELLOs without end: the gap between them was doubled from zero.
    ("gossip_pair", "3627688cb9b0147ee3e9e8"),
];

#[test]
fn what_was_found_stays_mended() {
    for (name, hex) in FOUND {
        let target = TARGETS.iter().find(|t| t.name == *name).unwrap();
        let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
        let input: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        assert_eq!(attempt(target.run, &input), Ok(()), "{name} {hex}");
    }
}
