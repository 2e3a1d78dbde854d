//! What a member sends, idle and while the cluster is written to, by the number of members.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hearsay_proto::rng::Rng;

use hearsay_proto::Config;

use super::measure::bed_of;
use super::{Cell, Task};

/// What one member sent per second.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Payload bytes: sealed, IP and UDP headers not counted.
    pub bytes: f64,
    /// Datagrams.
    pub datagrams: f64,
    /// Payloads of records per update.
    pub copies: f64,
    /// Violated invariants.
    pub failures: usize,
}

/// `members` members for `time`, with this many updates of 64 bytes per second in the whole cluster, by random members, each to a
/// key of its own.
pub fn measure(members: usize, updates_per_second: f64, time: Duration, seed: u64) -> Load {
    let mut world = bed_of(members, 0, seed, Config::lan(), false);
    let mut rng = Rng::from_number(seed ^ 0x6c6f_6164);
    let write = |world: &mut crate::World, rng: &mut Rng, number: u64| {
        let value: Arc<[u8]> = vec![7; 64].into();
        let writer = rng.below(members);
        world.command(writer, |g, now| {
            g.set(now, format!("load/{number:06}").as_bytes(), value, None).is_ok()
        });
    };
    let sent = |w: &crate::World| {
        let records: u64 =
            w.up().filter_map(|h| w.gossip(h)).map(|g| g.metrics(w.clock(0)).rumors.records_sent).sum();
        (w.bytes_sent(), w.hosts.iter().map(|h| h.datagrams).sum::<u64>(), records)
    };
    // Writes run for two seconds before anything is counted.
    let mut number = 0;
    let mut run = |world: &mut crate::World, time: Duration| {
        let until = world.now + time;
        while world.now < until {
            let gap = if updates_per_second > 0.0 {
                number += 1;
                write(world, &mut rng, number);
                Duration::from_secs_f64(1.0 / updates_per_second)
            } else {
                time
            };
            world.run(gap.min(until.since(world.now)));
        }
        number
    };
    let from = run(&mut world, Duration::from_secs(2));
    let before = sent(&world);
    let writes = run(&mut world, time) - from;
    let after = sent(&world);
    let per = members as f64 * time.as_secs_f64();
    Load {
        bytes: (after.0 - before.0) as f64 / per,
        datagrams: (after.1 - before.1) as f64 / per,
        copies: if writes == 0 { 0.0 } else { (after.2 - before.2) as f64 / members as f64 / writes as f64 },
        failures: world.checker.failures.len(),
    }
}

/// One row per number of members and rate.
pub fn tasks(sizes: &[usize], rates: &[f64], seconds: f64, seed: u64) -> Vec<Task> {
    let mut tasks = Vec::new();
    for &rate in rates {
        for &members in sizes {
            // The same member-seconds for all, within reason; a tenth where ten times as much is sent.
            let seconds = match rate >= TICKS_PER_SECOND {
                false => (seconds * 1_000.0 / members as f64).clamp(10.0, 600.0),
                true => (seconds * 100.0 / members as f64).clamp(5.0, 60.0),
            };
            tasks.push(Task {
                name: "load",
                cost: members as f64 * seconds * (1.0 + rate),
                run: Box::new(move || {
                    let load = measure(members, rate, Duration::from_secs_f64(seconds), seed);
                    vec![Cell {
                        what: format!("{rate} updates/s: payload B/s, datagrams/s; copies"),
                        members,
                        required: String::new(),
                        measured: format!("{:.1} {:.2} {:.2}", load.bytes, load.datagrams, load.copies),
                        exposure: format!("{seconds:.0} s"),
                        seed,
                        pass: load.failures == 0,
                    }]
                }),
            });
        }
    }
    tasks
}

/// At this rate of updates every tick has something to tell. Then a further round (`R3`) costs an update three ids of 6 bytes,
/// no datagram: what a member sends no longer depends on ln N by more than these.
const TICKS_PER_SECOND: f64 = 5.0;

/// Contacts that one quiet update costs a member: a flush to four and R ticks to three (`R2`, `R3`). The members that n contacts
/// of each leave out are N e^-n.
pub fn contacts(members: usize) -> f64 {
    4.0 + 3.0 * (((members as f64).ln() / 3.0).ceil() + 1.0)
}

fn is_single(rate: f64) -> bool {
    rate > 0.0 && rate < TICKS_PER_SECOND
}

/// Judges the rows: idle and at [`TICKS_PER_SECOND`] or more, bytes and datagrams of every size lie within 10 % of the middle
/// between the least and the most. Fewer updates are told one by one: a number of contacts that grows with ln N is the least at
/// which none is missed (the members that n contacts each leave out are N e^-n), so there it is what an update adds to the idle
/// load per contact that is flat, and its copies.
pub fn judge(cells: &mut [Cell]) {
    let numbers = |c: &Cell| -> Vec<f64> { c.measured.split(' ').filter_map(|v| v.parse().ok()).collect() };
    let rate = |c: &Cell| c.what.split(' ').next().and_then(|r| r.parse::<f64>().ok()).unwrap_or(0.0);
    let idle: BTreeMap<usize, Vec<f64>> =
        cells.iter().filter(|c| rate(c) == 0.0).map(|c| (c.members, numbers(c))).collect();
    let judged = |c: &Cell| -> Vec<f64> {
        let (all, rate) = (numbers(c), rate(c));
        match (&all[..], idle.get(&c.members).map(Vec::as_slice)) {
            (&[bytes, datagrams, copies], Some(&[idle_bytes, idle_datagrams, _])) if is_single(rate) => {
                let per = rate * contacts(c.members);
                vec![(bytes - idle_bytes) / per, (datagrams - idle_datagrams) / per, copies]
            }
            _ => all,
        }
    };
    let mut rates: Vec<f64> = cells.iter().map(rate).collect();
    rates.dedup();
    for at in rates {
        let rows: Vec<Vec<f64>> = cells.iter().filter(|c| rate(c) == at).map(judged).collect();
        let middle = |i: usize| {
            let of = rows.iter().filter_map(|r| r.get(i).copied());
            let (low, high) = of.fold((f64::MAX, 0f64), |(a, b), v| (a.min(v), b.max(v)));
            (low + high) / 2.0
        };
        let middles = [middle(0), middle(1), middle(2)];
        for cell in cells.iter_mut().filter(|c| rate(c) == at) {
            let values = judged(cell);
            let flat = values.iter().zip(middles).all(|(v, m)| m == 0.0 || (v / m - 1.0).abs() <= 0.1);
            cell.required = format!("{:.1} {:.2} {:.2} +- 10 %", middles[0], middles[1], middles[2]);
            if is_single(at) && idle.contains_key(&cell.members) {
                cell.required += " per contact";
                cell.measured += &format!(": {:.1} {:.2} {:.2}", values[0], values[1], values[2]);
            }
            cell.pass &= flat;
        }
    }
}

/// Bytes and datagrams that members send while nothing is written, and at a few updates per second.
pub fn table_of(sizes: &[usize], rates: &[f64], seconds: f64, seed: u64, threads: usize) -> Vec<Cell> {
    let mut cells = super::run(tasks(sizes, rates, seconds, seed), threads, |c| {
        eprintln!("{} n={}: {}", c.what, c.members, c.measured);
    });
    judge(&mut cells);
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_send_the_same_whatever_their_number() {
        let cells = table_of(&[10, 100, 500], &[0.0, 1.0, 10.0], 10.0, 1, 2);
        assert!(cells.len() == 9 && cells.iter().all(|c| c.pass), "{}", super::super::table(&cells));
    }
}
