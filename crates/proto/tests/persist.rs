//! What leaves for the disk, when it counts as saved, and what comes back at a start.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hearsay_proto::entry::Entry;
use hearsay_proto::image::{Acquaintance, Batch, Own, Write};
use hearsay_proto::member::{Generation, Incarnation, Liveness, Member, MemberId, Profile, Tags};
use hearsay_proto::persist::{GATHER, ROWS_MAX};
use hearsay_proto::time::{Mono, Now, Second, Stamp, Wall};
use hearsay_proto::wire::{Framing, Limits, Message, decode};
use hearsay_proto::{Config, Gossip, Identity, Output};

const WALL: u64 = 1_767_225_600_000;

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms * 1_000_000), wall: Wall(WALL + ms) }
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 7946))
}

#[derive(Default)]
struct Disk {
    own: Option<Own>,
    heard: Vec<(MemberId, Second)>,
    members: BTreeMap<Arc<str>, Acquaintance>,
    entries: BTreeMap<u64, Arc<Entry>>,
}

impl Disk {
    fn apply(&mut self, batch: &Batch) {
        for write in &batch.writes {
            match write.clone() {
                Write::Own(own) => self.own = Some(own),
                Write::Heard(table) => self.heard = table,
                Write::Member(member) => drop(self.members.insert(member.name.clone(), member)),
                Write::NoMember(name) => drop(self.members.remove(&name)),
                Write::Entry { place, entry } => drop(self.entries.insert(place, entry)),
                Write::NoEntry { place } => drop(self.entries.remove(&place)),
            }
        }
    }

    fn rows(&self) -> Vec<Write> {
        let entries = self.entries.iter().map(|(&place, entry)| Write::Entry { place, entry: entry.clone() });
        let members = self.members.values().cloned().map(Write::Member);
        let own = self.own.iter().cloned().map(Write::Own);
        own.chain([Write::Heard(self.heard.clone())]).chain(members).chain(entries).collect()
    }
}

/// A run of member `a` at this time, from a disk.
fn start(now: Now, disk: &Disk) -> Gossip {
    let identity = Identity {
        name: "a".into(),
        generation_stored: disk.own.as_ref().map(|own| own.generation),
        address: address(1),
        tags: Tags::new(),
    };
    let mut gossip = Gossip::new(Config::lan(), identity, [7; 32], now).unwrap();
    gossip.keep(now);
    for rows in disk.rows().chunks(3) {
        gossip.restore(now, rows);
    }
    gossip
}

/// Where it goes, and what it says.
type Datagram = (SocketAddr, Vec<Message>);

/// Outputs until `Wait`: batches, addresses of datagrams with their messages, and when to come again.
fn drain(gossip: &mut Gossip, now: Now) -> (Vec<Batch>, Vec<Datagram>, Mono) {
    let (mut batches, mut sent, mut buf) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        match gossip.poll_output(now, &mut buf) {
            Output::Wait(until) => return (batches, sent, until),
            Output::Persist(batch) => batches.push(batch),
            Output::Transmit { to } => {
                let limits = Limits { value_bytes_max: 1 << 20 };
                sent.push((to, decode(&buf, &limits, Framing::Datagram).unwrap().messages));
            }
            _ => {}
        }
    }
}

/// Saves everything there is at this time.
fn save_all(gossip: &mut Gossip, now: Now, disk: &mut Disk) {
    let asked = gossip.flush();
    loop {
        let (batches, ..) = drain(gossip, now);
        for batch in &batches {
            disk.apply(batch);
            gossip.handle_persisted(batch.seq);
        }
        if batches.is_empty() {
            break;
        }
    }
    assert!(gossip.persisted() >= asked);
}

fn entries(batch: &Batch) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let entry = |write: &Write| match write {
        Write::Entry { entry, .. } => Some((text(&entry.key), text(&entry.value))),
        _ => None,
    };
    batch.writes.iter().filter_map(entry).collect()
}

fn set(gossip: &mut Gossip, now: Now, key: &str, value: &str) {
    gossip.set(now, key.as_bytes(), Arc::from(value.as_bytes()), None).unwrap();
}

fn value(gossip: &Gossip, now: Now, key: &str) -> Option<String> {
    gossip.get(now, key.as_bytes()).map(|e| String::from_utf8_lossy(&e.value).into_owned())
}

#[test]
fn nothing_is_saved_unless_asked_for() {
    let identity =
        Identity { name: "a".into(), generation_stored: None, address: address(1), tags: Tags::new() };
    let mut gossip = Gossip::new(Config::lan(), identity, [1; 32], at(0)).unwrap();
    set(&mut gossip, at(0), "k", "v");
    assert!(drain(&mut gossip, at(0)).0.is_empty());
    assert!(drain(&mut gossip, at(60_000)).0.is_empty());
}

#[test]
fn writes_share_batches_and_count_as_saved_only_once_they_are() {
    let mut gossip = start(at(0), &Disk::default());
    let (first, ..) = drain(&mut gossip, at(100));
    assert!(
        matches!(&first[..], [Batch { writes, .. }] if matches!(&writes[..], [Write::Own(_), Write::Heard(_)])),
        "{first:?}"
    );
    let begun = at(101);
    gossip.handle_persisted(first[0].seq);
    assert!(drain(&mut gossip, begun).0.is_empty());
    set(&mut gossip, begun, "k", "1");
    set(&mut gossip, begun, "l", "1");
    let (none, _, wait) = drain(&mut gossip, begun);
    assert!(none.is_empty() && wait <= begun.mono + GATHER, "{none:?}, {wait:?}");
    let later = at(101 + GATHER.as_millis() as u64);
    let (batches, ..) = drain(&mut gossip, later);
    assert_eq!(
        batches.iter().map(entries).collect::<Vec<_>>(),
        [[("k".into(), "1".into()), ("l".into(), "1".into())]]
    );
    // While it is under way nothing else leaves, however much is asked for; each key waits once.
    let asked = gossip.flush();
    for n in 2..9 {
        set(&mut gossip, later, "k", &n.to_string());
    }
    let next = gossip.flush();
    assert!(drain(&mut gossip, later).0.is_empty());
    assert!(gossip.persisted() < asked);
    gossip.handle_persisted(batches[0].seq + 1);
    assert!(gossip.persisted() < asked, "another batch's number says nothing");
    gossip.handle_persisted(batches[0].seq);
    assert!(gossip.persisted() >= asked && gossip.persisted() < next);
    // Somebody waits: the next leaves at once.
    let (batches, ..) = drain(&mut gossip, later);
    assert_eq!(batches.iter().map(entries).collect::<Vec<_>>(), [[("k".into(), "8".into())]]);
    gossip.handle_persisted(batches[0].seq);
    assert!(gossip.persisted() >= next);
    assert_eq!(gossip.flush(), gossip.persisted(), "nothing is left to wait for");
}

#[test]
fn a_slow_disk_gets_bounded_batches_the_oldest_first() {
    let mut gossip = start(at(0), &Disk::default());
    let keys = 2 * ROWS_MAX + 10;
    for n in 0..keys {
        set(&mut gossip, at(0), &format!("k{n:05}"), "v");
    }
    let (mut seen, mut sizes) = (Vec::new(), Vec::new());
    let asked = gossip.flush();
    while gossip.persisted() < asked {
        let (batches, ..) = drain(&mut gossip, at(0));
        assert_eq!(batches.len(), 1);
        sizes.push(entries(&batches[0]).len());
        seen.extend(entries(&batches[0]).into_iter().map(|(key, _)| key));
        gossip.handle_persisted(batches[0].seq);
    }
    assert!(sizes.len() > 2 && sizes.iter().all(|&n| n <= ROWS_MAX), "{sizes:?}");
    assert!(seen.is_sorted() && seen.len() == keys);
}

#[test]
fn a_restart_brings_back_what_was_saved() {
    let mut disk = Disk::default();
    let mut gossip = start(at(0), &disk);
    for n in 0..200 {
        set(&mut gossip, at(10), &format!("k{n}"), &n.to_string());
    }
    gossip.set(at(10), b"short", Arc::from(&b"x"[..]), Some(5_000)).unwrap();
    gossip.delete(at(20), b"k7").unwrap();
    gossip.broadcast(at(20), "topic", b"passing").unwrap();
    save_all(&mut gossip, at(30), &mut disk);
    assert!(disk.entries.values().all(|e| !e.is_reserved()), "broadcasts are not kept");
    let before = gossip.me().unwrap();
    set(&mut gossip, at(40), "unsaved", "x");

    let mut again = start(at(10_000), &disk);
    let now = at(10_000);
    assert_eq!(again.len(), 199, "{:?}", again.scan(now, b"", None, 300).len());
    assert_eq!(value(&again, now, "k8").as_deref(), Some("8"));
    assert!(value(&again, now, "k7").is_none() && value(&again, now, "unsaved").is_none());
    assert!(value(&again, now, "short").is_none(), "its lifetime ended while nobody ran");
    again.audit().unwrap();
    let me = again.me().unwrap();
    assert!(me.profile.generation > before.profile.generation);
    // What ended meanwhile is saved as it is now; nothing else is written again.
    let (batches, ..) = drain(&mut again, at(10_200));
    let rows = batches
        .iter()
        .flat_map(|b| &b.writes)
        .filter(|w| !matches!(w, Write::Own(_) | Write::Heard(_)))
        .count();
    assert_eq!(rows, 1, "{batches:?}");
    disk.apply(&batches[0]);
    assert!(disk.entries.values().any(|e| &*e.key == b"short" && e.tombstone));
}

#[test]
fn the_clock_and_the_generation_never_go_back() {
    let mut disk = Disk::default();
    let late = at(3_600_000);
    let mut gossip = start(late, &disk);
    let first = gossip.set(late, b"k", Arc::from(&b"1"[..]), None).unwrap().version;
    save_all(&mut gossip, late, &mut disk);
    // The same file, an hour earlier: what is held counts, and is not refused for its stamp.
    let mut again = start(at(0), &disk);
    assert_eq!(value(&again, at(0), "k").as_deref(), Some("1"));
    let second = again.set(at(0), b"k", Arc::from(&b"2"[..]), None).unwrap().version;
    assert!(second > first);
    assert!(again.me().unwrap().profile.generation > gossip.me().unwrap().profile.generation);
    assert_eq!(again.me().unwrap().profile.generation, Generation(late.wall.0 + 1));
    // Even if every key is gone: the clock is kept for itself.
    disk.entries.clear();
    let mut third = start(at(0), &disk);
    assert!(third.set(at(0), b"k", Arc::from(&b"3"[..]), None).unwrap().version.stamp > first.stamp);
}

#[test]
fn a_wall_clock_that_was_wrong_when_something_was_saved_does_not_outlast_the_run() {
    let mut disk = Disk::default();
    let mut gossip = start(at(0), &disk);
    set(&mut gossip, at(0), "k", "v");
    save_all(&mut gossip, at(10), &mut disk);
    // A day ahead for as long as it takes to save once; nothing is written.
    let wrong = at(86_400_000);
    let (batches, ..) = drain(&mut gossip, wrong);
    assert!(!batches.is_empty());
    batches.iter().for_each(|batch| disk.apply(batch));
    let mut again = start(at(20_000), &disk);
    let written = again.set(at(20_000), b"k", Arc::from(&b"w"[..]), None).unwrap().version;
    assert_eq!(written.stamp.wall(), at(20_000).wall, "others would refuse a later one");
}

#[test]
fn what_is_purged_is_removed_from_the_disk() {
    let mut disk = Disk::default();
    let mut gossip = start(at(0), &disk);
    set(&mut gossip, at(0), "k", "v");
    gossip.delete(at(10), b"k").unwrap();
    save_all(&mut gossip, at(20), &mut disk);
    assert!(disk.entries.values().next().unwrap().tombstone);
    let later = at(25 * 3_600_000);
    gossip.handle_timeout(later);
    save_all(&mut gossip, later, &mut disk);
    assert!(disk.entries.is_empty());
    // A disk that missed it loses it at the next start.
    let mut old = Disk::default();
    let mut gossip = start(at(0), &old);
    set(&mut gossip, at(0), "k", "v");
    gossip.delete(at(10), b"k").unwrap();
    save_all(&mut gossip, at(20), &mut old);
    let mut again = start(later, &old);
    save_all(&mut again, later, &mut old);
    assert!(old.entries.is_empty());
}

#[test]
fn members_are_remembered_and_knocked_at_without_seeds() {
    let mut disk = Disk::default();
    let mut gossip = start(at(0), &disk);
    let other = |n: u8| Member {
        profile: Arc::new(Profile {
            name: Arc::from(format!("b{n}")),
            generation: Generation(WALL),
            id: MemberId(u64::from(n)),
            revision: 0,
            address: address(n),
            tags: Tags::new(),
        }),
        incarnation: Incarnation(0),
        liveness: Liveness::Alive,
    };
    gossip.adopt(at(0), &[other(2), other(3)]);
    for ms in (0..4_000).step_by(500) {
        gossip.handle_timeout(at(ms));
        save_all(&mut gossip, at(ms), &mut disk);
    }
    let names: Vec<&str> = disk.members.keys().map(|name| &**name).collect();
    assert_eq!(names, ["b2", "b3"]);
    assert_eq!(disk.members["b2"].address, address(2));
    let me = gossip.me().unwrap().id();
    let heard: Vec<MemberId> = disk.heard.iter().map(|(id, _)| *id).collect();
    assert!([MemberId(2), MemberId(3), me].iter().all(|id| heard.contains(id)), "{heard:?}");

    let mut again = start(at(10_000), &disk);
    assert_eq!(again.living(), 1, "nobody is a member before it was heard");
    let known = disk.heard.clone();
    save_all(&mut again, at(10_000), &mut disk);
    assert!(known.iter().all(|line| disk.heard.contains(line)), "the next run goes on with what was heard");
    again.join(at(10_000), Vec::new());
    let mut asked = std::collections::BTreeSet::new();
    // One of the two at random each time, after five seconds at most.
    for ms in (10_000..60_000).step_by(100) {
        again.handle_timeout(at(ms));
        let (batches, sent, _) = drain(&mut again, at(ms));
        batches.iter().for_each(|batch| again.handle_persisted(batch.seq));
        let hello = |m: &Message| matches!(m, Message::Hello { .. });
        asked.extend(sent.into_iter().filter(|(_, m)| m.iter().any(hello)).map(|(to, _)| to));
    }
    assert_eq!(asked.into_iter().collect::<Vec<_>>(), [address(2), address(3)]);
    // Who is never met again is forgotten as a dead member is.
    let later = at(10_000 + 25 * 3_600_000);
    again.handle_timeout(later);
    for batch in drain(&mut again, later).0 {
        disk.apply(&batch);
        again.handle_persisted(batch.seq);
    }
    again.handle_timeout(later);
    save_all(&mut again, later, &mut disk);
    assert!(disk.members.is_empty(), "{:?}", disk.members.keys());
}

#[test]
fn the_last_batches_of_a_member_hold_what_was_on_its_way() {
    let mut disk = Disk::default();
    let mut gossip = start(at(0), &disk);
    let own = gossip.persist_own(at(0));
    assert!(
        matches!(&own.writes[..], [Write::Own(Own { seen, .. }), Write::Heard(_)] if *seen == at(0).wall)
    );
    gossip.handle_persisted(own.seq);
    set(&mut gossip, at(0), "k", "v");
    gossip.leave(at(0));
    gossip.handle_timeout(at(5_000));
    while let Some(batch) = gossip.persist_rest(at(5_000)) {
        disk.apply(&batch);
        gossip.handle_persisted(batch.seq);
    }
    assert_eq!(value(&start(at(6_000), &disk), at(6_000), "k").as_deref(), Some("v"));
    assert!(disk.own.is_some_and(|own| own.clock >= Stamp::at(at(0).wall)));
}

#[test]
fn rows_that_lie_are_not_believed() {
    let mut disk = Disk::default();
    let mut gossip = start(at(0), &disk);
    set(&mut gossip, at(0), "k", "v");
    save_all(&mut gossip, at(0), &mut disk);
    let (&place, entry) = disk.entries.iter().next().unwrap();
    let entry = entry.clone();
    disk.entries.insert(place ^ 1, entry);
    let mut again = start(at(10), &disk);
    assert_eq!(again.len(), 1);
    again.audit().unwrap();
    save_all(&mut again, at(10), &mut disk);
    assert_eq!(disk.entries.len(), 1);
    assert_eq!(Duration::from_millis(100), GATHER);
}
