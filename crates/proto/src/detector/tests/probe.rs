//! D5, D6, D14, relays.

use super::*;
use crate::detector::probe::PROBES_MAX;

/// A started world of n members and one of them, no partner, whose contact fails: the probe begins at once.
fn probing(n: u64, change: impl FnOnce(&mut Config)) -> (World, MemberId) {
    let mut w = World::new(n, change);
    w.start();
    w.run(MS(10_000));
    let subject = (2..=n).map(id).find(|p| !w.partners().contains(p)).unwrap_or(id(2));
    w.down.insert(subject);
    w.log.clear();
    w.report_dead(subject.0, 0, n);
    (w, subject)
}

#[test]
fn d5_five_rounds_of_pings_and_from_the_second_three_fresh_relays() {
    let (mut w, x) = probing(100, |_| {});
    w.run(MS(499));
    let began = w.log[0].0;
    let pings: Vec<Duration> = w.logged(0, |a| is_ping(a, x)).iter().map(|(at, _)| *at - began).collect();
    assert_eq!(pings, [0, 100, 200, 300, 400].map(MS));
    let vias = w.logged(0, |a| is_via(a, x));
    let relays: BTreeSet<MemberId> = vias
        .iter()
        .filter_map(|(_, a)| if let Action::Send { to, .. } = a { Some(*to) } else { None })
        .collect();
    assert_eq!((vias.len(), relays.len()), (12, 12), "fresh ones each round");
    assert!(vias.iter().all(|(at, _)| *at - began >= MS(100)));
    assert!(!relays.contains(&x) && !relays.contains(&id(1)));
    assert!(w.logged(0, |a| is_accuse(a, x)).is_empty());
    w.run(MS(1));
    assert_eq!(w.logged(0, |a| is_accuse(a, x)).len(), 1);
}

#[test]
fn d5_an_answer_direct_or_relayed_a_beat_or_a_newer_incarnation_ends_it() {
    for how in 0..4 {
        let (mut w, x) = probing(100, |_| {});
        w.run(MS(150));
        match how {
            0 => {
                w.down.clear();
            }
            1 => {
                w.down.clear();
                w.cut.insert(x);
            }
            2 => {
                w.beat(x.0, 1);
            }
            _ => w.refute(x.0, 1),
        }
        // Shorter than the silence limit of the record that the beat makes.
        w.run(MS(2_500));
        assert_eq!(w.d.metrics().accusations, 0, "{how}");
        assert!(!w.d.probes.contains(x));
    }
}

#[test]
fn d5_the_beat_of_a_suspect_ends_nothing_and_its_pings_carry_the_accusation() {
    let mut w = World::started(100);
    w.run(MS(10_000));
    let x = (2..=100).find(|&p| !w.partners().contains(&id(p))).unwrap();
    w.down.insert(id(x));
    w.beat(x, 1);
    w.log.clear();
    assert_eq!(w.suspect(x, 0, &[7]), News::New);
    w.run(MS(50));
    w.beat(x, 2);
    w.run(MS(460));
    assert_eq!(w.logged(0, |a| is_accuse(a, id(x))).len(), 1);
    let sent: Vec<&Action> =
        w.log.iter().map(|(_, a)| a).filter(|a| is_ping(a, id(x)) || is_claims(a, id(x))).collect();
    for pair in sent[..10].chunks(2) {
        let Action::Send { message: Message::Claims(claims), .. } = pair[0] else { panic!("{pair:?}") };
        assert_eq!((claims[0].id, claims[0].liveness), (id(x), Liveness::Suspect));
        assert_eq!(claims[0].accusers[0].id, id(7));
        assert!(is_ping(pair[1], id(x)));
    }
    assert_eq!(w.d.claim_of(id(x)).unwrap().accusers.len(), 2, "I am the second accuser");
}

#[test]
fn d6a_a_subject_that_is_gone_is_not_accused() {
    let (mut w, x) = probing(100, |_| {});
    w.run(MS(450));
    w.set(x, Liveness::Left);
    w.run(MS(5_000));
    assert_eq!(w.d.metrics().accusations, 0);
    assert!(!w.d.probes.contains(x));
}

#[test]
fn d6b_without_any_answer_i_am_isolated_and_accuse_nobody() {
    let (mut w, x) = probing(100, |_| {});
    w.down = (2..=100).map(id).collect();
    let attempts = |w: &World| {
        let pings = w.logged(0, |a| is_ping(a, x));
        let starts: Vec<Mono> = pings.iter().map(|(at, _)| *at).step_by(5).collect();
        starts.windows(2).map(|p| (p[1] - p[0]).as_millis() as u64).collect::<Vec<u64>>()
    };
    w.run(MS(50_000));
    assert_eq!(attempts(&w)[..8], [1_500, 2_500, 3_500, 4_500, 5_500, 6_500, 7_500, 8_500]);
    assert_eq!(w.d.metrics().accusations, 0);
    assert!(w.roster.is_alive(x));
    // D14: after a minute it is dead for me only, until I hear anybody.
    w.run(MS(30_000));
    assert!(!w.logged(0, |a| *a == Action::DeclareAlone { id: x }).is_empty());
    assert!(w.logged(0, |a| matches!(a, Action::Declare { .. })).is_empty());
    assert_eq!(w.roster.liveness(x), Some(Liveness::Dead));
    let alone = w.logged(0, |a| matches!(a, Action::DeclareAlone { .. })).len();
    w.d.handle_heard(w.now, id(50));
    w.drain();
    assert!(w.roster.is_alive(x));
    assert_eq!(w.logged(0, |a| matches!(a, Action::UndoAlone { .. })).len(), alone);
    w.d.handle_heard(w.now, id(50));
    assert_eq!(w.d.poll_action(), None, "taken back once");
}

#[test]
fn d6c_others_answer_but_no_relay_does_three_repetitions_stretched() {
    let (mut w, x) = probing(100, |_| {});
    w.receipts_lost = true;
    let took = w.run_until(|a| is_accuse(a, x));
    let pings = w.logged(0, |a| is_ping(a, x));
    let starts: Vec<Mono> = pings.iter().map(|(at, _)| *at).step_by(5).collect();
    let gaps: Vec<u64> = starts.windows(2).map(|p| (p[1] - p[0]).as_millis() as u64).collect();
    // Partners answer beats, so the first attempts may pass without any answer; those pause.
    assert!(gaps.ends_with(&[500, 1_000, 1_500]), "{gaps:?} {took:?}");
    let last = pings[pings.len() - 1].0 - starts[starts.len() - 1];
    assert_eq!(last, MS(1_600), "the third repetition has rounds of four times the length");
}

#[test]
fn d6d_with_nobody_to_relay_i_accuse() {
    let mut w = World::started(2);
    w.run(MS(10_000));
    w.down.insert(id(2));
    w.beat(2, 1);
    let took = w.run_until(|a| is_accuse(a, id(2)));
    assert!(took <= MS(3_630), "limit and one probe: {took:?}");
    // c = 1 while two live: my accusation alone makes patience short, and nobody else can answer the last questions.
    let took = w.run_until(|a| *a == Action::Declare { id: id(2) });
    assert!(took >= MS(3_990) && took <= MS(4_010), "{took:?}");
}

#[test]
fn d7_the_accusation_carries_the_phi_of_the_edge() {
    let mut w = World::started(50);
    w.run(MS(60_000));
    let p = w.partners().pop_first().unwrap();
    w.down.insert(p);
    w.run_until(|a| is_accuse(a, p));
    let accused = w.logged(0, |a| is_accuse(a, p));
    let Action::Accuse { phi, .. } = accused[0].1 else { panic!() };
    assert!(phi > 8.0 && phi.is_finite(), "{phi}");
    assert_eq!(w.roster.liveness(p), Some(Liveness::Suspect));
}

#[test]
fn relays_serve_known_members_only() {
    let mut w = World::started(20);
    w.log.clear();
    w.d.handle_ping_via(w.now, id(5), 77, id(9), &w.roster);
    w.drain();
    let sent: Vec<Action> = w.log.iter().map(|(_, a)| a.clone()).collect();
    assert_eq!(
        sent,
        [
            Action::Send { to: id(5), message: Message::Receipt { seq: 77 } },
            Action::Send { to: id(9), message: Message::Ping { seq: 77, origin: Some(id(5)) } }
        ]
    );
    let flags = AckFlags { watched: true, ..AckFlags::default() };
    let matched = w.d.handle_ack(w.now, id(9), 77, &flags, Some(id(5)), &w.roster);
    assert_eq!(matched, AckMatch::Relay);
    let passed = Message::Ack { seq: 77, flags, origin: None };
    assert_eq!(w.d.poll_action(), Some(Action::Send { to: id(5), message: passed }));
    w.log.clear();
    w.d.handle_ping_via(w.now, id(5), 78, id(900), &w.roster);
    w.d.handle_ping_via(w.now, id(901), 79, id(9), &w.roster);
    w.d.handle_ack(w.now, id(9), 77, &flags, Some(id(902)), &w.roster);
    w.drain();
    assert_eq!(w.log.len(), 1, "a receipt for the known asker only: {:?}", w.log);
}

#[test]
fn receipts_count_only_from_relays_that_were_asked() {
    let (mut w, x) = probing(100, |_| {});
    w.down = (2..=100).map(id).collect();
    w.run(MS(150));
    let (to, seq) = w
        .logged(0, |a| is_via(a, x))
        .iter()
        .find_map(|(_, a)| match a {
            Action::Send { to, message: Message::PingVia { seq, .. } } => Some((*to, *seq)),
            _ => None,
        })
        .unwrap();
    let stranger = (2..100).map(id).find(|p| *p != to).unwrap();
    w.d.handle_receipt(w.now, stranger, seq);
    w.d.handle_receipt(w.now, to, seq ^ 1);
    w.run(MS(400));
    assert_eq!(w.d.metrics().isolated, 1);
    // In the next attempt one honest receipt is enough to accuse.
    w.run(MS(1_100));
    let from = w.log.len();
    let took = w.run_until(|a| is_via(a, x));
    assert!(took < MS(200));
    let (to, seq) = w
        .logged(from, |a| is_via(a, x))
        .iter()
        .find_map(|(_, a)| match a {
            Action::Send { to, message: Message::PingVia { seq, .. } } => Some((*to, *seq)),
            _ => None,
        })
        .unwrap();
    w.d.handle_receipt(w.now, to, seq);
    w.run(MS(500));
    assert_eq!(w.d.metrics().accusations, 1);
}

#[test]
fn beyond_1024_probes_wait_in_order_and_the_oldest_are_dropped() {
    let mut w = World::new(2_200, |_| {});
    w.start();
    w.run(MS(10));
    w.down = (3..=2_200).map(id).collect();
    for n in 3..=2_200 {
        w.report_dead(n, 0, 2);
    }
    assert_eq!(w.d.probes.counts(), (PROBES_MAX, PROBES_MAX));
    // 2,198 asked for, 1,024 run, 1,174 would wait: the first 150 of them are gone.
    assert!(!w.d.probes.contains(id(3 + 1_024)) && w.d.probes.contains(id(3 + 1_024 + 150)));
    w.refute(3, 1);
    assert_eq!(w.d.probes.counts(), (PROBES_MAX, PROBES_MAX - 1));
    assert!(!w.logged(0, |a| is_ping(a, id(3 + 1_024 + 150))).is_empty(), "the next in order runs");
}
