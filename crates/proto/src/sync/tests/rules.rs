//! The rules one by one: settled, confirmed, held off, members, silence, faults.

use super::*;

#[test]
fn what_is_not_settled_is_left_alone() {
    let mut net = Net::new(2, 0.0, 6);
    net.differ(1_000, 0);
    let now = net.now();
    for k in 0..50u8 {
        // New keys and new versions of old ones, at one side only: rumors are bringing them.
        let key = if k < 25 { vec![b'x', k] } else { entry(usize::from(k), 0).key.to_vec() };
        net.peers[0].store.set(now, &key, Arc::from(&b"young"[..]), None, MemberId(1000)).unwrap();
    }
    net.put(1, &entry(5_000, 0));
    net.reset();
    assert_eq!(net.compare(0, 1, true).1, Compared::Differ);
    net.run(Duration::from_secs(1));
    assert_eq!(net.by_kind["record"].0, 1, "{:?}", net.by_kind);
    assert_eq!(net.peers[0].ended, [(Tree::Entries, 1, true)]);
    assert_eq!(net.compare(0, 1, true).1, Compared::Equal);
    net.run(Duration::from_secs(4));
    net.compare(0, 1, true);
    net.run(Duration::from_secs(1));
    let ended = net.peers[0].ended.clone();
    let left = net.peers[0].store.len() - net.peers[1].store.len();
    assert!(
        net.is_equal(),
        "settled now: {ended:?} {left} {:?} {:?}",
        net.by_kind,
        net.peers[0].sync.metrics()
    );
}

#[test]
fn a_difference_is_confirmed_before_a_session() {
    let mut net = Net::new(2, 0.0, 7);
    net.differ(500, 1);
    let began = net.now_us;
    net.compare(0, 1, false);
    net.run(Duration::from_millis(950));
    assert_eq!((net.peers[0].beats.len(), net.datagrams), (0, 0));
    net.compare(0, 1, false);
    net.run(Duration::from_millis(60));
    assert_eq!(net.peers[0].beats.len(), 0, "the second difference confirmed the first");
    net.run(Duration::from_millis(500));
    assert!(net.is_equal());
    assert_eq!(net.peers[0].ended, [(Tree::Entries, 1, true)]);
    // One second after a useful session the peer gets a BEAT.
    net.run(Duration::from_secs(1));
    assert_eq!(net.peers[0].beats, [MemberId(1001)]);
    assert!(net.now_us - began < 3_000_000);

    // Without a second comparison: a BEAT after 1 s, and equality clears the doubt.
    let mut net = Net::new(2, 0.0, 8);
    net.differ(500, 1);
    net.compare(0, 1, false);
    net.run(Duration::from_millis(1_010));
    assert_eq!(net.peers[0].beats, [MemberId(1001)]);
    let missing = entry(500, 0);
    net.put(1, &missing);
    net.compare(0, 1, false);
    net.run(Duration::from_secs(5));
    assert_eq!((net.datagrams, net.peers[0].beats.len()), (0, 1));
}

/// A full store takes no part in comparisons: its sessions could not end.
#[test]
fn a_full_store_is_not_compared() {
    let mut config = Config::lan();
    config.limits.entries_max = 100;
    let mut net = Net::with(config, 2, 0.0, 9);
    for k in 0..100 {
        net.put(0, &entry(k, 0));
        net.put(1, &entry(k + 50, 0));
    }
    assert_eq!(net.compare(0, 1, true), (Compared::Equal, Compared::Not));
    net.run(Duration::from_secs(1));
    assert_eq!(net.datagrams, 0);
}

#[test]
fn useless_sessions_are_held_off_longer_and_longer() {
    let mut holds = Schedule::new(Config::lan().anti_entropy);
    let mut rng = Rng::from_number(1);
    let mut at = Mono(1_000_000_000_000);
    let mut gaps = Vec::new();
    for _ in 0..6 {
        let ended = at;
        holds.ended(at, Tree::Entries, MemberId(1), 0, true, false);
        let plan = loop {
            at = at + Duration::from_millis(100);
            let roots = Roots { members: 0, entries: 1, living: 2 };
            let comparison = Comparison {
                peer: MemberId(1),
                sent_at: at,
                roots,
                settled: Second(9),
                members: Compared::Equal,
                entries: Compared::Differ,
                quick: false,
            };
            holds.handle_comparison(at, &comparison, None, &mut rng);
            if let Some(plan) = holds.take_due(at) {
                break plan;
            }
        };
        assert_eq!((plan.tree, plan.root), (Tree::Entries, 1));
        gaps.push(at.since(ended).as_secs());
    }
    for (gap, hold) in gaps.iter().zip([10, 20, 40, 60, 60, 60]) {
        assert!((hold..=hold + 2).contains(gap), "{gaps:?}");
    }
    holds.ended(at, Tree::Entries, MemberId(1), 3, true, false);
    assert_eq!(holds.due_beats(at + Duration::from_secs(1)), [MemberId(1)], "useful: a BEAT 1 s later");
}

#[test]
fn members_cross_by_claim_and_record() {
    for loss in [0.0, 0.2] {
        let mut net = Net::new(2, loss, 10);
        let now = net.now();
        // 300 members on both sides; 20 known to one side only; 10 newer on one side; 5 dead in one view.
        for i in 2..302 {
            for p in &mut net.peers {
                assert_eq!(p.roster.merge(now, &member(i)), Merged::New);
            }
        }
        for i in 302..322 {
            net.peers[i % 2].roster.merge(now, &member(i));
        }
        for i in 2..12u64 {
            let id = MemberId(1000 + i);
            net.peers[i as usize % 2]
                .roster
                .merge_live(now.mono, id, Incarnation(3), Liveness::Alive)
                .unwrap();
        }
        for i in 20..25u64 {
            net.peers[0].roster.set_liveness(now.mono, MemberId(1000 + i), Liveness::Dead);
            net.peers[1]
                .roster
                .merge_live(now.mono, MemberId(1000 + i), Incarnation(1), Liveness::Alive)
                .unwrap();
        }
        net.reset();
        let mut rounds = 0;
        while net.peers[0].roster.root() != net.peers[1].roster.root() {
            net.compare(rounds % 2, 1 - rounds % 2, true);
            net.run(Duration::from_millis(500));
            rounds += 1;
            assert!(rounds < 8);
        }
        println!("members, loss {loss}: {rounds} rounds, {} datagrams, {} B", net.datagrams, net.bytes);
        assert_eq!(net.peers[0].roster.living(), 322);
        if loss == 0.0 {
            assert_eq!(rounds, 1);
            assert!(net.peers[0].ended.iter().any(|(tree, moved, _)| *tree == Tree::Members && *moved > 20));
        }
    }
}

#[test]
fn far_apart_members_are_listed_at_once() {
    let mut net = Net::new(2, 0.0, 11);
    let now = net.now();
    for i in 2..1_000 {
        net.peers[1].roster.merge(now, &member(i));
        if i < 500 {
            net.peers[0].roster.merge(now, &member(i));
        }
    }
    net.reset();
    assert_eq!(net.compare(0, 1, false).0, Compared::Far);
    net.run(Duration::from_secs(1));
    assert_eq!(net.peers[0].roster.root(), net.peers[1].roster.root());
    assert!(!net.by_kind.contains_key("walk"));
    println!("500 of 1000 members missing: {} datagrams, {} B, {:?}", net.datagrams, net.bytes, net.by_kind);
}

#[test]
fn a_silent_peer_ends_the_session_and_a_flood_is_dropped() {
    let mut net = Net::new(2, 1.0, 12);
    net.differ(1_000, 10);
    net.compare(0, 1, true);
    net.run(Duration::from_secs(10));
    assert_eq!(net.peers[0].ended, [(Tree::Entries, 0, false)]);
    assert_eq!(net.datagrams, 4, "one request, three repeats");
    let metrics = net.peers[0].sync.metrics();
    assert_eq!((metrics.sessions, metrics.sessions_failed, metrics.sessions_useless), (1, 1, 0));

    let settled = net.settled();
    for seq in 0..100 {
        let items = vec![WalkItem { level: 0, index: 0, children: [0; 16] }];
        net.receive(0, 1, Message::Walk { seq, tree: Tree::Entries, settled, salt: 1, items });
        net.drain(1);
    }
    assert_eq!(net.peers[1].sync.metrics().requests_dropped, 36);

    // A request for a view that the log no longer reaches.
    net.now_us += 2_000_000;
    net.loss = 0.0;
    let old = net.settled().minus(30);
    net.receive(0, 1, Message::List { seq: 1, tree: Tree::Entries, settled: old, ranges: Vec::new() });
    assert_eq!(
        net.peers[1].sync.poll_action(),
        Some(Action::Send {
            to: MemberId(1000),
            messages: vec![Message::Busy { tree: Some(Tree::Entries), id: None }],
            class: Class::Repair
        })
    );
}

#[test]
fn any_answer_is_survived() {
    let mut rng = Rng::from_number(13);
    for seed in 0..30 {
        let mut net = Net::new(2, 0.1, seed);
        net.differ(3_000, 60);
        net.compare(0, 1, true);
        for _ in 0..40 {
            net.run(Duration::from_millis(3));
            let seq = net.peers[0].sync.seq.wrapping_sub(1 + rng.below(3) as u32);
            let items = (0..rng.below(4))
                .map(|_| {
                    let level = rng.below(4) as u8;
                    DiffItem {
                        level,
                        index: rng.below(1 << (4 * level)) as u16,
                        bitmap: rng.u32() as u16,
                        children: vec![[rng.u32(); 16]; rng.below(3)],
                    }
                })
                .collect();
            let settled = net.settled();
            net.receive(1, 0, Message::Diff { seq, tree: Tree::Entries, settled, items });
            net.drain(0);
        }
        net.run(Duration::from_secs(5));
        for round in 0..12 {
            net.compare(round % 2, 1 - round % 2, true);
            net.run(Duration::from_secs(2));
        }
        assert!(net.is_equal(), "seed {seed}");
        assert!(net.peers[0].sync.session.is_none());
    }
}

#[test]
fn a_peer_that_goes_takes_its_session_along() {
    let mut net = Net::new(2, 0.0, 14);
    net.differ(1_000, 100);
    net.compare(0, 1, true);
    net.run(Duration::from_millis(25));
    let now = net.now();
    net.peers[0].sync.handle_gone(now, MemberId(1001));
    assert!(net.peers[0].sync.session.is_none() && net.peers[0].sync.needs.is_empty());
    net.queue.clear();
    net.peers[1].sync.handle_gone(now, MemberId(1000));
    net.run(Duration::from_secs(5));
    assert_eq!(net.peers[0].sync.deadline(), Mono::FAR);
}

/// Of an entry that both have the peer names its version; that it is the older one is said without an answer.
#[test]
fn that_mine_is_newer_is_said_again_if_nobody_asks_for_it() {
    let mut net = Net::new(2, 0.0, 31);
    net.differ(300, 0);
    net.put(0, &entry(7, 9));
    net.put(1, &entry(7, 5));
    net.lose_next = Some(|from, messages| {
        from == 0 && messages.iter().any(|m| matches!(m, Message::IHave { repair: true, .. }))
    });
    net.compare(0, 1, true);
    net.run(Duration::from_secs(1));
    assert!(net.lose_next.is_none(), "it was said");
    assert!(net.is_equal());
    let said = net.by_kind["ihave"].0;
    net.run(Duration::from_secs(5));
    assert_eq!(net.by_kind["ihave"].0, said, "and not for ever");
}

/// Both sides of a split wrote a key long ago; the newer version comes to the announcer before the older one is asked for, and
/// the change log does not reach back that far.
#[test]
fn a_version_that_is_gone_is_asked_for_once() {
    let mut net = Net::new(2, 0.0, 32);
    net.differ(300, 0);
    net.put(1, &entry(400, 2));
    let gone = net.hasher.entry_rumor(&entry(400, 1));
    net.receive(1, 0, Message::IHave { repair: true, large: false, ids: vec![gone] });
    net.drain(0);
    net.run(Duration::from_secs(10));
    assert_eq!(net.by_kind["want"].0, 1);
    assert!(net.peers[0].sync.needs.is_empty());
    // What replaced it is found by the next comparison.
    net.compare(0, 1, true);
    net.run(Duration::from_secs(1));
    assert!(net.is_equal());
}

/// What a peer said it would ask for may have come to it from another.
#[test]
fn a_session_that_only_waits_to_be_asked_ends_after_eight_waits() {
    let mut net = Net::new(2, 0.0, 33);
    net.differ(300, 10);
    net.compare(0, 1, true);
    while net.peers[0].sync.session.is_none() {
        net.run(Duration::from_millis(1));
    }
    net.peers[0].sync.session.as_mut().unwrap().promised += 10;
    let last = 8 * net.peers[0].sync.wait();
    net.run(last - Duration::from_millis(10));
    assert!(net.is_equal() && net.peers[0].sync.session.is_some());
    net.run(Duration::from_millis(30));
    assert_eq!(net.peers[0].ended, [(Tree::Entries, 10, true)]);
}
