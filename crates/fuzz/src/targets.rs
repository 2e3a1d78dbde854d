//! The targets: plain functions over bytes that panic when a promise is broken.

use hearsay_proto::wire::{
    DecodeError, Decoded, Framing, HEADER_BYTES, Limits, begin, decode, encode_message, message_bytes,
};

use crate::machine::{pair, single};
use crate::maker::Maker;
use crate::mutate::mutate;

/// A target with the generator of its inputs.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Panics if a promise is broken.
    pub run: fn(&[u8]),
    /// Makes one input.
    pub make: fn(&mut Maker) -> Vec<u8>,
    /// Cases in an ordinary test run.
    pub cases: u32,
}

/// All targets that must hold; the canary is not among them.
pub const TARGETS: &[Target] = &[
    Target { name: "decode_datagram", run: decode_datagram, make: datagrams, cases: 60_000 },
    Target { name: "decode_frame", run: decode_frame, make: frames, cases: 60_000 },
    Target { name: "round_trip", run: round_trip, make: seeds, cases: 20_000 },
    Target { name: "gossip_inputs", run: gossip_inputs, make: scripts, cases: 1_000 },
    Target { name: "gossip_pair", run: gossip_pair, make: scripts, cases: 1_000 },
];

const LIMITS: Limits = Limits { value_bytes_max: 800 };

fn again(decoded: &Decoded, framing: Framing) -> Vec<u8> {
    let mut buf = Vec::new();
    begin(&decoded.header, &mut buf);
    for message in &decoded.messages {
        let before = buf.len();
        assert!(encode_message(message, &mut buf, framing), "decoded, so encodable: {message:?}");
        let bytes = message_bytes(message) - 3 + framing.head_bytes();
        assert_eq!(buf.len() - before, bytes, "message_bytes is exact: {message:?}");
    }
    buf
}

fn decode_any(data: &[u8], framing: Framing) {
    let Ok(decoded) = decode(data, &LIMITS, framing) else {
        return;
    };
    let encoded = again(&decoded, framing);
    match decode(&encoded, &LIMITS, framing) {
        Ok(second) => {
            assert_eq!(second.header, decoded.header);
            assert_eq!(second.messages, decoded.messages);
        }
        Err(error) => assert_eq!(error.name(), "", "what was encoded decodes"),
    }
    assert!(decoded.skipped > 0 || encoded == data, "the encoding is canonical");
}

/// Decoding any datagram never panics; what decodes encodes to the same bytes, and those decode equal.
pub fn decode_datagram(data: &[u8]) {
    decode_any(data, Framing::Datagram);
}

/// The same for frames.
pub fn decode_frame(data: &[u8]) {
    decode_any(data, Framing::Frame);
}

fn seed_of(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Arbitrary valid messages (the bytes are the seed) survive the way through both framings; cut anywhere but between
/// messages, they are refused.
pub fn round_trip(data: &[u8]) {
    let mut maker = Maker::new(seed_of(data));
    let header = maker.header();
    let limits = Limits { value_bytes_max: 900 };
    for framing in [Framing::Datagram, Framing::Frame] {
        let mut buf = Vec::new();
        begin(&header, &mut buf);
        let mut ends = vec![buf.len()];
        let mut messages = Vec::new();
        for _ in 0..1 + maker.rng.below(4) {
            let message = maker.message();
            assert!(encode_message(&message, &mut buf, framing), "{message:?}");
            messages.push(message);
            ends.push(buf.len());
        }
        assert_eq!(decode(&buf, &limits, framing), Ok(Decoded { header, messages, skipped: 0 }));
        let cut = HEADER_BYTES + maker.rng.below(buf.len() - HEADER_BYTES);
        let result = decode(buf.get(..cut).unwrap_or_default(), &limits, framing);
        if ends.contains(&cut) {
            assert!(result.is_ok());
        } else {
            assert_eq!(result, Err(DecodeError::Truncated));
        }
    }
}

/// One member under any sequence of inputs, see [`single`].
pub fn gossip_inputs(data: &[u8]) {
    single(data);
}

/// Two members and a network that loses, repeats, reorders and damages, see [`pair`].
pub fn gossip_pair(data: &[u8]) {
    pair(data);
}

/// Has a bug on purpose: it walks the messages of a datagram and trusts their lengths. A harness that does not find it
/// finds nothing.
pub fn canary(data: &[u8]) {
    let mut rest = data.get(HEADER_BYTES..).unwrap_or_default();
    while let [_, low, high, ..] = rest {
        let end = 3 + usize::from(u16::from_le_bytes([*low, *high]));
        rest = &rest[end..];
    }
}

fn packets(maker: &mut Maker, framing: Framing) -> Vec<u8> {
    if maker.rng.below(8) == 0 {
        let mut noise = maker.noise(200);
        if let Some(version) = noise.first_mut().filter(|_| maker.rng.below(2) == 0) {
            *version = hearsay_proto::wire::WIRE_VERSION;
        }
        return noise;
    }
    let header = maker.header();
    let mut bytes = maker.packet(&header, framing);
    if maker.rng.below(4) > 0 {
        let other = maker.packet(&header, framing);
        mutate(&mut maker.rng, &mut bytes, &other);
    }
    bytes
}

/// Datagrams: valid, damaged, arbitrary.
pub fn datagrams(maker: &mut Maker) -> Vec<u8> {
    packets(maker, Framing::Datagram)
}

/// Frames: valid, damaged, arbitrary.
pub fn frames(maker: &mut Maker) -> Vec<u8> {
    packets(maker, Framing::Frame)
}

/// Eight bytes.
pub fn seeds(maker: &mut Maker) -> Vec<u8> {
    maker.rng.u64().to_le_bytes().to_vec()
}

/// Scripts of inputs: the machine reads any bytes as one.
pub fn scripts(maker: &mut Maker) -> Vec<u8> {
    maker.noise(1_600)
}
