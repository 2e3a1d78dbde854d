//! What a seed draws.

use hearsay_proto::rng::Rng;

use super::Case;
use crate::fault::{Fault, Schedule, Timed};
use crate::network::Loss;
use crate::world::Stall;

/// Adds the faults of one kind to a schedule.
type Kind = fn(&mut Draw);

const KINDS: [Kind; 21] = [
    loss,
    duplicate,
    reorder,
    partitions,
    odd_partitions,
    cuts,
    flapping,
    deaf_or_mute,
    crashes,
    mass_restart,
    rolling_restart,
    leaves,
    stalls,
    sleeps,
    clocks,
    uplinks,
    sockets,
    slow,
    swaps,
    moves,
    writes,
];

const RUMORS: [&str; 7] = [
    "adaptive",
    "feedback-counter-2",
    "feedback-counter-1",
    "feedback-coin-2",
    "blind-counter-3",
    "blind-coin-2",
    "blind-coin-1",
];

struct Draw {
    rng: Rng,
    members: usize,
    length_ms: u64,
    schedule: Schedule,
}

impl Draw {
    fn at(&mut self, at_ms: u64, fault: Fault) {
        self.schedule.push(Timed { at_ms: at_ms.min(self.length_ms), fault });
    }
    fn time(&mut self) -> u64 {
        self.rng.below(self.length_ms as usize) as u64
    }
    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.rng.below((high - low) as usize) as u64
    }
    fn host(&mut self) -> usize {
        self.rng.below(self.members)
    }
    /// Hosts of one side of a partition.
    fn side(&mut self) -> Vec<usize> {
        let size = match self.rng.below(3) {
            0 => 1,
            1 => self.members / 2,
            _ => self.rng.below(self.members),
        };
        let mut hosts = self.rng.distinct(size.max(1), self.members);
        hosts.sort_unstable();
        hosts
    }
    /// A partition that mostly ends before the faults do.
    fn part(&mut self, partition: Fault) {
        let at = self.time();
        self.at(at, partition);
        if self.rng.chance(0.7) {
            let until = at + self.between(200, 30_000);
            self.at(until, Fault::Heal);
        }
    }
    fn times(&mut self, most: usize) -> usize {
        1 + self.rng.below(most)
    }
    fn share(&mut self, most: f64) -> f64 {
        // Few digits, so that the case survives being printed.
        (self.rng.unit() * most * 1e3).round() / 1e3
    }
}

/// The case of a seed.
pub fn draw(seed: u64) -> Case {
    let mut rng = Rng::from_number(seed ^ 0x7377_6172_6d00);
    let members = match rng.below(10) {
        0..4 => 2 + rng.below(7),
        4..8 => 9 + rng.below(16),
        _ => 25 + rng.below(40),
    };
    let length_ms = 15_000 + rng.below(75_000) as u64;
    let mode = ["push-pull", "push-pull", "push", "pull"][rng.below(4)];
    let patience_ms = [2_000, 4_000, 4_000, 8_000][rng.below(4)];
    let bytes_per_second = [256_000, 256_000, 60_000][rng.below(3)];
    let mut draw = Draw { rng, members, length_ms, schedule: Vec::new() };
    for kind in KINDS {
        if draw.rng.chance(0.3) {
            kind(&mut draw);
        }
    }
    draw.schedule.sort_by_key(|t| t.at_ms);
    let disks = draw.rng.chance(0.3);
    let mode = if draw.rng.chance(0.15) { "mixed" } else { mode }.to_owned();
    let rumor =
        if draw.rng.chance(0.6) { RUMORS[0] } else { RUMORS[draw.rng.below(RUMORS.len())] }.to_owned();
    Case {
        seed,
        members,
        mode,
        rumor,
        patience_ms,
        bytes_per_second,
        length_ms,
        schedule: draw.schedule,
        disks,
    }
}

fn loss(d: &mut Draw) {
    for _ in 0..d.times(2) {
        let share = d.share(0.3);
        let length = 2.0 + d.share(18.0);
        let model = match d.rng.below(3) {
            0 => Loss::Independent(share),
            1 => Loss::LinkBursts { share, length },
            _ => Loss::HostBursts { share, length },
        };
        let at = d.time();
        d.at(at, Fault::Loss { model });
    }
}

fn duplicate(d: &mut Draw) {
    let (at, share) = (d.time(), d.share(0.5));
    d.at(at, Fault::Duplicate { share });
}

fn reorder(d: &mut Draw) {
    let (at, share) = (d.time(), d.share(0.5));
    d.at(at, Fault::Reorder { share });
}

fn partitions(d: &mut Draw) {
    for _ in 0..d.times(3) {
        let hosts = d.side();
        d.part(Fault::Partition { hosts });
    }
}

/// Not transitive, or open in one direction.
fn odd_partitions(d: &mut Draw) {
    for _ in 0..d.times(2) {
        let (hosts, bridge) = (d.side(), d.host());
        let fault = if d.rng.chance(0.5) { Fault::Bridge { hosts, bridge } } else { Fault::OneWay { hosts } };
        d.part(fault);
    }
}

fn cuts(d: &mut Draw) {
    for _ in 0..d.times(6) {
        let (at, from, to) = (d.time(), d.host(), d.host());
        d.at(at, Fault::Cut { from, to });
        if d.rng.chance(0.5) {
            let until = at + d.between(200, 20_000);
            d.at(until, Fault::Restore { from, to });
        }
    }
}

fn flapping(d: &mut Draw) {
    let (from, to, mut at) = (d.host(), d.host(), d.time());
    let period = d.between(100, 5_000);
    for _ in 0..d.times(12) {
        d.at(at, Fault::Cut { from, to });
        d.at(at + period / 2, Fault::Restore { from, to });
        at += period;
    }
}

fn deaf_or_mute(d: &mut Draw) {
    for _ in 0..d.times(2) {
        let (at, host) = (d.time(), d.host());
        let fault = if d.rng.chance(0.5) { Fault::Deafen { host } } else { Fault::Mute { host } };
        d.at(at, fault);
        let until = at + d.between(500, 20_000);
        d.at(until, Fault::Unplug { host });
    }
}

fn crashes(d: &mut Draw) {
    for _ in 0..d.times(d.members.div_ceil(3)) {
        let (at, host) = (d.time(), d.host());
        d.at(at, Fault::Crash { host });
        if d.rng.chance(0.7) {
            let until = at + d.between(10, 20_000);
            d.at(until, Fault::Start { host });
        }
    }
}

fn mass_restart(d: &mut Draw) {
    let at = d.time();
    for host in 0..d.members {
        let down = at + d.between(0, 1_000);
        let up = down + d.between(1, 1_000);
        d.at(down, Fault::Crash { host });
        d.at(up, Fault::Start { host });
    }
}

fn rolling_restart(d: &mut Draw) {
    let (mut at, gap, down) = (d.time(), d.between(500, 4_000), d.between(10, 9_000));
    for host in 0..d.members {
        d.at(at, Fault::Crash { host });
        d.at(at + down, Fault::Start { host });
        at += gap;
    }
}

fn leaves(d: &mut Draw) {
    for _ in 0..d.times(2) {
        let (at, host) = (d.time(), d.host());
        d.at(at, Fault::Leave { host });
        if d.rng.chance(0.5) {
            let until = at + super::LEAVE_TIME_MS + d.between(10, 10_000);
            d.at(until, Fault::Start { host });
        }
    }
}

fn stalls(d: &mut Draw) {
    for _ in 0..d.times(4) {
        let (at, host) = (d.time(), d.host());
        let kind = if d.rng.chance(0.5) { Stall::Cpu } else { Stall::Io };
        d.at(at, Fault::Stall { host, kind });
        let until = at + d.between(100, 15_000);
        d.at(until, Fault::Resume { host });
    }
}

fn sleeps(d: &mut Draw) {
    for _ in 0..d.times(2) {
        let (at, host) = (d.time(), d.host());
        d.at(at, Fault::Sleep { host });
        let until = at + d.between(100, 40_000);
        d.at(until, Fault::Wake { host });
    }
}

/// Steps stay within the 10 s above which stamps are refused (section 2.3).
fn clocks(d: &mut Draw) {
    for _ in 0..d.times(4) {
        let (at, host) = (d.time(), d.host());
        let offset_ms = d.between(0, 8_000) as i64 - 4_000;
        d.at(at, Fault::Clock { host, offset_ms });
    }
}

fn uplinks(d: &mut Draw) {
    for _ in 0..d.times(2) {
        let (at, host) = (d.time(), d.host());
        let bytes_per_second = d.between(2_000, 100_000) as u32;
        d.at(at, Fault::Uplink { host, bytes_per_second });
    }
}

fn sockets(d: &mut Draw) {
    let (at, host, bytes) = (d.time(), d.host(), d.between(2_000, 40_000) as usize);
    d.at(at, Fault::Socket { host, bytes });
}

fn slow(d: &mut Draw) {
    for _ in 0..d.times(2) {
        let (at, host, micros) = (d.time(), d.host(), d.between(100, 30_000));
        d.at(at, Fault::Slow { host, micros });
        let until = at + d.between(500, 20_000);
        d.at(until, Fault::Slow { host, micros: 0 });
    }
}

fn swaps(d: &mut Draw) {
    for _ in 0..d.times(2) {
        let (at, a, b) = (d.time(), d.host(), d.host());
        d.at(at, Fault::Swap { a, b });
    }
}

fn moves(d: &mut Draw) {
    for _ in 0..d.times(2) {
        let (at, host) = (d.time(), d.host());
        d.at(at, Fault::Move { host });
    }
}

fn writes(d: &mut Draw) {
    let keys = 1 + d.rng.below(100);
    for value in 0..d.times(300) as u32 {
        let (at, host, key) = (d.time(), d.host(), d.rng.below(keys) as u32);
        if d.rng.chance(0.15) {
            d.at(at, Fault::Delete { host, key });
        } else {
            let bytes =
                if d.rng.chance(0.03) { d.between(1_400, 40_000) } else { d.between(16, 400) } as usize;
            d.at(at, Fault::Write { host, key, value, bytes });
        }
    }
}
