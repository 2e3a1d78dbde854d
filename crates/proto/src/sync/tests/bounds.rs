//! What is bounded, and what is not kept.

use super::*;
use crate::sync::needs::Needs;

fn ids(count: u32) -> Vec<RumorId> {
    (0..count).map(|tag| RumorId { bucket: (tag % 7) as u16, tag }).collect()
}

#[test]
fn few_records_are_asked_for_at_once_and_the_queue_has_an_end() {
    let (peer, wait) = (MemberId(5), Duration::from_millis(20));
    let now = Mono(1_000_000_000);
    let mut needs = Needs::new(512, 1_000);
    needs.add(peer, &ids(2_000));
    assert_eq!((needs.open(peer), needs.dropped), (1_000, 1_000), "the newest are dropped");
    let asked = needs.pump(now, wait).remove(&peer).unwrap();
    assert_eq!(asked, ids(512));
    assert!(needs.pump(now, wait).is_empty());
    for id in &asked[..256] {
        assert_eq!(needs.arrived(now, *id), Some(peer));
    }
    let more = needs.pump(now, wait).remove(&peer).unwrap();
    assert_eq!(more, ids(768)[512..], "half of them came: as many more");
    // Another announcer is asked instead; a record that both have is asked for once.
    needs.add(MemberId(6), &asked[256..]);
    assert_eq!((needs.open(peer), needs.open(MemberId(6))), (1_000 - 512, 256));
    let late = now + wait;
    let again = needs.handle_timeout(late, wait);
    assert_eq!((again.get(&peer).unwrap().len(), again.get(&MemberId(6)).unwrap().len()), (256, 256));
}

#[test]
fn an_answer_has_at_most_eight_datagrams_and_the_rest_is_asked_for_again() {
    let mut net = Net::new(2, 0.0, 21);
    for k in 0..6_000 {
        net.put(1, &entry(k, 0));
    }
    let (now, settled, from) = (net.now(), net.settled(), net.peers[0].id);
    let everything = [ListRange { first: 0, last: u16::MAX, tags: Vec::new() }];
    let p = &mut net.peers[1];
    let mut both = Both(&mut p.store, &p.roster, &mut p.index);
    p.sync.handle_list(now, from, 1, Tree::Entries, settled, &everything, &mut both);
    let mut offered = 0;
    let mut datagrams = 0;
    while let Some(Action::Send { messages, .. }) = p.sync.poll_action() {
        datagrams += 1;
        for message in messages {
            if let Message::IHave { ids, .. } = message {
                offered += ids.len();
            }
        }
    }
    assert_eq!(datagrams, 8);
    assert!((1_000..2_000).contains(&offered), "{offered} ids");
    net.reset();
    net.compare(0, 1, true);
    net.run(Duration::from_secs(20));
    assert!(net.is_equal());
}

/// A walk, the diff of which is lost, is answered alike by somebody who never heard of it.
#[test]
fn a_walk_is_answered_from_the_view_alone() {
    let mut net = Net::new(2, 0.0, 22);
    net.differ(5_000, 9);
    net.compare(0, 1, true);
    let walk = loop {
        net.run(Duration::from_micros(100));
        if let Some((_, _, messages)) = net.queue.values().next() {
            break messages[0].clone();
        }
    };
    let Message::Walk { seq, tree, settled, salt, items } = walk else { panic!("{walk:?}") };
    let (now, from) = (net.now(), net.peers[0].id);
    let mut fresh = Sync::new(&net.config, &mut Rng::from_number(99));
    let p = &mut net.peers[1];
    let mut answers = Vec::new();
    for sync in [&mut p.sync, &mut fresh] {
        for _ in 0..2 {
            let mut both = Both(&mut p.store, &p.roster, &mut p.index);
            sync.handle_walk(now, from, seq, tree, settled, salt, &items, &mut both);
            answers.push(sync.poll_action().unwrap());
        }
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert!(
        matches!(&answers[0], Action::Send { messages, .. } if matches!(messages[..], [Message::Diff { .. }]))
    );
}

#[test]
fn one_session_runs_at_a_time_quick_ones_at_once() {
    let mut net = Net::new(3, 0.0, 23);
    net.differ(500, 3);
    net.peers[2].store = Store::new(&net.config, net.hasher.clone());
    net.compare(0, 1, true);
    net.compare(0, 2, true);
    net.run(Duration::from_millis(21));
    let asked: Vec<usize> =
        net.queue.values().filter(|(from, ..)| *from == 0).map(|(_, to, _)| *to).collect();
    assert!(net.peers[0].sync.metrics().sessions <= 1 && asked.iter().all(|to| *to == asked[0]), "{asked:?}");
    assert!(net.datagrams > 0, "a quick session starts within 20 ms");
    net.run(Duration::from_secs(30));
    let metrics = net.peers[0].sync.metrics();
    assert!(metrics.sessions >= 1 && net.peers[0].ended.iter().all(|(_, _, whole)| *whole), "{metrics:?}");
}
