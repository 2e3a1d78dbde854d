//! Replay window of one sender (as RFC 6479 does it for IPsec).

/// Counters this far below the largest are still told apart.
pub(super) const WINDOW: u64 = 1_024;
/// Twice the window, so that whole words can be cleared ahead of it.
const WORDS: u64 = 2 * WINDOW / 64;

/// The largest counter seen and a ring of bits for those below it.
pub(super) struct Window {
    next: u64,
    bits: [u64; WORDS as usize],
}

impl Default for Window {
    fn default() -> Window {
        Window { next: 0, bits: [0; WORDS as usize] }
    }
}

impl Window {
    /// Was this counter seen, or is it too old to tell?
    pub(super) fn has(&self, counter: u64) -> bool {
        if counter >= self.next {
            return false;
        }
        self.next - 1 - counter >= WINDOW || self.word(counter) & bit(counter) != 0
    }

    /// Notes that this counter was seen.
    pub(super) fn mark(&mut self, counter: u64) {
        if counter >= self.next {
            let (last, now) = (self.next.saturating_sub(1) / 64, counter / 64);
            for word in 1..=(now - last).min(WORDS) {
                if let Some(bits) = self.bits.get_mut(((last + word) % WORDS) as usize) {
                    *bits = 0;
                }
            }
            self.next = counter.saturating_add(1);
        }
        if let Some(bits) = self.bits.get_mut((counter / 64 % WORDS) as usize) {
            *bits |= bit(counter);
        }
    }

    fn word(&self, counter: u64) -> u64 {
        self.bits.get((counter / 64 % WORDS) as usize).copied().unwrap_or(u64::MAX)
    }
}

fn bit(counter: u64) -> u64 {
    1 << (counter % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn agrees_with_a_set_over_random_walks() {
        for start in [0u64, 63, 64, 1_000_000, 1 << 60] {
            let (mut window, mut seen, mut largest) = (Window::default(), BTreeSet::new(), start);
            let mut dice = start.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            for step in 0..50_000u64 {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                let counter = match dice % 10 {
                    0 => largest + dice / 16 % 3_000,
                    1..=4 => largest + 1,
                    _ => largest.saturating_sub(dice / 16 % 1_200),
                };
                let too_old = step > 0 && counter < largest && largest - counter >= WINDOW;
                assert_eq!(window.has(counter), too_old || seen.contains(&counter), "{counter} at {largest}");
                if !window.has(counter) {
                    window.mark(counter);
                    seen.insert(counter);
                    largest = largest.max(counter);
                }
            }
        }
    }
}
