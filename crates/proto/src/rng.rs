//! The one source of choices: a PRNG the host seeds.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng};

/// Seeded generator for ids, salts, cookies, jitter and peer choice. ChaCha with eight rounds: unpredictable from outside
/// when the host seeds it from the system's entropy, reproducible when the simulator seeds it with a number.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// From 32 bytes of the host's entropy.
    pub fn from_seed(seed: [u8; 32]) -> Rng {
        Rng(ChaCha8Rng::from_seed(seed))
    }

    /// From a number: simulations and tests.
    pub fn from_number(seed: u64) -> Rng {
        Rng(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Uniform 64 bits.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform 32 bits.
    pub fn u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Uniform in `0..n` (0 for `n` = 0), by multiply-shift (Lemire 2019); bias below 2^-32 for `n` < 2^32.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Uniform duration in `[0, max)`.
    pub fn up_to(&mut self, max: std::time::Duration) -> std::time::Duration {
        max.mul_f64(self.unit())
    }

    /// `base` times a uniform factor in `[1 - spread, 1 + spread)`; `spread` in `[0, 1]`.
    pub fn jitter(&mut self, base: std::time::Duration, spread: f64) -> std::time::Duration {
        base.mul_f64((1.0 + spread * (2.0 * self.unit() - 1.0)).max(0.0))
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// Up to `count` distinct numbers of `0..n`, in random order (Floyd's sampling).
    pub fn distinct(&mut self, count: usize, n: usize) -> Vec<usize> {
        let count = count.min(n);
        let mut chosen: Vec<usize> = Vec::with_capacity(count);
        for top in n - count..n {
            let pick = self.below(top + 1);
            let value = if chosen.contains(&pick) { top } else { pick };
            let at = self.below(chosen.len() + 1);
            chosen.insert(at, value);
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_is_distinct_and_in_range() {
        let mut rng = Rng::from_number(1);
        for n in 0..20 {
            for count in 0..25 {
                let mut picked = rng.distinct(count, n);
                assert_eq!(picked.len(), count.min(n));
                picked.sort_unstable();
                picked.dedup();
                assert_eq!(picked.len(), count.min(n));
                assert!(picked.iter().all(|&p| p < n));
            }
        }
    }

    #[test]
    fn equal_seeds_give_equal_streams() {
        let (mut a, mut b) = (Rng::from_number(9), Rng::from_number(9));
        assert!((0..100).all(|_| a.u64() == b.u64()));
        assert_ne!(Rng::from_number(1).u64(), Rng::from_number(2).u64());
    }
}
