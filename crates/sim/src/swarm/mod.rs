//! Swarm runs: each seed draws its own subset of faults and sizes (Groce et al. 2012), invariants hold at every step, and
//! after the faults the cluster must become whole within a stated bound.

mod draw;
mod shrink;

use std::collections::BTreeMap;
use std::time::Duration;

use hearsay_proto::Config;
use hearsay_proto::config::{Interest, Loss, Mode};
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Schedule, is_a_value, key_name};
use crate::world::World;

pub use draw::draw;
pub use shrink::shrink;

/// After the last fault every view is full and every root equal within this. Two islands that are too small to hold a
/// dead claim about each other knock at a seed each 5 s with probability 1/4 (`J4`): 22 tries fail once in 600.
pub const WHOLE_WITHIN: Duration = Duration::from_secs(120);
/// For this long afterwards nothing may change any more.
const STAYS_WHOLE: Duration = Duration::from_secs(15);
const JOIN_WITHIN: Duration = Duration::from_secs(2);
/// Least time a disk takes for a batch.
const DISK_LATENCY: Duration = Duration::from_millis(20);
/// Processes of members that left end this long after.
const LEAVE_TIME_MS: u64 = 3_000;

/// Everything that decides a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Seed of the world.
    pub seed: u64,
    /// Members.
    pub members: usize,
    /// "push-pull", "push", "pull", or "mixed": members in turn.
    pub mode: String,
    /// "adaptive", or Demers' loss of interest, as in "feedback-counter-2".
    #[serde(default)]
    pub rumor: String,
    /// Patience.
    pub patience_ms: u64,
    /// Budget per member.
    pub bytes_per_second: u64,
    /// Time of faults.
    pub length_ms: u64,
    /// The faults.
    pub schedule: Schedule,
    /// Members have disks, from which their state comes back.
    #[serde(default)]
    pub disks: bool,
}

/// A run that ended well.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Passed {
    /// Events handled.
    pub steps: u64,
    /// From the last fault to full views and equal roots, s.
    pub whole_s: f64,
    /// Virtual member-hours.
    pub member_hours: f64,
}

/// What went wrong: the first violated invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In words, with hosts and times.
    pub what: String,
}

impl Failure {
    /// The words without numbers and names: shrinking keeps the kind of a failure.
    pub fn kind(&self) -> String {
        let mut kind: String = self.what.chars().filter(|c| !c.is_ascii_digit()).collect();
        kind.truncate(kind.char_indices().nth(60).map_or(kind.len(), |(i, _)| i));
        kind
    }
}

impl Case {
    fn config(&self) -> Config {
        let mut config = Config::lan();
        config.detector.patience = Duration::from_millis(self.patience_ms);
        config.bytes_per_second_max = self.bytes_per_second;
        config.gossip.mode = mode(&self.mode);
        config.gossip.interest = interest(&self.rumor);
        config
    }

    /// A world of its members, none of them up.
    fn world(&self) -> World {
        let mut world = World::new(self.seed, self.members, self.config());
        if self.mode == "mixed" {
            for host in 0..self.members {
                let mut config = self.config();
                config.gossip.mode = [Mode::PushPull, Mode::Push, Mode::Pull][host % 3];
                if host % 2 == 1 {
                    config.gossip.interest = Interest::Adaptive;
                }
                world.configure(host, config);
            }
        }
        if self.disks {
            world.add_disks(DISK_LATENCY);
        }
        world
    }

    /// Prints every datagram sent by or to a host, and what its user was told, up to the bound of [`Case::run`].
    pub fn watch(&self, host: usize) {
        let mut world = self.world();
        let address = world.address(host);
        world.tap = Some(Box::new(move |at, from, to, plain| {
            if from == host || to == address {
                let limits = hearsay_proto::wire::Limits { value_bytes_max: 1 << 20 };
                let decoded =
                    hearsay_proto::wire::decode(plain, &limits, hearsay_proto::wire::Framing::Datagram);
                println!("{at:?} {from} -> {to}: {:?}", decoded.map(|d| d.messages));
            }
        }));
        let mut world = self.play_in(world);
        world.run_until(WHOLE_WITHIN, Duration::from_millis(200), |w| w.views_full() && w.roots_equal());
        for told in world.log.iter().filter(|t| t.host as usize == host || t.subject as usize == host) {
            println!(
                "{:?} host {} was told: {:?} {}",
                told.at,
                told.host,
                told.news,
                World::name(told.subject as usize)
            );
        }
    }

    /// The world of this case after its faults, calm again, with no process of a member that left.
    fn play(&self) -> World {
        self.play_in(self.world())
    }

    fn play_in(&self, mut world: World) -> World {
        for host in 0..self.members {
            let seeds = world.usual_seeds(host);
            world.start(host, &seeds);
            world.run(JOIN_WITHIN / self.members as u32);
        }
        let mut schedule = self.schedule.clone();
        for timed in &self.schedule {
            if let Fault::Leave { host } = timed.fault {
                let at_ms = timed.at_ms + LEAVE_TIME_MS;
                schedule.push(crate::fault::Timed { at_ms, fault: Fault::Crash { host } });
            }
        }
        schedule.sort_by_key(|t| t.at_ms);
        world.play(&schedule, Duration::from_millis(self.length_ms));
        world.calm();
        world
    }

    /// Runs it.
    ///
    /// # Errors
    /// The first violated invariant.
    pub fn run(&self) -> Result<Passed, Failure> {
        self.run_within(WHOLE_WITHIN)
    }

    /// Runs it with another bound than [`WHOLE_WITHIN`].
    ///
    /// # Errors
    /// The first violated invariant.
    pub fn run_within(&self, bound: Duration) -> Result<Passed, Failure> {
        let mut world = self.play();
        check(&mut world)?;
        let whole = world.run_until(bound, Duration::from_millis(200), |w| w.views_full() && w.roots_equal());
        check(&mut world)?;
        let Some(whole) = whole else { return Err(Failure { what: not_whole(&world) }) };
        world.run(STAYS_WHOLE);
        check(&mut world)?;
        if !world.views_full() || !world.roots_equal() {
            return Err(Failure { what: format!("did not stay whole: {}", not_whole(&world)) });
        }
        contents(&world)?;
        Ok(Passed {
            steps: world.steps,
            whole_s: whole.as_secs_f64(),
            member_hours: self.members as f64 * world.now.0 as f64 / 3.6e12,
        })
    }

    /// Hash of every step of the run.
    pub fn trace(&self) -> String {
        let mut world = self.world();
        world.record_trace();
        for host in 0..self.members {
            let seeds = world.usual_seeds(host);
            world.start(host, &seeds);
            world.run(JOIN_WITHIN / self.members as u32);
        }
        world.play(&self.schedule, Duration::from_millis(self.length_ms));
        world.trace()
    }
}

fn mode(name: &str) -> Mode {
    match name {
        "push" => Mode::Push,
        "pull" => Mode::Pull,
        _ => Mode::PushPull,
    }
}

/// "adaptive", or as in "feedback-counter-2".
fn interest(name: &str) -> Interest {
    let mut words = name.split('-');
    let (Some(feedback), Some(loss), Some(k)) = (words.next(), words.next(), words.next()) else {
        return Interest::Adaptive;
    };
    Interest::Demers {
        feedback: feedback == "feedback",
        loss: if loss == "coin" { Loss::Coin } else { Loss::Counter },
        k: k.parse().unwrap_or(1),
    }
}

fn check(world: &mut World) -> Result<(), Failure> {
    match world.checker.failures.first() {
        Some(what) => Err(Failure { what: what.clone() }),
        None => Ok(()),
    }
}

fn not_whole(world: &World) -> String {
    let up = world.up().count();
    let living: Vec<(usize, usize)> = world
        .up()
        .filter_map(|h| world.gossip(h).map(|g| (h, g.living())))
        .filter(|&(_, l)| l != up)
        .collect();
    if living.is_empty() {
        let keys: Vec<usize> = world.up().filter_map(|h| world.gossip(h).map(|g| g.len())).collect();
        return format!("roots differ at {:?}; keys {keys:?}; {}", world.now, differences(world));
    }
    format!("views not full at {:?}: {up} are up, (host, living) {living:?}", world.now)
}

/// Members of which not all hold the same record: name, then (hosts; generation, revision, address, incarnation).
fn differences(world: &World) -> String {
    let mut text = String::new();
    for subject in world.up() {
        let name = World::name(subject);
        let mut versions: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for host in world.up() {
            let held = world.gossip(host).and_then(|g| g.member(&name)).map(|m| {
                let p = &m.profile;
                (p.generation.0, p.revision, p.address.ip(), m.incarnation.0)
            });
            versions.entry(held).or_default().push(host);
        }
        if versions.len() > 1 {
            text += &format!("{name}: {versions:?} ");
        }
    }
    if text.is_empty() { "members are alike".to_owned() } else { text }
}

/// Equal roots must mean equal maps, and every value one that was written.
fn contents(world: &World) -> Result<(), Failure> {
    let maps: Vec<(usize, Vec<_>)> = world
        .up()
        .filter_map(|h| world.gossip(h).map(|g| (h, g.scan(world.clock(h), b"", None, 1_000_000))))
        .collect();
    let Some((first_host, first)) = maps.first() else { return Ok(()) };
    for entry in first {
        let number = std::str::from_utf8(&entry.key).ok().and_then(|k| k.strip_prefix("k/")?.parse().ok());
        if !number.is_some_and(|n| key_name(n).as_bytes() == &*entry.key && is_a_value(n, &entry.value)) {
            return Err(Failure { what: format!("host {first_host} holds what nobody wrote: {entry:?}") });
        }
    }
    for (host, map) in &maps {
        let same = map.len() == first.len()
            && map
                .iter()
                .zip(first)
                .all(|(a, b)| a.key == b.key && a.version == b.version && a.value == b.value);
        if !same {
            return Err(Failure { what: format!("roots are equal, maps of {first_host} and {host} differ") });
        }
    }
    Ok(())
}

/// The command that repeats one seed.
pub fn command(seed: u64) -> String {
    format!("cargo run --release -p hearsay-sim -- swarm --seed {seed} --seeds 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_their_seeds() {
        let kinds: std::collections::BTreeSet<String> = (0..40)
            .flat_map(|seed| draw(seed).schedule)
            .map(|t| {
                let json = serde_json::to_value(&t.fault).unwrap();
                json["fault"].as_str().unwrap().to_owned()
            })
            .collect();
        assert!(kinds.len() >= 20, "40 seeds draw only {kinds:?}");
        for seed in 0..20 {
            let case = draw(seed);
            assert_eq!(case, draw(seed));
            assert!(case.schedule.is_sorted_by_key(|t| t.at_ms));
            let text = serde_json::to_string(&case).unwrap();
            assert_eq!(serde_json::from_str::<Case>(&text).unwrap(), case);
        }
    }

    #[test]
    fn failures_are_alike_whatever_their_numbers() {
        let of = |what: &str| Failure { what: what.into() }.kind();
        assert_eq!(of("host 3 at 1.5s: m4 fell"), of("host 12 at 11.25s: m9 fell"));
        assert_ne!(of("host 3 at 1.5s: m4 fell"), of("roots differ at 9s"));
    }
}
