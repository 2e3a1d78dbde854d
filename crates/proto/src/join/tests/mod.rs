//! Tests of `J1`-`J4`, `J6` and PULL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::time::Duration;

use super::*;
use crate::config::Seed;
use crate::time::Wall;
use crate::wire::message_bytes;
use world::{World, address, member, seed};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn ended(joined: bool) -> impl Fn(&Action) -> bool {
    move |a| *a == Action::Ended { joined }
}

#[test]
fn five_members_join_through_one_seed() {
    let mut w = World::new(1);
    for n in 0..5 {
        w.add();
        w.start(n, if n == 0 { vec![] } else { vec![seed(address(0))] });
        w.run_for(50 * MS);
    }
    w.fill(0, 10, 10);
    w.run_for(5 * S);
    assert_eq!(w.peers[0].phase(), Phase::Founder);
    for n in 0..5 {
        assert!(w.sees(n, 0..5), "view of {n}");
        let p = &w.peers[n];
        assert_eq!(p.count(|a| *a == Action::StartDetector), 1);
        if n == 0 {
            assert_eq!(p.count(ended(false)), 1);
            continue;
        }
        assert_eq!(p.phase(), Phase::Joined);
        assert_eq!((p.count(ended(true)), p.count(ended(false))), (1, 0));
        assert_eq!(p.count(|a| *a == Action::ContactPartners), 2);
        assert_eq!(p.count(|a| matches!(a, Action::PullDone { .. })), 2);
        assert_eq!(p.count(|a| matches!(a, Action::SeedFailed { .. })), 0);
        let start = p.at(|a| *a == Action::StartDetector).unwrap();
        let contact = p.at(|a| *a == Action::ContactPartners).unwrap();
        assert_eq!(contact - start, 1_200 * MS);
        assert!(p.at(|a| *a == Action::Joined).unwrap() > start);
    }
}

#[test]
fn thirty_members_start_at_once_with_the_same_three_seeds() {
    let mut w = World::new(2);
    let seeds: Vec<Seed> = (0..3).map(|n| seed(address(n))).collect();
    (0..30).for_each(|n| assert_eq!(w.add(), n));
    (0..30).for_each(|n| w.start(n, seeds.clone()));
    w.run_for(6 * S);
    for n in 0..30 {
        assert_eq!(w.peers[n].phase(), Phase::Joined, "{n}");
        assert_eq!(w.peers[n].count(ended(true)), 1);
    }
    assert_eq!(w.reached_from(0).len(), 30, "one cluster, the rest is for anti-entropy");
}

#[test]
fn a_fifth_of_all_datagrams_lost_delays_and_stops_nobody() {
    for run in 0..60 {
        let mut w = World::new(100 + run);
        w.loss = 0.2;
        for n in 0..8 {
            w.add();
            w.peers[n].contact_every = Some(5 * S);
            w.start(n, if n == 0 { vec![] } else { vec![seed(address(0))] });
            w.run_for(30 * MS);
        }
        w.run_for(12 * S);
        for n in 1..8 {
            assert_eq!(w.peers[n].phase(), Phase::Joined, "run {run}, member {n}");
            assert_eq!(w.reached_from(n).len(), 8, "run {run}, member {n}");
            assert_eq!(w.peers[n].count(|a| matches!(a, Action::Ended { .. })), 1);
        }
    }
}

#[test]
fn a_thousand_join_within_two_seconds_through_one_seed() {
    for (run, loss) in (0..2).map(|run| (run, f64::from(run % 2) * 0.05)) {
        let mut w = World::new(30 + run as u64);
        w.rumors = false;
        w.loss = loss;
        w.add();
        w.start(0, vec![]);
        for _ in 0..1_000 {
            let n = w.add();
            w.start(n, vec![seed(address(0))]);
            w.run_for(2 * MS);
        }
        let until = w.now.mono + 6 * S;
        let all = |w: &World| w.peers.iter().skip(1).all(|p| p.phase() == Phase::Joined);
        let done = w.run_until(until, all);
        assert!(done, "loss {loss}");
        assert!(w.bytes < 500_000, "{} B sent by the seed", w.bytes);
    }
}

#[test]
fn without_a_seed_the_member_founds_and_reports_with_back_off() {
    let mut w = World::new(3);
    w.add();
    w.peers[0].contact_every = Some(5 * S);
    w.start(0, vec![seed(address(9))]);
    assert!(w.peers[0].join.is_joining());
    w.run_for(999 * MS);
    assert_eq!(w.peers[0].phase(), Phase::Hello);
    assert!(w.peers[0].failures().is_empty());
    w.run_for(2 * MS);
    let p = &w.peers[0];
    assert_eq!(p.phase(), Phase::Founder);
    assert!(!p.join.is_joining());
    assert_eq!(p.failures(), ["no answer"]);
    assert_eq!(p.at(ended(false)), Some(S));
    assert_eq!(p.count(|a| *a == Action::StartDetector), 1);
    let tries = p.join.metrics().hellos_sent;
    assert!((2..=3).contains(&tries), "{tries}");
    w.run_for(400 * S);
    // At 1 s, then not before 30, 90, 210 s more.
    assert_eq!(w.peers[0].failures().len(), 4);
    assert!(w.peers[0].join.metrics().hellos_sent > 80);
    assert_eq!(w.peers[0].count(|a| matches!(a, Action::Ended { .. })), 1);
}

#[test]
fn unresolved_and_own_seeds_end_the_join_at_once() {
    let mut w = World::new(4);
    w.add();
    let lost = Seed { name: "db.example:1".into(), addresses: Err("ENOTFOUND".into()) };
    w.start(0, vec![lost.clone(), seed(address(0))]);
    let p = &w.peers[0];
    assert_eq!(p.phase(), Phase::Founder);
    assert_eq!(p.failures(), ["ENOTFOUND"]);
    assert_eq!(p.count(ended(false)), 1);
    // Resolved again, still not there: once per episode, but each call ends.
    w.run_for(S);
    w.start(0, vec![lost, seed(address(0))]);
    assert_eq!(w.peers[0].failures().len(), 1);
    assert_eq!(w.peers[0].count(ended(false)), 2);
    // My socket under an address that my record does not name.
    let other = SocketAddr::from(([127, 0, 0, 1], 7946));
    let n = w.add_as(member("x", 5, 5, address(77)), other);
    w.start(n, vec![seed(other)]);
    w.run_for(5 * MS);
    assert_eq!(w.peers[n].phase(), Phase::Founder);
    assert!(w.peers[n].failures().is_empty());
}

#[test]
fn a_seed_that_appears_later_is_found() {
    for (late, within) in [(1_700 * MS, 3 * S), (60 * S, 6 * S)] {
        let mut w = World::new(5);
        w.add();
        w.peers[0].contact_every = Some(5 * S);
        w.start(0, vec![seed(address(1))]);
        w.run_for(late);
        assert_eq!(w.peers[0].phase(), Phase::Founder);
        w.add();
        w.start(1, vec![]);
        let until = w.now.mono + within;
        assert!(w.run_until(until, |w| w.peers[0].phase() == Phase::Joined), "late by {late:?}");
        assert!(w.sees(0, 0..2) && w.sees(1, 0..2));
        assert_eq!(w.peers[0].count(ended(false)), 1);
    }
}

#[test]
fn a_later_join_call_with_a_new_seed_ends_when_it_answers() {
    let mut w = World::new(6);
    for n in 0..4 {
        w.add();
        w.start(n, if n % 2 == 0 { vec![] } else { vec![seed(address(n - 1))] });
    }
    w.run_for(S);
    // Members 0, 1 and 2, 3: two clusters. Member 1 is told of member 2.
    w.start(1, vec![seed(address(2))]);
    w.run_for(100 * MS);
    assert_eq!(w.peers[1].count(ended(true)), 2);
    assert_eq!(w.peers[1].contacts, 1);
    assert!(w.sees(1, 0..3));
    // The same again: nobody left to ask.
    w.start(1, vec![seed(address(2))]);
    assert_eq!(w.peers[1].count(ended(true)), 3);
}

#[test]
fn two_islands_with_the_same_seeds_find_each_other() {
    let mut w = World::new(7);
    let seeds = vec![seed(address(0)), seed(address(3))];
    for n in 0..6 {
        w.add();
        w.peers[n].island = u8::from(n >= 3);
        w.peers[n].contact_every = Some(5 * S);
    }
    for n in 0..6 {
        w.start(n, seeds.clone());
    }
    w.run_for(8 * S);
    for n in 0..6 {
        let island = if n < 3 { 0..3 } else { 3..6 };
        assert!(w.sees(n, island), "view of {n}");
    }
    w.peers.iter_mut().for_each(|p| p.island = 0);
    let until = w.now.mono + 60 * S;
    assert!(w.run_until(until, |w| w.peers.iter().any(|p| p.contacts > 0)));
}

#[test]
fn an_advertised_address_that_nobody_reaches_is_named_as_the_cause() {
    let mut w = World::new(8);
    w.add();
    w.start(0, vec![]);
    let n = w.add_as(member("nat", 5, 5, address(200)), address(1));
    w.start(n, vec![seed(address(0))]);
    w.run_for(10 * S);
    assert_eq!(w.peers[n].failures(), ["advertised address unreachable"]);
    assert_eq!(w.peers[n].phase(), Phase::Founder);
    assert!(w.sees(0, 0..1), "nothing of an unproven record is used");
}

#[test]
fn a_seed_behind_another_address_answers_from_its_own() {
    // The seed is bound to address 1, and reached through nothing else; its name resolves to an address that forwards.
    let mut w = World::new(9);
    w.add();
    w.start(0, vec![]);
    w.add();
    let now = w.now;
    let virtual_ip = address(99);
    w.start(1, vec![seed(virtual_ip)]);
    let (from, record) = (address(0), w.peers[0].roster.me());
    let p = &mut w.peers[1];
    p.join.handle_challenge(now, from, record.id(), 77, &p.roster);
    let hello = p.join.poll_action();
    assert!(
        matches!(&hello, Some(Action::SendTo { to, message: Message::Hello { cookie: 77, .. } }) if *to == from),
        "{hello:?}"
    );
    // One stranger per HELLO, so that forged CHALLENGEs buy nothing.
    p.join.handle_challenge(now, address(98), MemberId(5), 78, &p.roster);
    assert_eq!(p.join.poll_action(), None);
    let verdict = p.join.handle_welcome(now, from, &record, &[], &p.roster, &mut p.rng);
    assert_eq!(verdict, WelcomeVerdict::Join);
    assert_eq!(p.join.phase(), Phase::PullingMembers);
}

#[test]
fn a_living_owner_keeps_its_name_and_the_newcomer_stops() {
    for generation in [3, 5_000_000_000_000] {
        let mut w = World::new(10);
        w.add();
        w.start(0, vec![]);
        w.add_as(member("twin", 5, 50, address(1)), address(1));
        w.start(1, vec![seed(address(0))]);
        w.run_for(S);
        let generation = if generation > 5 { w.now.wall.0 } else { generation };
        let n = w.add_as(member("twin", generation, 51, address(2)), address(2));
        w.start(n, vec![seed(address(0))]);
        w.run_for(4 * S);
        assert_eq!(w.peers[n].phase(), Phase::Stopped, "generation {generation}");
        assert_eq!(w.peers[n].count(|a| matches!(a, Action::Conflict { other } if other.id().0 == 50)), 1);
        assert_eq!(w.peers[n].count(ended(false)), 1);
        assert_eq!(w.peers[1].phase(), Phase::Joined);
        assert!(w.sees(0, 0..2));
    }
}

#[test]
fn the_name_of_a_silent_owner_goes_to_the_newcomer_after_questions() {
    let mut w = World::new(11);
    w.add();
    w.start(0, vec![]);
    w.add_as(member("twin", 5, 50, address(1)), address(1));
    w.start(1, vec![seed(address(0))]);
    w.run_for(S);
    w.peers[1].up = false;
    let n = w.add_as(member("twin", 6, 51, address(2)), address(2));
    w.start(n, vec![seed(address(0))]);
    w.run_for(3 * S);
    assert_eq!(w.peers[n].phase(), Phase::Joined);
    assert_eq!(w.peers[0].count(|a| matches!(a, Action::Admit { .. })), 1);
    assert!(w.sees(0, [0, 2].into_iter()) && w.sees(n, [0, 2].into_iter()));
    // At the same address nobody needs to be asked.
    w.peers[n].up = false;
    let m = w.add_as(member("twin", 7, 52, address(2)), address(2));
    w.start(m, vec![seed(address(0))]);
    w.run_for(100 * MS);
    assert_eq!(w.peers[0].count(|a| matches!(a, Action::Admit { .. })), 1);
    assert!(w.sees(0, [0, 3].into_iter()));
}

#[test]
fn a_clock_that_went_back_costs_a_new_generation() {
    for same_address in [true, false] {
        let mut w = World::new(12);
        w.add();
        w.start(0, vec![]);
        w.add_as(member("twin", 5_000, 50, address(1)), address(1));
        w.start(1, vec![seed(address(0))]);
        w.run_for(S);
        w.peers[1].up = false;
        let at = if same_address { address(1) } else { address(2) };
        let n = w.add_as(member("twin", 4_000, 51, at), at);
        w.start(n, vec![seed(address(0))]);
        w.run_for(5 * S);
        let p = &w.peers[n];
        assert_eq!(p.phase(), Phase::Joined, "same address: {same_address}");
        assert_eq!(p.roster.me().profile.generation, Generation(5_001));
        assert_eq!(p.count(|a| matches!(a, Action::Renew { .. })), 1);
        assert_eq!(p.count(|a| matches!(a, Action::Ended { .. })), 1);
        assert!(w.sees(0, [0, n].into_iter()));
    }
}

#[test]
fn a_member_that_was_forgotten_is_challenged_and_known_again() {
    let mut w = World::new(13);
    for n in 0..3 {
        w.add();
        w.start(n, if n == 0 { vec![] } else { vec![seed(address(0))] });
        w.run_for(100 * MS);
    }
    w.run_for(4 * S);
    let me = w.peers[0].roster.me();
    w.peers[0].roster = Roster::new(me_hasher(&w), me, 1, 100, S);
    w.send(2, address(0), Message::Ping { seq: 1, origin: None });
    w.run_for(100 * MS);
    assert_eq!(w.peers[2].readmitted, 1);
    assert!(w.sees(0, [0, 2].into_iter()));
    assert!(w.queue_is_empty());
}

fn me_hasher(w: &World) -> crate::record::RecordHasher {
    w.peers[0].roster.hasher().clone()
}

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms * 1_000_000), wall: Wall(1_700_000_000_000 + ms) }
}

#[test]
fn cookies_prove_address_and_id_for_two_minutes() {
    let mut rng = Rng::from_number(1);
    let cookies = Cookies::new(&mut rng);
    let (here, id) = (address(1), MemberId(7));
    let issued = cookies.issue(at(30_000).mono, here, id);
    assert!(cookies.check(at(30_000).mono, issued, here, id));
    assert!(cookies.check(at(119_000).mono, issued, here, id));
    assert!(!cookies.check(at(120_000).mono, issued, here, id), "expired");
    assert!(!cookies.check(at(30_000).mono, issued, address(2), id));
    assert!(!cookies.check(at(30_000).mono, issued, SocketAddr::from(([10, 0, 0, 1], 7947)), id));
    assert!(!cookies.check(at(30_000).mono, issued, here, MemberId(8)));
    assert!(!cookies.check(at(30_000).mono, 0, here, id));
    let others = Cookies::new(&mut rng);
    assert!(!others.check(at(30_000).mono, issued, here, id), "forged under another secret");
}

#[test]
fn a_forged_or_expired_cookie_buys_a_challenge_to_the_recorded_address_only() {
    let mut w = World::new(14);
    w.add();
    w.start(0, vec![]);
    let victim = member("v", 5, 5, address(66));
    let p = &mut w.peers[0];
    let first = p.join.handle_hello(at(30_000), 0, true, &victim, &p.roster, &mut p.rng);
    let HelloVerdict::Reply { message: Message::Challenge { cookie } } = first else { panic!("{first:?}") };
    for (when, cookie) in [(30_000, cookie ^ 1), (121_000, cookie)] {
        let verdict = p.join.handle_hello(at(when), cookie, true, &victim, &p.roster, &mut p.rng);
        assert!(matches!(verdict, HelloVerdict::Reply { message: Message::Challenge { .. } }), "{verdict:?}");
    }
    assert_eq!(p.join.metrics().cookies_refused, 2);
    let good = p.join.handle_hello(at(119_000), cookie, true, &victim, &p.roster, &mut p.rng);
    assert_eq!(good, HelloVerdict::Accept { spread: true });
}

#[test]
fn nothing_is_amplified_before_the_address_is_proven() {
    let mut w = World::new(15);
    w.add();
    w.start(0, vec![]);
    w.run_for(10 * MS);
    let p = &mut w.peers[0];
    let (mut came, mut went, mut answers) = (0, 0, 0u64);
    for i in 0..20_000u64 {
        // 10,000 per second, from as many forged addresses.
        let now = at(1_000 + i / 10);
        let stranger = member("s", 5, 1 + i, address(1 + (i % 60_000) as usize));
        let hello = Message::Hello { cookie: i % 3, spread: true, member: stranger.clone() };
        came += message_bytes(&hello);
        let verdict = p.join.handle_hello(now, i % 3, true, &stranger, &p.roster, &mut p.rng);
        let reply = match verdict {
            HelloVerdict::Reply { message } => Some(message),
            HelloVerdict::Drop => None,
            HelloVerdict::Accept { .. } => panic!("not proven"),
        };
        if let Some(message) = reply {
            assert!(matches!(message, Message::Challenge { .. }));
            assert!(message_bytes(&message) <= message_bytes(&hello));
            went += message_bytes(&message);
            answers += 1;
        }
        assert_eq!(p.join.poll_action(), None);
    }
    assert!(went * 8 < came, "{went} of {came}");
    // 1,000/s over 2 s and a quarter in stock, or B/2 in bytes and half a second's in stock, whichever is less.
    let by_bytes = (2.5 * 128_000.0 / (11.0 + 12.0 + 24.0 + 28.0)) as u64;
    assert!(answers <= 2_251.min(by_bytes + 1) && answers > 1_500, "{answers}");
    // Others than HELLO: 31 bytes at most, to the source, and none while joining.
    let challenge = p.join.challenge(at(60_000), address(5), MemberId(9)).unwrap();
    assert_eq!(message_bytes(&challenge), 11);
    p.join.phase = Phase::PullingEntries;
    assert_eq!(p.join.challenge(at(60_000), address(5), MemberId(9)), None);
}

#[test]
fn what_was_not_asked_for_is_ignored() {
    let mut w = World::new(16);
    for n in 0..3 {
        w.add();
        w.start(n, if n == 0 { vec![] } else { vec![seed(address(0))] });
        w.run_for(2 * S);
    }
    let stranger = member("s", 5, 5, address(66));
    let now = w.now;
    let p = &mut w.peers[1];
    let verdict = p.join.handle_welcome(now, address(66), &stranger, &[], &p.roster, &mut p.rng);
    assert_eq!(verdict, WelcomeVerdict::Ignored);
    p.join.handle_challenge(now, address(66), MemberId(5), 1, &p.roster);
    assert_eq!(p.join.poll_action(), None, "a forged CHALLENGE makes me send nothing");
    let page =
        Page { tree: Tree::Members, from: 0, next: 9, last: false, records: Vec::new(), claims: Vec::new() };
    let from = p.roster.my_id();
    assert_eq!(p.join.handle_page(now, from, &page, &p.roster), Progress::Ignored);
    let twin = Member { profile: member("m1", 1, 9, address(9)).profile, ..stranger };
    p.join.handle_refusal(now, address(66), &twin, &p.roster);
    assert_eq!(p.phase(), Phase::Joined, "a forged refusal stops nobody");
}

/// One member that knows `count` others, and one that joins it.
fn crowd(count: usize, seed_number: u64) -> World {
    let mut w = World::new(seed_number);
    w.config.bytes_per_second_max = 10_000_000;
    w.add();
    w.start(0, vec![]);
    let now = w.now;
    for i in 0..count {
        let other = member(&format!("other{i}"), 5, 1 << 32 | i as u64, address(1000 + i));
        w.peers[0].roster.merge(now, &other);
    }
    // The joiner must ask the one member that is really there.
    w.config.join_timeout = S;
    w
}

fn join_crowd(w: &mut World) -> bool {
    let n = w.add();
    let now = w.now;
    w.start(n, vec![seed(address(0))]);
    let record = w.peers[0].roster.me();
    // Admission without peers in the WELCOME: the seed itself is the source.
    let newcomer = w.peers[n].roster.me();
    w.peers[0].roster.merge(now, &newcomer);
    let p = &mut w.peers[n];
    p.join.handle_welcome(now, address(0), &record, &[], &p.roster, &mut p.rng);
    p.roster.merge(now, &record);
    w.drain(n);
    let until = w.now.mono + 60 * S;
    w.run_until(until, |w| w.peers[n].phase() == Phase::Joined)
}

#[test]
fn a_thousand_members_come_in_datagrams_although_pages_are_lost() {
    for loss in [0.0, 0.3] {
        let mut w = crowd(1_000, 17);
        w.peers[0].accepts_streams = false;
        w.loss = loss;
        w.lose_pages_only = true;
        assert!(join_crowd(&mut w));
        let p = &w.peers[1];
        assert_eq!(p.roster.living(), 1_002, "loss {loss}");
        assert!(w.biggest <= w.config.room(), "{}", w.biggest);
        let distinct: std::collections::BTreeSet<u64> = p.pages.iter().map(|(from, _)| *from).collect();
        if loss == 0.0 {
            let members = p.pages.iter().filter(|(_, stream)| !stream).count();
            assert_eq!(members, distinct.len(), "no page twice");
        } else {
            assert!(p.join.metrics().pulls_repeated > 3);
        }
    }
}

#[test]
fn above_two_hundred_members_come_over_a_stream_and_below_in_datagrams() {
    for (count, stream) in [(100, false), (1_000, true), (5_000, true)] {
        let mut w = crowd(count, 18);
        assert!(join_crowd(&mut w));
        let p = &w.peers[1];
        assert_eq!(p.roster.living(), count + 2);
        let pulled = p.count(|a| matches!(a, Action::PullStream { tree: Tree::Members, .. }));
        assert_eq!(pulled, usize::from(stream), "{count} members");
    }
}

#[test]
fn entries_come_over_a_stream_and_resume_where_it_broke() {
    let mut w = crowd(3, 19);
    w.fill(0, 3_000, 1_000);
    w.break_after = Some(12);
    assert!(join_crowd(&mut w));
    let p = &w.peers[1];
    assert_eq!(p.entries, w.peers[0].entries);
    assert!(w.breaks >= 3, "{}", w.breaks);
    let cursors: Vec<u64> = p
        .log
        .iter()
        .filter_map(|(_, a)| match a {
            Action::PullStream { tree: Tree::Entries, cursor, .. } => Some(*cursor),
            _ => None,
        })
        .collect();
    assert_eq!(cursors.len(), w.breaks + 1);
    assert!(cursors.windows(2).all(|c| c[0] < c[1]), "resumed at the cursor: {cursors:?}");
    let mut froms: Vec<u64> = p.pages.iter().filter(|(_, stream)| *stream).map(|(from, _)| *from).collect();
    froms.dedup();
    froms.sort_unstable();
    let count = froms.len();
    froms.dedup();
    assert_eq!(count, froms.len(), "no page twice");
}

#[test]
fn a_source_that_dies_is_replaced_by_another_member() {
    let mut w = World::new(20);
    for n in 0..4 {
        w.add();
        w.start(n, if n == 0 { vec![] } else { vec![seed(address(0))] });
        w.run_for(S);
    }
    for n in 0..4 {
        w.fill(n, 2_000, 1_000);
    }
    w.break_after = Some(4);
    let n = w.add();
    w.start(n, vec![seed(address(0))]);
    let until = w.now.mono + 10 * S;
    assert!(w.run_until(until, |w| w.peers[n].entries.len() > 100));
    let source = w.peers[n].log.iter().rev().find_map(|(_, a)| match a {
        Action::PullStream { to, .. } => Some(*to),
        _ => None,
    });
    let dead = (0..4).find(|&m| Some(w.peers[m].roster.my_id()) == source).unwrap();
    w.peers[dead].up = false;
    w.break_after = None;
    let until = w.now.mono + 30 * S;
    assert!(w.run_until(until, |w| w.peers[n].phase() == Phase::Joined));
    assert_eq!(w.peers[n].entries.len(), 2_000);
    assert_eq!(w.peers[n].join.metrics().pulls_given_up, 0);
}

#[test]
fn a_source_that_starts_anew_lets_its_joiners_in_anew_at_once() {
    let mut w = World::new(23);
    w.add();
    w.start(0, vec![]);
    w.fill(0, 2_000, 1_000);
    w.break_after = Some(4);
    let n = w.add();
    w.start(n, vec![seed(address(0))]);
    let until = w.now.mono + 10 * S;
    assert!(w.run_until(until, |w| w.peers[n].entries.len() > 100));
    w.peers[0].up = false;
    w.break_after = None;
    let later = w.peers[0].roster.me().profile.generation.0 + 1;
    let next = w.add_as(member("m0", later, 2_000, address(0)), address(0));
    w.fill(next, 2_000, 1_000);
    w.start(next, vec![seed(address(n))]);
    let until = w.now.mono + 3 * S;
    assert!(w.run_until(until, |w| w.peers[n].phase() == Phase::Joined));
    assert_eq!(w.peers[n].entries.len(), 2_000);
}

#[test]
fn a_source_restarted_before_its_turn_is_asked_under_its_new_id() {
    let mut w = World::new(24);
    let n = w.add();
    w.start(n, vec![seed(address(8))]);
    let (now, p) = (w.now, &mut w.peers[n]);
    let (welcomer, source) = (member("w", 5, 80, address(8)), member("x", 5, 90, address(9)));
    let named = [(source.id(), source.address())];
    p.join.handle_welcome(now, address(8), &welcomer, &named, &p.roster, &mut p.rng);
    p.roster.merge(now, &welcomer);
    p.join.handle_welcome(now, address(9), &source, &[], &p.roster, &mut p.rng);
    p.roster.merge(now, &source);
    let page = |tree, last| Page { tree, from: 0, next: 0, last, records: Vec::new(), claims: Vec::new() };
    p.join.handle_page(now, source.id(), &page(Tree::Members, true), &p.roster);
    let again = member("w", 6, 81, address(8));
    p.roster.merge(now, &again);
    p.join.handle_gone(now, welcomer.id());
    while p.join.poll_action().is_some() {}
    // The source joins itself and has no list: whoever welcomed me is next.
    p.join.handle_page(now, source.id(), &page(Tree::Entries, false), &p.roster);
    let asked = std::iter::from_fn(|| p.join.poll_action()).collect::<Vec<_>>();
    let hello = |a: &Action| matches!(a, Action::SendTo { message: Message::Hello { .. }, .. });
    assert!(asked.iter().all(hello) && asked.len() == 1, "nothing for a run that is over: {asked:?}");
    p.join.handle_welcome(now, address(8), &again, &[], &p.roster, &mut p.rng);
    let asked = std::iter::from_fn(|| p.join.poll_action()).collect::<Vec<_>>();
    assert!(matches!(asked[..], [Action::PullStream { to, .. }] if to == again.id()), "{asked:?}");
}

#[test]
fn a_join_never_hangs_where_no_stream_can_be_opened() {
    let mut w = World::new(21);
    for n in 0..3 {
        w.add();
        w.peers[n].accepts_streams = false;
        w.fill(n, 5, 5);
        w.start(n, if n == 0 { vec![] } else { vec![seed(address(0))] });
        w.run_for(10 * S);
    }
    for n in 1..3 {
        assert_eq!(w.peers[n].phase(), Phase::Joined);
        assert_eq!(w.peers[n].join.metrics().pulls_given_up, 1);
        assert!(w.sees(n, 0..3));
    }
}

#[test]
fn pages_carry_running_suspicions_and_fit() {
    let mut w = crowd(300, 22);
    let p = &mut w.peers[0];
    let claim = |id: MemberId| {
        let accuser = crate::member::Accuser { id: MemberId(1), phi64: 600 };
        id.0.is_multiple_of(2).then(|| Claim {
            id,
            incarnation: crate::member::Incarnation(0),
            liveness: crate::member::Liveness::Suspect,
            accusers: vec![accuser, accuser],
        })
    };
    let pages = p.join.serve_pull(at(1), Tree::Members, 0, usize::MAX, &p.roster, &claim);
    assert_eq!(pages.len(), PAGES_PER_PULL);
    for message in &pages {
        assert!(message_bytes(message) <= w.config.room());
        let Message::Page(page) = message else { panic!("{message:?}") };
        let suspects = page.records.iter().filter(|r| match r {
            crate::record::Record::Member(m) => m.id().0 % 2 == 0,
            crate::record::Record::Entry(_) => false,
        });
        assert_eq!(suspects.count(), page.claims.len());
    }
    assert!(p.join.serve_pull(at(1), Tree::Entries, 0, usize::MAX, &p.roster, &claim).is_empty());
    assert!(p.join.serve_pull(at(1), Tree::Members, 0, 500, &p.roster, &claim).is_empty());
    assert_eq!(p.join.serve_pull(at(1), Tree::Members, 0, 3_000, &p.roster, &claim).len(), 2);
}
