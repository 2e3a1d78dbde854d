//! Tests of `R6` and of streams.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::budget::{Budget, Class};
use crate::entry::{Entry, Version};
use crate::member::{Generation, Incarnation, Liveness, Member, Profile};
use crate::record::RecordHasher;
use crate::time::{Stamp, Wall};
use crate::wire::message_bytes;

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms * 1_000_000), wall: Wall(ms) }
}

fn address(n: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n as u8], 7946))
}

fn member(n: u64) -> Member {
    let profile = Profile {
        name: format!("m{n}").as_str().into(),
        generation: Generation(1),
        id: MemberId(n),
        revision: 0,
        address: address(n),
        tags: Default::default(),
    };
    Member { profile: Arc::new(profile), incarnation: Incarnation(0), liveness: Liveness::Alive }
}

fn entry(n: u64, bytes: usize) -> Arc<Entry> {
    let version = Version { stamp: Stamp(n + 1), writer: MemberId(9) };
    let key = format!("key{n}").into_bytes().into();
    Arc::new(Entry { key, value: vec![7; bytes].into(), version, tombstone: false, ttl_ms: None })
}

/// A store of entries by id, and endless or short lists of pages.
#[derive(Default)]
struct Shelf {
    records: BTreeMap<RumorId, Arc<Entry>>,
    pages: u64,
    page_bytes: usize,
}

impl Source for Shelf {
    fn record(&mut self, id: RumorId) -> Option<(u8, Record)> {
        self.records.get(&id).map(|e| (3, Record::Entry(e.clone())))
    }
    fn page(&mut self, tree: Tree, from: u64, _: usize) -> Page {
        let last = from + 1 >= self.pages;
        let records = vec![Record::Entry(entry(from, self.page_bytes))];
        Page { tree, from, next: from + 1, last, records, claims: Vec::new() }
    }
}

/// One side.
struct Side {
    transfer: Transfer,
    roster: Roster,
    budget: Budget,
    shelf: Shelf,
}

impl Side {
    fn new(n: u64, others: u64) -> Side {
        let config = Config::lan();
        let hasher = RecordHasher::new("test");
        let mut roster = Roster::new(hasher, member(n), 1, 1_000, Duration::from_secs(86_400));
        for other in (1..=others).filter(|&o| o != n) {
            roster.merge(at(0), &member(other));
        }
        let budget = Budget::new(config.bytes_per_second_max, at(0).mono);
        Side { transfer: Transfer::new(&config, at(0)), roster, budget, shelf: Shelf::default() }
    }

    fn put(&mut self, e: &Arc<Entry>) -> RumorId {
        let id = self.roster.hasher().entry_rumor(e);
        self.shelf.records.insert(id, e.clone());
        id
    }

    fn polled(&mut self, ms: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(a) = self.transfer.poll_action(at(ms), &mut self.budget, &mut self.shelf) {
            actions.push(a);
        }
        actions
    }

    fn message(&mut self, ms: u64, stream: StreamId, from: u64, message: Message) -> Delivered {
        self.transfer.handle_message(at(ms), stream, MemberId(from), message, &self.roster)
    }

    fn announced(&mut self, ms: u64, from: u64, id: RumorId) {
        self.transfer.handle_announced(at(ms), MemberId(from), id, false, &self.roster);
    }

    fn closed(&mut self, ms: u64, stream: StreamId) {
        self.transfer.handle_closed(at(ms), stream, &self.roster);
    }

    fn timeout(&mut self, ms: u64) {
        self.transfer.handle_timeout(at(ms), &self.roster);
    }
}

fn opened(actions: &[Action]) -> Vec<(StreamId, SocketAddr)> {
    let open = |a: &Action| if let Action::Open { stream, to } = a { Some((*stream, *to)) } else { None };
    actions.iter().filter_map(open).collect()
}

fn frames(actions: Vec<Action>) -> Vec<Message> {
    let frame = |a| if let Action::SendFrame { message, .. } = a { Some(message) } else { None };
    actions.into_iter().filter_map(frame).collect()
}

/// What a side sends on these streams, each writable again at once, pieces put together: when the last piece left.
fn sent_by(side: &mut Side, from_ms: u64, to_ms: u64) -> Vec<(u64, StreamId, Message)> {
    let mut parts: BTreeMap<StreamId, Vec<u8>> = BTreeMap::new();
    let mut sent = Vec::new();
    for ms in from_ms..to_ms {
        if side.transfer.deadline() <= at(ms).mono {
            side.timeout(ms);
        }
        loop {
            let actions = side.polled(ms);
            if actions.is_empty() {
                break;
            }
            for action in actions {
                let Action::SendFrame { stream, message } = action else { continue };
                side.transfer.handle_writable(at(ms), stream);
                if let Message::Part { last, bytes } = message {
                    let kept = parts.entry(stream).or_default();
                    kept.extend_from_slice(&bytes);
                    if last {
                        let limits = wire::Limits { value_bytes_max: 1 << 20 };
                        let whole = wire::decode_parts(kept, &limits).unwrap().unwrap();
                        kept.clear();
                        sent.push((ms, stream, whole));
                    }
                } else {
                    sent.push((ms, stream, message));
                }
            }
        }
    }
    sent
}

fn want(id: RumorId) -> Message {
    Message::Want { repair: false, large: true, ids: vec![id] }
}

fn busy(id: RumorId) -> Message {
    Message::Busy { tree: None, id: Some(id) }
}

#[test]
fn a_large_record_is_asked_for_once_over_one_stream_and_arrives() {
    let (mut a, mut b) = (Side::new(1, 3), Side::new(2, 3));
    let e = entry(1, 500_000);
    let id = b.put(&e);
    a.announced(0, 2, id);
    a.announced(1, 3, id);
    let open = opened(&a.polled(1));
    let &[(stream, to)] = &open[..] else { panic!("{open:?}") };
    assert_eq!((stream.0 % 2, to), (0, address(2)));
    a.transfer.handle_opened(at(2), stream);
    assert_eq!(frames(a.polled(2)), [want(id)]);
    let theirs = StreamId(1);
    b.transfer.handle_accepted(at(2), theirs, address(1));
    assert_eq!(b.message(2, theirs, 1, want(id)), Delivered::Nothing);
    let record = Record::Entry(e);
    let whole = Message::Record { hop: 3, record: record.clone() };
    let mut got = Vec::new();
    for ms in 2..4_000 {
        if b.transfer.deadline() <= at(ms).mono {
            b.timeout(ms);
        }
        for piece in frames(b.polled(ms)) {
            assert!(matches!(&piece, Message::Part { bytes, .. } if bytes.len() <= 8_000));
            b.transfer.handle_writable(at(ms), theirs);
            got.push(a.message(ms, stream, 2, piece));
        }
    }
    assert_eq!(got.pop(), Some(Delivered::Record { hop: 3, record }));
    assert!(got.len() >= 62 && got.iter().all(|d| *d == Delivered::Nothing), "{}", got.len());
    assert!(!a.transfer.is_wanted(id));
    // The same once more was not asked for.
    assert_eq!(a.message(4_000, stream, 2, whole), Delivered::Nothing);
    assert_eq!(a.transfer.metrics().dropped, 1);
}

#[test]
fn at_most_four_records_come_at_once_and_streams_are_reused() {
    let mut a = Side::new(1, 3);
    let ids: Vec<RumorId> = (0..10).map(|n| RumorId { bucket: 1, tag: n }).collect();
    ids.iter().for_each(|&id| a.announced(0, 2, id));
    let open = opened(&a.polled(0));
    assert_eq!(open.len(), 1);
    let stream = open[0].0;
    a.transfer.handle_opened(at(1), stream);
    let mut asked = Vec::new();
    for ms in 2..20 {
        asked.extend(frames(a.polled(ms)));
        a.transfer.handle_writable(at(ms), stream);
    }
    assert_eq!(asked, ids[..4].iter().map(|&id| want(id)).collect::<Vec<_>>());
    // One comes by another way: the next is asked for.
    a.transfer.handle_arrived(at(20), ids[1], &a.roster);
    assert_eq!(frames(a.polled(20)), [want(ids[4])]);
}

#[test]
fn beyond_four_records_the_server_is_busy_and_sends_one_frame_at_a_time() {
    let mut b = Side::new(2, 9);
    let ids: Vec<RumorId> = (0..6).map(|n| b.put(&entry(n, 5_000))).collect();
    for (n, &id) in ids.iter().enumerate() {
        let stream = StreamId(1 + 2 * n as u64);
        b.transfer.handle_accepted(at(0), stream, address(3 + n as u64));
        b.message(0, stream, 3 + n as u64, want(id));
    }
    let mut sent = frames(b.polled(0));
    b.timeout(200);
    sent.extend(frames(b.polled(200)));
    let records = sent.iter().filter(|m| matches!(m, Message::Record { .. })).count();
    assert_eq!((records, sent.len()), (4, 6));
    assert!(sent.contains(&busy(ids[4])) && sent.contains(&busy(ids[5])));
    // Nothing more leaves on a stream before it is writable.
    b.message(1, StreamId(1), 3, want(ids[1]));
    assert!(b.message(1, StreamId(1), 3, want(ids[1])) == Delivered::Nothing && b.polled(1).is_empty());
    b.transfer.handle_writable(at(2), StreamId(1));
    assert_eq!(frames(b.polled(2)), [busy(ids[1])], "small messages first");
}

#[test]
fn after_busy_or_a_break_the_latest_other_announcer_is_asked_a_quarter_second_later() {
    let mut a = Side::new(1, 4);
    let id = RumorId { bucket: 1, tag: 1 };
    a.announced(0, 2, id);
    let first = opened(&a.polled(0))[0];
    assert_eq!(first.1, address(2));
    a.announced(1, 3, id);
    a.announced(2, 4, id);
    a.transfer.handle_opened(at(3), first.0);
    a.polled(3);
    a.message(10, first.0, 2, busy(id));
    assert_eq!(a.transfer.deadline(), at(260).mono);
    a.timeout(259);
    assert!(a.polled(259).is_empty());
    a.timeout(260);
    let second = opened(&a.polled(260))[0];
    assert_eq!(second.1, address(4));
    a.closed(300, second.0);
    a.timeout(550);
    assert_eq!(opened(&a.polled(550))[0].1, address(3));
    // The announcer asked last dies: another takes over.
    a.roster.set_liveness(at(551).mono, MemberId(3), Liveness::Dead);
    let third = StreamId(first.0.0 + 4);
    a.closed(560, third);
    a.timeout(810);
    assert_eq!(opened(&a.polled(810))[0].1, address(4));
}

/// One that asks member 2 for what 3 then wants of it, and what has come of that when 60 of 63 pieces have; 2 keeps the rest.
fn half_way(bytes: usize) -> (Side, RumorId, StreamId, Vec<Message>) {
    let (mut a, mut b) = (Side::new(1, 9), Side::new(2, 9));
    let id = b.put(&entry(1, bytes));
    a.announced(0, 2, id);
    let up = opened(&a.polled(0))[0].0;
    a.transfer.handle_opened(at(0), up);
    a.polled(0);
    a.transfer.handle_writable(at(0), up);
    b.transfer.handle_accepted(at(0), StreamId(1), address(1));
    b.message(0, StreamId(1), 1, want(id));
    let mut pieces = Vec::new();
    for ms in 0..4_000 {
        b.timeout(ms);
        pieces.extend(frames(b.polled(ms)));
        b.transfer.handle_writable(at(ms), StreamId(1));
    }
    let rest = pieces.split_off(pieces.len() - 3);
    for piece in pieces {
        assert_eq!(a.message(4_000, up, 2, piece), Delivered::Nothing);
    }
    let began = Action::Began { id };
    assert_eq!(a.polled(4_000).iter().filter(|x| **x == began).count(), 1, "announced once");
    (a, id, up, rest)
}

#[test]
fn a_record_is_passed_on_while_it_comes() {
    let (mut a, id, up, rest) = half_way(500_000);
    a.transfer.handle_accepted(at(4_000), StreamId(1), address(3));
    a.message(4_000, StreamId(1), 3, want(id));
    let mut c = Side::new(3, 9);
    c.announced(4_000, 1, id);
    let theirs = opened(&c.polled(4_000))[0].0;
    c.transfer.handle_opened(at(4_000), theirs);
    c.polled(4_000);
    let mut got = Vec::new();
    let mut run = |a: &mut Side, from_ms: u64| {
        let mut pieces = 0;
        for ms in from_ms..from_ms + 4_000 {
            a.timeout(ms);
            for piece in frames(a.polled(ms)) {
                a.transfer.handle_writable(at(ms), StreamId(1));
                got.push(c.message(ms, theirs, 1, piece));
                pieces += 1;
            }
        }
        (pieces, got.last().cloned())
    };
    let (before, last) = run(&mut a, 4_000);
    assert!(before >= 60 && last == Some(Delivered::Nothing), "what came so far: {before}");
    let mut whole = Vec::new();
    for piece in rest {
        whole.push(a.message(8_000, up, 2, piece));
    }
    assert!(matches!(whole.last(), Some(Delivered::Record { .. })));
    let (after, last) = run(&mut a, 8_000);
    assert_eq!((after, last.as_ref()), (3, whole.last()), "and the rest");
    // Who asks now is served from what is held.
    assert_eq!(a.transfer.metrics().records_sent, 1);
    a.message(12_000, StreamId(1), 3, want(id));
    assert_eq!(frames(a.polled(12_000)), [busy(id)], "the shelf of this test is empty");
}

#[test]
fn a_record_that_ceases_to_come_or_proves_another_is_broken_off_and_busy_told() {
    let end = Message::Part { last: true, bytes: Vec::new().into() };
    for closed in [true, false] {
        let (mut a, id, up, _) = half_way(500_000);
        a.transfer.handle_accepted(at(4_000), StreamId(1), address(3));
        a.message(4_000, StreamId(1), 3, want(id));
        assert!(matches!(&frames(a.polled(4_000))[..], [Message::Part { last: false, .. }]));
        a.transfer.handle_writable(at(4_000), StreamId(1));
        if closed {
            a.closed(4_000, up);
        } else {
            a.message(4_000, up, 2, Message::Part { last: true, bytes: vec![7; 100].into() });
        }
        let mut sent = Vec::new();
        for ms in 4_000..4_400 {
            a.timeout(ms);
            let more = frames(a.polled(ms));
            if !more.is_empty() {
                a.transfer.handle_writable(at(ms), StreamId(1));
            }
            sent.extend(more.into_iter().filter(|m| !matches!(m, Message::Want { .. })));
        }
        assert_eq!(sent, [end.clone(), busy(id)], "closed: {closed}");
        // The one that asked begins anew with another.
        let mut c = Side::new(3, 9);
        c.announced(0, 1, id);
        let theirs = opened(&c.polled(0))[0].0;
        c.message(1, theirs, 1, Message::Part { last: false, bytes: vec![7; 100].into() });
        for message in sent {
            c.message(2, theirs, 1, message);
        }
        c.announced(2, 4, id);
        c.timeout(252);
        assert_eq!(opened(&c.polled(252))[0].1, address(4));
    }
}

#[test]
fn who_still_gets_much_of_a_record_serves_it_to_the_next() {
    for (bytes, refused) in [(200_000, true), (40_000, false)] {
        let mut b = Side::new(2, 9);
        let id = b.put(&entry(1, bytes));
        for n in 0..2 {
            b.transfer.handle_accepted(at(0), StreamId(1 + 2 * n), address(3 + n));
            b.message(0, StreamId(1 + 2 * n), 3 + n, want(id));
        }
        assert_eq!(frames(b.polled(0)).contains(&busy(id)), refused, "{bytes}");
    }
}

#[test]
fn neither_who_takes_nothing_nor_who_died_holds_others_up() {
    let mut b = Side::new(2, 9);
    let id = b.put(&entry(1, 200_000));
    for n in 0..2 {
        b.transfer.handle_accepted(at(0), StreamId(1 + 2 * n), address(3 + n));
    }
    b.message(0, StreamId(1), 3, want(id));
    b.polled(0);
    b.message(900, StreamId(3), 4, want(id));
    assert_eq!(frames(b.polled(900)), [busy(id)]);
    b.transfer.handle_writable(at(950), StreamId(3));
    b.message(1_000, StreamId(3), 4, want(id));
    assert!(
        matches!(&frames(b.polled(1_000))[..], [Message::Part { .. }]),
        "the first took nothing for a second"
    );
    // Asked of 2, which dies; 4 has it too.
    let mut a = Side::new(1, 9);
    a.announced(0, 2, id);
    a.announced(0, 4, id);
    assert_eq!(opened(&a.polled(0))[0].1, address(2));
    a.roster.set_liveness(at(5_000).mono, MemberId(2), Liveness::Dead);
    a.transfer.handle_dead(at(5_000), address(2), &a.roster);
    a.timeout(5_250);
    assert_eq!(opened(&a.polled(5_250))[0].1, address(4));
}

#[test]
fn a_record_that_nobody_gives_is_given_up() {
    let mut a = Side::new(1, 2);
    let id = RumorId { bucket: 1, tag: 1 };
    a.announced(0, 2, id);
    let mut tries = 0;
    for ms in (0..60_000).step_by(50) {
        a.timeout(ms);
        for action in a.polled(ms) {
            match action {
                Action::Open { stream, .. } => {
                    tries += 1;
                    a.closed(ms, stream);
                }
                Action::GaveUp { id: which } => {
                    assert_eq!((which, tries), (id, 6));
                    assert!(!a.transfer.is_wanted(id));
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    panic!("never given up");
}

#[test]
fn a_record_no_longer_held_is_answered_by_busy() {
    let mut b = Side::new(2, 3);
    let id = RumorId { bucket: 1, tag: 1 };
    b.transfer.handle_accepted(at(0), StreamId(1), address(1));
    b.message(0, StreamId(1), 1, want(id));
    assert_eq!(frames(b.polled(0)), [busy(id)]);
}

#[test]
fn large_records_leave_piece_by_piece_one_after_the_other_and_within_the_budget() {
    let mut b = Side::new(2, 9);
    let ids: Vec<RumorId> = (0..3).map(|n| b.put(&entry(n, 300_000))).collect();
    for (n, &id) in (0..).zip(&ids) {
        b.transfer.handle_accepted(at(0), StreamId(1 + 2 * n), address(3 + n));
        b.message(0, StreamId(1 + 2 * n), 3 + n, want(id));
    }
    let times: Vec<u64> = sent_by(&mut b, 0, 20_000).iter().map(|(ms, ..)| *ms).collect();
    assert_eq!(times.len(), 3);
    // 900 kB at B = 256 kB/s, less what was in stock; one of sixteen pieces goes by turn.
    assert!((3_100..=4_200).contains(&times[2]), "{times:?}");
    assert!((900..=1_600).contains(&times[0]) && times[2] - times[1] >= 300, "{times:?}");
}

#[test]
fn a_transfer_leaves_tokens_to_small_rumors_and_keeps_a_share_when_they_take_all() {
    let mut b = Side::new(2, 9);
    let id = b.put(&entry(1, 200_000));
    b.transfer.handle_accepted(at(0), StreamId(1), address(3));
    b.message(0, StreamId(1), 3, want(id));
    for ms in 0..500 {
        if b.transfer.deadline() <= at(ms).mono {
            b.timeout(ms);
        }
        drop(frames(b.polled(ms)));
        b.transfer.handle_writable(at(ms), StreamId(1));
        assert!(b.budget.available(at(ms).mono, Class::Entries) >= 16_000, "room for small ones at {ms}");
    }
    // Small rumors that take whatever there is.
    let mut b = Side::new(2, 9);
    b.put(&entry(1, 200_000));
    b.transfer.handle_accepted(at(0), StreamId(1), address(3));
    b.message(0, StreamId(1), 3, want(id));
    let (mut small, mut large) = (0, 0);
    for ms in 0..4_000 {
        for class in [Class::Members, Class::Entries, Class::Repair] {
            while b.budget.try_spend(at(ms).mono, class, 1_400) {
                small += 1_400;
            }
        }
        if b.transfer.deadline() <= at(ms).mono {
            b.timeout(ms);
        }
        large += frames(b.polled(ms)).iter().map(message_bytes).sum::<usize>();
        b.transfer.handle_writable(at(ms), StreamId(1));
    }
    assert!((110_000..140_000).contains(&large), "an eighth of 1,024 kB: {large}, small {small}");
    assert!(small + large <= 4 * 256_000 + 80_000, "{small} and {large}");
}

#[test]
fn pieces_that_are_too_long_or_make_nothing_cost_the_stream_or_themselves() {
    let mut a = Side::new(1, 3);
    a.transfer.handle_accepted(at(0), StreamId(1), address(2));
    let part = |last, bytes: usize| Message::Part { last, bytes: vec![255; bytes].into() };
    assert_eq!(a.message(0, StreamId(1), 2, part(true, 100)), Delivered::Nothing);
    assert_eq!((a.transfer.metrics().dropped, a.polled(0).len()), (1, 0));
    for _ in 0..70 {
        a.message(0, StreamId(1), 2, part(false, 16_000));
    }
    assert_eq!(a.polled(0), [Action::Close { stream: StreamId(1) }], "over 1 MiB and 64 KiB");
}

#[test]
fn a_pull_runs_to_its_end_at_ten_megabytes_per_second() {
    let mut b = Side::new(2, 3);
    (b.shelf.pages, b.shelf.page_bytes) = (400, 60_000);
    b.transfer.handle_accepted(at(0), StreamId(1), address(1));
    b.message(0, StreamId(1), 1, Message::Pull { tree: Tree::Entries, cursor: 0 });
    let (mut bytes, mut pages, mut ended) = (0, Vec::new(), 0);
    for ms in 0..10_000 {
        if b.transfer.deadline() <= at(ms).mono {
            b.timeout(ms);
        }
        for message in frames(b.polled(ms)) {
            bytes += message_bytes(&message);
            let Message::Page(page) = message else { panic!() };
            pages.push(page.from);
            ended = ms;
            assert!(bytes as f64 <= 500_000.0 + 61_000.0 + 10_000.0 * ms as f64, "{bytes} at {ms}");
            b.transfer.handle_writable(at(ms), StreamId(1));
        }
    }
    assert_eq!(pages, (0..400).collect::<Vec<_>>());
    assert!((2_300..2_700).contains(&ended), "24 MB: {ended} ms");
}

#[test]
fn back_pressure_holds_pages_and_a_dead_reader_is_let_go() {
    let mut b = Side::new(2, 3);
    (b.shelf.pages, b.shelf.page_bytes) = (400, 60_000);
    b.transfer.handle_accepted(at(0), StreamId(1), address(1));
    b.message(0, StreamId(1), 1, Message::Pull { tree: Tree::Entries, cursor: 7 });
    assert_eq!(frames(b.polled(0)).len(), 1);
    assert!(b.polled(1_000).is_empty());
    b.transfer.handle_writable(at(1_000), StreamId(1));
    let next = frames(b.polled(1_000));
    assert!(matches!(&next[..], [Message::Page(p)] if p.from == 8));
    b.timeout(60_999);
    assert!(b.polled(60_999).is_empty());
    b.timeout(61_000);
    assert_eq!(b.polled(61_000), [Action::Close { stream: StreamId(1) }]);
    assert_eq!(b.transfer.deadline(), Mono::FAR);
}

#[test]
fn one_pull_too_many_is_refused_and_the_asker_told() {
    const MAX: u64 = PULLS_OUT_MAX as u64;
    let (mut a, mut b) = (Side::new(1, 9), Side::new(2, 9 + MAX));
    (b.shelf.pages, b.shelf.page_bytes) = (100, 1_000);
    for n in 0..=MAX {
        b.transfer.handle_accepted(at(0), StreamId(1 + 2 * n), address(3 + n));
        b.message(0, StreamId(1 + 2 * n), 3 + n, Message::Pull { tree: Tree::Entries, cursor: 0 });
    }
    let sent = frames(b.polled(0));
    let refused = Message::Busy { tree: Some(Tree::Entries), id: None };
    assert_eq!(sent.iter().filter(|m| **m == refused).count(), 1);
    assert_eq!(sent.iter().filter(|m| matches!(m, Message::Page(_))).count(), PULLS_OUT_MAX);
    a.transfer.pull(at(0), Tree::Entries, address(2), 0, &a.roster);
    let stream = opened(&a.polled(0))[0].0;
    a.transfer.handle_opened(at(1), stream);
    assert_eq!(frames(a.polled(1)), [Message::Pull { tree: Tree::Entries, cursor: 0 }]);
    a.message(2, stream, 2, refused);
    assert_eq!(a.polled(2), [Action::PullFailed { tree: Tree::Entries, busy: true }]);
    // Pages after that are not asked for.
    let late =
        Page { tree: Tree::Entries, from: 0, next: 1, last: true, records: Vec::new(), claims: Vec::new() };
    assert_eq!(a.message(3, stream, 2, Message::Page(late.clone())), Delivered::Nothing);
    a.transfer.pull(at(4), Tree::Entries, address(2), 5, &a.roster);
    assert!(opened(&a.polled(4)).is_empty(), "reused");
    assert_eq!(a.message(5, stream, 2, Message::Page(late.clone())), Delivered::Page(late.clone()));
    assert_eq!(a.message(6, stream, 2, Message::Page(late)), Delivered::Nothing, "it was the last");
}

#[test]
fn idle_streams_close_after_ten_seconds() {
    let mut a = Side::new(1, 3);
    a.transfer.pull(at(0), Tree::Entries, address(2), 0, &a.roster);
    let stream = opened(&a.polled(0))[0].0;
    a.transfer.handle_opened(at(100), stream);
    a.polled(100);
    a.transfer.handle_writable(at(100), stream);
    let last =
        Page { tree: Tree::Entries, from: 0, next: 1, last: true, records: Vec::new(), claims: Vec::new() };
    a.message(5_000, stream, 2, Message::Page(last));
    assert_eq!(a.transfer.deadline(), at(15_000).mono);
    a.timeout(14_999);
    assert!(a.polled(14_999).is_empty());
    a.timeout(15_000);
    assert_eq!(a.polled(15_000), [Action::Close { stream }]);
    // One that never opens is given up after five seconds, and its pull with it.
    a.transfer.pull(at(20_000), Tree::Entries, address(3), 0, &a.roster);
    let dead = opened(&a.polled(20_000))[0].0;
    a.timeout(25_000);
    let failed = Action::PullFailed { tree: Tree::Entries, busy: false };
    assert_eq!(a.polled(25_000), [Action::Close { stream: dead }, failed]);
}

#[test]
fn messages_are_pushed_and_reported_if_they_could_not_be() {
    let mut a = Side::new(1, 3);
    let mail = Message::Mail { seq: 1, topic: "t".into(), payload: vec![0; 100_000].into() };
    a.transfer.send(at(0), MemberId(2), mail.clone(), &a.roster);
    let stream = opened(&a.polled(0))[0].0;
    a.transfer.handle_opened(at(1), stream);
    // The same once more, while it is on its way, is not sent twice.
    a.transfer.send(at(1), MemberId(2), mail.clone(), &a.roster);
    let sent: Vec<Message> = sent_by(&mut a, 1, 3_000).into_iter().map(|(.., m)| m).collect();
    assert_eq!(sent, std::slice::from_ref(&mail));
    let failed = Action::SendFailed { to: MemberId(3), message: mail.clone() };
    a.transfer.send(at(2), MemberId(3), mail.clone(), &a.roster);
    let dead = opened(&a.polled(2))[0].0;
    a.closed(3, dead);
    assert_eq!(a.polled(3), [failed]);
    a.transfer.send(at(4), MemberId(77), mail.clone(), &a.roster);
    assert_eq!(a.polled(4), [Action::SendFailed { to: MemberId(77), message: mail.clone() }]);
    let mut b = Side::new(2, 3);
    b.transfer.handle_accepted(at(0), StreamId(1), address(1));
    assert_eq!(b.message(0, StreamId(1), 1, mail.clone()), Delivered::Message(mail.clone()));
    // A stream belongs to one member.
    assert_eq!(b.message(0, StreamId(1), 3, mail), Delivered::Nothing);
    assert_eq!(b.polled(0), [Action::Close { stream: StreamId(1) }]);
}

#[test]
fn every_table_has_its_limit() {
    let mut a = Side::new(1, 3);
    for n in 0..300u64 {
        a.transfer.handle_accepted(at(0), StreamId(1 + 2 * n), address(2));
    }
    assert_eq!(a.polled(0).len(), 300 - ACCEPTED_MAX);
    let ids: Vec<RumorId> = (0..10_000).map(|n| RumorId { bucket: 2, tag: n }).collect();
    a.message(0, StreamId(1), 2, Message::Want { repair: false, large: true, ids: ids.clone() });
    assert!(a.transfer.streams.get(&StreamId(1)).unwrap().out.len() <= QUEUE_MAX);
    ids.iter().for_each(|&id| a.announced(0, 2, id));
    assert_eq!(a.transfer.wants.len(), Config::lan().limits.wants_max);
    // Busy streams to 64 addresses: the next must fail, an idle one makes room.
    let mut a = Side::new(1, 200);
    for n in 2..=66u64 {
        let mail = Message::Mail { seq: 1, topic: "t".into(), payload: vec![0; 10].into() };
        a.transfer.send(at(n), MemberId(n), mail, &a.roster);
    }
    let actions = a.polled(100);
    assert_eq!(opened(&actions).len(), OPENED_MAX);
    assert_eq!(actions.iter().filter(|x| matches!(x, Action::SendFailed { .. })).count(), 1);
    for (stream, _) in opened(&actions) {
        a.transfer.handle_opened(at(101), stream);
    }
    a.polled(101);
    for (stream, _) in opened(&actions) {
        a.transfer.handle_writable(at(102), stream);
    }
    a.transfer.pull(at(103), Tree::Entries, address(190), 0, &a.roster);
    let more = a.polled(103);
    assert!(matches!(more[..], [Action::Close { .. }, Action::Open { .. }]), "{more:?}");
}
