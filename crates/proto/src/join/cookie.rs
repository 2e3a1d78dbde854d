//! Proof of address without state, and the limits on answers to strangers (`J6`).

use std::net::{IpAddr, SocketAddr};

use crate::member::MemberId;
use crate::rng::Rng;
use crate::time::Mono;

/// CHALLENGEs per second.
const CHALLENGES_PER_SECOND: f64 = 1_000.0;
/// One WELCOME and one CHALLENGE of any size may always follow a pause.
const DEPTH_MIN: f64 = 3_000.0;
const MINUTE_NS: u64 = 60_000_000_000;

/// Cookies: keyed hash of (address, id, minute) under a secret of the process.
pub(super) struct Cookies {
    secret: [u8; 32],
}

impl Cookies {
    pub(super) fn new(rng: &mut Rng) -> Cookies {
        let mut secret = [0; 32];
        rng.fill(&mut secret);
        Cookies { secret }
    }

    fn of(&self, minute: u64, address: SocketAddr, id: MemberId) -> u64 {
        let mut bytes = Vec::with_capacity(40);
        match address.ip() {
            IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
        }
        bytes.extend_from_slice(&address.port().to_le_bytes());
        bytes.extend_from_slice(&id.0.to_le_bytes());
        bytes.extend_from_slice(&minute.to_le_bytes());
        let hash = blake3::keyed_hash(&self.secret, &bytes);
        let mut word = [0u8; 8];
        word.copy_from_slice(&hash.as_bytes()[..8]);
        u64::from_le_bytes(word).max(1)
    }

    /// Never 0, which stands for none.
    pub(super) fn issue(&self, now: Mono, address: SocketAddr, id: MemberId) -> u64 {
        self.of(now.0 / MINUTE_NS, address, id)
    }

    /// Issued for this address and id in this minute or the one before?
    pub(super) fn check(&self, now: Mono, cookie: u64, address: SocketAddr, id: MemberId) -> bool {
        let minute = now.0 / MINUTE_NS;
        cookie != 0
            && (cookie == self.of(minute, address, id)
                || minute > 0 && cookie == self.of(minute - 1, address, id))
    }
}

/// At most 1,000 CHALLENGEs per second; they and WELCOMEs together at most B/2, over a depth of a tenth of a second: the budget
/// never holds them back, so what they may take at once is what a second may take above the buckets. Who is not welcomed asks
/// again.
pub(super) struct Gate {
    bytes_per_second: f64,
    depth: f64,
    bytes: f64,
    challenges: f64,
    filled: Mono,
}

impl Gate {
    pub(super) fn new(bytes_per_second_max: u64, now: Mono) -> Gate {
        let bytes_per_second = bytes_per_second_max as f64 / 2.0;
        let depth = (bytes_per_second / 10.0).max(DEPTH_MIN);
        Gate { bytes_per_second, depth, bytes: depth, challenges: CHALLENGES_PER_SECOND / 4.0, filled: now }
    }

    fn fill(&mut self, now: Mono) {
        let elapsed = now.since(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        self.bytes = (self.bytes + elapsed * self.bytes_per_second).min(self.depth);
        let challenges = self.challenges + elapsed * CHALLENGES_PER_SECOND;
        self.challenges = challenges.min(CHALLENGES_PER_SECOND / 4.0);
    }

    /// May this many bytes go to a stranger (`challenge`) or newcomer now? Then they are spent.
    pub(super) fn pass(&mut self, now: Mono, bytes: usize, challenge: bool) -> bool {
        self.fill(now);
        if self.bytes < bytes as f64 || challenge && self.challenges < 1.0 {
            return false;
        }
        self.bytes -= bytes as f64;
        self.challenges -= f64::from(u8::from(challenge));
        true
    }
}
