//! A socket that fails on and on rests between tries, and is given up at last.

use std::time::{Duration, Instant};

/// Errors in a row that end a try. Answers of ICMP come as errors too, on some systems one for each datagram sent.
const ERRORS_MAX: u32 = 64;
/// The first rest; then doubling.
const REST: Duration = Duration::from_millis(10);
const REST_MAX: Duration = Duration::from_secs(1);
/// Tries in a row that end in errors before the socket is given up: after about four seconds.
const TRIES_MAX: u32 = 11;

/// Errors of one socket since it last gave a datagram, or said that there is none.
#[derive(Default)]
pub(crate) struct Rest {
    errors: u32,
    tries: u32,
    until: Option<Instant>,
}

impl Rest {
    /// The socket works.
    pub(crate) fn works(&mut self) {
        *self = Rest::default();
    }

    /// An error. True if the socket is to be given up.
    pub(crate) fn fails(&mut self, now: Instant) -> bool {
        self.errors += 1;
        if self.errors < ERRORS_MAX {
            return false;
        }
        let rest = REST.saturating_mul(1 << self.tries.min(TRIES_MAX)).min(REST_MAX);
        self.errors = 0;
        self.tries += 1;
        self.until = Some(now + rest);
        self.tries >= TRIES_MAX
    }

    /// When the rest that lasts at this time ends.
    pub(crate) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails until it rests; how long, and whether it is given up.
    fn one_try(rest: &mut Rest, now: Instant) -> (Duration, bool) {
        let mut over = false;
        while rest.until(now).is_none() {
            over = rest.fails(now);
        }
        (rest.until(now).unwrap() - now, over)
    }

    #[test]
    fn rests_grow_to_a_second_and_end() {
        let (mut rest, mut now, mut rests) = (Rest::default(), Instant::now(), Vec::new());
        for _ in 0..TRIES_MAX - 1 {
            let (length, over) = one_try(&mut rest, now);
            assert!(!over);
            now += length;
            rests.push(length.as_millis());
        }
        assert_eq!(rests, [10, 20, 40, 80, 160, 320, 640, 1_000, 1_000, 1_000]);
        assert!(one_try(&mut rest, now).1);
    }

    #[test]
    fn one_datagram_makes_up_for_all_errors() {
        let (mut rest, now) = (Rest::default(), Instant::now());
        for _ in 0..3 * TRIES_MAX {
            assert_eq!(one_try(&mut rest, now), (REST, false));
            rest.works();
        }
        for _ in 0..ERRORS_MAX - 1 {
            assert!(!rest.fails(now));
        }
        assert_eq!(rest.until(now), None, "answers of ICMP cost no rest");
    }
}
