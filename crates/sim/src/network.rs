//! The simulated network: delay, loss, duplication, reordering, cuts.

use std::time::Duration;

use hearsay_proto::rng::Rng;
use hearsay_proto::table::Set;
use hearsay_proto::time::Mono;
use serde::{Deserialize, Serialize};

/// How datagrams are lost.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Each datagram on its own with this probability.
    Independent(f64),
    /// Gilbert-Elliott per directed link: this mean share, in bursts of this mean number of consecutive packets.
    LinkBursts {
        /// Mean share lost.
        share: f64,
        /// Mean burst length in packets.
        length: f64,
    },
    /// The same per receiving host.
    HostBursts {
        /// Mean share lost.
        share: f64,
        /// Mean burst length in packets.
        length: f64,
    },
}

/// A group whose hosts reach every other and are reached by all: with it a partition is not transitive.
pub const BRIDGE: u32 = u32::MAX;

/// What the network does to every packet. All draws come from its own stream of randomness.
#[derive(Clone, Debug)]
pub struct Network {
    /// Mean one-way delay; default 0.3 ms.
    pub delay: Duration,
    /// Standard deviation of the delay; lognormal.
    pub delay_deviation: Duration,
    /// Loss.
    pub loss: Loss,
    /// Probability that a datagram arrives twice.
    pub duplicate: f64,
    /// Probability that a datagram is held back by up to `reorder_by`, so that later ones pass it.
    pub reorder: f64,
    /// Most delay of a reordered datagram.
    pub reorder_by: Duration,
    /// Bytes per second of a stream.
    pub stream_bytes_per_second: f64,
    /// Bytes that wait for a limited uplink; the next ones are dropped.
    pub uplink_queue_bytes: f64,
    group: Vec<u32>,
    /// What a host sends to a higher group arrives all the same.
    upwards: bool,
    cut: Set<(u32, u32)>,
    deaf: Vec<bool>,
    mute: Vec<bool>,
    bad_links: Set<(u32, u32)>,
    bad_hosts: Vec<bool>,
    uplinks: Vec<Uplink>,
}

/// A host's way out: unlimited at a rate of zero.
#[derive(Clone, Copy, Debug, Default)]
struct Uplink {
    bytes_per_second: f64,
    free_at: Mono,
}

impl Network {
    /// A clean local network for `hosts` hosts: lognormal delay of mean 0.3 ms, deviation 0.1 ms.
    pub fn lan(hosts: usize) -> Network {
        Network {
            delay: Duration::from_micros(300),
            delay_deviation: Duration::from_micros(100),
            loss: Loss::Independent(0.0),
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::from_millis(50),
            stream_bytes_per_second: 50e6,
            uplink_queue_bytes: 200_000.0,
            group: vec![0; hosts],
            upwards: false,
            cut: Set::new(),
            deaf: vec![false; hosts],
            mute: vec![false; hosts],
            bad_links: Set::new(),
            bad_hosts: vec![false; hosts],
            uplinks: vec![Uplink::default(); hosts],
        }
    }

    /// 40 +- 8 ms.
    pub fn wan(hosts: usize) -> Network {
        let mut net = Network::lan(hosts);
        net.delay = Duration::from_millis(40);
        net.delay_deviation = Duration::from_millis(8);
        net
    }

    /// Room for more hosts.
    pub fn grow(&mut self, hosts: usize) {
        self.group.resize(hosts, 0);
        self.deaf.resize(hosts, false);
        self.mute.resize(hosts, false);
        self.bad_hosts.resize(hosts, false);
        self.uplinks.resize(hosts, Uplink::default());
    }

    /// Puts each host into a group; datagrams pass only within one, and to and from [`BRIDGE`].
    pub fn partition(&mut self, group_of: impl Fn(usize) -> u32) {
        self.upwards = false;
        for (host, group) in self.group.iter_mut().enumerate() {
            *group = group_of(host);
        }
    }

    /// As [`Network::partition`], but datagrams to a higher group pass; streams need both ways and do not.
    pub fn partition_one_way(&mut self, group_of: impl Fn(usize) -> u32) {
        self.partition(group_of);
        self.upwards = true;
    }

    /// Cuts one direction of one link.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from as u32, to as u32));
    }

    /// This host receives nothing.
    pub fn deafen(&mut self, host: usize) {
        self.deaf[host] = true;
    }

    /// Nothing this host sends arrives.
    pub fn mute(&mut self, host: usize) {
        self.mute[host] = true;
    }

    /// Restores one direction of one link.
    pub fn restore(&mut self, from: usize, to: usize) {
        self.cut.remove(&(from as u32, to as u32));
    }

    /// This host hears again, and is heard.
    pub fn open_ears_and_mouth(&mut self, host: usize) {
        self.deaf[host] = false;
        self.mute[host] = false;
    }

    /// Limits what a host sends; zero is no limit.
    pub fn limit_uplink(&mut self, host: usize, bytes_per_second: f64) {
        self.uplinks[host].bytes_per_second = bytes_per_second;
    }

    /// Bytes per second of a stream from this host.
    pub fn stream_rate(&self, host: usize) -> f64 {
        let own = self.uplinks[host].bytes_per_second;
        if own > 0.0 { own.min(self.stream_bytes_per_second) } else { self.stream_bytes_per_second }
    }

    /// A packet of this size enters a host's uplink: how long it waits and takes; none if the queue is full.
    pub fn enter_uplink(&mut self, now: Mono, host: usize, bytes: usize) -> Option<Duration> {
        let link = &mut self.uplinks[host];
        if link.bytes_per_second <= 0.0 {
            return Some(Duration::ZERO);
        }
        let waiting = link.free_at.since(now).as_secs_f64() * link.bytes_per_second;
        if waiting + bytes as f64 > self.uplink_queue_bytes {
            return None;
        }
        link.free_at = link.free_at.max(now) + Duration::from_secs_f64(bytes as f64 / link.bytes_per_second);
        Some(link.free_at.since(now))
    }

    /// Ends partitions, cuts, deafness and muteness; loss, duplication and reordering stay.
    pub fn heal(&mut self) {
        self.group.fill(0);
        self.upwards = false;
        self.cut.clear();
        self.deaf.fill(false);
        self.mute.fill(false);
    }

    /// May a packet pass from one host to another at all?
    pub fn connected(&self, from: usize, to: usize) -> bool {
        let (a, b) = (self.group[from], self.group[to]);
        (a == b || a == BRIDGE || b == BRIDGE || self.upwards && a < b)
            && !self.mute[from]
            && !self.deaf[to]
            && !self.cut.contains(&(from as u32, to as u32))
    }

    /// One draw of the lognormal delay.
    pub fn draw_delay(&self, rng: &mut Rng) -> Duration {
        let mean = self.delay.as_secs_f64();
        let deviation = self.delay_deviation.as_secs_f64();
        if deviation <= 0.0 || mean <= 0.0 {
            return self.delay;
        }
        let variance = (1.0 + (deviation / mean).powi(2)).ln();
        let location = mean.ln() - variance / 2.0;
        Duration::from_secs_f64((location + variance.sqrt() * normal(rng)).exp())
    }

    /// Is this packet lost? Moves the burst state of its link or host.
    pub fn draw_lost(&mut self, rng: &mut Rng, from: usize, to: usize) -> bool {
        // Mean loss p with mean burst length L: leave the bad state with 1/L, enter it with p / (L (1 - p)); all packets
        // of the bad state are lost.
        let step = |bad: bool, share: f64, length: f64, rng: &mut Rng| {
            if bad { !rng.chance(1.0 / length) } else { rng.chance(share / (length * (1.0 - share))) }
        };
        match self.loss {
            Loss::Independent(p) => p > 0.0 && rng.chance(p),
            Loss::LinkBursts { share, length } => {
                let link = (from as u32, to as u32);
                let bad = step(self.bad_links.contains(&link), share, length, rng);
                if bad {
                    self.bad_links.insert(link);
                } else {
                    self.bad_links.remove(&link);
                }
                bad
            }
            Loss::HostBursts { share, length } => {
                let bad = step(self.bad_hosts[to], share, length, rng);
                self.bad_hosts[to] = bad;
                bad
            }
        }
    }
}

/// Standard normal draw (Box-Muller).
pub fn normal(rng: &mut Rng) -> f64 {
    let u = 1.0 - rng.unit();
    let v = rng.unit();
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_have_the_mean_asked_for() {
        let net = Network::wan(2);
        let mut rng = Rng::from_number(1);
        let mean = (0..20_000).map(|_| net.draw_delay(&mut rng).as_secs_f64()).sum::<f64>() / 20_000.0;
        assert!((mean - 0.040).abs() < 0.0005, "{mean}");
    }

    #[test]
    fn bursts_have_the_share_and_length_asked_for() {
        for loss in [
            Loss::LinkBursts { share: 0.2, length: 10.0 },
            Loss::HostBursts { share: 0.2, length: 10.0 },
            Loss::Independent(0.2),
        ] {
            let mut net = Network::lan(2);
            net.loss = loss;
            let mut rng = Rng::from_number(2);
            let lost: Vec<bool> = (0..400_000).map(|_| net.draw_lost(&mut rng, 0, 1)).collect();
            let share = lost.iter().filter(|&&l| l).count() as f64 / lost.len() as f64;
            let bursts = lost.windows(2).filter(|w| !w[0] && w[1]).count() as f64;
            let length = share * lost.len() as f64 / bursts;
            assert!((share - 0.2).abs() < 0.01, "{loss:?} {share}");
            let expected = if matches!(loss, Loss::Independent(_)) { 1.25 } else { 10.0 };
            assert!((length / expected - 1.0).abs() < 0.05, "{loss:?} {length}");
        }
    }

    #[test]
    fn uplinks_queue_and_overflow() {
        let mut net = Network::lan(2);
        assert_eq!(net.enter_uplink(Mono(0), 0, 1_000_000), Some(Duration::ZERO));
        net.limit_uplink(0, 100_000.0);
        assert_eq!(net.enter_uplink(Mono(0), 0, 1_000), Some(Duration::from_millis(10)));
        assert_eq!(net.enter_uplink(Mono(5_000_000), 0, 1_000), Some(Duration::from_millis(15)));
        assert_eq!(net.enter_uplink(Mono(0), 0, 199_000), None);
        assert_eq!(net.enter_uplink(Mono(1_000_000_000), 0, 1_000), Some(Duration::from_millis(10)));
        assert_eq!((net.stream_rate(0), net.stream_rate(1)), (100_000.0, 50e6));
    }

    #[test]
    fn partitions_cuts_deaf_and_mute_end_with_heal() {
        let mut net = Network::lan(4);
        net.partition(|h| u32::from(h >= 2));
        assert!(net.connected(0, 1) && !net.connected(1, 2));
        net.partition(|h| [0, BRIDGE, 1, 1][h]);
        assert!(!net.connected(0, 2) && net.connected(0, 1) && net.connected(1, 3) && net.connected(3, 1));
        net.partition_one_way(|h| u32::from(h >= 2));
        assert!(net.connected(0, 2) && !net.connected(2, 0));
        net.heal();
        assert!(net.connected(2, 0));
        net.cut(0, 1);
        assert!(!net.connected(0, 1) && net.connected(1, 0));
        net.deafen(3);
        net.mute(2);
        assert!(!net.connected(0, 3) && net.connected(3, 0) && !net.connected(2, 0) && net.connected(0, 2));
        net.heal();
        assert!((0..4).all(|a| (0..4).all(|b| net.connected(a, b))));
    }
}
