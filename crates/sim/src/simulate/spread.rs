//! How writes, broadcasts and queries reach everybody.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hearsay_proto::member::Tags;
use hearsay_proto::wire::AnswerStatus;
use hearsay_proto::{Event, Gossip};
use serde::Serialize;

use super::{Bench, Load, Times, ms};
use crate::world::World;

/// Between two writes; one that is not everywhere by then is left to anti-entropy.
const APART: Duration = Duration::from_secs(2);
/// How often it is looked who has it.
const LOOK: Duration = Duration::from_micros(250);

/// Figures of writes or broadcasts.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SpreadFigures {
    /// Until half of the other members had one.
    half_ms: Times,
    /// Until 99 % of them had it.
    most_ms: Times,
    /// Until all of them had it.
    all_ms: Times,
    /// Those that some member had not after two seconds.
    late: usize,
    /// Payload copies sent per member and write.
    copies: f64,
    /// Sent per member and write, beyond the idle load.
    bytes_per_write: f64,
    /// Likewise.
    datagrams_per_write: f64,
    /// Before the first.
    idle: Load,
}

/// Figures of queries.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueryFigures {
    /// From the call until all had answered.
    all_ms: Times,
    /// Members that did not answer in time, all queries together.
    silent: usize,
    /// Sent per member and query, beyond the idle load.
    bytes_per_query: f64,
    /// Before the first.
    idle: Load,
}

impl Bench<'_> {
    pub(super) fn rumor(&mut self, writes: usize, value_bytes: usize) -> SpreadFigures {
        self.spread(
            writes,
            |world, writer, number| {
                let value: Arc<[u8]> = (0..value_bytes).map(|i| (i + number) as u8).collect();
                let key = format!("key/{number}");
                let done = world.command(writer, |g, now| g.set(now, key.as_bytes(), value.clone(), None));
                if !matches!(done, Some(Ok(_))) {
                    world.checker.fail(format!("write {number} refused: {done:?}"));
                }
                (key, value)
            },
            |world, host, (key, value)| {
                let held = |g: &Gossip| Some(g.get(world.clock(host), key.as_bytes())?.value == *value);
                world.gossip(host).and_then(held) == Some(true)
            },
        )
    }

    pub(super) fn broadcast(&mut self, broadcasts: usize, payload_bytes: usize) -> SpreadFigures {
        for host in 0..self.request.members {
            self.world.command(host, |g, _| g.subscribe("t").is_ok());
        }
        self.spread(
            broadcasts,
            |world, sender, number| {
                let from = world.said.len();
                let payload = vec![number as u8; payload_bytes];
                let done = world.command(sender, |g, now| g.broadcast(now, "t", &payload));
                if !matches!(done, Some(Ok(_))) {
                    world.checker.fail(format!("broadcast {number} refused: {done:?}"));
                }
                (BTreeSet::<u32>::new(), from)
            },
            |world, host, (heard, read)| {
                for (_, host, event) in world.said.iter().skip(*read) {
                    if matches!(event, Event::BroadcastReceived { .. }) {
                        heard.insert(*host);
                    }
                }
                *read = world.said.len();
                heard.contains(&(host as u32))
            },
        )
    }

    /// `act` lets a host begin something and gives what is needed to see, with `has`, whether another host has it.
    fn spread<T>(
        &mut self,
        times: usize,
        act: impl Fn(&mut World, usize, usize) -> T,
        has: impl Fn(&World, usize, &mut T) -> bool,
    ) -> SpreadFigures {
        let members = self.request.members;
        let idle = self.idle();
        let copies = |world: &World| -> u64 {
            let of = |h| Some(world.gossip(h)?.metrics(world.clock(h)).rumors.records_sent);
            world.up().filter_map(of).sum()
        };
        let (copies_from, sent_from, from) = (copies(&self.world), self.sent(), self.world.now);
        let (mut half, mut most, mut all) = (Vec::new(), Vec::new(), Vec::new());
        let mut late = 0;
        for number in 0..times {
            let writer = self.rng.below(members);
            let start = self.world.now;
            let mut begun = act(&mut self.world, writer, number);
            let mut missing: Vec<usize> = (0..members).filter(|&h| h != writer).collect();
            let others = missing.len();
            // Members that may still be without it when so many percent have it.
            let without = |percent: usize| others - (others * percent).div_ceil(100);
            loop {
                let before = missing.len();
                missing.retain(|&host| !has(&self.world, host, &mut begun));
                let passed = self.world.now.since(start);
                for (share, list) in [(50, &mut half), (99, &mut most), (100, &mut all)] {
                    if before > without(share) && missing.len() <= without(share) {
                        list.push(ms(passed));
                    }
                }
                if missing.is_empty() || passed >= APART || self.world.is_stopped() {
                    break;
                }
                self.world.run(LOOK);
            }
            late += usize::from(!missing.is_empty());
            self.world.run(APART.saturating_sub(self.world.now.since(start)));
        }
        let elapsed = self.world.now.since(from).as_secs_f64();
        let (sent, copies) = (self.sent(), copies(&self.world) - copies_from);
        if self.world.run_until(super::AT_MOST, Duration::from_millis(100), World::roots_equal).is_none() {
            self.world.checker.fail("roots are not equal a minute after the last write".into());
        }
        let per = (members * times.max(1)) as f64;
        let beyond = |sent: u64, idle: f64| (sent as f64 - idle * elapsed * members as f64) / per;
        SpreadFigures {
            half_ms: Times::of(half),
            most_ms: Times::of(most),
            all_ms: Times::of(all),
            late,
            copies: copies as f64 / per,
            bytes_per_write: beyond(sent.0 - sent_from.0, idle.bytes_per_second),
            datagrams_per_write: beyond(sent.1 - sent_from.1, idle.datagrams_per_second),
            idle,
        }
    }

    pub(super) fn query(&mut self, queries: usize) -> QueryFigures {
        const TIMEOUT: Duration = Duration::from_secs(2);
        let members = self.request.members;
        for host in 0..members {
            self.world.command(host, |g, _| g.respond("q").is_ok());
        }
        let idle = self.idle();
        let (sent_from, from) = (self.sent(), self.world.now);
        let (mut times, mut silent) = (Vec::new(), 0);
        for number in 0..queries {
            let asker = self.rng.below(members);
            let (start, mut read) = (self.world.now, self.world.said.len());
            let asked = self.world.command(asker, |g, now| g.query(now, "q", b"how", &Tags::new(), TIMEOUT));
            if !matches!(asked, Some(Ok(_))) {
                self.world.checker.fail(format!("query {number} refused: {asked:?}"));
                continue;
            }
            let mut missing = None;
            while missing.is_none() && self.world.now.since(start) < 2 * TIMEOUT && !self.world.is_stopped() {
                let heard: Vec<(u32, Event)> = self
                    .world
                    .said
                    .iter()
                    .skip(read)
                    .map(|(_, host, event)| (*host, event.clone()))
                    .collect();
                read = self.world.said.len();
                for (host, event) in heard {
                    match event {
                        Event::QueryReceived { query, .. } => {
                            self.world.command(host as usize, |g, now| {
                                g.answer(now, query, AnswerStatus::Ok, (*b"well").into()).is_ok()
                            });
                        }
                        Event::QueryEnded { silent, .. } => missing = Some(silent.len()),
                        _ => {}
                    }
                }
                if missing.is_none() {
                    self.world.run(LOOK);
                }
            }
            match missing {
                Some(0) => times.push(ms(self.world.now.since(start))),
                Some(left) => silent += left,
                None => self.world.checker.fail(format!("query {number} did not end")),
            }
            self.world.run(APART.saturating_sub(self.world.now.since(start)));
        }
        let elapsed = self.world.now.since(from).as_secs_f64();
        let bytes = (self.sent().0 - sent_from.0) as f64;
        let per = (members * queries.max(1)) as f64;
        QueryFigures {
            all_ms: Times::of(times),
            silent,
            bytes_per_query: (bytes - idle.bytes_per_second * elapsed * members as f64) / per,
            idle,
        }
    }
}
