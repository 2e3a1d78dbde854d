//! Damage to bytes.

use hearsay_proto::rng::Rng;

/// Damages `bytes` in one to four places; `other` lends material for splices.
pub fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=rng.below(4) {
        once(rng, bytes, other);
    }
}

fn once(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = rng.below(bytes.len());
    let length = 1 + rng.below(16);
    let end = (at + length).min(bytes.len());
    match rng.below(9) {
        0 | 1 => {
            let bit = 1 << rng.below(8);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= bit;
            }
        }
        2 => {
            let value = [0, 1, 0x7f, 0x80, 0xff].get(rng.below(5)).copied().unwrap_or(0);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..end)),
        5 => {
            let copy = bytes.get(at..end).map(<[u8]>::to_vec).unwrap_or_default();
            bytes.splice(at..at, copy);
        }
        6 => {
            let mut noise = vec![0u8; length];
            rng.fill(&mut noise);
            bytes.splice(at..at, noise);
        }
        7 => {
            let from = rng.below(other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(other.get(from..).unwrap_or_default());
        }
        _ => {
            let tail = other.get(at..).unwrap_or_default();
            bytes.truncate(at);
            bytes.extend_from_slice(tail);
        }
    }
}
