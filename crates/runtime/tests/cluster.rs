//! Members on loopback: real sockets, real time.

// Outside of a test's own function these are as welcome as inside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hearsay_runtime::proto::Event;
use hearsay_runtime::proto::member::Liveness;
use hearsay_runtime::{Handle, Listener, Options, start};

const KEY: [u8; 32] = [7; 32];
const WRONG: [u8; 32] = [9; 32];
/// Longest wait for anything; a test that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(40);

/// Writes down what it is told.
#[derive(Default)]
struct Diary {
    events: Mutex<Vec<Event>>,
    failed: Mutex<Option<String>>,
}

impl Listener for Diary {
    fn event(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
    fn failed(&self, reason: String) {
        *self.failed.lock().unwrap() = Some(reason);
    }
}

impl Diary {
    fn has(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.lock().unwrap().iter().any(wanted)
    }
    fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.lock().unwrap().iter().filter(|event| wanted(event)).count()
    }
}

struct Member {
    handle: Handle,
    diary: Arc<Diary>,
}

async fn member(options: Options) -> Member {
    let diary = Arc::new(Diary::default());
    Member { handle: start(options, diary.clone()).await.unwrap(), diary }
}

fn options(i: usize, keys: &[[u8; 32]], seeds: &[&Member]) -> Options {
    let mut options = Options::new(format!("m{i}"));
    options.keys = keys.to_vec();
    options.seeds = seeds.iter().map(|seed| seed.handle.local_addr().to_string()).collect();
    options.config.detector.patience = Duration::from_millis(500);
    options.config.detector.beat_period = Duration::from_millis(500);
    options.config.anti_entropy.settle_secs = 1;
    options
}

/// `count` members, the first being the seed of the others, once all see all.
async fn cluster(count: usize, keys: &[[u8; 32]]) -> Vec<Member> {
    let mut members = vec![member(options(0, keys, &[])).await];
    for i in 1..count {
        let next = options(i, keys, &[&members[0]]);
        members.push(member(next).await);
    }
    until("all see all", || members.iter().all(|m| m.handle.living().unwrap() == count)).await;
    members
}

async fn until(what: &str, mut ready: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    start.elapsed()
}

fn value(member: &Member, key: &str) -> Option<Vec<u8>> {
    let entry = member.handle.get(key.as_bytes()).unwrap()?;
    Some(entry.value.to_vec())
}

fn set(member: &Member, key: &str, value: &[u8]) {
    member.handle.set(key.as_bytes(), Arc::from(value), None).unwrap();
}

fn roots_agree(members: &[Member]) -> bool {
    let first = members[0].handle.root().unwrap();
    members.iter().all(|m| m.handle.root().unwrap() == first)
}

async fn stop(members: Vec<Member>) {
    for member in members {
        member.handle.stop().await;
        assert_eq!(*member.diary.failed.lock().unwrap(), None);
    }
}

#[tokio::test]
async fn five_members_join_and_a_key_reaches_all_sealed_and_unsealed() {
    for keys in [&[][..], &[KEY]] {
        let members = cluster(5, keys).await;
        for m in &members {
            assert!(m.diary.has(|e| matches!(e, Event::JoinEnded { .. })), "start is told how the join went");
            assert_eq!(m.diary.count(|e| matches!(e, Event::MemberJoined(_))), 4);
        }
        set(&members[3], "k", b"v");
        let took = until("the key is everywhere", || members.iter().all(|m| value(m, "k").is_some())).await;
        println!("{} keys: one key to all in {took:?}", keys.len());
        until("the roots agree", || roots_agree(&members)).await;
        members[1].handle.delete(b"k").unwrap();
        until("the delete is everywhere", || members.iter().all(|m| value(m, "k").is_none())).await;
        for m in &members {
            let host = m.handle.metrics().host;
            assert_eq!(
                host.dropped_unauthentic + host.dropped_replay + host.dropped_size + host.dropped_label,
                0
            );
            assert!(host.datagrams_sent > 0 && host.datagrams_received > 0);
        }
        stop(members).await;
    }
}

#[tokio::test]
async fn a_crash_is_found_and_a_leave_is_told_from_it() {
    let mut members = cluster(5, &[KEY]).await;
    let crashed = members.pop().unwrap();
    crashed.handle.stop().await;
    let died = |e: &Event| matches!(e, Event::MemberDied(m) if &**m.name() == "m4");
    let took = until("all know of the crash", || members.iter().all(|m| m.diary.has(died))).await;
    println!("crash known to all in {took:?}");
    let gone = members.pop().unwrap();
    gone.handle.leave(Duration::from_secs(2)).await;
    assert!(gone.diary.has(|e| matches!(e, Event::LeaveEnded)));
    let left = |e: &Event| matches!(e, Event::MemberLeft(m) if &**m.name() == "m3");
    until("all know of the leave", || members.iter().all(|m| m.diary.has(left))).await;
    for m in &members {
        assert_eq!(m.diary.count(|e| matches!(e, Event::MemberDied(_))), 1, "nobody else was declared dead");
        assert_eq!(m.handle.member("m3").unwrap().unwrap().liveness, Liveness::Left);
    }
    stop(members).await;
}

#[tokio::test]
async fn a_cut_splits_and_a_heal_brings_members_and_keys_back() {
    let members = cluster(4, &[KEY]).await;
    let (left, right) = members.split_at(2);
    let addresses = |side: &[Member]| side.iter().map(|m| m.handle.local_addr()).collect::<Vec<_>>();
    for m in left {
        m.handle.faults().cut(addresses(right));
    }
    for m in right {
        m.handle.faults().cut(addresses(left));
    }
    until("each side has buried the other", || members.iter().all(|m| m.handle.living().unwrap() == 2)).await;
    set(&left[0], "left", b"1");
    set(&right[0], "right", b"2");
    assert!(value(&right[0], "left").is_none());
    members.iter().for_each(|m| m.handle.faults().heal());
    let took = until("all see all again", || members.iter().all(|m| m.handle.living().unwrap() == 4)).await;
    println!("views healed in {took:?}");
    let both = || members.iter().all(|m| value(m, "left").is_some() && value(m, "right").is_some());
    println!("keys healed in {:?}", until("the keys are everywhere", both).await);
    until("the roots agree", || roots_agree(&members)).await;
    for m in &members {
        assert_eq!(m.diary.count(|e| matches!(e, Event::MemberRevived(_))), 2);
        assert!(m.handle.metrics().host.dropped_fault > 0);
    }
    stop(members).await;
}

#[tokio::test]
async fn a_large_value_travels_over_a_stream() {
    for keys in [&[][..], &[KEY]] {
        let members = cluster(3, keys).await;
        let large: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
        set(&members[0], "large", &large);
        let whole = || members.iter().all(|m| value(m, "large").as_deref() == Some(&large));
        println!("200 kB to all in {:?}", until("the large value is everywhere", whole).await);
        let frames: u64 = members.iter().map(|m| m.handle.metrics().host.frame_bytes_received).sum();
        assert!(frames >= 400_000, "{frames} bytes over streams");
        stop(members).await;
    }
}

#[tokio::test]
async fn a_wrong_key_or_label_stays_out_and_is_counted() {
    let members = cluster(2, &[KEY]).await;
    let mut label = options(3, &[KEY], &[&members[0]]);
    label.config.label = "other".to_owned();
    let outsiders = [
        member(options(2, &[WRONG], &[&members[0]])).await,
        member(label).await,
        member(options(4, &[], &[&members[0]])).await,
    ];
    for outsider in &outsiders {
        until("its join has ended", || {
            outsider.diary.has(|e| matches!(e, Event::JoinEnded { joined: false }))
        })
        .await;
        assert_eq!(outsider.handle.living().unwrap(), 1);
        assert_eq!(outsider.handle.metrics().host.datagrams_received, 0, "no answer");
    }
    let host = members[0].handle.metrics().host;
    assert!(host.dropped_unauthentic > 0 && host.dropped_label > 0);
    assert_eq!(members[0].handle.living().unwrap(), 2);
    stop(members).await;
}

#[tokio::test]
async fn keys_rotate_on_a_running_cluster_and_no_write_is_lost() {
    let members = cluster(3, &[KEY]).await;
    let fresh = [5; 32];
    let rounds: [&[[u8; 32]]; 3] = [&[KEY, fresh], &[fresh, KEY], &[fresh]];
    for (round, keys) in rounds.into_iter().enumerate() {
        for (i, m) in members.iter().enumerate() {
            m.handle.set_keys(keys).unwrap();
            let key = format!("{round}/{i}");
            set(m, &key, b"v");
            until("the key is everywhere", || members.iter().all(|m| value(m, &key).is_some())).await;
        }
    }
    for m in &members {
        assert_eq!(m.handle.metrics().host.dropped_unauthentic, 0);
    }
    let late = member(options(3, &[KEY], &[&members[0]])).await;
    until("its join has ended", || late.diary.has(|e| matches!(e, Event::JoinEnded { joined: false }))).await;
    late.handle.stop().await;
    stop(members).await;
}

#[tokio::test]
async fn seeds_that_do_not_resolve_are_told_and_new_ones_are_joined_by() {
    let first = member(options(0, &[], &[])).await;
    let mut lost = options(1, &[], &[]);
    lost.seeds = vec!["no-such-name.invalid:7".to_owned()];
    let lost = member(lost).await;
    let told = |e: &Event| matches!(e, Event::SeedFailed { seed, .. } if seed == "no-such-name.invalid:7");
    until("the seed failed", || lost.diary.has(told)).await;
    lost.handle.set_seeds(vec![first.handle.local_addr().to_string()]).unwrap();
    until("they met", || first.handle.living().unwrap() == 2 && lost.handle.living().unwrap() == 2).await;
    stop(vec![first, lost]).await;
}

#[tokio::test]
async fn the_second_member_of_a_name_is_told_and_stops() {
    let members = cluster(2, &[]).await;
    let double = member(options(1, &[], &[&members[0]])).await;
    until("the conflict is known", || double.diary.has(|e| matches!(e, Event::NameConflict { .. }))).await;
    until("it has stopped", || double.handle.is_stopped()).await;
    assert_eq!(members[0].handle.living().unwrap(), 2);
    stop(members).await;
}

#[tokio::test]
async fn loss_and_delay_slow_a_write_and_do_not_stop_it() {
    let members = cluster(4, &[KEY]).await;
    for m in &members {
        m.handle.faults().loss(0.2, 0.0);
        m.handle.faults().delay(Duration::from_millis(60), Duration::ZERO);
    }
    let start = Instant::now();
    for i in 0..50 {
        set(&members[i % 4], &format!("k{i}"), b"v");
    }
    let whole = || members.iter().all(|m| m.handle.len().unwrap() == 50);
    until("all keys are everywhere", whole).await;
    assert!(start.elapsed() >= Duration::from_millis(60), "the delay held");
    for m in &members {
        assert_eq!(m.diary.count(|e| matches!(e, Event::MemberDied(_))), 0);
        assert!(m.handle.metrics().host.dropped_fault > 0);
    }
    stop(members).await;
}

#[tokio::test]
async fn writers_on_many_threads_and_the_driver_share_one_member() {
    let members = cluster(3, &[KEY]).await;
    let writers: Vec<_> = (0..4)
        .map(|thread| {
            let handle = members[thread % 3].handle.clone();
            std::thread::spawn(move || {
                for i in 0..250 {
                    let key = format!("{thread}/{i:03}");
                    handle.set(key.as_bytes(), Arc::from(key.as_bytes()), None).unwrap();
                    assert!(handle.get(key.as_bytes()).unwrap().is_some());
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let took =
        until("all writes are everywhere", || members.iter().all(|m| m.handle.len().unwrap() == 1_000));
    println!("1,000 writes to all in {:?}", took.await);
    let (mut keys, mut after) = (Vec::new(), None::<Vec<u8>>);
    loop {
        let chunk = members[2].handle.scan(b"1/", after.as_deref(), 100).unwrap();
        let Some(last) = chunk.last() else { break };
        after = Some(last.key.to_vec());
        keys.extend(chunk.iter().map(|entry| entry.key.to_vec()));
    }
    assert_eq!(keys, (0..250).map(|i| format!("1/{i:03}").into_bytes()).collect::<Vec<_>>());
    until("the roots agree", || roots_agree(&members)).await;
    stop(members).await;
}
