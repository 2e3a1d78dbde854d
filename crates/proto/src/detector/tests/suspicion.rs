//! D8-D12.

use super::*;

fn quiet(n: u64) -> (World, u64) {
    let mut w = World::started(n);
    w.run(MS(10_000));
    let x = (2..=n).find(|&p| !w.partners().contains(&id(p))).unwrap();
    w.down.insert(id(x));
    w.log.clear();
    (w, x)
}

#[test]
fn d8_news_more_accusers_and_old() {
    let (mut w, x) = quiet(100);
    assert_eq!(w.suspect(x, 3, &[7]), News::New);
    assert_eq!(w.d.claim_of(id(x)).unwrap().incarnation, Incarnation(3));
    assert_eq!(w.suspect(x, 3, &[7]), News::Old);
    assert_eq!(w.suspect(x, 2, &[8]), News::Old);
    assert_eq!(w.suspect(x, 3, &[7, 8]), News::MoreAccusers);
    assert_eq!(w.suspect(x, 3, &[9]), News::Old, "c are enough");
    let accusers: Vec<MemberId> = w.d.claim_of(id(x)).unwrap().accusers.iter().map(|a| a.id).collect();
    assert_eq!(accusers, [id(7), id(8)]);
    assert_eq!(w.suspect(x, 4, &[9]), News::New, "a newer incarnation is suspected anew");
    assert_eq!(w.d.suspicions().len(), 1);
    w.set(id(20), Liveness::Dead);
    let y = (21..100).find(|&p| !w.partners().contains(&id(p)) && p != x).unwrap();
    assert_eq!(w.suspect(y, 0, &[20]), News::Old, "I hold its only accuser dead");
    assert_eq!(w.suspect(y, 0, &[20, 21]), News::New);
}

#[test]
fn d8_who_has_a_record_checks_and_of_the_others_three_in_n() {
    let (mut w, x) = quiet(100);
    w.beat(x, 1);
    w.suspect(x, 0, &[7]);
    assert_eq!(w.logged(0, |a| is_ping(a, id(x))).len(), 1);
    let mut checks = 0;
    for seed in 0..2_000 {
        w.refute(x, 2 * seed + 1);
        w.d.edges.drop_watched(id(x));
        w.log.clear();
        w.suspect(x, 2 * seed + 2, &[7]);
        checks += w.logged(0, |a| is_ping(a, id(x))).len();
    }
    assert!((30..95).contains(&checks), "3/100 of 2,000: {checks}");
}

#[test]
fn d8_my_own_accusation_starts_no_probe() {
    let (mut w, x) = quiet(100);
    w.beat(x, 1);
    w.suspect(x, 0, &[1]);
    assert!(w.logged(0, |a| is_ping(a, id(x))).is_empty());
}

#[test]
fn d9_patience_is_short_with_c_accusers_or_a_dead_claim_and_double_below() {
    let declared = |w: &mut World, x: u64| w.run_until(|a| *a == Action::Declare { id: id(x) });
    let within = |took: Duration, ms: u64| assert!(took >= MS(ms - 5) && took <= MS(ms + 10), "{took:?}");
    let (mut w, x) = quiet(1_000);
    w.suspect(x, 0, &[7, 8]);
    within(declared(&mut w, x), 4_000);
    let (mut w, x) = quiet(1_000);
    w.suspect(x, 0, &[7]);
    within(declared(&mut w, x), 8_000);
    let (mut w, x) = quiet(1_000);
    w.suspect(x, 0, &[7]);
    w.run(MS(1_000));
    w.suspect(x, 0, &[8]);
    within(declared(&mut w, x), 3_000);
    let (mut w, x) = quiet(1_000);
    w.suspect(x, 0, &[7]);
    w.run(MS(1_000));
    assert_eq!(w.report_dead(x, 0, 9), DeathNews::CountsAsAll);
    within(declared(&mut w, x), 3_000);
    // Short too late: the last questions are asked all the same.
    let (mut w, x) = quiet(1_000);
    w.suspect(x, 0, &[7]);
    w.run(MS(6_000));
    w.suspect(x, 0, &[8]);
    within(declared(&mut w, x), 500);
    let questions = w.logged(0, |a| is_claims(a, id(x))).len();
    assert_eq!(questions, 4);
}

#[test]
fn d9_the_claim_of_one_accuser_is_spread_once_more_when_half_of_the_patience_is_over() {
    let reminders = |w: &World| w.logged(0, |a| matches!(a, Action::Remind { .. }));
    let (mut w, x) = quiet(1_000);
    let began = w.now.mono;
    w.suspect(x, 0, &[7]);
    w.run(MS(9_000));
    let told = reminders(&w);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0 - began, MS(4_000));
    // Not with a second accuser, nor with a dead claim.
    let (mut w, x) = quiet(1_000);
    w.suspect(x, 0, &[7]);
    w.run(MS(3_000));
    w.suspect(x, 0, &[8]);
    w.run(MS(9_000));
    assert!(reminders(&w).is_empty());
    let (mut w, x) = quiet(1_000);
    w.suspect(x, 0, &[7]);
    w.run(MS(3_000));
    w.report_dead(x, 0, 9);
    w.run(MS(9_000));
    assert!(reminders(&w).is_empty());
}

#[test]
fn d9_an_ack_does_not_end_a_suspicion_a_newer_incarnation_does() {
    let (mut w, x) = quiet(100);
    w.suspect(x, 0, &[7, 8]);
    w.down.clear();
    w.d.contact(w.now, id(x));
    w.drain();
    w.run(MS(1_000));
    assert!(w.d.claim_of(id(x)).is_some());
    w.refute(x, 1);
    assert!(w.d.claim_of(id(x)).is_none());
    w.run(MS(10_000));
    assert_eq!((w.d.metrics().deaths, w.d.metrics().refutations), (0, 1));
    // So does a new run of the name, and leaving.
    w.suspect(x, 1, &[7, 8]);
    w.restart(x, 5_000);
    assert!(w.d.suspicions().is_empty());
    w.suspect(5_000, 0, &[7, 8]);
    w.set(id(5_000), Liveness::Left);
    assert!(w.d.suspicions().is_empty());
    w.run(MS(10_000));
    assert_eq!(w.d.metrics().deaths, 0);
}

#[test]
fn d10_four_questions_within_the_last_probe_time() {
    let (mut w, x) = quiet(1_000);
    let began = w.now.mono;
    w.suspect(x, 0, &[7, 8]);
    w.run_until(|a| *a == Action::Declare { id: id(x) });
    let asked = w.logged(0, |a| is_claims(a, id(x)));
    let times: Vec<u64> = asked.iter().map(|(at, _)| (*at - began).as_millis() as u64).collect();
    assert_eq!(times, [3_500, 3_625, 3_750, 3_875]);
    for (_, action) in asked {
        let Action::Send { message: Message::Claims(claims), .. } = action else { panic!() };
        assert_eq!(claims[0].accusers.iter().map(|a| a.id).collect::<Vec<_>>(), [id(1)]);
    }
    // Each is joined by a PING to somebody until somebody has answered something.
    let pings = w.logged(0, |a| matches!(a, Action::Send { message: Message::Ping { .. }, .. }));
    assert_eq!(pings.len(), 1);
}

#[test]
fn d10_who_may_be_deaf_asks_again_and_buries_nobody() {
    let (mut w, x) = quiet(100);
    w.suspect(x, 0, &[7, 8]);
    w.run(MS(3_000));
    w.down = (2..=100).map(id).collect();
    w.run(MS(10_000));
    assert!(w.logged(0, |a| matches!(a, Action::Declare { .. })).is_empty());
    let asked = w.logged(0, |a| is_claims(a, id(x))).len();
    assert!(asked > 40, "again for P, and again: {asked}");
    let mut world = w;
    world.down = BTreeSet::from([id(x)]);
    let took = world.run_until(|a| *a == Action::Declare { id: id(x) });
    assert!(took <= MS(1_100), "as soon as somebody answers: {took:?}");
    // D14
    let (mut w, x) = quiet(100);
    w.suspect(x, 0, &[7, 8]);
    w.down = (2..=100).map(id).collect();
    w.run(MS(59_000));
    assert!(w.roster.is_living(id(x)));
    w.run(MS(6_000));
    assert_eq!(w.logged(0, |a| *a == Action::DeclareAlone { id: id(x) }).len(), 1);
    assert_eq!(w.d.metrics().deaths_declared, 0);
}

#[test]
fn d10_after_a_stall_the_questions_are_asked_before_the_verdict() {
    let (mut w, x) = quiet(100);
    w.suspect(x, 0, &[7, 8]);
    w.stall(MS(30_000));
    w.run(MS(400));
    assert!(w.roster.is_living(id(x)));
    assert_eq!(w.logged(0, |a| is_claims(a, id(x))).len(), 4);
    w.run(MS(600));
    assert!(!w.roster.is_living(id(x)));
}

#[test]
fn d11_a_death_replaces_the_partner_and_sweeps_at_most_four_contacts() {
    let mut w = World::started(100);
    w.run(MS(10_000));
    let p = w.partners().pop_first().unwrap();
    w.down.insert(p);
    let others: Vec<u64> = (2..=100).filter(|&n| !w.partners().contains(&id(n))).take(2).collect();
    w.suspect(p.0, 0, &[7, 8]);
    for &n in &others {
        w.down.insert(id(n));
        w.suspect(n, 0, &[7, 8]);
    }
    w.run_until(|a| matches!(a, Action::Declare { .. }));
    let from = w.log.len();
    w.run(MS(510));
    let contacts = w.contacts(from);
    assert_eq!(contacts.len(), 4, "three deaths at once, four pending");
    assert!(contacts.iter().all(|c| !w.down.contains(&c.1)));
    assert!(!w.partners().contains(&p) && w.partners().len() == 2);
    assert_eq!(w.d.metrics().deaths_declared, 3);
}

#[test]
fn d12_a_dead_claim_about_a_living_member_only_asks_it() {
    let (mut w, x) = quiet(100);
    w.refute(x, 5);
    assert_eq!(w.report_dead(x, 4, 9), DeathNews::Ignored);
    assert!(w.logged(0, |a| is_ping(a, id(x))).is_empty());
    assert_eq!(w.report_dead(x, 5, 9), DeathNews::Probing);
    let sent: Vec<Action> = w.log.iter().map(|(_, a)| a.clone()).collect();
    let Some(Action::Send { message: Message::Claims(claims), .. }) = sent.first() else { panic!() };
    assert_eq!((claims[0].liveness, claims[0].accusers[0].id), (Liveness::Dead, id(9)));
    assert!(is_ping(&sent[1], id(x)));
    assert!(w.d.suspicions().is_empty() && w.d.claim_of(id(x)).is_none());
    w.down.clear();
    w.run(MS(200));
    assert_eq!(w.d.metrics().suspicions, 0);
    // Suspect at another incarnation: it is probed, not counted.
    w.suspect(x, 6, &[7]);
    assert_eq!(w.report_dead(x, 7, 9), DeathNews::Probing);
    assert_eq!(w.report_dead(x, 6, 9), DeathNews::CountsAsAll);
}

#[test]
fn c_is_one_while_two_live_also_when_the_third_dies_meanwhile() {
    let mut w = World::new(3, |_| {});
    w.start();
    w.run(MS(10_000));
    w.down.insert(id(3));
    w.suspect(3, 0, &[1]);
    w.run(MS(1_000));
    w.set(id(2), Liveness::Left);
    let took = w.run_until(|a| *a == Action::Declare { id: id(3) });
    assert!(took >= MS(2_990) && took <= MS(3_010), "{took:?}");
}
