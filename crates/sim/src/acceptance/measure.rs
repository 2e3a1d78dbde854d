//! What the detector's rows are measured from.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hearsay_proto::Config;
use hearsay_proto::rng::Rng;
use hearsay_proto::wire::{self, Framing, Message};

use crate::network::{Loss, Network};
use crate::stats::Quantiles;
use crate::world::{News, Stall, World};

pub(super) const FULL_WITHIN: Duration = Duration::from_secs(120);

/// What befalls one member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blow {
    /// Its process ends.
    Crash,
    /// With those of all partners it chose.
    CrashWithPartners,
    /// It receives nothing.
    Deaf,
    /// Nothing it sends arrives.
    Mute,
    /// It joins, and its process ends within a second.
    CrashYoung,
}

/// Times from a blow, in seconds.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// To the first suspicion anywhere.
    pub first_suspicion: Quantiles,
    /// To the last healthy member that learns of the death.
    pub last_member: Quantiles,
    /// Blows of which some healthy member had not learnt after two minutes, or whose end left views unlike.
    pub unfinished: usize,
    /// Violated invariants.
    pub failures: Vec<String>,
}

/// A quiet stretch.
#[derive(Clone, Debug, Default)]
pub struct Quiet {
    /// Exposure.
    pub member_hours: f64,
    /// Deaths of healthy members, each once however many views held it.
    pub false_deaths: usize,
    /// Suspicions, counted likewise.
    pub false_suspicions: usize,
    /// Payload bytes per member and second.
    pub payload: f64,
    /// Datagrams per member and second.
    pub datagrams: f64,
    /// Violated invariants.
    pub failures: Vec<String>,
}

/// `members` members with full views on a clean local network, under the `lan` preset, and `spare` hosts that are down.
pub(super) fn bed(members: usize, spare: usize, seed: u64) -> World {
    bed_of(members, spare, seed, Config::lan(), false)
}

/// `members` members with full views and `spare` hosts that are down, on a network that loses nothing yet; `wan`: 40 +- 8 ms
/// one way instead of 0.3 ms.
pub fn bed_of(members: usize, spare: usize, seed: u64, config: Config, wan: bool) -> World {
    let mut world = World::new(seed, members + spare, config);
    if wan {
        world.network = Network::wan(members + spare);
    }
    world.start_whole(members);
    world.run(Duration::from_secs(15));
    if !world.views_full() || !world.roots_equal() {
        world.checker.fail(format!("{members} members did not stay whole"));
    }
    world
}

/// Hosts that a host beats as a partner of its own choice, seen over three beat periods.
fn partners(world: &mut World, host: usize) -> Vec<usize> {
    let seen = Rc::new(RefCell::new(BTreeSet::<SocketAddr>::new()));
    let sink = seen.clone();
    let limits = wire::Limits { value_bytes_max: 1 << 20 };
    world.tap = Some(Box::new(move |_, from, to, plain| {
        if from != host {
            return;
        }
        let Ok(decoded) = wire::decode(plain, &limits, Framing::Datagram) else { return };
        if decoded.messages.iter().any(|m| matches!(m, Message::Beat(beat) if !beat.once)) {
            sink.borrow_mut().insert(to);
        }
    }));
    world.run(Duration::from_secs(6));
    world.tap = None;
    let seen = seen.borrow();
    seen.iter().filter_map(|&a| world.host_at(a)).filter(|&h| h != host).collect()
}

fn buried(world: &World, victim: usize) -> bool {
    let name = World::name(victim);
    world
        .up()
        .filter(|&h| h != victim)
        .all(|h| world.gossip(h).is_none_or(|g| g.member(&name).is_none_or(|m| !m.liveness.is_living())))
}

/// Lets a blow fall `count` times, each after the cluster has come to rest.
pub fn series(
    config: Config,
    wan: bool,
    blow: Blow,
    members: usize,
    loss: f64,
    count: usize,
    seed: u64,
) -> Series {
    let mut world = bed_of(members, usize::from(blow == Blow::CrashYoung), seed, config, wan);
    world.network.loss = Loss::Independent(loss);
    let mut rng = Rng::from_number(seed ^ 0x0062_6c6f_7700);
    let (mut first, mut last) = (Vec::new(), Vec::new());
    let mut unfinished = 0;
    for _ in 0..count {
        world.run(Duration::from_secs(10) + rng.up_to(Duration::from_secs(5)));
        let victim = if blow == Blow::CrashYoung { members } else { rng.below(members) };
        let mut down = vec![victim];
        match blow {
            Blow::CrashYoung => {
                let seeds = world.usual_seeds(victim);
                world.start(victim, &seeds);
                let joined = |w: &World| w.gossip(victim).is_some_and(|g| g.living() > 1);
                world.run_until(Duration::from_secs(10), Duration::from_millis(10), joined);
                let young = rng.up_to(Duration::from_secs(1));
                world.run(young);
            }
            Blow::CrashWithPartners => down.extend(partners(&mut world, victim)),
            _ => {}
        }
        let (at, from) = (world.now, world.log.len());
        match blow {
            Blow::Deaf => world.network.deafen(victim),
            Blow::Mute => world.network.mute(victim),
            _ => down.iter().for_each(|&h| world.crash(h)),
        }
        let done = world.run_until(FULL_WITHIN, Duration::from_millis(100), |w| buried(w, victim));
        let times = |wanted: News| {
            world.log[from..]
                .iter()
                .filter(move |t| t.news == wanted && t.subject as usize == victim)
                .map(move |t| t.at.since(at).as_secs_f64())
        };
        match done {
            Some(_) => {
                first.extend(times(News::Suspected).reduce(f64::min));
                last.extend(times(News::Died).reduce(f64::max));
            }
            None => unfinished += 1,
        }
        world.network.heal();
        for &host in down.iter().filter(|&&h| h < members) {
            if !world.is_up(host) {
                let seeds = world.usual_seeds(host);
                world.start(host, &seeds);
            }
        }
        unfinished += usize::from(
            world.run_until(FULL_WITHIN, Duration::from_millis(500), World::views_full).is_none(),
        );
    }
    Series {
        first_suspicion: Quantiles::of(first),
        last_member: Quantiles::of(last),
        unfinished,
        failures: world.checker.failures,
    }
}

/// Nothing happens but loss, for this many member-hours.
pub fn quiet(config: Config, members: usize, loss: Loss, member_hours: f64, seed: u64) -> Quiet {
    let mut world = bed_of(members, 0, seed, config, false);
    world.network.loss = loss;
    world.run(Duration::from_secs(15));
    world.log.clear();
    let datagrams = |w: &World| w.hosts.iter().map(|h| h.datagrams).sum::<u64>();
    let (bytes_from, datagrams_from) = (world.bytes_sent(), datagrams(&world));
    let time = Duration::from_secs_f64(member_hours * 3_600.0 / members as f64);
    world.run(time);
    let member_seconds = member_hours * 3_600.0;
    Quiet {
        member_hours,
        false_deaths: incidents(&world, News::Died, &[News::Revived]),
        false_suspicions: incidents(&world, News::Suspected, &[News::Refuted, News::Died]),
        payload: (world.bytes_sent() - bytes_from) as f64 / member_seconds,
        datagrams: (datagrams(&world) - datagrams_from) as f64 / member_seconds,
        failures: world.checker.failures,
    }
}

/// Payload bytes per member and second by kind of message; "datagrams" stands for headers and seals.
pub fn kinds(members: usize, loss: Loss, time: Duration, seed: u64) -> Vec<(String, f64)> {
    let mut world = bed_of(members, 0, seed, Config::lan(), false);
    world.network.loss = loss;
    world.run(Duration::from_secs(15));
    let seen = Rc::new(RefCell::new(BTreeMap::<String, u64>::new()));
    let sink = seen.clone();
    let around = (wire::HEADER_BYTES + world.config().seal_bytes) as u64;
    let limits = wire::Limits { value_bytes_max: 1 << 20 };
    world.tap = Some(Box::new(move |_, _, _, plain| {
        let mut seen = sink.borrow_mut();
        *seen.entry("datagrams".into()).or_default() += around;
        let Ok(decoded) = wire::decode(plain, &limits, Framing::Datagram) else { return };
        for message in &decoded.messages {
            let text = format!("{message:?}");
            let kind: String = text.chars().take_while(char::is_ascii_alphanumeric).collect();
            *seen.entry(kind).or_default() += wire::message_bytes(message) as u64;
        }
    }));
    world.run(time);
    let per = members as f64 * time.as_secs_f64();
    seen.borrow().iter().map(|(kind, &bytes)| (kind.clone(), bytes as f64 / per)).collect()
}

/// How often a member became the subject of `starts` while no view held it so.
fn incidents(world: &World, starts: News, ends: &[News]) -> usize {
    let mut holders: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    let mut count = 0;
    for told in &world.log {
        let held_by = holders.entry(told.subject).or_default();
        if told.news == starts {
            count += usize::from(held_by.is_empty());
            held_by.insert(told.host);
        } else if ends.contains(&told.news) {
            held_by.remove(&told.host);
        }
    }
    count
}

/// What stalls did.
#[derive(Clone, Debug, Default)]
pub struct Stalled {
    /// Stalls.
    pub stalls: usize,
    /// Members that did not stall and were declared dead somewhere, per round once.
    pub healthy_dead: usize,
    /// Stalled members that were declared dead somewhere.
    pub stalled_dead: usize,
    /// Exposure.
    pub member_hours: f64,
    /// Violated invariants.
    pub failures: Vec<String>,
}

/// Each two minutes `at_once` of 128 members stall for `time`.
pub fn stalls(
    config: Config,
    kind: Stall,
    at_once: usize,
    time: Duration,
    rounds: usize,
    seed: u64,
) -> Stalled {
    const MEMBERS: usize = 128;
    let round = Duration::from_secs(120);
    let mut world = bed_of(MEMBERS, 0, seed, config, false);
    let mut rng = Rng::from_number(seed ^ 0x7374_616c);
    let mut result = Stalled::default();
    for _ in 0..rounds {
        let from = world.log.len();
        let stalled = rng.distinct(at_once, MEMBERS);
        stalled.iter().for_each(|&h| world.stall(h, kind));
        world.run(time);
        stalled.iter().for_each(|&h| world.resume(h));
        world.run(round.saturating_sub(time));
        let died: BTreeSet<usize> =
            world.log[from..].iter().filter(|t| t.news == News::Died).map(|t| t.subject as usize).collect();
        result.stalls += at_once;
        result.stalled_dead += died.iter().filter(|h| stalled.contains(h)).count();
        result.healthy_dead += died.iter().filter(|h| !stalled.contains(h)).count();
    }
    result.member_hours = MEMBERS as f64 * rounds as f64 * round.as_secs_f64() / 3_600.0;
    result.failures = world.checker.failures;
    result
}
