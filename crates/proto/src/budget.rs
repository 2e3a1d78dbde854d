//! The bandwidth budget: one limit, three token buckets (section 6).

use crate::time::Mono;

/// Bytes of IPv4 and UDP headers charged with each datagram.
pub const DATAGRAM_OVERHEAD: usize = 28;

/// Which share a datagram is paid from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Never held back, charged to members: BEAT, ACK, PING, PING_VIA, RECEIPT, direct claims, HELLO, CHALLENGE, WELCOME.
    Detector,
    /// Claims and member records.
    Members,
    /// Users' entries.
    Entries,
    /// Anti-entropy.
    Repair,
}

const SHARES: [f64; 3] = [0.25, 0.5, 0.25];

/// Token buckets in bytes. A full bucket runs over into the others; a class may spend its own tokens plus what each other
/// bucket holds above half of its depth; members may spend all of the others'. A class whose own bucket is full may send one
/// datagram of any size: else a limit so low that a datagram is more than the depth would silence it.
#[derive(Clone, Debug)]
pub struct Budget {
    bytes_per_second: f64,
    tokens: [f64; 3],
    filled: Mono,
}

impl Budget {
    /// Full buckets: together a quarter of a second's bytes.
    pub fn new(bytes_per_second_max: u64, now: Mono) -> Budget {
        let bytes_per_second = bytes_per_second_max as f64;
        let depth = bytes_per_second / 4.0;
        Budget { bytes_per_second, tokens: SHARES.map(|s| s * depth), filled: now }
    }

    fn depth(&self, bucket: usize) -> f64 {
        self.bytes_per_second / 4.0 * SHARES[bucket]
    }

    fn fill(&mut self, now: Mono) {
        let mut over = 0.0;
        let elapsed = now.since(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        for (b, share) in SHARES.iter().enumerate() {
            let depth = self.bytes_per_second / 4.0 * share;
            let full = self.tokens[b] + elapsed * self.bytes_per_second * share;
            over += (full - depth).max(0.0);
            self.tokens[b] = full.min(depth);
        }
        for b in 0..3 {
            let take = over.min(self.depth(b) - self.tokens[b]).max(0.0);
            self.tokens[b] += take;
            over -= take;
        }
        // What the detector took beyond all buckets is paid back by all, else the sum of a second would exceed the limit.
        for b in 1..3 {
            let take = self.tokens[b].min(-self.tokens[0]).max(0.0);
            self.tokens[b] -= take;
            self.tokens[0] += take;
        }
    }

    fn own(class: Class) -> usize {
        match class {
            Class::Detector | Class::Members => 0,
            Class::Entries => 1,
            Class::Repair => 2,
        }
    }

    /// Bytes that `class` may spend now, whole datagrams with their overhead.
    pub fn available(&mut self, now: Mono, class: Class) -> usize {
        self.fill(now);
        let own = Budget::own(class);
        let mut sum = self.tokens[own];
        for b in (0..3).filter(|&b| b != own) {
            let keep = if own == 0 { 0.0 } else { self.depth(b) / 2.0 };
            sum += (self.tokens[b] - keep).max(0.0);
        }
        sum.max(0.0) as usize
    }

    /// Spends `bytes` for `class`, own bucket first, even beyond what is available.
    pub fn spend(&mut self, now: Mono, class: Class, bytes: usize) {
        self.fill(now);
        let own = Budget::own(class);
        let mut rest = bytes as f64;
        let take = rest.min(self.tokens[own].max(0.0));
        self.tokens[own] -= take;
        rest -= take;
        for b in (0..3).filter(|&b| b != own) {
            let keep = if own == 0 { 0.0 } else { self.depth(b) / 2.0 };
            let take = rest.min((self.tokens[b] - keep).max(0.0));
            self.tokens[b] -= take;
            rest -= take;
        }
        self.tokens[own] -= rest;
    }

    /// Spends `bytes` for `class` if they are available.
    pub fn try_spend(&mut self, now: Mono, class: Class, bytes: usize) -> bool {
        self.try_spend_keeping(now, class, bytes, 0)
    }

    /// Spends `bytes` for `class` if `keep` more would still be available to it afterwards.
    pub fn try_spend_keeping(&mut self, now: Mono, class: Class, bytes: usize, keep: usize) -> bool {
        let available = self.available(now, class);
        let own = Budget::own(class);
        let full = self.tokens[own] >= self.depth(own);
        let ok = class == Class::Detector || full || available >= bytes + keep;
        if ok {
            self.spend(now, class, bytes);
        }
        ok
    }

    /// When `bytes` will be available to `class` if nothing else is spent; not later than it takes at the class's own rate.
    pub fn when(&mut self, now: Mono, class: Class, bytes: usize) -> Mono {
        let lack = bytes as f64 - self.available(now, class) as f64;
        let own = Budget::own(class);
        let lack = lack.min(self.depth(own) - self.tokens[own]);
        if lack <= 0.0 {
            return now;
        }
        let rate = self.bytes_per_second * SHARES[own];
        now + std::time::Duration::from_secs_f64((lack / rate).clamp(0.001, 3600.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Datagrams of this size from every class but the detector's until none may leave; their bytes.
    fn all_that_goes(budget: &mut Budget, now: Mono, bytes: usize) -> usize {
        let classes = [Class::Members, Class::Entries, Class::Repair];
        let sent = classes.map(|class| {
            std::iter::from_fn(|| budget.try_spend(now, class, bytes).then_some(bytes)).sum::<usize>()
        });
        sent.iter().sum()
    }

    #[test]
    fn no_second_spends_more_than_the_rate_and_the_depth() {
        let mut budget = Budget::new(100_000, Mono(0));
        let mut spent = 0usize;
        for ms in 0..1000u64 {
            spent += all_that_goes(&mut budget, Mono(ms * 1_000_000), 1428);
        }
        assert!(spent <= 125_000, "{spent}");
        assert!(spent > 115_000, "{spent}");
    }

    #[test]
    fn what_the_detector_takes_is_held_back_from_all_others() {
        let mut budget = Budget::new(100_000, Mono(0));
        let mut spent = 0usize;
        for ms in 0..1000u64 {
            let now = Mono(ms * 1_000_000);
            if ms == 800 {
                assert!(budget.try_spend(now, Class::Detector, 20_000));
                spent += 20_000;
            }
            spent += all_that_goes(&mut budget, now, 500);
        }
        assert!((115_000..=126_000).contains(&spent), "{spent}");
    }

    #[test]
    fn shares_hold_under_pressure_from_all_sides() {
        let mut budget = Budget::new(100_000, Mono(0));
        let mut by = [0usize; 3];
        for ms in 0..20_000u64 {
            let now = Mono(ms * 1_000_000);
            for (i, class) in [Class::Repair, Class::Entries, Class::Members].into_iter().enumerate() {
                while (class != Class::Members || by[i] < 20 * ms as usize)
                    && budget.try_spend(now, class, 500)
                {
                    by[i] += 500;
                }
            }
        }
        assert!(by[0] >= 450_000, "repair keeps its quarter: {by:?}");
        assert!(by[1] >= 900_000, "entries keep their half: {by:?}");
    }

    #[test]
    fn a_datagram_larger_than_the_depth_leaves_when_the_bucket_is_full() {
        let mut budget = Budget::new(10_000, Mono(0));
        let mut spent = 0;
        for ms in 0..10_000u64 {
            let now = Mono(ms * 1_000_000);
            for class in [Class::Repair, Class::Members, Class::Entries] {
                if budget.try_spend(now, class, 1428) {
                    spent += 1428;
                } else {
                    let at = budget.when(now, class, 1428);
                    assert!(at > now && budget.clone().try_spend(at, class, 1428), "{class:?}");
                }
            }
        }
        assert!((95_000..=110_000).contains(&spent), "{spent}");
    }

    #[test]
    fn when_says_a_time_at_which_it_is_so() {
        let mut budget = Budget::new(10_000, Mono(0));
        budget.spend(Mono(0), Class::Entries, 2_500);
        assert!(!budget.try_spend(Mono(0), Class::Entries, 1_000));
        let at = budget.when(Mono(0), Class::Entries, 1_000);
        assert!(at <= Mono(0) + Duration::from_secs(1));
        assert!(budget.try_spend(at, Class::Entries, 1_000));
    }
}
