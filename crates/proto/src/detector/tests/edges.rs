//! D1-D4, D15, contacts, phi.

use super::*;
use crate::detector::edges::chooses;

#[test]
fn d1_k_random_partners_are_chosen_and_their_first_beats_leave_at_once() {
    let w = World::started(100);
    assert_eq!(w.partners().len(), 2);
    for p in w.partners() {
        assert_eq!(w.beats_to(0, p), vec![(w.now.mono, w.beats_to(0, p)[0].1)]);
    }
}

#[test]
fn d1_while_few_live_every_pair_is_one_edge() {
    for (a, b) in (1..=9).flat_map(|a| (1..=9).map(move |b| (a, b))).filter(|(a, b)| a != b) {
        assert_ne!(chooses(id(a), id(b)), chooses(id(b), id(a)), "{a} {b}");
    }
    assert!(chooses(id(1), id(3)) && chooses(id(2), id(1)) && !chooses(id(1), id(2)));
    let mut w = World::started(8);
    assert_eq!(w.partners(), BTreeSet::from([id(3), id(5), id(7)]));
    // The ninth ends that: at most k of them stay.
    w.join(9);
    assert_eq!(w.partners().len(), 2);
    // Its death brings it back.
    w.set(id(9), Liveness::Dead);
    assert_eq!(w.partners(), BTreeSet::from([id(3), id(5), id(7)]));
    assert!(w.d.contact_target(&w.roster, &mut w.rng).is_some());
}

#[test]
fn d1_a_partner_that_dies_leaves_or_is_retired_is_replaced_at_once() {
    for how in 0..3 {
        let mut w = World::started(50);
        let lost = w.partners().pop_first().unwrap();
        let from = w.log.len();
        match how {
            0 => w.set(lost, Liveness::Dead),
            1 => w.set(lost, Liveness::Left),
            _ => w.restart(lost.0, 1_000),
        }
        assert_eq!(w.partners().len(), 2);
        assert!(!w.partners().contains(&lost));
        let firsts = w.logged(from, |a| matches!(a, Action::Beat { once: false, .. }));
        assert_eq!(firsts.len(), 1, "{how}: the new partner's first beat");
    }
}

#[test]
fn d1_all_partners_are_chosen_anew_when_the_living_have_doubled() {
    let mut w = World::started(20);
    let before = w.partners();
    (21..40).for_each(|n| w.join(n));
    assert_eq!(w.partners(), before);
    let from = w.log.len();
    w.join(40);
    let firsts = w.logged(from, |a| matches!(a, Action::Beat { once: false, .. })).len();
    assert_eq!(w.partners().len(), 2);
    assert_eq!(firsts, w.partners().difference(&before).count());
    assert_ne!(w.partners(), before);
    let then = w.partners();
    w.join(41);
    assert_eq!(w.partners(), then);
}

#[test]
fn d1_answers_only_through_relays_twice_running_replace_the_partner() {
    let mut w = World::started(50);
    w.run(MS(5_000));
    let victim = w.partners().pop_first().unwrap();
    w.cut.insert(victim);
    w.run_until(|a| is_via(a, victim));
    w.run(MS(20));
    assert!(w.partners().contains(&victim), "once is not enough");
    // A direct answer in between starts the count anew.
    w.cut.remove(&victim);
    w.run(MS(4_000));
    w.cut.insert(victim);
    w.run_until(|a| is_via(a, victim));
    w.run(MS(20));
    assert!(w.partners().contains(&victim), "not twice running");
    w.run_until(|a| is_via(a, victim));
    w.run(MS(20));
    assert!(!w.partners().contains(&victim));
    assert_eq!(w.partners().len(), 2);
    assert_eq!(w.d.metrics().accusations, 0);
}

#[test]
fn d1_observe_adds_a_lasting_edge_that_follows_the_name() {
    let mut w = World::started(50);
    let other = (2..50).map(id).find(|p| !w.partners().contains(p)).unwrap();
    w.d.observe(w.now, other, &w.roster).unwrap();
    w.drain();
    assert_eq!(w.partners().len(), 3);
    (51..=120).for_each(|n| w.join(n));
    assert!(w.partners().contains(&other), "a new choice keeps it");
    w.set(other, Liveness::Dead);
    assert!(!w.partners().contains(&other));
    w.restart(other.0, 2_000);
    assert!(w.partners().contains(&id(2_000)));
    w.d.unobserve(id(2_000));
    assert_eq!(w.partners().len(), 2);
    for n in 0..OBSERVED_MAX as u64 {
        w.d.observe(w.now, id(3 + n), &w.roster).unwrap();
    }
    assert_eq!(w.d.observe(w.now, id(110), &w.roster), Err(TooMany));
    assert_eq!(w.d.observe(w.now, id(3), &w.roster), Ok(()));
}

#[test]
fn d2_beats_go_in_turn_one_each_h_over_partners_with_two_percent_jitter() {
    let mut w = World::started(100);
    w.run(MS(100_000));
    let beats = w.logged(0, |a| matches!(a, Action::Beat { once: false, .. }));
    let beats = &beats[2..];
    for pair in beats.windows(2) {
        let gap = pair[1].0 - pair[0].0;
        assert!(gap >= MS(980) && gap <= MS(1_020), "{gap:?}");
        assert_ne!(pair[0].1, pair[1].1);
    }
    let gaps: BTreeSet<Duration> = beats.windows(2).map(|p| p[1].0 - p[0].0).collect();
    assert!(gaps.len() > 50, "jitter");
    for p in w.partners() {
        let seqs: Vec<u32> = w.beats_to(0, p)[2..].iter().map(|b| b.1).collect();
        assert!(seqs.windows(2).all(|s| s[1] == s[0] + 1), "numbered per edge");
    }
}

#[test]
fn d2_no_partner_waits_over_h_when_edges_come_and_go() {
    let mut w = World::new(40, |c| c.detector.partners = 4);
    w.start();
    let mut last: BTreeMap<MemberId, Mono> = BTreeMap::new();
    let mut seen = 0;
    for round in 0..200u64 {
        w.run(MS(137));
        let lost = w.partners().into_iter().nth((round % 4) as usize).unwrap();
        if round % 3 == 0 && w.roster.living() > 20 {
            w.set(lost, Liveness::Dead);
        }
        for (at, action) in w.log[seen..].iter().cloned() {
            if let Action::Beat { to, once: false, .. } = action
                && let Some(before) = last.insert(to, at)
            {
                assert!(at - before <= MS(2_420), "{to:?} waited {:?}", at - before);
            }
        }
        seen = w.log.len();
    }
}

#[test]
fn d2_a_first_beat_without_its_ack_within_p_starts_a_probe() {
    let mut w = World::new(50, |_| {});
    w.down = (2..=50).map(id).collect();
    w.start();
    w.run(MS(499));
    let pings = |w: &World| w.logged(0, |a| matches!(a, Action::Send { message: Message::Ping { .. }, .. }));
    assert!(pings(&w).is_empty());
    w.run(MS(1));
    assert_eq!(pings(&w).len(), 2);
}

#[test]
fn d2_a_contact_to_a_living_member_must_be_acknowledged_within_p() {
    let mut w = World::started(50);
    w.run(MS(3_000));
    let other = (2..50).map(id).find(|p| !w.partners().contains(p)).unwrap();
    for confirm in [false, true] {
        for answers in [true, false] {
            for living in [true, false] {
                w.down.clear();
                if !answers {
                    w.down.insert(other);
                }
                w.set(other, if living { Liveness::Alive } else { Liveness::Dead });
                let from = w.log.len();
                if confirm {
                    w.d.confirm(w.now, other)
                } else {
                    w.d.contact(w.now, other)
                }
                w.drain();
                w.run(MS(520));
                let probed = !w.logged(from, |a| is_ping(a, other)).is_empty();
                assert_eq!(probed, living && !answers, "confirm {confirm} answers {answers} living {living}");
                w.down.clear();
                w.run(MS(3_000));
            }
        }
    }
}

#[test]
fn d3_samples_are_intervals_over_steps_and_nothing_else() {
    let mut w = World::started(50);
    let x = (2..50).find(|&p| !w.partners().contains(&id(p))).unwrap();
    let samples = |w: &World| w.d.edges.watched_record(id(x)).unwrap().samples();
    assert!(w.beat(x, 10));
    assert_eq!(samples(&w), 2, "two prior samples; the first beat is none");
    w.run(MS(2_000));
    w.beat(x, 11);
    assert_eq!(samples(&w), 3);
    w.beat(x, 11);
    w.beat(x, 5);
    assert_eq!(samples(&w), 3, "duplicate, older");
    w.run(MS(2_000));
    w.beat_with(x, 12, true, false);
    assert_eq!(samples(&w), 3, "a contact");
    w.beat(x, 12 + 512);
    assert_eq!(samples(&w), 3, "the edge says that its pace changed");
    for seq in 525..700 {
        w.run(MS(2_000));
        w.beat(x, seq);
    }
    assert_eq!(samples(&w), 64, "window");
    let limit = w.d.edges.watched_record(id(x)).unwrap().limit();
    // mean 2 s, the deviation at its floor: mu + 5.612 x .1 s.
    assert!(limit >= MS(2_560) && limit <= MS(2_563), "{limit:?}");
    // A beat that comes two seconds late ends a probed silence.
    w.run(MS(4_000));
    w.beat(x, 700);
    assert_eq!(w.d.edges.watched_record(id(x)).unwrap().limit(), limit);
    // After a stall of mine the backlog comes at once: neither the pause nor the burst are samples.
    w.stall(MS(8_000));
    for seq in 702..706 {
        w.beat(x, seq);
    }
    assert_eq!(w.d.edges.watched_record(id(x)).unwrap().limit(), limit);
}

#[test]
fn d3_a_lost_beat_within_the_limit_is_a_sample_of_half_its_interval() {
    let mut w = World::new(50, |c| c.detector.model = crate::phi::Model::Exponential);
    w.start();
    let x = (2..50).find(|&p| !w.partners().contains(&id(p))).unwrap();
    w.beat(x, 10);
    w.run(MS(4_000));
    w.beat(x, 12);
    let record = w.d.edges.watched_record(id(x)).unwrap();
    assert_eq!(record.samples(), 3);
    let expected = 2_000.0 * 8.0 * core::f64::consts::LN_10;
    assert!((record.limit().as_secs_f64() * 1e3 - expected).abs() < 1.0, "{:?}", record.limit());
}

#[test]
fn d3_an_edge_chosen_anew_starts_above_its_old_numbers() {
    let mut w = World::started(10);
    w.run(MS(60_000));
    let p = w.partners().pop_first().unwrap();
    let last = w.beats_to(0, p).last().unwrap().1;
    let from = w.log.len();
    w.set(p, Liveness::Dead);
    w.refute(p.0, 1);
    while !w.partners().contains(&p) {
        let other = w.partners().pop_first().unwrap();
        w.set(other, Liveness::Dead);
        let back = w.roster.live(other).unwrap().0.0 + 1;
        w.refute(other.0, back);
    }
    let first = w.beats_to(from, p)[0].1;
    let step = first.wrapping_sub(last) & 0x7fff_ffff;
    assert!(step > 256 && step < 1 << 30, "{step}");
}

#[test]
fn d3_a_record_goes_with_the_member_and_when_it_does_not_beat_me() {
    let mut w = World::started(50);
    let x = (2..50).find(|&p| !w.partners().contains(&id(p))).unwrap();
    w.beat(x, 1);
    w.set(id(x), Liveness::Dead);
    assert!(!w.beat(x, 2), "no record of the dead");
    w.refute(x, 1);
    assert!(w.beat(x, 3));
    w.watched = false;
    w.run(MS(4_000));
    assert!(w.d.edges.watched_record(id(x)).is_none());
    let from = w.log.len();
    w.run(MS(10_000));
    assert!(w.logged(from, |a| is_ping(a, id(x))).is_empty());
}

#[test]
fn d3_at_most_64_choosers_have_a_record() {
    let mut w = World::started(100);
    let kept = (2..=100).filter(|&n| w.beat(n, 1)).count();
    assert_eq!(kept, WATCHED_MAX);
    let gone = (2..=100).find(|&n| w.beat(n, 2)).unwrap();
    w.set(id(gone), Liveness::Left);
    assert!(w.beat(100, 2));
}

#[test]
fn d3_the_ack_of_a_ping_says_whether_i_beat_the_asker() {
    let mut w = World::started(50);
    let partner = w.partners().pop_first().unwrap();
    let other = (2..50).map(id).find(|p| !w.partners().contains(p)).unwrap();
    w.beat(other.0, 1);
    for (asker, expected) in [(partner, true), (other, false)] {
        for origin in [None, Some(asker)] {
            let from = if origin.is_some() { id(50) } else { asker };
            w.log.clear();
            w.d.handle_ping(w.now, from, 9, origin, &w.roster);
            w.drain();
            let flags = AckFlags { watched: expected, ..AckFlags::default() };
            let ack = Message::Ack { seq: 9, flags, origin };
            assert_eq!(w.log, vec![(w.now.mono, Action::Send { to: from, message: ack })]);
        }
    }
}

#[test]
fn d4_silence_over_the_limit_starts_a_probe_and_its_end_counts_as_an_arrival() {
    let mut w = World::started(50);
    let x = (2..50).find(|&p| !w.partners().contains(&id(p))).unwrap();
    w.beat(x, 1);
    let limit = w.d.edges.watched_record(id(x)).unwrap().limit();
    assert!(limit > MS(3_100) && limit < MS(3_130), "two prior samples of deviation .1 h: {limit:?}");
    let took = w.run_until(|a| is_ping(a, id(x)));
    assert!(took >= limit && took <= limit + MS(2));
    // It answers; the next probe follows one limit after the answer.
    let took = w.run_until(|a| is_ping(a, id(x)));
    assert!(took >= limit && took <= limit + MS(5), "{took:?}");
}

#[test]
fn d14_and_d15_silence_from_all_leads_to_contacts_then_to_the_flag() {
    let mut w = World::started(50);
    w.run(MS(10_000));
    w.down = (2..=50).map(id).collect();
    let from = w.log.len();
    let deaf_at = w.run_until(|a| matches!(a, Action::Beat { deaf: true, .. }));
    // Twice (h + P) after the last datagram, which came within the last second before.
    assert!(deaf_at >= MS(4_000) && deaf_at <= MS(6_100), "{deaf_at:?}");
    let first = w.contacts(from)[0].0;
    let heard = w.d.heard_at;
    assert!(first - heard >= MS(4_000) && first - heard <= MS(4_001), "{:?}", first - heard);
    w.down.clear();
    w.run(MS(3_000));
    let from = w.log.len();
    w.run(MS(10_000));
    assert!(w.logged(from, |a| matches!(a, Action::Beat { deaf: true, .. })).is_empty());
}

#[test]
fn d15_the_deaf_flag_makes_a_partner_probe_and_no_deaf_beat_ends_that() {
    let mut w = World::started(50);
    let x = (2..50).find(|&p| !w.partners().contains(&id(p))).unwrap();
    w.down.insert(id(x));
    w.beat_with(x, 1, false, true);
    assert!(!w.logged(0, |a| is_ping(a, id(x))).is_empty());
    w.run(MS(100));
    w.beat_with(x, 2, false, true);
    w.run(MS(500));
    assert!(!w.logged(0, |a| is_accuse(a, id(x))).is_empty());
    // A stranger's flag is nobody's business.
    let y = (2..50).find(|&p| p != x && !w.partners().contains(&id(p))).unwrap();
    w.beat_with(y, 1 << 31, true, true);
    assert!(w.logged(0, |a| is_ping(a, id(y))).is_empty());
}

#[test]
fn j4_contact_periods_and_targets() {
    let mut w = World::started(20);
    w.run(MS(500_000));
    let due: Vec<Mono> = w.logged(0, |a| *a == Action::ContactDue).iter().map(|(at, _)| *at).collect();
    for pair in due.windows(2) {
        let gap = pair[1] - pair[0];
        assert!(gap >= MS(4_500) && gap <= MS(5_500), "{gap:?}");
    }
    assert!(due.len() > 90);
    let mut hits = 0;
    (2..=6).for_each(|n| w.set(id(n), Liveness::Dead));
    for _ in 0..2_000 {
        let target = w.d.contact_target(&w.roster, &mut w.rng).unwrap();
        hits += usize::from(!w.roster.is_living(target));
    }
    // 5 dead of 20 known: every fourth.
    assert!((499..=501).contains(&hits), "{hits}");
    (7..=20).for_each(|n| w.set(id(n), Liveness::Dead));
    for _ in 0..20 {
        assert!(w.d.contact_target(&w.roster, &mut w.rng).is_some_and(|t| !w.roster.is_living(t)));
    }
    let mut small = World::started(5);
    assert_eq!(small.d.contact_target(&small.roster, &mut small.rng), None);
}

#[test]
fn j4_who_sees_a_revival_knocks_at_one_more_dead_member_within_a_second() {
    let mut w = World::started(20);
    w.run(MS(10_000));
    (2..=4).for_each(|n| {
        w.down.insert(id(n));
        w.set(id(n), Liveness::Dead);
    });
    let knocks = |w: &World, from: usize| {
        w.contacts(from).iter().filter(|(_, to, _)| !w.roster.is_living(*to)).count()
    };
    w.set(id(2), Liveness::Alive);
    let from = w.log.len();
    (0..3).for_each(|_| w.d.handle_revival(w.now, &mut w.rng));
    w.run(MS(490));
    assert_eq!(knocks(&w, from), 0, "most come back by claims meanwhile");
    w.run(MS(520));
    assert_eq!(knocks(&w, from), 1);
    // Nobody is dead any more: nothing is sent.
    (3..=4).for_each(|n| w.set(id(n), Liveness::Alive));
    w.d.handle_revival(w.now, &mut w.rng);
    let from = w.log.len();
    w.run(MS(1_000));
    assert_eq!(knocks(&w, from), 0);
}

#[test]
fn contacts_that_wait_are_sent_in_time_and_the_oldest_go_when_full() {
    let mut w = World::started(100);
    w.run(MS(1));
    let from = w.log.len();
    for n in 0..70 {
        w.d.contact_at(w.now.mono + MS(1_200), id(n + 20));
    }
    w.run(MS(1_199));
    assert!(w.contacts(from).is_empty());
    w.run(MS(1));
    let to: Vec<u64> = w.contacts(from).iter().map(|c| c.1.0).collect();
    assert_eq!(to, (26..90).collect::<Vec<u64>>());
}

#[test]
fn phi_of_users() {
    let mut w = World::started(50);
    w.run(MS(30_000));
    let partner = w.partners().pop_first().unwrap();
    let other = (2..50).map(id).find(|p| !w.partners().contains(p)).unwrap();
    assert_eq!(w.d.phi(w.now, id(1), &w.roster), Some(0.0));
    assert_eq!(w.d.phi(w.now, id(99), &w.roster), None);
    assert_eq!(w.d.phi(w.now, other, &w.roster), None);
    assert!(w.d.phi(w.now, partner, &w.roster).unwrap() < 8.0);
    w.down.insert(partner);
    w.run(MS(2_900));
    assert!(w.d.phi(w.now, partner, &w.roster).unwrap() > 8.0);
    w.suspect(other.0, 0, &[7, 9]);
    assert_eq!(w.d.phi(w.now, other, &w.roster), Some(9.0));
    w.set(other, Liveness::Dead);
    assert_eq!(w.d.phi(w.now, other, &w.roster), Some(f64::INFINITY));
    w.set(other, Liveness::Left);
    assert_eq!(w.d.phi(w.now, other, &w.roster), None);
}

#[test]
fn acks_are_matched_once_and_edge_and_request_told_apart() {
    let mut w = World::new(50, |_| {});
    w.down = (2..=50).map(id).collect();
    w.start();
    let partner = w.partners().pop_first().unwrap();
    let (at, seq) = w.beats_to(0, partner)[0];
    w.run(MS(3));
    w.d.contact(w.now, partner);
    w.drain();
    let (once_at, _, once_seq) = w.contacts(0)[0];
    w.run(MS(4));
    assert_ne!(seq, once_seq);
    assert_eq!(w.ack(partner.0, seq, false, true), AckMatch::None, "a PING was not sent");
    assert_eq!(w.ack(49, seq, true, true), AckMatch::None, "somebody else's");
    assert_eq!(w.ack(partner.0, seq, true, true), AckMatch::Beat { once: false, at });
    assert_eq!(w.ack(partner.0, seq, true, true), AckMatch::None, "twice");
    assert_eq!(w.ack(partner.0, once_seq, false, true), AckMatch::None, "it was a BEAT");
    assert_eq!(w.ack(partner.0, once_seq, true, true), AckMatch::Beat { once: true, at: once_at });
    assert_eq!(w.ack(partner.0, once_seq, true, true), AckMatch::None);
    assert_eq!(w.d.rtt_max_recent(w.now), MS(7));
}

#[test]
fn rtt_sets_the_round_and_the_recent_maximum_is_forgotten() {
    let mut w = World::new(50, |c| {
        c.rtt_initial = MS(180);
        c.detector.beat_period = Duration::from_secs(1);
    });
    assert_eq!(w.d.probe_time(id(2)), MS(900), "rtt_initial");
    assert_eq!(w.d.rtt_max_recent(w.now), MS(180));
    w.start();
    w.run(MS(20_000));
    assert_eq!(w.d.rtt_max_recent(w.now), RTT);
    assert_eq!(w.d.probe_time(id(2)), MS(500), "2 srtt + 4 rttvar, at least 100 ms");
    let partner = w.partners().pop_first().unwrap();
    let mut stranger = w.now;
    stranger.mono = stranger.mono + MS(80);
    w.d.edges.rtt_sample(partner, MS(1_000));
    assert_eq!(w.d.probe_time(partner), MS(1_250), "at most probe_round_max");
    assert_eq!(w.d.probe_time(id(1_000)), MS(1_250), "the largest of any edge stands in");
    w.d.rtt_max.add(stranger.mono, MS(80));
    assert_eq!(w.d.rtt_max_recent(w.now), MS(80));
    w.run(MS(31_000));
    assert_eq!(w.d.rtt_max_recent(w.now), RTT);
}

#[test]
fn after_a_stall_beats_keep_their_turn_and_their_pace_is_not_sampled() {
    let mut w = World::started(50);
    w.run(MS(20_000));
    w.stall(MS(8_000));
    let from = w.log.len();
    w.run(MS(10_000));
    let beats = w.logged(from, |a| matches!(a, Action::Beat { once: false, .. }));
    assert!(beats.windows(2).all(|p| p[1].0 - p[0].0 >= MS(980)));
    for p in w.partners() {
        let before = w.beats_to(0, p).iter().rfind(|b| b.0 < beats[0].0).unwrap().1;
        assert_eq!(w.beats_to(from, p)[0].1, before + 512);
    }
}

#[test]
fn stop_ends_beats_and_contacts_and_answers_go_on() {
    let mut w = World::started(50);
    w.run(MS(3_000));
    w.d.stop();
    let from = w.log.len();
    w.run(MS(30_000));
    assert!(w.log[from..].is_empty(), "{:?}", &w.log[from..]);
    w.d.handle_ping(w.now, id(4), 1, None, &w.roster);
    w.drain();
    assert_eq!(w.log[from..].len(), 1);
    w.start();
    assert_eq!(w.partners().len(), 2);
}
