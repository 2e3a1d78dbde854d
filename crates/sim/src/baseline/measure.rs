//! Figures of the baseline, beside which ours are read.

use std::time::Duration;

use hearsay_proto::rng::Rng;
use serde::Serialize;

use super::{Cluster, Liveness, Settings};
use crate::network::{Loss, Network};
use crate::stats::Quantiles;

/// Figures of [`crash`].
#[derive(Clone, Debug, Serialize)]
pub struct CrashFigures {
    /// Members.
    pub members: usize,
    /// Share of datagrams lost.
    pub loss: f64,
    /// Crashes measured.
    pub crashes: usize,
    /// From the crash to the first suspicion anywhere, s.
    pub first_suspicion_s: Quantiles,
    /// To the first death.
    pub first_death_s: Quantiles,
    /// To the last member that learns of the death.
    pub last_member_s: Quantiles,
    /// Crashes of which some member had not learnt after 120 s.
    pub unfinished: usize,
    /// Member-hours without any crash, for the rows below.
    pub member_hours: f64,
    /// Deaths of healthy members, in any view, per member-hour; one member and incident counts once.
    pub false_deaths_per_member_hour: f64,
    /// Suspicions of healthy members, counted likewise.
    pub false_suspicions_per_member_hour: f64,
    /// Payload bytes per member and second without a crash.
    pub payload_bytes_per_second: f64,
    /// Datagrams per member and second.
    pub datagrams_per_second: f64,
    /// Bytes of state exchanges per member and second.
    pub exchange_bytes_per_second: f64,
}

fn cluster(seed: u64, members: usize, loss: f64, wan: bool, tcp: bool) -> Cluster {
    let mut cluster = Cluster::new(seed, members, Settings { tcp, ..Settings::default() });
    if wan {
        cluster.network = Network::wan(members);
    }
    cluster.network.loss = Loss::Independent(loss);
    cluster
}

/// `crashes` runs in each of which one random member crashes, and one run of `member_hours` without a crash.
pub fn crash(
    seed: u64,
    members: usize,
    loss: f64,
    wan: bool,
    tcp: bool,
    crashes: usize,
    member_hours: f64,
) -> CrashFigures {
    let (mut suspected, mut died, mut last) = (Vec::new(), Vec::new(), Vec::new());
    let mut unfinished = 0;
    for run in 0..crashes as u64 {
        let mut cluster = cluster(seed.wrapping_add(run), members, loss, wan, tcp);
        let mut rng = Rng::from_number(seed.wrapping_add(run) ^ 0xc0);
        cluster.run(Duration::from_secs(10) + rng.up_to(Duration::from_secs(5)));
        let victim = rng.below(members);
        cluster.crash(victim);
        let at = cluster.now;
        let all = cluster.run_until(Duration::from_secs(120), |c| {
            c.up().all(|m| matches!(c.member(m).sees(victim), Liveness::Dead | Liveness::Forgotten))
        });
        unfinished += usize::from(all.is_none());
        let times = |wanted: Liveness| {
            let of_victim = cluster.told.iter().filter(move |t| t.subject as usize == victim);
            of_victim
                .filter(move |t| t.liveness == wanted && t.at >= at)
                .map(move |t| t.at.since(at).as_secs_f64())
        };
        suspected.extend(times(Liveness::Suspect).reduce(f64::min));
        died.extend(times(Liveness::Dead).reduce(f64::min));
        last.extend(times(Liveness::Dead).reduce(f64::max));
    }
    let mut quiet = cluster(seed ^ 0x5115, members, loss, wan, tcp);
    let time = Duration::from_secs_f64(member_hours * 3600.0 / members as f64);
    quiet.run(time);
    let member_seconds = members as f64 * time.as_secs_f64();
    CrashFigures {
        members,
        loss,
        crashes,
        first_suspicion_s: Quantiles::of(suspected),
        first_death_s: Quantiles::of(died),
        last_member_s: Quantiles::of(last),
        unfinished,
        member_hours,
        false_deaths_per_member_hour: incidents(&quiet, Liveness::Dead) as f64 / member_hours,
        false_suspicions_per_member_hour: incidents(&quiet, Liveness::Suspect) as f64 / member_hours,
        payload_bytes_per_second: quiet.payload_bytes as f64 / member_seconds,
        datagrams_per_second: quiet.datagrams as f64 / member_seconds,
        exchange_bytes_per_second: quiet.exchange_bytes as f64 / member_seconds,
    }
}

/// Counts per subject the moments at which it changes to `wanted` in the first view after nobody held it so.
fn incidents(cluster: &Cluster, wanted: Liveness) -> usize {
    let members = cluster.members.len();
    let mut holders = vec![0u32; members];
    let mut held = vec![false; members * members];
    let mut count = 0;
    for told in &cluster.told {
        let subject = told.subject as usize;
        let slot = &mut held[told.member as usize * members + subject];
        let now = told.liveness == wanted;
        match (*slot, now) {
            (false, true) => {
                count += usize::from(holders[subject] == 0);
                holders[subject] += 1;
            }
            (true, false) => holders[subject] -= 1,
            _ => {}
        }
        *slot = now;
    }
    count
}

/// False suspicions per member-hour at independent loss `p` without the stream ping: each second one member is probed;
/// the ping or its ack is lost, and each of three relays loses one of four legs.
pub fn false_suspicions_theory(p: f64) -> f64 {
    let direct = 1.0 - (1.0 - p).powi(2);
    let relayed = 1.0 - (1.0 - p).powi(4);
    3600.0 * direct * relayed.powi(3)
}

/// Halves for 60 s, then whole for 120 s: did each side bury the other, and are the views full again?
pub fn split(seed: u64, members: usize) -> (Option<Duration>, bool) {
    let mut cluster = cluster(seed, members, 0.0, false, true);
    cluster.run(Duration::from_secs(10));
    let half = members / 2;
    cluster.network.partition(|m| u32::from(m >= half));
    let cut = cluster.now;
    let buried = cluster.run_until(Duration::from_secs(60), |c| {
        c.up().all(|m| c.member(m).living() == if m < half { half } else { members - half })
    });
    cluster.run(Duration::from_secs(60).saturating_sub(cluster.now.since(cut)));
    cluster.network.heal();
    let healed = cluster.run_until(Duration::from_secs(120), Cluster::views_full);
    (buried, healed.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_bytes_are_memberlists() {
        let f = crash(1, 100, 0.0, false, true, 0, 5.0);
        assert!((f.payload_bytes_per_second - 88.0).abs() < 1.0, "{f:?}");
        assert!((f.datagrams_per_second - 2.0).abs() < 0.02, "{f:?}");
        assert!((f.exchange_bytes_per_second - 133.0).abs() < 7.0, "{f:?}");
        assert_eq!(f.false_suspicions_per_member_hour, 0.0);
    }

    #[test]
    fn crashes_are_found_as_fast_as_memberlist_finds_them() {
        let ten = crash(1, 10, 0.0, false, true, 40, 1.0);
        assert!((ten.last_member_s.median - 6.0).abs() < 0.6, "{ten:?}");
        let hundred = crash(1, 100, 0.0, false, true, 24, 1.0);
        assert!((hundred.last_member_s.median - 10.1).abs() < 0.7, "{hundred:?}");
        assert!((hundred.first_suspicion_s.median - 1.76).abs() < 0.6, "{hundred:?}");
        assert_eq!(ten.unfinished + hundred.unfinished, 0);
    }

    #[test]
    fn false_suspicions_follow_the_closed_form() {
        let expected = false_suspicions_theory(0.05);
        assert!((expected - 2.24).abs() < 0.01, "{expected}");
        // 300 member-hours: 670 expected, one standard deviation is 4 %.
        let f = crash(3, 100, 0.05, false, false, 0, 300.0);
        let seen = f.false_suspicions_per_member_hour;
        assert!((seen / expected - 1.0).abs() < 0.15, "{seen} {expected}");
        let with_stream = crash(3, 100, 0.05, false, true, 0, 100.0).false_suspicions_per_member_hour;
        assert!(with_stream < expected / 3.0, "{with_stream}");
    }

    #[test]
    fn splits_do_not_heal() {
        let (buried, healed) = split(1, 10);
        assert!(buried.is_some() && !healed, "{buried:?} {healed}");
    }
}
