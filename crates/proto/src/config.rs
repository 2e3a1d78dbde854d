//! Configuration: public fields, presets, checked once.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::phi::Model;

/// How payloads travel (`gossip.mode`). Claims are pushed in every mode; anti-entropy backs every mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Push the payload while young, then announce ids.
    PushPull,
    /// Payloads only.
    Push,
    /// Ids only; others ask.
    Pull,
}

/// Why a rumor is dropped for good (Demers et al. 1987, section 1.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// With probability 1/k.
    Coin,
    /// After k (consecutive unnecessary, with feedback) contacts.
    Counter,
}

/// When a rumor goes cold (`gossip.rumor`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// R = ceil(ln N / 3) + 1 ticks.
    Adaptive,
    /// Demers' variants.
    Demers {
        /// Count only contacts that turn out unnecessary.
        feedback: bool,
        /// Coin or counter.
        loss: Loss,
        /// At least 1.
        k: u8,
    },
}

/// Rumor options.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Gossip {
    /// Default push-pull.
    pub mode: Mode,
    /// Tick period while something is hot; default 200 ms.
    pub interval: Duration,
    /// Peers per tick; default 3.
    pub fanout: usize,
    /// Peers of a flush; default 4.
    pub flush_peers: usize,
    /// Smallest gap between two flushes; default 20 ms.
    pub flush_gap: Duration,
    /// Upper bound of the random delay before a flush; default 5 ms.
    pub flush_jitter: Duration,
    /// Copies of a payload pushed, as a share of N; default 0.7.
    pub pushed_share: f64,
    /// Default adaptive.
    pub interest: Interest,
}

/// A rule of the detector that a simulator may switch off, to show what it buys (`combined-protocol.md`, 5.5).
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DetectorRule {
    /// `D1`: all partners are chosen anew when the living have doubled.
    NewChoice,
    /// `D2`: the first beat must be acknowledged.
    FirstBeat,
    /// `D6`: who gets no receipt does not accuse.
    Receipts,
    /// `D8`: members without a record check a suspicion.
    Checkers,
    /// `D9`: one accuser's claim is spread again.
    Reminder,
    /// `D10`: who hears no answer may be deaf and buries nobody.
    MayBeDeaf,
    /// `D10`, whole.
    LastQuestions,
    /// `D11`: contacts after a death.
    Sweep,
    /// `D11`: the dead claim is a rumor.
    DeathRumor,
    /// `D15`: the flag in beats.
    DeafFlag,
}

/// Failure detector options (rules `D1`-`D15`).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Detector {
    /// Model of silence; default normal: phi(t) = -log10(1 - F((t - mu) / max(sigma, `min_std_dev`))), F the normal
    /// distribution (Hayashibara et al. 2004, section V-B). Exponential: t / (mu ln 10). Pekko: normal with its logistic F.
    pub model: Model,
    /// Phi at which silence starts a probe; default 8. The silence limit is the t with phi(t) = threshold: for the normal model
    /// mu + z max(sigma, `min_std_dev`) with z = 5.612 for 8, so 2.56 s on edges that keep h; for the exponential
    /// mu ln 10 x threshold.
    pub threshold: f64,
    /// Samples per window, whose mean mu and population deviation sigma the models take; default 64. Two samples h (1 +- .1) are
    /// given beforehand.
    pub window_size: usize,
    /// Beat period h; default 2 s. A member sends one BEAT each h / edges. Of w watchers the first accuses about
    /// silence limit - h w / (w + 1) + P after a crash.
    pub beat_period: Duration,
    /// Chosen partners k; default 2. Both ends of an edge watch, so a member is watched by k + Poisson(k) others.
    pub partners: usize,
    /// Floor of the standard deviation; default 100 ms, which is .05 h.
    pub min_std_dev: Duration,
    /// Rounds of a probe; default 5. The probe time is P = rounds x r, r = clamp(2 srtt + 4 rttvar, 100 ms, `probe_round_max`)
    /// with the smoothed round trip and its variation of RFC 6298, section 2.
    pub probe_rounds: u32,
    /// Relays per round; default 3. A living member is accused when all `probe_rounds` direct questions and all
    /// (`probe_rounds` - 1) x relays relayed ones are lost.
    pub relays: usize,
    /// Largest length of a probe round; default 250 ms.
    pub probe_round_max: Duration,
    /// Time a suspect has to refute; default 4 s (local 2 s, wan 8 s). From a member's first news of the suspicion: patience
    /// with `accusers` accusers or a dead claim, else 2 x patience. A lone accuser's claim is spread
    /// once more after 1 x patience. The last member knows of a crash at about first suspicion + patience.
    pub patience: Duration,
    /// Accusers that make patience short; default 2, and 1 while only two live.
    pub accusers: usize,
    /// Up to this many living members every pair is an edge; default 8. Idle traffic then grows with N - 1 instead of k.
    pub observe_all_up_to: usize,
    /// Contact period; default 5 s +- 10 %. With probability min(1/2, dead / (dead + living)) the contact goes to a dead member.
    pub contact_period: Duration,
    /// Time after which a member without any answer counts as alone; default 60 s.
    pub alone_after: Duration,
    /// Switched off by a simulator; none in a real member.
    #[doc(hidden)]
    pub without: Option<DetectorRule>,
}

impl Detector {
    pub(crate) fn lacks(&self, rule: DetectorRule) -> bool {
        self.without == Some(rule)
    }
}

/// Anti-entropy options (rules `S1`-`S7`).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AntiEntropy {
    /// Entries younger than this are not compared; whole seconds, 1..=60; default 3.
    pub settle_secs: u8,
    /// Time between a difference and its confirmation; default 1 s.
    pub confirm: Duration,
    /// Least time between two sessions of one requester; default 1 s.
    pub session_gap: Duration,
    /// Random delay before a session; default 400 ms.
    pub session_jitter: Duration,
    /// `S7`; default true. False only for the simulator's canary: values deleted over G ago come back with members that were
    /// away.
    #[doc(hidden)]
    pub absence: bool,
}

/// Sizes and counts, see section 7 of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Living, dead and left members; default 16,384.
    pub members_max: usize,
    /// Longest key; default and ceiling 512 B.
    pub key_bytes_max: usize,
    /// Longest value and payload; default 1 MiB, ceiling 16 MiB.
    pub value_bytes_max: usize,
    /// Entries in the store, tombstones included; default 16 million.
    pub entries_max: usize,
    /// Bytes of keys and values in the store; default 4 GiB.
    pub store_bytes_max: usize,
    /// Hot entries; default 4,096.
    pub hot_entries_max: usize,
    /// Own entries not flushed yet; default 4,096.
    pub unflushed_max: usize,
    /// WANTs under way; default 512.
    pub wants_max: usize,
    /// Need queue; default 65,536.
    pub needs_max: usize,
    /// Change log; default 65,536.
    pub change_log_max: usize,
    /// Bytes of a datagram after sealing; default 1,400 (wan 1,232).
    pub datagram_bytes_max: usize,
}

/// Everything a cluster member can be told. Checked once by [`Config::check`].
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Cluster label: packets of other labels are dropped.
    pub label: String,
    /// Rumors.
    pub gossip: Gossip,
    /// Failure detector.
    pub detector: Detector,
    /// Anti-entropy.
    pub anti_entropy: AntiEntropy,
    /// Bytes each member may send per second, IPv4 and UDP headers included; default 256,000.
    pub bytes_per_second_max: u64,
    /// Time dead and left members are remembered; default 24 h.
    pub forget_dead_after: Duration,
    /// Lifetime of broadcasts; default 60 s.
    pub broadcast_retention: Duration,
    /// Tombstones live this long; default 24 h.
    pub tombstone_lifetime: Duration,
    /// A join without an answer ends after this; default 1 s.
    pub join_timeout: Duration,
    /// Sizes and counts.
    pub limits: Limits,
    /// Bytes the host adds to each plain datagram: 24 sealed, 8 with a checksum.
    pub seal_bytes: usize,
    /// First bound for the round-trip time before any is measured; default 100 ms.
    pub rtt_initial: Duration,
}

impl Config {
    /// Members of one data centre: beats each 2 s, patience 4 s.
    pub fn lan() -> Config {
        Config {
            label: String::new(),
            gossip: Gossip {
                mode: Mode::PushPull,
                interval: Duration::from_millis(200),
                fanout: 3,
                flush_peers: 4,
                flush_gap: Duration::from_millis(20),
                flush_jitter: Duration::from_millis(5),
                pushed_share: 0.7,
                interest: Interest::Adaptive,
            },
            detector: Detector {
                model: Model::Normal,
                threshold: 8.0,
                window_size: 64,
                beat_period: Duration::from_secs(2),
                partners: 2,
                min_std_dev: Duration::from_millis(100),
                probe_rounds: 5,
                relays: 3,
                probe_round_max: Duration::from_millis(250),
                patience: Duration::from_secs(4),
                accusers: 2,
                observe_all_up_to: 8,
                contact_period: Duration::from_secs(5),
                alone_after: Duration::from_secs(60),
                without: None,
            },
            anti_entropy: AntiEntropy {
                settle_secs: 3,
                confirm: Duration::from_secs(1),
                session_gap: Duration::from_secs(1),
                session_jitter: Duration::from_millis(400),
                absence: true,
            },
            bytes_per_second_max: 256_000,
            forget_dead_after: Duration::from_secs(86_400),
            broadcast_retention: Duration::from_secs(60),
            tombstone_lifetime: Duration::from_secs(86_400),
            join_timeout: Duration::from_secs(1),
            limits: Limits {
                members_max: 16_384,
                key_bytes_max: 512,
                value_bytes_max: 1 << 20,
                entries_max: 16_000_000,
                store_bytes_max: 4 << 30,
                hot_entries_max: 4_096,
                unflushed_max: 4_096,
                wants_max: 512,
                needs_max: 65_536,
                change_log_max: 65_536,
                datagram_bytes_max: 1_400,
            },
            seal_bytes: 24,
            rtt_initial: Duration::from_millis(100),
        }
    }

    /// Members of one machine: patience 2 s.
    pub fn local() -> Config {
        let mut c = Config::lan();
        c.detector.patience = Duration::from_secs(2);
        c
    }

    /// Members of several regions: patience 8 s, datagrams of 1,232 B.
    pub fn wan() -> Config {
        let mut c = Config::lan();
        c.detector.patience = Duration::from_secs(8);
        c.limits.datagram_bytes_max = 1_232;
        c.rtt_initial = Duration::from_millis(250);
        c
    }

    /// Longest frame on a stream: a value and 64 KiB around it.
    pub fn frame_bytes_max(&self) -> usize {
        self.limits.value_bytes_max + 64 * 1024
    }

    /// Bytes for messages in one plain datagram: the limit less seal and header.
    pub fn room(&self) -> usize {
        self.limits.datagram_bytes_max.saturating_sub(self.seal_bytes + crate::wire::HEADER_BYTES)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] with the path of the first wrong field as users write it.
    pub fn check(&self) -> Result<(), ConfigError> {
        let d = &self.detector;
        let g = &self.gossip;
        let l = &self.limits;
        let rules: [(&'static str, bool, &'static str); 27] = [
            ("cluster", self.label.len() <= 255, "at most 255 bytes"),
            ("failureDetector.threshold", d.threshold.is_finite() && d.threshold > 0.0, "> 0"),
            ("failureDetector.windowSize", (2..=10_000).contains(&d.window_size), "2..10000"),
            ("failureDetector.heartbeatIntervalMs", within(d.beat_period, 50, 600_000), "50..600000"),
            ("failureDetector.partners", (1..=16).contains(&d.partners), "1..16"),
            ("failureDetector.minStdDevMs", within(d.min_std_dev, 0, 600_000), "0..600000"),
            ("failureDetector.probeRounds", (1..=20).contains(&d.probe_rounds), "1..20"),
            ("failureDetector.relays", (1..=16).contains(&d.relays), "1..16"),
            ("failureDetector.probeRoundMaxMs", within(d.probe_round_max, 10, 60_000), "10..60000"),
            ("failureDetector.patienceMs", within(d.patience, 100, 3_600_000), "100..3600000"),
            ("failureDetector.accusers", (1..=2).contains(&d.accusers), "1..2"),
            ("failureDetector.observeAllUpTo", d.observe_all_up_to <= 64, "0..64"),
            ("failureDetector.contactIntervalMs", within(d.contact_period, 100, 3_600_000), "100..3600000"),
            ("gossip.intervalMs", within(g.interval, 10, 60_000), "10..60000"),
            ("gossip.fanout", (1..=16).contains(&g.fanout), "1..16"),
            ("gossip.flushPeers", (1..=16).contains(&g.flush_peers), "1..16"),
            ("gossip.rumor.k", !matches!(g.interest, Interest::Demers { k: 0, .. }), ">= 1"),
            ("antiEntropy.settleMs", (1..=60).contains(&self.anti_entropy.settle_secs), "1000..60000"),
            ("antiEntropy.confirmMs", within(self.anti_entropy.confirm, 100, 60_000), "100..60000"),
            ("bandwidth.bytesPerSecondMax", self.bytes_per_second_max >= 10_000, ">= 10000"),
            ("forgetDeadAfterMs", within(self.forget_dead_after, 1_000, 31_536_000_000), ">= 1000"),
            ("joinTimeoutMs", within(self.join_timeout, 10, 600_000), "10..600000"),
            ("limits.membersMax", (2..=65_535).contains(&l.members_max), "2..65535"),
            ("limits.keyBytesMax", (1..=crate::entry::KEY_BYTES_MAX).contains(&l.key_bytes_max), "1..512"),
            (
                "limits.valueBytesMax",
                (1..=crate::entry::VALUE_BYTES_CEILING).contains(&l.value_bytes_max),
                "1..16777216",
            ),
            ("limits.datagramBytesMax", (1_200..=65_000).contains(&l.datagram_bytes_max), "1200..65000"),
            ("broadcastRetentionMs", within(self.broadcast_retention, 1_000, 3_600_000), "1000..3600000"),
        ];
        match rules.iter().find(|(_, ok, _)| !ok) {
            Some((path, _, must)) => Err(ConfigError { path, must }),
            None => Ok(()),
        }
    }
}

fn within(d: Duration, min_ms: u128, max_ms: u128) -> bool {
    (min_ms..=max_ms).contains(&d.as_millis())
}

/// A seed after resolution by the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seed {
    /// As the user wrote it.
    pub name: String,
    /// What it resolved to, or why not.
    pub addresses: Result<Vec<SocketAddr>, String>,
}

/// A field of [`Config`] out of its range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The field, as users of the TypeScript layer write it.
    pub path: &'static str,
    /// What it must be.
    pub must: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}", self.path, self.must)
    }
}

impl std::error::Error for ConfigError {}
