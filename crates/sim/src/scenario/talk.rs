//! Broadcasts and queries.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hearsay_proto::Event;
use hearsay_proto::member::Tags;
use hearsay_proto::rng::Rng;
use hearsay_proto::time::Mono;
use hearsay_proto::wire::AnswerStatus;
use serde::Serialize;

use super::{Outcome, Settings, ms};
use crate::world::World;

const SENDERS: usize = 4;
const EACH: usize = 25;
const CUT_EACH: usize = 10;

/// Figures of [`broadcast`].
#[derive(Clone, Debug, Serialize)]
pub struct BroadcastFigures {
    /// Broadcasts sent.
    pub sent: usize,
    /// Mean time until the last member has one, while nobody is cut off, ms.
    pub last_ms_mean: f64,
    /// Worst of them.
    pub last_ms_max: f64,
    /// Members cut off for 10 s.
    pub cut: usize,
    /// From the heal until the last of them has everything, s.
    pub healed_s: Option<f64>,
    /// Deliveries that were skipped as lost, all members together.
    pub skipped: u64,
    /// Bytes per member and broadcast beyond the idle load, while nobody is cut off.
    pub bytes_per_broadcast: f64,
    /// From the call of `reached` for one more to its answer, ms.
    pub reached_ms: Option<f64>,
    /// POLLs sent for it, by all.
    pub polls: u64,
}

/// What the users of all hosts heard: per host and sender the numbers in order, and when.
#[derive(Default)]
struct Heard {
    at: BTreeMap<(u32, String), Vec<(Mono, usize)>>,
    skipped: u64,
    read: usize,
}

impl Heard {
    fn read(&mut self, world: &World) {
        for (at, host, event) in world.said.iter().skip(self.read) {
            match event {
                Event::BroadcastReceived { from, payload, .. } => {
                    let number = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
                    let list = self.at.entry((*host, from.to_string())).or_default();
                    list.push((*at, number.unwrap_or(usize::MAX)));
                }
                Event::BroadcastsLagged { dropped, .. } => self.skipped += dropped,
                _ => {}
            }
        }
        self.read = world.said.len();
    }

    fn count(&self, host: usize) -> usize {
        self.at.iter().filter(|((h, _), _)| *h as usize == host).map(|(_, list)| list.len()).sum()
    }
}

/// Every member subscribes. Four members broadcast 25 times each, one each 50 ms in turn; then a tenth of the others is cut off
/// for 10 s, in which each sender broadcasts ten times more; then `reached` is asked for one more. Every member must hear each
/// exactly once, in the order of its sender.
pub fn broadcast(settings: &Settings) -> Outcome<BroadcastFigures> {
    let mut world = settings.world();
    if settings.joined(&mut world, Duration::from_secs(2)).is_none() {
        world.checker.fail("views are not full after 60 s".into());
    }
    for host in 0..settings.members {
        world.command(host, |g, _| g.subscribe("t").is_ok());
    }
    world.run(Duration::from_secs(20));
    let idle_from = world.bytes_sent();
    world.run(Duration::from_secs(20));
    let idle = (world.bytes_sent() - idle_from) as f64 / 20.0;

    let mut rng = Rng::from_number(settings.seed ^ 0xb0);
    let hosts = rng.distinct(settings.members.min(SENDERS), settings.members);
    let (bytes_from, from) = (world.bytes_sent(), world.now);
    let mut sent_at = BTreeMap::new();
    for number in 0..EACH {
        for &host in &hosts {
            say(&mut world, host, number);
            sent_at.insert((World::name(host), number), world.now);
            world.run(Duration::from_millis(50));
        }
    }
    world.run(Duration::from_secs(10));
    let spread = (world.bytes_sent() - bytes_from) as f64 - idle * world.now.since(from).as_secs_f64();
    let mut heard = Heard::default();
    heard.read(&world);
    let mut last: BTreeMap<(String, usize), Mono> = BTreeMap::new();
    for ((_, sender), list) in &heard.at {
        for (at, number) in list {
            let slot = last.entry((sender.clone(), *number)).or_insert(*at);
            *slot = (*slot).max(*at);
        }
    }
    let times: Vec<f64> =
        last.iter().filter_map(|(key, at)| Some(ms(at.since(*sent_at.get(key)?)))).collect();

    let cut: BTreeSet<usize> = (0..settings.members)
        .filter(|host| !hosts.contains(host))
        .take((settings.members / 10).max(1))
        .collect();
    world.network.partition(|host| u32::from(cut.contains(&host)));
    for number in EACH..EACH + CUT_EACH {
        for &host in &hosts {
            say(&mut world, host, number);
        }
        world.run(Duration::from_secs(1));
    }
    world.network.heal();
    let total = hosts.len() * (EACH + CUT_EACH);
    let mut healed = None;
    let start = world.now;
    while world.now.since(start) < Duration::from_secs(40) {
        world.run(Duration::from_millis(50));
        heard.read(&world);
        if healed.is_none() && cut.iter().all(|&host| heard.count(host) >= total) {
            healed = Some(world.now.since(start).as_secs_f64());
        }
    }
    let want: Vec<usize> = (0..EACH + CUT_EACH).collect();
    for host in 0..settings.members {
        for &sender in &hosts {
            let list = heard.at.get(&(host as u32, World::name(sender)));
            let numbers: Vec<usize> = list.into_iter().flatten().map(|(_, number)| *number).collect();
            if numbers != want {
                world.checker.fail(format!("host {host} heard of m{sender}: {numbers:?}"));
            }
        }
    }

    let polls = |world: &World| -> u64 {
        world.up().filter_map(|h| world.gossip(h)).map(|g| g.metrics(world.clock(0)).talk.polls_sent).sum()
    };
    if polls(&world) > 0 {
        world.checker.fail("a POLL was sent though nobody waits".into());
    }
    let host = hosts.first().copied().unwrap_or(0);
    let (start, read) = (world.now, world.said.len());
    let waits = world.command(host, |g, now| {
        let sent = g.broadcast(now, "t", b"last").ok()?;
        g.reached(now, sent.number, sent.version, Duration::from_secs(20)).ok()
    });
    let all = (settings.members as u64, settings.members as u64);
    let done = |world: &World| {
        world.said.iter().skip(read).find_map(|(at, _, event)| match event {
            Event::Confirmed { count, of, .. } => Some((*at, (*count, *of))),
            _ => None,
        })
    };
    world.run_until(Duration::from_secs(21), Duration::from_millis(5), |w| done(w).is_some());
    let answer = done(&world);
    if waits.flatten().is_none() || answer.map(|(_, counted)| counted) != Some(all) {
        world.checker.fail(format!("reached: {answer:?}"));
    }
    let figures = BroadcastFigures {
        sent: total,
        last_ms_mean: times.iter().sum::<f64>() / times.len().max(1) as f64,
        last_ms_max: times.iter().copied().fold(0.0, f64::max),
        cut: cut.len(),
        healed_s: healed,
        skipped: heard.skipped,
        bytes_per_broadcast: spread / (settings.members * hosts.len() * EACH) as f64,
        reached_ms: answer.map(|(at, _)| ms(at.since(start))),
        polls: polls(&world),
    };
    Outcome::of("broadcast", settings, world, figures)
}

fn say(world: &mut World, host: usize, number: usize) {
    let said = world.command(host, |g, now| g.broadcast(now, "t", number.to_string().as_bytes()));
    if !matches!(said, Some(Ok(_))) {
        world.checker.fail(format!("broadcast {number} of host {host} refused: {said:?}"));
    }
}

/// Figures of [`query`].
#[derive(Clone, Debug, Serialize)]
pub struct QueryFigures {
    /// Queries asked.
    pub queries: usize,
    /// Mean time from the call to the end, ms.
    pub all_ms_mean: f64,
    /// Worst of them.
    pub all_ms_max: f64,
    /// Members that did not answer in time, all queries together.
    pub silent: usize,
    /// Bytes per member and query beyond the idle load.
    pub bytes_per_query: f64,
}

/// Twenty queries by random members, one after the other: every second one asks only members whose tag `role` is `db`, which
/// every third has. Hosts whose number ends in 7 have no responder. All others must be asked and heard exactly once.
pub fn query(settings: &Settings) -> Outcome<QueryFigures> {
    const QUERIES: usize = 20;
    let mut world = settings.world();
    if settings.joined(&mut world, Duration::from_secs(2)).is_none() {
        world.checker.fail("views are not full after 60 s".into());
    }
    let db = Tags::from([("role".to_owned(), "db".to_owned())]);
    let is_db = |host: usize| host.is_multiple_of(3);
    let responds = |host: usize| host % 10 != 7;
    for host in 0..settings.members {
        world.command(host, |g, now| {
            let tagged = !is_db(host) || g.update_tags(now, db.clone()).is_ok();
            tagged && (!responds(host) || g.respond("q").is_ok())
        });
    }
    world.run(Duration::from_secs(20));
    let idle_from = world.bytes_sent();
    world.run(Duration::from_secs(20));
    let idle = (world.bytes_sent() - idle_from) as f64 / 20.0;
    let (bytes_from, from) = (world.bytes_sent(), world.now);
    let mut rng = Rng::from_number(settings.seed ^ 0x9e);
    let (mut times, mut silent) = (Vec::new(), 0);
    for number in 0..QUERIES {
        let asker = rng.below(settings.members);
        let filtered = number % 2 == 1;
        let filter = if filtered { db.clone() } else { Tags::new() };
        let mut read = world.said.len();
        let start = world.now;
        let asked = world.command(asker, |g, now| g.query(now, "q", b"?", &filter, Duration::from_secs(10)));
        if !matches!(asked, Some(Ok(_))) {
            world.checker.fail(format!("query {number} refused: {asked:?}"));
        }
        let mut asked: Vec<usize> = Vec::new();
        let mut answered: Vec<String> = Vec::new();
        let mut ended = None;
        while ended.is_none() && world.now.since(start) < Duration::from_secs(12) {
            while let Some((at, host, event)) = world.said.get(read).cloned() {
                read += 1;
                let host = host as usize;
                match event {
                    Event::QueryReceived { query, .. } => {
                        asked.push(host);
                        let name = World::name(host).into_bytes();
                        world.command(host, |g, now| {
                            g.answer(now, query, AnswerStatus::Ok, name.into()).is_ok()
                        });
                    }
                    Event::AnswerReceived { payload, .. } => {
                        answered.push(String::from_utf8_lossy(&payload).into_owned());
                    }
                    Event::QueryEnded { silent, .. } => ended = Some((at, silent.len())),
                    _ => {}
                }
            }
            world.run(Duration::from_millis(1));
        }
        asked.sort_unstable();
        answered.sort_unstable();
        let expected: Vec<usize> =
            (0..settings.members).filter(|&h| responds(h) && (!filtered || is_db(h))).collect();
        let mut names: Vec<String> = expected.iter().map(|&host| World::name(host)).collect();
        names.sort_unstable();
        if asked != expected || answered != names {
            world.checker.fail(format!(
                "query {number}: {} asked and {} answers, expected {}",
                asked.len(),
                answered.len(),
                expected.len()
            ));
        }
        match ended {
            Some((at, not)) => {
                times.push(ms(at.since(start)));
                silent += not;
            }
            None => world.checker.fail(format!("query {number} did not end")),
        }
        world.run(Duration::from_secs(1));
    }
    if silent > 0 {
        world.checker.fail(format!("{silent} members were silent"));
    }
    let spread = (world.bytes_sent() - bytes_from) as f64 - idle * world.now.since(from).as_secs_f64();
    let figures = QueryFigures {
        queries: QUERIES,
        all_ms_mean: times.iter().sum::<f64>() / times.len().max(1) as f64,
        all_ms_max: times.iter().copied().fold(0.0, f64::max),
        silent,
        bytes_per_query: spread / (settings.members * QUERIES) as f64,
    };
    Outcome::of("query", settings, world, figures)
}
