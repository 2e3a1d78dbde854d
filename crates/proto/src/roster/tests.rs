use super::*;
use crate::member::Tags;
use std::collections::BTreeSet;
use std::net::SocketAddr;

fn profile(name: &str, generation: u64, id: u64, revision: u64) -> Arc<Profile> {
    Arc::new(Profile {
        name: Arc::from(name),
        generation: Generation(generation),
        id: MemberId(id),
        revision,
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
        tags: Tags::new(),
    })
}

fn member(name: &str, generation: u64, id: u64, incarnation: u64, liveness: Liveness) -> Member {
    Member { profile: profile(name, generation, id, 0), incarnation: Incarnation(incarnation), liveness }
}

fn roster() -> Roster {
    let me = member("me", 1, 1, 0, Liveness::Alive);
    Roster::new(RecordHasher::new("test"), me, 7, 64, Duration::from_secs(100))
}

const NOW: Now = Now { mono: Mono(1_000), wall: Wall(1_000_000_000) };

#[test]
fn a_higher_generation_replaces_the_slot_and_retires_the_old_id() {
    let mut r = roster();
    assert_eq!(r.merge(NOW, &member("a", 5, 50, 3, Liveness::Alive)), Merged::New);
    let replaced = Merged::Replaced { old: MemberId(50), was: Liveness::Alive };
    assert_eq!(r.merge(NOW, &member("a", 6, 40, 0, Liveness::Alive)), replaced);
    assert_eq!(r.merge(NOW, &member("a", 5, 50, 9, Liveness::Alive)), Merged::Stale);
    assert!(r.is_retired(MemberId(50)) && r.get(MemberId(50)).is_none());
    assert_eq!(r.successor(MemberId(50)).map(|m| m.id()), Some(MemberId(40)));
    assert_eq!(
        r.merge(NOW, &member("a", 6, 41, 0, Liveness::Alive)),
        Merged::Replaced { old: MemberId(40), was: Liveness::Alive }
    );
    assert_eq!(r.living(), 2);
    r.audit().unwrap();
}

#[test]
fn the_live_part_merges_by_incarnation_then_state_and_dead_is_never_merged() {
    let mut r = roster();
    r.merge(NOW, &member("a", 5, 50, 3, Liveness::Alive));
    let id = MemberId(50);
    assert_eq!(r.merge_live(NOW.mono, id, Incarnation(3), Liveness::Dead), Ok(None));
    assert_eq!(r.merge_live(NOW.mono, id, Incarnation(3), Liveness::Suspect), Ok(Some(Liveness::Alive)));
    assert_eq!(r.merge_live(NOW.mono, id, Incarnation(3), Liveness::Alive), Ok(None));
    assert_eq!(r.set_liveness(NOW.mono, id, Liveness::Dead), Some(Liveness::Suspect));
    assert_eq!(r.merge_live(NOW.mono, id, Incarnation(3), Liveness::Alive), Ok(None));
    assert_eq!(r.merge_live(NOW.mono, id, Incarnation(4), Liveness::Alive), Ok(Some(Liveness::Dead)));
    assert_eq!(
        r.merge_live(NOW.mono, id, Incarnation(4 + 65_537), Liveness::Alive),
        Err(Refusal::IncarnationJump)
    );
    r.audit().unwrap();
}

#[test]
fn the_root_counts_the_living_only_and_does_not_depend_on_order() {
    let (mut a, mut b) = (roster(), roster());
    let members: Vec<Member> =
        (0..20).map(|i| member(&format!("m{i}"), 5, 100 + i, i, Liveness::Alive)).collect();
    members.iter().for_each(|m| assert_eq!(a.merge(NOW, m), Merged::New));
    members.iter().rev().for_each(|m| assert_eq!(b.merge(NOW, m), Merged::New));
    assert_eq!(a.root(), b.root());
    assert_eq!(a.tree().total(), a.sum());
    a.set_liveness(NOW.mono, MemberId(105), Liveness::Dead);
    assert_ne!(a.root(), b.root());
    b.set_liveness(NOW.mono, MemberId(105), Liveness::Left);
    assert_eq!(a.root(), b.root());
    let later = NOW.mono + Duration::from_secs(101);
    assert_eq!(a.handle_timeout(later).len(), 1);
    assert_eq!(a.root(), b.root(), "forgetting the dead changes no root");
    a.audit().unwrap();
}

#[test]
fn generations_and_incarnations_from_far_ahead_are_refused() {
    let mut r = roster();
    let day = NOW.wall.0 + 86_400_000;
    assert_eq!(
        r.merge(NOW, &member("a", day + 1, 50, 0, Liveness::Alive)),
        Merged::Refused(Refusal::GenerationAhead)
    );
    assert_eq!(
        r.merge(NOW, &member("a", day, 50, 65_537, Liveness::Alive)),
        Merged::Refused(Refusal::IncarnationJump)
    );
    assert_eq!(r.merge(NOW, &member("a", day, 50, 65_536, Liveness::Alive)), Merged::New);
    assert_eq!(r.merge(NOW, &member("b", 5, 50, 0, Liveness::Alive)), Merged::Refused(Refusal::Id));
    assert_eq!(r.merge(NOW, &member("b", 5, 0, 0, Liveness::Alive)), Merged::Refused(Refusal::Id));
}

#[test]
fn a_full_table_forgets_the_gone_first_and_then_refuses() {
    let mut r = roster();
    for i in 0..63 {
        assert_eq!(r.merge(NOW, &member(&format!("m{i}"), 5, 100 + i, 0, Liveness::Alive)), Merged::New);
    }
    assert_eq!(r.merge(NOW, &member("x", 5, 999, 0, Liveness::Alive)), Merged::Refused(Refusal::Full));
    r.set_liveness(NOW.mono, MemberId(120), Liveness::Dead);
    assert_eq!(r.merge(NOW, &member("x", 5, 999, 0, Liveness::Alive)), Merged::New);
    assert!(r.get(MemberId(120)).is_none());
    assert!(r.deadline() <= NOW.mono, "who was forgotten is told at once");
    assert_eq!(r.handle_timeout(NOW.mono).iter().map(Member::id).collect::<Vec<_>>(), [MemberId(120)]);
    assert_eq!((r.deadline(), r.dead(), r.left()), (Mono::FAR, 0, 0));
    r.audit().unwrap();
}

#[test]
fn my_name_under_a_winning_id_is_told_and_changes_nothing() {
    let mut r = roster();
    assert_eq!(r.merge(NOW, &member("me", 9, 77, 0, Liveness::Alive)), Merged::MyName);
    assert_eq!(r.my_id(), MemberId(1));
    r.renew_me(NOW.mono, Generation(10), MemberId(88));
    assert_eq!(r.me().id(), MemberId(88));
    assert_eq!(r.living(), 1);
    r.audit().unwrap();
}

#[test]
fn picks_are_distinct_living_and_never_oneself() {
    let mut r = roster();
    for i in 0..40 {
        r.merge(NOW, &member(&format!("m{i}"), 5, 100 + i, 0, Liveness::Alive));
    }
    r.set_liveness(NOW.mono, MemberId(107), Liveness::Dead);
    let mut rng = Rng::from_number(3);
    let mut seen = BTreeSet::new();
    for _ in 0..400 {
        let picked = r.pick_living(&mut rng, 4);
        assert_eq!(picked.len(), 4);
        let distinct: BTreeSet<_> = picked.iter().copied().collect();
        assert_eq!(distinct.len(), 4);
        assert!(!distinct.contains(&MemberId(1)) && !distinct.contains(&MemberId(107)));
        seen.extend(distinct);
    }
    assert_eq!(seen.len(), 39);
    assert_eq!(r.pick_living(&mut rng, 100).len(), 39);
    assert_eq!(r.pick_dead(&mut rng), Some(MemberId(107)));
}

#[test]
fn rumor_ids_find_the_record_they_name_and_follow_revisions() {
    let mut r = roster();
    r.merge(NOW, &member("a", 5, 50, 0, Liveness::Alive));
    r.index_rumors();
    let first = r.hasher().member_rumor(&profile("a", 5, 50, 0));
    assert_eq!(r.find_rumor(first).map(|m| m.id()), Some(MemberId(50)));
    let newer = Member { profile: profile("a", 5, 50, 1), ..member("a", 5, 50, 0, Liveness::Alive) };
    assert_eq!(r.merge(NOW, &newer), Merged::Updated { profile: true, live: None });
    assert_eq!(r.find_rumor(first), None);
    let second = r.hasher().member_rumor(&newer.profile);
    assert_eq!(r.find_rumor(second).map(|m| m.profile.revision), Some(1));
}
