//! Round trips: smoothed per edge, and the longest of late.

use std::time::Duration;

use crate::time::Mono;

/// Samples above this are taken as this: an ACK that waited for a stalled process says nothing about the network.
const SAMPLE_MAX: Duration = Duration::from_secs(1);
/// Half of the span that [`RecentMax`] looks back.
const BUCKET: Duration = Duration::from_secs(15);

/// Smoothed round-trip time and its variation (RFC 6298, section 2, alpha 1/8, beta 1/4).
#[derive(Clone, Copy, Debug)]
pub(super) struct Rtt {
    srtt: Duration,
    rttvar: Duration,
}

impl Rtt {
    /// Adds a sample; the first sets srtt to it and rttvar to half of it.
    pub(super) fn add(rtt: &mut Option<Rtt>, sample: Duration) {
        let sample = sample.min(SAMPLE_MAX);
        *rtt = Some(match *rtt {
            None => Rtt { srtt: sample, rttvar: sample / 2 },
            Some(Rtt { srtt, rttvar }) => {
                Rtt { srtt: (srtt * 7 + sample) / 8, rttvar: (rttvar * 3 + srtt.abs_diff(sample)) / 4 }
            }
        });
    }

    /// Length of a probe round before its clamp: 2 srtt + 4 rttvar (section 4).
    pub(super) fn round(self) -> Duration {
        self.srtt * 2 + self.rttvar * 4
    }

    /// The smoothed round trip.
    pub(super) fn srtt(self) -> Duration {
        self.srtt
    }
}

/// Longest sample of the last 15 to 30 s.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RecentMax {
    now: Option<Duration>,
    before: Option<Duration>,
    since: Mono,
}

impl RecentMax {
    /// Adds a sample.
    pub(super) fn add(&mut self, now: Mono, sample: Duration) {
        let age = now - self.since;
        if age >= BUCKET {
            self.before = self.now.filter(|_| age < BUCKET * 2);
            self.now = None;
            self.since = now;
        }
        self.now = self.now.max(Some(sample.min(SAMPLE_MAX)));
    }

    /// The longest, as of the last sample.
    pub(super) fn get(&self) -> Option<Duration> {
        self.now.max(self.before)
    }
}
