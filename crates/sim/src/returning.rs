//! A member that comes back after the life of tombstones (`S7`): from the far side of a split, or from its disk.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use hearsay_proto::{Config, Event};

use crate::deletes::LIFETIME;
use crate::world::World;

const MEMBERS: usize = 5;
/// Who goes away.
const AWAY: usize = 4;
/// Keys; every other one is deleted meanwhile.
const KEYS: usize = 100;
/// Least time a disk takes for a batch.
const DISK_LATENCY: Duration = Duration::from_millis(10);
const EQUAL_WITHIN: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Returned {
    /// Seconds from its return to equal views and replicas; none: not within a minute.
    pub equal_s: Option<f64>,
    /// Deleted keys that some member shows again.
    pub back: usize,
    /// Kept keys that some member lacks.
    pub lost: usize,
    /// What the returning member was told of dropped keys; none: nothing.
    pub dropped: Option<u64>,
    /// Other members that were told so.
    pub others_rejoined: usize,
}

fn key(n: usize) -> Vec<u8> {
    format!("key/{n:03}").into_bytes()
}

/// Away for this share of G; `disk`: crashed, and back from its disk, else cut off. Without `absence` rule `S7` is off.
pub fn returning(seed: u64, share: f64, disk: bool, absence: bool) -> Returned {
    let mut config = Config::local();
    config.tombstone_lifetime = LIFETIME;
    config.anti_entropy.absence = absence;
    let mut world = World::new(seed, MEMBERS, config);
    if disk {
        world.add_disks(DISK_LATENCY);
    }
    let told = Rc::new(RefCell::new([None; MEMBERS]));
    let sink = told.clone();
    world.ear = Some(Box::new(move |_, host, event| {
        if let Event::Rejoined { dropped } = event {
            sink.borrow_mut()[host] = Some(*dropped);
        }
    }));
    world.start_whole(MEMBERS);
    world.run(Duration::from_secs(5));
    for n in 0..KEYS {
        world.command(n % MEMBERS, |g, now| g.set(now, &key(n), key(n).into(), None));
        world.run(Duration::from_millis(50));
    }
    // By now everything is old: only what was heard tells whether it may be believed.
    world.run(LIFETIME);
    if disk {
        world.crash(AWAY);
    } else {
        world.network.partition(|host| u32::from(host == AWAY));
    }
    let away = LIFETIME.mul_f64(share);
    world.run(Duration::from_secs(10).min(away));
    for n in (0..KEYS).step_by(2) {
        world.command(0, |g, now| g.delete(now, &key(n)));
    }
    world.run(away.saturating_sub(Duration::from_secs(10)));
    if disk {
        world.start(AWAY, &[0]);
    } else {
        world.network.heal();
    }
    let whole = |w: &World| w.views_full() && w.roots_equal();
    let equal = world.run_until(EQUAL_WITHIN, Duration::from_millis(100), whole);
    world.run(Duration::from_secs(10));
    let shows = |host: usize, n: usize| {
        world.gossip(host).is_some_and(|g| g.get(world.clock(host), &key(n)).is_some())
    };
    let told = told.borrow();
    Returned {
        equal_s: equal.map(|time| time.as_secs_f64()),
        back: (0..KEYS).step_by(2).filter(|&n| (0..MEMBERS).any(|host| shows(host, n))).count(),
        lost: (1..KEYS).step_by(2).filter(|&n| !(0..MEMBERS).all(|host| shows(host, n))).count(),
        dropped: told[AWAY],
        others_rejoined: (0..AWAY).filter(|&host| told[host].is_some()).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_returns_after_g_drops_its_past_and_brings_nothing_back() {
        for (seed, disk) in [(1, false), (2, false), (3, true), (4, true)] {
            let r = returning(seed, 1.5, disk, true);
            assert_eq!((r.back, r.lost, r.dropped, r.others_rejoined), (0, 0, Some(100), 0), "{seed}: {r:?}");
            assert!(r.equal_s.is_some(), "{seed}: {r:?}");
        }
    }

    #[test]
    fn who_returns_soon_keeps_what_it_has() {
        for disk in [false, true] {
            let r = returning(1, 0.3, disk, true);
            assert_eq!((r.back, r.lost, r.dropped, r.others_rejoined), (0, 0, None, 0), "{r:?}");
        }
    }

    #[test]
    fn without_s7_it_brings_back_what_was_deleted() {
        for disk in [false, true] {
            assert_eq!(returning(1, 1.5, disk, false).back, 50);
        }
    }
}
