use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::demers::{Direction, Epidemic, Figures, Rule};
use super::tests_cluster::{at, entry, member, roster};
use super::*;
use crate::config::Loss;
use crate::member::{Accuser, Incarnation, Liveness};
use crate::record::RecordHasher;
use crate::wire::{self, Framing, HOP_COLD, message_bytes};

struct Bench {
    rumors: Rumors,
    roster: Roster,
    budget: Budget,
    rng: Rng,
    hasher: RecordHasher,
    config: Config,
}

fn bench_of(config: Config, living: u64) -> Bench {
    let mut bench = Bench {
        rumors: Rumors::new(&config),
        roster: roster(0, living),
        budget: Budget::new(config.bytes_per_second_max, Mono(0)),
        rng: Rng::from_number(5),
        hasher: RecordHasher::new("test"),
        config,
    };
    assert!(bench.poll(at(0)).is_empty());
    bench
}

fn bench() -> Bench {
    bench_of(Config::lan(), 100)
}

impl Bench {
    /// Everything that leaves now; each datagram must fit and encode whole.
    fn poll(&mut self, now: Now) -> Vec<Parcel> {
        let mut parcels = Vec::new();
        while let Some(parcel) = self.rumors.poll_datagram(now, &self.roster, &mut self.budget, &mut self.rng)
        {
            let mut bytes = Vec::new();
            for message in &parcel.messages {
                assert!(wire::encode_message(message, &mut bytes, Framing::Datagram));
            }
            assert_eq!(bytes.len(), parcel.messages.iter().map(message_bytes).sum::<usize>());
            assert!(bytes.len() <= self.config.room() && !parcel.to.contains(&MemberId(1)));
            assert_eq!(parcel.to.iter().collect::<BTreeSet<_>>().len(), parcel.to.len());
            parcels.push(parcel);
        }
        assert!(self.rumors.deadline() > now.mono, "what is due has left");
        parcels
    }

    /// Runs timers until `until`, collecting what leaves with its time in ms.
    fn run(&mut self, until: Now) -> Vec<(f64, Parcel)> {
        let mut all = Vec::new();
        while self.rumors.deadline() <= until.mono {
            let now = at(self.rumors.deadline().0.div_ceil(1000));
            self.rumors.handle_timeout(now, &self.roster, &mut self.rng);
            all.extend(self.poll(now).into_iter().map(|parcel| (now.mono.0 as f64 / 1e6, parcel)));
        }
        all
    }

    fn put(&mut self, now: Now, entry: &Arc<Entry>, hop: u8, own: bool) -> Put {
        let id = self.hasher.entry_rumor(entry);
        self.rumors.put_entry(now, entry.clone(), id, hop, own, &mut self.rng)
    }

    fn want(&mut self, now: Now, ids: &[RumorId], stored: &[Arc<Entry>]) {
        let hasher = &self.hasher;
        let mut find = |id| stored.iter().find(|e| hasher.entry_rumor(e) == id).cloned().map(Record::Entry);
        self.rumors.handle_want(now, MemberId(9), ids, &mut self.budget, &mut find);
    }
}

fn suspicion(id: u64) -> Claim {
    let accusers = vec![Accuser::new(MemberId(77), 9.0)];
    Claim { id: MemberId(id), incarnation: Incarnation(0), liveness: Liveness::Suspect, accusers }
}

fn whole(parcels: &[(f64, Parcel)]) -> usize {
    let is = |m: &&Message| matches!(m, Message::Record { .. });
    parcels.iter().map(|(_, p)| p.to.len() * p.messages.iter().filter(is).count()).sum()
}

fn ids(parcels: &[(f64, Parcel)]) -> usize {
    let count = |m: &Message| if let Message::IHave { ids, .. } = m { ids.len() } else { 0 };
    parcels.iter().map(|(_, p)| p.to.len() * p.messages.iter().map(count).sum::<usize>()).sum()
}

#[test]
fn payload_levels_spend_seven_tenths_of_n() {
    let spread = |n| Spread::new(n, 4, 0.7);
    assert_eq!((spread(100).levels, spread(100).rounds), (2, 3));
    assert!((spread(100).chance - 50.0 / 64.0).abs() < 1e-9);
    let rounds = [10, 100, 1000, 10_000, 100_000].map(|n| spread(n).rounds);
    assert_eq!(rounds, [2, 3, 4, 5, 5]);
    for n in 1..2000 {
        let s = spread(n);
        let peers = 4.min(n.max(2) - 1) as f64;
        let copies: f64 = (1..=s.levels).map(|i| peers.powi(i.into())).sum();
        let next = peers.powi(i32::from(s.levels) + 1);
        assert!((copies + s.chance * next - 0.7 * n as f64).abs() < 1e-6, "{n}: {s:?}");
        assert!((0.0..1.0).contains(&s.chance));
    }
}

#[test]
fn own_news_is_flushed_whole_to_four_and_then_announced_r_times_to_three() {
    let mut b = bench();
    b.put(at(1_000_000), &entry("k", 1), 0, true);
    let all = b.run(at(3_000_000));
    let (first, rest) = all.split_first().unwrap();
    assert!((1000.0..1005.1).contains(&first.0) && first.1.to.len() == 4 && first.1.class == Class::Entries);
    assert!(matches!(first.1.messages.as_slice(), [Message::Record { hop: 0, .. }]));
    assert_eq!(rest.len(), 3, "R = 3");
    assert!(rest.iter().all(|(_, p)| p.to.len() == 3) && ids(rest) == 9 && whole(rest) == 0);
    assert!(rest.first().unwrap().0 - 1000.0 >= 50.0, "not within 50 ms of birth");
    assert!(rest.windows(2).all(|w| (w[1].0 - w[0].0 - 200.0).abs() < 0.01));
    assert_eq!((b.rumors.hot_entries(), b.rumors.deadline()), (0, Mono::FAR));
}

#[test]
fn far_hops_and_sessions_announce_ids_only() {
    for hop in [3, 150, HOP_COLD] {
        let mut b = bench();
        b.put(at(0), &entry("k", 1), hop, false);
        let all = b.run(at(3_000_000));
        assert_eq!((whole(&all), ids(&all)), (0, 4 + 9));
    }
}

#[test]
fn flushes_keep_their_gap() {
    let mut b = bench();
    let mut flushes = BTreeSet::new();
    for ms in 0..100u64 {
        b.put(at(ms * 1000), &entry(&format!("k{ms}"), 1), 0, true);
        for (time, parcel) in b.run(at(ms * 1000 + 999)) {
            if parcel.to.len() == 4 {
                flushes.insert((time * 1000.0) as u64);
            }
        }
    }
    let times: Vec<u64> = flushes.into_iter().collect();
    assert!(times.windows(2).all(|w| w[1] - w[0] >= 20_000 && w[1] - w[0] < 26_000), "{times:?}");
    assert!(times.len() >= 4);
}

#[test]
fn newer_replaces_older_and_starts_anew() {
    let mut b = bench();
    b.put(at(0), &entry("k", 1), 0, true);
    b.run(at(500_000));
    assert!(b.rumors.knows(b.hasher.entry_rumor(&entry("k", 1))));
    b.put(at(500_000), &entry("k", 2), 0, true);
    assert_eq!(b.rumors.hot_entries(), 1);
    assert!(!b.rumors.knows(b.hasher.entry_rumor(&entry("k", 1))));
    let all = b.run(at(3_000_000));
    assert_eq!((whole(&all), ids(&all)), (4, 9));
    for round in 0..3 {
        b.rumors.put_claim(at(3_000_000 + round), suspicion(7), &mut b.rng);
    }
    b.rumors.drop_claim(MemberId(8));
    assert_eq!((b.rumors.hot_claims(), b.rumors.is_claim_hot(MemberId(7))), (1, true));
    b.rumors.drop_claim(MemberId(7));
    assert!(b.run(at(4_000_000)).is_empty());
}

#[test]
fn claims_travel_whole_in_every_mode_and_before_records() {
    for mode in [Mode::Push, Mode::Pull, Mode::PushPull] {
        let mut config = Config::lan();
        config.gossip.mode = mode;
        let mut b = bench_of(config, 100);
        let record = member(50);
        b.rumors.put_member(
            at(0),
            record.clone(),
            b.hasher.member_rumor(&record.profile),
            0,
            true,
            &mut b.rng,
        );
        b.put(at(0), &entry("k", 1), 0, true);
        b.rumors.put_claim(at(0), suspicion(7), &mut b.rng);
        let all = b.run(at(2_000_000));
        let claims: usize = all
            .iter()
            .filter(|(_, p)| p.messages.iter().any(|m| matches!(m, Message::Claims(_))))
            .inspect(|(_, p)| assert_eq!(p.class, Class::Members))
            .map(|(_, p)| p.to.len())
            .sum();
        assert_eq!(claims, 4 + 3 * 3, "{mode:?}");
        let expected = match mode {
            Mode::Push => (2 * 13, 0),
            Mode::Pull => (0, 2 * 13),
            Mode::PushPull => (2 * 4, 2 * 9),
        };
        assert_eq!((whole(&all), ids(&all)), expected, "{mode:?}");
    }
}

#[test]
fn much_payload_is_striped() {
    let mut b = bench_of(Config { bytes_per_second_max: 10_000_000, ..Config::lan() }, 100);
    for i in 0..130 {
        b.put(at(0), &entry(&format!("k{i}"), 1), 0, true);
    }
    b.put(at(0), &entry("cold", 1), HOP_COLD, false);
    let parcels = b.run(at(10_000));
    let records = |p: &Parcel| p.messages.iter().filter(|m| matches!(m, Message::Record { .. })).count();
    let striped = parcels.iter().filter(|(_, p)| p.to.len() == 1).count();
    assert_eq!(parcels.iter().map(|(_, p)| records(p)).sum::<usize>(), 130);
    assert!(striped >= 9 && parcels.len() <= striped + 2, "{striped} of {}", parcels.len());
    assert!(parcels.iter().all(|(_, p)| p.to.len() == 4 || records(p) == 13));
    assert_eq!(ids(&parcels), 4, "an id goes to four all the same");
}

#[test]
fn refused_answers_and_overflow_are_a_backlog_if_they_last_a_second() {
    let mut b = bench_of(Config { bytes_per_second_max: 10_000, ..Config::lan() }, 100);
    let stored = [entry("stored", 1)];
    let ids = [b.hasher.entry_rumor(&stored[0])];
    let exhaust_and_ask = |b: &mut Bench, ms: u64| {
        b.budget.spend(at(ms * 1_000).mono, Class::Members, 10_000);
        b.want(at(ms * 1_000), &ids, &stored);
        b.rumors.backlogged(at(ms * 1_000))
    };
    assert!(!exhaust_and_ask(&mut b, 0), "once is no backlog");
    assert!(!exhaust_and_ask(&mut b, 900));
    assert!(exhaust_and_ask(&mut b, 1_100) && b.rumors.metrics().wants_unanswered == 3);
    assert!(b.rumors.backlogged(at(2_000_000)) && !b.rumors.backlogged(at(2_200_000)), "it ends");
    assert!(!exhaust_and_ask(&mut b, 5_000), "and begins anew");
    let limits = crate::config::Limits { hot_entries_max: 10, ..Config::lan().limits };
    let mut b = bench_of(Config { limits, ..Config::lan() }, 100);
    for i in 0..150 {
        b.put(at(i * 10_000), &entry(&format!("k{i}"), 1), 9, false);
    }
    assert!(b.rumors.metrics().hot_dropped >= 100 && b.rumors.backlogged(at(1_490_000)));
}

#[test]
fn what_was_replaced_by_no_rumor_leaves_the_hot_list_and_is_asked_for_by_nobody() {
    let mut b = bench();
    let old = entry("k", 1);
    b.put(at(0), &old, 0, true);
    b.run(at(10_000));
    assert!(b.rumors.knows(b.hasher.entry_rumor(&old)) && b.rumors.hot_entries() == 1);
    b.rumors.drop_entry(&old.key);
    assert!(!b.rumors.knows(b.hasher.entry_rumor(&old)) && b.rumors.hot_entries() == 0);
    assert!(b.run(at(2_000_000)).is_empty(), "nothing of it is announced");
}

#[test]
fn what_does_not_fit_a_datagram_is_only_announced() {
    let mut b = bench();
    let large = Arc::new(Entry { value: vec![1; 5_000].into(), ..(*entry("big", 1)).clone() });
    b.put(at(0), &large, 0, true);
    let all = b.run(at(2_000_000));
    assert!(!all.is_empty());
    for (_, parcel) in &all {
        assert!(matches!(parcel.messages.as_slice(), [Message::IHave { large: true, repair: false, .. }]));
    }
    b.want(at(2_000_000), &[b.hasher.entry_rumor(&large)], std::slice::from_ref(&large));
    assert!(b.poll(at(2_000_000)).is_empty());
}

#[test]
fn a_want_is_answered_from_the_hot_list_or_the_store_and_keeps_a_rumor_alive() {
    let mut b = bench();
    let (hot, cold) = (entry("hot", 1), entry("cold", 1));
    b.put(at(0), &hot, 2, false);
    let wanted = [b.hasher.entry_rumor(&hot), b.hasher.entry_rumor(&cold), RumorId { bucket: 1, tag: 1 }];
    b.run(at(100_000));
    b.want(at(100_000), &[&wanted[..], &wanted[..]].concat(), &[cold]);
    let answers = b.poll(at(100_000));
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].to, [MemberId(9)]);
    let hops: Vec<u8> = answers[0]
        .messages
        .iter()
        .filter_map(|m| if let Message::Record { hop, .. } = m { Some(*hop) } else { None })
        .collect();
    assert_eq!(hops, [2, HOP_ASKED]);
    // Asked once between two ticks, several times: one round back each, so it stays hot while somebody asks.
    for ms in (250..2_250).step_by(100) {
        b.run(at(ms * 1000));
        b.want(at(ms * 1000), &wanted[..1], &[]);
        b.poll(at(ms * 1000));
        assert_eq!(b.rumors.hot_entries(), 1);
    }
    b.run(at(4_000_000));
    assert_eq!(b.rumors.hot_entries(), 0);
}

#[test]
fn wants_are_repeated_to_the_latest_announcer_and_then_forgotten() {
    let mut b = bench();
    b.rumors.set_rtt(Duration::from_millis(10));
    let id = RumorId { bucket: 3, tag: 4 };
    b.rumors.handle_ihave(at(0), MemberId(5), &[id, id]);
    let asked =
        |all: &[(f64, Parcel)]| -> Vec<(f64, u64)> { all.iter().map(|(t, p)| (*t, p.to[0].0)).collect() };
    let first = b.poll(at(0));
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].messages, [Message::Want { repair: false, large: false, ids: vec![id] }]);
    b.rumors.handle_ihave(at(10_000), MemberId(6), &[id]);
    assert!(b.poll(at(10_000)).is_empty(), "one WANT at a time");
    assert_eq!(asked(&b.run(at(1_000_000))), [(31.0, 6), (62.0, 6), (93.0, 6)]);
    assert_eq!((b.rumors.wants_pending(), b.rumors.metrics().wants_given_up), (0, 1));

    b.rumors.handle_ihave(at(1_000_000), MemberId(5), &[id]);
    b.rumors.handle_arrived(at(1_000_000), id);
    assert!(b.run(at(2_000_000)).is_empty() && b.rumors.wants_pending() == 0);
    let many: Vec<RumorId> = (0..2_000).map(|tag| RumorId { bucket: 0, tag }).collect();
    b.rumors.handle_ihave(at(2_000_000), MemberId(5), &many);
    assert_eq!(b.rumors.wants_pending(), 512);
    let datagrams = b.poll(at(2_000_000));
    assert!(datagrams.iter().all(|p| p.to == [MemberId(5)]) && datagrams.len() == 3);
}

#[test]
fn without_tokens_entries_wait_but_members_do_not() {
    let mut b = bench_of(Config { bytes_per_second_max: 20_000, ..Config::lan() }, 100);
    for i in 0..5_000 {
        let put = b.put(at(0), &entry(&format!("k{i}"), 1), 0, true);
        assert_eq!(put, if i < 4_096 { Put::Hot } else { Put::LeftToRepair });
    }
    assert_eq!(
        b.put(at(0), &entry("k0", 2), 0, true),
        Put::Hot,
        "a newer version takes the place of the older"
    );
    assert_eq!(b.put(at(0), &entry("k4999", 2), 0, true), Put::LeftToRepair);
    assert_eq!((b.rumors.hot_entries(), b.rumors.metrics().unflushed_dropped), (4_096, 905));
    assert!(!b.rumors.backlogged(at(999_000)) && b.rumors.backlogged(at(1_001_000)));
    let first = b.run(at(5_000_000));
    let sent: usize =
        first.iter().map(|(_, p)| p.messages.iter().map(message_bytes).sum::<usize>() * p.to.len()).sum();
    assert!((40_000..105_000).contains(&sent), "{sent}");
    b.rumors.put_claim(at(5_000_000), suspicion(7), &mut b.rng);
    let soon = b.run(at(5_006_000));
    let claims = soon.iter().find(|(_, p)| p.messages.iter().any(|m| matches!(m, Message::Claims(_))));
    assert_eq!(claims.map(|(_, p)| p.to.len()), Some(4), "claims do not wait behind entries");
    assert!(b.rumors.backlogged(at(5_006_000)));
    b.run(at(60_000_000));
    assert!(!b.rumors.backlogged(at(60_000_000)), "all left in the end");
    assert!(b.rumors.hot_entries() == 0);
}

#[test]
fn the_smallest_budget_still_moves_full_datagrams() {
    let mut b = bench_of(Config { bytes_per_second_max: 10_000, ..Config::lan() }, 100);
    let big = Arc::new(Entry { value: vec![1; 1_300].into(), ..(*entry("big", 1)).clone() });
    b.put(at(0), &big, 0, true);
    let all = b.run(at(10_000_000));
    assert_eq!(whole(&all), 4);
}

#[test]
fn received_entries_beyond_the_cap_leave_the_hot_list_oldest_first() {
    let mut b = bench_of(Config { bytes_per_second_max: 10_000, ..Config::lan() }, 100);
    for i in 0..5_000u64 {
        b.put(at(i), &entry(&format!("k{i}"), 1), 1, false);
    }
    assert_eq!((b.rumors.hot_entries(), b.rumors.metrics().hot_dropped), (4_096, 904));
    assert!(!b.rumors.knows(b.hasher.entry_rumor(&entry("k903", 1))));
    assert!(b.rumors.knows(b.hasher.entry_rumor(&entry("k904", 1))));
}

#[test]
fn alone_nothing_leaves_and_nothing_stays_hot() {
    let mut b = bench_of(Config::lan(), 1);
    for i in 0..3_000 {
        b.put(at(0), &entry(&format!("k{i}"), 1), 0, true);
    }
    b.rumors.put_claim(at(0), suspicion(7), &mut b.rng);
    assert!(b.run(at(2_000_000)).is_empty());
    assert_eq!((b.rumors.hot_entries(), b.rumors.hot_claims(), b.rumors.deadline()), (0, 0, Mono::FAR));
}

#[test]
fn with_feedback_useless_contacts_cool_a_rumor_and_useful_ones_keep_it() {
    let mut config = Config::lan();
    config.gossip.interest = Interest::Demers { feedback: true, loss: Loss::Counter, k: 2 };
    let mut b = bench_of(config, 100);
    let news = entry("k", 1);
    let id = b.hasher.entry_rumor(&news);
    b.put(at(0), &news, 0, true);
    let mut ticks = 0;
    for ms in (300..2_300).step_by(200) {
        ticks += b.run(at(ms * 1000)).len();
        b.want(at(ms * 1000), &[id], &[]);
        b.rumors.handle_seen(at(ms * 1000), &[id]);
        b.poll(at(ms * 1000));
        assert!(b.rumors.knows(id), "useful contacts keep it hot beyond R");
    }
    assert!(ticks >= 10);
    for ms in (2_300..2_900).step_by(200) {
        b.rumors.handle_seen(at(ms * 1000), &[id]);
        b.run(at((ms + 200) * 1000));
    }
    assert!(!b.rumors.knows(id), "two useless cycles running end it");
    // The other side: what was known is told to those who count it.
    b.rumors.handle_known_ids(MemberId(5), &[id]);
    b.rumors.set_sender(true);
    b.rumors.handle_known_ids(MemberId(4), &[id]);
    b.rumors.handle_known_record(MemberId(4), id);
    let told = b.poll(at(3_000_000));
    assert_eq!((told.len(), &told[0].messages[..]), (1, &[Message::Seen(vec![id, id])][..]));
    // Answers that never come do not keep it hot for ever.
    b.put(at(3_000_000), &entry("k", 2), 0, true);
    b.run(at(20_000_000));
    assert_eq!((b.rumors.hot_entries(), b.rumors.deadline()), (0, Mono::FAR));
}

/// Mean of each figure and its standard error.
fn means(runs: u64, rule: Rule, direction: Direction) -> [(f64, f64); 3] {
    let mut rng = Rng::from_number(1987);
    let figures: Vec<Figures> =
        (0..runs).map(|_| Epidemic::new(1000, rule, direction).run(&mut rng)).collect();
    let of = |pick: fn(&Figures) -> f64| {
        let mean = figures.iter().map(pick).sum::<f64>() / runs as f64;
        let square = figures.iter().map(|f| (pick(f) - mean).powi(2)).sum::<f64>() / (runs - 1) as f64;
        (mean, (square / runs as f64).sqrt())
    };
    [of(|f| f.residue), of(|f| f.traffic), of(|f| f64::from(f.last_delay))]
}

/// (s, m, t_last) of the exact conventions in algorithms.md 2.2, with the unit of their last printed digit.
fn check(table: &str, runs: u64, rule: Rule, direction: Direction, expected: [(f64, f64); 3]) {
    let measured = means(runs, rule, direction);
    for (which, ((mean, error), (value, unit))) in
        ["s", "m", "t_last"].iter().zip(measured.iter().zip(expected))
    {
        let off = (mean - value).abs();
        assert!(
            off <= 4.0 * error + unit / 2.0,
            "{table} k={} {which}: {mean} +- {error}, expected {value}",
            rule.k
        );
    }
}

#[test]
fn demers_tables_of_1987() {
    let feedback_counter = |k| Rule { feedback: true, loss: Loss::Counter, k };
    let blind_coin = |k| Rule { feedback: false, loss: Loss::Coin, k };
    let table_1 = [
        [(0.1745, 1e-4), (1.75, 0.01), (16.7, 0.1)],
        [(0.0366, 1e-4), (3.30, 0.01), (17.1, 0.1)],
        [(0.0109, 1e-4), (4.53, 0.01), (17.4, 0.1)],
        [(0.0036, 1e-4), (5.64, 0.01), (17.6, 0.1)],
        [(0.00125, 1e-5), (6.68, 0.01), (17.8, 0.1)],
    ];
    for (k, row) in (1..).zip(table_1) {
        check("table 1", 150, feedback_counter(k), Direction::Push, row);
    }
    // k = 1 is a single walker until it meets a site that knows: t_last has the closed form of the birthday problem.
    let (mut walks_on, mut exact) = (1.0, 0.0);
    for known in 1..1000 {
        walks_on *= 1.0 - f64::from(known - 1) / 999.0;
        exact += walks_on;
    }
    assert!((exact - 38.0_f64).abs() < 1.5, "the paper prints 38: {exact}");
    check("table 2", 1500, blind_coin(1), Direction::Push, [(0.96, 0.01), (0.04, 0.01), (exact, 0.0)]);
    let table_2 = [
        (2, [(0.20, 0.01), (1.6, 0.1), (33.0, 1.0)]),
        (3, [(0.060, 1e-3), (2.8, 0.1), (32.0, 1.0)]),
        (4, [(0.021, 1e-3), (3.9, 0.1), (32.0, 1.0)]),
        (5, [(0.0069, 1e-4), (4.95, 0.01), (32.0, 0.1)]),
    ];
    for (k, row) in table_2 {
        check("table 2", 150, blind_coin(k), Direction::Push, row);
    }
    let table_3 = [
        [(3.2e-2, 1e-3), (2.70, 0.01), (17.4, 0.1)],
        [(5.8e-4, 1e-5), (4.49, 0.01), (15.2, 0.1)],
        [(4.0e-6, 1e-5), (6.09, 0.01), (14.0, 0.1)],
    ];
    for (k, row) in (1..).zip(table_3) {
        check("table 3", 300, feedback_counter(k), Direction::Pull, row);
    }
}
