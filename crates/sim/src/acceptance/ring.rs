//! The ring over settled views: balance, what a join moves, what a split and its heal change.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use hearsay_proto::Event;
use hearsay_proto::member::Member;
use hearsay_proto::ring::{HashRing, RingError, RingMember, RingOptions, key_hash};

use super::detector::{by_size, cell, push, with};
use super::measure::{FULL_WITHIN, bed};
use super::{Cell, Scale, Task};

const VIRTUAL_NODES: u32 = 100;
/// Names whose shares make one figure: its own error is 1/sqrt(2 x names).
const NAMES: usize = 20_000;
/// Joins that make one figure; the share of one deviates by 1/sqrt(V).
const JOINS: usize = 100;
const KEYS: u32 = 20_000;
const SPLIT: Duration = Duration::from_secs(30);

fn ring(virtual_nodes: u32, names: impl IntoIterator<Item = String>) -> Result<HashRing, RingError> {
    let mut ring = HashRing::new(RingOptions { virtual_nodes, zone_aware: false })?;
    ring.extend(names.into_iter().map(RingMember::new))?;
    Ok(ring)
}

/// Each name's part of the circle, in parts of the mean.
fn shares(ring: &HashRing) -> Vec<f64> {
    let mut shares = vec![0.0; ring.len()];
    let points = ring.points();
    let mut before = points.last().copied().unwrap_or(0);
    for (&point, &owner) in points.iter().zip(ring.point_owners()) {
        shares[owner as usize] += point.wrapping_sub(before) as f64 / 2f64.powi(64) * ring.len() as f64;
        before = point;
    }
    shares
}

fn balance_row(members: usize, seed: u64) -> Result<Cell, RingError> {
    let rings = NAMES / members;
    let mut squares = 0.0;
    for number in 0..rings {
        let names = (0..members).map(|name| format!("{seed}/{number}/{name}"));
        squares += shares(&ring(VIRTUAL_NODES, names)?).iter().map(|s| (s - 1.0).powi(2)).sum::<f64>();
    }
    // The mean is that of the ring itself: one degree of freedom less.
    let deviation = (squares / rings as f64 / (members as f64 - 1.0)).sqrt();
    let want = 1.0 / f64::from(VIRTUAL_NODES).sqrt();
    let c = cell(
        format!("ring of {VIRTUAL_NODES} points a member: deviation of shares"),
        members,
        seed,
        format!("{want} +- 5 %"),
        format!("{deviation:.4}"),
        format!("{rings} rings"),
    );
    Ok(with(c, (deviation / want - 1.0).abs() <= 0.05, &[]))
}

fn join_row(members: usize, seed: u64) -> Result<Cell, RingError> {
    let mut failures = Vec::new();
    let names = (0..members).map(|name| format!("{seed}/{name}"));
    let mut ring = ring(VIRTUAL_NODES, names)?;
    let keys: Vec<u64> = (0..KEYS).map(|key| key_hash(&key.to_le_bytes())).collect();
    let owners = |ring: &HashRing| -> Vec<String> {
        keys.iter().map(|&key| ring.owner_of_hash(key).unwrap_or_default().to_owned()).collect()
    };
    let before = owners(&ring);
    let (mut moved, mut between) = (0, 0);
    for number in 0..JOINS {
        let joiner = format!("joiner {number}");
        ring.add(RingMember::new(&*joiner))?;
        for (after, _) in owners(&ring).iter().zip(&before).filter(|(after, before)| after != before) {
            moved += 1;
            between += usize::from(*after != joiner);
        }
        ring.remove(&joiner);
    }
    if owners(&ring) != before {
        failures.push("keys did not come back when the joiners went".into());
    }
    let part = moved as f64 / (JOINS * keys.len()) as f64 * (members as f64 + 1.0);
    let c = cell(
        "ring: keys that a join moves, x (N + 1); between others".into(),
        members,
        seed,
        "1 +- 10 %; 0".into(),
        format!("{part:.3}; {between}"),
        format!("{JOINS} joins, {KEYS} keys"),
    );
    Ok(with(c, (part - 1.0).abs() <= 0.1 && between == 0, &failures))
}

/// A member's ring, brought up to date by what its user is told, and how often that changed it.
struct Follower {
    ring: HashRing,
    changes: usize,
}

impl Follower {
    fn hear(&mut self, event: &Event) {
        let changed = match event {
            Event::MemberJoined(m) | Event::MemberRevived(m) => {
                self.ring.add(RingMember::new(&**m.name())).is_ok_and(|c| c)
            }
            Event::MemberDied(m) | Event::MemberLeft(m) => self.ring.remove(m.name()),
            _ => false,
        };
        self.changes += usize::from(changed);
    }
}

/// Halves for half a minute: rings of one side are equal, and afterwards all are what they were; each who went away was taken off once and
/// put back once.
fn heal_row(members: usize, seed: u64) -> Result<Cell, RingError> {
    let mut world = bed(members, 0, seed);
    let half = members / 2;
    let mut failures = Vec::new();
    let names =
        |of: Vec<Member>| of.into_iter().filter(|m| m.liveness.is_living()).map(|m| m.name().to_string());
    let seen: Vec<usize> = vec![0, half - 1, half, members - 1];
    let mut followers = BTreeMap::new();
    for &host in &seen {
        let known = world.gossip(host).map(|g| g.members()).unwrap_or_default();
        followers.insert(host, Follower { ring: ring(20, names(known))?, changes: 0 });
    }
    let followers = Rc::new(RefCell::new(followers));
    let hearing = Rc::clone(&followers);
    world.ear = Some(Box::new(move |_, host, event| {
        if let Some(follower) = hearing.borrow_mut().get_mut(&host) {
            follower.hear(event);
        }
    }));
    let versions = || -> Vec<u64> { followers.borrow().values().map(|f| f.ring.version()).collect() };
    let whole = versions();
    world.network.partition(|h| u32::from(h >= half));
    world.run(SPLIT);
    let apart = versions();
    if apart[0] != apart[1] || apart[2] != apart[3] || apart[0] == apart[2] {
        failures.push(format!("apart: {apart:?}"));
    }
    world.network.heal();
    let healed =
        world.run_until(FULL_WITHIN, Duration::from_millis(50), |w| w.views_full() && w.roots_equal());
    if healed.is_none() {
        failures.push("not whole again".into());
    }
    world.run(Duration::from_secs(15));
    failures.append(&mut world.checker.failures);
    let same = versions() == whole && whole.iter().all(|v| *v == whole[0]);
    let most = |host: usize| if host < half { members - half } else { half };
    let per_member =
        followers.borrow().iter().map(|(&host, f)| f.changes as f64 / most(host) as f64).fold(0.0, f64::max);
    let c = cell(
        format!("ring after a split of {} s: as before; changes per member that was away", SPLIT.as_secs()),
        members,
        seed,
        "true; 2".into(),
        format!("{same}; {per_member}"),
        format!("{} members' rings", seen.len()),
    );
    Ok(with(c, same && per_member == 2.0, &failures))
}

/// All ring rows at this scale.
pub fn cells(scale: &Scale) -> Vec<Task> {
    type Row = fn(usize, u64) -> Result<Cell, RingError>;
    let mut tasks = Vec::new();
    let seed = scale.seed;
    for &members in scale.sizes.iter().filter(|&&n| n <= 1_000) {
        let rows: [(&str, f64, Row); 3] = [
            ("balance", 100.0, balance_row),
            ("move", 100.0, join_row),
            ("heal", by_size(members, [100.0, 5e3, 1e5]), heal_row),
        ];
        for (name, cost, row) in rows {
            push(&mut tasks, name, cost, move || {
                let refused = |error: RingError| {
                    let c =
                        cell(name.into(), members, seed, "a ring".into(), error.to_string(), String::new());
                    with(c, false, &[])
                };
                vec![row(members, seed).unwrap_or_else(refused)]
            });
        }
    }
    tasks
}
