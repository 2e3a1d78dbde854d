//! What sessions cost and that they end equal, with and without loss.

use super::*;

/// Rounds of comparison and session until equal: rounds, datagrams, bytes, ms.
fn repair(n: usize, d: usize, loss: f64, seed: u64) -> (usize, u64, u64, u64) {
    let mut net = Net::new(2, loss, seed);
    net.differ(n, d);
    let began = net.now_us;
    for round in 0..40 {
        if net.is_equal() {
            return (round, net.datagrams, net.bytes, (net.now_us - began) / 1000);
        }
        net.compare(round % 2, (round + 1) % 2, true);
        net.run(Duration::from_secs(1));
    }
    panic!("N {n}, d {d}, loss {loss}, seed {seed}: not equal after 40 rounds");
}

#[test]
fn sessions_make_two_replicas_equal() {
    println!("N, d: rounds, datagrams, bytes");
    for n in [100, 10_000] {
        for d in [0, 1, 10, 100, 1000] {
            let (rounds, datagrams, bytes, _) = repair(n, d, 0.0, 1);
            println!("{n}, {d}: {rounds}, {datagrams}, {bytes}");
            assert_eq!(rounds, usize::from(d > 0), "one session repairs everything");
            assert_eq!(d == 0, datagrams == 0);
        }
    }
}

/// Bytes stay within 1.5 times those of the study (dissemination-design.md 3.1, walk; N = 10^5 interpolated).
#[test]
fn what_a_session_costs() {
    println!("N = 10^5, d: datagrams, bytes");
    for (d, most) in [(10, 3_800), (100, 30_000), (1000, 250_000)] {
        let (rounds, datagrams, bytes, ms) = repair(100_000, d, 0.0, 1);
        println!("{d}: {datagrams}, {bytes}, {ms} ms");
        assert_eq!(rounds, 1);
        assert!(bytes < most * 3 / 2, "{d}: {bytes}");
    }
}

#[test]
fn a_long_walk_stays_below_what_a_peer_serves_in_a_second() {
    let mut net = Net::new(2, 0.0, 1);
    net.differ(100_000, 3_000);
    net.compare(0, 1, true);
    net.run(Duration::from_secs(20));
    assert!(net.is_equal());
    let requests = net.by_kind["walk"].0 + net.by_kind["list"].0;
    println!("3,000 differences in 10^5: {requests} requests, {} B", net.bytes);
    assert!(requests > 64, "{requests}");
    assert_eq!(net.peers.iter().map(|p| p.sync.metrics().requests_dropped).sum::<u64>(), 0);
}

#[test]
fn three_members_become_equal_by_pairs() {
    for (seed, loss) in [(1, 0.0), (2, 0.2)] {
        let mut net = Net::new(3, loss, seed);
        net.differ(2_000, 100);
        for k in 0..40 {
            net.put(2, &entry(900_000 + k, 0));
        }
        let mut rounds = 0;
        while !net.is_equal() {
            rounds += 1;
            assert!(rounds <= 12, "loss {loss}: {rounds} rounds");
            for (a, b) in [(0, 1), (1, 2), (2, 0)] {
                net.compare(a, b, true);
            }
            net.run(Duration::from_secs(1));
        }
        println!("three members, loss {loss}: {rounds} rounds, {} datagrams, {} B", net.datagrams, net.bytes);
        assert_eq!(net.peers[0].store.len(), net.peers[2].store.len());
    }
}

#[test]
fn an_empty_member_gets_everything() {
    let mut net = Net::new(2, 0.05, 4);
    for k in 0..20_000 {
        net.put(1, &entry(k, 0));
    }
    net.reset();
    for _ in 0..10 {
        net.compare(0, 1, true);
        net.run(Duration::from_secs(2));
    }
    assert!(net.is_equal());
    println!("20,000 records to an empty member: {} datagrams, {} B", net.datagrams, net.bytes);
    assert!(net.bytes < 20_000 * 170, "{}", net.bytes);
}

#[test]
fn a_small_budget_only_slows_it_down() {
    let mut config = Config::lan();
    config.bytes_per_second_max = 100_000;
    let mut net = Net::with(config, 2, 0.0, 5);
    net.differ(1_000, 2_000);
    let began = net.now_us;
    while !net.is_equal() {
        net.compare(0, 1, true);
        net.run(Duration::from_secs(1));
        let seconds = (net.now_us - began) / 1_000_000;
        assert!(seconds < 60, "not equal after {seconds} s");
        // Each side has a quarter of its second for repair, what others leave, and the depth.
        assert!(net.bytes < (seconds + 1) * 250_000, "{} B in {seconds} s", net.bytes);
    }
    println!("2,000 differences at 100 kB/s: {} s, {} B", (net.now_us - began) / 1_000_000, net.bytes);
}

#[test]
fn loss_of_a_fifth_only_slows_it_down() {
    println!("N, d: mean rounds, datagrams, bytes over 10 seeds at 20 %");
    for n in [100, 10_000] {
        for d in [1, 10, 100, 1000] {
            let mut sum = (0, 0, 0);
            for seed in 0..10 {
                let (rounds, datagrams, bytes, _) = repair(n, d, 0.2, seed);
                assert!(rounds <= 8, "N {n}, d {d}, seed {seed}: {rounds} rounds");
                sum = (sum.0 + rounds, sum.1 + datagrams, sum.2 + bytes);
            }
            println!("{n}, {d}: {}, {}, {}", sum.0 as f64 / 10.0, sum.1 / 10, sum.2 / 10);
        }
    }
}

#[test]
fn one_difference_in_a_hundred_thousand_keys_costs_a_kilobyte() {
    for kind in [0, 2, 4] {
        let mut net = Net::new(2, 0.0, 3);
        net.differ(100_000, 0);
        match kind {
            0 => net.put(0, &entry(100_001, 0)),
            2 => net.put(1, &entry(100_001, 0)),
            _ => net.put(1, &entry(77, 5)),
        }
        net.reset();
        net.compare(0, 1, true);
        net.run(Duration::from_secs(1));
        println!("10^5, 1 ({kind}): {} datagrams, {} B, {:?}", net.datagrams, net.bytes, net.by_kind);
        assert!(net.is_equal());
        assert!(net.datagrams <= 8, "{}", net.datagrams);
        assert!(net.bytes <= 1000, "{}", net.bytes);
    }
}
