use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::member::{Generation, Incarnation, Liveness, Member, Profile, Tags};
use crate::record::RecordHasher;

const DAY: u32 = 86_400;
const HALF: u32 = DAY / 2;
const START: u64 = 1_700_000_000;

fn at(secs: u64) -> Now {
    Now { mono: Mono(secs * 1_000_000_000), wall: Wall((START + secs) * 1_000) }
}

fn second(secs: u64) -> Second {
    Second((START + secs) as u32)
}

fn member(id: u64) -> Member {
    let profile = Profile {
        name: Arc::from(format!("m{id}")),
        generation: Generation(START * 1_000),
        id: MemberId(id),
        revision: 0,
        address: SocketAddr::from(([127, 0, 0, 1], 7_000 + id as u16)),
        tags: Tags::new(),
    };
    Member { profile: Arc::new(profile), incarnation: Incarnation(0), liveness: Liveness::Alive }
}

fn roster(me: u64, others: &[u64]) -> Roster {
    let forget = Duration::from_secs(u64::from(DAY));
    let mut roster = Roster::new(RecordHasher::new("t"), member(me), 1, 100, forget);
    for &id in others {
        roster.merge(at(0), &member(id));
    }
    roster
}

fn absence() -> Absence {
    Absence::new(&Config::lan(), at(0))
}

fn told(living: u16, began: u64, table: &[(u64, u64)]) -> Told {
    let table = table.iter().map(|&(id, t)| (MemberId(id), second(t))).collect();
    Told { living, began: second(began), up: second(began), table }
}

/// The verdicts of both ends.
fn both(a: u64, mine: &Told, b: u64, theirs: &Told) -> (Verdict, Verdict) {
    let (a, b) = (MemberId(a), MemberId(b));
    (compare(a, mine, b, theirs, HALF), compare(b, theirs, a, mine, HALF))
}

const LATE: u64 = 200_000;

#[test]
fn what_both_heard_of_a_member_may_differ_by_half_a_lifetime() {
    let near = u64::from(HALF);
    let mine = told(2, 0, &[(1, LATE), (3, LATE)]);
    let other = told(2, 0, &[(2, LATE), (3, LATE - near)]);
    assert_eq!(both(1, &mine, 2, &other), (Verdict::Agree, Verdict::Agree));
    let other = told(2, 0, &[(2, LATE), (3, LATE - near - 1)]);
    let (a, b) = both(1, &mine, 2, &other);
    assert!(a != Verdict::Agree && b != Verdict::Agree && a != b);
}

#[test]
fn the_side_with_fewer_living_members_loses() {
    let mine = told(3, 0, &[(9, LATE), (8, LATE), (7, LATE), (1, 10)]);
    let other = told(2, 0, &[(1, LATE), (2, LATE), (9, 10)]);
    assert_eq!(both(9, &mine, 1, &other), (Verdict::Win, Verdict::Lose));
}

#[test]
fn of_equal_sides_the_one_with_the_smallest_id_wins_whoever_meets() {
    let mine = |me| told(2, 0, &[(me, LATE), (1, LATE), (5, LATE), (2, 10), (3, 10)]);
    let other = |me| told(2, 0, &[(me, LATE), (2, LATE), (3, LATE), (1, 10), (5, 10)]);
    for (a, b) in [(1, 2), (1, 3), (5, 2), (5, 3)] {
        assert_eq!(both(a, &mine(a), b, &other(b)), (Verdict::Win, Verdict::Lose), "{a} {b}");
    }
}

#[test]
fn strangers_with_a_long_past_on_both_sides_conflict_and_only_they() {
    let (old, young) = (0, LATE - 100);
    let mine = told(1, old, &[(1, LATE)]);
    assert_eq!(both(1, &mine, 2, &told(1, old, &[(2, LATE)])), (Verdict::Win, Verdict::Lose));
    assert_eq!(both(1, &mine, 2, &told(5, young, &[(2, LATE)])), (Verdict::Agree, Verdict::Agree));
    let acquainted = told(1, old, &[(1, LATE), (2, LATE)]);
    assert_eq!(both(1, &mine, 2, &acquainted), (Verdict::Agree, Verdict::Agree));
}

#[test]
fn whom_both_lost_long_ago_joins_nobody_unless_all_were_down() {
    let mine = told(1, 0, &[(1, LATE), (9, 1_000)]);
    let other = told(1, 0, &[(2, LATE), (9, 1_500)]);
    let (a, b) = both(1, &mine, 2, &other);
    assert!(a != Verdict::Agree && b != Verdict::Agree && a != b);
    let up_since = |told: &Told, secs| Told { up: second(secs), ..told.clone() };
    let (mine, other) = (up_since(&mine, LATE - 60), up_since(&other, LATE - 60));
    assert_eq!(both(1, &mine, 2, &other), (Verdict::Agree, Verdict::Agree));
    let later = told(1, 0, &[(2, LATE), (9, 1_000 + u64::from(HALF) / 4 + 1)]);
    let later = up_since(&later, LATE - 60);
    assert_ne!(
        both(1, &mine, 2, &later).0,
        Verdict::Agree,
        "it went on, and may have deleted, after the other was down"
    );
    // One of them took over the past of somebody who had been up.
    assert_ne!(both(1, &mine, 2, &up_since(&other, 10)).0, Verdict::Agree);
}

#[test]
fn told_survives_the_wire() {
    let mine = Told { up: second(9), ..told(3, 7, &[(1, LATE), (2, 5)]) };
    let Message::Heard { living, table } = mine.message(MemberId(1)) else { panic!("no HEARD") };
    assert_eq!(Told::from_wire(MemberId(1), living, &table), mine);
}

#[test]
fn of_the_living_one_match_speaks_for_all_of_the_lost_none_does() {
    let mut a = absence();
    let mut r = roster(1, &[2, 3, 4]);
    assert_eq!(a.heard(at(500), MemberId(1), &r), Some(second(500)), "self is always now");
    a.handle_match(at(100), MemberId(2), second(97), &r);
    assert_eq!(a.heard(at(100), MemberId(4), &r), Some(second(97)));
    r.set_liveness(at(200).mono, MemberId(4), Liveness::Dead);
    a.handle_gone(at(200), MemberId(4), &r);
    a.handle_match(at(300), MemberId(2), second(297), &r);
    assert_eq!(a.heard(at(300), MemberId(4), &r), Some(second(97)), "stands still");
    r.set_liveness(at(400).mono, MemberId(4), Liveness::Alive);
    assert_eq!(a.heard(at(400), MemberId(4), &r), Some(second(97)), "until it is matched itself");
    a.handle_match(at(410), MemberId(4), second(407), &r);
    assert_eq!(a.heard(at(410), MemberId(4), &r), Some(second(407)));
}

#[test]
fn a_late_answer_of_a_lost_member_does_not_make_it_unheard_of() {
    let mut a = absence();
    let mut r = roster(1, &[2, 3]);
    r.set_liveness(at(100).mono, MemberId(3), Liveness::Dead);
    a.handle_gone(at(100), MemberId(3), &r);
    a.handle_match(at(105), MemberId(3), second(102), &r);
    assert_eq!(a.heard(at(105), MemberId(3), &r), Some(second(102)));
    assert_eq!(a.told(at(105), &r).table.get(&MemberId(3)), Some(&second(102)));
}

#[test]
fn heard_stops_before_the_silence_that_ended_in_death() {
    let mut a = absence();
    let mut r = roster(1, &[2, 3]);
    a.handle_match(at(1_000), MemberId(2), second(1_000), &r);
    r.set_liveness(at(1_000).mono, MemberId(3), Liveness::Dead);
    a.handle_gone(at(1_000), MemberId(3), &r);
    let lan = Config::lan().detector;
    let silence = (lan.patience * 2 + lan.beat_period * 2).as_secs();
    assert_eq!(a.heard(at(1_001), MemberId(3), &r), Some(second(1_000 - silence)));
}

#[test]
fn entries_move_with_whom_was_heard_lately_and_with_strangers_only_after_heard() {
    let mut a = absence();
    let mut r = roster(1, &[2]);
    assert!(a.is_near(at(10), MemberId(2), &r));
    assert!(a.is_near(at(u64::from(DAY / 8)), MemberId(2), &r));
    assert!(!a.is_near(at(u64::from(DAY / 8) + 1), MemberId(2), &r));
    r.merge(at(20), &member(3));
    a.handle_new(MemberId(3));
    assert!(!a.is_near(at(20), MemberId(3), &r));
    assert!(a.ask(at(20), MemberId(3), &r).is_some());
    assert!(a.ask(at(21), MemberId(3), &r).is_none(), "one at a time");
    let (verdict, answer) = a.handle_heard(at(22), MemberId(3), told(1, 15, &[(3, 22)]), &r);
    assert_eq!((verdict, answer), (Verdict::Agree, None));
    assert!(a.is_near(at(22), MemberId(3), &r));
    assert!(a.is_near(at(82), MemberId(3), &r) && !a.is_near(at(83), MemberId(3), &r), "a match must follow");
    a.handle_match(at(60), MemberId(3), second(57), &r);
    assert!(a.is_near(at(1_000), MemberId(3), &r));
}

#[test]
fn heard_is_answered_once_and_an_answer_never() {
    let (mut a, mut b) = (absence(), absence());
    let (ra, rb) = (roster(1, &[2]), roster(2, &[1]));
    let asked = a.ask(at(5), MemberId(2), &ra);
    let take = |m: Option<Message>, from: u64| match m {
        Some(Message::Heard { living, table }) => Told::from_wire(MemberId(from), living, &table),
        other => panic!("no HEARD: {other:?}"),
    };
    let (_, answer) = b.handle_heard(at(5), MemberId(1), take(asked, 1), &rb);
    let answer = take(answer, 2);
    assert_eq!(a.handle_heard(at(5), MemberId(2), answer.clone(), &ra).1, None);
    assert_eq!(b.handle_heard(at(6), MemberId(1), answer.clone(), &rb).1, None, "nor one that comes late");
    assert!(b.handle_heard(at(8), MemberId(1), answer, &rb).1.is_some());
}

#[test]
fn a_newcomer_that_joined_empty_takes_over_what_its_source_heard() {
    let mut a = Absence::new(&Config::lan(), at(99_998));
    let mut r = roster(1, &[]);
    for id in [2, 3] {
        r.merge(at(99_999), &member(id));
        a.handle_new(MemberId(id));
    }
    a.handle_pull(at(LATE), MemberId(2), false, &r);
    assert!(a.believes(at(99_999), MemberId(2), true, &r) && !a.believes(at(99_999), MemberId(2), false, &r));
    let source = told(3, 0, &[(2, 100_000), (3, 99_990), (7, 50_000)]);
    assert_eq!(a.handle_heard(at(100_000), MemberId(2), source, &r).0, Verdict::Agree);
    assert!(a.is_near(at(100_001), MemberId(3), &r));
    assert_eq!(a.heard(at(100_001), MemberId(7), &r), Some(second(50_000)));
    assert_eq!(a.told(at(100_001), &r).began, second(0));
    a.handle_joined();
    assert!(!a.believes(at(300_000), MemberId(2), true, &r), "no longer by a page alone");
}

#[test]
fn who_pulls_tells_nobody_but_its_source_what_it_knows() {
    let mut a = Absence::new(&Config::lan(), at(LATE));
    let mut r = roster(1, &[]);
    for id in [2, 3] {
        r.merge(at(LATE), &member(id));
        a.handle_new(MemberId(id));
    }
    a.handle_pull(at(LATE), MemberId(2), false, &r);
    // A page with old entries has come, its source's HEARD has not: 3, of the other side, must not agree with an empty table.
    a.handle_taken(Stamp::at(Wall(START * 1_000)));
    let other = told(1, 0, &[(1, LATE), (3, LATE)]);
    let (verdict, answer) = a.handle_heard(at(LATE), MemberId(3), other.clone(), &r);
    assert_eq!((verdict, answer), (Verdict::Later, None));
    assert!(!a.is_near(at(LATE), MemberId(3), &r));
    a.handle_joined();
    assert_eq!(a.counterpart(MemberId(3)), MemberId(2), "a short PULL is complete before its HEARD comes");
    let source = told(2, 0, &[(2, LATE), (3, 0), (4, LATE), (5, LATE)]);
    assert_eq!(a.handle_heard(at(LATE), MemberId(2), source, &r).0, Verdict::Agree);
    assert_eq!(a.counterpart(MemberId(3)), MemberId(3));
    assert_ne!(a.handle_heard(at(LATE + 5), MemberId(3), other, &r).0, Verdict::Agree);
}

#[test]
fn a_source_without_a_table_holds_nobody_up() {
    let r = roster(1, &[2]);
    let pulled = || {
        let mut a = Absence::new(&Config::lan(), at(LATE));
        a.handle_pull(at(LATE), MemberId(2), false, &r);
        assert!(a.ask(at(LATE), MemberId(2), &r).is_some());
        a.handle_gone(at(LATE), MemberId(9), &r);
        a.handle_joined();
        assert_eq!(a.counterpart(MemberId(3)), MemberId(2));
        a
    };
    let mut gone = pulled();
    gone.handle_gone(at(LATE + 1), MemberId(2), &r);
    assert_eq!(gone.counterpart(MemberId(3)), MemberId(3));
    let mut silent = pulled();
    assert!(silent.ask(at(LATE + 9), MemberId(2), &r).is_none());
    assert_eq!(silent.counterpart(MemberId(3)), MemberId(2));
    assert!(silent.ask(at(LATE + 10), MemberId(2), &r).is_some());
    assert_eq!(silent.counterpart(MemberId(3)), MemberId(3));
}

#[test]
fn a_restarted_member_judges_its_absence_by_the_stored_table() {
    let met = |stored: &[(MemberId, Second)]| {
        let mut a = Absence::new(&Config::lan(), at(LATE));
        a.handle_taken(Stamp::at(Wall(START * 1_000)));
        a.restore(stored, &roster(1, &[]));
        let r = roster(1, &[2]);
        a.handle_new(MemberId(2));
        // 11 was the id of my last run.
        a.handle_heard(at(LATE), MemberId(2), told(2, 0, &[(2, LATE), (3, LATE), (11, LATE - 60)]), &r).0
    };
    let line = |id, secs| (MemberId(id), second(secs));
    assert_eq!(met(&[line(2, 100), line(11, 100)]), Verdict::Lose);
    assert_eq!(met(&[line(2, LATE - 100), line(11, LATE - 60)]), Verdict::Agree);
}

#[test]
fn old_begins_at_half_a_lifetime() {
    let a = absence();
    let now = at(LATE);
    let edge = Stamp::at(Wall((START + LATE - u64::from(HALF)) * 1_000 + 999));
    assert!(a.is_old(now, edge) && !a.is_old(now, Stamp::at(Wall(edge.wall().0 + 1))));
    assert!(edge <= a.old_until(now) && Stamp::at(Wall(edge.wall().0 + 1)) > a.old_until(now));
}

#[test]
fn switched_off_everybody_is_near() {
    let mut config = Config::lan();
    config.anti_entropy.absence = false;
    let mut a = Absence::new(&config, at(0));
    let r = roster(1, &[2]);
    a.handle_new(MemberId(2));
    assert!(a.is_near(at(1_000_000), MemberId(2), &r) && a.ask(at(1), MemberId(2), &r).is_none());
}

#[test]
fn who_took_over_a_past_heard_its_source_just_now_and_the_others_when_the_source_did() {
    let r = roster(1, &[2, 3]);
    let mut a = Absence::new(&Config::lan(), at(LATE));
    a.handle_pull(at(LATE), MemberId(2), false, &r);
    a.handle_heard(at(LATE), MemberId(2), told(1, 0, &[(2, LATE), (3, 5_000)]), &r);
    a.handle_joined();
    let heard = |id| a.heard(at(LATE + 1), MemberId(id), &r);
    assert_eq!((heard(2), heard(3)), (Some(second(LATE)), Some(second(5_000))));
    let own = a.told(at(LATE + 1), &r);
    assert_eq!((own.began, own.up), (second(0), second(0)), "its past is the source's");
}

#[test]
fn a_pull_that_hangs_leaves_no_newcomer() {
    let mut a = absence();
    let r = roster(1, &[2]);
    a.handle_pull(at(LATE), MemberId(2), false, &r);
    a.handle_taken(Stamp::at(Wall((START + LATE - 100) * 1_000)));
    let other = told(3, 0, &[(2, LATE + u64::from(DAY)), (3, LATE + u64::from(DAY))]);
    let later = at(LATE + u64::from(DAY));
    assert!(a.believes(at(LATE + u64::from(HALF) / 2), MemberId(2), true, &r));
    assert!(!a.believes(later, MemberId(2), true, &r), "what it held has outlived its tombstones");
    assert_eq!(a.handle_heard(later, MemberId(2), other, &r).0, Verdict::Lose);
}

#[test]
fn who_was_away_itself_takes_one_match_for_one_member_only() {
    let mut a = absence();
    let r = roster(1, &[2, 3]);
    a.handle_match(at(100), MemberId(2), second(97), &r);
    a.handle_match(at(LATE), MemberId(2), second(LATE - 3), &r);
    let heard = |id| a.heard(at(LATE), MemberId(id), &r);
    assert_eq!((heard(2), heard(3)), (Some(second(LATE - 3)), Some(second(97))));
}

#[test]
fn who_holds_nothing_old_takes_over_its_source_and_forgets_what_its_disk_told() {
    let r = roster(1, &[2, 3]);
    let mut a = Absence::new(&Config::lan(), at(LATE));
    a.restore(&[(MemberId(3), second(LATE - 20))], &r);
    a.handle_pull(at(LATE), MemberId(2), false, &r);
    a.handle_heard(at(LATE), MemberId(2), told(1, 0, &[(2, LATE), (3, 7_000)]), &r);
    assert_eq!(a.heard(at(LATE), MemberId(3), &r), Some(second(7_000)));
}

#[test]
fn who_has_been_here_for_long_takes_over_no_past_unasked() {
    let a = Absence::new(&Config::lan(), at(100));
    assert!(!a.goes_back(at(100 + u64::from(HALF))));
    assert!(a.goes_back(at(101 + u64::from(HALF))), "it may have seen deletes that nobody holds any more");
    let (mut a, r) = (a, roster(1, &[2]));
    a.handle_pull(at(LATE), MemberId(2), false, &r);
    assert!(!a.goes_back(at(LATE + 1)), "a rejoin begins anew");
}
